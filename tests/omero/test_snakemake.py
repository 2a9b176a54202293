"""The example runs with OMERO as source and target, and gives what it gives on OME-Zarr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import polystore_flows as ps
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.demo import add_demo_plate
from polystore_flows.testing.omero.server import SECRET
from polystore_flows.transfer import copy

EXAMPLE = Path(__file__).parents[2] / "examples" / "snakemake-plate" / "Snakefile"


def run(folder: Path, source: str, target: str) -> str:
    """Run the example; what Snakemake prints."""
    settings = [f"source={source}", f"target={target}", f"picture={folder}/nuclei.png"]
    options = ["--snakefile", str(EXAMPLE), "--cores", "2", "--config", *settings]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_example_on_omero_equals_the_one_on_zarr(server: OmeroServer, tmp_path: Path) -> None:
    """Also nothing that Snakemake prints or keeps holds a secret."""
    source, target = server.uri(f"plate/{add_demo_plate(server)}"), server.uri("plate/example")
    copy(source, f"zarr://{tmp_path}/raw.zarr")
    for name in ("omero", "zarr"):
        (tmp_path / name).mkdir()
    printed = run(tmp_path / "omero", source, target)
    run(tmp_path / "zarr", f"zarr://{tmp_path}/raw.zarr", f"zarr://{tmp_path}/out.zarr")
    ours, theirs = ps.open_plate(target), ps.open_plate(f"zarr://{tmp_path}/out.zarr")
    assert ours.wells == theirs.wells
    for well in ours.wells:
        assert ours[well].fields == theirs[well].fields
        for field in ours[well].fields:
            one, two = ours[well].image(field), theirs[well].image(field)
            np.testing.assert_array_equal(one.read(), two.read())
            np.testing.assert_array_equal(one.label("nuclei").read(), two.label("nuclei").read())
        path = f"{well}/tables/nuclei.csv"
        pd.testing.assert_frame_equal(ours.read_table(path), theirs.read_table(path))
    pd.testing.assert_frame_equal(
        ours.read_table("tables/nuclei.csv"), theirs.read_table("tables/nuclei.csv")
    )
    assert "Nothing to be done" in run(tmp_path / "omero", source, target)
    kept = [p.read_bytes() for p in (tmp_path / "omero").rglob("*") if p.is_file()]
    keys = [session.uuid.encode() for session in server.sessions]
    for secret in (SECRET.encode(), *keys):
        assert secret not in printed.encode()
        assert not any(secret in content for content in kept)
