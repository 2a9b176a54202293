"""OME-Zarr plates: what is written comes back, and what does not fit is refused."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import polystore_flows as ps
from polystore_flows.errors import (
    AddressError,
    AlreadyExistsError,
    CorruptDataError,
    CorruptMetadataError,
    MismatchError,
    NotFoundError,
    ReadOnlyError,
    UnsupportedError,
    URIError,
)
from polystore_flows.hcs.plate import Plate

Pixels = Callable[..., Any]


def _files(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_new_plate_has_its_grid_and_channels_but_no_well(plate: Plate) -> None:
    again = ps.open_plate(plate.uri)
    assert again.name == "p"
    assert again.rows == tuple("ABCDEFGH")
    assert again.columns == tuple(str(i) for i in range(1, 13))
    assert again.wells == ()
    assert again.channels == ("DAPI", "GFP")
    assert again.pixel_size == (2.0, 0.65, 0.65)


def test_a_field_comes_back_whole_by_plane_and_by_level(plate: Plate, pixels: Pixels) -> None:
    array = pixels()
    plate.write_image("B/03", 0, array)
    image = ps.open_plate(plate.uri)["B/03"].image(0)
    assert (image.shape, image.dtype, image.axes) == (array.shape, array.dtype, tuple("tczyx"))
    assert image.channels == ("DAPI", "GFP")
    assert image.pixel_size == (2.0, 0.65, 0.65)
    np.testing.assert_array_equal(image.read(), array)
    np.testing.assert_array_equal(image.plane(t=1, c="GFP", z=2), array[1, 1, 2])
    assert image.plane(level=1).shape == (22, 33)
    expected = array[0, 0, 0, :44, :66].reshape(22, 2, 33, 2).mean((1, 3))
    np.testing.assert_array_equal(image.plane(level=1), np.rint(expected))


def test_padded_and_unpadded_columns_find_the_same_well(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/03", 0, pixels())
    assert plate.wells == ("B/3",)
    assert plate["B/03"].path == plate["B/3"].path == plate["B03"].path == "B/3"
    assert "B/03" in plate
    assert "B/04" not in plate
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/03/0"), pixels())


def test_a_uri_selects_planes_by_index_and_channel_name(plate: Plate, pixels: Pixels) -> None:
    array = pixels()
    ps.save(array, f"{plate.uri}/B/3/0")
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/0?c=GFP&z=1&t=0"), array[0, 1, 1])
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/0?c=0"), array[:, 0])
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B03_s001_w2_z003_t002.tif"), array[1, 1, 2])


@pytest.mark.parametrize("query", ["c=Cy5", "z=3", "t=-1", "level=2", "q=1"])
def test_a_plane_that_is_not_there_is_refused(plate: Plate, pixels: Pixels, query: str) -> None:
    plate.write_image("B/3", 0, pixels())
    with pytest.raises(URIError, match=r"(no channel|outside|no index|selects nothing)"):
        ps.load(f"{plate.uri}/B/3/0?{query}")


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int32", "uint32", "uint64", "float32", "float64", ">u2"]
)
def test_every_pixel_type_comes_back(plate: Plate, pixels: Pixels, dtype: str) -> None:
    array = pixels(dtype=dtype)
    plate.write_image("A/1", 0, array)
    image = plate["A/1"].image(0)
    assert image.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(image.read(), array)


def test_one_plane_alone_becomes_a_field(tmp_path: Path) -> None:
    plate = ps.create_plate(tmp_path / "p.zarr")
    plate.write_image("A/1", 0, np.ones((4, 5), bool))
    image = plate["A/1"].image(0)
    assert image.shape == (1, 1, 1, 4, 5)
    assert image.dtype == np.uint8
    assert plate.channels == ("0",)


def test_a_label_image_comes_back_with_as_many_levels_as_its_field(
    plate: Plate, pixels: Pixels
) -> None:
    plate.write_image("B/3", 0, pixels())
    labels = pixels((2, 1, 3, 45, 67), "int32")
    plate.write_label("B/3", 0, "nuclei", labels)
    image = plate["B/3"].image(0)
    assert image.labels == ("nuclei",)
    assert image.label("nuclei").levels == image.levels
    np.testing.assert_array_equal(image.label("nuclei").read(), labels)
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/0/labels/nuclei"), labels)
    small = image.label("nuclei").read(level=1)
    np.testing.assert_array_equal(small, labels[..., :44:2, :66:2])


def test_labels_must_be_integers_of_the_fields_size(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    with pytest.raises(MismatchError, match="labels are integers, not float32"):
        plate.write_label("B/3", 0, "nuclei", pixels((2, 1, 3, 45, 67), "float32"))
    with pytest.raises(MismatchError, match="its field's"):
        plate.write_label("B/3", 0, "nuclei", pixels((2, 1, 3, 45, 66), "int32"))
    assert plate["B/3"].image(0).labels == ()


def test_a_whole_well_is_written_with_its_labels(plate: Plate, pixels: Pixels) -> None:
    fields = {0: pixels(seed=0), 1: pixels(seed=1)}
    labels = {0: {"nuclei": pixels((2, 1, 3, 45, 67), "uint16")}}
    plate.write_well("C/4", fields, labels)
    assert plate["C/4"].fields == ("0", "1")
    assert plate["C/4"].image(0).labels == ("nuclei",)
    assert plate["C/4"].image(1).labels == ()
    loaded = ps.load(f"{plate.uri}/C/4")
    np.testing.assert_array_equal(loaded["1"], fields[1])


def test_tables_and_texts_lie_beside_the_arrays(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    plate.write_table("tables/counts.csv", [{"well": "B/03", "nuclei": 7}])
    ps.save({"a": [1]}, f"{plate.uri}/B/03/tables/notes.json")
    table = ps.load(f"{plate.uri}/tables/counts.csv")
    assert table.to_dict("records") == [{"well": "B/03", "nuclei": 7}]
    assert ps.load(f"{plate.uri}/B/3/tables/notes.json") == {"a": [1]}
    assert ps.list_files(plate.uri, recursive=True) == [
        f"{plate.uri}/B/3/0",
        f"{plate.uri}/B/3/tables/notes.json",
        f"{plate.uri}/tables/counts.csv",
    ]


def test_a_table_may_come_before_its_well_and_outlives_the_wells_replacement(
    plate: Plate, pixels: Pixels
) -> None:
    ps.save("early", f"{plate.uri}/B/03/tables/note.txt")
    assert plate.wells == ()
    plate.write_well("B/3", {0: pixels()})
    plate.write_well("B/3", {0: pixels(seed=1)}, overwrite=True)
    assert ps.load(f"{plate.uri}/B/3/tables/note.txt") == "early"
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/0"), pixels(seed=1))


def test_nothing_is_overwritten_unless_told(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    plate.write_label("B/3", 0, "nuclei", pixels((2, 1, 3, 45, 67), "int32"))
    plate.write_table("tables/a.csv", [{"n": 1}])
    for write in (
        lambda: plate.write_image("B/03", 0, pixels(seed=1)),
        lambda: plate.write_well("B/03", {1: pixels(seed=1)}),
        lambda: plate.write_label("B/3", 0, "nuclei", pixels((2, 1, 3, 45, 67), "int32")),
        lambda: plate.write_table("tables/a.csv", [{"n": 2}], overwrite=False),
        lambda: ps.create_plate(plate.uri),
    ):
        with pytest.raises(AlreadyExistsError, match=r"^zarr:///.* exists; .*(overwrite|exist_ok)"):
            write()
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/0"), pixels())


def test_overwriting_a_field_replaces_it_and_keeps_the_others(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels(seed=0))
    plate.write_image("B/3", 1, pixels(seed=1))
    plate.write_image("B/3", 0, pixels(seed=2), overwrite=True)
    np.testing.assert_array_equal(plate["B/3"].image(0).read(), pixels(seed=2))
    np.testing.assert_array_equal(plate["B/3"].image(1).read(), pixels(seed=1))


def test_the_field_count_is_the_largest_number_of_fields(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    plate.write_well("B/4", {f: pixels() for f in range(3)})
    attributes = zarr.open_group(plate.uri.removeprefix("zarr://"), mode="r").attrs.asdict()
    assert attributes.get("ome", attributes)["plate"]["field_count"] == 3


def test_an_array_unlike_its_plate_is_refused_and_nothing_is_left(
    plate: Plate, pixels: Pixels, tmp_path: Path
) -> None:
    plate.write_image("B/3", 0, pixels())
    before = _files(tmp_path / "p.zarr")
    for array in (
        pixels((2, 2, 3, 45, 66)),
        pixels(dtype="float32"),
        pixels((2, 1, 3, 45, 67)),
        pixels((3, 45, 67)),
        pixels((2, 2, 3, 0, 67)),
        np.array([["a", "b"]]),
    ):
        with pytest.raises(MismatchError, match=r"^zarr:///.*/B/4/0: "):
            plate.write_image("B/4", 0, array)
    assert _files(tmp_path / "p.zarr") == before
    assert not list(tmp_path.glob(".*.staging"))


def test_fields_of_one_well_must_agree_before_anything_is_written(
    plate: Plate, pixels: Pixels
) -> None:
    with pytest.raises(MismatchError, match="B/3/1: the array is"):
        plate.write_well("B/3", {0: pixels(), 1: pixels((2, 2, 3, 45, 66))})
    assert plate.wells == ()


def test_a_well_outside_the_layout_is_refused(plate: Plate, pixels: Pixels) -> None:
    for well in ("I/1", "A/13", "AA/1", "A/0"):
        with pytest.raises(AddressError, match=r"rows A to H, columns 1 to 12"):
            plate.write_image(well, 0, pixels())


def test_a_missing_plate_well_or_field_names_the_uri_and_what_there_is(
    plate: Plate, pixels: Pixels, tmp_path: Path
) -> None:
    plate.write_image("B/3", 0, pixels())
    with pytest.raises(NotFoundError, match=r"nowhere.zarr is no OME-Zarr plate: .*does not exist"):
        ps.open_plate(f"zarr://{tmp_path}/nowhere.zarr")
    with pytest.raises(NotFoundError, match=r"has no well C/3; it has B/3"):
        plate["C/3"]
    with pytest.raises(NotFoundError, match=r"/B/3 has no field 5; it has 0"):
        ps.load(f"{plate.uri}/B/3/5")
    with pytest.raises(NotFoundError, match=r"has no label image 'cells'; it has none"):
        ps.load(f"{plate.uri}/B/3/0/labels/cells")
    with pytest.raises(NotFoundError, match=r"tables/x.csv does not exist"):
        ps.load(f"{plate.uri}/tables/x.csv")


def test_exists_is_true_for_what_is_there_and_for_nothing_else(
    plate: Plate, pixels: Pixels
) -> None:
    plate.write_well("B/3", {0: pixels()}, {0: {"nuclei": pixels((2, 1, 3, 45, 67), "int32")}})
    plate.write_table("tables/a.csv", [{"n": 1}])
    for there in ("", "/B", "/B/3", "/B/03", "/B/3/0", "/B/3/0/labels/nuclei", "/tables/a.csv"):
        assert ps.exists(plate.uri + there), there
    for absent in ("/C", "/B/4", "/Z/1", "/B/3/1", "/B/3/0/labels/x", "/tables/b.csv", "/junk"):
        assert not ps.exists(plate.uri + absent), absent
    assert not ps.exists(f"{plate.uri}.zarr/B/3")


def test_the_commit_time_stays_when_labels_tables_or_wells_are_added(
    plate: Plate, pixels: Pixels
) -> None:
    plate.write_image("B/3", 0, pixels())
    before = [ps.stat(plate.uri + part).mtime for part in ("", "/B/3", "/B/3/0")]
    plate.write_label("B/3", 0, "nuclei", pixels((2, 1, 3, 45, 67), "int32"))
    plate.write_table("B/3/tables/a.csv", [{"n": 1}])
    plate.write_image("B/4", 0, pixels())
    assert [ps.stat(plate.uri + part).mtime for part in ("", "/B/3", "/B/3/0")] == before
    ps.get_backend("zarr").touch(f"{plate.uri}/B/03")
    assert ps.stat(f"{plate.uri}/B/3").mtime > before[1]


def test_deleting_unlists_and_removes(plate: Plate, pixels: Pixels, tmp_path: Path) -> None:
    plate.write_well("B/3", {0: pixels(), 1: pixels()})
    plate.write_label("B/3", 0, "nuclei", pixels((2, 1, 3, 45, 67), "int32"))
    plate.write_image("C/4", 0, pixels())
    ps.delete(f"{plate.uri}/B/3/0/labels/nuclei")
    assert plate["B/3"].image(0).labels == ()
    ps.delete(f"{plate.uri}/B/03/0")
    assert plate["B/3"].fields == ("1",)
    ps.delete(f"{plate.uri}/B/3/1")
    assert plate.wells == ("C/4",)
    assert not (tmp_path / "p.zarr/B/3").exists()
    with pytest.raises(UnsupportedError, match="not empty"):
        ps.get_backend("zarr").delete(f"{plate.uri}/C/4")
    ps.delete(f"{plate.uri}/C/4")
    assert ps.open_plate(plate.uri).wells == ()
    with pytest.raises(NotFoundError):
        ps.delete(f"{plate.uri}/C/4")
    plate.write_image("A/1", 0, pixels((1, 2, 1, 8, 8)))
    ps.delete(plate.uri)
    assert not (tmp_path / "p.zarr").exists()


def test_creating_again_opens_the_same_plate_and_refuses_another(plate: Plate) -> None:
    config = plate.spec.config
    assert config is not None
    version = config.ngff_version
    size = plate.pixel_size
    same = ps.create_plate(
        plate.uri, 96, ["DAPI", "GFP"], size, ngff_version=version, exist_ok=True
    )
    assert same.uri == plate.uri
    with pytest.raises(MismatchError, match="exists with wells 96, not 384"):
        ps.create_plate(plate.uri, 384, like=None, ngff_version=version, exist_ok=True)
    with pytest.raises(MismatchError, match="exists with channels"):
        ps.create_plate(plate.uri, 96, ["Cy5"], size, ngff_version=version, exist_ok=True)


def test_a_plate_like_another_takes_its_layout_channels_and_pixel_size(
    plate: Plate, tmp_path: Path
) -> None:
    other = ps.create_plate(f"zarr://{tmp_path}/q.zarr", like=plate)
    assert other.layout == plate.layout
    assert other.channels == plate.channels
    assert other.pixel_size == plate.pixel_size


def test_a_plate_opened_for_reading_refuses_to_write(plate: Plate, pixels: Pixels) -> None:
    with pytest.raises(ReadOnlyError, match=r"open it with mode='r\+'"):
        ps.open_plate(plate.uri).write_image("A/1", 0, pixels())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"zarr_format": 3'])
def test_corrupt_plate_json_raises_and_is_left_as_it_was(
    plate: Plate, pixels: Pixels, tmp_path: Path, content: bytes
) -> None:
    plate.write_image("B/3", 0, pixels())
    document = next(
        p for p in (tmp_path / "p.zarr/zarr.json", tmp_path / "p.zarr/.zattrs") if p.exists()
    )
    document.write_bytes(content)
    for act in (
        lambda: ps.open_plate(plate.uri),
        lambda: plate.write_image("B/4", 0, pixels()),
        lambda: ps.exists(f"{plate.uri}/B/3"),
    ):
        with pytest.raises(CorruptMetadataError, match=r"^zarr:///.*p.zarr"):
            act()
    assert document.read_bytes() == content


def test_a_truncated_shard_names_its_field(tmp_path: Path, pixels: Pixels) -> None:
    """Of 0.5 only: a chunk of zarr v2 carries no length or checksum that readers compare."""
    plate = ps.create_plate(tmp_path / "p.zarr")
    plate.write_image("B/3", 0, pixels())
    chunk = max((tmp_path / "p.zarr/B/3/0/0").rglob("*"), key=lambda p: p.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    with pytest.raises(CorruptDataError, match=r"^zarr:///.*/B/3/0 cannot be read"):
        plate["B/3"].image(0).read()


@pytest.fixture
def read_only_plate() -> Iterator[Plate]:
    """A plate that this process may only read, also where root runs the tests."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        plate = ps.create_plate(folder / "p.zarr")
        plate.write_image("A/1", 0, np.ones((4, 4)))
        plate.write_table("tables/b.csv", [{"n": 1}])  # now all that is needed is imported
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        yield plate
        os.seteuid(was)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)


