"""Inventories: what one listing of a plate or a folder tells about many queries at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from snakemake_interface_storage_plugins.io import (
    WILDCARD_REGEX,
    IOCacheStorageInterface,
    Mtime,
    get_constant_prefix,
)

import polystore_flows as ps
from polystore_flows.errors import NotFoundError, PolystoreError, UnknownLayoutError
from polystore_flows.hcs.address import TEXT_SUFFIXES, parse_well

from .local import local_suffix
from .query import Query, parse_query, without_constraints

if TYPE_CHECKING:
    from polystore_flows.hcs.plate import Plate


def listing_of(query: str) -> str | None:
    """A name of the listing that tells of `query`; None where it must be asked for by itself.

    What a listing does not show does not exist. So a folder of images, whose wells may be real
    folders too, has none, nor has a well in an unusual spelling.
    """
    parsed = parse_query(query)
    if parsed.kind == "path":
        return f"{_folder_of(query)}*"
    address = parsed.address
    if parsed.on_disk or address is None or not address.planes.is_all:
        return None
    usual = address.well is not None and f"{query}/".startswith(
        tuple(f"{parsed.plate}/{spelling}/" for spelling in _spellings(str(address.well)))
    )
    return f"{parsed.plate} {parsed.kind}s" if parsed.kind in ("well", "field") and usual else None


def take(query: str, cache: IOCacheStorageInterface, key: Callable[[str], str]) -> None:
    """Fill `cache` from the one listing that tells of `query`.

    Args:
        query: without wildcards.
        cache: Snakemake's; left alone once its time is used up.
        key: local suffix -> key in the cache.

    Raises:
        PolystoreError: the plate cannot be read; one that is missing holds nothing.
    """
    if getattr(cache, "remaining_wait_time", 1) <= 0:
        return
    parsed = parse_query(query)
    done: set[str] = getattr(cache.exists_in_storage, "has_inventory", set())
    name = listing_of(query)
    listing = key(name or f"{parsed.plate} {parsed.kind}s, some")
    if listing in done or parsed.kind not in ("path", "well", "field"):
        return
    started = time.monotonic()
    for found, status in _list(query, parsed):
        place = key(local_suffix(found))
        cache.exists_in_storage[place] = True
        if status is not None:
            cache.mtime[place] = Mtime(storage=status[0])
            cache.size[place] = status[1]
    done.add(listing)
    if hasattr(cache, "remaining_wait_time"):
        cache.remaining_wait_time -= time.monotonic() - started


def candidates(pattern: str) -> list[str]:
    """Queries without wildcards that `pattern` stands for.

    In a plate a wildcard stands for one part (row, column, field …), and ``{well}`` for row and
    column; where that fits nothing, each for as many parts as it takes. On disk that is so for
    files and folders; a folder of images is looked at as a plate if no file fits.
    """
    plate = _plate_of(without_constraints(pattern))
    if pattern.startswith(("disk:", "file:")):
        matches = _regex(pattern).fullmatch
        return [text for text in _walk(pattern) if matches(text)] or _parts(pattern, [plate])
    plates = [plate]
    if "{" in plate:
        matches = _regex(plate).fullmatch
        plates = [text for text in _walk(plate, until=".zarr") if matches(text)]
    return plates if plate == without_constraints(pattern) else _parts(pattern, plates)


def _list(query: str, parsed: Query) -> Iterator[tuple[str, tuple[float, int] | None]]:
    if parsed.kind == "path":
        yield from _list_folder(_folder_of(query), Path(parsed.uri.path).parent)
        return
    try:
        plate = ps.open_plate(parsed.plate)
    except NotFoundError:
        return
    except PolystoreError:
        if parsed.on_disk:  # a folder that happens to be called like a well
            return
        raise
    for well in plate.wells:
        paths = [well]
        if parsed.kind == "field":
            paths = [f"{well}/{field}" for field in plate[well].fields]
        for path in paths:
            try:
                status = ps.stat(f"{parsed.plate}/{path}")
            except NotFoundError:  # removed just now
                continue
            for spelling in {well, *_spellings(well)}:
                text = f"{parsed.plate}/{spelling}{path.removeprefix(well)}"
                yield text, (status.mtime, status.size)


def _list_folder(start: str, folder: Path) -> Iterator[tuple[str, tuple[float, int] | None]]:
    """Queries of what lies in `folder`; a folder's own time is left for the backend to tell."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            status = entry.stat()
        except FileNotFoundError:  # a link that does not resolve
            continue
        known = None if entry.is_dir() else (status.st_mtime, status.st_size)
        yield f"{start}{entry.name}", known


