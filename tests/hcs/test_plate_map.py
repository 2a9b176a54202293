"""A plate map names wells of its plate, each once, as the plate names them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from polystore_flows.errors import MismatchError
from polystore_flows.hcs.layout import Layout
from polystore_flows.hcs.plate_map import checked_plate_map

PLATE = Layout.of(96)


@pytest.mark.parametrize(
    "table",
    [
        [{"row": "B", "column": 3, "drug": "x"}, {"row": "A", "column": 12, "drug": None}],
        {"Column": ["03", "12"], "Row": ["b", "A"], "drug": ["x", None]},
        pd.DataFrame({"row": ["B", "A"], "column": [3.0, 12.0], "drug": ["x", None]}, index=[7, 8]),
        [{"well": "B03", "drug": "x"}, {"well": "A/12", "drug": None}],
    ],
)
def test_it_is_sorted_and_has_the_plates_own_names(table: Any) -> None:
    made = checked_plate_map(table, PLATE, "here")
    assert list(made.index) == ["A/12", "B/3"]
    assert made[["row", "column"]].to_numpy().tolist() == [["A", "12"], ["B", "3"]]
    assert made.loc["B/3", "drug"] == "x"
    assert pd.isna(made.loc["A/12", "drug"])


def test_columns_that_a_plate_pads_stay_padded() -> None:
    padded = Layout(("A", "B"), ("01", "02", "03"))
    made = checked_plate_map([{"row": "B", "column": 3}], padded, "here")
    assert list(made.index) == ["B/03"]


def test_an_empty_map_is_a_map() -> None:
    assert checked_plate_map({"row": [], "column": []}, PLATE, "here").empty


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"row": "I", "column": 1}], "here: well I/1 is not on this plate: rows A to H"),
        ([{"row": "A", "column": 13}], "here: well A/13 is not on this plate"),
        ([{"row": "A", "column": "one"}], "here: well A/one is not on this plate"),
        ([{"row": "A", "column": 1}, {"row": "A", "column": "01"}], "here: A/1 is given more than"),
        ([{"row": "A", "col": 1}], "needs the columns row and column, or well; it has row, col"),
        ([{"well": "?"}], "here: '\\?' names no well"),
        ([], "it has none"),
    ],
)
def test_what_does_not_fit_is_refused(table: Any, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        checked_plate_map(table, PLATE, "here")
