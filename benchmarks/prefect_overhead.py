"""What Prefect costs: process_plate against a bare loop over the same wells, in one run.

    python benchmarks/prefect_overhead.py [--wells 384] [--milliseconds 50] [--rounds 3]

Both read each well of a raw plate, keep a core busy for so long, and write the well to a new
plate. The loop is the plainest one, in this process; process_plate works in a pool of processes,
starts that pool, plans, records and shows what it has done. A Prefect server is started first and
is not counted, as it stays. The rounds alternate, and the medians are compared.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import polystore_flows as ps

SHAPE = (1, 1, 1, 64, 64)
MOST = 1.25


def busy(image: np.ndarray, milliseconds: float) -> np.ndarray:
    """The step: computes for so long, by the clock of its own processor."""
    end = time.thread_time() + milliseconds / 1000
    while time.thread_time() < end:
        pass
    return image + 1


def make_raw(uri: str, wells: int) -> None:
    """A raw plate of small wells."""
    plate = ps.create_plate(uri, layout=wells, channels=["DAPI"])
    names = [f"{row}/{column}" for row in plate.rows for column in plate.columns]
    for number, well in enumerate(names[:wells]):
        plate.write_image(well, 0, np.full(SHAPE, number, "uint16"))


def bare_loop(source: str, target: str, milliseconds: float) -> float:
    """Seconds that the loop takes."""
    start = time.perf_counter()
    plate = ps.open_plate(source)
    out = ps.create_plate(target, like=plate)
    for well in plate.wells:
        out.write_image(well, 0, busy(plate[well].image(0).read(), milliseconds))
    return time.perf_counter() - start


def with_prefect(source: str, target: str, milliseconds: float, runner: str) -> float:
    """Seconds that process_plate takes."""
    from polystore_flows.flows import process_plate

    start = time.perf_counter()
    step = f"{Path(__file__).resolve()}:busy"
    process_plate(source, target, step, {"milliseconds": milliseconds}, runner=runner)
    return time.perf_counter() - start


def main() -> int:
    """Print the seconds of each round, the medians and their ratio; 1 if that is too much."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--wells", type=int, default=384, choices=(6, 24, 96, 384, 1536))
    parser.add_argument("--milliseconds", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runner", default="processes:2")
    args = parser.parse_args()
    from prefect.testing.utilities import prefect_test_harness

    folder = Path(tempfile.mkdtemp(prefix="prefect-overhead-"))
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    bare, flow = [], []
    try:
        source = f"zarr://{folder}/raw.zarr"
        make_raw(source, args.wells)
        with prefect_test_harness(server_startup_timeout=120):
            for number in range(args.rounds):
                bare.append(
                    bare_loop(source, f"zarr://{folder}/bare{number}.zarr", args.milliseconds)
                )
                target = f"zarr://{folder}/flow{number}.zarr"
                flow.append(with_prefect(source, target, args.milliseconds, args.runner))
                print(f"round {number + 1}: bare loop {bare[-1]:.1f} s", end=", ")
                print(f"process_plate {flow[-1]:.1f} s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratio = statistics.median(flow) / statistics.median(bare)
    print(
        f"{args.wells} wells of {args.milliseconds:g} ms, {args.runner}, {os.cpu_count()} cores: "
        f"medians {statistics.median(bare):.1f} s and {statistics.median(flow):.1f} s, "
        f"ratio {ratio:.2f} (at most {MOST})"
    )
    return 0 if ratio <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
