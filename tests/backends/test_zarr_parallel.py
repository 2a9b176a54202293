"""One plate, many processes: nothing is lost, and a killed writer leaves nothing half-made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.hcs.layout import Layout

WRITE = """
import sys
import numpy as np
import polystore_flows as ps
uri, number, *wells = sys.argv[1:]
plate = ps.create_plate(uri, layout=96, channels=["DAPI"], exist_ok=True)
for well in wells:
    well, _, field = well.partition(":")
    plate.write_image(well, field or 0, np.full((1, 1, 2, 64, 65), int(number), "uint16"))
"""


def _start(uri: str, number: int, *wells: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITE, uri, str(number), *wells])


@pytest.mark.slow
def test_32_processes_write_32_wells_into_a_new_plate_and_all_are_listed(tmp_path: Path) -> None:
    """Each process is also a possible first one: all create the plate."""
    uri = f"zarr://{tmp_path}/p.zarr"
    layout = Layout.of(96)
    wells = [f"{row}/{column}" for row in layout.rows for column in layout.columns][:32]
    writers = [_start(uri, number, well) for number, well in enumerate(wells)]
    assert [writer.wait() for writer in writers] == [0] * 32
    plate = ps.open_plate(uri)
    assert plate.wells == tuple(wells)
    for number, well in enumerate(wells):
        assert np.unique(plate[well].image(0).read()).tolist() == [number]
    # Nothing but the plate and its lock is left.
    assert not [p.name for p in tmp_path.iterdir() if "staging" in p.name or ".tmp" in p.name]


@pytest.mark.slow
def test_processes_that_write_fields_of_one_well_make_one_well(tmp_path: Path) -> None:
    uri = f"zarr://{tmp_path}/p.zarr"
    writers = [_start(uri, number, f"B/03:{number}") for number in range(8)]
    assert [writer.wait() for writer in writers] == [0] * 8
    well = ps.open_plate(uri)["B/3"]
    assert well.fields == tuple(str(number) for number in range(8))
    for number in range(8):
        assert np.unique(well.image(number).read()).tolist() == [number]


REPLACE = """
import sys
import numpy as np
import polystore_flows as ps
plate = ps.open_plate(sys.argv[1], "r+")
for value in range(2, 10_000):
    plate.write_well("B/3", {0: np.full((1, 1, 2, 64, 65), value, "uint16")}, overwrite=True)
    plate.write_image("C/4", 0, np.full((1, 1, 2, 64, 65), value, "uint16"), overwrite=True)
    print(value, flush=True)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_every_well_whole_and_the_next_one_cleans_up(
    tmp_path: Path,
) -> None:
    uri = f"zarr://{tmp_path}/p.zarr"
    plate = ps.create_plate(uri, channels=["DAPI"])
    ones = np.ones((1, 1, 2, 64, 65), "uint16")
    for well in ("A/1", "B/3", "C/4"):
        plate.write_image(well, 0, ones)
    rng = np.random.default_rng(0)
    for _ in range(10):
        writer = subprocess.Popen([sys.executable, "-c", REPLACE, uri], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()  # it has begun
        time.sleep(rng.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        again = ps.open_plate(uri)
        assert again.wells == ("A/1", "B/3", "C/4")
        assert np.unique(again["A/1"].image(0).read()).tolist() == [1]
        for well in ("B/3", "C/4"):
            assert np.unique(again[well].image(0).read()).size == 1
    plate.write_image("D/5", 0, ones)
    left = {p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")}
    assert left == {"p.zarr"}
    files = [p for p in (tmp_path / "p.zarr").rglob("*") if p.name.startswith(".tmp")]
    assert files == []


@pytest.mark.slow
def test_a_reader_meets_the_old_or_the_new_field_during_replacements(tmp_path: Path) -> None:
    uri = f"zarr://{tmp_path}/p.zarr"
    plate = ps.create_plate(uri, channels=["DAPI"])
    for well in ("B/3", "C/4"):
        plate.write_image(well, 0, np.ones((1, 1, 2, 64, 65), "uint16"))
    writer = subprocess.Popen([sys.executable, "-c", REPLACE, uri], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 5
        reads = 0
        while time.monotonic() < end:
            for well in ("B/3", "C/4"):
                assert plate[well].fields == ("0",)
                assert np.unique(plate[well].image(0).plane()).size == 1
                reads += 1
        assert writer.poll() is None
        assert reads > 20
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
