"""Folders of image files as plates: microscopes' own, and ours on disk and in memory."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray

import polystore_flows as ps
from polystore_flows.backends import folder_contents, folder_plate
from polystore_flows.backends.disk import DiskBackend
from polystore_flows.contracts import Identifier
from polystore_flows.errors import (
    AddressError,
    AmbiguousPlateError,
    CorruptDataError,
    CorruptMetadataError,
    MismatchError,
    NotFoundError,
    UnknownLayoutError,
    UnsupportedError,
    URIError,
)

Array = NDArray[Any]
SHAPE = (24, 31)


def plane(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Array:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)


def put(folder: Path, name: str, array: Array, **tags: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **tags)
    return path


def imagexpress(w: str, f: int, c: int, z: int, t: int) -> str:
    return f"TimePoint_{t + 1}/ZStep_{z + 1}/Plate1_{w[0]}{int(w[1:]):02d}_s{f + 1}_w{c + 1}.TIF"


def phenix(w: str, f: int, c: int, z: int, t: int) -> str:
    row, column = ord(w[0]) - 64, int(w[1:])
    return f"Images/r{row:02d}c{column:02d}f{f + 1:02d}p{z + 1:02d}-ch{c + 1}sk{t + 1}fk1fl1.tiff"


def cellvoyager(w: str, f: int, c: int, z: int, t: int) -> str:
    well = f"{w[0]}{int(w[1:]):02d}"
    return f"As_{well}_T{t + 1:04d}F{f + 1:03d}L01A{c + 1:02d}Z{z + 1:02d}C{c + 1:02d}.tif"


def openhcs(w: str, f: int, c: int, z: int, t: int) -> str:
    return f"{w[0]}{int(w[1:]):02d}_s{f + 1:03d}_w{c + 1}_z{z + 1:03d}_t{t + 1:03d}.tif"


NAMES = {
    "imagexpress": (imagexpress, ("w1", "w2")),
    "phenix": (phenix, ("ch1", "ch2")),
    "cellvoyager": (cellvoyager, ("A01_C01", "A02_C02")),
    "openhcs": (openhcs, ("w1", "w2")),
}


def fill(
    folder: Path, name: Callable[..., str], wells: tuple[str, ...] = ("B3", "A11"), fields: int = 2
) -> dict[tuple[str, int], Array]:
    """Write wells of 2 t × 2 c × 3 z; well and field -> its pixels."""
    written = {}
    for number, (well, field) in enumerate(itertools.product(wells, range(fields))):
        array = plane(number, (2, 2, 3, *SHAPE))
        for t, c, z in np.ndindex(2, 2, 3):
            put(folder, name(well, field, c, z, t), array[t, c, z])
        written[well, field] = array
    return written


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A Phenix folder of four fields."""
    fill(tmp_path / "raw", phenix)
    return tmp_path / "raw"


@pytest.fixture(autouse=True)
def _no_recent() -> Iterator[None]:
    folder_contents._recent.clear()
    yield
    folder_contents._recent.clear()


class Counting(DiskBackend):
    """Counts listings, opened files and the bytes that are read of them."""

    def __init__(self) -> None:
        self.listings, self.opened, self.bytes = 0, list[str](), 0

    def list_files(self, *args: Any, **kwargs: Any) -> list[str]:
        self.listings += 1
        return super().list_files(*args, **kwargs)

    def open_binary(self, identifier: Identifier) -> BinaryIO:
        file = super().open_binary(identifier)
        self.opened.append(Path(str(identifier)).name)
        read, outer = file.read, self

        class Counted:
            def read(self, count: int = -1) -> bytes:
                data = read(count)
                outer.bytes += len(data)
                return data

            def readinto(self, buffer: Any) -> int:
                count: int = file.readinto(buffer)  # type: ignore[attr-defined]
                outer.bytes += count
                return count

            def __enter__(self) -> Counted:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return Counted()  # type: ignore[return-value]


