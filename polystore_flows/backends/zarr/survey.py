"""All parts of a plate with the times they were written, from one look at its JSON and folders.

For workflow engines, which ask about every well of every plate whenever they start: nothing of
zarr is imported, no document is checked further than it is needed here, no array is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import CorruptMetadataError, NotFoundError
from ...hcs import ngff
from ...hcs.address import TEXT_SUFFIXES
from .nodes import OURS, attributes_in

_DOCUMENTS = ("zarr.json", ".zattrs")


def survey(root: Path, uri: str, kind: str) -> dict[str, float]:
    """Stored paths of parts of the plate in the folder `root` -> seconds since 1970.

    Args:
        root: folder of the plate.
        uri: of the plate, for errors.
        kind: ``image`` (listed wells and fields), ``label`` or ``file``; see ``PlateStore``.

    Raises:
        NotFoundError: there is no plate.
        CorruptMetadataError: its JSON or that of a listed well is none.
    """
    if kind == "file":
        _attributes(f"{root}", uri)
        return dict(_files(f"{root}"))
    found: dict[str, float] = {}
    for well, fields in _listed(f"{root}", uri):
        times = {field: _time(f"{root}/{well}/{field}") for field in fields}
        if kind == "image":
            found[well] = max(times.values(), default=0.0)
            found |= {f"{well}/{field}": time for field, time in times.items()}
        else:
            for field in fields:
                found |= _labels(f"{root}/{well}/{field}", f"{well}/{field}", uri)
    return found


def _listed(root: str, uri: str) -> Iterator[tuple[str, list[str]]]:
    """Stored path and fields of each well that the plate lists."""
    attributes = _attributes(root, uri)
    plate = attributes.get("ome", attributes).get("plate")
    if plate is None and OURS in attributes:  # NGFF knows no plate without wells
        return
    for well in _paths(plate, "wells", uri):
        where = f"{uri}/{well}"
        try:
            attributes = _attributes(f"{root}/{well}", where)
        except NotFoundError:  # removed just now
            continue
        yield well, _paths(attributes.get("ome", attributes).get("well"), "images", where)


def _labels(field: str, path: str, uri: str) -> dict[str, float]:
    try:
        attributes = _attributes(f"{field}/labels", f"{uri}/{path}/labels")
    except NotFoundError:
        return {}
    names = ngff.read_labels(attributes)
    return {f"{path}/labels/{name}": _time(f"{field}/labels/{name}") for name in names}


def _files(root: str) -> Iterator[tuple[str, float]]:
    """Tables and texts beside the arrays: of the plate, and of its wells, listed or not."""
    start = len(root) + 1
    todo = [(root, 0)]
    while todo:
        folder, depth = todo.pop()
        inside_tables = "/tables" in folder[start - 1 :]
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    if depth < 2 or inside_tables or entry.name == "tables":
                        todo.append((entry.path, depth + 1))
                elif entry.name.lower().endswith(TEXT_SUFFIXES) and entry.is_file():
                    yield entry.path[start:], entry.stat().st_mtime


def _attributes(group: str, where: str) -> dict[str, Any]:
    """As ``nodes.read_attributes``, at half its price."""
    for name in _DOCUMENTS:
        try:
            with open(f"{group}/{name}", "rb") as file:  # noqa: PTH123
                content = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except ValueError as error:
            raise CorruptMetadataError(f"{where}: {group}/{name} is no JSON: {error}") from error
        if isinstance(content, dict):
            return attributes_in(Path(name), content, where)
        raise CorruptMetadataError(f"{where}: {group}/{name} holds no object")
    raise NotFoundError(f"{where} is not there; {group} is no zarr group")


def _paths(listed: Any, key: str, where: str) -> list[str]:
    try:
        return [part["path"] for part in listed[key]]
    except (KeyError, TypeError) as error:
        raise CorruptMetadataError(f"{where} lists no {key}") from error


def _time(group: str) -> float:
    """As ``nodes.commit_time``."""
    for name in _DOCUMENTS:
        try:
            return os.stat(f"{group}/{name}").st_mtime  # noqa: PTH116
        except FileNotFoundError:
            continue
    return 0.0
