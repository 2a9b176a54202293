"""File-name patterns of microscopes, on names alone."""

from __future__ import annotations

import io
import re

import pytest

from polystore_flows.errors import AmbiguousPlateError, UnknownLayoutError, URIError
from polystore_flows.hcs.address import WellAddress
from polystore_flows.hcs.vendors import (
    VENDORS,
    PlaneFile,
    VendorPattern,
    expected_path,
    index_planes,
    match_files,
    read_harmony_index,
    read_htd,
    user_pattern,
)

GUID = "E75611A2-A874-4065-BDAC-EE2467105EEB"


def only(path: str, pattern: str | None = None) -> PlaneFile:
    _, planes, _ = match_files([path], pattern)
    assert len(planes) == 1
    return planes[0]


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda v: v.name)
def test_the_example_of_a_vendor_is_recognised_as_that_vendors(vendor: VendorPattern) -> None:
    found, planes, ignored = match_files([vendor.example])
    assert found is vendor
    assert (len(planes), ignored) == (1, [])
    assert "http" in vendor.source


@pytest.mark.parametrize(
    ("path", "well", "field", "channel", "z", "t"),
    [
        ("A01_s1_w2.tif", "A/1", 1, "w2", 1, 1),
        ("A01_s1_w2_z3.tif", "A/1", 1, "w2", 3, 1),
        ("A01_w2.tif", "A/1", 1, "w2", 1, 1),
        ("A01_s4.TIF", "A/1", 4, "w1", 1, 1),
        ("Plate 7_P24.tif", "P/24", 1, "w1", 1, 1),
        (f"val screen_B02_s1_w3{GUID}.tif", "B/2", 1, "w3", 1, 1),
        (f"val_B02_s1_w1{GUID.replace('E7', '12')}.tif", "B/2", 1, "w1", 1, 1),
        ("A01_AF48_s1_w1.tif", "AF/48", 1, "w1", 1, 1),
        ("TimePoint_2/P_C05_s3_w1.TIF", "C/5", 3, "w1", 1, 2),
        ("TimePoint_12/ZStep_7/P_C05_s3_w1.TIF", "C/5", 3, "w1", 7, 12),
        ("2020-01-01/8/TimePoint_1/ZStep_2/P_C05_w1.TIF", "C/5", 1, "w1", 2, 1),
        ("r02c13f04p05-ch6sk7fk1fl1.tiff", "B/13", 4, "ch6", 5, 7),
        ("Images/r16c24f144p05-ch3.tiff", "P/24", 144, "ch3", 5, 1),
        ("AssayPlate_Greiner_#655090_C02_T0003F012L01A02Z04C03.tif", "C/2", 12, "A02_C03", 4, 3),
        ("A01_T0001F001L01A01Z01C01.png", "A/1", 1, "A01_C01", 1, 1),
        ("B03_s012_w2_z003_t004.tif", "B/3", 12, "w2", 3, 4),
        ("B03_s012_w2_z003_t004.ome.tif", "B/3", 12, "w2", 3, 4),
    ],
)
def test_a_name_says_which_plane_it_is(
    path: str, well: str, field: int, channel: str, z: int, t: int
) -> None:
    row, column = well.split("/")
    assert only(path) == PlaneFile(path, WellAddress(row, column), field, channel, z, t)


@pytest.mark.parametrize(
    "name",
    [
        "Q01_s1_w1x.tif",  # neither form
        "overview.tif",
        "ZZ01_s1_w1.tif",  # a row that no plate has
        "A49_s1_w1.tif",  # nor a column
        "A00_s1_w1.tif",
        "r00c01f01p01-ch1sk1fk1fl1.tiff",
        "slide12_s1_w1_z1_t1_q1.tif",
    ],
)
def test_other_names_fit_no_vendor(name: str) -> None:
    with pytest.raises(UnknownLayoutError, match=re.escape(name)):
        match_files([name])


def test_known_companions_are_passed_over_in_silence() -> None:
    companions = [
        "plate.HTD",
        "Index.idx.xml",
        "MeasurementData.mlf",
        "counts.csv",
        f"A01_s1_w1_thumb{GUID}.tif",
        "thumbnails/A01_s1_w1.tif",
        "._A01_s1_w1.tif",
        ".cache/A01_s1_w1.tif",
        "DC_Andor #1_CAM1.tif",
        "SC_BP445-45_40x_M10_CH01.tif",
    ]
    _, planes, ignored = match_files(["A01_s1_w1.tif", *companions])
    assert [plane.path for plane in planes] == ["A01_s1_w1.tif"]
    assert ignored == []


