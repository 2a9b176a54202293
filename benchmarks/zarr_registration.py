"""What it costs to make a written well a well of its plate, while other processes do the same.

Each process has written its wells into the staging folder and synced them. Measured is what comes
then, `commit_well`: lock the well, look what is there, rename it into the plate, and list it,
durably, in the plate's JSON. The cost of a well is the time until the last process is done, divided
by the number of wells. ``python benchmarks/zarr_registration.py --help`` shows what can be chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import polystore_flows as ps
from polystore_flows.backends.zarr.commit import commit_well
from polystore_flows.backends.zarr.staging import staged, sync_tree
from polystore_flows.backends.zarr.writing import WritablePlate, stage_well
from polystore_flows.hcs.layout import Layout
from polystore_flows.hcs.plate import Notes

IMAGE = np.ones((1, 1, 1, 16, 16), "uint16")


class Result(NamedTuple):
    """One plate that was filled."""

    cost: float
    """Milliseconds a well."""
    cpu: float
    """Milliseconds of processor time a well, which a busy machine changes less."""
    rewrites: int
    """How often the plate's JSON was written."""
    written: int
    """Bytes of all these JSONs."""


def fill(folder: Path, wells: int, processes: int) -> Result:
    """Fill a plate of `wells` wells by `processes` processes at once."""
    uri = f"zarr://{folder}/p.zarr"
    ps.create_plate(uri, wells, ["DAPI"])
    go_read, go_write = os.pipe()
    ready_read, ready_write = os.pipe()
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            try:
                work(folder, uri, wells, number, processes, ready_write, go_read)
            except BaseException:  # noqa: BLE001  # a forked child must not go on in here
                traceback.print_exc()
            finally:
                os._exit(1)
        children.append(child)
    os.close(ready_write)
    for _ in children:
        assert os.read(ready_read, 1), "a process failed"
    began = time.monotonic()
    os.write(go_write, b"g" * processes)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    results = [json.loads((folder / f"{n}.json").read_text()) for n in range(processes)]
    assert len(ps.open_plate(uri).wells) == wells, "a well was lost"
    took = max(result["end"] for result in results) - began
    rewrites = [size for result in results for size in result["sizes"]]
    cpu = sum(result["cpu"] for result in results)
    return Result(1000 * took / wells, 1000 * cpu / wells, len(rewrites), sum(rewrites))


def work(
    folder: Path, uri: str, wells: int, number: int, processes: int, ready: int, go: int
) -> None:
    """Stage every `processes`-th well, wait for the others, and commit them one by one."""
    plate = ps.open_plate(uri, "r+")
    assert isinstance(plate, WritablePlate)
    grid = Layout.of(wells)
    mine = [f"{row}/{column}" for row in grid.rows for column in grid.columns][number::processes]
    sizes: list[int] = []
    replace = os.replace

    def counted(source: Any, target: Any, **options: Any) -> None:
        if os.fspath(target).endswith("p.zarr/zarr.json"):
            sizes.append(Path(source).stat().st_size)
        replace(source, target, **options)

    with contextlib.ExitStack() as stack:
        stages = [stack.enter_context(staged(plate.root)) for _ in mine]
        made = [
            stage_well(plate, stage, well, {"0": IMAGE}, {}, Notes({}, {}))
            for stage, well in zip(stages, mine, strict=True)
        ]
        for one in made:
            sync_tree(one.folder)
        os.write(ready, b"r")
        os.read(go, 1)
        os.replace = counted
        cpu = time.process_time()
        for one in made:
            commit_well(plate, one, overwrite=False, keep_others=True)
        found = {"end": time.monotonic(), "cpu": time.process_time() - cpu, "sizes": sizes}
    (folder / f"{number}.json").write_text(json.dumps(found))
    os._exit(0)


def main() -> None:
    """Print a table: wells, median cost of a well, rewrites, bytes a well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wells", type=int, nargs="+", default=[96, 384, 1536])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to write; by default a temporary folder")
    chosen = parser.parse_args()
    results: dict[int, list[Result]] = {wells: [] for wells in chosen.wells}
    for _ in range(chosen.rounds):  # interleaved, so that a busy minute hits all sizes
        for wells in chosen.wells:
            with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
                results[wells].append(fill(Path(folder), wells, chosen.processes))
    print(f"{chosen.processes} processes, {chosen.rounds} rounds, {os.cpu_count()} cores\n")
    print("| wells | ms a well (median) | min to max | CPU ms | rewrites | KB written a well |")
    print("|---|---|---|---|---|---|")
    median = {}
    for wells, found in results.items():
        costs = [result.cost for result in found]
        median[wells] = statistics.median(costs)
        rewrites = statistics.median(result.rewrites for result in found)
        size = statistics.median(result.written for result in found) / wells / 1000
        cpu = statistics.median(result.cpu for result in found)
        spread = f"{min(costs):.2f} to {max(costs):.2f}"
        cells = wells, f"{median[wells]:.2f}", spread, f"{cpu:.2f}", int(rewrites), f"{size:.1f}"
        print("|", " | ".join(map(str, cells)), "|")
    least, most = min(median), max(median)
    print(f"\n{most} wells cost {median[most] / median[least]:.2f} times {least} wells, each")


if __name__ == "__main__":
    main()
