"""What tests of object stores share: a local S3 server and a rig on it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from polystore_flows.registry import storage_registry
from polystore_flows.testing.s3 import ObjectsRig, S3Server


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def rig(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectsRig]:
    """A backend that the registry gives for ``s3:``, and a private folder of its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with ObjectsRig(server) as rig:
        before = storage_registry._made.get("s3")
        storage_registry["s3"] = rig.backend
        server.reset()
        yield rig
        server.lose_every = 0
        server.ignore_conditions = server.only_unquoted = server.refuse = False
        del storage_registry["s3"]
        if before is not None:
            storage_registry["s3"] = before


@pytest.fixture
def hosts(rig, tmp_path):
    """Environments of processes, each with a private folder of its own, as on other hosts."""

    def make(number, *, together=False):
        made = []
        for i in range(number):
            folder = tmp_path / ("one" if together else str(i))
            folder.mkdir(exist_ok=True)
            made.append({**os.environ, "XDG_RUNTIME_DIR": str(folder)})
        return made

    return make


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> str:
    """The URI of a folder of its own, where nothing is yet."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return f"s3://{request.getfixturevalue('rig').bucket}"
