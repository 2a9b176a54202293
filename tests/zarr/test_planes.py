"""Single planes of a field are saved without losing one, or refused with what to do instead."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.errors import (
    AddressError,
    AlreadyExistsError,
    MismatchError,
    UnsupportedError,
)
from polystore_flows.hcs.plate import Plate
from polystore_flows.hcs.provenance import Provenance

Pixels = Callable[..., Any]
SHAPE = (2, 2, 3, 45, 67)
PLANES = list(product(range(2), ("DAPI", "GFP"), range(3)))


def _uris(field: str) -> list[str]:
    return [f"{field}?t={t}&c={c}&z={z}" for t, c, z in PLANES]


def test_a_plane_replaces_one_of_a_field_and_the_rest_stays(plate: Plate, pixels: Pixels) -> None:
    """Of the pyramid and the display window too; label images and tables outlive it."""
    array, plane = pixels(), pixels((45, 67), seed=7) + 20000
    labels = pixels((2, 1, 3, 45, 67), "int32")
    plate.write_well("B/3", {0: array, 1: array}, {0: {"nuclei": labels}})
    ps.save(plane, f"{plate.uri}/B/03/0?t=1&c=GFP&z=2", overwrite=True)
    array[1, 1, 2] = plane
    image = plate["B/3"].image(0)
    np.testing.assert_array_equal(image.read(), array)
    assert image.plane(1, 1, 2, level=1).min() >= 20000
    np.testing.assert_array_equal(image.label("nuclei").read(), labels)
    np.testing.assert_array_equal(plate["B/3"].image(1).read(), pixels())
    assert ps.get_backend("zarr").check_plate(plate.uri) == []


def test_a_plane_by_its_openhcs_name_replaces_the_same_plane(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 1, pixels())
    plane = pixels((45, 67), seed=7)
    ps.save(plane, f"{plate.uri}/B03_s002_w2_z003_t001.tif", overwrite=True)
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/1?t=0&c=GFP&z=2"), plane)
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/1?t=1"), pixels()[1])


def test_a_whole_channel_replaces_one_of_a_field(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    ps.save(pixels((2, 3, 45, 67), seed=7), f"{plate.uri}/B/3/0?c=GFP", overwrite=True)
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/0?c=0"), pixels()[:, 0])
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/3/0?c=1"), pixels((2, 3, 45, 67), seed=7))


def test_what_others_keep_in_a_field_outlives_its_planes(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    group = Path(plate.uri.removeprefix("zarr://")) / "B/3/0"
    document = next(p for p in (group / "zarr.json", group / ".zattrs") if p.exists())
    content = json.loads(document.read_text())
    content.get("attributes", content)["theirs"] = {"a": 1}
    document.write_text(json.dumps(content))
    ps.save(pixels((45, 67)), f"{plate.uri}/B/3/0?t=0&c=0&z=0", overwrite=True)
    content = json.loads(document.read_text())
    assert content.get("attributes", content)["theirs"] == {"a": 1}


def test_all_planes_in_one_batch_make_a_new_field(plate: Plate, pixels: Pixels) -> None:
    """As a pipeline saves what it has computed of a well; in one commit for each well."""
    array = pixels()
    uris = _uris(f"{plate.uri}/B/3/0")
    uris += [
        f"{plate.uri}/B03_s002_w{c + 1}_z{z + 1:03d}_t{t + 1:03d}.tif"
        for t, c, z in product(range(2), range(2), range(3))
    ]
    planes = list(array.reshape(-1, 45, 67))
    order = np.random.default_rng(0).permutation(24)
    ps.save_batch([(planes * 2)[i] for i in order], [uris[i] for i in order])
    assert plate["B/3"].fields == ("0", "1")
    np.testing.assert_array_equal(plate["B/3"].image(0).read(), array)
    np.testing.assert_array_equal(plate["B/3"].image(1).read(), array)


def test_a_new_field_without_all_of_its_planes_is_refused(plate: Plate, pixels: Pixels) -> None:
    """Else it would be listed with black planes in it."""
    planes = list(pixels().reshape(-1, 45, 67))
    with pytest.raises(UnsupportedError, match=r"B/3/0 does not exist, and 1 of its 12 planes"):
        ps.save_batch(planes[1:], _uris(f"{plate.uri}/B/3/0")[1:])
    with pytest.raises(UnsupportedError, match=r"3999999999 .* missing; save all planes of a new"):
        ps.save(planes[0], f"{plate.uri}/B/3/0?t=999999999&c=1&z=1", overwrite=True)
    plate.write_image("A/1", 0, pixels())
    with pytest.raises(UnsupportedError, match=r"11 of its 12 planes are missing"):
        ps.save(planes[0], f"{plate.uri}/B03_s001_w1_z001_t001.tif")
    assert plate.wells == ("A/1",)


def test_planes_that_do_not_fit_change_nothing(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    uri, plane = f"{plate.uri}/B/3/0", pixels((45, 67))
    wrong: list[tuple[type[Exception], str, list[Any], list[str]]] = [
        (MismatchError, "float32, but these planes", [plane.astype("f4")], ["t=0&c=0&z=0"]),
        (MismatchError, r"\(45, 66\)|45, 66", [plane[:, 1:]], ["t=0&c=0&z=0"]),
        (MismatchError, "given twice", [plane, plane], ["t=0&c=0&z=0", "t=0&c=DAPI&z=0"]),
        (MismatchError, "given twice", [pixels(), plane], ["", "t=0&c=DAPI&z=0"]),
        (AddressError, "no channel 'Cy5'", [plane], ["t=0&c=Cy5&z=0"]),
        (AddressError, "z=3 is outside", [plane, plane], ["t=0&c=0&z=0", "t=0&c=0&z=3"]),
        (UnsupportedError, "level 0 is saved", [plane], ["t=0&c=0&z=0&level=1"]),
    ]
    for error, message, data, queries in wrong:
        with pytest.raises(error, match=message):
            ps.save_batch(data, [f"{uri}?{q}".rstrip("?") for q in queries], overwrite=True)
    with pytest.raises(AlreadyExistsError, match=r"B/3/0\?t=0.* exists; give overwrite=True"):
        ps.save(plane, f"{uri}?t=0&c=0&z=0")
    plate.write_label("B/3", 0, "nuclei", pixels((2, 1, 3, 45, 67), "int32"))
    with pytest.raises(UnsupportedError, match="a plane of a label image cannot be saved alone"):
        ps.save(plane, f"{uri}/labels/nuclei?t=0&z=0", overwrite=True)
    np.testing.assert_array_equal(plate["B/3"].image(0).read(), pixels())


@pytest.fixture(params=["0.4", "0.5"])
def stored(request: pytest.FixtureRequest) -> Plate:
    """An empty plate in memory, where nothing is renamed or locked."""
    uri = f"zarr+memory://{uuid.uuid4().hex}/p.zarr"
    options: Any = {"ngff_version": request.param, "levels": 2}
    return ps.create_plate(uri, channels=["DAPI", "GFP"], **options)


def test_a_plane_replaces_one_of_a_field_in_a_store(stored: Plate, pixels: Pixels) -> None:
    """The label images stay those of the field, and so does what made it."""
    array, plane = pixels(), pixels((45, 67), seed=7)
    labels = pixels((2, 1, 3, 45, 67), "int32")
    made = Provenance("ours", "1")
    stored.write_well("B/3", {0: array}, {0: {"nuclei": labels}}, provenance=made)
    ps.save(plane, f"{stored.uri}/B/03/0?t=1&c=GFP&z=2", overwrite=True)
    array[1, 1, 2] = plane
    field = stored["B/3"].image(0)
    np.testing.assert_array_equal(field.read(), array)
    np.testing.assert_array_equal(field.label("nuclei").read(), labels)
    assert stored["B/3"].provenance(0) == made
    assert ps.get_backend("zarr").check_plate(stored.uri) == []


def test_8_threads_that_save_planes_of_one_field_in_a_store_lose_none(stored: Plate) -> None:
    stored.write_image("B/3", 0, np.zeros((1, 2, 8, 16, 16), "u2"))

    def save(z: int) -> None:
        ps.save(np.full((16, 16), z + 1, "u2"), f"{stored.uri}/B/3/0?t=0&c=1&z={z}", overwrite=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(8)))
    field = stored["B/3"].image(0).read()[0]
    assert not field[0].any()
    np.testing.assert_array_equal(field[1].min((1, 2)), np.arange(8) + 1)
    np.testing.assert_array_equal(field[1].max((1, 2)), np.arange(8) + 1)
    assert ps.get_backend("zarr").check_plate(stored.uri) == []
