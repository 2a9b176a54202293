"""Tables as CSV and TSV that come back with the types they had.

A cell in quotes is text, so ours quote every text cell of a table in which some text looks like
a number, a truth value or a missing one (``"03"``, ``"1e5"``, ``"NA"``): the columns ``well``,
``row`` and ``column`` stay text. In files of others, a column is numeric only if all its cells
are numbers without leading zeros. An empty cell is a missing value, also where it was "". The
index is not written; dates come back as text.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import MismatchError

if TYPE_CHECKING:
    import pandas as pd

_INTEGER = r"-?(?:0|[1-9][0-9]*)"
_FLOAT = r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf"
_MISSING = ("", "nan", "NaN", "NA", "N/A", "NULL", "null", "None", "<NA>")
_TRUTH = {"True": True, "False": False, "TRUE": True, "FALSE": False}
_LIKE_VALUE = re.compile(
    "|".join(
        [r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?", _FLOAT, *map(re.escape, (*_MISSING[1:], *_TRUTH))]
    )
)
_MARK = "\x1f"  # put into quoted cells while pandas reads, which cannot tell them


def encode_table(data: Any, suffix: str) -> bytes:
    """A DataFrame, a list of rows as dicts or a dict of columns as CSV or TSV."""
    frame = _frame(data)
    texts = [frame[c] for c in frame.columns if frame[c].dtype.kind not in "iufb"]
    # The csv module does not quote a lone \r by itself, and pandas drops a line of white space.
    tricky = any(
        isinstance(cell, str) and (_LIKE_VALUE.fullmatch(cell) or "\r" in cell or cell.isspace())
        for column in texts
        for cell in column
    )
    text = frame.to_csv(
        index=False,
        sep=_separator(suffix),
        lineterminator="\n",
        quoting=csv.QUOTE_NONNUMERIC if tricky else csv.QUOTE_MINIMAL,
    )
    return text.encode()


def decode_table(data: bytes, suffix: str) -> pd.DataFrame:
    """A CSV or TSV as a DataFrame."""
    import pandas as pd

    text, separator = data.decode("utf-8-sig"), _separator(suffix)
    if "\0" in text:
        raise ValueError("it holds NUL bytes")
    if not text.strip():
        return pd.DataFrame()
    quoted = re.compile(
        rf'(?<![^{separator}\r\n])"({_LIKE_VALUE.pattern})"(?=[{separator}\r\n]|\Z)'
    )
    head, line, rows = text.partition("\n")
    text = head + line + quoted.sub(rf'"{_MARK}\1"', rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(
            io.StringIO(text, newline=""),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            index_col=False,
        )
    return frame.apply(_typed) if len(frame) else frame


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    import numpy as np

    if column.str.startswith(_MARK).any():
        return column.str.removeprefix(_MARK).mask(column == "")
    missing = column.isin(_MISSING)
    known = column[~missing]
    if not len(known):
        return column.mask(missing).astype(float)
    if known.str.fullmatch(_INTEGER).all() and not missing.any():
        try:
            return column.astype(np.int64)
        except (ValueError, OverflowError):
            return column
    if known.str.fullmatch(_FLOAT).all():
        return column.mask(missing, "nan").astype(float)
    if known.isin(list(_TRUTH)).all() and not missing.any():
        return column.map(_TRUTH).astype(bool)
    return column.mask(column == "")


def _frame(data: Any) -> pd.DataFrame:
    import pandas as pd

    rows = isinstance(data, list | tuple) and all(isinstance(row, Mapping) for row in data)
    if not isinstance(data, pd.DataFrame) and not isinstance(data, Mapping) and not rows:
        raise MismatchError(
            f"a table is a DataFrame, a list of dicts or a dict of columns, not "
            f"{type(data).__name__}"
        )
    frame = pd.DataFrame(data)
    if not frame.columns.is_unique:
        raise MismatchError("two columns have one name")
    return frame


def _separator(suffix: str) -> str:
    return "\t" if suffix == ".tsv" else ","
