"""Arrays of zarr v3 whose chunks are planes and lie in shards, written and read directly.

zarr-python reads and writes them too, several times slower, and opens a shard's file more than
once, so that a reader may meet two revisions of it. A shard is the encoded chunks one after the
other, then an index of their offsets and lengths and its CRC-32C (Zarr v3, codec
``sharding_indexed`` 1.0). Each chunk carries a CRC-32C of its own (codec ``crc32c``), so that
damage is noticed instead of shown.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ...threads import in_threads
from .chunk_codecs import ChunkCodec
from .store_path import StoredShard, StorePath

MISSING = 2**64 - 1
"""Offset and length in the index of a chunk that is not stored: all its pixels are 0."""

_TYPES = {np.dtype(kind).name: np.dtype(kind) for kind in "bBhHiIqQfd"}
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_DEFAULT = ChunkCodec()
_SMALL = 2**20  # threads cost more than they gain below so many bytes


@dataclass(frozen=True, slots=True)
class ShardedArray:
    """An array in the folder `path`; reading opens each shard once."""

    path: Path
    shape: tuple[int, ...]
    """Two axes or more, the last of which are y and x."""
    shard: tuple[int, ...]
    """Shape of a shard: planes of full size."""
    dtype: np.dtype[Any]
    codec: ChunkCodec = _DEFAULT
    """How chunks are compressed."""
    checksums: bool = True
    """Whether each chunk ends with its CRC-32C."""

    def __getitem__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        """Whole planes: of each leading axis one index or all, then all of y and x.

        Raises:
            ValueError: a shard is damaged.
        """
        wanted = [
            range(n) if isinstance(i, slice) else range(i, i + 1)
            for i, n in zip(index[: len(self.shape) - 2], self.shape, strict=False)
        ]
        out = np.zeros((*map(len, wanted), *self.shape[-2:]), self.dtype)
        shards: dict[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        for place in product(*map(range, out.shape[:-2])):
            plane = tuple(r[i] for r, i in zip(wanted, place, strict=True))
            key = tuple(i // n for i, n in zip(plane, self.shard, strict=False))
            shards.setdefault(key, []).append((plane, place))
        for key, planes in shards.items():
            with suppress(FileNotFoundError):  # a shard of zeros is not stored
                self._read_shard(key, planes, out)
        kept = tuple(0 if not isinstance(i, slice) else slice(None) for i in index)
        return out[kept]

    def _read_shard(
        self,
        key: tuple[int, ...],
        planes: list[tuple[tuple[int, ...], tuple[int, ...]]],
        out: NDArray[Any],
    ) -> None:
        path = self._file(key)
        file = StoredShard(path) if isinstance(path, StorePath) else _LocalShard(path)
        with closing(file):
            index = self._read_index(file)
            chunks = []
            for plane, place in planes:
                inner = tuple(i % n for i, n in zip(plane, self.shard, strict=False))
                offset, length = (int(n) for n in index[inner])
                if offset != MISSING:
                    chunks.append((offset, length, place))
            file.expect([(offset, length) for offset, length, _ in chunks])

            def read(chunk: tuple[int, int, tuple[int, ...]]) -> None:
                offset, length, place = chunk
                self._decode(file.read(offset, length), length, out[place])

            in_threads(read, chunks, _workers(out.nbytes))

    def _read_index(self, file: StoredShard | _LocalShard) -> NDArray[np.uint64]:
        length = 16 * math.prod(self.shard[:-2]) + 4
        tail = file.tail(length)
        if len(tail) < length or _crc(tail[:-4]) != tail[-4:]:
            raise ValueError("the index of a shard is damaged (its CRC-32C does not match)")
        return np.frombuffer(tail[:-4], "<u8").reshape(*self.shard[:-2], 2)

    def _decode(self, stored: bytes, length: int, out: NDArray[Any]) -> None:
        if len(stored) < length:
            raise ValueError("a shard is cut off")
        if self.checksums:
            if _crc(memoryview(stored)[:-4]) != stored[-4:]:
                raise ValueError("a chunk is damaged (its CRC-32C does not match)")
            stored = stored[:-4]
        self.codec.decode(stored, out)

    def write(self, array: NDArray[Any], axes: tuple[str, ...]) -> None:
        """Write metadata and all shards into a folder that nobody else sees yet; not atomic."""
        self.path.mkdir(parents=True)
        grid = [math.ceil(n / m) for n, m in zip(self.shape, self.shard, strict=True)][:-2]
        for key in product(*map(range, grid)):
            cut = (slice(i * n, (i + 1) * n) for i, n in zip(key, self.shard, strict=False))
            self._write_shard(key, array[tuple(cut)])
        (self.path / "zarr.json").write_text(json.dumps(self._metadata(axes), indent=2) + "\n")

    def _write_shard(self, key: tuple[int, ...], part: NDArray[Any]) -> None:
        places = list(product(*map(range, part.shape[:-2])))

        def encode(place: tuple[int, ...]) -> bytes | None:
            plane = part[place]
            return self.codec.encode(np.ascontiguousarray(plane)) if plane.any() else None

        index = np.full((*self.shard[:-2], 2), MISSING, "<u8")
        encoded = in_threads(encode, places, _workers(part.nbytes))
        if not any(chunk is not None for chunk in encoded):
            return
        path = self._file(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            offset = 0
            for place, chunk in zip(places, encoded, strict=True):
                if chunk is not None:
                    file.write(chunk)
                    file.write(_crc(chunk))
                    index[place] = offset, len(chunk) + 4
                    offset += len(chunk) + 4
            tail = index.tobytes()
            file.write(tail + _crc(tail))

    def _file(self, key: tuple[int, ...]) -> Path:
        return self.path.joinpath("c", *map(str, key), "0", "0")

    def _metadata(self, axes: tuple[str, ...]) -> dict[str, Any]:
        endian = {"configuration": {"endian": "little"}} if self.dtype.itemsize > 1 else {}
        inner = [
            {"name": "bytes", **endian},
            *self.codec.metadata(self.dtype.itemsize),
            *([{"name": "crc32c"}] if self.checksums else []),
        ]
        sharding = {
            "chunk_shape": [1] * (len(self.shape) - 2) + list(self.shape[-2:]),
            "codecs": inner,
            "index_codecs": _INDEX_CODECS,
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.shard)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0.0 if self.dtype.kind == "f" else 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {},
            "dimension_names": list(axes),
        }


class _LocalShard:
    """A shard's file on this machine, open for reading."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)

    def tail(self, length: int) -> bytes:
        size = os.fstat(self._file).st_size
        return os.pread(self._file, length, max(size - length, 0))

    def expect(self, spans: Sequence[tuple[int, int]]) -> None:
        """Nothing: the system reads when it is asked."""

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._file, length, offset)

    def close(self) -> None:
        os.close(self._file)


