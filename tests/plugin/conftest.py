"""What tests of the plugin share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from counting import Counting
from plugin_rig import make_plate
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


@pytest.fixture
def plate(tmp_path: Path) -> str:
    """URI of a plate with the wells B/3 and B/4 of one field."""
    return make_plate(tmp_path / "p.zarr")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with two files."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.tif").write_bytes(b"A" * 1000)
    (folder / "b.tif").write_bytes(b"B" * 10)
    return folder


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
