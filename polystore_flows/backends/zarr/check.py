"""Rules that an OME-Zarr plate must keep, and the repair of what can be repaired.

They follow the plate, well, image and label sections of OME-NGFF 0.4 and 0.5, and add what no
validator of that specification looks for: wells on disk that nobody lists, listed ones that are
not there, ``field_count``, colours with ``#``, and what killed writers left.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import NotFoundError, PolystoreError
from ...hcs import ngff
from ...hcs.layout import SIZES, Layout
from .arrays import ZarrImage
from .commit import (
    changing,
    forget_consolidated,
    ordered,
    replace_document,
    set_fields,
    set_labels,
    unlist_wells,
)
from .nodes import find_document, read_attributes
from .plate import ZarrPlate
from .staging import staging_root
from .store_path import at_once
from .tables import list_table, unlisted_tables
from .writing import WritablePlate

_COLOR = re.compile(r"[0-9A-Fa-f]{6}")
_FIELD = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that a plate breaks."""

    rule: str
    """Short name of the rule, ``unlisted-well``."""
    where: str
    """URI of the part that breaks it."""
    message: str
    """What is wrong, in one line."""
    repairable: bool
    """Whether `repair` mends it."""


def check(root: Path, uri: str) -> list[Finding]:
    """All findings about the plate in `root`; reads metadata only, changes nothing.

    Raises:
        NotFoundError: there is no plate.
        CorruptMetadataError: its JSON cannot be read at all; nothing more can be said then.
    """
    return list(_findings(ZarrPlate(root, uri)))


def repair(root: Path, uri: str) -> list[Finding]:
    """Mend what can be mended, under the plate's lock; the findings that were mended.

    Lists complete wells, fields and labels that are on disk, takes those off the lists that are
    not there, sets ``field_count`` and removes what killed writers left. Images are never
    removed. A failure leaves a valid plate; call it again.
    """
    plate = WritablePlate(root, uri)
    found = [finding for finding in _findings(plate) if finding.repairable]
    with changing(plate) as content:
        for well in _wells_on_disk(plate):
            _mend_well(plate, well)
        document = plate.document or ngff.PlateDocument(
            plate.layout, (), plate.name, 1, plate.version
        )
        on_disk = set(_wells_on_disk(plate))
        gone = tuple(well for well in document.wells if well not in on_disk)
        kept = ngff.PlateDocument(
            document.layout,
            tuple(well for well in document.wells if well in on_disk),
            document.name,
            1,
            document.version,
        )
        for well in sorted(on_disk):
            kept = kept.with_well(well, len(_listed_fields(plate, well)))
        if gone and not kept.wells:
            unlist_wells(plate, content, gone)
        elif kept != plate.document and kept.wells:
            replace_document(plate, content, kept, dict(plate.ours))
        shutil.rmtree(staging_root(root), ignore_errors=True)
    forget_consolidated(plate)
    for file in _unlisted_tables(plate, sorted(on_disk)):
        list_table(plate, file)
    return found


def _findings(plate: ZarrPlate) -> Iterator[Finding]:
    yield from rules(plate)
    if staging_root(plate.root).is_dir():
        message = f"a writer that was killed left {staging_root(plate.root)}"
        yield _finding("staging", plate, "", message)


def rules(plate: ZarrPlate) -> Iterator[Finding]:
    """What is wrong with a plate, wherever it is stored."""
    yield from _grid(plate)
    on_disk = _wells_on_disk(plate)
    for well in plate.wells:
        if well not in on_disk:
            yield _finding("missing-well", plate, well, "is listed but not there, or not readable")
    for well in on_disk:
        if well not in plate.wells:
            yield _finding("unlisted-well", plate, well, "is complete but not listed")
    count = max((len(_listed_fields(plate, well)) for well in on_disk), default=1)
    if plate.document and set(plate.wells) == set(on_disk) and plate.document.field_count != count:
        message = f"field_count is {plate.document.field_count}, but a well has {count} fields"
        yield _finding("field-count", plate, "", message)
    if isinstance(plate.root, Path):
        for well in on_disk:
            yield from _well(plate, well)
    else:  # each question is a request
        for found in at_once(lambda well: list(_well(plate, well)), on_disk):
            yield from found
    for file in _unlisted_tables(plate, on_disk):
        inner = file.relative_to(plate.root).as_posix()
        message = "is not listed for other readers, or as it was before"
        yield _finding("table", plate, inner, message)
    if plate.is_consolidated or (plate.root / ".zmetadata").exists():
        message = "keeps a copy of all metadata (consolidated), which hides what is written later"
        yield _finding("consolidated", plate, "", message)


