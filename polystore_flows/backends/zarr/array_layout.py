"""How an array is cut into chunks and shards, and written so.

A chunk is one plane or as much of the array as fits, by the plate's `ZarrConfig`. Shards of
planes are written by `shards`, all else by zarr-python.
"""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...hcs.zarr_config import ZarrChunkStrategy, ZarrConfig
from .chunk_codecs import ChunkCodec
from .shards import ShardedArray

SHARD_BYTES = 256 * 2**20
"""A shard, and a chunk of several planes, is kept below so many uncompressed bytes."""
CHUNK_BYTES = 2**30
"""A larger plane is cut into chunks; Blosc takes less than 2 GiB."""


def write_array(path: Path, array: NDArray[Any], axes: tuple[str, ...], config: ZarrConfig) -> None:
    """Write an array into a folder that nobody else sees yet; not atomic.

    Args:
        path: a folder that does not exist.
        array: its last two axes are y and x.
        axes: names of the axes.
        config: of the plate.
    """
    codec = ChunkCodec(config.compressor, config.level)
    chunk = _chunk(array, config.chunk_strategy)
    is_plane = chunk == (*(1 for _ in array.shape[:-2]), *array.shape[-2:])
    if config.shards and is_plane:
        ShardedArray(path, array.shape, _fitting(array), array.dtype, codec).write(array, axes)
        return
    import zarr

    from .staged_store import StagedStore

    v2 = config.ngff_version == "0.4"
    with closing(StagedStore(path)) as store:
        stored = zarr.create_array(
            store,
            shape=array.shape,
            dtype=array.dtype,
            chunks=chunk,
            shards=chunk if config.shards else None,
            fill_value=0,
            zarr_format=2 if v2 else 3,
            compressors=codec.for_zarr_python(array.dtype.itemsize, v2=v2) or None,
            chunk_key_encoding={"name": "v2" if v2 else "default", "separator": "/"},
            dimension_names=None if v2 else axes,
        )
        stored[...] = array


def _chunk(array: NDArray[Any], strategy: ZarrChunkStrategy) -> tuple[int, ...]:
    height, width = array.shape[-2:]
    if height * width * array.dtype.itemsize > CHUNK_BYTES:
        rows = max(1, CHUNK_BYTES // (width * array.dtype.itemsize))
        return (*(1 for _ in array.shape[:-2]), rows, width)
    if strategy is ZarrChunkStrategy.WELL:
        return _fitting(array)
    return (*(1 for _ in array.shape[:-2]), height, width)


def _fitting(array: NDArray[Any]) -> tuple[int, ...]:
    """The shape of `array`, cut over its first axes until it is small enough."""
    shape = list(array.shape)
    for axis in range(array.ndim - 2):
        one = math.prod(shape) * array.dtype.itemsize // shape[axis]
        shape[axis] = max(1, min(shape[axis], SHARD_BYTES // max(one, 1)))
        if one * shape[axis] <= SHARD_BYTES:
            break
    return tuple(shape)
