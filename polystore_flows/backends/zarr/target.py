"""What an identifier of the zarr backend names: a plate, and an address below it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...contracts import Identifier, check_identifiers
from ...errors import UnsupportedError, URIError
from ...hcs.address import Address, parse_address, split_plate_path
from ...hcs.plate import Mode
from ...uri import BackendURI, parse_uri
from .plate import ZarrPlate
from .writing import WritablePlate


@dataclass(frozen=True, slots=True)
class Target:
    """An identifier, understood."""

    uri: BackendURI
    """The whole."""
    root: Path
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

    def open(self, mode: Mode = "r") -> ZarrPlate:
        """The plate; its JSON is parsed once as long as it is not replaced."""
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
    if uri.scheme != "zarr":
        raise UnsupportedError(
            f"{uri}: OME-Zarr plates are read and written on file systems only; use zarr:///path"
        )
    root, inner = split_plate_path(uri.path)
    return Target(uri, Path(root), str(uri.at(root)), inner)
