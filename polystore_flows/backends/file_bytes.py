"""What backends of files share below all meaning: places, bytes, and the system's errors."""

from __future__ import annotations

import errno
import io
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from ..contracts import ByteStore, Identifier, Stat, StorageBackend
from ..errors import (
    AlreadyExistsError,
    NoSpaceError,
    NotFoundError,
    PolystoreError,
    ReadOnlyError,
    UnsupportedError,
)
from ..uri import BackendURI

_ABSENT = frozenset({errno.ENOENT, errno.ELOOP})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_TEMPORARY = re.compile(r"\..+-[0-9a-f]{16}\.tmp", re.DOTALL)
"""Names of unfinished files, of backends (``.polystore-…``) and of ``metadata`` documents."""


@dataclass(frozen=True, slots=True)
class Place:
    """An identifier, understood."""

    path: str
    """Where it lies in the backend."""
    given: str
    """The path as the caller wrote it, where it was no URI."""
    uri: BackendURI | None = None
    """The URI, where it was one."""

    def __str__(self) -> str:
        return str(self.uri) if self.uri else self.given

    def below(self, inner: str) -> str:
        """The identifier of `inner` below this place, in the form the caller used."""
        if self.uri is not None:
            return self.uri.join(inner).text
        return f"{self.given.rstrip('/')}/{inner}"


