"""Layouts: the grids of real plates, their names, and batches of wells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polystore_flows.errors import AddressError
from polystore_flows.hcs.address import WellAddress, parse_well
from polystore_flows.hcs.layout import SIZES, Layout, batches, row_name


@pytest.mark.parametrize(
    ("wells", "last"),
    [
        (6, "B/3"),
        (12, "C/4"),
        (24, "D/6"),
        (48, "F/8"),
        (96, "H/12"),
        (384, "P/24"),
        (1536, "AF/48"),
    ],
)
def test_a_standard_plate_has_the_wells_of_its_maker(wells, last):
    layout = Layout.of(wells)
    assert layout.size == wells
    assert f"{layout.rows[-1]}/{layout.columns[-1]}" == last
    assert layout.rows[0] == "A"
    assert layout.columns[0] == "1"


def test_no_other_number_of_wells_is_a_plate():
    with pytest.raises(AddressError, match="6, 12, 24, 48, 96, 384, 1536"):
        Layout.of(100)


def test_rows_go_on_after_z():
    assert [row_name(i) for i in (0, 25, 26, 31, 51, 52, 701, 702)] == [
        "A", "Z", "AA", "AF", "AZ", "BA", "ZZ", "AAA"
    ]  # fmt: skip


def test_an_index_counts_over_the_grid_of_the_plate_not_over_the_wells_present():
    assert Layout.of(384).find(parse_well("C/07")) == (2, 6)
    assert Layout.of(96).find(parse_well("H12")) == (7, 11)
    assert Layout.of(96).find(parse_well("I/1")) is None
    assert Layout.of(96).find(parse_well("A/13")) is None
    assert Layout.of(96).find(WellAddress("A", "0")) is None


def test_a_path_uses_the_names_of_the_grid_padded_or_not():
    padded = Layout(("A", "B"), ("01", "02", "03"))
    assert padded.path(parse_well("B/3")) == "B/03"
    assert Layout.of(6).path(parse_well("B/03")) == "B/3"


def test_a_well_outside_is_told_with_the_grid():
    with pytest.raises(AddressError, match="rows A to H, columns 1 to 12"):
        Layout.of(96).path(parse_well("P/24"))


@given(st.sampled_from(sorted(SIZES)), st.data())
def test_every_well_of_a_grid_is_found_where_it_is(wells, data):
    layout = Layout.of(wells)
    row = data.draw(st.integers(0, len(layout.rows) - 1))
    column = data.draw(st.integers(0, len(layout.columns) - 1))
    well = parse_well(f"{layout.rows[row]}/{column + 1:02d}")
    assert layout.find(well) == (row, column)
    assert layout.path(well) == f"{layout.rows[row]}/{layout.columns[column]}"


@pytest.mark.parametrize(
    ("wells", "size"),
    [
        ([], 6),
        (["A1"], 6),
        (["B/3"], 6),
        (["C/1"], 12),
        (["H12"], 96),
        (["A1", "P24"], 384),
        (["AF48"], 1536),
    ],
)
def test_the_smallest_grid_around_some_wells_is_chosen(wells, size):
    assert Layout.around(map(parse_well, wells)).size == size


@pytest.mark.parametrize("outside", ["AG/1", "A/49", "row1/col1"])
def test_a_well_outside_every_plate_is_told(outside):
    with pytest.raises(AddressError, match="1536"):
        Layout.around([parse_well("A1"), parse_well(outside)])


def test_batches_keep_order_and_lose_nothing():
    assert batches(list("abcde"), 2) == [("a", "b"), ("c", "d"), ("e",)]
    assert batches([], 3) == []
    assert batches([1], 5) == [(1,)]
    with pytest.raises(ValueError, match="at least one"):
        batches([1], 0)
