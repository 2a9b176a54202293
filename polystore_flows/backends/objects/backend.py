"""Files and plates in buckets: ``s3://bucket/key``, ``gs://bucket/key``, ``az://container/key``.

A directory is the common prefix of some objects and ends with the last of them, unless it was
made by `ensure_directory`: that leaves an empty object ``.polystore-directory`` in it, which no
listing shows. Folders that other tools made (an object ``folder/``) are directories too.

What one object can promise is atomic: writing, reading and copying one. What takes many objects
(copying, moving, deleting directories) is not. There are no links. Needs obstore.
"""

from __future__ import annotations

import errno
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, BinaryIO, ClassVar

import obstore

from ...contracts import Identifier, Stat
from ...credentials import Credentials, find
from ...errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    StoreUnavailableError,
    UnsupportedError,
    URIError,
)
from ...settings import ObjectStoreSettings
from ...uri import parse_uri
from ..files import FileBackend, Place, os_errors
from .errors import NoBucketError, object_errors, status_of
from .reader import FIRST, open_ranges
from .stores import Store, open_store
from .trees import DIRECTORY, copy_objects, object_stat

_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")
_SECRET = re.compile(r"secret|token|key|credential|password")
_WRITE = "polystorewrite"
"""User metadata that tells a writer its own object, should the answer to a put be lost."""

_process: int | None = None
"""The process that first used obstore: its threads do not survive a fork."""


