"""The plate map: what was done to each well, as a table of row, column and any columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MismatchError, URIError
from .address import parse_well
from .layout import Layout

if TYPE_CHECKING:
    import pandas as pd

PLATE_MAP = "tables/conditions.csv"
"""Where a plate keeps its map."""


def checked_plate_map(table: Any, layout: Layout, where: str) -> pd.DataFrame:
    """A plate map with the plate's own names of rows and columns, sorted by well.

    Args:
        table: a data frame, a list of rows as dicts or a dict of columns, with the columns
            ``row`` and ``column`` (or ``well``: ``B03``, ``B/3``); one row for a well.
        layout: of the plate.
        where: begins every error.

    Returns:
        ``row``, ``column``, then all others, by ``row/column``.

    Raises:
        MismatchError: a column is missing, or a well lies outside the plate or is given twice.
    """
    import pandas as pd

    frame = pd.DataFrame(table)
    names = {str(name).lower(): name for name in frame.columns}
    if {"row", "column"} <= set(names):
        used = [names["row"], names["column"]]
        wells = [f"{_plain(r)}/{_plain(c)}" for r, c in frame[used].itertuples(index=False)]
    elif "well" in names:
        used = [names["well"]]
        wells = [str(well) for well in frame[used[0]]]
    else:
        raise MismatchError(
            f"{where}: a plate map needs the columns row and column, or well; it has "
            f"{', '.join(map(str, frame.columns)) or 'none'}"
        )
    places = []
    for well in wells:
        try:
            place = layout.find(parse_well(well))
        except URIError as error:
            raise MismatchError(f"{where}: {error}") from error
        if place is None:
            raise MismatchError(
                f"{where}: well {well} is not on this plate: rows {layout.rows[0]} to "
                f"{layout.rows[-1]}, columns {layout.columns[0]} to {layout.columns[-1]}"
            )
        places.append(place)
    rows = [layout.rows[row] for row, _ in places]
    columns = [layout.columns[column] for _, column in places]
    rest = frame.drop(columns=used).reset_index(drop=True)
    checked = pd.concat([pd.DataFrame({"row": rows, "column": columns}), rest], axis=1)
    paths = [f"{row}/{column}" for row, column in zip(rows, columns, strict=True)]
    checked.index = pd.Index(paths, name="well")
    twice = checked.index[checked.index.duplicated()].unique()
    if len(twice):
        raise MismatchError(f"{where}: {', '.join(twice[:8])} is given more than once")
    return checked.iloc[sorted(range(len(places)), key=lambda i: places[i])]


def _plain(name: Any) -> str:
    """A cell as the name of a row or column: tables tend to make ``3.0`` of ``3``."""
    whole = isinstance(name, float) and name.is_integer()
    return str(int(name)) if whole else str(name).strip()
