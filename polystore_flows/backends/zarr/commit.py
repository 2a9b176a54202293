"""How a staged part becomes part of a plate: rename it, then list it, under the well's lock.

The well's JSON is replaced after its fields are in place, and the plate's JSON last, so a
listed well is a complete well. Writers of different wells wait for each other only where they
list a well, and those who wait for that are listed together (``metadata``); so they never lose
one another's wells. What is not listed although it is there was left by a killed writer, or its
writer holds the well's lock. Functions that need a lock say so.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import AlreadyExistsError, MismatchError
from ...hcs import ngff
from ...hcs.layout import Layout
from ...metadata import atomic_write_json, file_lock, read_json
from ...metadata.changes import Change
from ...metadata.document import apply_change
from ...settings import get_settings
from .locks import locked
from .nodes import (
    OURS,
    attributes_in,
    document_path,
    find_document,
    make_group,
    read_attributes,
)
from .plate import ZarrPlate
from .staging import put, sync_folder, sync_tree


@contextlib.contextmanager
def changing(plate: ZarrPlate, well: str | None = None) -> Iterator[dict[str, Any]]:
    """Hold the locks of `well` (of all wells) and of the plate's JSON; gives its content."""
    with locked(plate, well), file_lock(plate.document_path, get_settings().lock_timeout):
        yield read_json(plate.document_path)


def commit_well(
    plate: ZarrPlate,
    stage: Path,
    well: str,
    images: Mapping[str, Any],
    *,
    overwrite: bool,
    keep_others: bool,
) -> None:
    """Make ``stage/well``, which is complete and synced, a well of the plate; see ``write_well``.

    Args:
        plate, well, overwrite, keep_others: as in ``write_well``.
        stage: a folder from `staged`; what is replaced comes to lie there.
        images: field -> anything with a shape and a dtype.
    """
    with locked(plate, well):
        check_well(plate, well, images, overwrite=overwrite, keep_others=keep_others)
        listed = bool(plate.present(well))
        _place_well(plate, stage / "well", well, tuple(images), keep_others=keep_others)
        try:
            _list_well(plate, well, next(iter(images.values())), listed=listed)
        except MismatchError:  # another writer's first field came before ours
            plate.group(well).rename(stage / "refused")
            check_well(plate, well, images, overwrite=overwrite, keep_others=keep_others)
            raise


def check_well(
    plate: ZarrPlate,
    well: str,
    images: Mapping[str, Any],
    *,
    overwrite: bool,
    keep_others: bool,
    like: Any = None,
) -> None:
    """Refuse what must not be overwritten, and images unlike the plate's fields.

    Args:
        plate, well, overwrite, keep_others: as in `write_well`.
        images: field -> anything with a shape and a dtype.
        like: what fields of a plate without wells are to be like; by default the first image.
    """
    present = plate.present(well)
    taken = [f for f in images if f in present] if keep_others else list(present)
    if taken and not overwrite:
        raise existing(f"{plate.uri}/{well}" + (f"/{taken[0]}" if keep_others else ""))
    for _ in range(2):  # the second time with what the plate says now
        known = _fields_like(plate, like or next(iter(images.values())))
        unlike = [f for f, i in images.items() if (i.shape, str(i.dtype)) != known]
        if not unlike:
            return
        plate.refresh()
    image, (shape, dtype) = images[unlike[0]], known
    raise MismatchError(
        f"{plate.uri}/{well}/{unlike[0]}: the array is {image.shape} {image.dtype}, but fields of "
        f"this plate are {shape} {dtype}; convert it or write it to another plate"
    )


def _fields_like(plate: ZarrPlate, like: Any) -> tuple[tuple[int, ...], str]:
    """Shape and dtype that fields of `plate` have; those of `like` while there is none."""
    known = plate.ours.get("field")
    if known is not None:
        return tuple(known["shape"]), known["dtype"]
    first = plate.first_image or like
    return first.shape, str(first.dtype)


