"""What a plate holds, as a tree of names: rows, wells, fields, label images, tables.

A field and a label image count as files, for they are what one loads; a plate, a row, a well
and a folder of tables as directories. What no list of the plate names is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...hcs import ngff
from ...hcs.address import TEXT_SUFFIXES
from .nodes import find_document, read_attributes

if TYPE_CHECKING:
    from .plate import ZarrPlate


def is_directory(plate: ZarrPlate, inner: str) -> bool:
    """Whether `inner`, a stored path, is a plate, a row with wells, a well or a folder."""
    if not inner or inner in plate.wells or any(w.startswith(f"{inner}/") for w in plate.wells):
        return True
    place, parts = plate.root / inner, inner.split("/")
    if len(parts) > 2 and parts[2] in plate.present("/".join(parts[:2])):
        return parts[3:] == ["tables"] and place.is_dir()
    return place.is_dir() and (place.name == "tables" or find_document(place) is None)


def children(plate: ZarrPlate, inner: str) -> tuple[list[str], list[str]]:
    """Names of the files and of the directories directly in the directory `inner`."""
    start = f"{inner}/" if inner else ""
    files = set(plate.present(inner))
    folders = {w.removeprefix(start).split("/")[0] for w in plate.wells if w.startswith(start)}
    place = plate.root / inner
    for entry in place.iterdir() if place.is_dir() else ():
        if entry.is_dir():
            if is_directory(plate, f"{start}{entry.name}"):
                folders.add(entry.name)
        elif entry.name.lower().endswith(TEXT_SUFFIXES) and entry.name != "zarr.json":
            files.add(entry.name)
    return sorted(files), sorted(folders)


def walk(plate: ZarrPlate, inner: str, *, recursive: bool) -> Iterator[str]:
    """Stored paths of the files in the directory `inner`, and with `recursive` of all below."""
    start = f"{inner}/" if inner else ""
    files, folders = children(plate, inner)
    for name in files:
        yield start + name
        if recursive and inner in plate.wells:
            for label in label_names(plate, inner, name):
                yield f"{start}{name}/labels/{label}"
            if is_directory(plate, f"{start}{name}/tables"):
                yield from walk(plate, f"{start}{name}/tables", recursive=True)
    for name in folders if recursive else ():
        yield from walk(plate, start + name, recursive=True)


def label_names(plate: ZarrPlate, well: str, field: str) -> tuple[str, ...]:
    """Label images that a field lists."""
    group = plate.group(well, field) / "labels"
    return ngff.read_labels(read_attributes(group, plate.uri), plate.uri) if group.is_dir() else ()
