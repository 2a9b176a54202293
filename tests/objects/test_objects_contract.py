"""The shipped suite of storage backends, over a local S3 server."""

from __future__ import annotations

from polystore_flows.testing.contract_suites import StorageBackendSuite


class TestObjects(StorageBackendSuite):
    """The rig is the conftest's."""
