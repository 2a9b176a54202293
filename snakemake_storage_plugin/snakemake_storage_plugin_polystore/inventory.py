"""Inventories: what one listing of a plate or a folder tells about many queries at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from snakemake_interface_storage_plugins.io import IOCacheStorageInterface, Mtime

from polystore_flows.errors import NotFoundError, PolystoreError
from polystore_flows.hcs.address import parse_well
from polystore_flows.registry import backend_for, plate_store_for

from .answers import Answers
from .query import Query, parse_query, place_of
from .stores import is_marked

_SURVEYS = {"well": "image", "field": "image", "label": "label", "file": "file"}
_IN_WELL = re.compile(r"([A-Za-z0-9]+/[A-Za-z0-9]+)(/.*)?")
_SURVEYED_FILE = re.compile(r"[^/]+|tables/.+|[^/]+/[^/]+/(tables/.+|[^/]+)")


class Found(NamedTuple):
    """Something that a listing shows."""

    spellings: tuple[str, ...]
    """Queries by which it may be asked for."""
    place: str
    """See ``query.place_of``."""
    mtime: float | None = None
    size: int | None = None


@cache
def listing_of(query: str) -> str | None:
    """A name of the listing that tells of `query`; None where it must be asked for by itself.

    What a listing does not show does not exist. So a folder of images, whose wells may be real
    folders too, has none, nor has a well in an unusual spelling.
    """
    parsed = parse_query(query)
    address = parsed.address
    if address is None:
        return f"{_folder_of(query)}*"
    if parsed.among_files or parsed.kind not in _SURVEYS or not address.planes.is_all:
        return None
    inner = query.removeprefix(parsed.plate).lstrip("/")
    if address.file is not None:
        usual = bool(_SURVEYED_FILE.fullmatch(inner)) and any(
            inner == spelling for spelling in _spellings(inner)
        )
    else:
        usual = any(f"{inner}/".startswith(f"{s}/") for s in _spellings(str(address.well)))
    return f"{parsed.plate} {_SURVEYS[parsed.kind]}s" if usual else None


def take(
    query: str,
    cache: IOCacheStorageInterface,
    key: Callable[[str], str],
    answers: Answers,
    latest: float,
) -> None:
    """Fill `cache` and `answers` from the one listing that tells of `query`.

    Args:
        query: without wildcards.
        cache: Snakemake's; left alone once its time is used up.
        key: query or name of a listing -> key in the cache.
        answers: ours.
        latest: a time after this is left for ``mtime`` to refuse.

    Raises:
        PolystoreError: the plate cannot be read; one that is missing holds nothing.
    """
    if getattr(cache, "remaining_wait_time", 1) <= 0:
        return
    parsed = parse_query(query)
    if parsed.address is not None and parsed.kind not in _SURVEYS:
        return
    done: set[str] = getattr(cache.exists_in_storage, "has_inventory", set())
    listing = key(listing_of(query) or f"{parsed.plate} {_SURVEYS[parsed.kind]}s, some")
    if listing in done:
        return
    started = time.monotonic()
    everything = _listed(query, parsed)
    if everything is None:
        return
    for found in everything:
        answers.found(found.place)
        for spelling in found.spellings:
            place = key(spelling)
            cache.exists_in_storage[place] = True
            if found.mtime is not None and found.mtime <= latest:
                cache.mtime[place] = Mtime(storage=found.mtime)
            if found.size is not None:
                cache.size[place] = found.size
    done.add(listing)
    if hasattr(cache, "remaining_wait_time"):
        cache.remaining_wait_time -= time.monotonic() - started


def refresh(query: str, answers: Answers) -> None:
    """Renew `answers` that are outdated from the listing that tells of `query`, if one does."""
    parsed = parse_query(query)
    if listing_of(query) is not None or parsed.kind in _SURVEYS:
        for found in _listed(query, parsed) or ():
            answers.found(found.place)


def _listed(query: str, parsed: Query) -> Iterator[Found] | None:
    """All that the listing shows; None where the store has none."""
    if parsed.address is None:
        return _list_folder(_folder_of(query))
    try:
        times = plate_store_for(parsed.plate).survey(parsed.plate, _SURVEYS[parsed.kind])
    except NotFoundError:
        times = {}
    except PolystoreError:
        if not parsed.among_files:  # else a folder that happens to be called like a well
            raise
        times = {}
    return None if times is None else _parts(parsed, times)


def _parts(parsed: Query, times: dict[str, float]) -> Iterator[Found]:
    plate = place_of(parsed.plate)
    for path, mtime in times.items():
        spellings = _spellings(path)
        yield Found(
            tuple(f"{parsed.plate}/{s}" for s in spellings), f"{plate}/{spellings[0]}", mtime
        )


def _list_folder(start: str) -> Iterator[Found]:
    """What lies in the folder `start`; a folder's own time is left for its store to tell."""
    folder = f"{start}." if start.endswith(":") else start.rstrip("/")
    try:
        entries = backend_for(folder).scan(folder)
    except NotFoundError:
        return
    for name, stat in entries.items():
        query = f"{start}{name}"
        if stat is None and is_marked(query):
            continue
        yield Found((query,), place_of(query), stat and stat.mtime, stat and stat.size)


def _folder_of(query: str) -> str:
    """`query` without its last part: ``disk:///raw/`` or ``disk:``."""
    head, slash, _ = query.rpartition("/")
    return head + slash if slash else query.partition(":")[0] + ":"


@cache
def _spellings(path: str) -> tuple[str, ...]:
    """`path` below a plate with its well as ``B/3``, as it stands, and as ``B/03``."""
    match = _IN_WELL.fullmatch(path)
    if match is None or not match[1].partition("/")[2].isdecimal():
        return (path,)
    well, below = parse_well(match[1]), match[2] or ""
    texts = (str(well), match[1], f"{well.row}/{well.column.zfill(2)}")
    return tuple(f"{text}{below}" for text in dict.fromkeys(texts))