@pytest.mark.parametrize("vendor", NAMES)
def test_every_plane_of_a_vendors_folder_is_found_where_its_name_says(
    tmp_path: Path, vendor: str
) -> None:
    name, channels = NAMES[vendor]
    written = fill(tmp_path, name)
    plate = ps.open_plate(f"disk://{tmp_path}")
    assert plate.wells == ("A/11", "B/3"), "unpadded, by row and column"
    assert plate.channels == channels
    assert (len(plate.rows), len(plate.columns)) == (8, 12)
    assert plate.name == tmp_path.name
    for (well, field), array in written.items():
        image = plate[well].image(field)
        assert (image.shape, image.dtype) == ((2, 2, 3, *SHAPE), np.uint16)
        np.testing.assert_array_equal(image.read(), array)
        np.testing.assert_array_equal(image.plane(1, channels[1], 2), array[1, 1, 2])
    assert plate["B/03"].fields == ("0", "1")


def test_opening_reads_one_listing_and_one_header(tmp_path: Path) -> None:
    """A plate of a hundred gigabytes opens as fast as its folder is listed."""
    for well, channel in itertools.product(("A1", "A2", "B7"), range(3)):
        put(tmp_path, openhcs(well, 0, channel, 0, 0), plane(channel, (256, 256)))
    backend = Counting()
    plate = backend.open_plate(f"disk://{tmp_path}")
    assert plate["A1"].image(0).shape == (1, 3, 1, 256, 256)
    assert (backend.listings, backend.opened) == (1, ["A01_s001_w1_z001_t001.tif"])
    assert backend.bytes < 4096
    np.testing.assert_array_equal(plate["A1"].image(0).plane(0, "w3"), plane(2, (256, 256)))
    assert backend.opened[1:] == ["A01_s001_w3_z001_t001.tif"], "one plane is one file"
    assert 256 * 256 * 2 <= backend.bytes < 256 * 256 * 2 + 16_384


def test_opening_our_own_plate_lists_nothing_and_opens_no_image(tmp_path: Path) -> None:
    uri = f"disk://{tmp_path}/own"
    ps.create_plate(uri).write_image("A/1", 0, plane())
    backend = Counting()
    assert backend.open_plate(uri)["A1"].image(0).shape == (1, 1, 1, *SHAPE)
    assert (backend.listings, backend.opened) == (0, [])


def test_names_without_z_whose_files_hold_pages_are_stacks(tmp_path: Path) -> None:
    stack = plane(1, (5, *SHAPE))
    put(tmp_path, "A01_s1_w1.tif", stack, photometric="minisblack")
    image = ps.open_plate(f"disk://{tmp_path}")["A1"].image(0)
    assert image.shape == (1, 1, 5, *SHAPE)
    np.testing.assert_array_equal(image.read()[0, 0], stack)
    np.testing.assert_array_equal(image.plane(z=3), stack[3])


def test_channels_may_lie_in_one_file(tmp_path: Path) -> None:
    both = plane(1, (2, *SHAPE))
    put(tmp_path, "A01_s1_z1.ome.tif", both, metadata={"axes": "CYX"})
    put(tmp_path, "A01_s1_z2.ome.tif", both + 1, metadata={"axes": "CYX"})
    plate = ps.open_plate(f"disk://{tmp_path}?pattern=" + quote(r"(?P<well>\w\d\d)_s1_z(?P<z>\d)"))
    assert plate.channels == ("0", "1")
    np.testing.assert_array_equal(plate["A1"].image(0).plane(c=1, z=1), both[1] + 1)


def test_an_axis_that_names_and_files_both_count_is_refused(tmp_path: Path) -> None:
    for z in (1, 2):
        put(tmp_path, f"A01_s1_w1_z{z}.tif", plane(1, (4, *SHAPE)), photometric="minisblack")
    with pytest.raises(MismatchError, match="along z"):
        ps.open_plate(f"disk://{tmp_path}")


def test_a_missing_plane_is_named_as_its_file_would_be(raw: Path) -> None:
    (raw / phenix("B3", 1, 1, 2, 0)).unlink()
    image = ps.open_plate(f"disk://{raw}")["B3"].image(1)
    image.plane(0, 1, 1)
    with pytest.raises(NotFoundError, match=re.escape(phenix("B3", 1, 1, 2, 0))):
        image.plane(0, 1, 2)
    with pytest.raises(NotFoundError, match=re.escape(phenix("B3", 1, 1, 2, 0))):
        image.read()


