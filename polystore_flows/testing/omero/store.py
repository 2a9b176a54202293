"""The rows of the loopback server: numbered, indexed by what they refer to, changed atomically."""

from __future__ import annotations

import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import omero

from .schema import ENUMERATIONS, UNIQUE, is_a, is_link, root_of


class Ref(NamedTuple):
    """A reference to a row."""

    kind: str
    """Root kind."""
    id: int


@dataclass(slots=True)
class Row:
    """One object without its collections."""

    kind: str
    """Its own kind, ``MapAnnotation``."""
    id: int
    fields: dict[str, Any]
    """Scalars as Python values, relations as `Ref`; what is not set is None or missing."""
    owner: int = 0
    group: int = 0
    creation: int = 0
    """Number of the event that made it."""
    update: int = 0
    """Number of the event that changed it last."""
    version: int = 0

    @property
    def ref(self) -> Ref:
        """A reference to it."""
        return Ref(root_of(self.kind), self.id)


@dataclass
class Store:
    """All rows, and the folder that holds pixels and files.

    With a `folder` what is stored is found again by the next server on it.
    """

    folder: Path | None = None
    rows: dict[str, dict[int, Row]] = field(default_factory=dict)
    lock: RLock = field(default_factory=RLock)

    def __post_init__(self) -> None:
        self._temporary = self.folder is None
        self.data = Path(tempfile.mkdtemp(prefix="omero-")) if not self.folder else self.folder
        self.data.mkdir(parents=True, exist_ok=True)
        self._index: dict[tuple[str, str], dict[int, dict[int, None]]] = {}
        self._last: dict[str, int] = {}
        self._undo: list[Callable[[], object]] | None = None
        if (self.data / "rows.pickle").exists():
            self._restore(pickle.loads((self.data / "rows.pickle").read_bytes()))
        else:
            for kind, values in ENUMERATIONS.items():
                for value in values:
                    self.insert(Row(kind, 0, {"value": value}))

    def close(self) -> None:
        """Write the rows to the folder, or remove a temporary one."""
        if self._temporary:
            shutil.rmtree(self.data, ignore_errors=True)
        else:
            rows = [row for table in self.rows.values() for row in table.values()]
            (self.data / "rows.pickle").write_bytes(pickle.dumps((rows, self._last)))

    def _restore(self, kept: tuple[list[Row], dict[str, int]]) -> None:
        for row in kept[0]:
            self._put(row)
        self._last = kept[1]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes of the block, or none where it raises; one transaction at a time."""
        with self.lock:
            if self._undo is not None:
                yield
                return
            self._undo = []
            try:
                yield
            except BaseException:
                for undo in reversed(self._undo):
                    undo()
                raise
            finally:
                self._undo = None

    def find(self, kind: str, number: int) -> Row | None:
        """The row of this kind (or derived from it) and number."""
        row = self.rows.get(root_of(kind), {}).get(number)
        return row if row is not None and is_a(row.kind, kind) else None

    def all(self, kind: str) -> list[Row]:
        """Rows of a kind, in the order of their numbers."""
        table = self.rows.get(root_of(kind), {})
        return [table[i] for i in sorted(table) if is_a(table[i].kind, kind)]

    def members(self, kind: str, attribute: str, number: int) -> list[Row]:
        """Rows of `kind` whose `attribute` refers to `number`, in the order of insertion."""
        root = root_of(kind)
        found = self._index.get((root, attribute), {}).get(number, ())
        return [self.rows[root][i] for i in sorted(found)]

    def enumeration(self, kind: str, value: str) -> Row | None:
        """The row of an enumeration with this value."""
        return next((row for row in self.all(kind) if row.fields["value"] == value), None)

    def insert(self, row: Row) -> Row:
        """Number and keep a row.

        Raises:
            omero.ValidationException: it breaks a unique index of OMERO's database.
        """
        with self.lock:
            self._check_unique(row)
            root = root_of(row.kind)
            self._last[root] = row.id = self._last.get(root, 0) + 1
            self._put(row)
            self._on_undo(lambda: self._drop(row))
            return row

    def change(self, row: Row, fields: dict[str, Any], event: int) -> None:
        """Set some fields and count the row's version up."""
        with self.lock:
            before = (dict(row.fields), row.update, row.version)

            def undo() -> None:
                self._drop(row)
                row.fields, row.update, row.version = before
                self._put(row)

            self._drop(row)
            row.fields |= fields
            row.update, row.version = event, row.version + 1
            self._put(row)
            self._on_undo(undo)

    def delete(self, rows: Iterable[Row]) -> None:
        """Drop rows.

        Raises:
            omero.ValidationException: another row still refers to one.
        """
        with self.lock:
            gone = {row.ref: row for row in rows}
            for ref in gone:
                for other in self.referring(ref):
                    if other.ref not in gone:
                        raise omero.ValidationException(
                            message=f"{ref.kind}:{ref.id} is referred to by {other.ref}"
                        )
            for row in gone.values():
                self._drop(row)
                self._on_undo(lambda row=row: self._put(row))  # type: ignore[misc]

    def referring(self, ref: Ref) -> Iterator[Row]:
        """Rows that refer to `ref`."""
        for (root, _), targets in list(self._index.items()):
            for number in list(targets.get(ref.id, ())):
                row = self.rows[root][number]
                if ref in row.fields.values():
                    yield row

    def event(self, user: int) -> Row:
        """A new event; each transaction of a user has one."""
        kind = self.enumeration("EventType", "User")
        assert kind is not None
        fields = {"time": int(time.time() * 1000), "experimenter": Ref("Experimenter", user)}
        return self.insert(Row("Event", 0, fields | {"type": kind.ref}))

    def path(self, kind: str, number: int) -> Path:
        """Where the bytes of pixels or of a file lie."""
        return self.data / f"{kind}-{number}"

    def _check_unique(self, row: Row) -> None:
        attributes = UNIQUE.get(row.kind, ("parent", "child") if is_link(row.kind) else ())
        first = row.fields.get(attributes[0]) if attributes else None
        if first is None:
            return
        for other in self.members(row.kind, attributes[0], first.id):
            same = all(other.fields.get(a) == row.fields.get(a) for a in attributes)
            if same and (other.owner == row.owner or not is_link(row.kind)):
                raise omero.ValidationException(
                    message="could not insert: duplicate key value violates unique constraint of "
                    f"{row.kind} ({', '.join(attributes)})"
                )

    def _put(self, row: Row) -> None:
        self.rows.setdefault(root_of(row.kind), {})[row.id] = row
        for name, value in row.fields.items():
            if isinstance(value, Ref):
                targets = self._index.setdefault((root_of(row.kind), name), {})
                targets.setdefault(value.id, {})[row.id] = None

    def _drop(self, row: Row) -> None:
        self.rows[root_of(row.kind)].pop(row.id, None)
        for name, value in row.fields.items():
            if isinstance(value, Ref):
                self._index[root_of(row.kind), name][value.id].pop(row.id, None)

    def _on_undo(self, undo: Callable[[], object]) -> None:
        if self._undo is not None:
            self._undo.append(undo)
