"""Paths in any store of the registry, with the part of pathlib's interface that plates use.

A plate is read in the same way whether its root is a `pathlib.Path` or one of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from ...contracts import DocumentStore, Stat
from ...errors import NotFoundError, UnsupportedError
from ...registry import backend_for
from ...threads import in_threads
from ...uri import BackendURI

_MOST = 16 * 2**20
"""Adjacent chunks are fetched by one request up to so many bytes."""


class Status(NamedTuple):
    """Of a file, named as the operating system names it."""

    st_ino: str
    """The ETag: it differs from write to write."""
    st_size: int
    st_mtime: float

    @property
    def st_mtime_ns(self) -> int:
        """Nanoseconds, as exactly as the store knows them."""
        return int(self.st_mtime * 1e9)


class StorePath:
    """A file or folder, there or not, in a store that can replace files on condition.

    Each question is one request, except to a `listed` path and what is derived from it.

    Args:
        uri: of it, such as ``s3://bucket/p.zarr/B``.
        kind: what is there, if that is known.
        listing: what lies around it, if that is known.
    """

    __slots__ = ("_kind", "_listing", "uri")

    def __init__(
        self,
        uri: BackendURI,
        kind: Literal["file", "folder"] | None = None,
        listing: _Listing | None = None,
    ) -> None:
        self.uri = uri
        self._kind = kind
        self._listing = listing

    @property
    def store(self) -> DocumentStore:
        """The backend that holds it. Raises `UnsupportedError` where that holds no plates."""
        backend = backend_for(self.uri)
        if not isinstance(backend, DocumentStore):
            raise UnsupportedError(
                f"{self.uri}: this backend cannot replace files on condition, so it holds no plates"
            )
        return backend

    @property
    def name(self) -> str:
        """The last part."""
        return self.uri.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    def with_suffix(self, suffix: str) -> StorePath:
        """The same place with another suffix."""
        return self.parent / PurePosixPath(self.name).with_suffix(suffix).name

    @property
    def parent(self) -> StorePath:
        """The folder around it."""
        above = self.uri.path.rpartition("/")[0]
        return StorePath(self.uri.at(above), listing=self._listing)

    def joinpath(self, *parts: str) -> StorePath:
        """All of `parts` below it. Raises `URIError` where they would leave it."""
        return StorePath(self.uri.join(*parts), listing=self._listing)

    def __truediv__(self, inner: str) -> StorePath:
        return self.joinpath(inner)

    def relative_to(self, other: StorePath) -> PurePosixPath:
        """The path from `other` to this."""
        return PurePosixPath(self.uri.path).relative_to(other.uri.path)

    def as_posix(self) -> str:
        """The path in its bucket."""
        return self.uri.path

    def __fspath__(self) -> str:
        return self.uri.text

    def __str__(self) -> str:
        return str(self.uri)

    def __repr__(self) -> str:
        return f"StorePath('{self}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorePath) and self.uri == other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    # Questions

    def listed(self) -> StorePath:
        """This path, which asks now for all that lies below it, and never again."""
        listing = _Listing(self.uri.path, self.store.stat_files(self.uri.text))
        return StorePath(self.uri, listing=listing)

    def files(self) -> dict[str, Stat]:
        """All files below it, by their path there; from one listing."""
        if self._listing is not None:
            return self._listing.below(self.uri.path)
        return self.store.stat_files(self.uri.text)

    def stat(self) -> Status:
        """Of a file. Raises `NotFoundError`."""
        if self._listing is not None:
            found = self._listing.files.get(self.uri.path)
        else:
            found = self.store.stat_file(self.uri.text)
        if found is None:
            raise NotFoundError(f"{self} does not exist")
        return Status(found.etag or "", found.size, found.mtime)

    def is_file(self) -> bool:
        """Whether it is a file."""
        if self._kind is not None:
            return self._kind == "file"
        try:
            self.stat()
        except NotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether any file is below it."""
        return self._kind == "folder" if self._kind is not None else any(self._level())

    def exists(self) -> bool:
        """Whether it is a file or a folder."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[StorePath]:
        """What lies directly in it, of known kinds."""
        files, folders = self._level()
        for name in files:
            yield StorePath(self.uri.join(name), "file", self._listing)
        for name in folders:
            yield StorePath(self.uri.join(name), "folder", self._listing)

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """What lies directly in it under a name that matches a shell pattern."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def samefile(self, other: StorePath) -> bool:
        """Whether `other` is the same file."""
        return self == other

    def _level(self) -> tuple[Sequence[str], Sequence[str]]:
        if self._listing is not None:
            return self._listing.levels.get(self.uri.path, ([], []))
        return self.store.list_level(self.uri.text)

    # Contents

    def read_bytes(self) -> bytes:
        """The whole of a file. Raises `NotFoundError`."""
        return self.store.read_range(self.uri.text)

    def read_text(self) -> str:
        """The whole of a file, in UTF-8. Raises `NotFoundError`."""
        return self.read_bytes().decode()


class _Listing:
    """All files below a path, and what lies directly in each folder."""

    def __init__(self, root: str, found: dict[str, Stat]) -> None:
        self.files = {f"{root}/{inner}": stat for inner, stat in found.items()}
        self.levels: dict[str, tuple[list[str], list[str]]] = {}
        for path in self.files:
            folder, _, name = path.rpartition("/")
            self._level(folder, root)[0].append(name)

    def _level(self, folder: str, root: str) -> tuple[list[str], list[str]]:
        if folder not in self.levels:
            self.levels[folder] = [], []
            if folder != root:
                above, _, name = folder.rpartition("/")
                self._level(above, root)[1].append(name)
        return self.levels[folder]

    def below(self, path: str) -> dict[str, Stat]:
        start = f"{path}/"
        return {
            p.removeprefix(start): stat for p, stat in self.files.items() if p.startswith(start)
        }


class StoredShard:
    """A shard in a store, open for reading; what is not there is noticed when it is read."""

    def __init__(self, path: StorePath) -> None:
        self._path = path
        self._runs: dict[tuple[int, int], bytes] = {}

    def tail(self, length: int) -> bytes:
        """The last bytes; one request."""
        return self._path.store.read_range(self._path.uri.text, -length)

    def expect(self, spans: Sequence[tuple[int, int]]) -> None:
        """Fetch these ``(offset, length)``; one request for each run of adjacent ones."""
        runs: list[list[int]] = []
        for offset, length in sorted(spans):
            if runs and runs[-1][1] == offset and offset + length - runs[-1][0] <= _MOST:
                runs[-1][1] = offset + length
            else:
                runs.append([offset, offset + length])
        store, uri = self._path.store, self._path.uri.text
        fetched = in_threads(lambda run: store.read_range(uri, *run), runs)
        self._runs = {(start, end): data for (start, end), data in zip(runs, fetched, strict=True)}

    def read(self, offset: int, length: int) -> bytes:
        """A part of what was expected."""
        for (start, end), data in self._runs.items():
            if start <= offset < end:
                return data[offset - start : offset - start + length]
        raise AssertionError

    def close(self) -> None:
        """Forget what was fetched."""
        self._runs.clear()