def test_a_plane_that_vanished_since_the_listing_is_named(raw: Path) -> None:
    image = ps.open_plate(f"disk://{raw}")["B3"].image(1)
    (raw / phenix("B3", 1, 1, 2, 0)).unlink()
    with pytest.raises(NotFoundError, match=re.escape(phenix("B3", 1, 1, 2, 0))):
        image.plane(0, 1, 2)


@pytest.mark.parametrize("other", [plane(0, (10, 10)), plane().astype(np.uint8)])
def test_a_plane_of_another_kind_is_refused_by_name(raw: Path, other: Array) -> None:
    """Broadcast or wrapped into the array it would be wrong without a word."""
    put(raw, phenix("B3", 1, 1, 2, 0), other)
    image = ps.open_plate(f"disk://{raw}")["B3"].image(1)
    with pytest.raises(MismatchError) as caught:
        image.read()
    text = str(caught.value)
    assert phenix("B3", 1, 1, 2, 0) in text
    assert str(other.dtype) in text
    assert "uint16 of shape" in text


def test_a_truncated_file_is_named(raw: Path) -> None:
    path = raw / phenix("A11", 0, 0, 1, 1)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CorruptDataError, match=re.escape(phenix("A11", 0, 0, 1, 1))):
        ps.open_plate(f"disk://{raw}")["A11"].image(0).read()


def test_two_files_of_one_plane_are_named(raw: Path) -> None:
    put(raw, "copy/" + phenix("B3", 0, 0, 0, 0), plane())
    with pytest.raises(AmbiguousPlateError, match=re.escape("copy/" + phenix("B3", 0, 0, 0, 0))):
        ps.open_plate(f"disk://{raw}")


def test_an_unknown_folder_is_named_with_what_can_be_done(tmp_path: Path) -> None:
    put(tmp_path, "scan-1.tif", plane())
    with pytest.raises(UnknownLayoutError) as caught:
        ps.open_plate(f"disk://{tmp_path}")
    assert str(tmp_path) in str(caught.value)
    assert "scan-1.tif" in str(caught.value)


def test_missing_and_empty_folders_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        with pytest.raises(NotFoundError, match="create_plate"):
            ps.open_plate(f"disk://{tmp_path}/{folder}")


def test_a_users_pattern_stands_in_the_query(tmp_path: Path) -> None:
    put(tmp_path, "exp/b-03-DAPI.tif", plane(1))
    put(tmp_path, "exp/b-03-GFP.tif", plane(2))
    regex = r"(?P<row>\w)-(?P<column>\d+)-(?P<channel>\w+)\.tif"
    plate = ps.open_plate(f"disk://{tmp_path}?pattern={quote(regex)}")
    assert (plate.wells, plate.channels) == (("B/3",), ("DAPI", "GFP"))
    query = [("pattern", regex), ("c", "GFP"), ("z", "0"), ("t", "0")]
    backend = ps.get_backend("disk")
    loaded = folder_plate.load_part(backend, f"disk://{tmp_path}", "B/3/0", query)
    np.testing.assert_array_equal(loaded, plane(2))
    uri = f"disk://{tmp_path}/B/3/0?c=GFP&z=0&t=0&pattern={quote(regex)}"
    np.testing.assert_array_equal(ps.load(uri), plane(2))
    assert ps.exists(uri)
    with pytest.raises(URIError, match="patern"):
        ps.open_plate(f"disk://{tmp_path}?patern=x")


def test_stray_images_are_reported_on_the_plate(raw: Path) -> None:
    put(raw, "overview.tif", plane())
    plate = ps.open_plate(f"disk://{raw}")
    assert isinstance(plate, folder_plate.FolderPlate)
    assert plate.ignored == ("overview.tif",)


