"""The zarr backend: an OME-Zarr plate and all below it, by URI.

In listings a field and a label image count as files (they are what one loads), a plate, a row,
a well and ``tables`` as directories.

Imports of what reads and writes arrays are in the methods: a workflow engine that only asks what
a plate holds need not wait for numpy.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...contracts import (
    Identifier,
    PlateStore,
    Stat,
    StorageBackend,
    check_batch,
    check_identifiers,
    name_matches,
)
from ...errors import MismatchError, NotFoundError, UnsupportedError, URIError
from ...hcs.address import Address
from .listing import children, is_directory, walk
from .nodes import commit_time, folder_time, translated, tree_size
from .store_path import StorePath
from .survey import survey
from .target import Target, parse_target

if TYPE_CHECKING:
    from ...hcs.plate import Image, Mode, Plate
    from ...hcs.spec import PlateSpec
    from .check import Finding
    from .plate import ZarrPlate


class ZarrBackend(StorageBackend, PlateStore):
    """OME-Zarr plates on file systems, object stores and in memory, NGFF 0.4 and 0.5."""

    _backend_type = "zarr"

    # Plates

    def open_plate(self, uri: Identifier, mode: Mode = "r") -> ZarrPlate:
        """Open the plate at `uri`; reads one JSON file."""
        target = self._plate_target(uri)
        root = target.root
        if mode == "r+" and isinstance(root, Path) and root.is_dir() and not _may_write(root):
            with translated(target.plate_uri):
                raise PermissionError(errno.EACCES, "no permission to write", str(root))
        return target.open_anew(mode)

    def create_plate(
        self, uri: Identifier, spec: PlateSpec, *, exist_ok: bool = False
    ) -> ZarrPlate:
        """Make an empty plate; atomic, nothing is overwritten. See ``PlateStore``."""
        from . import store_plate, writing

        target = self._plate_target(uri)
        if isinstance(target.root, StorePath):
            return store_plate.create(target.root, target.plate_uri, spec, exist_ok=exist_ok)
        return writing.create(target.root, target.plate_uri, spec, exist_ok=exist_ok)

    def check_plate(self, uri: Identifier, *, repair: bool = False) -> list[Finding]:
        """What is wrong with a plate; with `repair` what was wrong and is mended now.

        See `check` for the rules. Without `repair` nothing is changed.
        """
        from . import check, store_check

        target = self._plate_target(uri)
        if isinstance(target.root, StorePath):
            return (store_check.repair if repair else store_check.check)(
                target.root, target.plate_uri
            )
        return (check.repair if repair else check.check)(target.root, target.plate_uri)

    def survey(self, uri: Identifier, kind: str) -> dict[str, float]:
        """All parts of a kind and their times, see ``PlateStore``; opens no image."""
        target = self._plate_target(uri)
        with translated(target.plate_uri):
            return survey(target.root, target.plate_uri, kind)

    # Loading

    def load(self, identifier: Identifier) -> Any:
        """A field or label (selected planes of it), a well as field -> array, or a file."""
        target = parse_target(identifier)
        address = target.address
        if address.kind == "plate":
            raise UnsupportedError(f"{target.uri} is a whole plate; use open_plate() to read it")
        plate = target.open()
        if address.file is not None:
            return plate.read_table(address.file)
        well = plate[str(address.well)]
        if address.field is None:
            return well.read(labels=False)[0]
        return self._image(plate, address).select(address.planes)

    def load_batch(self, identifiers: Sequence[Identifier]) -> list[Any]:
        """`load` for each, in their order; opens each image once, reads nothing twice."""
        from .batches import images_in, load_images

        check_identifiers(identifiers)
        targets = images_in(identifiers)
        return super().load_batch(identifiers) if targets is None else load_images(targets)

    def save_batch(
        self,
        data_list: Sequence[Any],
        identifiers: Sequence[Identifier],
        *,
        overwrite: bool = False,
    ) -> None:
        """Write fields, one commit a well; all are checked before anything is written.

        Atomic for each well; a failure leaves the wells before it written. Other things than
        fields are written one by one, as `save` does.
        """
        from .batches import images_in, save_fields

        check_batch(data_list, identifiers)
        targets = images_in(identifiers)
        if targets is None or any(target.address.kind != "field" for target in targets):
            super().save_batch(data_list, identifiers, overwrite=overwrite)
        else:
            save_fields(data_list, targets, overwrite=overwrite)

    def list_files(
        self,
        directory: Identifier,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[str]:
        """Files, fields and label images in a plate, a row, a well or a folder of tables."""
        target, plate, inner = self._directory(directory)
        if recursive and isinstance(target.root, StorePath):
            from .store_plate import StoredPlate

            plate = StoredPlate(target.root.listed(), target.plate_uri, still=True)
        return sorted(
            target.uri.at(f"{target.root.as_posix()}/{path}").text
            for path in walk(plate, inner, recursive=recursive)
            if name_matches(path.rpartition("/")[2], pattern, extensions)
        )

    def list_dir(self, path: Identifier) -> list[str]:
        """Names directly in a plate (rows, ``tables``), a row, a well or a folder of tables."""
        _, plate, inner = self._directory(path)
        files, folders = children(plate, inner)
        return sorted(files + folders)

    def exists(self, path: Identifier) -> bool:
        """Whether the plate lists it, or the file or folder is there."""
        target = parse_target(path)
        plate = _open_if_there(target)
        return plate is not None and (_is_file(target, plate) or _is_dir(target, plate))

    def is_file(self, path: Identifier) -> bool:
        """Whether it is a listed field or label image, or a file beside the arrays."""
        target = parse_target(path)
        plate = _open_if_there(target)
        return plate is not None and _is_file(target, plate)

    def is_dir(self, path: Identifier) -> bool:
        """Whether it is a plate, a row with wells, a listed well, or a folder of files."""
        target = parse_target(path)
        plate = _open_if_there(target)
        return plate is not None and _is_dir(target, plate)

    def stat(self, path: Identifier) -> Stat:
        """Kind, bytes and commit time; see ``contracts.Stat``.

        A field's time is that of its own metadata file, a well's that of its newest field, and
        a plate's that of its creation.
        """
        target, plate, inner = self._existing(path)
        local = plate.root / inner
        with translated(str(target.uri)):
            if local.is_file():
                status = local.stat()
                return Stat("file", status.st_size, status.st_mtime)
            if not inner:
                return Stat("plate", tree_size(local), plate.created)
            if inner in plate.wells:
                times = (commit_time(local / field) for field in plate.present(inner))
                return Stat("well", tree_size(local, ("tables",)), max(times))
            if is_directory(plate, inner):
                return Stat("directory", tree_size(local), folder_time(local))
            return Stat(
                target.address.kind, tree_size(local, ("labels", "tables")), commit_time(local)
            )

    def raw_uri(self, path: Identifier) -> str:
        """The file or folder that holds `path`, for those who copy it as it is stored."""
        target = parse_target(path)
        plate = _open_if_there(target)
        place = target.root / (target.inner if plate is None else target.stored(plate))
        if isinstance(place, StorePath):
            return place.uri.text
        return f"disk:{'//' if place.is_absolute() else ''}{place.as_posix()}"

    # Saving

    def save(self, data: Any, identifier: Identifier, *, overwrite: bool = False) -> None:
        """Write a field, a label image, a well (field -> array) or a file; atomic.

        The plate must exist (`create_plate`). Planes replace those of a field that is there,
        which costs as much as loading and saving the field; for a new field, or for many
        planes, use `save_batch`.
        """
        target = parse_target(identifier)
        address = target.address
        if address.kind == "field":
            from .batches import save_fields

            return save_fields([data], [target], overwrite=overwrite)
        if not address.planes.is_all:
            raise UnsupportedError(
                f"{target.uri}: a plane of a label image cannot be saved alone; save all of it"
            )
        plate = target.open("r+")
        if address.file is not None:
            plate.write_table(address.file, data, overwrite=overwrite)
        elif address.well is None:
            raise UnsupportedError(f"{target.uri} is a whole plate; use create_plate()")
        elif address.label is not None:
            assert address.field is not None
            plate.write_label(
                str(address.well), address.field, address.label, data, overwrite=overwrite
            )
        elif isinstance(data, dict):
            plate.write_well(str(address.well), data, overwrite=overwrite)
        else:
            raise MismatchError(f"{target.uri} is a well; give a dict of field -> array")
        return None

    def adopt(self, local: Path, identifier: Identifier, *, overwrite: bool = False) -> None:
        """Copy a local field or well (a zarr tree), or a file, into a plate; atomic as `save`."""
        from .adopting import adopt

        adopt(local, parse_target(identifier), overwrite=overwrite)

    def touch(self, path: Identifier) -> None:
        """Make what `path` names look committed now, for workflow engines."""
        target, plate, inner = self._existing(path)
        place = plate.root / inner
        with translated(str(target.uri)):
            groups = [place / field for field in plate.present(inner)]
            target.open("r+").touch(groups or [place])

    # Removing, copying

    def delete(self, path: Identifier) -> None:
        """Remove a field, a label image, a file or an empty folder; see `delete_all`."""
        target = parse_target(path)
        plate = _open_if_there(target)
        if (
            plate is not None
            and _is_dir(target, plate)
            and any(children(plate, target.stored(plate)))
        ):
            raise UnsupportedError(f"{target.uri} is not empty; use delete_all() to remove it")
        self.delete_all(path)

    def delete_all(self, path: Identifier) -> None:
        """Remove what `path` names with all below it.

        It is taken off the lists first, so that a process that is killed leaves nothing listed
        that is not there. On a file system a reader meets all of it or none.
        """
        target, _, inner = self._existing(path)
        with translated(str(target.uri)):
            target.open("r+").remove(inner)

    def copy(self, source: Identifier, target: Identifier) -> None:
        """Copy a file, folder of files, field, label, well or plate; never overwrites.

        Atomic, but for plates and folders in stores.
        """
        from .copying import copy_folder, copy_plate

        here, plate, inner = self._existing(source)
        there = parse_target(target)
        if inner and inner not in plate.wells and is_directory(plate, inner):
            if any(well.startswith(f"{inner}/") for well in plate.wells):
                raise UnsupportedError(f"{here.uri} is a row; copy its wells or the whole plate")
            copy_folder(here, plate, there)
        elif not inner:
            copy_plate(here, plate, self._plate_target(target))
        elif here.address.kind in ("well", "field"):
            goal = there.address
            if goal.kind != here.address.kind:
                raise MismatchError(f"{here.uri} is a {here.address.kind}, but {there.uri} is not")
            well = plate[str(here.address.well)]
            images, labels = well.read(None if goal.field is None else [str(here.address.field)])
            names = {field: goal.field or field for field in images}
            target_plate = there.open("r+")
            target_plate.write_well(
                str(goal.well),
                {names[field]: image for field, image in images.items()},
                {names[field]: masks for field, masks in labels.items()},
                keep_others=goal.field is not None,
                **well.notes(names, target_plate),
            )
        else:
            self.save(self.load(source), target)

    def move(self, source: Identifier, target: Identifier) -> None:
        """Copy, then remove the source; never overwrites."""
        self.copy(source, target)
        self.delete_all(source)

    def ensure_directory(self, directory: Identifier) -> str:
        """Make a folder for tables and texts; plates and wells are made by writing them."""
        target = parse_target(directory)
        if not self.is_dir(directory):
            plate = target.open("r+")
            parts = target.inner.split("/")
            if parts[0] in plate.rows and "tables" not in parts[2:]:
                raise UnsupportedError(f"{target.uri}: wells are made by writing their fields")
            with translated(str(target.uri)):
                plate.make_folder(target.stored(plate))
        return target.uri.text

    def create_symlink(
        self, source: Identifier, link_name: Identifier, *, overwrite: bool = False
    ) -> None:
        """Refused: OME-Zarr knows no links."""
        raise UnsupportedError(f"{parse_target(link_name).uri}: an OME-Zarr plate holds no links")

    def is_symlink(self, path: Identifier) -> bool:
        """Always False."""
        return False

    # Helpers

    def _plate_target(self, uri: Identifier) -> Target:
        target = parse_target(uri)
        if target.inner:
            raise URIError(f"{target.uri} names a part of a plate; the plate is {target.plate_uri}")
        return target

    def _existing(self, path: Identifier) -> tuple[Target, ZarrPlate, str]:
        target = parse_target(path)
        plate = _open_if_there(target)
        if plate is None or not (_is_file(target, plate) or _is_dir(target, plate)):
            raise NotFoundError(f"{target.uri} does not exist")
        return target, plate, target.stored(plate)

    def _directory(self, path: Identifier) -> tuple[Target, ZarrPlate, str]:
        target = parse_target(path)
        plate = _open_if_there(target)
        if plate is None or not _is_dir(target, plate):
            raise NotFoundError(f"{target.uri} is no directory of a plate")
        return target, plate, target.stored(plate)

    def _image(self, plate: Plate, address: Address) -> Image:
        assert address.field is not None
        image = plate[str(address.well)].image(address.field)
        return image if address.label is None else image.label(address.label)


def _open_if_there(target: Target) -> ZarrPlate | None:
    try:
        return target.open()
    except NotFoundError:
        return None


def _is_file(target: Target, plate: ZarrPlate) -> bool:
    try:
        address = target.address
    except URIError:
        return False
    if address.file is not None:
        return plate.file_path(address.file).is_file()
    if address.field is None or str(address.well) not in plate:
        return False
    well = plate[str(address.well)]
    if address.field not in well.fields:
        return False
    return address.label is None or address.label in well.image(address.field).labels


def _is_dir(target: Target, plate: ZarrPlate) -> bool:
    try:
        return is_directory(plate, target.stored(plate))
    except URIError:  # a well that the layout does not have
        return False


def _may_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
