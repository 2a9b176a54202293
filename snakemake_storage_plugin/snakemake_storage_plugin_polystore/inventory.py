"""Inventories: what one listing of a plate or a folder tells about many queries at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from snakemake_interface_storage_plugins.io import IOCacheStorageInterface, Mtime

from polystore_flows.errors import NotFoundError, PolystoreError
from polystore_flows.hcs.address import parse_well
from polystore_flows.registry import backend_for, plate_store_for

from .answers import Answers
from .query import Query, outline, parse_query, place_of
from .stores import is_marked

_SURVEYS = {"well": "image", "field": "image", "label": "label", "file": "file"}
_DEPTHS = {"well": 1, "field": 2}
"""Slashes in paths of those that have a survey in common."""

_IN_WELL = re.compile(r"([A-Za-z0-9]+/[A-Za-z0-9]+)(/.*)?")
_SURVEYED_FILE = re.compile(r"[^/]+|tables/.+|[^/]+/[^/]+/(tables/.+|[^/]+)")


class Found(NamedTuple):
    """Something that a listing shows."""

    spellings: Sequence[str]
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
    kind, plate, may_be_listed = outline(query)
    if kind == "path":
        return f"{_folder_of(query)}*"
    if kind not in _SURVEYS or not may_be_listed:
        return None
    inner = query.removeprefix(plate).lstrip("/")
    if kind == "file":
        usual = bool(_SURVEYED_FILE.fullmatch(inner)) and inner in _spellings(inner)
    else:
        well = "/".join(inner.split("/", 2)[:2])
        spellings = _spellings(well)
        usual = well in (spellings[0], spellings[-1])
    return f"{plate} {kind}s" if usual else None


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
        key: query -> key in the cache.
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
    listing = listing_of(query) or f"{parsed.plate} {parsed.kind}s, some"
    if listing in done:
        return
    started = time.monotonic()
    listed = _listed(query, parsed, answers)
    if listed is None:
        return
    since, everything = listed
    for found in everything:
        answers.found(found.place, since)
        current = found.mtime is not None and found.mtime <= latest
        mtime = Mtime(storage=found.mtime) if current else None
        for spelling in found.spellings:
            place = key(spelling)
            cache.exists_in_storage[place] = True
            if mtime is not None:
                cache.mtime[place] = mtime
            if found.size is not None:
                cache.size[place] = found.size
    done.add(listing)
    if hasattr(cache, "remaining_wait_time"):
        cache.remaining_wait_time -= time.monotonic() - started


def refresh(query: str, answers: Answers) -> None:
    """Renew `answers` that are outdated from the listing that tells of `query`, if one does."""
    parsed = parse_query(query)
    if listing_of(query) is not None or parsed.kind in _SURVEYS:
        since, everything = _listed(query, parsed, answers) or (0.0, ())
        for found in everything:
            answers.found(found.place, since)


def _listed(query: str, parsed: Query, answers: Answers) -> tuple[float, Iterable[Found]] | None:
    """When the listing was made and all parts of a kind that it shows; None where there is none."""
    now = time.monotonic()
    if parsed.address is None:
        return now, _list_folder(_folder_of(query))
    survey = _SURVEYS[parsed.kind]
    name = f"{parsed.plate} {survey}s"
    since, times = answers.listing(name) or (now, None)  # of wells where fields are asked for
    if times is None:
        try:
            times = plate_store_for(parsed.plate).survey(parsed.plate, survey)
        except NotFoundError:
            times = {}
        except PolystoreError:
            if not parsed.among_files:  # else a folder that happens to be called like a well
                raise
            times = {}
        if times is None:
            return None
        answers.listed(name, since, times)
    return since, _parts(parsed, times)


def _parts(parsed: Query, times: dict[str, float]) -> Iterator[Found]:
    plate, depth = place_of(parsed.plate), _DEPTHS.get(parsed.kind)
    for path, mtime in times.items():
        if depth not in (None, path.count("/")):
            continue
        spellings = _spellings(path)
        yield Found([f"{parsed.plate}/{s}" for s in spellings], f"{plate}/{spellings[0]}", mtime)


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
    if match[2] is not None:
        return tuple([f"{well}{match[2]}" for well in _spellings(match[1])])
    well = parse_well(path)
    return tuple(dict.fromkeys((str(well), path, f"{well.row}/{well.column.zfill(2)}")))
