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
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import AlreadyExistsError, CorruptMetadataError, MismatchError
from ...hcs import ngff
from ...hcs.image import Channel
from ...hcs.layout import Layout
from ...hcs.spec import Acquisition
from ...metadata import atomic_update_json, atomic_write_json, file_lock, read_json
from ...metadata.changes import Change
from ...metadata.document import apply_change
from ...metadata.paths import sync_folder
from ...settings import get_settings
from .locks import locked
from .nodes import (
    OURS,
    Place,
    attributes_in,
    document_path,
    find_document,
    make_group,
    read_attributes,
    with_attributes,
)
from .plate import ZarrPlate
from .staging import put, sync_tree

_OURS_TO_SAY = ("version", "field_count", "rows", "columns", "wells", "name")
"""Keys of a plate's NGFF object that are replaced; others stay, acquisitions for example."""


@contextlib.contextmanager
def changing(plate: ZarrPlate, well: str | None = None) -> Iterator[dict[str, Any]]:
    """Hold the locks of `well` (of all wells) and of the plate's JSON; gives its content."""
    with locked(plate, well), file_lock(plate.document_path, get_settings().lock_timeout):
        yield read_json(plate.document_path)


@dataclass(frozen=True, slots=True)
class StagedWell:
    """A well that is complete and synced, and not yet a part of its plate."""

    folder: Path
    """Alone in a folder from `staged`, where what is replaced comes to lie."""
    well: str
    """The stored path that it is for."""
    images: Mapping[str, Any]
    """Field -> anything with a shape and a dtype."""
    windows: Sequence[tuple[float, float] | None]
    """How its channels are shown."""


def commit_well(
    plate: ZarrPlate, staged: StagedWell, *, overwrite: bool, keep_others: bool
) -> None:
    """Make a staged well, or the fields that it holds, a part of the plate; see ``write_well``."""
    well, images = staged.well, staged.images
    with locked(plate, well):
        forget_consolidated(plate)
        check_well(plate, well, images, overwrite=overwrite, keep_others=keep_others)
        listed = bool(plate.present(well))
        _place_well(plate, staged, keep_others=keep_others)
        try:
            list_well(plate, staged, listed=listed)
        except MismatchError:  # another writer's first field came before ours
            _take_back(plate, staged)
            check_well(plate, well, images, overwrite=overwrite, keep_others=keep_others)
            raise


def forget_consolidated(plate: ZarrPlate) -> None:
    """Remove the copy of all metadata that zarr may keep at the root of what others wrote.

    It would hide from its readers whatever is written.
    """
    if plate.version == "0.4":
        (plate.root / ".zmetadata").unlink(missing_ok=True)
    elif plate.is_consolidated:
        change = Change(create=False).drop("consolidated_metadata")
        apply_change(plate.document_path, change, get_settings().lock_timeout)
        plate.refresh()


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


def _place_well(plate: ZarrPlate, staged: StagedWell, *, keep_others: bool) -> None:
    """Rename the well, or only its fields, into the plate."""
    folder, well = staged.folder, staged.well
    target = plate.group(well)
    _place_row(plate, folder.with_name("row"), target.parent)
    present = plate.present(well)
    if present and keep_others:
        for field in staged.images:
            put(folder / field, target / field, plate.root)
        said = ngff.read_well(read_attributes(folder, plate.uri), plate.uri)
        set_fields(plate, well, ordered({*present, *said}), said)
        return
    if (target / "tables").is_dir():  # tables outlive the images they may have been made from
        shutil.copytree(target / "tables", folder / "tables")
        sync_tree(folder / "tables")
    put(folder, target, plate.root)


def _take_back(plate: ZarrPlate, staged: StagedWell) -> None:
    """Undo that a whole well was placed."""
    target = plate.group(staged.well)
    if staged.folder.exists():  # what it replaced: tables
        put(staged.folder, target, plate.root)
    else:
        target.rename(staged.folder)


