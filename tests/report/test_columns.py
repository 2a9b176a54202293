"""Tables become one value a well, whatever shape they have; what is wrong is said, not raised."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import polystore_flows as ps
from polystore_flows.report import columns
from polystore_flows.report.columns import TableReader
from polystore_flows.uri import parse_uri


@pytest.fixture
def read(tmp_path_factory, make_plate):
    """Write tables to a plate and read them back as columns."""

    def call(tables, *wanted):
        plate = make_plate(tmp_path_factory.mktemp("plate"), tables=tables)
        reader = TableReader(plate, parse_uri(plate.uri))
        with ThreadPoolExecutor(2) as pool:
            found = reader.read(pool, wanted)
        return {column.name: column for column in found}, reader.problems

    return call


@pytest.mark.parametrize(
    "rows",
    [
        [{"well": "A/1", "n": 1}, {"well": "B/01", "n": 2}],
        [{"Metadata_Well": "A01", "n": 1}, {"Metadata_Well": "b1", "n": 2}],
        [{"row": "A", "column": 1, "n": 1}, {"row": "B", "column": 1, "n": 2}],
        [{"Row": 1, "Col": 1, "n": 1}, {"Row": 2, "Col": 1, "n": 2}],
    ],
)
def test_a_table_names_its_wells_in_many_ways(read, rows):
    found, problems = read({"tables/t.csv": rows})
    assert found["n"].values == {"A/1": 1, "B/1": 2}
    assert (set(found), problems) == ({"n"}, [])


def test_several_rows_of_a_well_are_counted_and_averaged(read):
    """A table of cells; a text counts only where all cells of the well have the same."""
    rows = [
        {"well": "A/1", "area": 10.0, "phase": "G1", "drug": "a"},
        {"well": "A/1", "area": 20.0, "phase": "S", "drug": "a"},
        {"well": "A/2", "area": 5.0, "phase": "S", "drug": "b"},
    ]
    found, _ = read({"tables/cells.csv": rows})
    assert found["rows"].values == {"A/1": 2, "A/2": 1}
    assert found["area"].values == {"A/1": 15, "A/2": 5}
    assert found["area"].note == "mean of the well's rows"
    assert found["phase"].values == {"A/2": "S"}
    assert found["drug"].values == {"A/1": "a", "A/2": "b"}


def test_missing_and_infinite_values_are_no_values(read):
    rows = [
        {"well": "A/1", "n": float("nan"), "text": ""},
        {"well": "A/2", "n": float("inf"), "text": "x"},
        {"well": "B/1", "n": 1.5, "text": "NA"},
    ]
    found, _ = read({"tables/t.csv": rows})
    assert found["n"].values == {"B/1": 1.5}
    assert found["n"].is_number
    assert found["text"].values == {"A/2": "x", "B/1": "NA"}
    assert not found["text"].is_number


def test_truth_values_become_words(read):
    found, _ = read({"tables/t.csv": [{"well": "A/1", "ok": True}, {"well": "A/2", "ok": False}]})
    assert found["ok"].values == {"A/1": "yes", "A/2": "no"}


def test_rows_of_wells_that_the_plate_does_not_have_are_reported(read):
    rows = [{"well": "A/1", "n": 1}, {"well": "Q/77", "n": 2}, {"well": "sum", "n": 3}]
    found, problems = read({"tables/t.csv": rows})
    assert found["n"].values == {"A/1": 1}
    assert problems == ["tables/t.csv: 2 rows name no well of this plate"]


def test_a_table_that_names_no_wells_is_left_out(read):
    found, problems = read({"tables/t.csv": [{"channel": "DAPI", "gain": 2}]})
    assert (found, problems) == ({}, [])


def test_a_broken_table_is_a_problem_and_the_others_are_read(tmp_path, make_plate):
    plate = make_plate(tmp_path)
    (plate.root / "tables" / "broken.csv").write_bytes(b"a\0b")
    reader = TableReader(plate, parse_uri(plate.uri))
    with ThreadPoolExecutor(1) as pool:
        found = reader.read(pool)
    assert [column.name for column in found] == ["nuclei"]
    assert len(reader.problems) == 1
    assert "broken.csv" in reader.problems[0]


def test_the_plate_map_comes_first_and_is_told_from_measurements(read):
    counts = [{"well": "A/1", "n": 1}]
    conditions = [{"row": "A", "column": 1, "drug": "x"}, {"row": "B", "column": 3, "drug": "y"}]
    found, _ = read({"tables/counts.csv": counts, "tables/Plate_Map.csv": conditions})
    assert list(found) == ["drug", "n"]
    assert found["drug"].is_condition
    assert found["drug"].values == {"A/1": "x", "B/3": "y"}
    assert not found["n"].is_condition


def test_without_a_table_of_the_plate_those_of_its_wells_are_put_together(read):
    tables = {
        "A/1/tables/cells.csv": [{"label": 1, "area": 4.0}, {"label": 2, "area": 6.0}],
        "B/1/tables/cells.csv": [{"label": 1, "area": 7.0}],
        "tables/conditions.csv": [{"well": "A/1", "drug": "x"}],
    }
    found, problems = read(tables)
    assert found["area"].values == {"A/1": 5, "B/1": 7}
    assert found["rows"].values == {"A/1": 2, "B/1": 1}
    assert found["drug"].is_condition
    assert problems == []


def test_measurements_can_be_chosen_and_too_many_are_left_out(read, monkeypatch):
    """3 wells × 2 columns are as much as the page takes here."""
    monkeypatch.setattr(columns, "MOST_VALUES", 6)
    rows = [{"well": "A/1"} | {f"m{i}": i for i in range(5)}]
    found, problems = read({"tables/t.csv": rows})
    assert list(found) == ["m0", "m1"]
    assert "3 of 5 measurements are left out" in problems[0]
    found, problems = read({"tables/t.csv": rows}, "m4")
    assert (list(found), problems) == (["m4"], [])


def test_a_plate_without_tables_has_no_columns(read):
    assert read({}) == ({}, [])


def test_tables_of_a_folder_of_images_are_read(tmp_path, make_plate):
    """On another backend, by the same address."""
    plate = make_plate(tmp_path)
    ps.copy(plate.uri, f"disk:{tmp_path}/folder")
    copy = ps.open_plate(f"disk:{tmp_path}/folder")
    with ThreadPoolExecutor(1) as pool:
        found = TableReader(copy, parse_uri(copy.uri)).read(pool)
    assert [(column.name, len(column.values)) for column in found] == [("nuclei", 3)]
