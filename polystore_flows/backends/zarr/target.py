"""What an identifier of the zarr backend names: a plate, and an address below it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from ...contracts import Identifier, check_identifiers
from ...errors import UnsupportedError, URIError
from ...hcs.address import Address, parse_address, split_plate_path
from ...uri import BackendURI, parse_uri
from .nodes import Place
from .store_path import StorePath

if TYPE_CHECKING:
    from ...hcs.plate import Mode
    from .plate import ZarrPlate
    from .writing import WritablePlate


@dataclass(frozen=True, slots=True)
class Target:
    """An identifier, understood."""

    uri: BackendURI
    """The whole."""
    root: Place
    """Folder of the plate."""
    plate_uri: str
    """The plate, to be shown."""
    inner: str
    """The path below it."""

    @property
    def address(self) -> Address:
        """What `inner` and the query select. Raises `URIError`."""
        try:
            return parse_address(self.inner, self.uri.query)
        except URIError as error:
            raise URIError(f"{self.uri}: {error}") from error

    @overload
    def open(self, mode: Literal["r"] = "r") -> ZarrPlate: ...
    @overload
    def open(self, mode: Literal["r+"]) -> WritablePlate: ...
    @overload
    def open(self, mode: Mode) -> ZarrPlate: ...
    def open(self, mode: Mode = "r") -> ZarrPlate:
        """The plate, to answer one question; a file system's JSON is parsed once."""
        if mode == "r" and isinstance(self.root, StorePath):
            from .store_plate import StoredPlate

            return StoredPlate(self.root, self.plate_uri, still=True)
        return self.open_anew(mode)

    def open_anew(self, mode: Mode) -> ZarrPlate:
        """The plate, to be kept open: it notices when its JSON is replaced."""
        if isinstance(self.root, StorePath):
            from .store_plate import StoredPlate, WritableStoredPlate

            opener = StoredPlate if mode == "r" else WritableStoredPlate
            return opener(self.root, self.plate_uri)
        from .plate import ZarrPlate
        from .writing import WritablePlate

        return (ZarrPlate if mode == "r" else WritablePlate)(self.root, self.plate_uri)

    def stored(self, plate: ZarrPlate) -> str:
        """`inner` with the names that the plate stores, so that ``B/03`` finds ``B/3``."""
        path = plate.file_path(self.inner).relative_to(plate.root).as_posix()
        return "" if path == "." else path


def parse_target(identifier: Identifier) -> Target:
    """The parts of `identifier`, a ``zarr:`` URI or a path."""
    check_identifiers([identifier])
    uri = parse_uri(identifier)
    if uri.scheme == "disk" and not os.fspath(identifier).startswith(("disk:", "file:")):
        uri = BackendURI("zarr", "", uri.path, uri.query)
    if uri.backend != "zarr":
        raise UnsupportedError(f"{uri}: this backend serves zarr:///path and zarr+s3://… only")
    path, inner = split_plate_path(uri.path)
    shown = str(uri.at(path))
    if uri.transport is None:
        return Target(uri, Path(path), shown, inner)
    if not path.strip("/"):
        raise URIError(f"{uri} names no plate; write for example {uri.scheme}://bucket/p.zarr")
    return Target(uri, StorePath(BackendURI(uri.transport, uri.authority, path)), shown, inner)