def list_well(plate: ZarrPlate, staged: StagedWell, *, listed: bool) -> None:
    """List a well, which is in its place, in the plate's JSON.

    Atomic and durable, and one commit with the wells that other writers list meanwhile. Of one
    that is `listed` already mostly nothing is written.

    Raises:
        MismatchError: the plate was made anew, or its fields are unlike those of the well.
    """
    acquisitions = plate._acquisitions_of(staged.well)
    fields = len(acquisitions)
    if listed and plate.document is not None and plate.document.field_count >= fields:
        _count_acquisitions(plate, acquisitions)
        return
    body, inner = _places(plate.version)
    change = Change(create=False)
    empty = _without_wells(plate.layout, plate.name, plate.version, plate.acquisitions)
    for key, value in empty.items():
        change.default(*body, key, value=value)
    entry = ngff.well_entry(plate.layout, staged.well)
    change.insert(*body, "plate", "wells", value=entry, by=("rowIndex", "columnIndex"))
    change.raise_to(*body, "plate", "field_count", value=fields)
    if plate.ours:
        like = next(iter(staged.images.values()))
        field = {"shape": list(like.shape), "dtype": str(like.dtype)}
        change.agree(*inner, OURS, "created", value=plate.ours.get("created"))
        change.agree(*inner, OURS, "field", value=field)
        change.default(*inner, OURS, "windows", value=staged.windows)
    change.drop("consolidated_metadata")
    try:
        apply_change(plate.document_path, change, get_settings().lock_timeout)
    except CorruptMetadataError as error:
        raise CorruptMetadataError(f"{plate.uri}: {error}") from error
    _count_acquisitions(plate, acquisitions)


def _count_acquisitions(plate: ZarrPlate, well: Mapping[str, int | None]) -> None:
    """Let the plate say of each acquisition how many fields a well has at most."""
    fields = Counter(a for a in well.values() if a is not None)

    def is_more() -> bool:
        document = plate._facts().document
        most = (
            zip(document.acquisitions, document.acquisition_fields, strict=False)
            if document
            else ()
        )
        return any(fields[acquisition.id] > known for acquisition, known in most)

    def change(content: dict[str, Any]) -> dict[str, Any]:
        attributes = attributes_in(plate.document_path, content, plate.uri)
        for entry in attributes.get("ome", attributes)["plate"]["acquisitions"]:
            count = max(entry["maximumfieldcount"], fields[entry["id"]])
            entry["maximumfieldcount"] = count
        return content

    if is_more():
        plate.refresh()  # others may have said it meanwhile
        if is_more():
            atomic_update_json(plate.document_path, change, get_settings().lock_timeout)
            plate.refresh()


def _places(version: ngff.Version) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of the NGFF object and of the attributes in an attributes file."""
    return (("attributes", "ome"), ("attributes",)) if version == "0.5" else ((), ())


@lru_cache(maxsize=8)
def _without_wells(
    layout: Layout, name: str, version: ngff.Version, acquisitions: tuple[Acquisition, ...]
) -> ngff.Attributes:
    """What NGFF says of a plate before its first well, which it wants to be there at once."""
    first = f"{layout.rows[0]}/{layout.columns[0]}"
    document = ngff.PlateDocument(layout, (first,), name, 1, version, acquisitions)
    made = ngff.plate_attributes(document)
    body: ngff.Attributes = made.get("ome", made)
    body["plate"]["wells"] = []
    return body


def unlist_wells(plate: ZarrPlate, content: dict[str, Any], wells: tuple[str, ...]) -> None:
    """Take `wells` off the plate's JSON. Needs what `changing` holds."""
    if wells and plate.document is not None:
        atomic_write_json(plate.document_path, without_wells(plate, content, wells))


def without_wells(
    plate: ZarrPlate, content: dict[str, Any], wells: Collection[str]
) -> dict[str, Any]:
    """The plate's JSON, `content`, without `wells`."""
    attributes = attributes_in(plate.document_path, content, plate.uri)
    if "plate" not in attributes.get("ome", attributes):
        return content
    document = ngff.read_plate(attributes, plate.uri).without_wells(wells)
    ours = dict(attributes.get(OURS) or {})
    if not document.wells:
        for key in ("field", "windows"):  # an empty plate takes fields of any shape again
            ours.pop(key, None)
        ours |= _grid(plate)
    return with_document(plate, content, document, ours)


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
    """Replace the plate's JSON. Needs what `changing` holds."""
    atomic_write_json(plate.document_path, with_document(plate, content, document, ours))


