"""The contracts of ``polystore_flows.contracts`` as test suites that any backend can run.

Subclass a suite and give it a rig; pytest does the rest::

    import pytest
    from polystore_flows.testing.contract_suites import StorageBackendSuite
    from polystore_flows.testing.rigs import Rig

    class MyRig(Rig):
        symlinks = False

        def __init__(self, tmp_path):
            super().__init__(MyBackend(), f"mine://{tmp_path}/files")

    class TestMyBackend(StorageBackendSuite):
        @pytest.fixture
        def rig(self, tmp_path):
            with MyRig(tmp_path) as rig:
                yield rig

Needs pytest.
"""

from __future__ import annotations

from .byte_suite import ByteStoreSuite
from .source_suites import DataSourceSuite, ReadOnlySuite, VirtualSuite
from .storage_suite import StorageBackendSuite

__all__ = [
    "ByteStoreSuite",
    "DataSourceSuite",
    "ReadOnlySuite",
    "StorageBackendSuite",
    "VirtualSuite",
]
