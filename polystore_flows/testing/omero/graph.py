"""Objects of ``omero.model`` into rows and back, as IUpdate and IQuery do."""

from __future__ import annotations

from typing import Any

import omero
import omero.model
from omero.rtypes import rint, rlong, unwrap, wrap

from .access import Access
from .schema import ENUMERATIONS, ORDERED, TO_MANY, TO_ONE, kind_of, required, root_of, scalars
from .store import Ref, Row


def load(row: Row, access: Access) -> Any:
    """A row as a loaded object: relations are unloaded, collections null, as from a query."""
    obj = getattr(omero.model, f"{row.kind}I")()
    obj.unloadCollections()
    obj._id, obj._loaded = rlong(row.id), True
    if hasattr(obj, "_version"):
        obj._version = rint(row.version)
    for name in scalars(row.kind):
        value = row.fields.get(name)
        if value is not None:
            setattr(obj, f"_{name}", _to_client(obj, name, value))
    for name in TO_ONE[row.kind]:
        ref = row.fields.get(name)
        if ref is not None:
            setattr(obj, f"_{name}", proxy(ref, access))
    obj._details = details(row, access)
    return obj


def details(row: Row, access: Access) -> Any:
    """Owner, group and events, unloaded, and permissions."""
    found = omero.model.DetailsI()
    found._owner = omero.model.ExperimenterI(row.owner, False)
    found._group = omero.model.ExperimenterGroupI(row.group, False)
    found._creationEvent = omero.model.EventI(row.creation, False)
    found._updateEvent = omero.model.EventI(row.update, False)
    found._permissions = access.permissions(row)
    return found


def proxy(ref: Ref, access: Access) -> Any:
    """An unloaded object; of its own kind where `ref` names an abstract one."""
    row = access.store.find(*ref)
    kind = row.kind if row is not None else ref.kind
    return getattr(omero.model, f"{kind}I")(ref.id, False)


_IN_ORDER = {TO_MANY[kind][name][0] for kind, name in ORDERED} - {"Pixels"}