def test_a_read_only_target_is_one_clear_error(read_only_plate: Plate) -> None:
    plate = read_only_plate
    beside = plate.uri.replace("p.zarr", "q.zarr")
    for act in (
        lambda: plate.write_image("A/2", 0, np.ones((4, 4))),
        lambda: ps.open_plate(plate.uri, "r+"),
        lambda: ps.create_plate(beside),
        lambda: plate.write_table("tables/a.csv", [{"n": 1}]),
    ):
        with pytest.raises(ReadOnlyError, match=r"^zarr:///.*\.zarr.* cannot be written") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert plate.wells == ("A/1",)


def test_paths_with_spaces_and_other_letters_are_taken_as_they_stand(
    tmp_path: Path, pixels: Pixels
) -> None:
    uri = f"zarr://{tmp_path}/Plätte #1 100%/p q.zarr"
    plate = ps.create_plate(uri, channels=["DAPI", "GFP"])
    plate.write_image("B/3", 0, pixels())
    np.testing.assert_array_equal(ps.load(f"{uri}/B/03/0?c=GFP"), pixels()[:, 1])


@pytest.mark.parametrize("size", [6, 1536])
def test_the_smallest_and_the_largest_plate_hold_their_last_well(
    tmp_path: Path, pixels: Pixels, size: int
) -> None:
    plate = ps.create_plate(tmp_path / "p.zarr", layout=size)
    last = f"{plate.rows[-1]}/{plate.columns[-1]}"
    plate.write_image(last, 0, pixels((1, 1, 1, 4, 4)))
    assert ps.open_plate(plate.uri).wells == (last,)
