"""An object open for reading: seekable, fetched by ranges."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from ...errors import ConflictError

FIRST = 64 * 1024
"""Bytes that opening fetches: the header of any image that we write."""

_LEAST, _MOST = 1024 * 1024, 16 * 1024 * 1024

Fetch = Callable[[int, int], tuple[bytes, str | None]]
"""``(start, end)`` -> the bytes and the object's ETag."""


def open_ranges(fetch: Fetch, first: bytes, size: int, etag: str | None, name: str) -> BinaryIO:
    """A buffered file over `fetch`, of which the bytes `first` are there already."""
    return io.BufferedReader(_Ranges(fetch, first, size, etag, name))


class _Ranges(io.RawIOBase):
    """Keeps one window of the object; windows grow while reading goes on."""

    def __init__(self, fetch: Fetch, first: bytes, size: int, etag: str | None, name: str) -> None:
        self._fetch, self._size, self._etag = fetch, size, etag
        self._window, self._start, self._at = first, 0, 0
        self._ahead = _LEAST
        self.name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self.name}: a position before the start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        inner = self._at - self._start
        if not 0 <= inner < len(self._window):
            self._fill(wanted)
            inner = 0
        part = self._window[inner : inner + wanted]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def readall(self) -> bytes:
        parts = []
        while part := self.read(self._size - self._at):
            parts.append(part)
        return b"".join(parts)

    def _fill(self, wanted: int) -> None:
        goes_on = self._at == self._start + len(self._window)
        self._ahead = min(2 * self._ahead, _MOST) if goes_on and self._start else _LEAST
        # A reader that asks for much gets the rest of its last block with it.
        end = min(self._size, self._at + max(wanted + io.DEFAULT_BUFFER_SIZE, self._ahead))
        data, etag = self._fetch(self._at, end)
        if etag != self._etag or len(data) != end - self._at:
            raise ConflictError(f"{self.name}: was replaced while it was read; read it again")
        self._window, self._start = data, self._at
