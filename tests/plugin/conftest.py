"""What tests of the plugin share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from counting import Counting
from workflow import Workflow

from polystore_flows.testing.s3 import ObjectsRig, S3Server


@pytest.fixture
def counting() -> Iterator[Counting]:
    """What the backends of disk and zarr are asked for."""
    counting = Counting("zarr", "disk")
    yield counting
    counting.stop()


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    """A folder to run Snakemake in."""
    return Workflow(tmp_path)


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    """An S3 server on this machine."""
    with S3Server() as server:
        yield server


@pytest.fixture
def bucket(server: S3Server) -> Iterator[str]:
    """URI of a folder in a bucket to which this process and its children are led."""
    with ObjectsRig(server) as rig:
        yield rig.root
