"""References to what is stored, and the serializer that keeps them in place of data."""

from __future__ import annotations

import base64
import builtins
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from prefect.blocks.core import Block
from prefect.serializers import Serializer
from pydantic import Field, SecretBytes, SecretStr

import polystore_flows as ps
from polystore_flows import errors
from polystore_flows.errors import (
    ConflictError,
    MismatchError,
    NotFoundError,
    PolystoreError,
    UnsupportedError,
)
from polystore_flows.flows.access import granted
from polystore_flows.flows.blocks.located import Located, store_of
from polystore_flows.flows.files import carries_secret, checked
from polystore_flows.flows.stamps import stamp, stamps
from polystore_flows.hcs.field import Image
from polystore_flows.hcs.plate import Plate
from polystore_flows.hcs.well import Well
from polystore_flows.transfer import plate_at, plate_of
from polystore_flows.uri import parse_uri

LARGEST = 4096
"""Bytes of an array that a result may hold itself."""

_KIND = "__polystore__"


@dataclass(frozen=True, slots=True)
class Reference:
    """Something stored, by its URI; loaded when it is asked for.

    Attributes:
        uri: Of a plate, a part of one, or a file.
        stamp: What it was when the reference was made (see ``stamps``).
        credentials: ``slug/name`` of the block with the credentials for its store.
    """

    uri: str
    stamp: str | None = None
    credentials: str | None = None

    @classmethod
    def to(cls, uri: str, credentials: str | None = None) -> Reference:
        """A reference to what is at `uri` now.

        Raises:
            NotFoundError: nothing is stored there.
            URIError: it carries a secret.
        """
        text = checked(uri).text
        with granted(_blocks(text, credentials)):
            found = stamp(text)
        if found is None:
            raise NotFoundError(f"{text}: nothing is stored there that could be referred to")
        return cls(text, found, credentials)

    def load(self) -> Any:
        """What is stored: a plate, opened, or what ``polystore_flows.load`` gives.

        A well is a dict of field -> array.
        """
        uri = parse_uri(self.uri)
        with granted(_blocks(self.uri, self.credentials)):
            plate = plate_at(uri)
            if plate is not None:
                return plate
            try:
                return ps.load(uri)
            except UnsupportedError:
                around, address = plate_of(uri)
                return around[str(address.well)].read()[0]


def verify(references: list[Reference]) -> None:
    """See that everything is still there, as it was.

    Raises:
        NotFoundError: something is gone.
        ConflictError: something was changed.
    """
    blocks: dict[str, str] = {}
    for reference in references:
        blocks |= _blocks(reference.uri, reference.credentials)
    with granted(blocks):
        found = stamps([reference.uri for reference in references])
    for reference in references:
        now = found[reference.uri]
        if now is None:
            raise NotFoundError(f"{reference.uri} is gone; run the task again to make it")
        if reference.stamp not in (None, now):
            raise ConflictError(f"{reference.uri} was changed since this result; run it again")


class ReferenceSerializer(Serializer):
    """Keeps URIs of what is stored, and JSON; refuses large arrays and secrets.

    Plates, wells, images and `Reference` objects become references, and come back as such. A
    result whose references are gone or changed does not load, so Prefect runs a task again whose
    cached output was deleted.
    """

    type: str = Field(default="polystore/reference", frozen=True)

    verify: bool = Field(
        default=True,
        description="Whether a result loads only while what it refers to is there, unchanged.",
    )

    def dumps(self, obj: Any) -> bytes:
        """`obj` as JSON.

        Raises:
            MismatchError: it holds a large array, a secret, or something else than JSON and
                references.
        """
        return json.dumps(_encoded(obj), allow_nan=True).encode()

    def loads(self, blob: bytes) -> Any:
        """What `dumps` was given, tuples as lists.

        Raises:
            NotFoundError, ConflictError: what it refers to is gone or changed.
        """
        references: list[Reference] = []
        obj = _decoded(json.loads(blob), references)
        if self.verify and references:
            verify(references)
        return obj


def _blocks(uri: str, credentials: str | None) -> dict[str, str]:
    store = store_of(uri)
    return {store: credentials} if store is not None and credentials is not None else {}


def _encoded(obj: Any) -> Any:
    if isinstance(obj, Reference):
        return {_KIND: "reference", **{k: _encoded(v) for k, v in asdict(obj).items()}}
    if isinstance(obj, Plate | Well | Image):
        return _encoded(Reference.to(obj.uri))
    if isinstance(obj, SecretStr | SecretBytes | Block) and not isinstance(obj, Located):
        raise MismatchError(
            f"a result does not hold a {type(obj).__name__}; return the name of its block"
        )
    if isinstance(obj, Located):
        return _encoded(Reference(obj.uri))
    if isinstance(obj, str):
        if carries_secret(obj):
            raise MismatchError("a result does not hold a URI with a secret; leave the secret out")
        return obj
    if obj is None or isinstance(obj, bool | int | float):
        return obj
    if isinstance(obj, np.generic):
        return _encoded(obj.item())
    if isinstance(obj, np.ndarray):
        return _encoded_array(obj)
    if isinstance(obj, BaseException):
        return {_KIND: "error", "type": type(obj).__name__, "message": _encoded(str(obj))}
    if isinstance(obj, list | tuple):
        return [_encoded(item) for item in obj]
    if isinstance(obj, dict):
        if _KIND in obj or not all(isinstance(key, str) for key in obj):
            raise MismatchError(f"a result's dict has texts as keys, and not {_KIND!r}")
        return {key: _encoded(value) for key, value in obj.items()}
    raise MismatchError(
        f"a result does not hold a {type(obj).__name__}; save it, for example as a table, and "
        "return Reference.to(uri)"
    )


def _encoded_array(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    if array.nbytes > LARGEST or array.dtype.hasobject:
        raise MismatchError(
            f"a result does not hold an array of {array.dtype} and shape {array.shape}; write it "
            "to a plate and return Reference.to(uri)"
        )
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {_KIND: "array", "dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def _decoded(obj: Any, references: list[Reference]) -> Any:
    if isinstance(obj, list):
        return [_decoded(item, references) for item in obj]
    if not isinstance(obj, dict):
        return obj
    kind = obj.get(_KIND)
    if kind == "reference":
        reference = Reference(obj["uri"], obj["stamp"], obj["credentials"])
        references.append(reference)
        return reference
    if kind == "array":
        flat = np.frombuffer(base64.b64decode(obj["data"]), np.dtype(obj["dtype"]))
        return flat.reshape(obj["shape"]).copy()
    if kind == "error":
        return _error(obj["type"], obj["message"])
    return {key: _decoded(value, references) for key, value in obj.items()}


def _error(name: str, message: str) -> BaseException:
    """An error of Python's or ours; one of another library is told by its name."""
    cls = getattr(errors, name, None) or getattr(builtins, name, None)
    if isinstance(cls, type) and issubclass(cls, Exception):
        return cls(message)
    return PolystoreError(f"{name}: {message}")