class ObjectsBackend(FileBackend):
    """Objects of S3 and of servers that speak its protocol; threads may share it.

    Holds no connection and no secret when pickled. Identifiers are URIs.

    Args:
        store: how to reach every bucket; by default what ``POLYSTORE_OBJECTS`` and the
            environment say.
    """

    _backend_type = "s3"
    _condition: ClassVar[str] = "e_tag"

    def __init__(self, *, store: ObjectStoreSettings | None = None) -> None:
        self._given = store
        self._stores: dict[tuple[str, Credentials | None], Store] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), store=self._given), ()

    @property
    def requires_filesystem_validation(self) -> bool:
        """False: these paths are unknown to the operating system."""
        return False

    def list_dir(self, path: Identifier) -> list[str]:
        """Names of what lies directly in the directory, sorted; one request for 1,000 names."""
        place = self._place(path)
        with os_errors(place):
            files, folders = self._level(place)
        return sorted({*files, *folders})

    def delete(self, path: Identifier) -> None:
        """Remove an object, or a directory without any; atomic."""
        place = self._place(path)
        with os_errors(place, writing=True):
            kind = self._kind(place)
            if kind == "file":
                self._delete_keys(place, [_key(place)])
            elif kind is None:
                raise FileNotFoundError(errno.ENOENT, "is not there")
            elif any(self._level(place)):
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
        parts = [part for part in _key(place).split("/") if part]
        with os_errors(place, writing=True):
            for end in range(1, len(parts) + 1):
                if self._head(place, "/".join(parts[:end])) is not None:
                    raise NotADirectoryError(errno.ENOTDIR, "an object is in the way")
            if self._kind(place) is None:
                self._put(place, f"{_key(place)}/{DIRECTORY}".lstrip("/"), b"")
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

    # Documents, see ``metadata.objects``.

    def identity(self, identifier: Identifier) -> str:
        """Text without secrets, equal where a bucket is reached by the same server and account."""
        place = self._place(identifier)
        config = {str(key): str(value) for key, value in self._store(place).config.items()}
        told = {k: v for k, v in config.items() if not _SECRET.search(k) or k.endswith("key_id")}
        return json.dumps([self._backend_type, place.path.partition("/")[0], told], sort_keys=True)

    def read_with_etag(self, identifier: Identifier) -> tuple[bytes, str, dict[str, str]] | None:
        """The object, what `write_if` takes to replace just this one, and its user metadata.

        None where there is none. One request.
        """
        place = self._place(identifier)
        try:
            with object_errors(place):
                got = obstore.get(self._store(place), _key(place))
                etag = got.meta[self._condition]  # type: ignore[literal-required]
                return bytes(got.bytes()), str(etag), dict(got.attributes)
        except NoBucketError:
            raise
        except NotFoundError:
            return None

    def write_if(
        self,
        data: bytes,
        identifier: Identifier,
        etag: str | None,
        attributes: Mapping[str, str] | None = None,
    ) -> str:
        """Write the object only if it is still the one of `etag`; with None, if there is none.

        Atomic, one request. Returns the new ETag.

        Raises:
            ConflictError: somebody else wrote or removed it; nothing was written.
            StoreUnavailableError: the answer was lost; it may have been written.
        """
        place = self._place(identifier)
        mode: Any = "create" if etag is None else {self._condition: etag}
        try:
            result = self._put(place, _key(place), data, mode=mode, attributes=attributes or {})
        except AlreadyExistsError as error:
            raise ConflictError(
                f"{place}: was made by somebody else meanwhile; read it again"
            ) from error
        return str(result[self._condition])

    def etags(self, identifier: Identifier) -> dict[str, str]:
        """ETag of the object (path ``""``), or those of all below a directory by their path."""
        place = self._place(identifier)
        key = _key(place)
        if key and (meta := self._head(place, key)) is not None:
            return {"": meta["e_tag"]}
        start = len(key) + 1 if key else 0
        return {meta["path"][start:]: meta["e_tag"] for meta in self._below(place)}

    # What FileBackend asks for.

    def _place(self, identifier: Identifier) -> Place:
        text = os.fspath(identifier)
        scheme = self._backend_type
        uri = parse_uri(text)
        if uri.scheme != scheme:
            raise URIError(f"{uri}: this backend serves {scheme}://bucket/key only")
        if not _BUCKET.fullmatch(uri.authority):
            raise URIError(f"{uri}: {uri.authority!r} is no name of a bucket")
        return Place(f"{uri.authority}/{uri.path.strip('/')}".rstrip("/"), "", uri)

    def _open(self, place: Place) -> BinaryIO:
        store, key = self._store(place), _key(place)

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
        key = _key(place)
        if not key or self._is_directory(place):
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        if overwrite:
            self._put(place, key, data)
            return
        token = uuid.uuid4().hex
        try:
            self._put(place, key, data, mode="create", attributes={_WRITE: token})
        except (AlreadyExistsError, StoreUnavailableError):
            # The first answer may have been lost, and this be the answer to a second try.
            with object_errors(place):
                try:
                    got = obstore.get(self._store(place), key, options={"head": True})
                except FileNotFoundError:
                    got = None
            if got is None or got.attributes.get(_WRITE) != token:
                raise

    def _kind(self, place: Place) -> str | None:
        if _key(place) and self._head(place, _key(place)) is not None:
            return "file"
        return "directory" if self._is_directory(place) else None

    def _stat(self, place: Place) -> Stat | None:
        if _key(place):
            meta = self._head(place, _key(place))
            if meta is not None:
                return object_stat("file", [meta])
        found = list(self._below(place))
        return object_stat("directory", found) if found or not _key(place) else None

    def _files_below(self, place: Place, recursive: bool) -> Iterable[str]:
        if not recursive:
            return self._level(place)[0]
        key = _key(place)
        start = len(key) + 1 if key else 0
        found = list(self._below(place))
        if not found and key:
            raise FileNotFoundError(errno.ENOENT, "is not there")
        return [meta["path"][start:] for meta in found if self._is_shown(place, meta)]

    def _delete_all(self, place: Place) -> None:
        key = _key(place)
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

    # Requests.

    def _store(self, place: Place) -> Store:
        global _process
        if _process is None:
            _process = os.getpid()
        elif _process != os.getpid():
            raise UnsupportedError(
                f"{place}: this process was forked from one that used an object store, whose "
                "threads are not here; start processes by 'spawn' or 'forkserver'"
            )
        assert self._backend_type is not None
        bucket = place.path.partition("/")[0]
        held = find(f"{self._backend_type}://{bucket}")
        store = self._stores.get((bucket, held))
        if store is None:
            with object_errors(place):
                store = open_store(self._backend_type, bucket, self._given, held)
            store = self._stores.setdefault((bucket, held), store)
        return store

    def _head(self, place: Place, key: str) -> Any:
        """What is known of an object, or None."""
        store = self._store(place)
        with object_errors(place):
            try:
                return obstore.head(store, key)
            except FileNotFoundError:
                return None

    def _put(
        self,
        place: Place,
        key: str,
        data: bytes,
        *,
        mode: Any = "overwrite",
        attributes: Mapping[str, str] | None = None,
    ) -> Any:
        store = self._store(place)
        at_once = None if mode == "overwrite" else False  # parts would not know the condition
        with object_errors(place):
            return obstore.put(
                store,
                key,
                data,
                mode=mode,
                attributes=dict(attributes or {}),
                use_multipart=at_once,
            )

    def _below(self, place: Place) -> Iterator[Any]:
        """All objects below a prefix; one request for 1,000 of them."""
        store = self._store(place)
        with object_errors(place):
            for chunk in obstore.list(store, prefix=_key(place) or None):
                yield from chunk

    def _is_directory(self, place: Place) -> bool:
        try:
            return next(self._below(place), None) is not None or not _key(place)
        except NoBucketError:
            return False

    def _level(self, place: Place) -> tuple[list[str], list[str]]:
        """Names of the objects and of the prefixes directly in a directory."""
        store, key = self._store(place), _key(place)
        with object_errors(place):
            found = obstore.list_with_delimiter(store, prefix=key or None)
        objects, folders = found["objects"], found["common_prefixes"]
        if not objects and not folders and key:
            raise FileNotFoundError(errno.ENOENT, "is not there")
        files = (meta["path"] for meta in objects if meta["path"] != key)
        names = [path.rpartition("/")[2] for path in files]
        return [n for n in names if n != DIRECTORY], [f.rpartition("/")[2] for f in folders]

    def _is_shown(self, place: Place, meta: Any) -> bool:
        """Whether a listed object is a file, and not what keeps a directory."""
        path = meta["path"]
        if path == _key(place) or path.rpartition("/")[2] == DIRECTORY:
            return False
        # obstore drops the slash from another tool's 'folder/', an empty object.
        return meta["size"] > 0 or self._head(place, path) is not None

    def _delete_keys(self, place: Place, keys: list[str]) -> None:
        store = self._store(place)
        with object_errors(place):
            obstore.delete(store, keys)

    def _transfer(self, source: Place, target: Place, *, keep: bool) -> None:
        start, end = _key(source), _key(target)
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


def _key(place: Place) -> str:
    return place.path.partition("/")[2]
