"""The OMERO backend keeps the contracts, through the real omero-py over TCP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from polystore_flows.testing.contract_suites import StorageBackendSuite, VirtualSuite
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.rig import OmeroRig


class TestStorage(StorageBackendSuite):
    @pytest.fixture
    def rig(self, server: OmeroServer) -> Iterator[OmeroRig]:
        with OmeroRig(server) as rig:
            yield rig


class TestVirtual(VirtualSuite):
    @pytest.fixture
    def rig(self, server: OmeroServer) -> Iterator[OmeroRig]:
        with OmeroRig(server) as rig:
            yield rig
