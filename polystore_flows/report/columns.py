"""What is known of each well by name: measurements of tables, and the conditions of a plate map."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import api
from ..errors import NotFoundError, PolystoreError, UnsupportedError, URIError
from ..hcs.address import WellAddress, parse_well
from ..hcs.layout import Layout, row_name
from ..hcs.plate import Plate
from ..uri import BackendURI

if TYPE_CHECKING:
    import pandas as pd

Value = float | int | str

PLATE_MAP = re.compile(r"(plate[ _-]?map|conditions?)\.(csv|tsv)", re.IGNORECASE)
"""Names of tables that say what is in the wells."""

MOST_VALUES = 150_000
"""Wells × columns that a page takes; 100 columns of 1536 wells."""

_SUFFIXES = (".csv", ".tsv")
_WELL = re.compile(r"(metadata_)?well([ _]?(id|name|position))?", re.IGNORECASE)
_ROW = re.compile(r"(metadata_)?row", re.IGNORECASE)
_COLUMN = re.compile(r"(metadata_)?col(umn)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Column:
    """One value a well."""

    name: str
    source: str
    """Where it comes from: the table's path below the plate."""
    values: Mapping[str, Value]
    """Path of the well -> number or text; a well without a value is not in it."""
    note: str = ""
    """How several rows of a well became one value."""
    is_condition: bool = False
    """Whether a plate map says it, and not a measurement."""
    statistic: str = ""
    """Of the pixels of a channel, which is then the source: ``mean``."""

    @property
    def is_number(self) -> bool:
        """Whether all values are numbers."""
        return not any(isinstance(value, str) for value in self.values.values())


