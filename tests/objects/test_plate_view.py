"""A folder of TIFFs is read as OME-Zarr, although no OME-Zarr is stored anywhere."""

from __future__ import annotations

import pickle
import uuid

import numpy as np
import ome_zarr_models
import pytest
import zarr
from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.core.sync import _collect_aiterator

import polystore_flows as ps
from polystore_flows.contracts import BackendBase, PlateStore
from polystore_flows.errors import NotFoundError, UnknownBackendError
from polystore_flows.registry import storage_registry

SHAPE = (2, 2, 3, 20, 30)


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(1, 4000, SHAPE).astype("uint16")


@pytest.fixture(params=["memory", "disk"])
def uri(request, tmp_path, array):
    root = f"memory://{uuid.uuid4().hex}" if request.param == "memory" else f"disk://{tmp_path}"
    plate = ps.create_plate(
        f"{root}/plate", layout=96, channels=["DAPI", "GFP"], pixel_size=(2, 0.65, 0.65)
    )
    plate.write_well("B/03", {0: array, 1: array + 1}, {0: {"nuclei": array[:, :1]}})
    plate.write_image("H/12", 0, array + 2)
    return plate.uri


def test_zarr_and_the_models_of_ngff_read_it(uri, array):
    group = zarr.open_group(ps.zarr_store(uri, as_plate=True), mode="r")
    assert isinstance(ome_zarr_models.open_ome_zarr(group), ome_zarr_models.v05.HCS)
    well = ps.open_plate(uri).wells[0]
    np.testing.assert_array_equal(group[f"{well}/0/0"][:], array)
    np.testing.assert_array_equal(group[f"{well}/1/0"][1, 1, 2], array[1, 1, 2] + 1)
    np.testing.assert_array_equal(group[f"{well}/0/labels/nuclei/0"][:], array[:, 0])
    assert group[f"{well}/0/0"].metadata.dimension_names == ("t", "c", "z", "y", "x")
    scale = group[f"{well}/0"].attrs["ome"]["multiscales"][0]["datasets"][0]
    assert scale["coordinateTransformations"][0]["scale"] == [1, 1, 2, 0.65, 0.65]
    assert [c["label"] for c in group[f"{well}/0"].attrs["ome"]["omero"]["channels"]] == [
        "DAPI",
        "GFP",
    ]
    assert {name for name, _ in group.members()} == {"B", "H"}


async def test_keys_are_listed_and_read_in_parts(uri, array):
    store = ps.zarr_store(uri, as_plate=True)
    well = ps.open_plate(uri).wells[0]
    keys = await _collect_aiterator(store.list())
    chunks = 2 * 2 * 3
    assert sum("/c/" in key for key in keys) == 3 * chunks + 2 * 3
    for key in keys:
        assert await store.exists(key)
    below = await _collect_aiterator(store.list_prefix(f"{well}/1/0/c/1/"))
    assert len(below) == chunks / 2
    key = f"{well}/0/0/c/1/0/2/0/0"
    plane = array[1, 0, 2].tobytes()
    prototype = default_buffer_prototype()
    for part, wanted in (
        (None, plane),
        (RangeByteRequest(10, 20), plane[10:20]),
        (SuffixByteRequest(7), plane[-7:]),
    ):
        assert (await store.get(key, prototype, part)).to_bytes() == wanted
    assert await store.getsize(key) == len(plane)
    for missing in ("none", f"{well}", f"{well}/0/0/c/2/0/0/0/0", f"{well}/9/zarr.json", "Z/1/0"):
        assert await store.get(missing, prototype) is None
        assert not await store.exists(missing)
    assert await _collect_aiterator(store.list_dir("none")) == ()
    assert await store.is_empty("none")


async def test_it_is_read_only_and_pickled_without_the_plate(uri):
    store = ps.zarr_store(uri, as_plate=True)
    assert store.read_only
    for change in (store.set("a", cpu.Buffer.from_bytes(b"x")), store.delete("zarr.json")):
        with pytest.raises(ValueError, match="read-only"):
            await change
    with pytest.raises(ValueError, match="reading only"):
        ps.zarr_store(uri, as_plate=True, read_only=False)
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.with_read_only() == store
    assert repr(store) == f"PlateView('{uri}')"
    assert "zarr.json" in await _collect_aiterator(again.list_dir(""))


def test_what_is_no_plate_is_told(tmp_path):
    with pytest.raises(NotFoundError):
        ps.zarr_store(f"disk://{tmp_path}/none", as_plate=True)
    with pytest.raises(UnknownBackendError):
        ps.zarr_store("nothing://host/plate/1")


def test_a_backend_without_files_is_shown_as_plates(uri, array):
    class Virtual(BackendBase, PlateStore):
        """As a server of images would be: plates, and no bytes."""

        def open_plate(self, _uri, mode="r"):
            return ps.open_plate(uri, mode)

        def create_plate(self, uri, spec, *, exist_ok=False):
            raise NotImplementedError

    storage_registry["virtual"] = Virtual()
    try:
        group = zarr.open_group(ps.zarr_store("virtual://host/plate/7"), mode="r")
        np.testing.assert_array_equal(group["H/12/0/0"][:], array + 2)
    finally:
        del storage_registry["virtual"]


def test_an_empty_plate_is_a_group(tmp_path):
    plate = ps.create_plate(f"disk://{tmp_path}/plate")
    group = zarr.open_group(ps.zarr_store(plate.uri, as_plate=True), mode="r")
    assert list(group.members()) == []