def open_sharded(path: Path) -> ShardedArray | None:
    """The array in the folder `path`, or None where zarr-python must read it.

    That is so for every array that is not laid out as `ShardedArray.write` lays it out; chunks
    without checksums and other Blosc settings are read here too.
    """
    try:
        metadata = json.loads((path / "zarr.json").read_text())
        inner = metadata["codecs"][0]["configuration"]["codecs"]
        names = [codec["name"] for codec in inner]
        array = ShardedArray(
            path,
            tuple(metadata["shape"]),
            tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]),
            _TYPES[metadata["data_type"]],
            ChunkCodec.named(names),
            checksums=names[-1] == "crc32c",
        )
        expected = array._metadata(())
        ours = expected["codecs"][0]["configuration"]["codecs"]
        for codec, own in zip(inner, ours, strict=False):
            if codec["name"] in ("blosc", "gzip"):  # a chunk says itself how it was compressed
                codec["configuration"] = own["configuration"]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    read = ("zarr_format", "node_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")
    return array if all(metadata.get(key) == expected[key] for key in read) else None


def _workers(size: int) -> int:
    """Threads for `size` bytes; Blosc lets go of the GIL."""
    return 1 if size < _SMALL else os.cpu_count() or 1


def _crc(data: Any) -> bytes:
    return int(google_crc32c.value(bytes(data))).to_bytes(4, "little")