def _folder_of(query: str) -> str:
    """`query` without its last part: ``disk:///raw/`` or ``disk:``."""
    head, slash, _ = query.rpartition("/")
    return head + slash if slash else query.partition(":")[0] + ":"


def _spellings(well: str) -> tuple[str, ...]:
    address = parse_well(well)
    return f"{address.row}/{address.column}", f"{address.row}/{address.column.zfill(2)}"


def _plate_of(pattern: str) -> str:
    """The start of `pattern` that names the plate, or the plates."""
    end = re.search(r"\.zarr(?=/|$)", pattern, re.IGNORECASE)
    if end is not None:
        return pattern[: end.end()]
    return str(get_constant_prefix(pattern, strip_incomplete_parts=True)).rstrip("/")


def _walk(pattern: str, until: str | None = None) -> Iterator[str]:
    """Queries of all files and folders below the constant start of `pattern`.

    Links and folders whose name ends in `until` are not entered.
    """
    start = _folder_of(get_constant_prefix(pattern))
    todo = [(start, Path(start.partition(":")[2].removeprefix("//") or "."))]
    while todo:
        text, folder = todo.pop()
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            yield f"{text}{entry.name}"
            whole = entry.is_symlink() or (until and entry.name.lower().endswith(until))
            if entry.is_dir() and not whole:
                todo.append((f"{text}{entry.name}/", entry))


def _parts(pattern: str, uris: list[str]) -> list[str]:
    """Queries of parts of the plates `uris`: of the first kind that fits `pattern` at all."""
    plates = {}
    for uri in uris:
        with suppress(NotFoundError, UnknownLayoutError):  # holds nothing; a folder of no plate
            plates[uri] = ps.open_plate(uri)
    kinds = (
        [_wells, _fields, _labels, _files] if "/labels/" in pattern else [_wells, _fields, _files]
    )
    for strict in (True, False):
        matches = _regex(pattern, strict=strict).fullmatch
        for kind in kinds:
            found = (f"{uri}/{path}" for uri, plate in plates.items() for path in kind(uri, plate))
            fitting = [text for text in found if matches(text)]
            if fitting:
                return fitting
    return []


def _wells(_: str, plate: Plate) -> Iterator[str]:
    yield from plate.wells


def _fields(_: str, plate: Plate) -> Iterator[str]:
    for well in plate.wells:
        yield from (f"{well}/{field}" for field in plate[well].fields)


def _labels(_: str, plate: Plate) -> Iterator[str]:
    for well in plate.wells:
        for field in plate[well].fields:
            names = plate[well].image(field).labels
            yield from (f"{well}/{field}/labels/{name}" for name in names)


def _files(uri: str, _: Plate) -> Iterator[str]:
    root = ps.parse_uri(uri).path
    for found in ps.list_files(uri, extensions=TEXT_SUFFIXES, recursive=True):
        yield ps.parse_uri(found).path.removeprefix(f"{root}/")


def _regex(pattern: str, *, strict: bool = False) -> re.Pattern[str]:
    """What `pattern` matches; if `strict`, a wildcard stands for one part, ``{well}`` for two."""
    parts, last, seen = [], 0, set()
    for match in WILDCARD_REGEX.finditer(pattern):
        name = match["name"]
        one = "[^/]+/[^/]+" if name == "well" else "[^/]+"
        inside = match["constraint"] or (one if strict else ".+")
        parts.append(re.escape(pattern[last : match.start()]))
        parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{inside})")
        seen.add(name)
        last = match.end()
    return re.compile("".join([*parts, re.escape(pattern[last:])]))
