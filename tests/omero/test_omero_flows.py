"""The example as a flow, with OMERO as source and target, and what Prefect then holds."""

from __future__ import annotations

import os
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

EXAMPLE = Path(__file__).parents[2] / "examples" / "prefect-plate" / "flow.py"


def run(home: Path, source: str, target: str) -> str:
    """Run the flow with a server of its own for the length of the run; what is printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    env["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "300"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), source, target],
        env=env,
        cwd=home.parent,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_flow_on_omero_equals_the_one_on_zarr(server: OmeroServer, tmp_path: Path) -> None:
    """Also nothing that Prefect prints or keeps, its database among it, holds a secret."""
    source, target = server.uri(f"plate/{add_demo_plate(server)}"), server.uri("plate/flow")
    copy(source, f"zarr://{tmp_path}/raw.zarr")
    printed = run(tmp_path / "omero", source, target)
    run(tmp_path / "zarr", f"zarr://{tmp_path}/raw.zarr", f"zarr://{tmp_path}/out.zarr")
    ours, theirs = ps.open_plate(target), ps.open_plate(f"zarr://{tmp_path}/out.zarr")
    assert ours.wells == theirs.wells == ps.open_plate(source).wells
    for well in ours.wells:
        for field in theirs[well].fields:
            one, two = ours[well].image(field), theirs[well].image(field)
            np.testing.assert_array_equal(one.read(), two.read())
            np.testing.assert_array_equal(one.label("nuclei").read(), two.label("nuclei").read())
        path = f"{well}/tables/nuclei.csv"
        pd.testing.assert_frame_equal(ours.read_table(path), theirs.read_table(path))
    kept = [path.read_bytes() for path in (tmp_path / "omero").rglob("*") if path.is_file()]
    assert any(b"process-plate" in content or b"process_plate" in content for content in kept)
    keys = [session.uuid.encode() for session in server.sessions]
    for secret in (SECRET.encode(), *keys):
        assert secret not in printed.encode()
        assert not any(secret in content for content in kept)
