"""Writing into an OME-Zarr plate: wells, fields, label images, tables, and new plates.

All is made in a staging folder and synced there, then `commit` renames and lists it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...errors import AlreadyExistsError, MismatchError, URIError
from ...hcs import ngff
from ...hcs.image import named_channels, pyramid_levels
from ...hcs.plate import Mode
from ...hcs.spec import PlateSpec, require_like
from ...hcs.zarr_config import default_config
from ...metadata import atomic_write_json
from .. import codecs
from . import arrays
from .commit import check_well, commit_well, existing, ordered, set_labels
from .locks import locked
from .nodes import (
    OURS,
    document_path,
    find_document,
    group_content,
    make_group,
    read_attributes,
    translated,
)
from .plate import Snapshot, ZarrPlate
from .staging import put, staged, sync_tree


class WritablePlate(ZarrPlate):
    """An OME-Zarr plate opened for writing.

    Once it has read what the plate's fields are like, it does not read the plate's JSON again for
    every well, which others change all the time: ``commit_well`` makes sure that it still holds.
    """

    mode: Mode = "r+"
    _known: Snapshot | None = None

    def _facts(self) -> Snapshot:
        if self._known is None or "field" not in self._known.ours:
            self._known = self._read_document()
        return self._known

    def refresh(self) -> None:
        """Read the plate's JSON anew when it is next asked."""
        super().refresh()
        self._known = None

    def _write_well(
        self,
        well: str,
        images: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Mapping[str, NDArray[Any]]],
        overwrite: bool,
        keep_others: bool,
    ) -> None:
        write_well(self, well, images, labels, overwrite=overwrite, keep_others=keep_others)

    def _write_label(
        self, well: str, field: str, name: str, array: NDArray[Any], overwrite: bool
    ) -> None:
        write_label(self, well, field, name, array, overwrite=overwrite)

    def _write_file(self, path: str, data: Any, overwrite: bool) -> None:
        write_file(self, path, data, overwrite=overwrite)


def write_well(
    plate: ZarrPlate,
    well: str,
    images: Mapping[str, NDArray[Any]],
    labels: Mapping[str, Mapping[str, NDArray[Any]]],
    *,
    overwrite: bool,
    keep_others: bool,
) -> None:
    """Write checked arrays; see ``Plate.write_well``.

    Atomic for a well that is written whole, else for each field: a reader sees the old or the
    new one. A writer that is killed leaves the plate as it was.
    """
    check_well(plate, well, images, overwrite=overwrite, keep_others=keep_others)
    with translated(f"{plate.uri}/{well}"), staged(plate.root) as stage:
        stage_well(plate, stage, well, images, labels)
        commit_well(plate, stage, well, images, overwrite=overwrite, keep_others=keep_others)


def stage_well(
    plate: ZarrPlate,
    stage: Path,
    well: str,
    images: Mapping[str, NDArray[Any]],
    labels: Mapping[str, Mapping[str, NDArray[Any]]],
) -> None:
    """Write checked arrays as the well in ``stage/well``, and sync it; not atomic."""
    count = next(iter(images.values())).shape[1]
    channels = plate.channel_info or named_channels([str(i) for i in range(count)])
    folder = stage / "well"
    for field, array in images.items():
        common: dict[str, Any] = {
            "pixel_size": plate.pixel_size,
            "levels": plate.ours.get("levels") or pyramid_levels(array.shape),
            "config": plate.config,
        }
        arrays.write_field(
            folder / field, array, name=f"{well}/{field}", channels=channels, **common
        )
        masks = labels.get(field, {})
        if masks:
            listed = ngff.labels_attributes(sorted(masks), plate.version)
            make_group(folder / field / "labels", listed, plate.version)
        for name, mask in masks.items():
            arrays.write_label(folder / field / "labels" / name, mask, name=name, **common)
    make_group(folder, ngff.well_attributes(ordered(images), plate.version), plate.version)
    sync_tree(folder)