def test_a_plate_may_be_named_like_a_correction_image() -> None:
    """Only what fits no plane is taken for a companion."""
    assert only("SC_plate_A01_T0001F001L01A01Z01C01.tif").well == WellAddress("A", "1")


def test_stray_images_are_left_out_and_reported() -> None:
    names = ["A01_s1_w1.tif", "A01_s1_w2.tif", "whole plate.tif", "overview_B02.tif"]
    _, planes, ignored = match_files(names)
    assert [plane.path for plane in planes] == names[:2]
    assert ignored == names[2:]


def test_the_projection_beside_a_stack_is_no_plane_of_it() -> None:
    """MetaXpress writes the maximum projection to ZStep_0."""
    stack = [f"TimePoint_1/ZStep_{z}/P_A01_w1.tif" for z in (0, 1, 2)]
    _, planes, ignored = match_files(stack)
    assert ([p.z for p in planes], ignored) == ([1, 2], stack[:1])
    assert only(stack[0]).z == 0, "alone it is all there is"


def test_the_vendor_that_fits_most_files_is_taken() -> None:
    phenix = [f"Images/r01c0{c}f01p01-ch1sk1fk1fl1.tiff" for c in (1, 2, 3)]
    vendor, planes, ignored = match_files([*phenix, "A01_s1_w1.tif"])
    assert (vendor.name, len(planes), ignored) == ("phenix", 3, ["A01_s1_w1.tif"])
    vendor, planes, _ = match_files([*phenix, "A01_s1_w1.tif"], "ImageXpress")
    assert (vendor.name, len(planes)) == ("imagexpress", 1)


def test_an_unknown_folder_names_what_was_tried_and_three_files() -> None:
    names = [f"scan-{i}.tif" for i in range(5)]
    with pytest.raises(UnknownLayoutError) as caught:
        match_files(names)
    text = str(caught.value)
    assert all(vendor.example in text for vendor in VENDORS)
    assert all(name in text for name in names[:3])
    assert names[3] not in text
    assert "?pattern=" in text


def test_two_files_for_one_plane_are_both_named() -> None:
    with pytest.raises(AmbiguousPlateError) as caught:
        match_files(["P1_A01_s1_w1.tif", "P1_A01_s1_w2.tif", "P2_A01_s1_w1.tif"])
    assert "P1_A01_s1_w1.tif" in str(caught.value)
    assert "P2_A01_s1_w1.tif" in str(caught.value)


def test_indices_count_what_the_whole_plate_has() -> None:
    """Field k is the same site in every well, though a well may lack it."""
    names = [
        "r01c01f03p02-ch2sk1fk1fl1.tiff",
        "r01c01f07p02-ch10sk1fk1fl1.tiff",
        "r02c01f07p04-ch2sk3fk1fl1.tiff",
    ]
    index = index_planes(match_files(names)[1])
    assert (index.fields, index.zs, index.ts) == ((3, 7), (2, 4), (1, 3))
    assert index.channels == ("ch2", "ch10"), "sorted by number, not by text"
    assert sorted(index.wells[WellAddress("A", "1")]) == [0, 1]
    assert index.wells[WellAddress("B", "1")] == {1: {(1, 0, 1): names[2]}}


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        (
            ["Images/r01c01f01p01-ch1sk1fk1fl1.tiff", "Images/r02c01f01p02-ch3sk2fk1fl1.tiff"],
            "Images/r01c01f01p02-ch3sk2fk1fl1.tiff",
        ),
        (
            ["TimePoint_1/ZStep_1/P_A01_w1.tif", "TimePoint_2/ZStep_10/P_A02_w2.tif"],
            "TimePoint_2/ZStep_10/P_A01_w2.tif",
        ),
        (
            ["P_A01_T0001F001L01A01Z01C01.tif", "P_A02_T0002F001L01A02Z02C03.tif"],
            "P_A01_T0002F001L01A02Z02C03.tif",
        ),
    ],
)
def test_the_name_of_a_missing_plane_is_made_up_from_its_neighbours(
    there: list[str], missing: str
) -> None:
    vendor, planes, _ = match_files(there)
    index = index_planes(planes)
    assert expected_path(vendor, index, planes[0].well, 0, 1, 1, 1) == missing


