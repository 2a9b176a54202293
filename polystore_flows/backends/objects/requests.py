"""Requests to buckets: what the objects backend asks of a server."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import obstore

from ...contracts import Identifier
from ...credentials import Credentials, find
from ...errors import (
    AlreadyExistsError,
    StoreUnavailableError,
    UnsupportedError,
    URIError,
)
from ...settings import ObjectStoreSettings
from ...uri import parse_uri
from ..file_bytes import Place
from ..files import FileBackend
from .errors import NoBucketError, object_errors
from .stores import Store, open_store

_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")
_WRITE = "polystorewrite"
"""User metadata that tells a writer its own object, should the answer to a put be lost."""

_process: int | None = None
"""The process that first used obstore: its threads do not survive a fork."""


class ObjectRequests(FileBackend):
    """Stores by bucket, and single requests to them."""

    def __init__(self, *, store: ObjectStoreSettings | None = None) -> None:
        self._given = store
        self._stores: dict[tuple[str, Credentials | None], Store] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), store=self._given), ()

    def _place(self, identifier: Identifier) -> Place:
        text = os.fspath(identifier)
        scheme = self._backend_type
        uri = parse_uri(text)
        if uri.scheme != scheme:
            raise URIError(f"{uri}: this backend serves {scheme}://bucket/key only")
        if not _BUCKET.fullmatch(uri.authority):
            raise URIError(f"{uri}: {uri.authority!r} is no name of a bucket")
        return Place(f"{uri.authority}/{uri.path.strip('/')}".rstrip("/"), "", uri)

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
        data: bytes | Path,
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

    def _create(self, place: Place, key: str, data: bytes) -> None:
        """Write an object that is not there yet."""
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

    def _below(self, place: Place) -> Iterator[Any]:
        """All objects below a prefix; one request for 1,000 of them."""
        store = self._store(place)
        with object_errors(place):
            for chunk in obstore.list(store, prefix=key_of(place) or None):
                yield from chunk

    def _is_directory(self, place: Place) -> bool:
        try:
            return next(self._below(place), None) is not None or not key_of(place)
        except NoBucketError:
            return False

    def _level(self, place: Place) -> tuple[dict[str, Any], list[str]]:
        """The objects by name, and the names of the prefixes, directly in a directory."""
        store, key = self._store(place), key_of(place)
        with object_errors(place):
            found = obstore.list_with_delimiter(store, prefix=key or None)
        objects, folders = found["objects"], found["common_prefixes"]
        if not objects and not folders and key:
            raise FileNotFoundError(errno.ENOENT, "is not there")
        files = {m["path"].rpartition("/")[2]: m for m in objects if m["path"] != key}
        return files, [f.rpartition("/")[2] for f in folders]

    def _is_file(self, place: Place, meta: Any) -> bool:
        """Whether a listed object is a file, and no folder object of another tool."""
        # obstore drops the slash from 'folder/', an empty object.
        path = meta["path"]
        return path != key_of(place) and (meta["size"] > 0 or self._head(place, path) is not None)

    def _delete_keys(self, place: Place, keys: list[str]) -> None:
        store = self._store(place)
        with object_errors(place):
            obstore.delete(store, keys)


def key_of(place: Place) -> str:
    """The key of an object in its bucket; empty for the bucket itself."""
    return place.path.partition("/")[2]
