"""Plate folders of our own: the document that lists their fields, and writing to them.

Planes are ``B03_s001_w1_z001_t001.tif`` in the plate folder, label images the same below
``labels/NAME/`` (always ``w1``), tables plain files. ``openhcs_metadata.json`` says the rest::

    {"subdirectories": {".": {"channels": {"1": "DAPI"}, "wells": {"B03": null},
                              "pixel_size": 0.65, "grid_dimensions": [], "polystore": {…}}},
     "available_backends": {"disk": true}}

Only fields that its ``polystore`` part lists are there; each is listed once its planes are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from threading import RLock
from typing import TYPE_CHECKING, Any

from ..errors import (
    AlreadyExistsError,
    CorruptMetadataError,
    MismatchError,
    NotFoundError,
)
from ..hcs.address import parse_address, parse_well, plane_file_name
from ..hcs.image import Channel, named_channels
from ..hcs.layout import Layout
from ..hcs.spec import PlateSpec, require_like
from ..settings import get_settings
from ..threads import in_threads
from ..uri import BackendURI
from .codecs import encode

if TYPE_CHECKING:
    from numpy.typing import NDArray

Document = dict[str, Any]
Planes = Mapping[str, "NDArray[Any]"]

DOCUMENT = "openhcs_metadata.json"
LABELS = "labels"
OBJECT_SCHEMES = frozenset({"s3", "gs", "az"})

_IN_PROCESS = RLock()  # guards documents that no file lock can guard: those in memory


@dataclass(frozen=True, slots=True)
class Folder:
    """A plate folder: a file backend and the URI of the folder in it."""

    backend: Any
    root: BackendURI

    def at(self, path: str) -> str:
        """Identifier of the file `path` below the folder."""
        return self.root.join(path).text

    def has(self, path: str) -> bool:
        """Whether there is such a file; ``exists`` would also look for a plane of this name."""
        try:
            self.backend.open_binary(self.at(path)).close()
        except NotFoundError:
            return False
        return True

    def write(self, path: str, data: bytes) -> None:
        """Write one file; atomic, and overwrites what is there."""
        self.backend.write_bytes(data, self.at(path), overwrite=True)

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files, in their order; those that are gone already count as removed."""
        for path in paths:
            with suppress(NotFoundError):
                self.backend.delete(self.at(path))


@dataclass(frozen=True, slots=True)
class OwnPlate:
    """What the document of our own plate says."""

    spec: PlateSpec
    shape: tuple[int, ...] | None
    """``(t, c, z, y, x)`` of every field; None before the first."""
    dtype: str | None
    fields: dict[str, tuple[str, ...]]
    """Well -> its fields."""


def read_document(folder: Folder) -> Document | None:
    """The plate's document, or None if there is none.

    Raises:
        CorruptMetadataError: it is no JSON object.
    """
    try:
        data = folder.backend.read_bytes(folder.at(DOCUMENT))
    except NotFoundError:
        return None
    try:
        document = json.loads(data)
    except ValueError as error:
        raise CorruptMetadataError(f"{folder.root}/{DOCUMENT}: no JSON: {error}") from error
    if not isinstance(document, dict):
        raise CorruptMetadataError(f"{folder.root}/{DOCUMENT}: no JSON object")
    return document