def test_the_pixel_size_comes_from_the_first_file(tmp_path: Path) -> None:
    put(
        tmp_path,
        "A01_s1_w1.tif",
        plane(),
        imagej=True,
        resolution=(1 / 0.325, 1 / 0.325),
        metadata={"unit": "um", "spacing": 1.5},
    )
    assert ps.open_plate(f"disk://{tmp_path}").pixel_size == pytest.approx((1.5, 0.325, 0.325))


def test_harmonys_index_names_channels_and_sizes(raw: Path) -> None:
    (raw / "Images" / "Index.idx.xml").write_text(
        """<E xmlns="http://www.perkinelmer.com/PEHH/HarmonyV5"><Plates><Plate>
        <PlateRows>16</PlateRows><PlateColumns>24</PlateColumns></Plate></Plates><Images>"""
        + "".join(
            f"""<Image><Row>1</Row><Col>11</Col><FieldID>1</FieldID><PlaneID>{z}</PlaneID>
            <ChannelID>{c}</ChannelID><ChannelName>{name}</ChannelName>
            <ImageResolutionX Unit="m">6.5E-07</ImageResolutionX>
            <PositionZ Unit="m">{z * 2}E-06</PositionZ></Image>"""
            for c, name in ((1, "HOECHST"), (2, "Alexa 488"))
            for z in (1, 2, 3)
        )
        + "</Images></E>"
    )
    plate = ps.open_plate(f"disk://{raw}")
    assert plate.channels == ("HOECHST", "Alexa 488")
    assert plate.pixel_size == pytest.approx((2.0, 0.65, 0.65))
    assert (len(plate.rows), len(plate.columns)) == (16, 24)
    (raw / "Images" / "Index.idx.xml").write_text("<E><Image>")
    with pytest.raises(CorruptMetadataError, match=r"Index\.idx\.xml"):
        ps.open_plate(f"disk://{raw}")


def test_an_htd_file_names_the_channels(tmp_path: Path) -> None:
    fill(tmp_path, imagexpress)
    text = '"WaveName1", "DAPI"\r\n"WaveName2", "DAPI"\r\n"XWells", 4\r\n"YWells", 4\r\n'
    (tmp_path / "Plate1.HTD").write_text(text)
    plate = ps.open_plate(f"disk://{tmp_path}")
    assert plate.channels == ("DAPI w1", "DAPI w2"), "names that do not tell apart keep the id"
    assert (len(plate.rows), len(plate.columns)) == (8, 12), "a grid without well A11 is wrong"


def test_openhcs_metadata_names_channels_pixel_size_and_the_main_folder(tmp_path: Path) -> None:
    fill(tmp_path / "images", openhcs)
    put(tmp_path / "results", openhcs("B3", 0, 0, 0, 0), plane())
    part = {"channels": {"1": "DAPI", "2": None}, "pixel_size": 0.5}
    document = {"subdirectories": {"results": {}, "images": {**part, "main": True}}}
    (tmp_path / "openhcs_metadata.json").write_text(json.dumps(document))
    plate = ps.open_plate(f"disk://{tmp_path}")
    assert plate.channels == ("DAPI", "w2")
    assert plate.pixel_size == (1.0, 0.5, 0.5)


def test_planes_of_a_vendors_folder_have_uris(raw: Path, tmp_path: Path) -> None:
    written = fill(tmp_path / "again", phenix)["B3", 1]
    for address in ("B/03/1?c=ch2&z=2&t=1", "B/3/1?c=1&z=2&t=1", "B03_s002_w2_z003_t002.tif"):
        uri = f"disk://{raw}/{address}"
        np.testing.assert_array_equal(ps.load(uri), written[1, 1, 2])
        assert ps.exists(uri)
    np.testing.assert_array_equal(ps.load(f"disk://{raw}/B/3/1?c=ch2"), written[:, 1])
    assert ps.load(f"disk://{raw}/B/3/1").shape == (2, 2, 3, *SHAPE)
    with pytest.raises(AddressError, match="ch1, ch2"):
        ps.load(f"disk://{raw}/B/3/1?c=DAPI")
    with pytest.raises(UnsupportedError, match="field"):
        ps.load(f"disk://{raw}/B/3")


