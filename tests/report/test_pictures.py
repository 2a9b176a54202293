"""Tiles of wells: what is read, what it is drawn with, how large it becomes."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from report_plates import picture

import polystore_flows as ps
from polystore_flows.hcs.layout import Layout
from polystore_flows.report.pictures import contrast, draw_fields, draw_sheets
from polystore_flows.report.wells import FieldTiles, WellTiles, read_wells, shrink


def decoded(data):
    """A picture of the page as an array."""
    raw = base64.b64decode(data.removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(raw)))


def tiles(path, value, side=64, fields=1):
    """A well whose channel has one value."""
    made = [
        FieldTiles(str(f), (np.full((side, side), value, np.uint16),), {}) for f in range(fields)
    ]
    return WellTiles(path, made, listed=fields)


def test_the_middle_plane_of_the_first_time_is_read_and_measured(tmp_path):
    plate = ps.create_plate(f"zarr:{tmp_path}/p.zarr", 6, ["a", "b"])
    image = np.zeros((2, 2, 3, 8, 8), np.uint16)
    image[0, 0, 1] = np.arange(64).reshape(8, 8)
    image[0, 1, 1] = 7
    plate.write_well("A/1", {0: image})
    (well,) = read_wells(plate, fields=4, workers=1)
    mean, median, sd, _, _ = well.statistics[0]
    assert (mean, median, sd) == (31.5, 31.5, pytest.approx(np.arange(64).std()))
    assert well.statistics[1][:3] == (7, 7, 0)
    np.testing.assert_array_equal(well.fields[0].channels[0], image[0, 0, 1])


def test_a_large_image_is_read_at_a_level_just_above_a_tile(tmp_path, monkeypatch):
    plate = ps.create_plate(f"zarr:{tmp_path}/p.zarr", 6, ["a"], levels=4)
    image = np.zeros((1, 1, 1, 512, 512), np.uint16)
    image[..., :256] = 100
    plate.write_well("A/1", {0: image})
    monkeypatch.setattr("polystore_flows.report.wells.SIDES", (96, 48))
    (well,) = read_wells(plate, fields=1, workers=1)
    assert well.binning == 4  # 128 pixels are left
    assert well.fields[0].channels[0].shape == (96, 96)
    assert well.statistics[0][0] == 50


def test_only_the_first_fields_are_read_and_the_others_counted(tmp_path, make_plate):
    plate = make_plate(tmp_path, ("A/1",), fields=5)
    (well,) = read_wells(plate, fields=2, workers=1)
    assert [field.name for field in well.fields] == ["0", "1"]
    assert well.listed == 5


def test_outlines_are_the_pixels_of_objects_that_touch_something_else(tmp_path, make_plate):
    """Both of two objects that touch have a border between them; a cell cut off has none there."""
    plate = make_plate(tmp_path, ("A/1",))
    full = np.zeros((48, 48), np.uint8)
    full[:24] = 5
    plate.write_label("A/1", 0, "half", full)
    (well,) = read_wells(plate, fields=1, workers=1)
    nuclei = well.fields[0].outlines["nuclei"]
    assert nuclei[10, 12:34].all()
    assert nuclei[20, [12, 21, 22, 33]].all()
    assert not nuclei[20, 13:21].any()
    assert not nuclei[:10].any()
    half = well.fields[0].outlines["half"]
    assert half[23].all()
    assert half.sum() == 48


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(tmp_path, make_plate):
    plate = make_plate(tmp_path, fields=2)
    for shard in (plate.root / "A" / "1" / "0" / "0").glob("c/**/*"):
        if shard.is_file():
            shard.write_bytes(b"broken")
    for document in (plate.root / "A" / "2" / "0").glob("zarr.json"):
        document.write_text("{")
    (plate.root / "B" / "1" / "zarr.json").unlink()
    broken, partial, gone = read_wells(plate, fields=2, workers=2)
    assert [field.name for field in broken.fields] == ["1"]
    assert "A/1/0" in broken.problems[0]
    assert "A/2/0" in partial.problems[0]
    assert not gone.fields
    assert "B/1" in gone.problems[0]


def test_a_well_whose_first_field_is_broken_is_shown_by_the_others(tmp_path, make_plate):
    """Its provenance is then asked of the next field; nothing else of the well is lost."""
    plate = make_plate(tmp_path, ())
    made = ps.Provenance("segment")
    plate.write_well("A/1", {0: picture(0, 2), 1: picture(0, 2)}, provenance=made)
    (plate.root / "A" / "1" / "0" / "zarr.json").unlink()
    (well,) = read_wells(plate, fields=4, workers=1)
    assert [field.name for field in well.fields] == ["1"]
    assert well.provenance.tool == "segment"
    assert len(well.problems) == 1


def test_an_image_with_other_channels_than_its_plate_is_a_problem(tmp_path, make_plate):
    plate = make_plate(tmp_path, ("A/1",))
    well = plate["A/1"]
    plate.__class__ = type("Odd", (plate.__class__,), {"channels": property(lambda self: ("one",))})
    (read,) = read_wells(well.plate, fields=1, workers=1)
    assert read.problems == [f"{plate.uri}/A/1/0 has 2 channels, its plate 1"]


def test_the_contrast_of_a_channel_is_that_of_the_whole_plate():
    """A dim well stays dim beside a bright one."""
    wells = [tiles("A/1", 100), tiles("A/2", 200), tiles("A/3", 1100)]
    limits = contrast(wells, 1)
    assert limits == [(100, 1100)]
    drawn = draw_fields(wells, limits, 10**6).data
    grey = [decoded(drawn[well][0]["channels"][0]).mean() for well in ("A/1", "A/2", "A/3")]
    assert grey == pytest.approx([0, 25.5, 255], abs=3)


@pytest.mark.parametrize(
    "values", [[], [0.0, 0.0], [float("nan")] * 4, [float("inf"), 1.0, float("-inf"), 1.0]]
)
def test_an_odd_channel_has_a_contrast_that_can_be_drawn(values):
    tile = np.array([values or [0.0]], np.float32)
    wells = [WellTiles("A/1", [FieldTiles("0", (tile,), {})])] if values else []
    ((low, high),) = contrast(wells, 1)
    assert low < high
    draw_fields(wells, [(low, high)], 10**6)


def test_a_sheet_has_every_well_in_its_place():
    wells = [tiles("A/1", 1000), tiles("B/3", 500, side=20), WellTiles("A/2")]
    sheets = draw_sheets(wells, Layout.of(6), [(0, 1000)])
    sheet = decoded(sheets.data[0])[..., 0]
    cell = sheets.cell
    assert sheet.shape == (2 * cell, 3 * cell)
    assert sheet[cell // 2, cell // 2] > 245
    middle = slice(cell + cell // 2 - 5, cell + cell // 2 + 5)
    assert sheet[middle, 2 * cell + cell // 2].mean() == pytest.approx(127, abs=6)
    assert sheet[cell // 2, cell + cell // 2] < 10


def test_fields_are_made_smaller_and_then_fewer_until_they_fit():
    rng = np.random.default_rng(0)
    noise = [
        FieldTiles(str(f), (rng.integers(0, 255, (256, 256), np.uint16),), {}) for f in range(4)
    ]
    wells = [WellTiles(f"A/{n}", noise, listed=4) for n in range(1, 6)]
    limits = [(0.0, 255.0)]
    ways = []
    for room in (10**7, 300_000, 60_000, 20_000, 1):
        drawn = draw_fields(wells, limits, room)
        size = sum(len(f["channels"][0]) for well in drawn.data.values() for f in well)
        ways.append((drawn.shown, drawn.side))
        assert size <= room or drawn.side == 32
    assert ways[0] == (4, 256)
    assert ways == sorted(ways, reverse=True)
    assert ways[-1] == (1, 32)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "bool"]
)
def test_every_dtype_can_be_made_small(dtype):
    plane = np.ones((40, 20), dtype)
    small = shrink(plane, 10)
    assert small.shape == (10, 5)
    assert (small == 1).all()