def with_document(
    plate: ZarrPlate,
    content: dict[str, Any],
    document: ngff.PlateDocument | None,
    ours: dict[str, Any],
) -> dict[str, Any]:
    """The plate's JSON, `content`, that says `document`; keys that are not ours to know stay."""
    content.pop("consolidated_metadata", None)
    attributes = attributes_in(plate.document_path, content, plate.uri)
    body = attributes.setdefault("ome", {}) if plate.version == "0.5" else attributes
    old = body.pop("plate", {})
    if document is not None and document.wells:  # NGFF knows no plate without wells
        made = ngff.plate_attributes(document)
        body.update(made.get("ome", made))
        most = {a["id"]: a["maximumfieldcount"] for a in body["plate"].get("acquisitions", ())}
        for entry in old.get("acquisitions", ()):
            if "maximumfieldcount" in entry and entry["id"] in most:
                entry["maximumfieldcount"] = most[entry["id"]]
        body["plate"] |= {key: value for key, value in old.items() if key not in _OURS_TO_SAY}
    elif plate.version == "0.5" and not set(body) - {"version"}:
        attributes.pop("ome")
    if ours:
        attributes[OURS] = ours
    return with_attributes(plate.document_path, content, attributes)


def set_fields(
    plate: ZarrPlate,
    well: str,
    fields: Iterable[str],
    acquisitions: Mapping[str, int | None] | None = None,
) -> None:
    """Replace the list of fields in a well's JSON; see `with_fields`. Needs the well's lock."""
    path = document_path(plate.group(well), plate.version)
    content = with_fields(path, read_json(path), fields, acquisitions or {}, plate.version)
    atomic_write_json(path, content)


def with_fields(
    path: Place,
    content: dict[str, Any],
    fields: Iterable[str],
    acquisitions: Mapping[str, int | None],
    version: ngff.Version,
) -> dict[str, Any]:
    """A well's JSON, `content` of `path`, with these fields; what else it says of each stays.

    Args:
        path, content: of the well's JSON.
        fields: all of them.
        acquisitions: of those for which it is to be said.
        version: of NGFF.
    """
    attributes = attributes_in(path, content, str(path))
    body = attributes.get("ome", attributes).get("well", {})
    known = {image["path"]: image for image in body.get("images", ())}
    made = ngff.well_attributes({f: acquisitions.get(f) for f in fields}, version)
    images = made.get("ome", made)["well"]["images"]
    images[:] = [known.get(image["path"], {}) | image for image in images]
    return with_attributes(path, content, made)


def set_labels(plate: ZarrPlate, folder: Path, names: list[str]) -> None:
    """Replace the list of label images in a ``labels`` group. Needs the well's lock."""
    path = document_path(folder, plate.version)
    made = ngff.labels_attributes(names, plate.version)
    atomic_write_json(path, with_attributes(path, read_json(path), made))


def channels_json(channels: Iterable[Channel]) -> list[dict[str, Any]]:
    """Channels as `OURS` keeps them."""
    return [{k: v for k, v in asdict(c).items() if v is not None} for c in channels]


def ordered(fields: Iterable[str]) -> list[str]:
    """Field names by number, then by text."""
    return sorted(fields, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))


def _place_row(plate: ZarrPlate, folder: Path, row: Path) -> None:
    if find_document(row) is not None:
        return
    make_group(folder, row_attributes(plate), plate.version)
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


def row_attributes(plate: ZarrPlate) -> ngff.Attributes:
    """What a row's group holds: a copy of what the plate was made with, for `rebuild`."""
    ours = {key: value for key, value in plate.ours.items() if key not in ("field", "windows")}
    return {OURS: _grid(plate) | ours}


def _grid(plate: ZarrPlate) -> dict[str, Any]:
    """What an empty plate needs to be opened again."""
    return {
        "name": plate.name,
        "rows": list(plate.rows),
        "columns": list(plate.columns),
        "channels": channels_json(plate.channel_info),
        "pixel_size": list(plate.pixel_size),
        "acquisitions": [asdict(a) for a in plate.acquisitions],
    }


def existing(where: str) -> AlreadyExistsError:
    """The error for what would be overwritten."""
    return AlreadyExistsError(f"{where} exists; give overwrite=True to replace it")
