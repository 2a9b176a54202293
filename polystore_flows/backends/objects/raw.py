"""Objects as bytes, for zarr stores and plates, and as documents, for ``metadata``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import obstore

from ...contracts import DocumentStore, Identifier, Stat
from ...errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    StoreUnavailableError,
    UnsupportedError,
)
from ..file_bytes import Place
from .errors import NoBucketError, object_errors, status_of
from .requests import ObjectRequests, key_of
from .trees import object_stat

_SECRET = re.compile(r"secret|token|key|credential|password")


class RawObjects(ObjectRequests, DocumentStore):
    """Each verb is one request, except where it says so. A key may begin like another's folder."""

    has_folders: ClassVar[bool] = False
    _condition: ClassVar[str] = "e_tag"

    def read_range(self, identifier: Identifier, start: int = 0, end: int | None = None) -> bytes:
        """``data[start:end]`` of an object; asks for its size first where no range says that."""
        place = self._place(identifier)
        options: Any = {}
        if end is None and start:
            options = {"range": {"offset": start} if start > 0 else {"suffix": -start}}
        elif end is not None:
            if not 0 <= start < end:
                return self._read_sized(place, start, end)
            options = {"range": (start, end)}
        try:
            with object_errors(place):
                got = obstore.get(self._store(place), key_of(place), options=options)
                return bytes(got.bytes())
        except UnsupportedError:  # Azure has no suffixes
            return self._read_sized(place, start, end)
        except StoreUnavailableError as error:
            cause = error.__cause__ or error  # the range begins behind the end, or all is empty
            if status_of(cause) != "416" and "non-partial" not in str(cause):
                raise
            return self._read_sized(place, start, end)

    def _read_sized(self, place: Place, start: int, end: int | None) -> bytes:
        found = self._head(place, key_of(place))
        if found is None:
            raise NotFoundError(f"{place}: nothing is stored there")
        first, last, _ = slice(start, end).indices(found["size"])
        if first >= last:
            return b""
        with object_errors(place):
            got = obstore.get(self._store(place), key_of(place), options={"range": (first, last)})
            return bytes(got.bytes())

    def put(self, data: bytes, identifier: Identifier, *, overwrite: bool = False) -> None:
        """Write an object; atomic. Without `overwrite`, of many at once one wins."""
        place = self._place(identifier)
        if overwrite:
            self._put(place, key_of(place), data)
        else:
            self._create(place, key_of(place), data)

    def remove(self, identifiers: Sequence[Identifier]) -> None:
        """Remove objects, 1,000 of a bucket with one request; others are passed over."""
        buckets: dict[str, tuple[Place, list[str]]] = {}
        for identifier in identifiers:
            place = self._place(identifier)
            _, keys = buckets.setdefault(place.path.partition("/")[0], (place, []))
            keys.append(key_of(place))
        for place, keys in buckets.values():
            self._delete_keys(place, keys)

    def remove_tree(self, directory: Identifier) -> None:
        """Remove all objects below a prefix; two requests for 1,000 of them."""
        place = self._place(directory)
        keys = [meta["path"] for meta in self._below(place) if meta["path"] != key_of(place)]
        if keys:
            self._delete_keys(place, keys)

    def stat_file(self, identifier: Identifier) -> Stat | None:
        """Size, time and ETag of an object; None where there is none."""
        place = self._place(identifier)
        meta = self._head(place, key_of(place)) if key_of(place) else None
        return None if meta is None else object_stat("file", [meta])

    def stat_files(self, directory: Identifier) -> dict[str, Stat]:
        """Of each object below a prefix, by its path there; one request for 1,000 of them."""
        place = self._place(directory)
        start = len(key_of(place)) + 1 if key_of(place) else 0
        return {
            meta["path"][start:]: object_stat("file", [meta])
            for meta in self._below(place)
            if self._is_file(place, meta)
        }

    def list_level(self, directory: Identifier) -> tuple[list[str], list[str]]:
        """Names of the objects and of the prefixes directly below a prefix."""
        try:
            files, folders = self._level(self._place(directory))
            return list(files), folders
        except NoBucketError:
            raise
        except FileNotFoundError:
            return [], []

    # Documents

    def identity(self, identifier: Identifier) -> str:
        """Text without secrets, equal where a bucket is reached by the same server and account."""
        place = self._place(identifier)
        config = {str(key): str(value) for key, value in self._store(place).config.items()}
        told = {k: v for k, v in config.items() if not _SECRET.search(k) or k.endswith("key_id")}
        return json.dumps([self._backend_type, place.path.partition("/")[0], told], sort_keys=True)

    def read_with_etag(self, identifier: Identifier) -> tuple[bytes, str, dict[str, str]] | None:
        """The object, what `write_if` takes to replace just this one, and its user metadata.

        None where there is none.
        """
        place = self._place(identifier)
        try:
            with object_errors(place):
                got = obstore.get(self._store(place), key_of(place))
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

        Atomic. Returns the new ETag; see ``contracts.DocumentStore``.
        """
        place = self._place(identifier)
        mode: Any = "create" if etag is None else {self._condition: etag}
        try:
            result = self._put(place, key_of(place), data, mode=mode, attributes=attributes or {})
        except AlreadyExistsError as error:
            raise ConflictError(
                f"{place}: was made by somebody else meanwhile; read it again"
            ) from error
        return str(result[self._condition])
