"""Plates in stores that cannot rename, such as object stores and memory: writing and removing.

Parts are made in a temporary folder of this machine, as for a file system, and uploaded; see
``uploads`` for how an image is replaced. The JSON of a well and of the plate are changed by
compare-and-swap, the plate's last and together with that of other writers on this host, so a
listed well is a complete well and no writer loses another's. Nothing is locked between hosts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from numpy.typing import NDArray

from ...errors import (
    AlreadyExistsError,
    ConflictError,
    MismatchError,
    NotFoundError,
)
from ...hcs import ngff
from ...hcs.plate import Notes
from ...hcs.spec import PlateSpec
from ...hcs.zarr_config import default_config
from ...metadata import read_json
from . import arrays, store_tables
from .commit import (
    StagedWell,
    check_well,
    existing,
    forget_consolidated,
    list_well,
    ordered,
    row_attributes,
    with_fields,
    without_wells,
)
from .listing import is_directory
from .nodes import (
    DOCUMENTS,
    OURS,
    attributes_in,
    document_path,
    find_document,
    group_content,
    read_attributes,
    translated,
    with_attributes,
)
from .plate import Snapshot, ZarrPlate
from .store_path import StorePath
from .uploads import FieldUpload, change_labels, image_id, put_group, remove_image, update, upload
from .writing import WritablePlate, plate_content, require_wanted, stage_well


class StoredPlate(ZarrPlate):
    """An OME-Zarr plate in a store, opened for reading."""

    def __init__(self, root: StorePath, uri: str, *, still: bool = False) -> None:
        """Open the plate in the folder `root`; see ``ZarrPlate``.

        Args:
            root: of the plate.
            uri: shown in errors.
            still: whether the plate's JSON is read once only, to answer one question.
        """
        self._still = still
        self._read: Snapshot | None = None
        super().__init__(cast(Path, root), uri)  # it does all that is asked of the Path of a plate

    def _facts(self) -> Snapshot:
        return self._read or self._read_document()  # a look at the JSON is a request

    def _read_document(self) -> Snapshot:
        if self._read is None or not self._still:
            self._read = super()._read_document()
        return self._read


class WritableStoredPlate(WritablePlate):
    """An OME-Zarr plate in a store, opened for writing."""

    def __init__(self, root: StorePath, uri: str) -> None:
        """Open the plate in the folder `root`; see ``ZarrPlate``."""
        self.folder = root
        self._made_rows: set[str] = set()
        self._forgotten = False
        super().__init__(cast(Path, root), uri)

    def present(self, well: str) -> tuple[str, ...]:
        """Fields of `well`; none where it is not listed, whatever lies there."""
        path, where = document_path(self.group(well), self.version), f"{self.uri}/{well}"
        try:
            attributes = attributes_in(path, read_json(path), where)
        except NotFoundError:
            return ()
        listed = "well" in attributes.get("ome", attributes) and well in self.wells
        return tuple(ngff.read_well(attributes, where)) if listed else ()

    def group(self, well: str, field: str | None = None) -> StorePath:  # type: ignore[override]
        """The folder of a stored well or of a field of it."""
        return self.folder.joinpath(well, field or "")

    def _write_noted(
        self,
        well: str,
        images: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Mapping[str, NDArray[Any]]],
        overwrite: bool,
        keep_others: bool,
        notes: Notes,
    ) -> None:
        """Write checked arrays; see ``Plate.write_well``.

        Atomic for each field, and for a new well; a well that is replaced whole is replaced
        field by field, once all of it is uploaded. A writer that is killed leaves each field
        old or new, and maybe arrays that nobody sees.
        """
        rules: dict[str, Any] = {"overwrite": overwrite, "keep_others": keep_others}
        check_well(self, well, images, **rules)
        where, fields = f"{self.uri}/{well}", list[FieldUpload]()
        with translated(where), TemporaryDirectory(prefix="polystore-") as folder:
            staged = stage_well(self, Path(folder), well, images, labels, notes)
            said = ngff.read_well(read_attributes(staged.folder, where), where)
            try:
                for name in images:
                    group = self.group(well, name)
                    fields.append(FieldUpload.upload(staged.folder / name, group, self.version))
                self.forget_consolidated()
                check_well(self, well, images, **rules)
                listed = bool(self.present(well))
                row = well.partition("/")[0]
                if row not in self._made_rows:
                    put_group(self.folder / row, row_attributes(self), self.version)
                    self._made_rows.add(row)
                for field in fields:
                    field.commit(f"{where}/{field.image.group.name}", overwrite=overwrite)
            except BaseException:
                for field in fields:
                    field.withdraw()
                raise
            kept = (lambda names: {*names, *images}) if keep_others else (lambda _: images)
            before = self.change_fields(well, kept, said)
            try:
                list_well(self, staged, listed=listed)
            except MismatchError:  # another writer's first field came before ours
                self.remove_fields(well, images)
                self.refresh()
                check_well(self, well, images, **rules)
                raise
            for name in () if keep_others else set(before) - set(images):
                remove_image(self.group(well, name), self.version)
            for field in fields:
                field.remove_replaced()

    def _write_label(
        self, well: str, field: str, name: str, array: NDArray[Any], overwrite: bool
    ) -> None:
        """Write a checked label image and list it last; atomic. See ``Plate.write_label``.

        Raises:
            ConflictError: the field was replaced meanwhile, so the labels are not its labels.
        """
        image, group = self[well].image(field), self.group(well, field)
        where, labels = f"{image.uri}/labels/{name}", group / "labels"
        with translated(where), TemporaryDirectory(prefix="polystore-") as folder:
            _refuse(labels, name, where, overwrite)
            before = read_attributes(group, image.uri)
            common: dict[str, Any] = {"pixel_size": image.pixel_size, "levels": image.levels}
            staged = Path(folder, name)
            arrays.write_label(staged, array, name=name, config=self.config, **common)
            made = upload(staged, labels / name, self.version, image_id(before))
            try:
                _refuse(labels, name, where, overwrite)
                if read_attributes(group, image.uri) != before:
                    raise ConflictError(f"{image.uri} was replaced meanwhile; label it anew")
                made.commit(where, overwrite=overwrite)
            except BaseException:
                made.withdraw()
                raise
            change_labels(labels, self.version, lambda names: [*names, name])
            made.remove_replaced()

    def _write_file(self, path: str, data: Any, overwrite: bool) -> None:
        self.forget_consolidated()
        store_tables.write_file(self, path, data, overwrite=overwrite)

    def make_folder(self, inner: str) -> None:
        """Make a group of tables; other folders are there as long as a file is in them."""
        store_tables.make_folder(self, self.root / inner)

    def touch(self, groups: Sequence[Path]) -> None:
        """Make groups look committed now, by writing their JSON again; or files."""
        for group in cast(Sequence[Any], groups):
            if group.is_file():
                group.store.touch(group.uri.text)
                continue
            path: Any = document_path(group, self.version)

            def touched(content: dict[str, Any], path: StorePath = path) -> dict[str, Any]:
                ours = attributes_in(path, content, str(path)).get(OURS) or {}
                return with_attributes(path, content, {OURS: ours | {"touched": time.time()}})

            update(path, touched)

    # Lists

    def change_fields(
        self,
        well: str,
        change: Callable[[list[str]], Iterable[str]],
        acquisitions: Mapping[str, int | None] | None = None,
    ) -> list[str]:
        """Change which fields the well's JSON lists, by compare-and-swap; what it listed.

        A well that lists none stays as an empty group: another writer may be adding to it.

        Args:
            well: stored path.
            change: names that are listed -> those that shall be.
            acquisitions: of fields for which it is to be said.
        """
        path = document_path(self.group(well), self.version)
        before: list[str] = []

        def edit(content: dict[str, Any]) -> dict[str, Any]:
            attributes = attributes_in(path, content, f"{self.uri}/{well}")
            body = attributes.get("ome", attributes)
            before[:] = ngff.read_well(attributes, str(path)) if "well" in body else ()
            now = ordered(set(change(before)))
            if now:
                return with_fields(path, content, now, acquisitions or {}, self.version)
            body.pop("well", None)
            return content

        if self.version == "0.4":
            put_group(self.group(well), {}, self.version)
        update(path, edit, group_content({}, self.version))
        return before

    def list_again(self, well: str) -> None:
        """List a well that is not listed, if its JSON lists fields: another writer added them."""
        attributes = read_attributes(self.group(well), self.uri)
        if well not in self.wells and "well" in attributes.get("ome", attributes):
            self.relist(well)

    def relist(self, well: str) -> None:
        """List a well that is there, in the plate's JSON."""
        field = self._fields(well)[0]
        image = self._image(well, field)
        windows = [channel.window for channel in image.info.channels]
        list_well(self, StagedWell(Path(), well, {field: image}, windows), listed=False)

    def forget_consolidated(self) -> None:
        """Remove the copy of all metadata that zarr may keep, as ``commit`` does; once."""
        if self.version == "0.5":
            forget_consolidated(self)
        elif not self._forgotten:
            self.folder.store.remove([(self.folder / ".zmetadata").uri.text])
            self._forgotten = True

    def unlist(self, wells: Collection[str]) -> None:
        """Take wells off the plate's JSON, by compare-and-swap."""
        path: Any = self.document_path
        update(path, lambda content: without_wells(self, content, wells))
        self.refresh()

    # Removing

    def remove_fields(self, well: str, fields: Collection[str]) -> None:
        """Take fields off the lists, with the well if it has no others; then remove them.

        A failure leaves nothing listed that is not there.
        """
        if set(self.present(well)) <= set(fields):
            self.unlist([well])
        self.change_fields(well, lambda names: [name for name in names if name not in fields])
        for name in fields:
            remove_image(self.group(well, name), self.version)
        self.list_again(well)

    def remove_well(self, well: str) -> None:
        """Take a well off the lists, then remove all in it."""
        group = self.group(well)
        self.unlist([well])
        self.change_fields(well, lambda _: ())
        files, folders = group.store.list_level(group.uri.text)
        for name in folders:
            if name == "tables":
                group.store.remove_tree((group / name).uri.text)
            elif find_document(group / name) is not None:  # else it may be on its way
                remove_image(group / name, self.version)
        others = [name for name in files if name not in (*DOCUMENTS, ".zgroup")]
        group.store.remove([(group / name).uri.text for name in others])
        self.list_again(well)

    def remove(self, inner: str) -> None:
        """Take a part of the plate, a stored path, off the lists, then remove it.

        Not atomic, but a failure leaves nothing listed that is not there.
        """
        parts, place = inner.split("/"), self.folder / inner
        self.forget_consolidated()
        if not inner:
            place.store.remove([(place / name).uri.text for name in DOCUMENTS])
            place.store.remove_tree(place.uri.text)
        elif place.is_file():
            store_tables.remove_file(self, self.root / inner)
        elif inner in self.wells or inner in self.rows:
            for well in [w for w in self.wells if f"{w}/".startswith(f"{inner}/")]:
                self.remove_well(well)
        elif is_directory(self, inner):
            place.store.remove_tree(place.uri.text)
        elif len(parts) == 3:
            self.remove_fields("/".join(parts[:2]), [parts[2]])
        else:
            self.remove_label("/".join(parts[:2]), parts[2], parts[4])

    def remove_label(self, well: str, field: str, name: str) -> None:
        """Take a label image off its field's list, then remove it."""
        labels = self.group(well, field) / "labels"
        change_labels(labels, self.version, lambda names: [n for n in names if n != name])
        remove_image(labels / name, self.version)


def create(root: StorePath, uri: str, spec: PlateSpec, *, exist_ok: bool) -> WritableStoredPlate:
    """Make the plate `uri` in the folder `root`, whole or not at all; see ``create_plate``."""
    with translated(uri):
        taken = root.is_dir() and find_document(root) is None
        if taken:
            raise AlreadyExistsError(f"{uri} exists and is no plate; choose another path")
        config = spec.config or default_config()
        made = put_group(root, plate_content(root, spec, config), config.ngff_version)
        plate = WritableStoredPlate(root, uri)
        if not made:
            require_wanted(plate, spec, exist_ok=exist_ok)
        return plate


def _refuse(labels: StorePath, name: str, where: str, overwrite: bool) -> None:
    known = find_document(labels) is not None
    if known and not overwrite and name in ngff.read_labels(read_attributes(labels, where), where):
        raise existing(where)
