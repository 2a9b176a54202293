"""Objects that are replaced only if nobody else did so since they were read; for documents."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import obstore

from ...contracts import Identifier
from ...errors import AlreadyExistsError, ConflictError, NotFoundError
from ..files import Place
from .errors import NoBucketError, object_errors
from .stores import Store

_SECRET = re.compile(r"secret|token|key|credential|password")


def key_of(place: Place) -> str:
    """The object's key in its bucket."""
    return place.path.partition("/")[2]


class ConditionalObjects:
    """What ``metadata.objects`` asks of a backend of objects."""

    _backend_type: ClassVar[str | None]
    _condition: ClassVar[str] = "e_tag"

    @abstractmethod
    def _place(self, identifier: Identifier) -> Place: ...

    @abstractmethod
    def _store(self, place: Place) -> Store: ...

    @abstractmethod
    def _put(
        self,
        place: Place,
        key: str,
        data: bytes,
        *,
        mode: Any = "overwrite",
        attributes: Mapping[str, str] | None = None,
    ) -> Any: ...

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

        Atomic, one request. Returns the new ETag.

        Raises:
            ConflictError: somebody else wrote or removed it; nothing was written.
            StoreUnavailableError: the answer was lost; it may have been written.
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
