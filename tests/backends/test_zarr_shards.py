"""Shards that are written directly are what zarr-python writes, and damage to them raises."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, ShardingCodec

import polystore_flows as ps
from polystore_flows.backends.zarr import array_layout
from polystore_flows.backends.zarr.shards import ShardedArray, open_sharded
from polystore_flows.errors import CorruptDataError

AXES = ("t", "c", "z", "y", "x")
Pixels = Callable[..., Any]


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
              "float32", "float64"]
)  # fmt: skip
def test_zarr_python_reads_what_is_written(tmp_path: Path, pixels: Pixels, dtype: str) -> None:
    array = pixels(dtype=dtype)
    array[0, 1] = 0  # planes of zeros are not stored
    ShardedArray(tmp_path / "a", array.shape, array.shape, array.dtype).write(array, AXES)
    stored = zarr.open_array(tmp_path / "a", mode="r")
    assert stored.dtype == array.dtype
    assert stored.metadata.dimension_names == AXES
    np.testing.assert_array_equal(stored[...], array)


@settings(max_examples=60)
@given(data=st.data())
def test_any_shape_shard_and_selection_is_read_as_zarr_python_reads_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = tuple(data.draw(st.integers(1, 4)) for _ in range(5))
    shard = (*(data.draw(st.integers(1, n)) for n in shape[:3]), *shape[3:])
    array = np.random.default_rng(0).integers(0, 3, shape, "uint16")
    array[data.draw(st.integers(0, shape[0] - 1))] = 0
    path = tmp_path_factory.mktemp("shards") / "a"
    ShardedArray(path, shape, shard, array.dtype).write(array, AXES)
    leading = [data.draw(st.one_of(st.just(slice(None)), st.integers(0, n - 1))) for n in shape[:3]]
    index = (*leading, slice(None), slice(None))
    opened = open_sharded(path)
    assert opened is not None
    np.testing.assert_array_equal(opened[index], array[index])
    np.testing.assert_array_equal(zarr.open_array(path, mode="r")[index], array[index])


def test_shards_of_zarr_python_are_read_directly(tmp_path: Path, pixels: Pixels) -> None:
    array = pixels()
    inner = (1, 1, 1, *array.shape[-2:])
    stored = zarr.create_array(
        tmp_path / "a",
        shape=array.shape,
        dtype=array.dtype,
        chunks=inner,
        shards=array.shape,
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=2),
        fill_value=0,
    )
    stored[...] = array
    opened = open_sharded(tmp_path / "a")
    assert opened is not None
    assert not opened.checksums
    np.testing.assert_array_equal(opened[(slice(None),) * 5], array)


@pytest.mark.parametrize(
    "options",
    [
        {"fill_value": 7},
        {"dtype": ">u2", "serializer": BytesCodec(endian="big")},
        {"chunks": (1, 1, 1, 5, 67), "shards": None},
        {
            "shards": None,
            "chunks": (2, 2, 3, 45, 67),
            "compressors": None,
            "serializer": ShardingCodec(chunk_shape=(1, 1, 1, 45, 67), index_location="start"),
        },
    ],
    ids=["fill value", "big-endian", "unsharded", "index first"],
)
def test_other_arrays_are_left_to_zarr_python(
    tmp_path: Path, pixels: Pixels, options: dict[str, Any]
) -> None:
    array = pixels()
    common = {
        "shape": array.shape,
        "dtype": "uint16",
        "chunks": (1, 1, 1, 45, 67),
        "shards": array.shape if "serializer" not in options else None,
        "fill_value": 0,
    }
    zarr.create_array(tmp_path / "a", **(common | options))[...] = array
    assert open_sharded(tmp_path / "a") is None


def test_large_fields_are_cut_into_shards(
    tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = pixels((3, 2, 4, 45, 67))
    monkeypatch.setattr(array_layout, "SHARD_BYTES", 4 * 45 * 67 * 2)
    plate = ps.create_plate(tmp_path / "p.zarr")
    plate.write_image("A/1", 0, array)
    level = tmp_path / "p.zarr" / "A" / "1" / "0" / "0"
    assert len([p for p in (level / "c").rglob("*") if p.is_file()]) == 6
    np.testing.assert_array_equal(plate["A/1"].image(0).read(), array)
    np.testing.assert_array_equal(plate["A/1"].image(0).plane(t=2, c=1, z=3), array[2, 1, 3])
    np.testing.assert_array_equal(zarr.open_array(level, mode="r")[...], array)


@pytest.mark.parametrize("where", ["chunk", "index", "end"])
def test_a_damaged_shard_raises_and_names_its_field(
    tmp_path: Path, pixels: Pixels, where: str
) -> None:
    plate = ps.create_plate(tmp_path / "p.zarr")
    plate.write_image("B/3", 0, pixels())
    shard = next(p for p in (tmp_path / "p.zarr/B/3/0/0/c").rglob("*") if p.is_file())
    content = bytearray(shard.read_bytes())
    if where == "end":
        del content[-1]
    else:
        content[100 if where == "chunk" else -20] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"^zarr:///.*/B/3/0 cannot be read: .*CRC-32C"):
        plate["B/3"].image(0).read()


def test_a_plane_costs_its_chunk_and_the_shards_index(
    tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = pixels((2, 3, 5, 64, 64))
    plate = ps.create_plate(tmp_path / "p.zarr")
    plate.write_image("B/3", 0, array)
    image = plate["B/3"].image(0)
    image.plane()
    shard = next(p for p in (tmp_path / "p.zarr/B/3/0/0/c").rglob("*") if p.is_file())
    read: list[int] = []
    pread = os.pread

    def counted(file: int, length: int, offset: int) -> bytes:
        read.append(length)
        return bytes(pread(file, length, offset))

    monkeypatch.setattr("os.pread", counted)
    image.plane(t=1, c=2, z=4)
    planes = 2 * 3 * 5
    assert len(read) == 2
    assert sum(read) < shard.stat().st_size / planes * 1.2 + 16 * planes + 4
