"""Answers parsed HQL from the store, as far as the asking user may see."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from typing import Any

import omero
from omero.rtypes import rbool, rdouble, rint, rlong, robject, rstring, rtime, unwrap

from .access import Access
from .graph import load
from .hql import Condition, Item, Join, Path, Query, is_ordered, is_quantity, parse
from .schema import TO_MANY
from .store import Ref, Row

Bindings = dict[str, Row | None]

_TIMES = {"time", "acquisitionDate", "atime", "mtime", "ctime", "startTime", "endTime"}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
}


def project(text: str, parameters: Any, access: Access) -> list[list[Any]]:
    """``IQuery.projection``: rows of values."""
    run = _Run(parse(text, projection=True), parameters, access)
    if any(item.function in ("count", "max", "min", "minindex", "maxindex") for item in run.items):
        return [run.aggregate()]
    rows = [tuple(run.value(item, bound) for item in run.items) for bound in run.bindings()]
    if run.query.distinct:
        rows = list(dict.fromkeys(rows))
    names = [(item.path.parts or ("",))[-1] for item in run.items]
    return [
        [_rtype(value, name, access) for value, name in zip(row, names, strict=True)]
        for row in run.page(rows)
    ]


def objects(text: str, parameters: Any, access: Access) -> list[Any]:
    """``IQuery.findAllByQuery``: objects with what was fetched loaded.

    Without ``distinct`` an object comes as often as its joins give it, once if it only fetches
    (as OMERO's own wrapper around Hibernate makes it).
    """
    run = _Run(parse(text, projection=False), parameters, access)
    loaded: dict[Ref, Any] = {}
    selected: dict[Ref, Any] = {}
    for bound in run.bindings():
        row = bound[run.items[0].path.alias]
        if row is None:
            continue
        selected[row.ref] = _once(row, loaded, access)
        for join in run.query.joins:
            if join.fetch:
                _fetch(run, join, bound, loaded)
    return run.page(list(selected.values()))


def _once(row: Row, loaded: dict[Ref, Any], access: Access) -> Any:
    if row.ref not in loaded:
        loaded[row.ref] = load(row, access)
    return loaded[row.ref]


def _fetch(run: _Run, join: Join, bound: Bindings, loaded: dict[Ref, Any]) -> None:
    owner = bound.get(join.path.alias)
    if owner is None:
        return
    target = bound[join.alias]
    obj = _once(owner, loaded, run.access)
    name = join.path.parts[-1]
    if join.path.parts[0] == "details":
        if target is not None:
            setattr(obj._details, f"_{name}", _once(target, loaded, run.access))
    elif name in TO_MANY.get(owner.kind, {}):
        members = getattr(obj, f"_{name}Seq")
        if members is None or not getattr(obj, f"_{name}Loaded"):
            members = []
            setattr(obj, f"_{name}Seq", members)
            setattr(obj, f"_{name}Loaded", True)
        if target is not None:
            member = _once(target, loaded, run.access)
            if all(member is not other for other in members):
                members.append(member)
            setattr(member, f"_{TO_MANY[owner.kind][name][1]}", obj)
    elif target is not None:
        setattr(obj, f"_{name}", _once(target, loaded, run.access))


class _Run:
    """One query with its parameters."""

    def __init__(self, query: Query, parameters: Any, access: Access) -> None:
        self.query, self.items, self.access = query, query.items, access
        self.store = access.store
        values = (parameters.map or {}) if parameters is not None else {}
        self.values = {name: unwrap(value) for name, value in values.items()}
        self.filter = parameters.theFilter if parameters is not None else None
        self._origin = {join.alias: join for join in query.joins}

    def page(self, rows: list[Any]) -> list[Any]:
        """The part that the caller's filter asks for."""
        offset = unwrap(self.filter.offset) or 0 if self.filter is not None else 0
        limit = unwrap(self.filter.limit) if self.filter is not None else None
        return rows[offset:] if limit is None else rows[offset : offset + limit]

    def bindings(self) -> list[Bindings]:
        """All combinations of rows that fulfil the query, in its order."""
        found = list(self._extend(self._start()))
        for item, descending in reversed(self.query.order):
            found.sort(key=lambda b: _sortable(self.value(item, b)), reverse=descending)
        return found

    def aggregate(self) -> list[Any]:
        """Values of count, max and min over all combinations."""
        found = self.bindings()
        out = []
        for item in self.items:
            plain = Item(item.path, "index" if item.function.endswith("index") else "")
            values = [v for b in found if (v := self.value(plain, b)) is not None]
            if item.function == "count":
                out.append(rlong(len(set(values))))
            else:
                best = (max if item.function.startswith("max") else min)(values, default=None)
                out.append(None if best is None else rint(best))
        return out

    def _start(self) -> list[Row]:
        """Candidates for the query's root: by number where a condition names it."""
        for condition in self.query.conditions:
            path, alias = condition.left.path, self.query.alias
            if path.alias != alias or condition.operator not in ("=", "in"):
                continue
            wanted = self._right(condition, {})
            numbers = wanted if isinstance(wanted, list | tuple) else [wanted]
            if path.parts == ("id",):
                rows = (self.store.find(self.query.kind, n) for n in sorted(set(numbers)))
                return [row for row in rows if row is not None]
            if len(path.parts) == 2 and path.parts[1] == "id" and path.parts[0] != "details":
                return [
                    row
                    for n in sorted(set(numbers))
                    for row in self.store.members(self.query.kind, path.parts[0], n)
                ]
        return self.store.all(self.query.kind)

    def _extend(self, rows: list[Row]) -> Iterator[Bindings]:
        """Bind the root to each of `rows`, then every join in turn."""
        for row in rows:
            if self.access.visible(row):
                yield from self._join({self.query.alias: row}, 0)

    def _join(self, bound: Bindings, at: int) -> Iterator[Bindings]:
        aliases = {self.query.alias, *(join.alias for join in self.query.joins[:at])}
        if not all(self._holds(c, bound) for c in self.query.conditions if _decided(c, aliases)):
            return
        if at == len(self.query.joins):
            if self._complete(bound):
                yield bound
            return
        join = self.query.joins[at]
        targets: list[Row | None] = [
            row for row in self._targets(join, bound) if self.access.visible(row)
        ]
        if join.outer and not targets:
            targets = [None]
        for target in targets:
            yield from self._join({**bound, join.alias: target}, at + 1)

    def _complete(self, bound: Bindings) -> bool:
        """Whether no path goes through a missing object.

        Hibernate makes an inner join of every association in the middle of a path, which drops
        the row; only ``x.y.id`` is read without one.
        """
        query = self.query
        items = [*query.items, *(c.left for c in query.conditions), *(i for i, _ in query.order)]
        for item in items:
            parts = item.path.parts
            inner = parts[:-2] if parts[-1:] == ("id",) or is_quantity(parts) else parts[:-1]
            if inner and self._follow(bound.get(item.path.alias), inner) is None:
                return False
        return True

    def _targets(self, join: Join, bound: Bindings) -> list[Row]:
        owner = self._follow(bound.get(join.path.alias), join.path.parts[:-1])
        if owner is None:
            return []
        name = join.path.parts[-1]
        if name in TO_MANY.get(owner.kind, {}) and join.path.parts[0] != "details":
            kind, back = TO_MANY[owner.kind][name]
            return self.store.members(kind, back, owner.id)
        target = self._follow(owner, (name,), details=join.path.parts[0] == "details")
        return [] if target is None else [target]

    def _follow(
        self, row: Row | None, parts: tuple[str, ...], *, details: bool = False
    ) -> Row | None:
        for part in parts:
            if row is None:
                return None
            if part == "details":
                details = True
                continue
            ref = _detail(row, part) if details else row.fields.get(part)
            details = False
            row = self.store.find(*ref) if isinstance(ref, Ref) else None
        return row

    def value(self, item: Item, bound: Bindings) -> Any:
        """The value of a path, None where a part of it is missing."""
        row = bound.get(item.path.alias)
        if item.function == "index":
            return self._index(item.path.alias, row, bound)
        return self._at(row, item.path)

    def _at(self, row: Row | None, path: Path) -> Any:
        parts = path.parts
        if not parts or row is None:
            return row.ref if row is not None else None
        *before, last = parts
        if last == "value" and before:
            owner = self._follow(row, tuple(before[:-1]))
            quantity = owner.fields.get(before[-1]) if owner is not None else None
            if isinstance(quantity, tuple) and not isinstance(quantity, Ref):
                return quantity[1]
        owner = self._follow(row, tuple(before))
        if owner is None:
            return None
        if before == ["details"]:
            return _detail(owner, last)
        fixed = {"id": owner.id, "version": owner.version, "class": owner.kind}
        return fixed[last] if last in fixed else owner.fields.get(last)

    def _index(self, alias: str, row: Row | None, bound: Bindings) -> int | None:
        join = self._origin.get(alias)
        owner = bound.get(join.path.alias) if join is not None else None
        if join is None or owner is None or row is None:
            return None
        name = join.path.parts[-1]
        if not is_ordered(owner.kind, name):
            raise omero.QueryException(message=f"{name} of {owner.kind} has no index")
        kind, back = TO_MANY[owner.kind][name]
        return [member.id for member in self.store.members(kind, back, owner.id)].index(row.id)

    def _holds(self, condition: Condition, bound: Bindings) -> bool:
        left = self.value(condition.left, bound)
        if condition.operator in ("is", "is not"):
            return (left is None) == (condition.operator == "is")
        right = self._right(condition, bound)
        if left is None or right is None:
            return False
        if isinstance(left, Ref) and not isinstance(right, Ref):
            left = left.id
        if condition.operator == "like":
            pattern = re.sub(r"([\[\]*?])", r"[\1]", str(right)).replace("%", "*").replace("_", "?")
            return fnmatch.fnmatchcase(str(left), pattern)
        if condition.operator == "in" and not isinstance(right, list | tuple):
            right = [right]
        return _COMPARE[condition.operator](left, right)

    def _right(self, condition: Condition, bound: Bindings) -> Any:
        right = condition.right
        if isinstance(right, Path):
            return self._at(bound.get(right.alias), right)
        if isinstance(right, str) and right.startswith(":"):
            if right[1:] not in self.values:
                raise omero.QueryException(
                    message=f"Not all named parameters have been set: {right}"
                )
            return self.values[right[1:]]
        return right.strip("'") if isinstance(right, str) else right


def _decided(condition: Condition, aliases: set[str]) -> bool:
    right = condition.right
    return condition.left.path.alias in aliases and (
        not isinstance(right, Path) or right.alias in aliases
    )


def _detail(row: Row, name: str) -> Ref | None:
    if name == "externalInfo":
        found = row.fields.get(name)
        return found if isinstance(found, Ref) else None
    number = {
        "owner": row.owner,
        "group": row.group,
        "creationEvent": row.creation,
        "updateEvent": row.update,
    }[name]
    kind = {"owner": "Experimenter", "group": "ExperimenterGroup"}.get(name, "Event")
    return Ref(kind, number)


def _sortable(value: Any) -> tuple[bool, Any]:
    return (value is None, "" if value is None else value)


def _rtype(value: Any, name: str, access: Access) -> Any:
    if value is None:
        return None
    if isinstance(value, Ref):
        row = access.store.find(*value)
        return None if row is None else robject(load(row, access))
    if isinstance(value, bool):
        return rbool(value)
    if isinstance(value, int):
        if name in _TIMES:
            return rtime(value)
        return rlong(value) if name in ("id", "size", "longValue") else rint(value)
    if isinstance(value, float):
        return rdouble(value)
    if isinstance(value, str):
        return rstring(value)
    raise omero.QueryException(message=f"{name} cannot be projected")
