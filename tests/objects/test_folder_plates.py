"""Folders of TIFFs as plates on an object store, and what they cost in requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.errors import AlreadyExistsError

SHAPE = (1, 2, 3, 200, 300)


@pytest.fixture
def plate(rig):
    return ps.create_plate(
        f"{rig.root}/plate", layout=96, channels=["DAPI", "GFP"], pixel_size=(1, 0.65, 0.65)
    )


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 4000, SHAPE).astype("uint16")


def test_what_is_written_is_read_back_by_plate_and_by_uri(rig, plate, array):
    plate.write_image("B/03", 0, array)
    plate.write_label("B/03", 0, "nuclei", array[:, :1].astype("uint32"))
    plate.write_table("tables/counts.csv", [{"well": "B/03", "nuclei": 7}])
    again = ps.open_plate(plate.uri)
    assert again.wells == ("B/3",)
    assert again.channels == ("DAPI", "GFP")
    assert again.pixel_size == (1, 0.65, 0.65)
    image = again["B/03"].image(0)
    np.testing.assert_array_equal(image.read(), array)
    np.testing.assert_array_equal(image.plane(c="GFP", z=2), array[0, 1, 2])
    np.testing.assert_array_equal(image.label("nuclei").read(), array[:, :1])
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/03/0?c=DAPI&z=1&t=0"), array[0, 0, 1])
    assert ps.load(f"{plate.uri}/tables/counts.csv")["nuclei"].tolist() == [7]
    assert ps.exists(f"{plate.uri}/B/3")
    assert not ps.exists(f"{plate.uri}/B/4")
    with pytest.raises(AlreadyExistsError):
        plate.write_image("B/03", 0, array)
    with pytest.raises(AlreadyExistsError):
        ps.create_plate(plate.uri, layout=96, channels=["DAPI"], pixel_size=(1, 1, 1))


def test_opening_a_plate_is_one_request(rig, plate, array):
    for well in ("B/03", "C/04", "D/05"):
        plate.write_image(well, 0, array)
    rig.server.reset()
    ps.open_plate(plate.uri)
    assert rig.server.requests == {"GET": 1}


def test_a_plane_is_written_by_two_requests_and_read_by_two(rig, plate, array):
    plate.write_image("B/03", 0, array)
    rig.server.reset()
    plate.write_image("C/03", 0, array)
    planes = 6
    requests = rig.server.requests
    assert requests["PUT"] == planes + 1  # and the document
    assert requests["LIST"] <= planes + 1  # is there a folder of this name? and: are there labels?
    assert requests["GET"] <= 2
    image = plate["C/03"].image(0)
    rig.server.reset()
    image.plane(c=0, z=0)
    assert requests.total() <= 2
    rig.server.reset()
    image.read()
    assert requests.total() <= 2 * planes


def test_the_header_of_a_large_image_is_read_without_its_pixels(rig):
    identifier = f"{rig.root}/large.tif"
    noise = np.random.default_rng(0).integers(0, 60000, (2000, 2000)).astype("uint16")
    ps.save(noise, identifier)
    from polystore_flows.backends.codecs import read_image_header

    rig.server.reset()
    with rig.backend.open_binary(identifier) as file:
        header = read_image_header(file, "large.tif", where=identifier)
    assert header.tczyx[3:] == (2000, 2000)
    assert rig.server.requests == {"GET": 1}
    assert rig.server.sent <= 64 * 1024
    np.testing.assert_array_equal(ps.load(identifier), noise)


def test_a_microscopes_folder_is_a_plate(rig, array):
    for well in ("B02", "B03"):
        for channel in (1, 2):
            ps.save(array[0, channel - 1, 0], f"{rig.root}/raw/{well}_s1_w{channel}.tif")
    raw = ps.open_plate(f"{rig.root}/raw")
    assert raw.wells == ("B/2", "B/3")
    np.testing.assert_array_equal(raw["B/3"].image(0).plane(c=1), array[0, 1, 0])


def test_a_plate_is_copied_to_and_from_a_store(rig, plate, array, tmp_path):
    plate.write_image("B/03", 0, array)
    ps.copy(plate.uri, f"zarr:{tmp_path}/p.zarr")
    ps.copy(f"zarr:{tmp_path}/p.zarr", f"{rig.root}/back")
    for uri in (f"zarr:{tmp_path}/p.zarr", f"{rig.root}/back"):
        np.testing.assert_array_equal(ps.open_plate(uri)["B/3"].image(0).read(), array)


def test_writers_of_many_wells_lose_none(plate):
    array = np.ones((1, 2, 1, 8, 8), "uint16")

    def write(column):
        ps.open_plate(plate.uri, "r+").write_image(f"B/{column}", 0, array * column)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(1, 13)))
    again = ps.open_plate(plate.uri)
    assert again.wells == tuple(f"B/{column}" for column in range(1, 13))
    for column in range(1, 13):
        assert again[f"B/{column}"].image(0).read().max() == column
