"""The example, killed at random moments: nothing half done is taken for done, nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from plugin_rig import make_provider, tree

import polystore_flows as ps
from polystore_flows.demo import find_example
from polystore_flows.snakemake import wells

pytestmark = pytest.mark.slow

KILLS = 20


def start(folder, number):
    """The example, in a working directory of its own."""
    work = folder / f"work{number}"
    work.mkdir()
    config = [f"source=disk://{folder.parent}/raw", f"target=zarr://{folder}/plate.zarr"]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(find_example() / "Snakefile")]
    command += ["--cores", "2", "--directory", str(work), "--config", *config]
    with (work / "log").open("w") as log:
        return subprocess.Popen(
            [*command, f"picture={folder}/nuclei.png", f"report={folder}/report.html"],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill(process):
    """Snakemake and all of its jobs, at once."""
    session = process.pid
    for _ in range(3):  # a process may start another just before it is killed
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except (OSError, ValueError):
                continue
    process.wait()


def settled(folder):
    """All files of the plate and the picture; when things were made is left out."""
    return timeless(tree(folder / "plate.zarr")) | {
        "nuclei.png": (folder / "nuclei.png").read_bytes()
    }


def timeless(files):
    """`files` without the times that our own documents tell of."""
    return {
        path: json.loads(content, object_hook=without_time) if path.endswith("json") else content
        for path, content in files.items()
    }


def without_time(document):
    return {key: value for key, value in document.items() if key not in ("created", "modified")}


def assert_nothing_is_half_done(folder, number, whole):
    """What Snakemake would take for done in a fresh working directory is as it is to be."""
    provider = make_provider(folder / f"look{number}")
    plate = f"zarr://{folder}/plate.zarr"
    for well, *_ in wells(f"disk://{folder.parent}/raw", group=1).values():
        path = folder / "plate.zarr" / well
        now = timeless(tree(path)) if path.is_dir() else {}
        tables = {name for name in whole if name.startswith(f"{well}/tables/")}
        if provider.object(f"{plate}/{well}").exists():
            images = {n for n in whole if n.startswith(f"{well}/")} - tables
            assert {n: now.get(n.removeprefix(f"{well}/")) for n in images} == {
                n: whole[n] for n in images
            }
        for table in tables:
            if provider.object(f"{plate}/{table}").exists():
                assert now[table.removeprefix(f"{well}/")] == whole[table]
    for name in ("tables/nuclei.csv", "nuclei.png"):
        path = folder / ("" if name.endswith("png") else "plate.zarr") / name
        if path.exists():
            assert path.read_bytes() == whole[name]


def test_killed_at_random_moments_the_example_ends_as_if_undisturbed(tmp_path):
    subprocess.run(
        [sys.executable, find_example() / "make_raw_plate.py", tmp_path / "raw"], check=True
    )
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    began = time.monotonic()
    assert start(quiet, 0).wait() == 0, (quiet / "work0/log").read_text()
    lasts = time.monotonic() - began
    whole, dice, kills, rounds = settled(quiet), random.Random(7), 0, 0
    while kills < KILLS:
        folder = tmp_path / f"round{rounds}"
        folder.mkdir()
        for number in range(100):
            process = start(folder, number)
            try:
                process.wait(timeout=dice.uniform(1, lasts) if kills < KILLS else 600)
                break
            except subprocess.TimeoutExpired:
                kill(process)
                kills += 1
                assert_nothing_is_half_done(folder, number, whole)
        assert process.returncode == 0, (folder / f"work{number}/log").read_text()
        assert settled(folder) == whole
        assert ps.get_backend("zarr").check_plate(f"zarr://{folder}/plate.zarr") == []
        assert start(folder, 100).wait() == 0
        assert "Nothing to be done" in (folder / "work100/log").read_text()
        rounds += 1