def _grid(plate: ZarrPlate) -> Iterator[Finding]:
    rows, columns = len(plate.rows), len(plate.columns)
    if (rows, columns) not in SIZES.values():
        message = (
            f"lists {rows} rows and {columns} columns, which no plate has; all physical rows and "
            "columns are to be listed"
        )
        yield _finding("grid", plate, "", message, repairable=False)
    for size in SIZES:
        names = Layout.of(size)
        if (rows, columns) == SIZES[size] and plate.rows != names.rows:
            message = f"names its rows {', '.join(plate.rows)}; they are lettered from A"
            yield _finding("grid", plate, "", message, repairable=False)


def _well(plate: ZarrPlate, well: str) -> Iterator[Finding]:
    listed, there = _listed_fields(plate, well), _fields_on_disk(plate, well)
    for field in listed:
        if field not in there:
            yield _finding("missing-field", plate, f"{well}/{field}", "is listed but not there")
    yield from _acquisitions(plate, well, listed)
    for field in there:
        if field not in listed:
            yield _finding("unlisted-field", plate, f"{well}/{field}", "is there but not listed")
        yield from _field(plate, well, field)


def _acquisitions(plate: ZarrPlate, well: str, listed: tuple[str, ...]) -> Iterator[Finding]:
    known = {acquisition.id for acquisition in plate.acquisitions}
    named = plate._acquisitions_of(well) if listed else {}
    for field, acquisition in named.items():
        if acquisition is not None and acquisition not in known:
            message = f"belongs to acquisition {acquisition}, which the plate does not have"
        elif acquisition is None and len(known) > 1:
            message = "names no acquisition, and the plate has more than one"
        else:
            continue
        yield _finding("acquisition", plate, f"{well}/{field}", message, repairable=False)


def _field(plate: ZarrPlate, well: str, field: str) -> Iterator[Finding]:
    inner, group = f"{well}/{field}", plate.group(well, field)
    try:
        image = ZarrImage(group, f"{plate.uri}/{inner}")
        yield from _image_rules(plate, inner, group, image)
    except PolystoreError as error:
        yield _finding("image", plate, inner, str(error), repairable=False)
        return
    like = plate.ours.get("field")
    if like and (list(image.shape), str(image.dtype)) != (like["shape"], like["dtype"]):
        message = (
            f"is {image.shape} {image.dtype}, but fields of this plate are "
            f"{tuple(like['shape'])} {like['dtype']}"
        )
        yield _finding("unlike-field", plate, inner, message, repairable=False)
    listed, there = image.labels, _labels_on_disk(group)
    for name in sorted({*listed, *there}):
        where = f"{inner}/labels/{name}"
        if name not in there:
            yield _finding("missing-label", plate, where, "is listed but not there")
            continue
        if name not in listed:
            yield _finding("unlisted-label", plate, where, "is there but not listed")
        try:
            label = ZarrImage(group / "labels" / name, f"{plate.uri}/{where}")
        except PolystoreError as error:
            yield _finding("image", plate, where, str(error), repairable=False)
            continue
        for wrong in _label_rules(image, label):
            yield _finding("label", plate, where, wrong, repairable=False)