class TableReader:
    """Reads the tables of one plate; what cannot be read goes to `problems`."""

    def __init__(self, plate: Plate, uri: BackendURI) -> None:
        self._plate, self._uri = plate, uri
        self._places = _places(plate)
        self.problems: list[str] = []

    def read(self, pool: Executor, wanted: Sequence[str] = ()) -> list[Column]:
        """All columns, conditions first; measurements of the wells' tables only without others.

        Args:
            pool: reads the tables of wells.
            wanted: patterns of the measurements that are taken, ``area*``; all without.
        """
        columns: list[Column] = []
        for path in self._tables(""):
            columns += self._columns(path, self._load(path), bool(PLATE_MAP.fullmatch(_name(path))))
        if not any(not column.is_condition for column in columns):
            columns += self._of_wells(pool)
        conditions = [column for column in columns if column.is_condition]
        measured = [column for column in columns if not column.is_condition]
        if wanted:
            measured = [c for c in measured if any(fnmatchcase(c.name, w) for w in wanted)]
        return [*conditions, *self._few(measured)]

    def _of_wells(self, pool: Executor) -> list[Column]:
        """The tables of the wells, those of one name put together."""
        import pandas as pd

        parts: dict[str, list[pd.DataFrame]] = {}
        for well, paths in zip(self._plate, pool.map(self._tables, self._plate), strict=True):
            for path, frame in zip(paths, pool.map(self._load, paths), strict=True):
                if frame is not None and len(frame):
                    part = frame.loc[:, [not _WELL.fullmatch(str(c)) for c in frame.columns]]
                    parts.setdefault(f"tables/{_name(path)}", []).append(part.assign(well=well))
        return [
            column
            for name, frames in sorted(parts.items())
            for column in self._columns(f"*/*/{name}", pd.concat(frames, ignore_index=True), False)
        ]

    def _tables(self, well: str) -> list[str]:
        """Paths of the tables of the plate (``""``) or of a well."""
        folder = self._uri.join(well, "tables")
        try:
            found = api.list_files(folder, extensions=_SUFFIXES)
        except (NotFoundError, UnsupportedError):
            return []
        except (PolystoreError, OSError) as error:
            self.problems.append(str(error))
            return []
        return [f"{well}/tables/{_name(uri)}".lstrip("/") for uri in found]

    def _load(self, path: str) -> pd.DataFrame | None:
        import pandas as pd

        try:
            table = self._plate.read_table(path)
        except (PolystoreError, OSError) as error:
            self.problems.append(str(error))
            return None
        return table if isinstance(table, pd.DataFrame) else None

    def _columns(self, path: str, frame: pd.DataFrame | None, is_map: bool) -> list[Column]:
        """The columns of one table, one value a well."""
        if frame is None or not len(frame):
            return []
        keys, wells = self._wells(frame)
        if wells is None:
            return []  # not a table of wells
        lost = int(wells.isna().sum())
        if lost:
            rows = "1 row names" if lost == 1 else f"{lost} rows name"
            self.problems.append(f"{path}: {rows} no well of this plate")
        values = frame.drop(columns=keys)
        groups = values.groupby(wells, sort=False)
        rows_a_well = groups.size()
        if rows_a_well.empty:
            return []
        several = int(rows_a_well.max()) > 1
        columns = []
        if several:
            counts = {str(well): int(rows) for well, rows in rows_a_well.items()}
            columns.append(Column("rows", path, counts))
        for place, name in enumerate(values.columns):
            column = values.iloc[:, place]
            made = _summed_up(column, wells) if several else _plain(column, wells)
            if made:
                note = "mean of the well's rows" if several and _is_number(column) else ""
                columns.append(Column(str(name), path, made, note))
        return [replace(column, is_condition=is_map) for column in columns]

    def _wells(self, frame: pd.DataFrame) -> tuple[list[Any], pd.Series[Any] | None]:
        """The columns that name wells, and the path of each row's well."""
        by_name = {str(column): column for column in frame.columns}
        well = next((c for n, c in by_name.items() if _WELL.fullmatch(n)), None)
        row = next((c for n, c in by_name.items() if _ROW.fullmatch(n)), None)
        column = next((c for n, c in by_name.items() if _COLUMN.fullmatch(n)), None)
        keys = [c for c in (well, row, column) if c is not None]
        if well is not None:
            return keys, frame[well].map(_once(self._find))
        if row is None or column is None:
            return keys, None
        names = frame[row].map(_row) + "/" + frame[column].map(_whole)
        return keys, names.map(_once(self._find))

    def _find(self, text: object) -> str | None:
        try:
            return self._places.get(parse_well(str(text)))
        except URIError:
            return None

    def _few(self, columns: list[Column]) -> list[Column]:
        """As many columns as a page takes."""
        most = max(MOST_VALUES // max(len(self._plate), 1), 1)
        if len(columns) > most:
            self.problems.append(
                f"{len(columns) - most} of {len(columns)} measurements are left out to keep the "
                "page small; choose with --measure"
            )
        return columns[:most]


def _places(plate: Plate) -> dict[WellAddress, str]:
    """Every place of the grid -> the path by which the plate names it."""
    layout: Layout = plate.layout
    grid = {parse_well(f"{r}/{c}"): f"{r}/{c}" for r in layout.rows for c in layout.columns}
    return grid | {parse_well(path): path for path in plate.wells}


def _plain(column: pd.Series[Any], wells: pd.Series[Any]) -> dict[str, Value]:
    pairs = zip(wells, column, strict=True)
    return {well: v for well, cell in pairs if isinstance(well, str) for v in _values(cell)}


def _summed_up(column: pd.Series[Any], wells: pd.Series[Any]) -> dict[str, Value]:
    """Means of numbers; a text only where it is the same in all rows of a well."""
    if _is_number(column):
        return _plain(*_unzip(column.groupby(wells, sort=False).mean()))
    texts = column.groupby(wells, sort=False)
    return _plain(*_unzip(texts.first()[texts.nunique() == 1]))


def _unzip(series: pd.Series[Any]) -> tuple[pd.Series[Any], pd.Series[Any]]:
    return series, series.index.to_series()


def _is_number(column: pd.Series[Any]) -> bool:
    return column.dtype.kind in "iuf"


def _values(cell: object) -> Iterable[Value]:
    """The cell as a number or a text, or nothing where it is missing or infinite."""
    if isinstance(cell, bool | np.bool_):
        yield "yes" if cell else "no"
    elif isinstance(cell, str):
        if cell.strip():
            yield cell
    elif cell is not None:
        number = float(cell)  # type: ignore[arg-type]  # numpy's numbers
        if math.isfinite(number):
            yield int(number) if number.is_integer() and abs(number) < 2**53 else number


def _row(cell: object) -> str:
    """A row's letters; rows that are counted start from 1."""
    text = _whole(cell)
    return row_name(int(text) - 1) if text.isdecimal() and int(text) > 0 else text


def _whole(cell: object) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _once(function: Callable[[object], str | None]) -> Callable[[object], str | None]:
    """`function` with its answers kept: a table of cells names each well many times."""
    answers: dict[object, str | None] = {}

    def answer(key: object) -> str | None:
        if key not in answers:
            answers[key] = function(key)
        return answers[key]

    return answer
