"""An update of a document said as data, so that another process can make it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from polystore_flows.errors import CorruptMetadataError, NotFoundError
from polystore_flows.metadata.layout import Draft, unspeakable


class Change:
    """Steps that are made together, in their order, or not at all.

    A path is the keys that lead to a value; objects on the way are made where they are missing.

    Args:
        create: Make the document where there is none, instead of raising.
    """

    def __init__(self, *, create: bool = True) -> None:
        self.creates = create
        self._steps: list[tuple[str, tuple[str, ...], Any]] = []

    def set(self, *path: str, value: Any) -> Change:
        """Put `value` there, whatever was there."""
        self._steps.append(("set", path, value))
        return self

    def merge(self, *path: str, value: Mapping[str, Any]) -> Change:
        """Set the keys of `value` in the object there; its other keys stay."""
        self._steps.append(("merge", path, dict(value)))
        return self

    def append(self, *path: str, value: Any) -> Change:
        """Put `value` at the end of the list there."""
        self._steps.append(("append", path, value))
        return self

    def encode(self, where: object) -> bytes:
        """Return the change as one line of JSON.

        Raises:
            ValueError: JSON has no way to say something in it; the message names `where`.
        """
        try:
            text = json.dumps([self.creates, self._steps], allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            for _, path, value in self._steps:
                fault = unspeakable(where, value, error, "".join(f"/{key}" for key in path))
                if str(error) not in str(fault):  # this step is the culprit
                    raise fault from error
            raise unspeakable(where, {}, error) from error
        return text.encode() + b"\n"


def apply(encoded: bytes, draft: Draft | None, document: object) -> Draft:
    """Make the change that `Change.encode` gave.

    Args:
        encoded: The change.
        draft: The document, changed in place; None where there is none.
        document: Its path or URI, for messages.

    Raises:
        NotFoundError: There is no document, and the change does not make one.
        CorruptMetadataError: Something in the document is not what the change needs; `draft` is
            as it was.
    """
    creates, steps = json.loads(encoded)
    if draft is None:
        if not creates:
            raise missing(document)
        draft = Draft({})
    for verb, path, _ in steps:
        _check(draft.data, verb, path, document)
    for verb, path, value in steps:
        _make(draft, verb, path, value)
    return draft


def missing(path: object) -> NotFoundError:
    """Return the error for a document that is not there."""
    return NotFoundError(f"there is no document {path}; create it first")


def _check(data: dict[str, Any], verb: str, path: list[str], document: object) -> None:
    value: Any = data
    kinds = [dict] * (len(path) - 1) + [{"set": object, "merge": dict, "append": list}[verb]]
    for key, kind in zip(path, kinds, strict=True):
        if key not in value:
            return
        value = value[key]
        if not isinstance(value, kind):
            what = "object" if kind is dict else "array"
            raise CorruptMetadataError(
                f"{document}: {key!r} is no JSON {what} but {type(value).__name__}. "
                "The document was left as it is; restore it from a copy"
            )


def _make(draft: Draft, verb: str, path: list[str], value: Any) -> None:
    for key in value if verb == "merge" else (None,):
        draft.touch(path if key is None else [*path, key])
    inside = draft.data
    for key in path[:-1]:
        inside = inside.setdefault(key, {})
    if verb == "set":
        inside[path[-1]] = value
    elif verb == "merge":
        inside.setdefault(path[-1], {}).update(value)
    else:
        inside.setdefault(path[-1], []).append(value)
