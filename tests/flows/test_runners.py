"""Runners: threads, processes and Dask make the same plate, and every run is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
from started import Server, counted, python, wait_for

import polystore_flows as ps
from polystore_flows.errors import MismatchError
from polystore_flows.flows.runners import make_runner
from polystore_flows.hcs.layout import Layout


def test_runners_are_named_by_words():
    threads, processes = make_runner("threads:3"), make_runner("processes:2")
    assert isinstance(threads, ThreadPoolTaskRunner)
    assert threads._max_workers == 3
    assert isinstance(processes, ProcessPoolTaskRunner)
    assert processes._max_workers == 2
    assert make_runner("dask:2").cluster_kwargs["n_workers"] == 2
    for address in ("tcp://127.0.0.1:8786", "dask:tls://scheduler:8786"):
        assert address.endswith(make_runner(address).address)
    for wrong in ("", "thread", "dask:x", "http://host", "processes:0", "threads:-1"):
        with pytest.raises(MismatchError, match="is no runner"):
            make_runner(wrong)


def _raw(folder: Path, size: int) -> str:
    """A microscope's folder with an image for each well, which holds the well's number."""
    folder.mkdir()
    layout = Layout.of(size)
    wells = (f"{row}{column.zfill(2)}" for row in layout.rows for column in layout.columns)
    for number, well in enumerate(wells):
        tifffile.imwrite(folder / f"{well}_s1_w1.tif", np.full((8, 8), number, "uint16"))
    return f"disk://{folder}"


def _run(server: Server, **parameters: Any) -> dict[str, str]:
    """What became of a run of process_plate in a process of its own."""
    printed = server.run(*python("-m", "run_flow", json.dumps(parameters)), timeout=1200)
    found: dict[str, str] = json.loads(
        next(line for line in printed.splitlines() if line.startswith("{"))
    )
    return found


def _task_states(server: Server, done: dict[str, str]) -> list[str]:
    """What became of its task runs, once the server knows of all that they have ended."""
    chosen = FlowRunFilter(id={"any_": [done["run"]]})

    def ended() -> list[str]:
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(flow_run_filter=chosen, limit=200)
        names = [run.state_name for run in runs]
        return names if len(names) > 2 and not {"Running", "Pending"} & {*names} else []

    with temporary_settings({PREFECT_API_URL: server.url}):
        return wait_for(ended)


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["threads:2", "processes:2", "dask:2"])
def test_all_wells_of_a_384_well_plate_come_out_and_all_runs_are_recorded(
    server: Server, tmp_path: Path, runner: str
):
    source, out = _raw(tmp_path / "raw", 384), f"zarr://{tmp_path}/out.zarr"
    done = _run(server, source=source, target=out, step="flow_steps:scale", runner=runner)
    assert done["state"] == "Completed", done
    assert counted(_task_states(server, done)) == {"Completed": 18}  # 16 rows, the plan and the end
    raw, made = ps.open_plate(source), ps.open_plate(out)
    assert made.wells == raw.wells
    for number, well in enumerate(raw.wells):
        assert (made[well].image(0).read() == 2 * number).all()


@pytest.mark.slow
def test_1536_wells_use_at_most_64_task_runs(server: Server, tmp_path: Path):
    """A task run costs a tenth of a second, and a row in the database."""
    source = _raw(tmp_path / "raw", 1536)
    step = {"step": "flow_steps:count", "output": "tables/cells.csv"}
    done = _run(server, source=source, runner="threads:2", **step)
    assert done["state"] == "Completed", done
    assert counted(_task_states(server, done)) == {"Completed": 34}
    assert len(ps.load(f"{source}/tables/cells.csv")) == 1536


@pytest.mark.slow
def test_a_worker_process_that_dies_fails_its_run_and_leaves_no_part_of_a_well(
    server: Server, tmp_path: Path
):
    """As out of memory: the pool is broken, the run says so, and the next one completes.

    Python ends the pool's other processes with it: one may leave a staging folder, or a whole
    well that it had no time to register.
    """
    source, out = _raw(tmp_path / "raw", 24), f"zarr://{tmp_path}/out.zarr"
    params = {"folder": str(tmp_path), "value": 13}
    call = {"source": source, "target": out, "step": "flow_steps:deadly", "params": params}
    done = _run(server, **call, runner="processes:2")
    assert done["state"] == "Failed"
    assert "of 24 wells failed" in done["message"]
    assert "process" in done["message"]
    left = {finding.rule for finding in ps.get_backend("zarr").check_plate(out)}
    assert left <= {"staging", "unlisted-well"}
    there = ps.open_plate(out).wells
    assert len(there) < 24
    for well in there:
        assert ps.open_plate(out)[well].image(0).read().shape == (1, 1, 1, 8, 8)
    done = _run(server, **call, runner="processes:2")
    assert done["state"] == "Completed", done
    assert ps.open_plate(out).wells == ps.open_plate(source).wells
    assert ps.get_backend("zarr").check_plate(out) == []  # the next writer swept
