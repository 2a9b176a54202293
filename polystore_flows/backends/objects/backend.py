"""Files and plates in buckets: ``s3://bucket/key``, ``gs://bucket/key``, ``az://container/key``.

A directory is the common prefix of some objects and ends with the last of them, unless it was
made by `ensure_directory`: that leaves an empty object ``.polystore-directory`` in it, which no
listing shows. Folders that other tools made (an object ``folder/``) are directories too.

What one object can promise is atomic: writing, reading and copying one. What takes many objects
(copying, moving, deleting directories) is not. There are no links. Needs obstore.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import obstore

from ...contracts import Identifier, Stat
from ...errors import NotFoundError, StoreUnavailableError, UnsupportedError
from ..file_bytes import Place, is_temporary, os_errors
from .errors import object_errors, status_of
from .raw import RawObjects
from .reader import FIRST, open_ranges
from .requests import key_of
from .trees import DIRECTORY, copy_objects, object_stat, touch_object


class ObjectsBackend(RawObjects):
    """Objects of S3 and of servers that speak its protocol; threads may share it.

    Holds no connection and no secret when pickled. Identifiers are URIs.

    Args:
        store: how to reach every bucket; by default what ``POLYSTORE_OBJECTS`` and the
            environment say.
    """

    _backend_type = "s3"

    @property
    def requires_filesystem_validation(self) -> bool:
        """False: these paths are unknown to the operating system."""
        return False

    def list_dir(self, path: Identifier) -> list[str]:
        """Names of what lies directly in the directory, sorted; one request for 1,000 names."""
        place = self._place(path)
        with os_errors(place):
            files, folders = self._shown_level(place)
        return sorted({*files, *folders})

    def scan(self, directory: Identifier) -> dict[str, Stat | None]:
        """Names of what lies directly in `directory`; of objects what `stat` tells.

        From one listing, a request for 1,000 names.
        """
        place = self._place(directory)
        with os_errors(place):
            files, folders = self._shown_level(place)
        found: dict[str, Stat | None] = dict.fromkeys(folders)
        return found | {name: object_stat("file", [meta]) for name, meta in files.items()}

    def upload(self, file: Path, identifier: Identifier) -> None:
        """Store the local `file`, in parts where it is large; overwrites an object.

        Atomic: a reader sees the old object or the new one.
        """
        place = self._place(identifier)
        if not key_of(place) or self._is_directory(place):
            with os_errors(place, writing=True):
                raise IsADirectoryError(errno.EISDIR, "is a directory")
        self._put(place, key_of(place), file)

    def delete(self, path: Identifier) -> None:
        """Remove an object, or a directory without any; atomic."""
        place = self._place(path)
        with os_errors(place, writing=True):
            kind = self._kind(place)
            if kind == "file":
                self._delete_keys(place, [key_of(place)])
            elif kind is None:
                raise FileNotFoundError(errno.ENOENT, "is not there")
            elif any(self._shown_level(place)):
                raise OSError(errno.ENOTEMPTY, "not empty")
            else:
                self._delete_all(place)

    def copy(self, source: Identifier, target: Identifier) -> None:
        """Copy an object, or a directory with all below it; never overwrites an object.

        The server copies, except from one bucket to another. Atomic for one object; a failure
        leaves a part of a directory.
        """
        self._transfer(self._place(source), self._place(target), keep=True)

    def move(self, source: Identifier, target: Identifier) -> None:
        """Copy, then delete the source; never overwrites an object.

        Not atomic: a failure leaves the source, and maybe a copy of it.
        """
        self._transfer(self._place(source), self._place(target), keep=False)

    def ensure_directory(self, directory: Identifier) -> str:
        """Make `directory`, so that it exists without objects too; its identifier.

        An object at its name or above is an `AlreadyExistsError`.
        """
        place = self._place(directory)
        parts = [part for part in key_of(place).split("/") if part]
        with os_errors(place, writing=True):
            for end in range(1, len(parts) + 1):
                if self._head(place, "/".join(parts[:end])) is not None:
                    raise NotADirectoryError(errno.ENOTDIR, "an object is in the way")
            if self._kind(place) is None:
                self._put(place, f"{key_of(place)}/{DIRECTORY}".lstrip("/"), b"")
        assert place.uri is not None
        return place.uri.text

    def create_symlink(
        self, source: Identifier, link_name: Identifier, *, overwrite: bool = False
    ) -> None:
        """Refused: object stores have no links."""
        raise UnsupportedError(f"{self._place(link_name)}: object stores have no links; copy it")

    def is_symlink(self, path: Identifier) -> bool:
        """Always False."""
        self._place(path)
        return False

    # What FileBackend asks for.

    def _open(self, place: Place) -> BinaryIO:
        store, key = self._store(place), key_of(place)

        def fetch(start: int, end: int) -> tuple[bytes, str | None]:
            with object_errors(place):
                got = obstore.get(store, key, options={"range": (start, end)})
                return bytes(got.bytes()), got.meta["e_tag"]

        if not key:
            raise IsADirectoryError(errno.EISDIR, "is a bucket")
        try:
            with object_errors(place):
                got = obstore.get(store, key, options={"range": (0, FIRST)})
                meta, first = got.meta, bytes(got.bytes())
        except NotFoundError:
            if self._is_directory(place):
                raise IsADirectoryError(errno.EISDIR, "is a directory") from None
            raise
        except StoreUnavailableError as error:  # there is no range in an empty object
            empty = self._head(place, key) if status_of(error.__cause__ or error) == "416" else None
            if empty is None or empty["size"]:
                raise
            meta, first = empty, b""
        return open_ranges(fetch, first, meta["size"], meta["e_tag"], str(place))

    def _write(self, data: bytes, place: Place, overwrite: bool) -> None:
        key = key_of(place)
        if not key or self._is_directory(place):
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        if overwrite:
            self._put(place, key, data)
        else:
            self._create(place, key, data)

    def _kind(self, place: Place) -> str | None:
        if key_of(place) and self._head(place, key_of(place)) is not None:
            return "file"
        return "directory" if self._is_directory(place) else None

    def _stat(self, place: Place) -> Stat | None:
        if key_of(place):
            meta = self._head(place, key_of(place))
            if meta is not None:
                return object_stat("file", [meta])
        found = list(self._below(place))
        return object_stat("directory", found) if found or not key_of(place) else None

    def _files_below(self, place: Place, recursive: bool) -> Iterable[str]:
        if not recursive:
            return self._shown_level(place)[0]
        key = key_of(place)
        start = len(key) + 1 if key else 0
        found = list(self._below(place))
        if not found and key:
            raise FileNotFoundError(errno.ENOENT, "is not there")
        paths = [meta["path"][start:] for meta in found if self._is_file(place, meta)]
        return [path for path in paths if not _is_hidden(path.rpartition("/")[2])]

    def _shown_level(self, place: Place) -> tuple[dict[str, Any], list[str]]:
        """`_level`, without what is no file of the user."""
        files, folders = self._level(place)
        return {name: meta for name, meta in files.items() if not _is_hidden(name)}, folders

    def _touch(self, place: Place) -> None:
        if self._head(place, key_of(place)) is None:  # a directory is as new as its newest object
            self._put(place, f"{key_of(place)}/{DIRECTORY}", b"")
            return
        with object_errors(place):
            touch_object(self._store(place), key_of(place))

    def _delete_all(self, place: Place) -> None:
        key = key_of(place)
        if not key:
            raise UnsupportedError(f"{place}: a bucket is not deleted here; name a key in it")
        below = [meta["path"] for meta in self._below(place)]
        if not below and self._head(place, key) is None:
            raise FileNotFoundError(errno.ENOENT, "is not there")
        self._delete_keys(place, [*below, key])
        if self._is_directory(place):
            raise UnsupportedError(
                f"{place}: its objects are gone, but the folder's own object ('…/'), which another "
                "tool made, is left; remove it with that tool"
            )

    def _transfer(self, source: Place, target: Place, *, keep: bool) -> None:
        start, end = key_of(source), key_of(target)
        with os_errors(source):
            kind = self._kind(source)
            if kind is None:
                raise FileNotFoundError(errno.ENOENT, "is not there")
        with os_errors(target, writing=True):
            if not start or not end:
                raise UnsupportedError(f"{source} to {target}: buckets are not copied; name a key")
            if kind == "directory" and f"{target.path}/".startswith(f"{source.path}/"):
                raise UnsupportedError(f"{target}: lies in {source}, which cannot go into itself")
            taken = self._kind(target) if kind == "directory" else self._is_directory(target)
            if taken:
                raise FileExistsError(errno.EEXIST, "exists")
            pairs = [(start, end)]
            if kind == "directory":
                below = [meta["path"] for meta in self._below(source)]
                pairs = [(path, end + path[len(start) :]) for path in below if path != start]
            with object_errors(target):
                copy_objects(self._store(source), self._store(target), pairs)
        if not keep:
            with os_errors(source, writing=True):
                self._delete_keys(source, [path for path, _ in pairs])


class GoogleBackend(ObjectsBackend):
    """Objects of Google Cloud Storage."""

    _backend_type = "gs"
    _condition = "version"


class AzureBackend(ObjectsBackend):
    """Blobs of Azure Storage; ``AZURE_STORAGE_ACCOUNT_NAME`` names the account."""

    _backend_type = "az"


def _is_hidden(name: str) -> bool:
    """Whether an object of this name keeps a directory, or is one that a touch left."""
    return name == DIRECTORY or is_temporary(name)
