"""Deployments, end to end: a server, workers, a schedule, an event, a killed worker, a secret."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from plates import make_raw
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr
from started import Server, python, start_server, wait_for

import polystore_flows as ps
from polystore_flows import steps
from polystore_flows.errors import StepError, StoreUnavailableError
from polystore_flows.flows import run_near_data
from polystore_flows.flows.blocks import PlateRef, PolystoreCredentials
from polystore_flows.testing.s3 import S3Server

EXAMPLE = Path(__file__).parents[2] / "examples" / "prefect-plate"
CANARY = "canary-5d1f0c-secret"

pytestmark = pytest.mark.slow


@pytest.fixture
def api(server: Server):
    """This process talks to the started server, too."""
    with temporary_settings({PREFECT_API_URL: server.url}):
        yield server


def _runs(deployment: str) -> list[Any]:
    """The runs of a deployment that are not only scheduled."""
    chosen = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(deployment_filter=chosen)
    return [run for run in runs if run.state_name not in ("Scheduled", "Late")]


def _completed(deployment: str) -> Any:
    """The first run of a deployment that ended, which must have completed."""

    def ended() -> Any:
        return next((run for run in _runs(deployment) if run.state.is_final()), None)

    run = wait_for(ended, 300)
    assert run.state.is_completed(), run.state
    return run


def _blobs(uri: str) -> ps.hcs.plate.Plate:
    """Two wells with a few round bright things in them."""
    plate = ps.create_plate(uri, channels=["DAPI"], pixel_size=(1, 0.5, 0.5))
    y, x = np.mgrid[:96, :96]
    for column in (2, 3):
        rng = np.random.default_rng(column)
        image = np.full((96, 96), 100.0)
        for cy, cx in rng.integers(12, 84, (5, 2)):
            image += 3000 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 60)
        plate.write_image(f"B/{column}", 0, image[None, None, None].astype("uint16"))
    return plate


def _assert_analysed(source: str, target: str) -> None:
    """The target holds what the step makes of the source, pixel by pixel."""
    raw, made = ps.open_plate(source), ps.open_plate(target)
    assert made.wells == raw.wells
    for well in raw.wells:
        image = raw[well].image(0)
        expected = steps.analyse_nuclei({"0": image.read()}, pixel_size=image.pixel_size)
        np.testing.assert_array_equal(made[well].image(0).read(), expected["image"]["0"])
        mask = made[well].image(0).label("nuclei").read()
        np.testing.assert_array_equal(mask, expected["labels/nuclei"]["0"])
        assert mask.max() > 1


def test_a_worker_completes_a_scheduled_run_and_one_that_an_event_started(
    api: Server, tmp_path: Path
):
    """The shipped prefect.yaml, with other paths and a schedule that need not wait for a night."""
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    text = (folder / "prefect.yaml").read_text()
    text = text.replace("disk:///data/raw", f"zarr://{tmp_path}/raw.zarr")
    text = text.replace("/data/", f"{tmp_path}/").replace('"0 2 * * *"', '"* * * * *"')
    (folder / "prefect.yaml").write_text(text)
    _blobs(f"zarr://{tmp_path}/raw.zarr")
    api.run(*python("-m", "prefect", "work-pool", "create", "plates", "--type", "process"))
    api.run(*python("-m", "prefect", "--no-prompt", "deploy", "--all"), cwd=folder)
    worker = python("-m", "prefect", "worker", "start", "--pool", "plates")
    with api.beside(*worker, cwd=tmp_path):
        _completed("nightly")
        _assert_analysed(f"zarr://{tmp_path}/raw.zarr", f"zarr://{tmp_path}/plate.zarr")
        _blobs(f"zarr://{tmp_path}/other.zarr")
        api.run(*python("-m", "polystore_flows", "deploy", "announce", f"{tmp_path}/other.zarr"))
        _completed("complete")
        _assert_analysed(f"zarr://{tmp_path}/other.zarr", f"zarr://{tmp_path}/nuclei/other.zarr")
    with get_client(sync_client=True) as client:
        for name in ("on-demand", "nightly", "complete"):
            found = client.read_deployment_by_name(f"nuclei/{name}")
            assert found.global_concurrency_limit.limit == 2
            client.pause_deployment(found.id)


def test_the_yaml_offers_what_the_documentation_says():
    """A nightly schedule, an event, a limit, a work pool, and nothing of this machine."""
    text = (EXAMPLE / "prefect.yaml").read_text()
    made = {d["name"]: d for d in yaml.safe_load(text)["deployments"]}
    assert set(made) == {"on-demand", "nightly", "complete"}
    assert made["nightly"]["schedules"][0]["cron"] == "0 2 * * *"
    assert made["complete"]["triggers"][0]["expect"] == ["polystore.plate.complete"]
    for deployment in made.values():
        assert deployment["work_pool"] == {"name": "plates"}
        assert deployment["concurrency_limit"]["limit"] == 2
    assert not re.search(r"/home|/root|/tmp|/work", text)


@pytest.fixture(scope="module")
def pool(server: Server, tmp_path_factory) -> str:
    """A work pool with the flows of the package, registered by our own command."""
    told = server.run(
        *python("-m", "polystore_flows", "deploy", "register"),
        *("--pool", "near", "--name", "near", "--runner", "threads:2", "--limit", "3"),
    )
    assert told.split()[:3] == ["process-plate/near", "copy-plate/near", "check-plate/near"]
    return "near"


@pytest.fixture
def worker(server: Server, pool: str, tmp_path: Path):
    """A worker in a folder of its own; as on another host, it knows the plates by their URIs."""
    with server.beside(*python("-m", "prefect", "worker", "start", "--pool", pool), cwd=tmp_path):
        yield


def test_work_is_done_near_the_data_and_its_progress_and_result_come_back(
    api: Server, worker, tmp_path: Path
):
    """Addresses travel, pixels do not: the parameters of the run are a few hundred bytes."""
    raw = make_raw(f"zarr://{tmp_path}/raw.zarr")
    out = f"zarr://{tmp_path}/out.zarr"
    seen: list[tuple[str, float]] = []
    done = run_near_data(
        "process-plate/near",
        raw.uri,
        out,
        "flow_steps:scale",
        {"factor": 3},
        runner="threads:2",
        progress=lambda state, percent: seen.append((state, percent)),
        timeout=300,
    )
    assert sorted(done["processed"]) == sorted(raw.wells)
    assert ps.load(f"{out}/C/4/0").max() == 12
    assert seen[-1] == ("Completed", 100.0)
    assert "Running" in {state for state, _ in seen}
    run = _completed("near")
    assert len(json.dumps(run.parameters)) < 1000
    with pytest.raises(StepError, match="B/3"):
        run_near_data(
            "process-plate/near",
            raw.uri,
            f"zarr://{tmp_path}/failing.zarr",
            "flow_steps:fails_on",
            timeout=300,
        )
    told = api.run(
        *python("-m", "polystore_flows", "deploy", "run", "process-plate/near"),
        *("--source", raw.uri, "--target", out, "--step", "flow_steps:scale"),
        *("--params", '{"factor": 3}', "--timeout", "300"),
    )
    assert "processed 0 wells" in told
    assert "8 were up to date" in told


def test_a_run_that_nobody_takes_says_so(api: Server, pool: str, tmp_path: Path):
    raw = make_raw(f"zarr://{tmp_path}/raw.zarr", rows="B", columns=1)
    with pytest.raises(StoreUnavailableError, match="is a worker running"):
        run_near_data("process-plate/near", raw.uri, step="flow_steps:bright", timeout=1)


def test_a_secret_stays_in_its_block(api: Server, worker, tmp_path: Path, name: str):
    """Nothing of it in the database, the logs, the events, the artifacts, results or pickles.

    The worker has no credentials of its own: it looks the block up by its name.
    """
    with S3Server() as s3:
        bucket = s3.make_bucket()
        how = {"endpoint": s3.endpoint, "allow_http": True, "region": "us-east-1"}
        PolystoreCredentials(user="someone", secret=SecretStr(CANARY), **how).save(name)
        saved = PolystoreCredentials.load(name)
        folder = f"s3://{bucket}/plates"
        PlateRef(uri=f"{folder}/raw", credentials=saved).save(f"{name}-raw")
        PlateRef(uri=f"{folder}/out", credentials=saved).save(f"{name}-out")
        source, target = PlateRef.load(f"{name}-raw"), PlateRef.load(f"{name}-out")
        with source.access():
            make_raw(f"{folder}/raw", rows="B", columns=2)
        call = ("process-plate/near", source, target)
        step = "flow_steps:everything"
        for runner in ("threads:2", "processes:1", "dask:1"):
            done = run_near_data(*call, step, runner=runner, overwrite=True, timeout=600)
            assert done["failed"] == {}
            with source.access():
                ps.delete(f"{folder}/out/B/1")
        s3.refuse = True
        with pytest.raises(StepError, match="refuses"):
            run_near_data(*call, step, timeout=600)
        s3.refuse = False
        with source.access():
            text = ps.load(f"{folder}/out/tables/processing.json")
            assert CANARY not in json.dumps(text)
    searched = 0
    for path in [*api.home.rglob("*"), *tmp_path.rglob("*")]:
        if path.is_file():
            searched += 1
            assert CANARY.encode() not in path.read_bytes(), path
    assert api.database in [*api.home.rglob("*")]
    assert searched > 10
    with get_client(sync_client=True) as client:
        for page in ("logs/filter", "artifacts/filter", "events/filter", "flow_runs/filter"):
            assert CANARY not in client.request("POST", f"/{page}", json={}).text


def test_a_killed_worker_leaves_no_part_of_a_well_and_the_next_run_completes(
    api: Server, pool: str, tmp_path: Path
):
    """SIGKILL in the middle of a chunk, to the worker and to all that it started."""
    raw = make_raw(f"zarr://{tmp_path}/raw.zarr", rows="B", columns=8)
    out, notes = f"zarr://{tmp_path}/out.zarr", tmp_path / "notes"
    notes.mkdir()
    call = {
        "source": raw.uri,
        "target": out,
        "step": "flow_steps:noted",
        "params": {"folder": str(notes), "pause": 0.5},
        "runner": "processes:2",
        "chunk_size": 4,
    }
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("process-plate/near")
        client.create_flow_run_from_deployment(deployment.id, parameters=call)
    command = python("-m", "prefect", "worker", "start", "--pool", pool)
    worker = subprocess.Popen(command, env=api.env, cwd=tmp_path, start_new_session=True)
    try:
        wait_for(lambda: len(list(notes.iterdir())) > 1, 300)
    finally:
        for pid in _family(worker.pid):
            os.kill(pid, signal.SIGKILL)
        worker.wait()
    there = ps.open_plate(out).wells
    assert len(there) < 8
    for well in there:
        np.testing.assert_array_equal(
            ps.open_plate(out)[well].image(0).read(), raw[well].image(0).read()
        )
    assert [f for f in ps.get_backend("zarr").check_plate(out) if f.rule != "left-over"] == []
    with api.beside(*command, cwd=tmp_path):
        options = {key: call[key] for key in ("runner", "chunk_size")}
        done = run_near_data(
            "process-plate/near", raw.uri, out, call["step"], call["params"], timeout=300, **options
        )
    assert done["failed"] == {}
    assert ps.open_plate(out).wells == raw.wells


def _family(pid: int) -> list[int]:
    """A process and all that it started, the youngest first."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found = [pid]
    for parent in found:
        found += [child for child, above in pairs if above == parent]
    return found[::-1]


