"""Addresses below a plate: every form is understood, and a path is split where the plate ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import polystore_flows as ps
from polystore_flows.errors import URIError
from polystore_flows.hcs import plate
from polystore_flows.hcs.address import (
    Address,
    PlaneSelection,
    WellAddress,
    parse_address,
    parse_planes,
    parse_well,
    plane_file_name,
    split_plate_path,
)

B3 = WellAddress("B", "3")


@pytest.mark.parametrize("text", ["B/3", "B/03", "B/003", "B3", "B03", "b3", "b/03", "/B/03/"])
def test_padded_and_unpadded_names_are_one_well(text):
    assert parse_well(text) == B3
    assert str(parse_well(text)) == "B/3"


@pytest.mark.parametrize(
    ("text", "row", "column"),
    [
        ("AF/48", "AF", "48"),
        ("A/100", "A", "100"),
        ("row1/col2", "row1", "col2"),
        ("B/0", "B", "0"),
    ],
)
def test_names_that_ngff_allows_are_wells(text, row, column):
    assert parse_well(text) == WellAddress(row, column)


@pytest.mark.parametrize("text", ["", "B", "3", "B/", "/3", "B/3/0", "B-3", "B/ 3", "..", "µ/1"])
def test_what_names_no_well_is_refused(text):
    with pytest.raises(URIError, match="well"):
        parse_well(text)


@pytest.mark.parametrize(
    ("inner", "expected", "kind"),
    [
        ("", Address(), "plate"),
        ("/", Address(), "plate"),
        ("B/3", Address(B3), "well"),
        ("B/03/0", Address(B3, "0"), "field"),
        ("B/03/0/labels/nuclei", Address(B3, "0", "nuclei"), "label"),
        ("B/03/0/labels/my nuclei-2.1", Address(B3, "0", "my nuclei-2.1"), "label"),
        ("tables/counts.csv", Address(file="tables/counts.csv"), "file"),
        ("B/03/tables/cells.CSV", Address(file="B/03/tables/cells.CSV"), "file"),
        ("a.json", Address(file="a.json"), "file"),
        ("deep/in/there/a.txt", Address(file="deep/in/there/a.txt"), "file"),
        ("a.tsv", Address(file="a.tsv"), "file"),
    ],
)
def test_every_address_is_understood(inner, expected, kind):
    assert parse_address(inner) == expected
    assert parse_address(inner).kind == kind


@pytest.mark.parametrize(
    "inner",
    ["B", "B/3/0/labels", "B/3/0/nuclei", "B/3/0/labels/a/b", "B/3/0/labels/", "a.tif", "B/3/a b",
     "B/3/0.tif", "..", "B/../3", "a/../b.csv", "B/3/0/labels/µ", "B/3/0/tables/x"],
)  # fmt: skip
def test_what_names_nothing_in_a_plate_is_refused(inner):
    with pytest.raises(URIError) as caught:
        parse_address(inner)
    assert "\n" not in str(caught.value)


def test_a_plane_is_selected_by_index_or_channel_name():
    address = parse_address("B/03/0", [("c", "DAPI"), ("z", "3"), ("t", "0")])
    assert address.planes == PlaneSelection(t=0, c="DAPI", z=3)
    assert address.planes.is_plane
    assert not parse_address("B/3/0", [("c", "1")]).planes.is_plane
    assert parse_planes([("c", "1")]).c == 1
    assert parse_planes([("level", "2")]).level == 2
    assert parse_address("B/3/0").planes.is_all
    assert not parse_planes([("level", "2")]).is_all


@pytest.mark.parametrize(
    "query",
    [
        [("y", "1")],
        [("c", "")],
        [("z", "a")],
        [("z", "-1")],
        [("t", "1"), ("t", "2")],
        [("t", "1.0")],
        [("level", "low")],
        [("", "")],
    ],
)
def test_a_selection_that_selects_nothing_is_refused(query):
    with pytest.raises(URIError):
        parse_planes(query)


@pytest.mark.parametrize("inner", ["", "B/3", "tables/a.csv"])
def test_only_fields_and_labels_have_planes(inner):
    with pytest.raises(URIError, match="planes"):
        parse_address(inner, [("z", "1")])
    assert parse_address("B/3/0/labels/n", [("z", "1")]).planes.z == 1


@pytest.mark.parametrize(
    ("name", "field", "planes"),
    [
        ("B03_s001_w1_z001_t001.tif", "0", PlaneSelection(t=0, c=0, z=0)),
        ("B03_s012_w3_z004_t005.tiff", "11", PlaneSelection(t=4, c=2, z=3)),
        ("B03_s1_w2.tif", "0", PlaneSelection(t=0, c=1, z=0)),
        ("B03_s1_w2_z3.ome.tif", "0", PlaneSelection(t=0, c=1, z=2)),
    ],
)
def test_openhcs_file_names_are_one_based_planes(name, field, planes):
    assert parse_address(name) == Address(B3, field, planes=planes)


@pytest.mark.parametrize(
    "name", ["B03_s000_w1_z001_t001.tif", "B03_s001_w0_z001_t001.tif", "B03_s001_w1_z000_t001.tif"]
)
def test_a_file_name_that_counts_from_zero_is_refused(name):
    """Taken as it is, it would be the last plane."""
    with pytest.raises(URIError, match="counted from 1"):
        parse_address(name)


@given(st.integers(0, 31), st.integers(1, 48), *(st.integers(0, 1200) for _ in range(4)))
def test_the_file_name_of_a_plane_parses_to_that_plane(row, column, field, c, z, t):
    from polystore_flows.hcs.layout import row_name

    well = WellAddress(row_name(row), str(column))
    found = parse_address(plane_file_name(well, field, c, z, t))
    assert found == Address(well, str(field), planes=PlaneSelection(t=t, c=c, z=z))


@given(
    st.from_regex(r"[A-Z]{1,2}", fullmatch=True),
    st.integers(1, 99),
    st.none() | st.from_regex(r"[A-Za-z0-9]{1,4}", fullmatch=True),
    st.none() | st.from_regex(r"[A-Za-z0-9_.-]{1,6}", fullmatch=True),
)
def test_the_text_of_an_address_parses_to_it(row, column, field, label):
    if field is None:
        label = None
    if label is not None and label.lower().endswith((".json", ".csv", ".tsv", ".txt")):
        return
    address = Address(WellAddress(row, str(column)), field, label)
    if label in (".", ".."):
        return
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("path", "plate", "inner"),
    [
        ("/data/p.zarr", "/data/p.zarr", ""),
        ("/data/p.zarr/B/03/0", "/data/p.zarr", "B/03/0"),
        ("/data/p.ZARR/tables/a.csv", "/data/p.ZARR", "tables/a.csv"),
        ("/data/p.zarr/any/thing", "/data/p.zarr", "any/thing"),
        ("p.zarr/B/3", "p.zarr", "B/3"),
        ("/raw/plate1", "/raw/plate1", ""),
        ("/raw/plate1/B/03/0", "/raw/plate1", "B/03/0"),
        ("/raw/plate1/B/03/0/labels/nuclei", "/raw/plate1", "B/03/0/labels/nuclei"),
        ("/raw/plate1/tables/a.csv", "/raw/plate1", "tables/a.csv"),
        ("/raw/plate1/B03_s001_w1_z001_t001.tif", "/raw/plate1", "B03_s001_w1_z001_t001.tif"),
        ("/raw/plate1/image.tif", "/raw/plate1/image.tif", ""),
        ("raw/plate1/B/3", "raw/plate1", "B/3"),
    ],
)
def test_a_path_is_split_where_its_plate_ends(path, plate, inner):
    assert split_plate_path(path) == (plate, inner)


@pytest.mark.parametrize(
    ("path", "plate"),
    [
        ("/data/B/2024-05-01/plate1/B/03/0", "/data/B/2024-05-01/plate1"),
        ("/data/X/123/plate1/B/03/0", "/data/X/123/plate1"),
        ("/data/A/1/plate1/B/03/0", "/data/A/1/plate1"),
        ("/tables/raw/plate1/B/03/0", "/tables/raw/plate1"),
    ],
)
def test_a_folder_above_the_plate_that_looks_like_a_well_does_not_end_it(path, plate):
    """Labs sort plates by letters, numbers and dates."""
    assert split_plate_path(path) == (plate, "B/03/0")


def test_a_plate_reads_the_addresses_of_its_wells_once(monkeypatch):
    """Else a loop over its wells takes a time with the square of their number."""
    parsed = []
    monkeypatch.setattr(plate, "parse_well", lambda well: parsed.append(well) or parse_well(well))
    made = ps.create_plate("memory://addresses/plate", layout=96)
    for column in range(1, 13):
        made.write_image(f"B/{column}", 0, [[column]])
    opened = ps.open_plate("memory://addresses/plate")
    parsed.clear()
    for _ in range(10):
        assert [opened[well].path for well in opened.wells] == list(opened.wells)
    assert 120 <= len(parsed) <= 132
