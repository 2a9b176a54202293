"""How a staged part becomes part of a plate: rename it, then list it, under the plate's lock.

The well's JSON is replaced after its fields are in place, and the plate's JSON last, so a
listed well is a complete well, and writers in other threads and processes never lose one
another's wells. Functions that need the lock take what `changing` gives, or say so.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...hcs import ngff
from ...metadata import atomic_write_json, file_lock, read_json
from ...settings import get_settings
from .nodes import (
    OURS,
    attributes_in,
    document_path,
    find_document,
    make_group,
    read_attributes,
)
from .plate import ZarrPlate
from .staging import put, sync_tree


@contextlib.contextmanager
def changing(plate: ZarrPlate) -> Iterator[dict[str, Any]]:
    """Hold the plate's lock; gives the content of the plate's JSON file, just read."""
    with file_lock(plate.document_path, timeout=get_settings().lock_timeout):
        yield read_json(plate.document_path)


def place_well(
    plate: ZarrPlate, folder: Path, well: str, fields: Iterable[str], *, keep_others: bool
) -> None:
    """Rename the staged well `folder`, or only its `fields`, into the plate. Needs the lock."""
    target = plate.group(well)
    _place_row(plate, folder.parent / "row", target.parent)
    present = plate.present(well)
    if present and keep_others:
        for field in fields:
            put(folder / field, target / field, plate.root)
        set_fields(plate, well, ordered({*present, *fields}))
        return
    if (target / "tables").is_dir():  # tables outlive the images they may have been made from
        shutil.copytree(target / "tables", folder / "tables")
        sync_tree(folder / "tables")
    put(folder, target, plate.root)


def list_well(plate: ZarrPlate, content: dict[str, Any], well: str, like: Any) -> None:
    """List `well`, which is complete, in the plate's JSON. Needs the lock.

    Args:
        plate: whose lock is held.
        content: what `changing` gave.
        well: stored path.
        like: anything with the shape and dtype of the plate's fields.
    """
    document = plate.document or ngff.PlateDocument(plate.layout, (), plate.name, 1, plate.version)
    ours = dict(plate.ours)
    if ours:
        ours["field"] = {"shape": list(like.shape), "dtype": str(like.dtype)}
    replace_document(plate, content, document.with_well(well, len(plate._fields(well))), ours)


def unlist_wells(plate: ZarrPlate, content: dict[str, Any], wells: tuple[str, ...]) -> None:
    """Take `wells` off the plate's JSON. Needs the lock."""
    if not wells or plate.document is None:
        return
    document = plate.document.without_wells(wells)
    ours = dict(plate.ours)
    if not document.wells:
        ours.pop("field", None)  # an empty plate takes fields of any shape again
        ours |= _grid(plate)
    replace_document(plate, content, document, ours)


def unlist_field(plate: ZarrPlate, content: dict[str, Any], well: str, field: str) -> bool:
    """Take a field off its well's JSON, and a well that has no other off the plate's.

    Needs the lock. Returns whether the well is still listed.
    """
    rest = [name for name in plate.present(well) if name != field]
    if rest:
        set_fields(plate, well, rest)
    else:
        unlist_wells(plate, content, (well,))
    return bool(rest)


def replace_document(
    plate: ZarrPlate,
    content: dict[str, Any],
    document: ngff.PlateDocument | None,
    ours: dict[str, Any],
) -> None:
    """Replace the plate's JSON; keys that are not ours to know stay. Needs the lock."""
    attributes = attributes_in(plate.document_path, content, plate.uri)
    body = attributes.setdefault("ome", {}) if plate.version == "0.5" else attributes
    old = body.pop("plate", {})
    if document is not None and document.wells:  # NGFF knows no plate without wells
        made = ngff.plate_attributes(document)
        body.update(made.get("ome", made))
        body["plate"] = old | body["plate"]  # acquisitions, for example
    elif plate.version == "0.5" and not set(body) - {"version"}:
        attributes.pop("ome")
    if plate.version == "0.5":
        content["attributes"] = attributes
    if ours:
        attributes[OURS] = ours
    atomic_write_json(plate.document_path, content)


def set_fields(plate: ZarrPlate, well: str, fields: list[str]) -> None:
    """Replace the list of fields in a well's JSON; what else it says of each stays. Needs the lock.

    A field says to which acquisition it belongs, for example.
    """
    attributes = read_attributes(plate.group(well), f"{plate.uri}/{well}")
    body = attributes.get("ome", attributes).get("well", {})
    known = {image["path"]: image for image in body.get("images", ())}
    made = ngff.well_attributes(fields, plate.version)
    images = [known.get(field, {"path": field}) for field in fields]
    made.get("ome", made)["well"]["images"] = images
    _set(plate, plate.group(well), made)


def set_labels(plate: ZarrPlate, folder: Path, names: list[str]) -> None:
    """Replace the list of label images in a ``labels`` group. Needs the lock."""
    _set(plate, folder, ngff.labels_attributes(names, plate.version))


def ordered(fields: Iterable[str]) -> list[str]:
    """Field names by number, then by text."""
    return sorted(fields, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))


def _place_row(plate: ZarrPlate, folder: Path, row: Path) -> None:
    if find_document(row) is not None:
        return
    make_group(folder, row_attributes(plate), plate.version)
    if row.is_dir():  # it holds a well's tables, or its writer was killed
        for part in folder.iterdir():
            part.replace(row / part.name)
    else:
        put(folder, row, plate.root)


def row_attributes(plate: ZarrPlate) -> ngff.Attributes:
    """What a row's group holds: a copy of what the plate was made with, for `rebuild`."""
    return {OURS: _grid(plate) | {k: v for k, v in plate.ours.items() if k != "field"}}


def _grid(plate: ZarrPlate) -> dict[str, Any]:
    """What an empty plate needs to be opened again."""
    return {
        "name": plate.name,
        "rows": list(plate.rows),
        "columns": list(plate.columns),
        "channels": [{"name": c.name, "color": c.color} for c in plate.channel_info],
        "pixel_size": list(plate.pixel_size),
    }


def _set(plate: ZarrPlate, group: Path, made: ngff.Attributes) -> None:
    """Replace what NGFF says of `group`; keep what others wrote there."""
    path = document_path(group, plate.version)
    content = read_json(path)
    attributes = attributes_in(path, content, str(path))
    attributes.update(made)
    if plate.version == "0.5":
        content["attributes"] = attributes
    atomic_write_json(path, content)
