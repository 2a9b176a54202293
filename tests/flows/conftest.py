"""One Prefect server for all tests of flows, and plates to work on."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW,
    PREFECT_RESULTS_LOCAL_STORAGE_PATH,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness
from started import Server, start_server

from polystore_flows.registry import storage_registry
from polystore_flows.testing.s3 import ObjectsRig, S3Server


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> Iterator[None]:
    """A server of its own; without heartbeats, which cost each flow a second of sleep."""
    settings = {
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore",
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    with temporary_settings(settings), prefect_test_harness(server_startup_timeout=300):
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that was started as in a facility, which also schedules."""
    with start_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(autouse=True)
def result_folder(tmp_path: Path) -> Iterator[Path]:
    """Where results go that nobody gave a place."""
    folder = tmp_path / "results"
    with temporary_settings({PREFECT_RESULTS_LOCAL_STORAGE_PATH: folder}):
        yield folder


@pytest.fixture
def name() -> str:
    """A name that no block has yet."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a folder in a bucket; the environment leads this process to its server."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with ObjectsRig(s3_server) as rig:
        storage_registry["s3"] = rig.backend
        yield rig.root
        s3_server.refuse = False
        del storage_registry["s3"]


@pytest.fixture(params=["disk", "memory", "zarr", "s3"])
def places(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> Callable[[str], str]:
    """URIs for plates in one kind of store, by their names."""
    if request.param == "s3":
        root = request.getfixturevalue("s3")
        return lambda plate: f"{root}/{plate}"
    if request.param == "memory":
        return lambda plate: f"memory://{name}/{plate}"
    suffix = ".zarr" if request.param == "zarr" else ""
    return lambda plate: f"{request.param}://{tmp_path}/{plate}{suffix}"