def _label_rules(image: ZarrImage, label: ZarrImage) -> Iterator[str]:
    if label.dtype.kind not in "iu":
        yield f"labels are integers, not {label.dtype}"
    if label.levels != image.levels:
        yield f"has {label.levels} pyramid levels, its image {image.levels}"
    if (label.shape[0], *label.shape[2:]) != (image.shape[0], *image.shape[2:]):
        yield f"its shape is {label.shape}, its image's {image.shape}"


def _image_rules(plate: ZarrPlate, inner: str, group: Path, image: ZarrImage) -> Iterator[Finding]:
    attributes = read_attributes(group, image.uri)
    version = ngff.version_of(attributes, image.uri)
    if version != plate.version:
        message = f"is NGFF {version} in a plate of {plate.version}"
        yield _finding("version", plate, inner, message, repairable=False)
    document = ngff.read_image(attributes, image.uri)
    for entry in (attributes.get("ome", attributes).get("omero") or {}).get("channels") or ():
        if not _COLOR.fullmatch(str(entry.get("color", "FFFFFF"))):
            message = f"the colour {entry['color']!r} of a channel is not six hex digits"
            yield _finding("color", plate, inner, message, repairable=False)
    for path in document.paths:
        metadata = _array_metadata(group / path)
        if metadata is None:
            yield _finding("image", plate, inner, f"its array {path} is missing", repairable=False)
        elif version == "0.5" and tuple(metadata.get("dimension_names") or ()) != document.axes:
            message = f"array {path} has the dimension names {metadata.get('dimension_names')}"
            yield _finding("dimension-names", plate, inner, message, repairable=False)
        elif version == "0.4" and metadata.get("dimension_separator") != "/":
            message = f"the chunk keys of array {path} are not separated by '/'"
            yield _finding("separator", plate, inner, message, repairable=False)


def _array_metadata(path: Path) -> dict[str, Any] | None:
    for name in ("zarr.json", ".zarray"):
        if (path / name).is_file():
            content = json.loads((path / name).read_text())
            return content if isinstance(content, dict) else None
    return None


def _mend_well(plate: ZarrPlate, well: str) -> None:
    """Make the lists of fields and labels say what is there. Needs the lock."""
    there = _fields_on_disk(plate, well)
    if list(_listed_fields(plate, well)) != there:
        set_fields(plate, well, there)
    for field in there:
        folder = plate.group(well, field) / "labels"
        if folder.is_dir():
            labels = _labels_on_disk(folder.parent)
            if list(ngff.read_labels(read_attributes(folder, plate.uri))) != labels:
                set_labels(plate, folder, labels)


def _wells_on_disk(plate: ZarrPlate) -> list[str]:
    """Wells of the grid whose folder holds a well's JSON and at least one field."""
    found = []
    for row in plate.rows:
        if not (plate.root / row).is_dir():
            continue
        for column in plate.columns:
            well = f"{row}/{column}"
            if find_document(plate.group(well)) is not None and _fields_on_disk(plate, well):
                found.append(well)
    return found


def _unlisted_tables(plate: ZarrPlate, wells: Iterable[str]) -> list[Path]:
    folders = [plate.root / "tables"]
    for well in wells:
        folders += [plate.group(well, field) / "tables" for field in _fields_on_disk(plate, well)]
    return [file for folder in folders for file in unlisted_tables(plate, folder)]


def _listed_fields(plate: ZarrPlate, well: str) -> tuple[str, ...]:
    try:
        return plate._fields(well)
    except (NotFoundError, PolystoreError):
        return ()


def _fields_on_disk(plate: ZarrPlate, well: str) -> list[str]:
    folders = (p for p in plate.group(well).iterdir() if p.is_dir() and _FIELD.fullmatch(p.name))
    return ordered(p.name for p in folders if p.name != "tables" and find_document(p) is not None)


def _labels_on_disk(field: Path) -> list[str]:
    folder = field / "labels"
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and find_document(p) is not None)


def _finding(
    rule: str, plate: ZarrPlate, inner: str, message: str, *, repairable: bool = True
) -> Finding:
    return Finding(rule, f"{plate.uri}/{inner}".rstrip("/"), message, repairable)
