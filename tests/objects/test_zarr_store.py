"""zarr's own suites of stores, unmodified, over memory, disk and a local S3 server."""

from __future__ import annotations

import uuid
from typing import Any

import hypothesis
import pytest
from hypothesis.stateful import run_state_machine_as_test
from zarr.core.buffer import Buffer, cpu
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine
from zarr.testing.store import StoreTests

from polystore_flows.backends.zarr.store import BackendStore
from polystore_flows.registry import backend_for


@pytest.fixture(params=["memory", "disk", "s3"])
def uri(request, tmp_path):
    """A place of its own, where nothing is yet."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/h.zarr"
    if request.param == "disk":
        return f"disk://{tmp_path}/h.zarr"
    return f"s3://{request.getfixturevalue('rig').bucket}/h.zarr"


class TestBackendStore(StoreTests[BackendStore, cpu.Buffer]):
    store_cls = BackendStore
    buffer_cls = cpu.Buffer

    async def set(self, store: BackendStore, key: str, value: Buffer) -> None:
        backend_for(store._uri).put(value.to_bytes(), f"{store}/{key}", overwrite=True)

    async def get(self, store: BackendStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(backend_for(store._uri).read_bytes(f"{store}/{key}"))

    @pytest.fixture
    def store_kwargs(self, uri) -> dict[str, Any]:
        return {"uri": uri}

    def test_store_repr(self, store: BackendStore) -> None:
        assert repr(store) == f"BackendStore('{store}')"

    def test_store_supports_writes(self, store: BackendStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: BackendStore) -> None:
        assert store.supports_listing


@pytest.mark.filterwarnings("ignore:The data type:Warning")  # zarr's, of dtypes it tries
@pytest.mark.parametrize(
    ("machine", "examples"), [(ZarrStoreStateMachine, 20), (ZarrHierarchyStateMachine, 8)]
)
def test_zarrs_state_machines_pass(machine, examples, uri):
    """Arbitrary keys and hierarchies, compared to a dict and to zarr's own memory."""
    run_state_machine_as_test(
        lambda: machine(BackendStore(uri)),
        settings=hypothesis.settings(
            max_examples=examples, stateful_step_count=20, deadline=None, print_blob=False,
            suppress_health_check=list(hypothesis.HealthCheck), report_multiple_bugs=False,
        ),
    )  # fmt: skip