def own_plate(folder: Folder, document: Document | None) -> OwnPlate | None:
    """What `document` says of our own plate; None if the folder is somebody else's.

    Raises:
        CorruptMetadataError: its ``polystore`` part is damaged.
    """
    part: Any = document
    for key in ("subdirectories", ".", "polystore"):
        part = part.get(key) if isinstance(part, dict) else None
    if part is None:
        return None
    try:
        channels = tuple(Channel(c["name"], c["color"]) for c in part["channels"])
        z, y, x = part["pixel_size"]
        layout = Layout(tuple(part["rows"]), tuple(part["columns"]))
        return OwnPlate(
            PlateSpec(layout, channels, (z, y, x), part["name"]),
            tuple(part["shape"]) if part["shape"] else None,
            part["dtype"],
            {well: tuple(fields) for well, fields in part["fields"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptMetadataError(
            f"{folder.root}/{DOCUMENT}: the part 'polystore' is damaged ({error!r})"
        ) from error


def create(folder: Folder, spec: PlateSpec, exist_ok: bool) -> None:
    """Write the document of a plate without wells.

    Atomic: of several creators one makes the plate, and the others find it. Overwrites nothing;
    a failure leaves at most an empty folder.

    Raises:
        AlreadyExistsError: the folder holds something, with `exist_ok` something else than a
            plate of ours.
        MismatchError: with `exist_ok`, the plate has another layout, channels or pixel size.
    """
    folder.backend.ensure_directory(folder.root.text)
    names = folder.backend.list_dir(folder.root.text)
    others = [name for name in names if DOCUMENT not in name]

    def change(document: Document) -> Document:
        existing = own_plate(folder, document)
        if existing is None and not others and not document:
            return _new_document(folder, spec)
        if existing is None or not exist_ok:
            what = "a plate" if existing else ", ".join(others[:3] or [DOCUMENT])
            raise AlreadyExistsError(f"{folder.root} already holds {what}; choose another folder")
        require_like(str(folder.root), existing.spec, spec)
        return document

    # Looked at after the listing: whoever made the others made the document before.
    document = read_document(folder)
    if document is None and not others:
        update_document(folder, change)
    else:
        change(document or {})


def update_document(folder: Folder, change: Callable[[Document], Document]) -> Document:
    """Read the document (``{}`` if there is none), `change` it, write it back; the new one.

    Atomic, and no update of another thread, process or host is lost; what `change` raises leaves
    the document as it was.
    """
    if folder.root.is_local or folder.root.scheme in OBJECT_SCHEMES:
        from ..metadata import atomic_update_json

        path = f"{folder.root.path}/{DOCUMENT}" if folder.root.is_local else folder.at(DOCUMENT)
        return atomic_update_json(path, change, timeout=get_settings().lock_timeout)
    with _IN_PROCESS:
        document = change(read_document(folder) or {})
        folder.write(DOCUMENT, encode(document, DOCUMENT))
        return document


def write_well(
    folder: Folder,
    well: str,
    images: Planes,
    labels: Mapping[str, Planes],
    overwrite: bool,
    keep_others: bool,
) -> OwnPlate:
    """Write fields of one shape with their labels, then list them; what the plate is now.

    A new field is atomic: it is listed, and so visible, after all its planes and labels. A field
    that is replaced is replaced plane by plane, after its labels were removed: a reader, or a
    failure, can meet old planes beside new ones; writing it again heals it. Without
    `keep_others` the well's other fields are unlisted and removed last. Two writers of one field
    at a time are not told apart.

    Raises:
        AlreadyExistsError: a field exists and `overwrite` is false; nothing was written.
        MismatchError: shape, dtype or field do not fit; nothing was written.
        URIError: a label cannot have this name; nothing was written.
    """
    where = f"{folder.root}/{well}"
    for field in images:
        if not field.isdecimal() or field != str(int(field)):
            raise MismatchError(f"{where}/{field}: a folder plate numbers its fields: 0, 1, …")
        for name in labels.get(field, ()):
            parse_address(f"{well}/{field}/labels/{name}")
    array = next(iter(images.values()))
    for field, other in images.items():
        if (other.shape, other.dtype) != (array.shape, array.dtype):
            raise MismatchError(
                f"{where}/{field}: {other.dtype} of shape {other.shape}, another field of the "
                f"well is {array.dtype} of shape {array.shape}"
            )
    plate = _must(folder, read_document(folder))
    if plate.shape is None:  # make this the measure of all, before the first plane is written
        plate = _list(folder, where, "", add=[], drop=[], like=array)
    _fits(where, plate, array)
    existing = plate.fields.get(well, ())
    taken = [f for f in images if f in existing] if keep_others else list(existing)
    if taken and not overwrite:
        raise AlreadyExistsError(
            f"{where}/{taken[0]} exists; write with overwrite=True to replace it"
        )
    dropped = [] if keep_others else [f for f in existing if f not in images]
    delete_labels(folder, well, list(images), array.shape)  # also those of a killed writer
    for field, data in images.items():
        _write_planes(folder, "", well, field, data)
        for name, mask in labels.get(field, {}).items():
            _write_planes(folder, f"{LABELS}/{name}/", well, field, mask)
    plate = _list(folder, where, well, add=list(images), drop=dropped, like=array)
    for field in dropped:
        delete_labels(folder, well, [field], array.shape)
        folder.delete(plane_names("", well, field, array.shape))
    return plate


def write_label(folder: Folder, well: str, field: str, name: str, array: NDArray[Any]) -> None:
    """Write a label image, its last plane last: it is there when that one is.

    A new label image is atomic; an existing one is replaced plane by plane, after its last plane
    was removed, so that a failure leaves no label image.

    Raises:
        URIError: a label cannot have this name; nothing was written.
    """
    parse_address(f"{well}/{field}/labels/{name}")
    prefix = f"{LABELS}/{name}/"
    folder.delete(plane_names(prefix, well, field, array.shape)[-1:])
    _write_planes(folder, prefix, well, field, array)


def unlist(folder: Folder, well: str, fields: Sequence[str]) -> OwnPlate:
    """Take fields out of the document, as one step; their files stay."""
    return _list(folder, f"{folder.root}/{well}", well, add=[], drop=fields, like=None)


def delete_labels(folder: Folder, well: str, fields: Sequence[str], shape: Sequence[int]) -> None:
    """Remove all label images of `fields`, each one's last plane first."""
    for name in label_names(folder) if fields else ():
        for field in fields:
            planes = plane_names(f"{LABELS}/{name}/", well, field, (shape[0], 1, *shape[2:]))
            folder.delete(planes[::-1])


def label_names(folder: Folder) -> list[str]:
    """Names of the folders below ``labels``, sorted."""
    try:
        names: list[str] = folder.backend.list_dir(folder.at(LABELS))
    except NotFoundError:
        return []
    return names


def plane_names(prefix: str, well: str, field: str, shape: Sequence[int]) -> list[str]:
    """Paths of all planes of a field of `shape`, in the order ``(t, c, z)``."""
    address, number = parse_well(well), int(field)
    axes = product(range(shape[0]), range(shape[1]), range(shape[2]))
    return [prefix + plane_file_name(address, number, c, z, t) for t, c, z in axes]


def _write_planes(folder: Folder, prefix: str, well: str, field: str, array: NDArray[Any]) -> None:
    """Write the planes in threads, the last one last."""
    names = plane_names(prefix, well, field, array.shape)
    planes = array.reshape(-1, *array.shape[-2:])

    def write(number: int) -> None:
        name = names[number]
        folder.write(name, encode(planes[number], name, where=folder.at(name)))

    in_threads(write, range(len(names) - 1))
    write(len(names) - 1)


def _must(folder: Folder, document: Document | None) -> OwnPlate:
    plate = own_plate(folder, document)
    if plate is None:
        raise NotFoundError(f"{folder.root}: the plate is gone")
    return plate


def _fits(where: str, plate: OwnPlate, array: NDArray[Any]) -> None:
    if (array.shape, str(array.dtype)) != (plate.shape, plate.dtype):
        raise MismatchError(
            f"{where}: {array.dtype} of shape {array.shape}; all fields of this plate are "
            f"{plate.dtype} of shape {plate.shape}"
        )


def _list(
    folder: Folder,
    where: str,
    well: str,
    add: Sequence[str],
    drop: Sequence[str],
    like: NDArray[Any] | None,
) -> OwnPlate:
    """Add and drop fields of a well in the document; `like` must fit, or is made the measure."""

    def change(document: Document) -> Document:
        plate = _must(folder, document)
        part = document["subdirectories"]["."]
        ours = part["polystore"]
        if like is not None and plate.shape is None:
            ours["shape"], ours["dtype"] = list(like.shape), str(like.dtype)
            if not plate.spec.channels:
                _set_channels(part, named_channels([str(i) for i in range(like.shape[1])]))
        elif like is not None:
            _fits(where, plate, like)
        fields = (set(plate.fields.get(well, ())) - set(drop)) | set(add)
        ours["fields"].pop(well, None)
        if fields:
            ours["fields"][well] = sorted(fields, key=int)
        if drop and not ours["fields"]:
            ours["shape"] = ours["dtype"] = None
        wells = [parse_well(path) for path in ours["fields"]]
        part["wells"] = {f"{w.row}{w.column.zfill(2)}": None for w in wells}
        return document

    return _must(folder, update_document(folder, change))


def _new_document(folder: Folder, spec: PlateSpec) -> Document:
    part: Document = {
        "wells": {},
        "pixel_size": spec.pixel_size[2],
        "grid_dimensions": [],
        "polystore": {
            "version": 1,
            "created": time.time(),
            "name": spec.name or folder.root.path.rpartition("/")[2] or folder.root.authority,
            "rows": list(spec.layout.rows),
            "columns": list(spec.layout.columns),
            "pixel_size": list(spec.pixel_size),
            "shape": None,
            "dtype": None,
            "fields": {},
        },
    }
    _set_channels(part, spec.channels)
    backends = {folder.root.scheme: True}
    return {"subdirectories": {".": part}, "available_backends": backends}


def _set_channels(part: Document, channels: Sequence[Channel]) -> None:
    part["channels"] = {str(i): channel.name for i, channel in enumerate(channels, 1)}
    part["polystore"]["channels"] = [{"name": c.name, "color": c.color} for c in channels]
