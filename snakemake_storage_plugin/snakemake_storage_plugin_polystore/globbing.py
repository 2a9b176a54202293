"""What ``glob_wildcards`` finds: wells, fields, labels and tables from the metadata of plates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from snakemake_interface_storage_plugins.io import WILDCARD_REGEX, get_constant_prefix

import polystore_flows as ps
from polystore_flows.errors import NotFoundError, UnknownLayoutError, UnsupportedError
from polystore_flows.hcs.address import TEXT_SUFFIXES
from polystore_flows.registry import backend_for

from .query import FILES, without_constraints


def candidates(pattern: str) -> list[str]:
    """Queries without wildcards that `pattern` stands for.

    In a plate a wildcard stands for one part (row, column, field …), and ``{well}`` for row and
    column; where that fits nothing, each for as many parts as it takes. Among files that is so for
    files and folders; a folder of images is looked at as a plate if no file fits.
    """
    plate = _plate_of(without_constraints(pattern))
    if pattern.partition(":")[0] in ("file", *FILES):
        matches = _regex(pattern).fullmatch
        return [text for text in _walk(pattern) if matches(text)] or _parts(pattern, [plate])
    plates = [plate]
    if "{" in plate:
        matches = _regex(plate).fullmatch
        plates = [text for text in _walk(plate, until=".zarr") if matches(text)]
    return plates if plate == without_constraints(pattern) else _parts(pattern, plates)


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
    scheme, _, rest = _folder_of(get_constant_prefix(pattern)).partition(":")
    store = {"zarr": "disk"}.get(scheme, scheme.removeprefix("zarr+"))
    if store not in ("file", *FILES):
        raise UnsupportedError(f"{pattern}: plates of {scheme}: cannot be listed; name one plate")
    backend, todo = backend_for(f"{store}:{rest or '.'}"), [rest]
    while todo:
        folder = todo.pop()
        entries = {}
        with suppress(NotFoundError):
            entries = backend.scan(f"{store}:{folder.rstrip('/') or '.'}")
        for name, stat in sorted(entries.items()):
            yield f"{scheme}:{folder}{name}"
            link = (
                store in ("disk", "file")
                and Path(f"{folder}{name}".removeprefix("//")).is_symlink()
            )
            if stat is None and not link and not (until and name.lower().endswith(until)):
                todo.append(f"{folder}{name}/")


def _folder_of(query: str) -> str:
    head, slash, _ = query.rpartition("/")
    return head + slash if slash else query.partition(":")[0] + ":"


def _parts(pattern: str, uris: list[str]) -> list[str]:
    """Queries of parts of the plates `uris`: of the first kind that fits `pattern` at all."""
    kinds = [_wells, _fields, _files]
    if "/labels/" in pattern:
        kinds.insert(2, _labels)
    for strict in (True, False):
        matches = _regex(pattern, strict=strict).fullmatch
        for kind in kinds:
            found = [f"{uri}/{path}" for uri in uris for path in _in_plate(kind, uri)]
            fitting = [text for text in found if matches(text)]
            if fitting:
                return fitting
    return []


def _in_plate(kind: Callable[[str], Iterator[str]], uri: str) -> list[str]:
    try:
        return list(kind(uri))
    except (NotFoundError, UnknownLayoutError):  # holds nothing; a folder of no plate
        return []


def _wells(uri: str) -> Iterator[str]:
    yield from ps.open_plate(uri).wells


def _fields(uri: str) -> Iterator[str]:
    plate = ps.open_plate(uri)
    for well in plate.wells:
        yield from (f"{well}/{field}" for field in plate[well].fields)


def _labels(uri: str) -> Iterator[str]:
    plate = ps.open_plate(uri)
    for path in _fields(uri):
        well, _, field = path.rpartition("/")
        yield from (f"{path}/labels/{name}" for name in plate[well].image(field).labels)


def _files(uri: str) -> Iterator[str]:
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
