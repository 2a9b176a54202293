"""The zarr backend: an OME-Zarr plate and all below it, by URI.

In listings a field and a label image count as files (they are what one loads), a plate, a row,
a well and ``tables`` as directories.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ...contracts import (
    Identifier,
    PlateStore,
    Stat,
    StorageBackend,
    check_batch,
    check_identifiers,
    name_matches,
)
from ...errors import AlreadyExistsError, MismatchError, NotFoundError, UnsupportedError, URIError
from ...hcs import ngff
from ...hcs.address import Address
from ...hcs.plate import Image, Mode, Plate
from ...hcs.spec import PlateSpec
from . import check
from .arrays import ZarrImage
from .batches import images_in, load_images, save_fields
from .check import Finding
from .listing import children, is_directory, walk
from .nodes import commit_time, find_document, read_attributes, translated, tree_size
from .plate import ZarrPlate, read_provenance
from .removing import remove
from .staging import staged, sync_tree
from .tables import make_folder, write_file
from .target import Target, parse_target
from .writing import WritablePlate, create


class ZarrBackend(StorageBackend, PlateStore):
    """OME-Zarr plates on a file system, NGFF 0.4 and 0.5."""

    _backend_type = "zarr"

    # Plates

    def open_plate(self, uri: Identifier, mode: Mode = "r") -> ZarrPlate:
        """Open the plate at `uri`; reads one JSON file."""
        target = self._plate_target(uri)
        if mode == "r+" and target.root.is_dir() and not _may_write(target.root):
            with translated(target.plate_uri):
                raise PermissionError(errno.EACCES, "no permission to write", str(target.root))
        opener = WritablePlate if mode == "r+" else ZarrPlate
        return opener(target.root, target.plate_uri)

    def create_plate(
        self, uri: Identifier, spec: PlateSpec, *, exist_ok: bool = False
    ) -> ZarrPlate:
        """Make an empty plate; atomic, nothing is overwritten. See ``PlateStore``."""
        target = self._plate_target(uri)
        return create(target.root, target.plate_uri, spec, exist_ok=exist_ok)

    def check_plate(self, uri: Identifier, *, repair: bool = False) -> list[Finding]:
        """What is wrong with a plate; with `repair` what was wrong and is mended now.

        See `check` for the rules. Without `repair` nothing is changed.
        """
        target = self._plate_target(uri)
        act = check.repair if repair else check.check
        return act(target.root, target.plate_uri)

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
            return {field: well.image(field).read() for field in well.fields}
        return self._image(plate, address).select(address.planes)

    def load_batch(self, identifiers: Sequence[Identifier]) -> list[Any]:
        """`load` for each, in their order; opens each image once, reads nothing twice."""
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
        return self.is_file(path) or self.is_dir(path)

    def is_file(self, path: Identifier) -> bool:
        """Whether it is a listed field or label image, or a file beside the arrays."""
        target = parse_target(path)
        if find_document(target.root) is None:
            return False
        try:
            address = target.address
        except URIError:
            return False
        plate = target.open()
        if address.file is not None:
            return plate.file_path(address.file).is_file()
        if address.field is None or str(address.well) not in plate:
            return False
        well = plate[str(address.well)]
        if address.field not in well.fields:
            return False
        return address.label is None or address.label in well.image(address.field).labels

    def is_dir(self, path: Identifier) -> bool:
        """Whether it is a plate, a row with wells, a listed well, or a folder of files."""
        target = parse_target(path)
        if find_document(target.root) is None:
            return False
        plate = target.open()
        try:
            return is_directory(plate, target.stored(plate))
        except URIError:  # a well that the layout does not have
            return False

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
                return Stat("directory", tree_size(local), local.stat().st_mtime)
            return Stat(
                target.address.kind, tree_size(local, ("labels", "tables")), commit_time(local)
            )

    def local_path(self, path: Identifier) -> Path:
        """Where `path` lies on the file system, whether it exists or not."""
        target = parse_target(path)
        if find_document(target.root) is None:
            return target.root / target.inner
        plate = target.open()
        return plate.root / target.stored(plate)

    # Saving

    def save(self, data: Any, identifier: Identifier, *, overwrite: bool = False) -> None:
        """Write a field, a label image, a well (field -> array) or a file; atomic.

        The plate must exist (`create_plate`). A single plane cannot be written.
        """
        target = parse_target(identifier)
        address = target.address
        if not address.planes.is_all:
            raise UnsupportedError(
                f"{target.uri}: a single plane cannot be written; save the whole field"
            )
        plate = target.open("r+")
        if address.file is not None:
            write_file(plate, address.file, data, overwrite=overwrite)
        elif address.well is None:
            raise UnsupportedError(f"{target.uri} is a whole plate; use create_plate()")
        elif address.label is not None:
            assert address.field is not None
            plate.write_label(
                str(address.well), address.field, address.label, data, overwrite=overwrite
            )
        elif address.field is not None:
            plate.write_image(str(address.well), address.field, data, overwrite=overwrite)
        elif isinstance(data, dict):
            plate.write_well(str(address.well), data, overwrite=overwrite)
        else:
            raise MismatchError(f"{target.uri} is a well; give a dict of field -> array")

    def adopt(self, folder: Path, identifier: Identifier, *, overwrite: bool = False) -> None:
        """Copy a complete field or well, a zarr tree in the local `folder`, into a plate.

        It is read and written anew, so that what is listed is always complete and conformant;
        atomic as `save`.
        """
        target = parse_target(identifier)
        address = target.address
        where = f"zarr:{folder}"
        if address.kind not in ("well", "field"):
            raise UnsupportedError(f"{target.uri}: only wells and fields can be adopted")
        parts, acquisitions = {str(address.field): folder}, {}
        if address.field is None:
            acquisitions = ngff.read_well(read_attributes(folder, where), where)
            parts = {field: folder / field for field in acquisitions}
        images, labels, provenance = {}, {}, {}
        for field, part in parts.items():
            image = ZarrImage(part, where)
            images[field] = image.read()
            labels[field] = {name: image.label(name).read() for name in image.labels}
            provenance[field] = read_provenance(part, where)
        plate = target.open("r+")
        plate.write_well(
            str(address.well),
            images,
            labels,
            overwrite=overwrite,
            keep_others=address.kind == "field",
            acquisition=acquisitions if plate.acquisitions else None,
            provenance=provenance,
        )

    def touch(self, path: Identifier) -> None:
        """Make what `path` names look committed now, for workflow engines."""
        target, plate, inner = self._existing(path)
        local = plate.root / inner
        groups = [local / field for field in plate.present(inner)] or [local]
        with translated(str(target.uri)):
            for group in groups:
                os.utime(find_document(group) or group)

    # Removing, copying

    def delete(self, path: Identifier) -> None:
        """Remove a field, a label image, a file or an empty folder; see `delete_all`."""
        target = parse_target(path)
        if self.is_dir(path) and self.list_dir(path):
            raise UnsupportedError(f"{target.uri} is not empty; use delete_all() to remove it")
        self.delete_all(path)

    def delete_all(self, path: Identifier) -> None:
        """Remove what `path` names with all below it.

        It is taken off the lists first and then renamed away, so that a reader meets all of it
        or none, and a process that is killed leaves nothing listed that is not there.
        """
        target, _, inner = self._existing(path)
        with translated(str(target.uri)):
            remove(target.open("r+"), inner)

    def copy(self, source: Identifier, target: Identifier) -> None:
        """Copy a file, folder of files, field, label, well or plate; atomic, never overwrites."""
        here, plate, inner = self._existing(source)
        there = parse_target(target)
        if inner and inner not in plate.wells and is_directory(plate, inner):
            if any(well.startswith(f"{inner}/") for well in plate.wells):
                raise UnsupportedError(f"{here.uri} is a row; copy its wells or the whole plate")
            self._copy_tree(here, there, there.stored(there.open("r+")))
        elif not inner:
            self._copy_tree(here, self._plate_target(target), "")
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

    def _copy_tree(self, here: Target, there: Target, inner: str) -> None:
        start, end = self.local_path(here.uri.text), there.root / inner
        if end == start or start in end.parents:
            raise UnsupportedError(f"{here.uri} cannot be copied into itself")
        with translated(str(there.uri)), staged(there.root) as stage:
            if end.exists():
                raise AlreadyExistsError(f"{there.uri} exists; delete it or choose another name")
            shutil.copytree(start, stage / "copy")
            sync_tree(stage)
            end.parent.mkdir(parents=True, exist_ok=True)
            (stage / "copy").rename(end)

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
                make_folder(plate, plate.root / target.stored(plate))
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
        if not self.exists(path):
            raise NotFoundError(f"{target.uri} does not exist")
        plate = target.open()
        return target, plate, target.stored(plate)

    def _directory(self, path: Identifier) -> tuple[Target, ZarrPlate, str]:
        if not self.is_dir(path):
            raise NotFoundError(f"{parse_target(path).uri} is no directory of a plate")
        return self._existing(path)

    def _image(self, plate: Plate, address: Address) -> Image:
        assert address.field is not None
        image = plate[str(address.well)].image(address.field)
        return image if address.label is None else image.label(address.label)


def _may_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