def _place_well(
    plate: ZarrPlate, folder: Path, well: str, fields: Iterable[str], *, keep_others: bool
) -> None:
    """Rename the staged well `folder`, or only its `fields`, into the plate. Needs its lock."""
    target = plate.group(well)
    _place_row(plate, folder.parent / "row", target.parent)
    present = plate.present(well)
    if present and keep_others:
        for field in fields:
            put(folder / field, target / field)
        set_fields(plate, well, ordered({*present, *fields}))
        return
    if (target / "tables").is_dir():  # tables outlive the images they may have been made from
        shutil.copytree(target / "tables", folder / "tables")
        sync_tree(folder / "tables")
    put(folder, target)


def _list_well(plate: ZarrPlate, well: str, like: Any, *, listed: bool) -> None:
    """List `well`, which is complete, in the plate's JSON. Needs the well's lock.

    Atomic and durable, and one commit with the wells that other writers list meanwhile.

    Args:
        plate: the plate.
        well: stored path.
        like: anything with the shape and dtype of the plate's fields.
        listed: whether it is listed already; then mostly nothing is written.

    Raises:
        MismatchError: the plate was made anew, or its first field is unlike `like`.
    """
    fields = len(plate._fields(well))
    if listed and plate.document is not None and plate.document.field_count >= fields:
        return
    body, inner = _places(plate.version)
    change = Change(create=False)
    for key, value in _without_wells(plate.layout, plate.name, plate.version).items():
        change.default(*body, key, value=value)
    entry = ngff.well_entry(plate.layout, well)
    change.insert(*body, "plate", "wells", value=entry, by=("rowIndex", "columnIndex"))
    change.raise_to(*body, "plate", "field_count", value=fields)
    if plate.ours:
        change.agree(*inner, OURS, "created", value=plate.ours.get("created"))
        field = {"shape": list(like.shape), "dtype": str(like.dtype)}
        change.agree(*inner, OURS, "field", value=field)
    apply_change(plate.document_path, change, get_settings().lock_timeout)


def _places(version: ngff.Version) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of the NGFF object and of the attributes in an attributes file."""
    return (("attributes", "ome"), ("attributes",)) if version == "0.5" else ((), ())


@lru_cache(maxsize=8)
def _without_wells(layout: Layout, name: str, version: ngff.Version) -> ngff.Attributes:
    """What NGFF says of a plate before its first well, which it wants to be there at once."""
    first = f"{layout.rows[0]}/{layout.columns[0]}"
    made = ngff.plate_attributes(ngff.PlateDocument(layout, (first,), name, 1, version))
    body: ngff.Attributes = made.get("ome", made)
    body["plate"]["wells"] = []
    return body


def unlist_wells(plate: ZarrPlate, content: dict[str, Any], wells: tuple[str, ...]) -> None:
    """Take `wells` off the plate's JSON. Needs what `changing` holds."""
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

    Needs what `changing` holds. Returns whether the well is still listed.
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
    """Replace the plate's JSON; keys that are not ours to know stay.

    Needs what `changing` holds.
    """
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
    """Replace the list of fields in a well's JSON; what else it says of each stays.

    A field says to which acquisition it belongs, for example. Needs the well's lock.
    """
    attributes = read_attributes(plate.group(well), f"{plate.uri}/{well}")
    body = attributes.get("ome", attributes).get("well", {})
    known = {image["path"]: image for image in body.get("images", ())}
    made = ngff.well_attributes(fields, plate.version)
    images = [known.get(field, {"path": field}) for field in fields]
    made.get("ome", made)["well"]["images"] = images
    _set(plate, plate.group(well), made)


def set_labels(plate: ZarrPlate, folder: Path, names: list[str]) -> None:
    """Replace the list of label images in a ``labels`` group. Needs the well's lock."""
    _set(plate, folder, ngff.labels_attributes(names, plate.version))


def ordered(fields: Iterable[str]) -> list[str]:
    """Field names by number, then by text."""
    return sorted(fields, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))


def _place_row(plate: ZarrPlate, folder: Path, row: Path) -> None:
    if find_document(row) is not None:
        return
    make_group(folder, {}, plate.version)
    sync_tree(folder)
    try:
        folder.rename(row)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        for part in folder.iterdir():  # it holds a well's tables, or another was faster
            part.replace(row / part.name)
        sync_folder(row)
    sync_folder(row.parent)


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


def existing(where: str) -> AlreadyExistsError:
    """The error for what would be overwritten."""
    return AlreadyExistsError(f"{where} exists; give overwrite=True to replace it")
