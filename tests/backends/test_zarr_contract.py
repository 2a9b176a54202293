"""The storage contract over the files beside the arrays of an OME-Zarr plate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import polystore_flows as ps
from polystore_flows.testing.contract_suites import StorageBackendSuite
from polystore_flows.testing.rigs import Rig


class ZarrRig(Rig):
    """A plate whose ``tables`` folder is the suite's place."""

    symlinks = False
    directories = True
    suffixes = (".json", ".csv", ".tsv", ".txt")

    def __init__(self, folder: Path, version: str) -> None:
        uri = f"zarr://{folder}/p.zarr"
        ps.create_plate(uri, ngff_version=version)  # type: ignore[arg-type]
        super().__init__(ps.get_backend("zarr"), f"{uri}/tables/root")


class TestZarrKeepsTheStorageContract(StorageBackendSuite):
    @pytest.fixture(params=["0.4", "0.5"])
    def rig(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ZarrRig]:
        with ZarrRig(tmp_path, request.param) as rig:
            yield rig
