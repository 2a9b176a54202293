"""Writing into an OME-Zarr plate: wells, fields, label images, and new plates.

All is made in a staging folder and synced there, then `commit` renames and lists it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...errors import AlreadyExistsError, MismatchError
from ...hcs import ngff
from ...hcs.image import Channel, display_window, named_channels, pyramid_levels
from ...hcs.plate import Mode, Notes
from ...hcs.spec import PlateSpec, find_acquisition, require_like
from ...hcs.zarr_config import ZarrConfig, default_config
from ...metadata.paths import sync_folder
from . import arrays
from .commit import (
    StagedWell,
    channels_json,
    check_well,
    commit_well,
    existing,
    forget_consolidated,
    ordered,
    set_labels,
)
from .locks import locked
from .nodes import (
    OURS,
    Place,
    find_document,
    make_group,
    plate_name,
    read_attributes,
    translated,
)
from .plate import Snapshot, ZarrPlate
from .removing import remove
from .staging import put, staged, sync_tree
from .tables import make_folder, write_file


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

    def _write_noted(
        self,
        well: str,
        images: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Mapping[str, NDArray[Any]]],
        overwrite: bool,
        keep_others: bool,
        notes: Notes,
    ) -> None:
        write_well(self, well, images, labels, notes, overwrite=overwrite, keep_others=keep_others)

    def _write_label(
        self, well: str, field: str, name: str, array: NDArray[Any], overwrite: bool
    ) -> None:
        write_label(self, well, field, name, array, overwrite=overwrite)

    def _write_file(self, path: str, data: Any, overwrite: bool) -> None:
        write_file(self, path, data, overwrite=overwrite)

    def make_folder(self, inner: str) -> None:
        """Make a folder for tables and texts, with its parents."""
        make_folder(self, self.root / inner)

    def remove(self, inner: str) -> None:
        """Remove a part of the plate, a stored path, with all below it; see ``removing``."""
        remove(self, inner)

    def touch(self, groups: Sequence[Path]) -> None:
        """Make groups look committed now."""
        for group in groups:
            os.utime(find_document(group) or group)


def write_well(
    plate: ZarrPlate,
    well: str,
    images: Mapping[str, NDArray[Any]],
    labels: Mapping[str, Mapping[str, NDArray[Any]]],
    notes: Notes,
    *,
    overwrite: bool,
    keep_others: bool,
) -> None:
    """Write checked arrays; see ``Plate.write_well``.

    Atomic for a well that is written whole, else for each field: a reader sees the old or the
    new one. A writer that is killed leaves the plate as it was.
    """
    with translated(f"{plate.uri}/{well}"), staged(plate.root) as stage:
        check_well(plate, well, images, overwrite=overwrite, keep_others=keep_others)
        made = stage_well(plate, stage, well, images, labels, notes)
        sync_tree(made.folder)
        commit_well(plate, made, overwrite=overwrite, keep_others=keep_others)


def stage_well(
    plate: ZarrPlate,
    stage: Path,
    well: str,
    images: Mapping[str, NDArray[Any]],
    labels: Mapping[str, Mapping[str, NDArray[Any]]],
    notes: Notes,
) -> StagedWell:
    """Write checked arrays as a well into the folder `stage`; not atomic."""
    acquisitions = _acquisitions(plate, well, notes.acquisitions)
    channels = _with_windows(plate, next(iter(images.values())))
    folder = stage / "well"
    for field, array in images.items():
        common: dict[str, Any] = {
            "pixel_size": plate.pixel_size,
            "levels": plate.ours.get("levels") or pyramid_levels(array.shape),
            "config": plate.config,
        }
        arrays.write_field(
            folder / field,
            array,
            name=f"{well}/{field}",
            channels=channels,
            provenance=notes.provenance.get(field),
            **common,
        )
        masks = labels.get(field, {})
        if masks:
            listed = ngff.labels_attributes(sorted(masks), plate.version)
            make_group(folder / field / "labels", listed, plate.version)
        for name, mask in masks.items():
            arrays.write_label(folder / field / "labels" / name, mask, name=name, **common)
    fields = {field: acquisitions.get(field) for field in ordered(images)}
    make_group(folder, ngff.well_attributes(fields, plate.version), plate.version)
    return StagedWell(folder, well, images, [channel.window for channel in channels])


def _acquisitions(
    plate: ZarrPlate, well: str, wanted: Mapping[str, int | str | None]
) -> dict[str, int | None]:
    """Field -> id; a field that is replaced keeps its own unless another is wanted."""
    present = plate._acquisitions_of(well) if plate.present(well) else {}
    return {
        field: present[field]
        if one is None and field in present
        else find_acquisition(plate.acquisitions, one, f"{plate.uri}/{well}/{field}")
        for field, one in wanted.items()
    }


def _with_windows(plate: ZarrPlate, image: NDArray[Any]) -> list[Channel]:
    """The plate's channels with the windows of its first field, so that all look alike."""
    channels = plate.channel_info or named_channels([str(i) for i in range(image.shape[1])])
    known = plate.ours.get("windows") or [None] * len(channels)
    return [
        replace(channel, window=channel.window or tuple(window or display_window(image[:, c])))
        for c, (channel, window) in enumerate(zip(channels, known, strict=True))
    ]


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
            forget_consolidated(plate)
            listed: tuple[str, ...] = ()
            if folder.is_dir():
                listed = ngff.read_labels(read_attributes(folder, where), where)
            if name in listed and not overwrite:
                raise existing(where)
            if not folder.is_dir():
                make_group(
                    stage / "labels", ngff.labels_attributes([], plate.version), plate.version
                )
                put(stage / "labels", folder, plate.root)
            put(stage / name, folder / name, plate.root)
            set_labels(plate, folder, sorted({*listed, name}))


