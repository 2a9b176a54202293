"""What compressors, levels, chunks and shards of OME-Zarr plates cost: time, bytes and files.

Writes and reads a well of noise and blobs (4 fields of 3 channels, 5 z planes, 1080 x 1080 uint16,
140 MB) through the public interface, page cache warm, all choices in turn, round after round;
prints medians. The defaults of `ZarrConfig` come from here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import polystore_flows as ps
from polystore_flows.hcs.zarr_config import ZarrChunkStrategy, ZarrCompressor, ZarrConfig

PLANES = [(c, z) for c in range(3) for z in range(5)]


def blobs(shape: tuple[int, ...], seed: int = 0) -> NDArray[Any]:
    """A field ``(t, c, z, y, x)`` of uint16: 300 blurred spots a plane on a noisy background."""
    rng = np.random.default_rng(seed)
    field = np.empty(shape, "uint16")
    for place in np.ndindex(shape[:-2]):
        spots = np.zeros(shape[-2:], np.float32)
        spots[tuple(rng.integers(0, n, 300) for n in shape[-2:])] = 1
        spots = gaussian_filter(spots, 8)
        field[place] = spots / spots.max() * 3000 + rng.normal(300, 20, spots.shape)
    return field


def configs() -> list[ZarrConfig]:
    """Compressors and levels as the default is cut, then chunks and files as it is compressed."""
    chosen = [ZarrConfig(ZarrCompressor.NONE)]
    levels = {"blosc-lz4": (1, 5, 9), "blosc-lz4hc": (1, 3, 9), "blosc-zstd": (1, 3, 5),
              "blosc-zlib": (1, 3), "zlib": (1, 3)}  # fmt: skip
    for name, values in levels.items():
        chosen += [ZarrConfig(ZarrCompressor(name), level) for level in values]
    lz4 = ZarrConfig(ZarrCompressor.BLOSC_LZ4, 5)
    whole = ZarrChunkStrategy.WELL
    return [
        *chosen,
        replace(lz4, sharding=False),
        replace(lz4, chunk_strategy=whole),
        replace(lz4, ngff_version="0.4"),
        replace(lz4, ngff_version="0.4", chunk_strategy=whole),
        ZarrConfig(ZarrCompressor.BLOSC_ZSTD, 1, ngff_version="0.4"),
    ]


def measure(folder: Path, config: ZarrConfig, fields: dict[int, NDArray[Any]]) -> dict[str, float]:
    """Write a well, read it whole, and read planes of a plate that is opened anew for each."""
    uri = f"zarr://{folder}/p.zarr"
    plate = ps.create_plate(uri, 96, ["a", "b", "c"], config=config)
    size = sum(array.nbytes for array in fields.values()) / 1e6
    began = time.perf_counter()
    plate.write_well("B/3", fields)
    wrote = time.perf_counter() - began
    began = time.perf_counter()
    well = ps.open_plate(uri)["B/3"]
    for field in fields:
        well.image(field).read()
    read = time.perf_counter() - began
    began = time.perf_counter()
    for c, z in PLANES:
        ps.open_plate(uri)["B/3"].image(0).plane(0, c, z)
    plane = (time.perf_counter() - began) / len(PLANES)
    level = [p for f in fields for p in (folder / f"p.zarr/B/3/{f}/0").rglob("*") if p.is_file()]
    return {
        "write": size / wrote,
        "read": size / read,
        "plane": 1000 * plane,
        "ratio": size / (sum(p.stat().st_size for p in level) / 1e6),
        "files": sum(p.is_file() for p in (folder / "p.zarr/B/3").rglob("*")),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=1080, help="pixels in y and x")
    parser.add_argument("--folder", help="where to write; by default a temporary folder")
    chosen = parser.parse_args()
    fields = {f: blobs((1, 3, 5, chosen.size, chosen.size), f) for f in range(4)}
    found: dict[ZarrConfig, list[dict[str, float]]] = defaultdict(list)
    for _ in range(chosen.rounds):
        for config in configs():
            with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
                found[config].append(measure(Path(folder), config, fields))
    print(f"{os.cpu_count()} cores, {chosen.rounds} rounds, a well of 4 × 3 × 5 × {chosen.size}²\n")
    print("| NGFF | chunk | shards | compressor | level | write MB/s | read MB/s | one plane, ms "
          "| ratio | files |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    for config, rounds in found.items():
        middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        print(
            f"| {config.ngff_version} | {config.chunk_strategy.value} "
            f"| {'yes' if config.shards else 'no'} | {config.compressor.value} | {config.level} "
            f"| {middle['write']:.0f} | {middle['read']:.0f} | {middle['plane']:.1f} "
            f"| {middle['ratio']:.2f} | {middle['files']:.0f} |"
        )


if __name__ == "__main__":
    main()
