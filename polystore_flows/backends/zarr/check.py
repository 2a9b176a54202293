"""Rules that an OME-Zarr plate must keep, and the repair of what can be repaired.

They follow the plate, well, image and label sections of OME-NGFF 0.4 and 0.5, and add what no
validator of that specification looks for: wells on disk that nobody lists, listed ones that are
not there, ``field_count``, colours with ``#``, and what killed writers left.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import CorruptMetadataError, FileLockError, NotFoundError, PolystoreError
from ...hcs import ngff
from ...hcs.layout import SIZES, Layout
from ...metadata.atomic import strays
from ...threads import in_threads
from .arrays import ZarrImage
from .commit import (
    changing,
    forget_consolidated,
    ordered,
    replace_document,
    row_attributes,
    set_fields,
    set_labels,
    unlist_wells,
)
from .nodes import add_group, find_document, read_attributes, version_at
from .plate import ZarrPlate
from .rebuild import document_of, lost_wells, wells_in
from .staging import abandoned, sweep
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
    lost = lost_wells(root)
    if lost:
        return [Finding("plate-json", uri, f"it is gone, but {len(lost)} wells are there", True)]
    plate = ZarrPlate(root, uri)
    return [*rules(plate), *_left_over(plate)]


def repair(root: Path, uri: str) -> list[Finding]:
    """Mend what can be mended, under the plate's lock; the findings that were mended.

    Lists complete wells, fields and labels that are on disk, takes those off the lists that are
    not there, makes lost documents anew, sets ``field_count`` and removes what killed writers
    left. Images are never removed, and what does not parse is left. A failure leaves a valid
    plate; call it again.
    """
    found = [finding for finding in check(root, uri) if finding.repairable]
    lost = lost_wells(root)
    if lost:
        add_group(root, document_of(root, uri, lost), version_at(root / next(iter(lost))))
    plate = WritablePlate(root, uri)
    sweep(root)
    strays(plate.document_path, remove=True)
    with changing(plate) as content:
        for well in _wells_on_disk(plate):
            row = plate.group(well).parent
            if find_document(row) is None:
                add_group(row, row_attributes(plate), plate.version)
            _mend_well(plate, well)
        document = plate.document or ngff.PlateDocument(
            plate.layout, (), plate.name, 1, plate.version, plate.acquisitions
        )
        on_disk = _wells_on_disk(plate)
        gone = tuple(well for well in document.wells if well not in on_disk)
        count, counts = most_fields(plate, [_listed_fields(plate, well) for well in on_disk])
        kept = replace(document, wells=tuple(on_disk), field_count=count)
        if plate.document is None or document.acquisition_fields:  # not all plates say that
            kept = replace(kept, acquisition_fields=counts)
        if gone and not kept.wells:
            unlist_wells(plate, content, gone)
        elif kept != plate.document and kept.wells:
            replace_document(plate, content, kept, dict(plate.ours))
    forget_consolidated(plate)
    for file in _unlisted_tables(plate, on_disk):
        list_table(plate, file)
    return found


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
    for name in dict.fromkeys(well.partition("/")[0] for well in on_disk):
        if find_document(plate.root / name) is None:
            yield _finding("row-json", plate, name, "is gone, which hides its wells from zarr")
    grid = {f"{row}/{column}" for row in plate.rows for column in plate.columns}
    for path in wells_in(plate.root):
        if path not in grid:
            message = "holds a well, but the plate has none of this name; move it away"
            yield _finding("stray-well", plate, path, message, repairable=False)
    document = plate.document
    if document and set(document.wells) == set(on_disk):
        count, counts = most_fields(plate, [_listed_fields(plate, well) for well in on_disk])
        if document.field_count != count:
            message = f"field_count is {document.field_count}, but a well has {count} fields"
            yield _finding("field-count", plate, "", message)
        elif document.acquisition_fields and document.acquisition_fields != counts:
            message = (
                f"maximumfieldcount of the acquisitions is {document.acquisition_fields}, but "
                f"wells have {counts} fields in them"
            )
            yield _finding("field-count", plate, "", message)
    if isinstance(plate.root, Path):
        for well in on_disk:
            yield from _well(plate, well)
    else:  # each question is a request
        for found in in_threads(lambda well: list(_well(plate, well)), on_disk):
            yield from found
    for file in _unlisted_tables(plate, on_disk):
        inner = file.relative_to(plate.root).as_posix()
        message = "is not listed for other readers, or as it was before"
        yield _finding("table", plate, inner, message)
    if plate.is_consolidated or (plate.root / ".zmetadata").exists():
        message = "keeps a copy of all metadata (consolidated), which hides what is written later"
        yield _finding("consolidated", plate, "", message)


def _left_over(plate: ZarrPlate) -> Iterator[Finding]:
    with contextlib.suppress(FileLockError):  # on a read-only file system nobody can tell
        begun = (folder for folder in abandoned(plate.root) if folder.is_dir())
        for left in (*begun, *strays(plate.document_path)):
            yield _finding("staging", plate, "", f"a writer that was killed left {left}")


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
    there = fields_on_disk(plate, well)
    try:
        listed = plate._acquisitions_of(well)
    except NotFoundError:
        yield _finding("well-json", plate, well, "is gone, but its fields are there")
        listed = dict.fromkeys(there)
    except PolystoreError as error:
        yield _finding("well-json", plate, well, str(error), repairable=False)
        return
    for field in listed:
        if field not in there:
            yield _finding("missing-field", plate, f"{well}/{field}", "is listed but not there")
    yield from _acquisitions(plate, well, listed)
    for field in there:
        if field not in listed:
            yield _finding("unlisted-field", plate, f"{well}/{field}", "is there but not listed")
        yield from _field(plate, well, field)


def _acquisitions(
    plate: ZarrPlate, well: str, listed: Mapping[str, int | None]
) -> Iterator[Finding]:
    known = {acquisition.id for acquisition in plate.acquisitions}
    for field, acquisition in listed.items():
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
            message = f"its array {path} is missing, or its metadata does not parse"
            yield _finding("image", plate, inner, message, repairable=False)
        elif version == "0.5" and tuple(metadata.get("dimension_names") or ()) != document.axes:
            message = f"array {path} has the dimension names {metadata.get('dimension_names')}"
            yield _finding("dimension-names", plate, inner, message, repairable=False)
        elif version == "0.4" and metadata.get("dimension_separator") != "/":
            message = f"the chunk keys of array {path} are not separated by '/'"
            yield _finding("separator", plate, inner, message, repairable=False)


def _array_metadata(path: Path) -> dict[str, Any] | None:
    for name in ("zarr.json", ".zarray"):
        if (path / name).is_file():
            with contextlib.suppress(ValueError):
                content = json.loads((path / name).read_text())
                return content if isinstance(content, dict) else None
    return None


def _mend_well(plate: ZarrPlate, well: str) -> None:
    """Make the lists of fields and labels say what is there. Needs the lock."""
    there = fields_on_disk(plate, well)
    with contextlib.suppress(CorruptMetadataError):  # which `check` says, and nobody overwrites
        if find_document(plate.group(well)) is None:
            fields = ngff.well_attributes(dict.fromkeys(there), plate.version)
            add_group(plate.group(well), fields, plate.version)
        elif list(plate._fields(well)) != there:
            set_fields(plate, well, there)
    for field in there:
        folder = plate.group(well, field) / "labels"
        if folder.is_dir():
            labels = _labels_on_disk(folder.parent)
            if list(ngff.read_labels(read_attributes(folder, plate.uri), plate.uri)) != labels:
                set_labels(plate, folder, labels)


def _wells_on_disk(plate: ZarrPlate) -> list[str]:
    """Wells of the grid whose folder holds at least one field."""
    found = []
    for row in plate.rows:
        if not (plate.root / row).is_dir():
            continue
        for column in plate.columns:
            well = f"{row}/{column}"
            if plate.group(well).is_dir() and fields_on_disk(plate, well):
                found.append(well)
    return found


def _unlisted_tables(plate: ZarrPlate, wells: Iterable[str]) -> list[Path]:
    folders = [plate.root / "tables"]
    for well in wells:
        folders += [plate.group(well, field) / "tables" for field in fields_on_disk(plate, well)]
    return [file for folder in folders for file in unlisted_tables(plate, folder)]


def most_fields(
    plate: ZarrPlate, wells: Sequence[Mapping[str, int | None]]
) -> tuple[int, tuple[int, ...]]:
    """The largest number of fields of a well, and of a well in each acquisition; at least 1."""
    counts = [Counter(fields.values()) for fields in wells]
    of_each = (max((c[a.id] for c in counts), default=1) for a in plate.acquisitions)
    return max(map(len, wells), default=1), tuple(max(n, 1) for n in of_each)


def _listed_fields(plate: ZarrPlate, well: str) -> dict[str, int | None]:
    """Field -> acquisition, as the well says; of a lost well JSON all, of a damaged one none."""
    try:
        return plate._acquisitions_of(well)
    except NotFoundError:
        return dict.fromkeys(fields_on_disk(plate, well))
    except PolystoreError:
        return {}


def fields_on_disk(plate: ZarrPlate, well: str) -> list[str]:
    """Fields of a well that are there, listed or not."""
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