def create(root: Path, uri: str, spec: PlateSpec, *, exist_ok: bool) -> WritablePlate:
    """Make the plate `uri` in the folder `root`, whole or not at all; see ``create_plate``."""
    if find_document(root) is None:
        config = spec.config or default_config()
        with translated(uri), staged(root) as stage:
            make_group(stage / "plate", plate_content(root, spec, config), config.ngff_version)
            sync_tree(stage)
            try:
                (stage / "plate").rename(root)
                sync_folder(root.parent)
                return WritablePlate(root, uri)
            except OSError as error:  # somebody was faster, or something else is there
                if not root.exists():
                    raise
                if find_document(root) is None:
                    raise AlreadyExistsError(
                        f"{uri} exists and is no plate; choose another path"
                    ) from error
    plate = WritablePlate(root, uri)
    require_wanted(plate, spec, exist_ok=exist_ok)
    return plate


def plate_content(root: Place, spec: PlateSpec, config: ZarrConfig) -> ngff.Attributes:
    """The attributes of a new plate in `root`, which NGFF does not know before its first well."""
    ours = {
        "name": spec.name or plate_name(root),
        "rows": list(spec.layout.rows),
        "columns": list(spec.layout.columns),
        "channels": channels_json(spec.channels),
        "acquisitions": [asdict(a) for a in spec.acquisitions],
        "pixel_size": list(spec.pixel_size),
        "levels": spec.levels,
        "config": config.as_json(),
        "created": time.time(),
    }
    return {OURS: ours}


def require_wanted(plate: ZarrPlate, spec: PlateSpec, *, exist_ok: bool) -> None:
    """Refuse a plate that exists, unless it may and is like the one that was to be made."""
    if not exist_ok:
        raise AlreadyExistsError(
            f"{plate.uri} exists; open it with mode='r+' or create it with exist_ok=True"
        )
    require_like(plate.uri, plate.spec, spec)
    wanted = spec.config.ngff_version if spec.config else plate.version
    if plate.version != wanted:
        raise MismatchError(
            f"{plate.uri} exists in NGFF {plate.version}, not {wanted}; write to another plate or "
            "delete it first"
        )
