"""The NGFF documents: both versions, both ways, and what is refused."""

from __future__ import annotations

import pytest

from polystore_flows.errors import CorruptMetadataError
from polystore_flows.hcs import ngff
from polystore_flows.hcs.image import Channel
from polystore_flows.hcs.layout import SIZES, Layout

VERSIONS = ("0.4", "0.5")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", SIZES)
def test_a_plate_comes_back_as_it_was_made(version: ngff.Version, size: int) -> None:
    layout = Layout.of(size)
    last = f"{layout.rows[-1]}/{layout.columns[-1]}"
    plate = ngff.PlateDocument(layout, (), "p", 1, version).with_well(last, 3).with_well("A/1", 2)
    attributes = ngff.plate_attributes(plate)
    assert ngff.read_plate(attributes, "here") == plate
    assert plate.wells == ("A/1", last)
    assert plate.field_count == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_all_physical_rows_and_columns_are_listed_and_indices_count_over_them(
    version: ngff.Version,
) -> None:
    plate = ngff.PlateDocument(Layout.of(96), (), "p", 1, version).with_well("H/12", 1)
    made = ngff.plate_attributes(plate)
    body = made.get("ome", made)["plate"]
    assert [row["name"] for row in body["rows"]] == list("ABCDEFGH")
    assert [column["name"] for column in body["columns"]] == [str(i) for i in range(1, 13)]
    assert body["wells"] == [{"path": "H/12", "rowIndex": 7, "columnIndex": 11}]


def test_versions_differ_in_where_the_version_stands() -> None:
    old = ngff.well_attributes({"0": None}, "0.4")
    new = ngff.well_attributes({"0": 1}, "0.5")
    assert old["well"]["version"] == "0.4"
    assert "ome" not in old
    assert new["ome"]["version"] == "0.5"
    assert set(new) == {"ome"}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_image_keeps_pixel_size_channels_and_levels(version: ngff.Version) -> None:
    channel = Channel("DAPI", "0000FF")
    made = ngff.image_attributes(
        "B/3/0", 3, (2.0, 0.65, 0.65), [(channel, (0, 65535), (10, 4000))], version
    )
    read = ngff.read_image(made, "here")
    assert read.pixel_size == (2.0, 0.65, 0.65)
    assert read.channels == (channel,)
    assert read.paths == ("0", "1", "2")
    body = made.get("ome", made)
    scales = [d["coordinateTransformations"] for d in body["multiscales"][0]["datasets"]]
    assert scales[2] == [{"type": "scale", "scale": [1.0, 1.0, 2.0, 2.6, 2.6]}]
    assert body["omero"]["channels"][0]["window"] == {
        "min": 0,
        "max": 65535,
        "start": 10,
        "end": 4000,
    }


def test_other_units_and_transforms_of_the_whole_pyramid_are_applied() -> None:
    made = ngff.image_attributes("i", 1, (1.0, 1.0, 1.0), [], "0.5")
    scale_of = made["ome"]["multiscales"][0]
    for axis in scale_of["axes"][2:]:
        axis["unit"] = "nanometer"
    scale_of["datasets"][0]["coordinateTransformations"][0]["scale"] = [1, 1, 500, 325, 325]
    scale_of["coordinateTransformations"] = [{"type": "scale", "scale": [1, 1, 1, 2, 2]}]
    assert ngff.read_image(made, "here").pixel_size == (0.5, 0.65, 0.65)


def _plate() -> ngff.Attributes:
    plate = ngff.PlateDocument(Layout.of(96), (), "p", 1, "0.5").with_well("B/3", 1)
    return ngff.plate_attributes(plate)


def test_a_well_outside_the_lists_is_refused() -> None:
    made = _plate()
    made["ome"]["plate"]["wells"][0]["path"] = "Z/3"
    with pytest.raises(CorruptMetadataError, match=r"^zarr:p lists .*'Z/3'.* as a well"):
        ngff.read_plate(made, "zarr:p")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rows", []),
        ("rows", [{"name": "A"}, {"name": "A"}]),
        ("columns", [{"name": "1 a"}]),
        ("columns", [{}]),
        ("columns", {}),
        ("field_count", 0),
        ("field_count", "1"),
        ("name", 3),
        ("acquisitions", [{"name": "first"}]),
        ("wells", [{"path": "B/3"}]),
        ("wells", {"B/3": {}}),
    ],
)
def test_a_plate_that_is_wrong_is_refused_by_us_and_by_the_specification(
    key: str, value: object
) -> None:
    """Plates are read by hand, so what the models of the specification refuse is refused here."""
    from ome_zarr_models.v05.hcs import HCSAttrs
    from pydantic import ValidationError

    made = _plate()
    made["ome"]["plate"][key] = value
    with pytest.raises(CorruptMetadataError, match=r"^zarr:p "):
        ngff.read_plate(made, "zarr:p")
    if value != []:  # NGFF wants rows, the model does not
        with pytest.raises(ValidationError):
            HCSAttrs.model_validate(made["ome"], strict=True)


@pytest.mark.parametrize(
    "images",
    [[], [{}], [{"path": "a b"}], [{"path": "0"}] * 2, [{"path": "0", "acquisition": "1"}], None],
)
def test_a_well_that_is_wrong_is_refused(images: object) -> None:
    for well in ({"images": images}, {}, None):
        with pytest.raises(CorruptMetadataError, match=r"^zarr:p/B/3 is not valid NGFF 0\.5: well"):
            ngff.read_well({"ome": {"version": "0.5", "well": well}}, "zarr:p/B/3")


def test_an_index_that_is_another_wells_is_refused() -> None:
    made = _plate()
    made["ome"]["plate"]["wells"][0]["rowIndex"] = 0
    with pytest.raises(CorruptMetadataError, match="B/3 has row and column index 0, 2"):
        ngff.read_plate(made, "zarr:p")


def test_one_well_under_two_names_is_refused() -> None:
    made = _plate()
    body = made["ome"]["plate"]
    body["columns"][3]["name"] = "03"
    body["wells"].append({"path": "B/03", "rowIndex": 1, "columnIndex": 3})
    with pytest.raises(CorruptMetadataError, match="lists a well twice"):
        ngff.read_plate(made, "zarr:p")


def test_keys_of_both_versions_in_one_group_are_refused() -> None:
    made = _plate() | ngff.well_attributes({"0": None}, "0.4")
    with pytest.raises(CorruptMetadataError, match=r"mixes NGFF 0.4 and 0.5"):
        ngff.version_of(made, "zarr:p")


def test_an_unknown_version_is_refused() -> None:
    made = _plate()
    made["ome"]["version"] = "0.7"
    with pytest.raises(CorruptMetadataError, match=r"NGFF 0.7; 0.4 and 0.5 can be read"):
        ngff.read_plate(made, "zarr:p")
