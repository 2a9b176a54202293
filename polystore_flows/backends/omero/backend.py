"""The OMERO backend: plates on a server and all below them, by URI.

In listings a field and a label image count as files (they are what one loads); a plate, a row,
a well and a folder of tables as directories. All are answered from the plate's structure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from threading import RLock
from typing import Any

from ...contracts import (
    Identifier,
    PlateStore,
    Stat,
    StorageBackend,
    VirtualBackend,
    check_identifiers,
    name_matches,
)
from ...errors import (
    AlreadyExistsError,
    MismatchError,
    NotFoundError,
    UnsupportedError,
    URIError,
)
from ...hcs.address import Address
from ...hcs.plate import Image, Mode
from ...hcs.spec import PlateSpec, require_like
from . import contents, derived, listing
from .connection import Connection, shared
from .contents import Contents, contents_of
from .labels import delete_label
from .login import Credentials, Login
from .plate import OmeroPlate
from .target import Target, parse_target


class OMEROLocalBackend(VirtualBackend, StorageBackend, PlateStore):
    """Plates on OMERO servers.

    Args:
        credentials: for this process, instead of those that `login.find_credentials` finds.
            A pickled backend leaves them behind.
    """

    _backend_type = "omero"

    def __init__(self, *, credentials: Credentials | None = None) -> None:
        self._credentials = credentials
        self._own: dict[Login, Connection] = {}
        self._numbers: dict[tuple[Login, str], int] = {}
        self._lock = RLock()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), ()

    def connection(self, uri: Identifier) -> Connection:
        """The session with the server of `uri`; made when first used."""
        return self._connection(parse_target(uri))

    def _connection(self, target: Target) -> Connection:
        if self._credentials is None:
            return shared(target.login)
        with self._lock:
            if target.login not in self._own:
                self._own[target.login] = Connection(target.login, self._credentials)
            return self._own[target.login]

    # Plates

    def open_plate(self, uri: Identifier, mode: Mode = "r") -> OmeroPlate:
        """Open the plate at `uri`; one call, whatever its size."""
        return self._open(self._plate_target(uri), mode)

    def create_plate(
        self, uri: Identifier, spec: PlateSpec, *, exist_ok: bool = False
    ) -> OmeroPlate:
        """Make an empty plate with the name that the URI ends in; see ``PlateStore``.

        One of several processes makes it, and with `exist_ok` the others open that one.
        """
        target = self._plate_target(uri)
        if isinstance(target.plate, int):
            raise MismatchError(
                f"{target.uri}: OMERO gives the numbers; name the new plate, as in "
                f"omero://{target.uri.authority}/plate/my-plate"
            )
        try:
            derived.create(self._connection(target), target.plate, spec, str(target.uri))
        except AlreadyExistsError:
            if not exist_ok:
                raise
            plate = self._open(target, "r+")
            require_like(plate.uri, plate.spec, spec)
            return plate
        return self._open(target, "r+")

    # Loading

    def load(self, identifier: Identifier) -> Any:
        """A field or label (selected planes of it), a well as field -> array, or a file."""
        target = parse_target(identifier)
        address = target.address
        if address.kind == "plate":
            raise UnsupportedError(f"{target.uri} is a whole plate; use open_plate() to read it")
        plate = self._open(target)
        if address.file is not None:
            return plate.read_table(address.file)
        well = plate[str(address.well)]
        if address.field is None:
            return {field: well.image(field).read() for field in well.fields}
        return self._image(plate, address).select(address.planes)

    def load_batch(self, identifiers: Sequence[Identifier]) -> list[Any]:
        """`load` for each, in their order; planes of one image by one store, none twice."""
        check_identifiers(identifiers)
        return listing.load_batch(self, [parse_target(i) for i in identifiers])

    def list_files(
        self,
        directory: Identifier,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[str]:
        """Files, fields and label images in a plate, a row, a well or a folder of tables."""
        target, plate, inner = self._directory(directory)
        root = "/".join(target.uri.path.split("/")[:3])
        return sorted(
            target.uri.at(f"{root}/{path}").text
            for path in listing.walk(plate.contents, inner, recursive=recursive)
            if name_matches(path.rpartition("/")[2], pattern, extensions)
        )

    def list_dir(self, path: Identifier) -> list[str]:
        """Names directly in a plate (rows, ``tables``), a row, a well or a folder of tables."""
        _, plate, inner = self._directory(path)
        files, folders = listing.children(plate.contents, inner)
        return sorted(files | folders)

    def exists(self, path: Identifier) -> bool:
        """Whether the plate lists it."""
        return self.is_file(path) or self.is_dir(path)

    def is_file(self, path: Identifier) -> bool:
        """Whether it is a field, a label image or an attached file."""
        return self._holds(path, listing.is_file)

    def is_dir(self, path: Identifier) -> bool:
        """Whether it is a plate, a row with wells, a well with images or a folder of files."""
        return self._holds(path, listing.is_directory)

    def stat(self, path: Identifier) -> Stat:
        """Kind, bytes and the time when it was made; see ``contracts.Stat``."""
        found = self._look(path)
        if found is not None:
            found[1].contents.renew(contents.FRESH)
        _, plate, inner = self._existing(path)
        return listing.stat(plate.contents, inner)

    def survey(self, uri: Identifier, kind: str) -> dict[str, float] | None:
        """All wells and fields, or files, and their times; label images are asked for one by one.

        See ``PlateStore``; a constant number of calls.
        """
        if kind == "label":
            return None
        _, plate, _ = self._existing(uri)
        plate.contents.renew(contents.FRESH)
        return listing.survey(plate.contents, kind)

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
        plate = self._open(target, "r+")
        if address.file is not None:
            plate.write_table(address.file, data, overwrite=overwrite)
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

    # Removing, copying

    def delete(self, path: Identifier) -> None:
        """Remove a field, a label image or a file; see `delete_all`."""
        if self.is_dir(path) and self.list_dir(path):
            raise UnsupportedError(
                f"{parse_target(path).uri} is not empty; use delete_all() to remove it"
            )
        self.delete_all(path)

    def delete_all(self, path: Identifier) -> None:
        """Remove what `path` names with all below it, in one transaction of the server."""
        target, plate, inner = self._existing(path)
        held, where = plate.contents, str(target.uri)
        group = held.structure.group_id
        label = listing.label_at(held, inner)
        try:
            if label is not None:
                delete_label(held.connection, label, group, where)
            else:
                targets = listing.targets(held, inner)
                held.connection.delete(targets, where, group=group)
        finally:
            held.forget()

    def copy(self, source: Identifier, target: Identifier) -> None:
        """Copy a file, field, label or well; never overwrites."""
        here, plate, inner = self._existing(source)
        address = here.address if inner else None
        if address is None or address.kind == "plate" or listing.is_row(plate.contents, inner):
            raise UnsupportedError(f"{here.uri}: use polystore_flows.copy() for whole plates")
        there = parse_target(target)
        if address.kind not in ("well", "field"):
            self.save(self.load(source), target)
            return
        goal = there.address
        if goal.kind != address.kind:
            raise MismatchError(f"{here.uri} is a {address.kind}, but {there.uri} is not")
        well = plate[str(address.well)]
        fields = well.fields if address.field is None else (address.field,)
        names = {field: goal.field or field for field in fields}
        images, labels = well.read(fields)
        to_plate = self._open(there, "r+")
        to_plate.write_well(
            str(goal.well),
            {names[field]: image for field, image in images.items()},
            {names[field]: masks for field, masks in labels.items()},
            keep_others=goal.field is not None,
            **well.notes(names, to_plate),
        )

    def touch(self, path: Identifier) -> None:
        """Refused: OMERO keeps the times at which things were made."""
        raise UnsupportedError(
            f"{parse_target(path).uri}: OMERO keeps the times at which things were made; write it "
            "again instead"
        )

    def move(self, source: Identifier, target: Identifier) -> None:
        """Copy, then remove the source; never overwrites."""
        self.copy(source, target)
        self.delete_all(source)

    def ensure_directory(self, directory: Identifier) -> str:
        """Accepted for a place where files can be; folders are made by their files."""
        target = parse_target(directory)
        if self.is_file(directory):
            raise AlreadyExistsError(f"{target.uri} is a file")
        self._open(target)
        return target.uri.text

    def create_symlink(
        self, source: Identifier, link_name: Identifier, *, overwrite: bool = False
    ) -> None:
        """Refused: OMERO knows no links."""
        raise UnsupportedError(f"{parse_target(link_name).uri}: OMERO holds no links")

    def is_symlink(self, path: Identifier) -> bool:
        """Always False."""
        return False

    # Helpers

    def _open(self, target: Target, mode: Mode = "r") -> OmeroPlate:
        return OmeroPlate(self._contents(target), target.plate_uri, mode)

    def _contents(self, target: Target) -> Contents:
        connection, where = self._connection(target), target.plate_uri
        if isinstance(target.plate, int):
            return contents_of(connection, target.plate, where)
        key = target.login, target.plate
        for _ in range(2):
            known = self._numbers.get(key)
            number = known or derived.find_by_name(connection, target.plate, where)
            found = contents_of(connection, number, where)
            try:
                found.structure  # noqa: B018  # was it deleted?
            except NotFoundError:
                self._numbers.pop(key, None)
            else:
                self._numbers[key] = number
                break
        return found

    def _plate_target(self, uri: Identifier) -> Target:
        target = parse_target(uri)
        if target.inner:
            raise URIError(f"{target.uri} names a part of a plate; the plate is {target.plate_uri}")
        return target

    def _look(self, path: Identifier) -> tuple[Target, OmeroPlate, str] | None:
        """The plate of `path` and the stored path below it; None where there is no such plate."""
        target = parse_target(path)
        try:
            plate = self._open(target)
            return target, plate, plate.stored_path(target.inner)
        except (NotFoundError, URIError):
            return None

    def _holds(self, path: Identifier, test: Callable[[Contents, str], bool]) -> bool:
        """Whether `path` passes `test`; a "no" from what is known is asked for again."""
        for _ in range(2):
            found = self._look(path)
            if found is None:
                return False
            known = found[1].contents
            if test(known, found[2]):
                return True
            if not known.renew():
                return False
        return False

    def _existing(self, path: Identifier) -> tuple[Target, OmeroPlate, str]:
        found = self._look(path)
        if found is None or not self.exists(path):
            raise NotFoundError(f"{parse_target(path).uri} does not exist")
        return found

    def _directory(self, path: Identifier) -> tuple[Target, OmeroPlate, str]:
        if not self.is_dir(path):
            raise NotFoundError(f"{parse_target(path).uri} is no directory of a plate")
        return self._existing(path)

    def _image(self, plate: OmeroPlate, address: Address) -> Image:
        assert address.field is not None
        image = plate[str(address.well)].image(address.field)
        return image if address.label is None else image.label(address.label)
