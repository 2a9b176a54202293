"""Plates that other programs wrote are read pixel for pixel, and can be written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from foreign_plates import FULL, as_bioformats2raw, consolidate, document, pixels, write_plate
from zarr.codecs import BytesCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

import polystore_flows as ps
from polystore_flows.errors import CorruptMetadataError, NotFoundError
from polystore_flows.hcs.layout import Layout

V2 = {
    "big-endian": (">u2", {}),
    "signed big-endian": (">i4", {}),
    "float big-endian": (">f4", {}),
    "order F": ("<u2", {"order": "F"}),
    "order F, big-endian": (">u2", {"order": "F"}),
    "dot-separated": ("<u2", {"chunk_key_encoding": {"name": "v2", "separator": "."}}),
    "nested": ("<u2", {"chunk_key_encoding": {"name": "v2", "separator": "/"}}),
    "chunks that cut planes": ("<u2", {"chunks": (2, 2, 1, 16, 50)}),
    "uncompressed": ("<u2", {"compressors": None}),
}
V3 = {
    "big-endian": ("uint16", {"serializer": BytesCodec(endian="big")}),
    "unsharded": ("uint16", {}),
    "gzip": ("uint8", {"compressors": GzipCodec()}),
    "zstd": ("float32", {"compressors": ZstdCodec()}),
    "order F": ("uint16", {"filters": [TransposeCodec(order=(4, 3, 2, 1, 0))]}),
    "dot-separated": ("uint16", {"chunk_key_encoding": {"name": "default", "separator": "."}}),
    "v2 keys": ("uint16", {"chunk_key_encoding": {"name": "v2", "separator": "."}}),
    "sharded": ("uint16", {"shards": (2, 3, 2, 40, 51)}),
    "index first": (
        "uint16",
        {
            "chunks": (2, 3, 2, 40, 51),
            "compressors": None,
            "serializer": ShardingCodec(chunk_shape=(1, 1, 1, 40, 51), index_location="start"),
        },
    ),
}
GOOD = {"path": "B/03", "rowIndex": 1, "columnIndex": 2}
KINDS = [("0.4", name, *kind) for name, kind in V2.items()]
KINDS += [("0.5", name, *kind) for name, kind in V3.items()]


def _assert_equal(plate: Any, well: str, array: Any) -> None:
    image = plate[well].image(0)
    assert image.dtype == array.dtype.newbyteorder("=")
    whole = image.read()
    assert whole.dtype.isnative
    np.testing.assert_array_equal(whole, array)
    np.testing.assert_array_equal(image.plane(1, "GFP", 1), array[1, 1, 1])
    np.testing.assert_array_equal(image.plane(0, 2, 0), array[0, 2, 0])


@pytest.mark.parametrize(
    ("version", "name", "dtype", "options"), KINDS, ids=[f"{v} {n}" for v, n, *_ in KINDS]
)
def test_every_layout_of_arrays_is_read(
    tmp_path: Path, version: str, name: str, dtype: str, options: dict[str, Any]
) -> None:
    array = pixels(FULL, dtype)
    root = tmp_path / "f.zarr"
    write_plate(root, {"B/03": {"0": array}}, version=version, **options)
    plate = ps.open_plate(root)
    assert plate.wells == ("B/03",)
    assert plate.channels == ("DAPI", "GFP", "Cy5")
    assert plate.pixel_size == (2.0, 0.5, 0.5)
    _assert_equal(plate, "B/3", array)


@pytest.mark.parametrize("axes", ["yx", "zyx", "cyx", "tyx", "czyx", "tcyx", "tzyx"])
def test_images_with_fewer_axes_are_given_with_five(tmp_path: Path, axes: str) -> None:
    array = pixels(tuple(axes), "uint16")
    write_plate(tmp_path / "f.zarr", {"B/03": {"0": array}}, axes=tuple(axes), levels=2)
    image = ps.open_plate(tmp_path / "f.zarr")["B/3"].image(0)
    missing = tuple(i for i, axis in enumerate("tczyx") if axis not in axes)
    np.testing.assert_array_equal(image.read(), np.expand_dims(array, missing))
    np.testing.assert_array_equal(
        image.read(level=1), np.expand_dims(array[..., ::2, ::2], missing)
    )
    np.testing.assert_array_equal(image.plane(), array.reshape(-1, *array.shape[-2:])[0])


def test_a_plate_of_bioformats2raw_is_read_and_written_to(tmp_path: Path) -> None:
    root = tmp_path / "b2r.zarr"
    wells = {w: {f: pixels(FULL, ">u2", i) for f in "01"} for i, w in enumerate(["A/1", "H/12"])}
    as_bioformats2raw(root, wells)
    plate = ps.open_plate(root, "r+")
    assert plate.wells == ("A/1", "H/12")  # OME is no row
    assert plate["A/01"].fields == ("0", "1")
    assert plate["A/01"].acquisitions == {"0": 0, "1": 0}
    for well, fields in wells.items():
        _assert_equal(plate, well, fields["0"])
    np.testing.assert_array_equal(
        plate["A/1"].image(1).read(level=1), wells["A/1"]["1"][..., ::2, ::2]
    )
    assert ps.list_files(f"zarr://{root}", recursive=True) == [
        f"zarr://{root}/{well}/{field}" for well in wells for field in "01"
    ]
    array = pixels(FULL, "uint16", 5)
    plate.write_image("C/4", 0, array)
    plate.write_label("C/4", 0, "nuclei", array[:, :1])
    plate.write_image("A/1", 0, array, overwrite=True)
    again = ps.open_plate(root)
    assert again.wells == ("A/1", "C/4", "H/12")
    for well in ("A/1", "C/4"):
        _assert_equal(again, well, array)
    assert document(root)["bioformats2raw.layout"] == 3
    assert (root / "OME" / "METADATA.ome.xml").read_text() == "<OME/>"
    assert again["C/4"].acquisitions == {"0": 0}
    check = {finding.rule for finding in ps.get_backend("zarr").check_plate(f"zarr://{root}")}
    assert check <= {"color"}


def test_padded_columns_keep_their_names_and_what_else_is_said_stays(tmp_path: Path) -> None:
    root = tmp_path / "f.zarr"
    said = {"acquisitions": [{"id": 7, "name": "day 1", "starttime": 5}], "theirs": {"a": 1}}
    write_plate(root, {"B/03": {"0": pixels(FULL, "uint16")}}, plate=said)
    plate = ps.open_plate(root, "r+")
    assert plate["B/3"].path == plate["B03"].path == "B/03"
    plate.write_image("C/4", 0, pixels(FULL, "uint16", 1))
    plate.write_image("B/3", 1, pixels(FULL, "uint16", 2))
    plate.write_image("B/3", 2, pixels(FULL, "uint16", 3))
    assert ps.open_plate(root).wells == ("B/03", "C/04")
    body = document(root)["plate"]
    assert body["field_count"] == 3
    assert {key: body[key] for key in said} == said
    ps.delete(f"zarr://{root}/C/4")
    body = document(root)["plate"]
    assert {key: body[key] for key in said} == said


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_consolidated_plate_shows_its_readers_what_is_written_into_it(
    tmp_path: Path, version: str
) -> None:
    """zarr would go on showing the copy of the metadata that was made before."""
    array = pixels(FULL, "uint16")
    writes = {
        "well": lambda plate: plate.write_image("C/4", 0, array),
        "field": lambda plate: plate.write_image("B/3", 1, array),
        "label": lambda plate: plate.write_label("B/3", 0, "nuclei", array[:, :1]),
        "table": lambda plate: plate.write_table("tables/a.csv", [{"n": 1}]),
        "removal": lambda plate: ps.delete(f"{plate.uri}/B/03/1"),
    }
    root = tmp_path / "f.zarr"
    write_plate(root, {"B/03": {"0": array, "1": array}}, version=version)
    ps.delete(f"zarr://{root}/B/03/1")
    for name, write in writes.items():
        consolidate(root)
        assert zarr.open_group(root, mode="r").metadata.consolidated_metadata is not None
        plate = ps.open_plate(root, "r+")
        _assert_equal(plate, "B/3", array)
        write(plate)
        after = zarr.open_group(root, mode="r")
        assert after.metadata.consolidated_metadata is None, name
    assert set(after["B/03"].group_keys()) == {"0"}
    assert "C/04/0/0" in after


def test_rows_after_z_are_read_and_written(tmp_path: Path) -> None:
    root = tmp_path / "f.zarr"
    array = pixels(FULL, ">u2")
    wells = {"Z/9": {"0": array}, "AA/1": {"0": array}, "AF/48": {"0": array}}
    write_plate(root, wells, layout=Layout.of(1536))
    plate = ps.open_plate(root, "r+")
    assert plate.wells == ("Z/9", "AA/1", "AF/48")
    assert plate["AF48"].path == plate["af/048"].path == "AF/48"
    plate.write_image("AB/07", 0, array.astype("uint16"))
    assert ps.open_plate(root).wells == ("Z/9", "AA/1", "AB/7", "AF/48")
    np.testing.assert_array_equal(ps.load(f"zarr://{root}/AB/7/0"), array)


def test_wells_that_the_plate_does_not_list_are_not_there_until_they_are_listed(
    tmp_path: Path,
) -> None:
    root = tmp_path / "f.zarr"
    array = pixels(FULL, "uint16")
    wells = {"B/03": {"0": array}, "B/04": {"0": array}}
    write_plate(root, wells, unlisted=("B/04",))
    plate = ps.open_plate(root)
    assert plate.wells == ("B/03",)
    assert not ps.exists(f"zarr://{root}/B/4")
    with pytest.raises(NotFoundError, match="has no well B/4; it has B/03"):
        plate["B/4"]
    backend = ps.get_backend("zarr")
    assert ("unlisted-well") in {f.rule for f in backend.check_plate(f"zarr://{root}")}
    backend.check_plate(f"zarr://{root}", repair=True)
    assert plate.wells == ("B/03", "B/04")
    _assert_equal(plate, "B/4", array)


def test_a_column_beside_its_padded_twin_is_another_well(tmp_path: Path) -> None:
    """What has data wins; where both have, the plate contradicts itself."""
    root = tmp_path / "f.zarr"
    layout = Layout(("A", "B"), ("1", "01", "02"))
    array = pixels(FULL, "uint16")
    write_plate(root, {"A/01": {"0": array}}, layout=layout)
    plate = ps.open_plate(root, "r+")
    assert plate["A/1"].path == "A/01"
    plate.write_image("A/1", 0, array + 1, overwrite=True)
    assert ps.open_plate(root).wells == ("A/01",)
    _assert_equal(plate, "A/1", array + 1)
    twice = tmp_path / "twice.zarr"
    write_plate(twice, {"A/01": {"0": array}, "A/1": {"0": array}}, layout=layout)
    with pytest.raises(CorruptMetadataError, match="lists a well twice"):
        ps.open_plate(twice)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"wells": [{"path": "B/03"}]}, "lists {'path': 'B/03'} as a well; it needs"),
        ({"wells": [GOOD, {"path": "B/04"}]}, "lists {'path': 'B/04'} as a well; it needs"),
        ({"wells": [GOOD, GOOD | {"path": "B/3"}]}, "lists {'path': 'B/3', .* as a well"),
        ({"wells": [GOOD, GOOD | {"path": "B/04"}]}, "B/04 has row and column index 1, 2"),
        ({"wells": [GOOD, GOOD]}, "lists a well twice"),
        ({"wells": "B/03"}, "lists 'B' as a well; it needs"),
        ({"wells": []}, None),
        ({"rows": []}, "is not valid NGFF 0.4: plate.rows lists no names"),
    ],
)
def test_a_plate_that_contradicts_itself_is_refused_with_what_is_wrong(
    tmp_path: Path, said: dict[str, Any], message: str | None
) -> None:
    root = tmp_path / "f.zarr"
    write_plate(root, {"B/03": {"0": pixels(FULL, "uint16")}}, plate=said)
    if message is None:
        assert ps.open_plate(root).wells == ()
        return
    with pytest.raises(CorruptMetadataError, match=rf"f.zarr.*{message}"):
        ps.open_plate(root)


def test_a_plate_without_a_version_in_its_plate_object_is_read_without_a_warning(
    tmp_path: Path,
) -> None:
    """NGFF 0.5 says it once, beside the plate."""
    root = tmp_path / "f.zarr"
    write_plate(root, {"B/03": {"0": pixels(FULL, "uint16")}}, version="0.5")
    group = zarr.open_group(root, mode="r+")
    body = group.attrs["ome"]
    del body["plate"]["version"]
    group.attrs["ome"] = body
    assert ps.open_plate(root).wells == ("B/03",)


def test_colours_with_a_hash_are_taken_without(tmp_path: Path) -> None:
    root = tmp_path / "f.zarr"
    write_plate(root, {"B/03": {"0": pixels(FULL, "uint16")}})
    plate = ps.open_plate(root)
    assert [channel.color for channel in plate.channel_info] == ["00FF00"] * 3
    ps.copy(f"zarr://{root}", f"zarr://{tmp_path}/copy.zarr")
    backend = ps.get_backend("zarr")
    assert backend.check_plate(f"zarr://{tmp_path}/copy.zarr") == []
    _assert_equal(ps.open_plate(tmp_path / "copy.zarr"), "B/3", pixels(FULL, "uint16"))
