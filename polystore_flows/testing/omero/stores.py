"""The services that keep state of a caller: RawPixelsStore and RawFileStore."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import omero
import omero.api

from .graph import load
from .servant import Servant, Session
from .store import Row

_WIDTH = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "float": 4}
_WIDTH |= {"double": 8}


class _Stateful(Servant):
    def __init__(self, session: Session) -> None:
        self._session = session
        self._store = session.server.store
        self._row: Row | None = None

    def _open(self, kind: str, number: int, current: Any) -> Row:
        row = self._store.find(kind, number)
        if row is None or not self._session.access(current).readable(row):
            raise omero.ValidationException(message=f"Cannot read {kind}: {number}")
        self._row = row
        return row

    def _current(self) -> Row:
        if self._row is None:
            raise omero.ApiUsageException(message="This store is not initialized; set its id")
        return self._row

    def _writable(self, current: Any) -> Row:
        row = self._current()
        if not self._session.access(current).writable(row):
            raise omero.SecurityViolation(message=f"Cannot write to {row.kind}:{row.id}")
        return row

    def close(self, current: Any) -> None:
        """End the service."""
        self._session.servants.pop(current.id.name, None)


class PixelsStore(_Stateful, omero.api.RawPixelsStore):
    """RawPixelsStore: planes and tiles, big-endian, as OMERO sends them."""

    def setPixelsId(self, number: int, bypass: bool, current: Any) -> None:
        """Choose the pixels."""
        self._open("Pixels", number, current)

    def getPixelsId(self, current: Any) -> int:
        """Number of the pixels."""
        return self._current().id

    def getByteWidth(self, current: Any) -> int:
        """Bytes of a pixel."""
        return self._width()

    def isSigned(self, current: Any) -> bool:
        """Whether values may be negative."""
        return not self._type().startswith("uint")

    def isFloat(self, current: Any) -> bool:
        """Whether values are floats."""
        return self._type() in ("float", "double")

    def getPlaneSize(self, current: Any) -> int:
        """Bytes of a plane."""
        return self._plane_size()

    def requiresPixelsPyramid(self, current: Any) -> bool:
        """Never; it keeps full planes."""
        return False

    def getResolutionLevels(self, current: Any) -> int:
        """One."""
        return 1

    def getPlane(self, z: int, c: int, t: int, current: Any) -> bytes:
        """One plane."""
        return self._sent(self._read(self._offset(z, c, t), self._plane_size()))

    def getTile(
        self, z: int, c: int, t: int, x: int, y: int, width: int, height: int, current: Any
    ) -> bytes:
        """A rectangle of a plane."""
        start, row, part = self._rectangle(z, c, t, x, y, width, height)
        lines = (self._read(start + line * row, part) for line in range(height))
        return self._sent(b"".join(lines))

    def setPlane(self, data: bytes, z: int, c: int, t: int, current: Any) -> None:
        """Write one plane."""
        self._writable(current)
        if len(data) != self._plane_size():
            raise omero.ApiUsageException(
                message=f"Plane has {len(data)} bytes, not {self._plane_size()}"
            )
        self._write(self._offset(z, c, t), bytes(data))

    def setTile(
        self,
        data: bytes,
        z: int,
        c: int,
        t: int,
        x: int,
        y: int,
        width: int,
        height: int,
        current: Any,
    ) -> None:
        """Write a rectangle of a plane."""
        self._writable(current)
        start, row, part = self._rectangle(z, c, t, x, y, width, height)
        if len(data) != part * height:
            raise omero.ApiUsageException(message="the tile's size is wrong")
        for line in range(height):
            self._write(start + line * row, bytes(data[line * part : (line + 1) * part]))

    def save(self, current: Any) -> Any:
        """End writing; the pixels with their checksum."""
        row = self._writable(current)
        access = self._session.access(current)
        digest = hashlib.sha1(self._store.path("Pixels", row.id).read_bytes()).hexdigest()
        with self._store.transaction():
            self._store.change(row, {"sha1": digest}, self._store.event(access.user.id).id)
        return load(row, access)

    def _type(self) -> str:
        row = self._store.find(*self._current().fields["pixelsType"])
        assert row is not None
        return str(row.fields["value"])

    def _width(self) -> int:
        return _WIDTH[self._type()]

    def _size(self, axis: str) -> int:
        return int(self._current().fields[f"size{axis}"])

    def _plane_size(self) -> int:
        return self._size("X") * self._size("Y") * self._width()

    def _offset(self, z: int, c: int, t: int) -> int:
        for axis, index in zip("ZCT", (z, c, t), strict=True):
            if not 0 <= index < self._size(axis):
                raise omero.ApiUsageException(
                    message=f"Dimension {axis} out of bounds: {index} >= {self._size(axis)}"
                )
        plane = (t * self._size("C") + c) * self._size("Z") + z
        return plane * self._plane_size()

    def _rectangle(
        self, z: int, c: int, t: int, x: int, y: int, width: int, height: int
    ) -> tuple[int, int, int]:
        if min(x, y) < 0 or min(width, height) < 1:
            raise omero.ApiUsageException(message="Tile out of bounds")
        if x + width > self._size("X") or y + height > self._size("Y"):
            raise omero.ApiUsageException(message="Tile out of bounds")
        row = self._size("X") * self._width()
        start = self._offset(z, c, t) + y * row + x * self._width()
        return start, row, width * self._width()

    def _read(self, offset: int, size: int) -> bytes:
        path = self._store.path("Pixels", self._current().id)
        if not path.exists():
            raise omero.ResourceError(message=f"no pixels were written: {self._current().id}")
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size).ljust(size, b"\0")

    def _write(self, offset: int, data: bytes) -> None:
        path = self._store.path("Pixels", self._current().id)
        self._session.server.received(len(data))
        path.touch()
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def _sent(self, data: bytes) -> bytes:
        self._session.server.sent(len(data))
        return data


class FileStore(_Stateful, omero.api.RawFileStore):
    """RawFileStore: the bytes of an OriginalFile."""

    def setFileId(self, number: int, current: Any) -> None:
        """Choose the file."""
        self._open("OriginalFile", number, current)

    def getFileId(self, current: Any) -> Any:
        """Number of the file."""
        return omero.rtypes.rlong(self._current().id)

    def exists(self, current: Any) -> bool:
        """Whether bytes were written."""
        return self._path().exists()

    def size(self, current: Any) -> int:
        """Bytes that were written."""
        return self._path().stat().st_size if self._path().exists() else 0

    def read(self, position: int, length: int, current: Any) -> bytes:
        """Some bytes; fewer at the end."""
        if not self._path().exists():
            raise omero.ResourceError(message=f"no such file: {self._current().id}")
        with self._path().open("rb") as file:
            file.seek(position)
            data = file.read(length)
        self._session.server.sent(len(data))
        return data

    def write(self, data: bytes, position: int, length: int, current: Any) -> None:
        """Write some bytes."""
        self._writable(current)
        self._session.server.received(length)
        self._path().touch()
        with self._path().open("r+b") as file:
            file.seek(position)
            file.write(bytes(data[:length]))

    def truncate(self, length: int, current: Any) -> bool:
        """Cut the file."""
        self._writable(current)
        if not self._path().exists() or self._path().stat().st_size < length:
            return False
        with self._path().open("r+b") as file:
            file.truncate(length)
        return True

    def save(self, current: Any) -> Any:
        """End writing; the file with its size and checksum."""
        row = self._writable(current)
        access = self._session.access(current)
        data = self._path().read_bytes() if self._path().exists() else b""
        fields = {"size": len(data), "hash": hashlib.sha1(data).hexdigest()}
        fields |= {"mtime": int(time.time() * 1000)}
        with self._store.transaction():
            self._store.change(row, fields, self._store.event(access.user.id).id)
        return load(row, access)

    def _path(self) -> Path:
        return self._store.path("OriginalFile", self._current().id)
