"""OMERO.tables: columns of values kept beside their OriginalFile."""

from __future__ import annotations

import pickle
import time
from typing import Any

import omero
import omero.grid
from omero.rtypes import rstring, unwrap

from .graph import Saver, load
from .servant import Servant, Session
from .store import Row

MIMETYPE = "OMERO.tables"


class Resources(Servant, omero.grid.SharedResources):
    """SharedResources, for tables."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def areTablesEnabled(self, current: Any) -> bool:
        """Yes."""
        return True

    def repositories(self, current: Any) -> Any:
        """One repository, which clients need to make a table in."""
        description = omero.model.OriginalFileI(1, False)
        return omero.grid.RepositoryMap(descriptions=[description], proxies=[None])

    def newTable(self, repository: int, path: str, current: Any) -> Any:
        """Make the file of a table, which has no columns yet."""
        access = self._session.access(current)
        file = omero.model.OriginalFileI()
        folder, _, name = path.rpartition("/")
        file.setName(rstring(name))
        file.setPath(rstring(f"{folder}/"))
        file.setMimetype(rstring(MIMETYPE))
        with access.store.transaction():
            Saver(access).save(file)
        return self._proxy(access.store.find("OriginalFile", unwrap(file._id)))

    def openTable(self, file: Any, current: Any) -> Any:
        """A table by its file; None if it is no table."""
        access = self._session.access(current)
        row = access.store.find("OriginalFile", unwrap(file._id))
        if row is None or not access.readable(row):
            raise omero.ValidationException(message="No such OriginalFile")
        return self._proxy(row) if row.fields.get("mimetype") == MIMETYPE else None

    def _proxy(self, row: Row | None) -> Any:
        assert row is not None
        made = self._session.add("Table", Table(self._session, row), fresh=True)
        return omero.grid.TablePrx.uncheckedCast(made)


class Table(Servant, omero.grid.Table):
    """One table; each write is kept at once."""

    def __init__(self, session: Session, row: Row) -> None:
        self._session, self._row = session, row
        self._path = session.server.store.path("OriginalFile", row.id)

    def getOriginalFile(self, current: Any) -> Any:
        """The table's file."""
        return load(self._row, self._session.access(current))

    def initialize(self, columns: list[Any], current: Any) -> None:
        """Set the columns; what was there is gone."""
        self._check_write(current)
        if not columns:
            raise omero.ApiUsageException(message="No columns provided")
        for column in columns:
            column.values = []
        self._keep(columns, {})

    def addData(self, columns: list[Any], current: Any) -> None:
        """Append rows."""
        self._check_write(current)
        kept, metadata = self._kept()
        if [type(c) for c in kept] != [type(c) for c in columns]:
            raise omero.ApiUsageException(message="the columns differ from the table's")
        lengths = {len(column.values) for column in columns}
        if len(lengths) > 1:
            raise omero.ValidationException(message=f"columns of lengths {sorted(lengths)}")
        for own, new in zip(kept, columns, strict=True):
            if isinstance(own, omero.grid.StringColumn):
                long = [v for v in new.values if len(v.encode()) > own.size]
                if long:
                    raise omero.ValidationException(
                        message=f"Maximum string (byte) length in column {own.name} is {own.size}"
                    )
            own.values = [*own.values, *new.values]
            self._session.server.received(8 * len(new.values))
        self._keep(kept, metadata)

    def getHeaders(self, current: Any) -> list[Any]:
        """The columns without values."""
        return [_part(column, []) for column in self._kept()[0]]

    def getNumberOfRows(self, current: Any) -> int:
        """As it says."""
        columns, _ = self._kept()
        return len(columns[0].values)

    def read(self, columns: list[int], start: int, stop: int, current: Any) -> Any:
        """Some columns of the rows from `start` to before `stop`."""
        return self._data(columns, range(start, min(stop, self.getNumberOfRows(current))))

    def readCoordinates(self, rows: list[int], current: Any) -> Any:
        """All columns of some rows."""
        return self._data(range(len(self._kept()[0])), rows)

    def slice(self, columns: list[int], rows: list[int], current: Any) -> Any:
        """Some columns of some rows; all where none are named."""
        every = range(self.getNumberOfRows(current))
        return self._data(columns or range(len(self._kept()[0])), rows or every)

    def getAllMetadata(self, current: Any) -> Any:
        """Key-value pairs of the table."""
        return {key: rstring(value) for key, value in self._kept()[1].items()}

    def setAllMetadata(self, values: Any, current: Any) -> None:
        """Set key-value pairs of the table."""
        self._check_write(current)
        columns, metadata = self._kept()
        self._keep(columns, metadata | {key: unwrap(value) for key, value in values.items()})

    def close(self, current: Any) -> None:
        """End the service."""
        self._session.servants.pop(current.id.name, None)

    def _check_write(self, current: Any) -> None:
        if not self._session.access(current).writable(self._row):
            raise omero.SecurityViolation(message="Cannot write to this table")

    def _kept(self) -> tuple[list[Any], dict[str, str]]:
        if not self._path.exists():
            raise omero.ApiUsageException(message="Not yet initialized")
        columns, metadata = pickle.loads(self._path.read_bytes())
        return columns, metadata

    def _keep(self, columns: list[Any], metadata: dict[str, str]) -> None:
        data = pickle.dumps((columns, metadata))
        self._path.write_bytes(data)
        store = self._session.server.store
        with store.transaction():
            fields = {"size": len(data), "mtime": int(time.time() * 1000)}
            store.change(self._row, fields, store.event(self._session.user.id).id)

    def _data(self, columns: Any, rows: Any) -> Any:
        kept, _ = self._kept()
        rows = list(rows)
        try:
            parts = [_part(kept[c], [kept[c].values[r] for r in rows]) for c in columns]
        except IndexError as error:
            raise omero.ApiUsageException(message="row or column out of bounds") from error
        self._session.server.sent(8 * len(rows) * len(parts))
        return omero.grid.Data(lastModification=0, rowNumbers=rows, columns=parts)


def _part(column: Any, values: list[Any]) -> Any:
    size = {"size": column.size} if hasattr(column, "size") else {}
    return type(column)(name=column.name, description=column.description, values=values, **size)
