"""An update of a document said as data, so that another process can make it."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from polystore_flows.errors import CorruptMetadataError, MismatchError, NotFoundError
from polystore_flows.metadata.layout import Draft, unspeakable

_encode = json.JSONEncoder(allow_nan=False).encode
_KINDS = {"merge": dict, "append": list, "insert": list, "raise_to": int}


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

    def insert(self, *path: str, value: Mapping[str, Any], by: Sequence[str]) -> Change:
        """Put an object into the list there, which is sorted by the keys `by` of its objects.

        It takes the place of an object that has the same ones.
        """
        self._steps.append(("insert", path, {"by": list(by), "item": dict(value)}))
        return self

    def raise_to(self, *path: str, value: int) -> Change:
        """Make the number there at least `value`."""
        self._steps.append(("raise_to", path, value))
        return self

    def default(self, *path: str, value: Any) -> Change:
        """Put `value` there, if nothing is."""
        self._steps.append(("default", path, value))
        return self

    def agree(self, *path: str, value: Any) -> Change:
        """Put `value` there, if nothing is; make none of the steps, if something else is."""
        self._steps.append(("agree", path, value))
        return self

    def drop(self, *path: str) -> Change:
        """Remove what is there, if anything is."""
        self._steps.append(("drop", path, None))
        return self

    def encode(self, where: object) -> bytes:
        """Return the change as one line of JSON.

        Raises:
            ValueError: JSON has no way to say something in it; the message names `where`.
        """
        try:
            text = _encode([self.creates, self._steps])
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
        MismatchError: Something that the change shall agree with is different; likewise.
    """
    creates, steps = json.loads(encoded)
    if draft is None:
        if not creates:
            raise missing(document)
        draft = Draft({})
    for verb, path, value in steps:
        draft.load(path)
        _check(draft.data, verb, path, value, document)
    for verb, path, value in steps:
        _make(draft, verb, path, value)
    return draft


def missing(path: object) -> NotFoundError:
    """Return the error for a document that is not there."""
    return NotFoundError(f"there is no document {path}; create it first")


def _check(data: dict[str, Any], verb: str, path: list[str], value: Any, document: object) -> None:
    inside: Any = data
    kinds: list[type] = [dict] * (len(path) - 1) + [_KINDS.get(verb, object)]
    for key, kind in zip(path, kinds, strict=True):
        if key not in inside:
            return
        inside = inside[key]
        if not isinstance(inside, kind):
            what = "object" if kind is dict else "array" if kind is list else "number"
            raise CorruptMetadataError(
                f"{document}: {key!r} is no JSON {what} but {type(inside).__name__}. "
                "The document was left as it is; restore it from a copy"
            )
    if verb == "insert":
        try:
            _place(inside, **value)
        except (KeyError, TypeError) as error:
            raise CorruptMetadataError(
                f"{document}: {path[-1]!r} does not hold objects with {' and '.join(value['by'])}. "
                "The document was left as it is; restore it from a copy"
            ) from error
    elif verb == "agree" and inside != value:
        raise MismatchError(
            f"{document}: {'/'.join(path)} is {inside!r}, not {value!r}; nothing was written"
        )


def _make(draft: Draft, verb: str, path: list[str], value: Any) -> None:
    *way, last = path
    inside = draft.data
    for key in way:
        if verb == "drop" and key not in inside:
            return
        inside = inside.setdefault(key, {})
    if last in inside and (
        verb in ("default", "agree") or (verb == "raise_to" and inside[last] >= value)
    ):
        return
    merged = [[*path, name] for name in value] if verb == "merge" else []
    for touched in merged or [path]:  # merging nothing still makes the objects on the way
        draft.touch(touched)
    if verb == "drop":
        inside.pop(last, None)
    elif verb == "merge":
        inside.setdefault(last, {}).update(value)
    elif verb == "append":
        inside.setdefault(last, []).append(value)
    elif verb == "insert":
        items = inside.setdefault(last, [])
        at, there = _place(items, **value)
        items[at : at + there] = [value["item"]]
    else:
        inside[last] = value


def _place(items: list[dict[str, Any]], item: dict[str, Any], by: list[str]) -> tuple[int, bool]:
    """Where `item` belongs in a sorted list, and whether one with its keys is there."""

    def key(one: dict[str, Any]) -> list[Any]:
        return [one[name] for name in by]

    at = bisect_left(items, key(item), key=key)
    return at, at < len(items) and key(items[at]) == key(item)