def test_only_what_is_there_exists(raw: Path) -> None:
    """exists() that says yes to all that parses makes a workflow skip its work."""
    (raw / phenix("B3", 1, 1, 2, 1)).unlink()
    there = ["B/3", "B/03", "A/11/1", "B/3/1?c=ch1&z=2&t=1", "B/3/1"]
    absent = ["B/4", "C/3", "B/3/2", "B/3/0?c=DAPI", "B/3/0?z=3", "B/3/0?level=1"]
    absent += ["B/3/1?c=ch2&z=2&t=1", "B/3/0/labels/nuclei", "B03_s003_w1_z001_t001.tif"]
    assert [a for a in there if not ps.exists(f"disk://{raw}/{a}")] == []
    assert [a for a in absent if ps.exists(f"disk://{raw}/{a}")] == []
    assert not ps.exists(f"disk://{raw}-no/B/3")
    put(raw.parent / "other", "scan.tif", plane())
    assert not ps.exists(f"disk://{raw.parent}/other/B/3")


def test_a_part_is_as_old_as_its_newest_file_and_as_big_as_all(raw: Path) -> None:
    files = [p for p in raw.rglob("*.tiff") if p.name.startswith("r02c03")]
    for i, path in enumerate(sorted(files)):
        os.utime(path, (1000 + i, 1000 + i))
    well, field = (ps.stat(f"disk://{raw}/{a}") for a in ("B/3", "B/3/0"))
    assert (well.kind, field.kind) == ("well", "field")
    assert (well.mtime, field.mtime) == (1000 + 23, 1000 + 11)
    assert well.size == sum(path.stat().st_size for path in files) == 2 * field.size
    with pytest.raises(NotFoundError, match="B/4"):
        ps.stat(f"disk://{raw}/B/4")


def test_many_parts_of_an_old_folder_cost_one_listing(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the cost of a loop over a plate's wells grows with the square of the plate."""
    monkeypatch.setattr(folder_contents, "_FRESH", 60.0)
    for folder in (raw, raw / "Images"):
        os.utime(folder, (1000, 1000))
    backend = Counting()
    for well, field in itertools.product(("A/11", "B/3"), range(2)):
        query = [("z", "1"), ("c", "0"), ("t", "0")]
        folder_plate.load_part(backend, f"disk://{raw}", f"{well}/{field}", query)
    assert (backend.listings, len(backend.opened)) == (1, 1 + 4)
    (raw / phenix("B3", 1, 0, 1, 0)).unlink()
    with pytest.raises(NotFoundError):
        folder_plate.load_part(backend, f"disk://{raw}", "B/3/1", query)
    assert backend.listings == 2, "the folder changed"
    folder_plate.load_part(backend, f"disk://{raw}", "B/3/0", query)
    assert backend.listings == 3, "it changed a moment ago, perhaps within its time stamp"


@pytest.mark.parametrize("name", [phenix, openhcs])
def test_a_microscopes_images_are_not_changed_but_labels_and_tables_are_added(
    tmp_path: Path, name: Callable[..., str]
) -> None:
    raw = tmp_path / "raw"
    fill(raw, name)
    before = {p: p.read_bytes() for p in raw.rglob("*.tif*")}
    plate = ps.open_plate(f"disk://{raw}", "r+")
    with pytest.raises(UnsupportedError, match="create_plate"):
        plate.write_image("B/3", 0, plane(0, (2, 2, 3, *SHAPE)), overwrite=True)
    labels = plane(9, (2, 1, 3, *SHAPE))
    plate.write_label("B/3", 1, "nuclei", labels)
    plate.write_table("tables/counts.csv", pd.DataFrame({"well": ["B/3"], "n": [7]}))
    again = ps.open_plate(f"disk://{raw}")
    assert again["B3"].image(1).labels == ("nuclei",)
    assert again["B3"].image(0).labels == ()
    np.testing.assert_array_equal(again["B3"].image(1).label("nuclei").read(), labels)
    assert again.read_table("tables/counts.csv")["n"].tolist() == [7]
    assert before.items() <= {p: p.read_bytes() for p in raw.rglob("*.tif*")}.items()