def test_a_users_pattern_takes_row_and_column_or_well() -> None:
    _, planes, ignored = match_files(
        ["exp/b-3-DAPI-5.tif", "exp/B-04-GFP-5.tif", "notes.tif"],
        r"(?P<row>[a-zA-Z])-(?P<column>\d+)-(?P<channel>\w+)-(?P<z>\d+)",
    )
    assert [(str(p.well), p.channel, p.z) for p in planes] == [
        ("B/3", "DAPI", 5),
        ("B/4", "GFP", 5),
    ]
    assert ignored == ["notes.tif"]
    assert str(only("2_11.tif", r"(?P<row>\d+)_(?P<column>\d+)").well) == "B/11"
    assert str(only("C07.png", r"^(?P<well>...)").well) == "C/7"


def test_a_channel_is_never_named_by_a_bare_number() -> None:
    """In a URI ``c=1`` is the second channel."""
    assert only("A01_488.tif", r"(?P<well>A01)_(?P<channel>\d+)").channel == "ch488"


@pytest.mark.parametrize(
    ("regex", "fault"),
    [
        ("(", "no regular expression"),
        (r"(?P<field>\d)", "names no well"),
        (r"(?P<row>\d)", "names no well"),
        (r"(?P<well>.)(?P<site>\d)", "unknown group 'site'"),
    ],
)
def test_a_wrong_pattern_is_the_users_fault(regex: str, fault: str) -> None:
    with pytest.raises(URIError, match=fault):
        user_pattern(regex)


def test_a_pattern_that_fits_nothing_is_named() -> None:
    with pytest.raises(UnknownLayoutError, match=re.escape(r"X(?P<well>\w+)")):
        match_files(["A01_s1_w1.tif"], r"X(?P<well>\w+)")


def test_an_htd_file_tells_channels_and_grid() -> None:
    told = read_htd(
        '"HTSInfoFile", Version 1.0\r\n"XWells", 24\r\n"YWells", 16\r\n"NWavelengths", 2\r\n'
        '"WaveName1", "DAPI"\r\n"WaveName2", "FITC 2"\r\n"WaveCollect1", 1\r\n"EndFile"\r\n'
    )
    assert (told.channels, told.grid) == ({1: "DAPI", 2: "FITC 2"}, (16, 24))


HARMONY_5 = """<?xml version="1.0" encoding="utf-8"?>
<EvaluationInputData xmlns="http://www.perkinelmer.com/PEHH/HarmonyV5" Version="1">
<Plates><Plate><PlateRows>16</PlateRows><PlateColumns>24</PlateColumns></Plate></Plates><Images>
<Image Version="1"><Row>2</Row><Col>3</Col><FieldID>1</FieldID><PlaneID>1</PlaneID>
<ChannelID>1</ChannelID><ChannelName>HOECHST 33342</ChannelName>
<ImageResolutionX Unit="m">6.5E-07</ImageResolutionX><PositionZ Unit="m">0</PositionZ></Image>
<Image Version="1"><Row>2</Row><Col>3</Col><FieldID>1</FieldID><PlaneID>3</PlaneID>
<ChannelID>1</ChannelID><PositionZ Unit="m">4E-06</PositionZ></Image>
<Image Version="1"><ChannelID>2</ChannelID><ChannelName>GFP</ChannelName></Image>
"""
HARMONY_6 = """<EvaluationInputData xmlns="43B2A954-E3C3-47E1-B392-6635266B0DD3/HarmonyV7">
<Plates><Plate><PlateRows>8</PlateRows><PlateColumns>12</PlateColumns></Plate></Plates>
<Maps><Map><Entry ChannelID="1"><FlatfieldProfile>x</FlatfieldProfile></Entry></Map>
<Map><Entry ChannelID="1"><ChannelName>DAPI</ChannelName>
<ImageResolutionX Unit="m">1E-06</ImageResolutionX></Entry></Map></Maps>
"""


@pytest.mark.parametrize("channels", [{1}, {1, 2}])
def test_harmonys_index_is_read_no_further_than_needed(channels: set[int]) -> None:
    """The index of a big plate has a hundred megabytes; here its end is missing altogether."""
    told = read_harmony_index(io.BytesIO(HARMONY_5.encode()), channels, stack=True)
    assert told.grid == (16, 24)
    assert told.channels[1] == "HOECHST 33342"
    assert told.pixel_size == pytest.approx((2.0, 0.65))


def test_channels_in_a_map_of_a_newer_index_are_read_too() -> None:
    told = read_harmony_index(io.BytesIO(HARMONY_6.encode()), {1}, stack=False)
    assert (told.channels, told.grid) == ({1: "DAPI"}, (8, 12))
    assert told.pixel_size == (None, pytest.approx(1.0))