class Saver:
    """Writes graphs of objects in one transaction and one event of the user.

    Unloaded objects are references, objects with a number are changed, others are made; an
    object changed by somebody else since it was loaded is an ``OptimisticLockException``.
    """

    def __init__(self, access: Access) -> None:
        self.access, self.store = access, access.store
        self.event = self.store.event(access.user.id).id
        self._done: dict[int, Row] = {}
        self._making: set[int] = set()

    def save(self, obj: Any) -> Any:
        """Write `obj` and what it holds; gives it back with numbers and details."""
        self._put(obj)
        return obj

    def _put(self, obj: Any, *, member: bool = False) -> Row:
        done = self._done.get(id(obj))
        if done is not None:
            return done
        kind = kind_of(obj)
        if kind not in TO_ONE:
            raise omero.ApiUsageException(message=f"the loopback server keeps no {kind}")
        if kind in ENUMERATIONS and obj._id is None:
            return self._enumeration(obj, kind)
        if obj._id is not None:
            row = self._existing(obj, kind)
            self._done[id(obj)] = row
            if obj._loaded and kind not in ENUMERATIONS:
                self._update(obj, row)
                self._members(obj, row)
        else:
            if not member and root_of(kind) in _IN_ORDER:
                # The parent's list writes the reference and the index (object.vm of omero-model).
                raise omero.ValidationException(
                    message=f"not-null property references a null: add the {kind} to its parent"
                )
            row = self._insert(obj, kind)
            self._members(obj, row)
        obj._id = rlong(row.id)
        if obj._loaded and hasattr(obj, "_version"):
            obj._version = rint(row.version)
            obj._details = details(row, self.access)
        return row

    def _enumeration(self, obj: Any, kind: str) -> Row:
        value = unwrap(obj._value)
        row = self.store.enumeration(kind, value)
        if row is None:
            raise omero.ApiUsageException(message=f"no {kind} has the value {value!r}")
        obj._id = rlong(row.id)
        return row

    def _existing(self, obj: Any, kind: str) -> Row:
        row = self.store.find(kind, unwrap(obj._id))
        if row is None or not self.access.readable(row):
            raise omero.ValidationException(message=f"No row with the given identifier: {kind}")
        return row

    def _fields(self, obj: Any, kind: str) -> dict[str, Any]:
        fields = {name: _from_client(getattr(obj, f"_{name}", None)) for name in scalars(kind)}
        for name in TO_ONE[kind]:
            target = getattr(obj, f"_{name}")
            if target is not None:
                fields[name] = self._put(target).ref
        return fields

    def _insert(self, obj: Any, kind: str) -> Row:
        group = self.access.check_member()
        row = Row(kind, 0, {}, self.access.user.id, group, self.event, self.event)
        self._check_required(obj, kind)
        self._making.add(id(obj))  # a parent that is made first leaves it out of its members
        fields = self._fields(obj, kind)
        for name in ("parent", "child", "plate", "well", "image", "roi"):
            if isinstance(fields.get(name), Ref):
                self._check_link(fields[name], group, note=kind.endswith("AnnotationLink"))
        row.fields = fields
        self._done[id(obj)] = self.store.insert(row)
        return row

    def _check_required(self, obj: Any, kind: str) -> None:
        for name in required(kind):
            if getattr(obj, f"_{name}", None) is None:
                raise omero.ValidationException(
                    message=f"could not insert: null value in column {name!r} of {kind}"
                )

    def _check_link(self, ref: Ref, group: int, *, note: bool) -> None:
        row = self.store.find(*ref)
        assert row is not None
        may = self.access.annotatable(row) if note else self.access.writable(row)
        if not may:
            raise omero.SecurityViolation(message=f"Cannot link to {ref.kind}:{ref.id}")
        if row.group != group:
            raise omero.GroupSecurityViolation(
                message=f"{ref.kind}:{ref.id} is in group {row.group}, not in {group}"
            )

    def _update(self, obj: Any, row: Row) -> None:
        seen = obj._details._updateEvent if obj._details is not None else None
        stale = seen is not None and seen._id is not None and unwrap(seen._id) != row.update
        version = unwrap(obj._version) if getattr(obj, "_version", None) is not None else None
        fields = self._fields(obj, row.kind)
        # An annotation's NamedValues and a Length compare as the values that are kept.
        changed = {k: v for k, v in fields.items() if row.fields.get(k) != v}
        if not changed:
            return
        if stale or (version is not None and version != row.version):
            raise omero.OptimisticLockException(
                message=f"{row.kind}:{row.id} was changed by another transaction"
            )
        if not self.access.writable(row):
            raise omero.SecurityViolation(message=f"Updating {row.kind}:{row.id} not allowed")
        self.store.change(row, changed, self.event)

    def _members(self, obj: Any, row: Row) -> None:
        for name, (_, back) in TO_MANY.get(row.kind, {}).items():
            members = getattr(obj, f"_{name}Seq", None)
            if not members:
                continue
            for member in members:
                if member is None or id(member) in self._making:
                    continue
                if member._loaded and getattr(member, f"_{back}") is None:
                    setattr(member, f"_{back}", type(obj)(row.id, False))
                self._put(member, member=True)


def _from_client(value: Any) -> Any:
    """A field of an object as it is kept."""
    if isinstance(value, list):  # a map of NamedValues
        return [(pair.name, pair.value) for pair in value]
    if hasattr(value, "getUnit"):
        return (type(value).__name__, value.getValue(), str(value.getUnit()))
    if isinstance(value, omero.model.IObject):
        raise omero.ApiUsageException(message=f"the loopback server keeps no {kind_of(value)}")
    return bytes(value) if isinstance(value, bytes | bytearray) else unwrap(value)


def _to_client(obj: Any, name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [omero.model.NamedValue(*pair) for pair in value]
    if isinstance(value, tuple):
        cls, number, unit = value
        enum = getattr(omero.model.enums, f"Units{cls.removesuffix('I')}")
        return getattr(omero.model, cls)(number, getattr(enum, unit))
    if isinstance(value, bytes):
        return value
    info = getattr(obj._field_info, name)
    return info.wrapper(value) if callable(info.wrapper) else wrap(value)