def test_flows_are_served_without_a_worker(api: Server, tmp_path: Path):
    """One process that waits for the schedule and runs what is due."""
    raw = make_raw(f"zarr://{tmp_path}/raw.zarr", rows="B", columns=2)
    out = f"zarr://{tmp_path}/out.zarr"
    command = python("-m", "polystore_flows", "deploy", "serve", "--name", "served")
    options = ["--source", raw.uri, "--target", out, "--step", "flow_steps:scale"]
    with api.beside(*command, *options, "--runner", "threads", "--cron", "* * * * *"):
        _completed("served")
    assert ps.load(f"{out}/B/2/0").max() == 4


def test_a_fresh_environment_from_the_extras_starts_a_server_and_fires_a_schedule(tmp_path: Path):
    """What newer fastapi and SQLAlchemy would break, of which the second is silent."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("NOT RUN: a fresh environment is made with uv")
    root = Path(__file__).parents[2]
    environment = tmp_path / "env"
    subprocess.run([uv, "venv", "-q", "--python", _base_python(), str(environment)], check=True)
    python_there = str(environment / "bin" / "python")
    install = [uv, "pip", "install", "-q", "--python", python_there, f"{root}[prefect]"]
    subprocess.run(install, check=True)
    raw = make_raw(f"zarr://{tmp_path}/raw.zarr", rows="B", columns=2)
    out = f"zarr://{tmp_path}/out.zarr"
    steps_there = tmp_path / "mine.py"
    steps_there.write_text("def double(image):\n    return image * 2\n")
    with (
        start_server(tmp_path / "home", python_there, PYTHONPATH="") as fresh,
        temporary_settings({PREFECT_API_URL: fresh.url}),
        fresh.beside(
            *(python_there, "-m", "polystore_flows", "deploy", "serve", "--name", "fresh"),
            *("--source", raw.uri, "--target", out, "--step", f"{steps_there}:double"),
            *("--runner", "threads", "--cron", "* * * * *"),
        ),
    ):
        _completed("fresh")
    assert ps.load(f"{out}/B/2/0").max() == 4


def _base_python() -> str:
    """The interpreter that this environment was made from."""
    import sys

    return getattr(sys, "_base_executable", sys.executable)


def test_the_example_makes_the_same_plate_as_the_one_with_snakemake(api: Server, tmp_path: Path):
    """Bit for bit: images, label images, the tables of the wells and of the plate."""
    snakemake = EXAMPLE.parent / "snakemake-plate"
    api.run(*python(str(snakemake / "make_raw_plate.py"), str(tmp_path / "raw")))
    path = f"{Path(python()[0]).parent}{os.pathsep}{os.environ['PATH']}"
    command = python("-m", "snakemake", "--cores", "2", "--snakefile", str(snakemake / "Snakefile"))
    subprocess.run(
        [*command, "--config", "target=zarr:snakemake.zarr"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        check=True,
        capture_output=True,
    )
    api.run(*python(str(EXAMPLE / "flow.py"), "disk:raw", "zarr:prefect.zarr"), cwd=tmp_path)
    one, two = (ps.open_plate(tmp_path / f"{name}.zarr") for name in ("snakemake", "prefect"))
    assert one.wells == two.wells
    assert one.spec.channels == two.spec.channels
    assert one.pixel_size == two.pixel_size
    for well in one.wells:
        assert one[well].fields == two[well].fields
        for field in one[well].fields:
            a, b = one[well].image(field), two[well].image(field)
            assert (a.dtype, a.labels) == (b.dtype, b.labels) == (a.dtype, ("nuclei",))
            np.testing.assert_array_equal(a.read(), b.read())
            np.testing.assert_array_equal(a.label("nuclei").read(), b.label("nuclei").read())
    tables = ["tables/nuclei.csv", *(f"{well}/tables/nuclei.csv" for well in one.wells)]
    for table in tables:
        texts = {
            (tmp_path / f"{name}.zarr" / table).read_bytes() for name in ("snakemake", "prefect")
        }
        assert len(texts) == 1, table
    assert isinstance(one.read_table("tables/nuclei.csv"), pd.DataFrame)
