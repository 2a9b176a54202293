"""The code in docs/prefect.md runs as it stands, and the page lists what there is."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from plates import make_raw
from prefect.settings import PREFECT_API_URL, temporary_settings
from started import python, start_server, wait_for

import polystore_flows as ps
from polystore_flows import steps
from polystore_flows.flows import assets, blocks
from polystore_flows.flows.blocks import PlateRef
from polystore_flows.flows.cli import app
from polystore_flows.flows.finalize import PlateResult

TEXT = (Path(__file__).parents[2] / "docs" / "prefect.md").read_text()


def _code(heading: str) -> str:
    """The first Python block below a heading."""
    match = re.search(r"```python\n(.*?)```", TEXT[TEXT.index(heading) :], re.DOTALL)
    assert match is not None
    return match[1]


def _run(code: str) -> dict[str, object]:
    space: dict[str, object] = {"__name__": "__main__"}
    exec(compile(code, "prefect.md", "exec"), space)
    return space


def test_the_first_flow_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_raw("disk:raw", rows="B", columns=2)
    _run(_code("# Plates with Prefect").replace('"processes"', '"threads"'))
    assert ps.open_plate("disk:raw")["B/1"].image(0).labels == ("bright",)


def test_the_blocks_are_saved_and_loaded():
    reference = _run(_code("## Blocks"))["reference"]
    assert isinstance(reference, PlateRef)
    assert reference.uri == "s3://plates/raw"


def test_a_task_of_ones_own_is_cached(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_raw("zarr:raw.zarr", rows="B", columns=3)
    space = _run(_code("## Your own tasks"))
    assert space["brightness"]() == 3.0
    assert space["mean_image"]("zarr:raw.zarr/B/3/0", "disk:mean.npy", return_state=True).name in (
        "Cached"
    )
    Path("mean.npy").unlink()
    assert space["brightness"]() == 3.0


@pytest.mark.slow
def test_the_flow_on_a_cluster_and_the_one_near_the_data_run(tmp_path):
    """A scheduler and a worker of Dask, then a worker of Prefect, as the page starts them."""
    raw = make_raw(f"zarr://{tmp_path}/raw.zarr", rows="B", columns=2)
    assert raw.wells

    def local(code: str) -> str:
        return code.replace("/shared/", f"{tmp_path}/").replace("/data/", f"{tmp_path}/")

    with start_server(tmp_path / "home") as server:
        told = tmp_path / "scheduler.json"
        scheduler = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        worker = ("worker", "--scheduler-file", str(told), "--nthreads", "1", "--no-dashboard")
        with server.beside(*python("-m", "dask", *scheduler, "--scheduler-file", str(told))):
            wait_for(lambda: told.exists() and told.read_text(), 300)
            address = json.loads(told.read_text())["address"]
            script = tmp_path / "cluster.py"
            code = local(_code("## A Dask cluster"))
            script.write_text(code.replace("tcp://scheduler:8786", address))
            with server.beside(*python("-m", "dask", *worker)):
                server.run(*python(str(script)), timeout=600)
        made = ps.open_plate(f"zarr://{tmp_path}/nuclei.zarr")
        assert made.wells == raw.wells
        ps.delete(f"zarr://{tmp_path}/nuclei.zarr")
        server.run(
            *python("-m", "polystore_flows", "deploy", "register"),
            *("--pool", "plates", "--name", "lab"),
        )
        worker = python("-m", "prefect", "worker", "start", "--pool", "plates")
        with temporary_settings({PREFECT_API_URL: server.url}), server.beside(*worker):
            space = _run(local(_code("### Near the data")))
        assert space["result"]["processed"] == ["B/1", "B/2"]


def test_the_page_lists_blocks_steps_events_and_commands():
    for name in (*blocks.__all__, *PlateResult.__annotations__):
        assert name in TEXT or name in ("target", "up_to_date"), name
    shipped = [n for n, f in vars(steps).items() if hasattr(f, "output")]
    assert shipped
    for name in shipped:
        assert f"`{name}`" in TEXT, name
    for event in (assets.PLATE_COMPLETE, assets.PLATE_PROCESSED, assets.PLATE_INCOMPLETE):
        assert event in TEXT or f"`.{event.rpartition('.')[2]}`" in TEXT
    for command in app.registered_commands:
        assert f"polystore-flows deploy {command.callback.__name__}" in TEXT
    for option in re.findall(r"(?<=\s)--[a-z-]+", TEXT):
        told = subprocess.run(
            python("-m", "polystore_flows", "deploy", "register", "--help"),
            capture_output=True,
            text=True,
        ).stdout
        others = ("--host", "--port", "--nthreads", "--pool", "--type")
        assert option in told or option in others, option
