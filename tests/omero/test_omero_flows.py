"""The example as a flow, with OMERO as source and target, and what Prefect then holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from example_runs import EXAMPLES, assert_equal, assert_no_secret, run

import polystore_flows as ps
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.demo import add_demo_plate
from polystore_flows.transfer import copy


def run_flow(home: Path, source: str, target: str) -> str:
    """Run the flow with a server of its own for the length of the run; what is printed."""
    return run(
        home.parent,
        str(EXAMPLES / "prefect-plate" / "flow.py"),
        source,
        target,
        PREFECT_HOME=str(home),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="300",
    )


@pytest.mark.slow
def test_the_flow_on_omero_equals_the_one_on_zarr(server: OmeroServer, tmp_path: Path) -> None:
    """Also nothing that Prefect prints or keeps, its database among it, holds a secret."""
    source, target = server.uri(f"plate/{add_demo_plate(server)}"), server.uri("plate/flow")
    copy(source, f"zarr://{tmp_path}/raw.zarr")
    printed = run_flow(tmp_path / "omero", source, target)
    run_flow(tmp_path / "zarr", f"zarr://{tmp_path}/raw.zarr", f"zarr://{tmp_path}/out.zarr")
    assert_equal(target, f"zarr://{tmp_path}/out.zarr")
    assert ps.open_plate(target).wells == ps.open_plate(source).wells
    kept = assert_no_secret(server, printed, tmp_path / "omero")
    assert any(b"process-plate" in content or b"process_plate" in content for content in kept)