class ByteFiles(StorageBackend, ByteStore):
    """Files as bytes. Derived classes implement what is abstract here and the contract's rest."""

    @abstractmethod
    def _place(self, identifier: Identifier) -> Place:
        """Understand `identifier`. Raises `URIError`."""

    @abstractmethod
    def _open(self, place: Place) -> BinaryIO:
        """Open a file for reading."""

    @abstractmethod
    def _write(self, data: bytes, place: Place, overwrite: bool) -> None:
        """Write a file whole or not at all, with its parents."""

    @abstractmethod
    def _stat(self, place: Place) -> Stat | None:
        """Kind, size and time of a file or directory, links followed; None if it is not there."""

    @abstractmethod
    def _kind(self, place: Place) -> str | None:
        """``file``, ``directory`` or ``special``, links followed, or None; cheaper than `_stat`."""

    @abstractmethod
    def _files_below(self, place: Place, recursive: bool) -> Iterable[str]:
        """Paths of the files below a directory, relative to it; links to directories are left."""

    @abstractmethod
    def _delete_all(self, place: Place) -> None:
        """Remove a file, link or directory with all below it."""

    def _touch(self, place: Place) -> None:
        """Make a file or directory look written now."""
        raise io.UnsupportedOperation("this backend cannot change times")

    def open_binary(self, identifier: Identifier) -> BinaryIO:
        """Open a file for reading; seekable. The caller closes it.

        Raises:
            NotFoundError: there is no such file.
        """
        place = self._place(identifier)
        with os_errors(place):
            return self._open(place)

    def read_bytes(self, identifier: Identifier) -> bytes:
        """The whole of a file as it is stored. Raises as `open_binary`."""
        place = self._place(identifier)
        with os_errors(place), self._open(place) as file:
            return file.read()

    def write_bytes(self, data: bytes, identifier: Identifier, *, overwrite: bool = False) -> None:
        """Store `data` as a file; makes the directories above it.

        Atomic: a reader sees the old file or the new one, and a failure leaves the old one.
        Overwrites a file only with `overwrite`, and through a link the link's target.

        Raises:
            AlreadyExistsError: something is there and `overwrite` is false, or it is a directory.
            ReadOnlyError: the place cannot be written.
        """
        place = self._place(identifier)
        with os_errors(place, writing=True):
            self._write(data, place, overwrite)

    def read_range(self, identifier: Identifier, start: int = 0, end: int | None = None) -> bytes:
        """``data[start:end]`` of a file; see ``contracts.ByteStore``."""
        place = self._place(identifier)
        with os_errors(place), self._open(place) as file:
            size = file.seek(0, io.SEEK_END)
            first, last, _ = slice(start, end).indices(size)
            file.seek(first)
            return file.read(max(last - first, 0))

    def put(self, data: bytes, identifier: Identifier, *, overwrite: bool = False) -> None:
        """Write a file whole or not at all; atomic, overwrites a file only with `overwrite`."""
        self.write_bytes(data, identifier, overwrite=overwrite)

    def remove(self, identifiers: Sequence[Identifier]) -> None:
        """Remove files; those that are not there are passed over. Not atomic."""
        for identifier in identifiers:
            with suppress(NotFoundError):
                if self._kind(self._place(identifier)) == "file":
                    self.delete(identifier)

    def remove_tree(self, directory: Identifier) -> None:
        """Remove a folder with all files below, if it is there. Not atomic."""
        place = self._place(directory)
        with suppress(NotFoundError), os_errors(place, writing=True):
            if self._kind(place) == "directory":
                self._delete_all(place)

    def stat_file(self, identifier: Identifier) -> Stat | None:
        """Size, time and ETag of a file, links followed; None where there is none."""
        place = self._place(identifier)
        with os_errors(place):
            found = self._stat(place) if self._kind(place) == "file" else None
        return found if found is not None and found.kind == "file" else None

    def stat_files(self, directory: Identifier) -> dict[str, Stat]:
        """Of each file below a folder, by its path there; empty without a folder."""
        place, found = self._place(directory), {}
        with suppress(NotFoundError), os_errors(place):
            for inner in self._files_below(place, recursive=True):
                stat = self._stat(self._place(place.below(inner)))
                if stat is not None:  # else it was removed since it was listed
                    found[inner] = stat
        return found

    def list_level(self, directory: Identifier) -> tuple[list[str], list[str]]:
        """Names of the files, and of the folders that hold any, directly in a folder."""
        place = self._place(directory)
        files: list[str] = []
        folders: list[str] = []
        with suppress(NotFoundError), os_errors(place):
            for name in self.list_dir(directory):
                below = self._place(place.below(name))
                kind = self._kind(below)
                if kind == "file":
                    files.append(name)
                elif kind == "directory":
                    with suppress(FileNotFoundError):  # removed since it was listed
                        folders += [name] if any(self._files_below(below, recursive=True)) else []
        return files, folders


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that a write of ours has not finished."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def os_errors(where: object, *, writing: bool = False) -> Iterator[None]:
    """Translate the operating system's errors, so that each names `where` and what to do.

    ========================================  ============================================
    ENOENT, ELOOP                             `NotFoundError`
    ENOTDIR, EISDIR                           `NotFoundError`; writing: `AlreadyExistsError`
    EEXIST                                    `AlreadyExistsError`
    ENOTEMPTY                                 `UnsupportedError`
    EACCES, EPERM, EROFS, writing             `ReadOnlyError`
    io.UnsupportedOperation                   `UnsupportedError`
    any other                                 the same ``OSError``, with `where` in its text
    ========================================  ============================================
    """
    try:
        yield
    except PolystoreError:
        raise
    except io.UnsupportedOperation as error:
        raise UnsupportedError(f"{where}: {error}") from error
    except OSError as error:
        raise _translated(where, error, writing) from error


def _translated(where: object, error: OSError, writing: bool) -> OSError:
    code = error.errno
    if code in _ABSENT:
        return NotFoundError(f"{where}: nothing is stored there")
    if code == errno.EISDIR:
        if writing:
            return AlreadyExistsError(f"{where}: is a directory; choose another name")
        return NotFoundError(f"{where}: is a directory, not a file; list it instead")
    if code == errno.ENOTDIR:
        if writing:
            return AlreadyExistsError(f"{where}: a file is in the way of a directory")
        return NotFoundError(f"{where}: is no directory, or lies below a file")
    if code == errno.EEXIST:
        return AlreadyExistsError(f"{where}: exists already; pass overwrite=True or delete it")
    if code == errno.ENOTEMPTY:
        return UnsupportedError(f"{where}: the directory is not empty; use delete_all")
    if writing and code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ReadOnlyError(
            f"{where}: cannot be written ({error.strerror}); change its permissions or choose "
            "another place"
        )
    if code in _FULL:
        text = f"{where}: no space is left; free some and try again, nothing was changed"
        return NoSpaceError(code, text)
    return OSError(code or errno.EIO, f"{where}: {error.strerror or error}")
