"""The example runs with OMERO as source and target, and gives what it gives on OME-Zarr."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from example_runs import EXAMPLES, assert_equal, assert_no_secret, run

import polystore_flows as ps
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.demo import add_demo_plate
from polystore_flows.transfer import copy


def run_workflow(folder: Path, source: str, target: str) -> str:
    """Run the example; what Snakemake prints."""
    settings = [f"source={source}", f"target={target}", f"picture={folder}/nuclei.png"]
    snakefile = str(EXAMPLES / "snakemake-plate" / "Snakefile")
    options = ["--snakefile", snakefile, "--cores", "2", "--config", *settings]
    return run(folder, "-m", "snakemake", *options)


@pytest.mark.slow
def test_the_example_on_omero_equals_the_one_on_zarr(server: OmeroServer, tmp_path: Path) -> None:
    """Also nothing that Snakemake prints or keeps holds a secret."""
    source, target = server.uri(f"plate/{add_demo_plate(server)}"), server.uri("plate/example")
    raw, out = f"zarr://{tmp_path}/raw.zarr", f"zarr://{tmp_path}/out.zarr"
    copy(source, raw)
    for name in ("omero", "zarr"):
        (tmp_path / name).mkdir()
    printed = run_workflow(tmp_path / "omero", source, target)
    run_workflow(tmp_path / "zarr", raw, out)
    assert_equal(target, out)
    pd.testing.assert_frame_equal(
        ps.open_plate(target).read_table("tables/nuclei.csv"),
        ps.open_plate(out).read_table("tables/nuclei.csv"),
    )
    assert "Nothing to be done" in run_workflow(tmp_path / "omero", source, target)
    assert_no_secret(server, printed, tmp_path / "omero")