def write_label(
    plate: ZarrPlate,
    well: str,
    field: str,
    name: str,
    array: NDArray[Any],
    *,
    overwrite: bool,
) -> None:
    """Write a checked label image and list it last; atomic. See ``Plate.write_label``."""
    image = plate[well].image(field)
    where = f"{image.uri}/labels/{name}"
    with translated(where), staged(plate.root) as stage:
        arrays.write_label(
            stage / name,
            array,
            name=name,
            pixel_size=image.pixel_size,
            levels=image.levels,
            config=plate.config,
        )
        sync_tree(stage)
        folder = plate.group(well, field) / "labels"
        with locked(plate, well):
            listed = ngff.read_labels(read_attributes(folder, where)) if folder.is_dir() else ()
            if name in listed and not overwrite:
                raise existing(where)
            if not folder.is_dir():
                make_group(
                    stage / "labels", ngff.labels_attributes([], plate.version), plate.version
                )
                put(stage / "labels", folder)
            put(stage / name, folder / name)
            set_labels(plate, folder, sorted({*listed, name}))


def write_file(plate: ZarrPlate, path: str, data: Any, *, overwrite: bool) -> None:
    """Write a table or text, or its bytes, beside the arrays; atomic. See ``Plate.write_table``."""
    where = f"{plate.uri}/{path}"
    target = plate.file_path(path)
    encoded = data if isinstance(data, bytes) else codecs.encode(data, target.name)
    with translated(where), staged(plate.root) as stage:
        part = stage / "file"
        part.write_bytes(encoded)
        sync_tree(stage)
        with _locked_around(plate, target):
            make_folder(plate, target.parent)
            try:
                (os.replace if overwrite else os.link)(part, target)
            except FileExistsError as error:
                raise existing(where) from error


def create(root: Path, uri: str, spec: PlateSpec, *, exist_ok: bool) -> WritablePlate:
    """Make the plate `uri` in the folder `root`, whole or not at all; see ``create_plate``."""
    if find_document(root) is None:
        config = spec.config or default_config()
        ours = {
            "name": spec.name or root.name.removesuffix(".zarr").removesuffix(".ome"),
            "rows": list(spec.layout.rows),
            "columns": list(spec.layout.columns),
            "channels": [{"name": c.name, "color": c.color} for c in spec.channels],
            "pixel_size": list(spec.pixel_size),
            "levels": spec.levels,
            "config": config.as_json(),
            "created": time.time(),
        }
        with translated(uri), staged(root) as stage:
            make_group(stage / "plate", {OURS: ours}, config.ngff_version)
            sync_tree(stage)
            try:
                (stage / "plate").rename(root)
                return WritablePlate(root, uri)
            except OSError as error:  # somebody was faster, or something else is there
                if not root.exists():
                    raise
                if find_document(root) is None:
                    raise AlreadyExistsError(
                        f"{uri} exists and is no plate; choose another path"
                    ) from error
    if not exist_ok:
        raise AlreadyExistsError(
            f"{uri} exists; open it with mode='r+' or create it with exist_ok=True"
        )
    plate = WritablePlate(root, uri)
    require_like(uri, plate.spec, spec)
    wanted = spec.config.ngff_version if spec.config else plate.version
    if plate.version != wanted:
        raise MismatchError(
            f"{uri} exists in NGFF {plate.version}, not {wanted}; write to another plate or delete "
            "it first"
        )
    return plate


def make_folder(plate: ZarrPlate, folder: Path) -> None:
    """`folder` and its parents.

    The plate's ``tables`` is a zarr group, as other readers expect; a well's is a plain folder,
    because iohub takes every group in a well for a field.
    """
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if folder == plate.root / "tables":
        if plate.version == "0.4":
            atomic_write_json(folder / ".zgroup", {"zarr_format": 2})
        atomic_write_json(document_path(folder, plate.version), group_content({}, plate.version))


def _locked_around(plate: ZarrPlate, file: Path) -> AbstractContextManager[None]:
    """The lock of the well that holds `file`, for a well may be replaced; none for the plate's."""
    parts = file.relative_to(plate.root).parts
    try:
        well = plate.layout_path("/".join(parts[:2]))
    except URIError:
        return nullcontext()
    return locked(plate, well)
