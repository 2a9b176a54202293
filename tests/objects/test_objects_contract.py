"""The shipped suites of storage backends, over a local S3 server."""

from __future__ import annotations

from polystore_flows.testing.contract_suites import ByteStoreSuite, StorageBackendSuite


class TestObjects(StorageBackendSuite, ByteStoreSuite):
    """The rig is the conftest's."""
