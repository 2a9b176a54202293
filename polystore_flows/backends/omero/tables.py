"""Data frames as OMERO.tables and back, with the values and types that CSV would give.

=========  ===============
int64      LongColumn
float64    DoubleColumn
bool       BoolColumn
text       StringColumn, a missing value as ``""``
=========  ===============
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import Ice
import omero.grid
import omero.model

from ...errors import PolystoreError, StoreUnavailableError
from ..tables import decode_table, encode_table
from .annotations import Owner, attach_file, write_file
from .connection import Connection, Live

if TYPE_CHECKING:
    import pandas as pd

ROWS = 50_000
"""Rows that are sent at a time."""


def write_table(
    connection: Connection,
    owner: Owner,
    path: str,
    table: Any,
    group: int,
    where: str,
    *,
    overwrite: bool,
) -> None:
    """Attach a table; when this fails nothing of it is left.

    A table without columns, which OMERO.tables cannot hold, is kept as the file it would be.
    """
    suffix = ".tsv" if path.lower().endswith(".tsv") else ".csv"
    text = encode_table(table, suffix)
    frame = decode_table(text, suffix)
    if frame.columns.empty or frame.empty:
        write_file(connection, owner, path, text, group, where, overwrite=overwrite)
        return
    context = {"omero.group": str(group)}

    def make(live: Live) -> int:
        resources = live.factory.sharedResources(context)
        if not resources.areTablesEnabled(context):
            raise StoreUnavailableError(
                f"{where}: this server runs no OMERO.tables; save the table as .txt or .json"
            )
        repository = resources.repositories(context).descriptions[0].getId().getValue()
        with _closing(resources.newTable(repository, path, context)) as table:
            number: int = table.getOriginalFile(context).getId().getValue()
            try:
                table.initialize([_column(frame, name) for name in frame.columns], context)
                for start in range(0, len(frame), ROWS):
                    part = frame.iloc[start : start + ROWS]
                    table.addData([_column(frame, n, part) for n in frame.columns], context)
            except BaseException:
                with suppress(PolystoreError):
                    connection.delete({"OriginalFile": [number]}, where, group=group)
                raise
            return number

    number = connection.run(make, where, repeat=False)
    attach_file(connection, owner, path, number, _nothing, group, where, overwrite=overwrite)


def read_table(connection: Connection, file_id: int, where: str) -> pd.DataFrame:
    """A table as a data frame."""
    context = {"omero.group": "-1"}

    def act(live: Live) -> Any:
        resources = live.factory.sharedResources(context)
        file = omero.model.OriginalFileI(file_id, False)
        with _closing(resources.openTable(file, context)) as table:
            columns = list(range(len(table.getHeaders(context))))
            rows = table.getNumberOfRows(context)
            return [
                table.read(columns, start, min(start + ROWS, rows), context).columns
                for start in range(0, rows, ROWS)
            ]

    return _frame(connection.run(act, where))


@contextmanager
def _closing(table: Any) -> Iterator[Any]:
    try:
        yield table
    finally:
        with suppress(Ice.Exception):
            table.close()


def _nothing() -> None:
    """A table is written before it is attached."""


def _column(frame: pd.DataFrame, name: str, part: pd.DataFrame | None = None) -> Any:
    """A column of the table, with the values of `part` of the frame."""
    series = frame[name]
    values = [] if part is None else part[name].tolist()
    kind = series.dtype.kind
    if kind == "b":
        return omero.grid.BoolColumn(str(name), "", values)
    if kind in "iu":
        return omero.grid.LongColumn(str(name), "", values)
    if kind == "f":
        return omero.grid.DoubleColumn(str(name), "", values)
    texts = [value if isinstance(value, str) else "" for value in series.tolist()]
    size = max(1, *(len(text.encode()) for text in texts))
    chosen = [value if isinstance(value, str) else "" for value in values]
    return omero.grid.StringColumn(str(name), "", size, chosen)


def _frame(parts: list[list[Any]]) -> pd.DataFrame:
    import pandas as pd

    found: dict[str, Any] = {}
    for place, column in enumerate(parts[0] if parts else []):
        values = [value for part in parts for value in part[place].values]
        if isinstance(column, omero.grid.StringColumn):
            series = pd.Series(values, dtype=str)
            found[column.name] = series.mask(series == "")
        else:
            found[column.name] = values
    return pd.DataFrame(found)
