"""The text of a document: JSON that people can read, one short entry to a line.

A container stands on one line if it fits there, else each of its members does; the top level and
its objects are always opened. The line is what the C encoder is asked for, which makes this three
times as fast as ``json.dumps(indent=2)``, and what a `Draft` keeps, so that a change of one entry
does not cost the text of all others.
"""

from __future__ import annotations

import json
from json import encoder as _json
from typing import Any

_WIDTH = 88
_MANY = 40  # members that do not fit on one line anyway
_CONTAINERS = (dict, list, tuple)
_STEP = "  "
_SECTION, _COLON = f'\n{_STEP}"', '": '
_OPENING, _ENTRY, _CLOSING = f'{{\n{_STEP * 2}"', f',\n{_STEP * 2}"', f"\n{_STEP}}}"
_UNPARSED: Any = object()


class Draft:
    """A document with the text of its entries, the members of the objects at its top.

    Args:
        data: The document.

    Attributes:
        data: The document, as far as it was needed; see `of`.
        content: Its text, as long as nothing was touched since it was made.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.content = b""
        self._lines: dict[str, dict[str, str]] = {}

    @classmethod
    def of(cls, content: bytes) -> Draft | None:
        """Return a draft of a text that `render` gave, with entries that are yet to be parsed.

        None if the names of its entries cannot be told without parsing.
        """
        draft = cls({})
        for section in content.decode().removesuffix("\n}\n").split(_SECTION)[1:]:
            name, _, value = section.removesuffix(",").partition(_COLON)
            if "\\" in name:
                return None
            if value.startswith(_OPENING):
                entries = value.removeprefix(_OPENING).removesuffix(_CLOSING).split(_ENTRY)
                lines = {entry.partition(_COLON)[0]: entry for entry in entries}
                if len(lines) < len(entries) or "\\" in "".join(lines):
                    return None
                draft._lines[name] = lines
                draft.data[name] = dict.fromkeys(lines, _UNPARSED)
            else:
                draft.data[name] = json.loads(value)
        draft.content = content
        return draft

    def load(self, path: list[str]) -> None:
        """Parse what is to be looked at, or changed: an entry, or all those of a section."""
        section = self.data.get(path[0])
        if isinstance(section, dict):
            for name in path[1:2] or section:
                if section.get(name) is _UNPARSED:
                    section[name] = json.loads(f'{{"{self._lines[path[0]][name]}}}')[name]

    def touch(self, path: list[str]) -> None:
        """Forget the text of what is to be changed, which is parsed."""
        self.content = b""
        if len(path) < 2:
            self._lines.pop(path[0], None)
        else:
            self._lines.get(path[0], {}).pop(path[1], None)

    def render(self) -> bytes:
        """Return the text, and keep it.

        Raises:
            ValueError: JSON has no way to say something in it.
        """
        text = f"{{\n{_joined(self._sections())}\n}}\n" if self.data else "{}\n"
        # Half a surrogate pair stands in no UTF-8; Python's escape for it is that of JSON.
        self.content = text.encode(errors="backslashreplace")
        return self.content

    def _sections(self) -> list[str]:
        sections = []
        for key, value in self.data.items():
            if isinstance(value, dict) and value and isinstance(key, str):
                lines = self._lines.setdefault(key, {})
                for name in value:
                    if name not in lines:
                        line = _member(name, value[name], 2 * _STEP)
                        lines[name] = line.removeprefix(f'{2 * _STEP}"')
                entries = _ENTRY.join([lines[name] for name in value])
                sections.append(f"{_STEP}{_line(key)}: {_OPENING}{entries}{_CLOSING}")
            else:
                sections.append(_member(key, value, _STEP))
        return sections


def encode(where: object, data: dict[str, Any]) -> bytes:
    """Return `data` as the text of the document `where`.

    Raises:
        TypeError: `data` is no dict.
        ValueError: JSON has no way to say something in it.
    """
    if not isinstance(data, dict):
        raise TypeError(f"{where}: a document is a dict, not {type(data).__name__}")
    try:
        return Draft(data).render()
    except (TypeError, ValueError, RecursionError) as error:
        raise unspeakable(where, data, error) from error


def unspeakable(where: object, data: Any, error: Exception, inside: str = "") -> ValueError:
    """Return the error for `data` that is not JSON."""
    return ValueError(
        f"{where}: this cannot be written as JSON, and nothing was: "
        f"{_culprit(data, inside) or error}"
    )


def _member(key: Any, value: Any, margin: str) -> str:
    """Return one member of an object; on one line, if it is short."""
    if not _is_long(value):
        line = _line({key: value})[1:-1]
        if len(line) <= _WIDTH or not isinstance(value, dict | list | tuple) or not value:
            return margin + line
    return f"{margin}{_line({key: None})[1:-5]}{_opened(value, margin)}"


def _item(value: Any, margin: str) -> str:
    if not _is_long(value):
        line = _line(value)
        if len(line) <= _WIDTH or not isinstance(value, dict | list | tuple) or not value:
            return margin + line
    return margin + _opened(value, margin)


def _is_long(value: Any) -> bool:
    """Whether a value has so many members, somewhere inside, that it cannot fit on one line."""
    if not isinstance(value, _CONTAINERS):
        return False
    if len(value) > _MANY:
        return True
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, _CONTAINERS) and _is_long(inner):
            return True
    return False


def _opened(value: Any, margin: str) -> str:
    deeper = margin + _STEP
    if isinstance(value, dict):
        members = [_member(key, inner, deeper) for key, inner in value.items()]
        return f"{{\n{_joined(members)}\n{margin}}}"
    lines = _flat(value, deeper) or [_item(inner, deeper) for inner in value]
    return f"[\n{_joined(lines)}\n{margin}]"


def _flat(value: list[Any] | tuple[Any, ...], margin: str) -> list[str] | None:
    """The items of a long list of short objects, from one call of the encoder instead of many."""
    if len(value) <= _MANY or not isinstance(value[0], dict):
        return None
    lines = _line(value)[2:-2].split("}, {")
    # As many as there are items only if no item holds an object, or a text that looks like two.
    if len(lines) != len(value) or max(map(len, lines)) > _WIDTH:
        return None
    return [f"{margin}{{{line}}}" for line in lines]


def _joined(lines: list[str]) -> str:
    return ",\n".join(lines)


def _refuse(value: Any) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


# What `json.dumps` makes anew for each call, at the price of half a short line. Its place is not
# documented, so where it is missing the documented way does the same.
_make = getattr(_json, "c_make_encoder", None)
if _make is not None:
    _c_encoder = _make(
        None, _refuse, _json.encode_basestring, None, ": ", ", ", False, False, False
    )

    def _line(value: Any) -> str:
        return "".join(_c_encoder(value, 0))

else:
    _encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode

    def _line(value: Any) -> str:
        return _encode(value)


def _culprit(data: Any, inside: str) -> str | None:
    """Name the first value that is not JSON, and where it stands."""
    pending: list[tuple[str, Any, int]] = [(inside, data, 0)]
    while pending:
        where, value, depth = pending.pop()
        if depth > 900:
            return "it is nested too deeply or contains itself"
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str | int | float | None):
                    return f"the key {key!r} of {where or 'the document'} is no string"
            pending += [(f"{where}/{key}", value[key], depth + 1) for key in reversed(value)]
        elif isinstance(value, list | tuple):
            items = list(enumerate(value))[::-1]
            pending += [(f"{where}/{index}", item, depth + 1) for index, item in items]
        elif not isinstance(value, str | int | float | None):
            return f"{where} is a {type(value).__module__}.{type(value).__qualname__}"
        elif isinstance(value, float) and (
            value != value or value in (float("inf"), -float("inf"))
        ):
            return f"{where} is {value}"
    return None
