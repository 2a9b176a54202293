"""zarr's own suites of stores, unmodified, over memory, disk and a local S3 server."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import uuid
from typing import Any

import hypothesis
import numpy as np
import pytest
import zarr
from hypothesis.stateful import run_state_machine_as_test
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.core.sync import _collect_aiterator
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine
from zarr.testing.store import StoreTests

import polystore_flows as ps
from polystore_flows.backends.zarr.store import BackendStore
from polystore_flows.errors import URIError
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


def _run_machine(machine, uri, examples, steps):
    run_state_machine_as_test(
        lambda: machine(BackendStore(uri)),
        settings=hypothesis.settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(hypothesis.HealthCheck),
            report_multiple_bugs=False,
        ),
    )


@pytest.mark.filterwarnings("ignore:The data type:Warning")  # zarr's, of dtypes it tries
@pytest.mark.parametrize("machine", [ZarrStoreStateMachine, ZarrHierarchyStateMachine])
def test_zarrs_state_machines_pass(machine, uri):
    """Arbitrary keys and hierarchies, compared to a dict and to zarr's own memory."""
    _run_machine(machine, uri, examples=6, steps=15)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The data type:Warning")
@pytest.mark.parametrize("machine", [ZarrStoreStateMachine, ZarrHierarchyStateMachine])
def test_zarrs_state_machines_pass_for_long(machine, uri):
    # Each step is some requests, and the server of the tests answers one at a time.
    _run_machine(machine, uri, examples=20 if uri.startswith("s3:") else 50, steps=50)


def buffer(data: bytes) -> Buffer:
    return cpu.Buffer.from_bytes(data)


@pytest.mark.parametrize("name", ["uri", "plate"])
def test_zarr_opens_what_the_public_function_gives(uri, name):
    if name == "plate":
        uri = f"zarr+{uri}" if not uri.startswith("disk:") else f"zarr:{uri[len('disk:') :]}"
    store = ps.zarr_store(uri)
    array = np.arange(24, dtype="int32").reshape(4, 6)
    stored = zarr.create_array(store, name="a", data=array, chunks=(2, 3), shards=(4, 6))
    np.testing.assert_array_equal(stored[1:3, 2:], array[1:3, 2:])
    again = zarr.open_group(ps.zarr_store(uri, read_only=True), mode="r")
    np.testing.assert_array_equal(again["a"][:], array)
    with pytest.raises(ValueError, match="read-only"):
        again["a"][0, 0] = 7


async def test_of_many_that_set_a_missing_key_one_wins(uri):
    """Zarr's own default asks first and then writes, so that two may think they were first."""
    store = BackendStore(uri)
    for key in ("k", "folder/k"):
        values = [buffer(b"%d" % number) for number in range(12)]
        await asyncio.gather(*(store.set_if_not_exists(key, value) for value in values))
        first = (await store.get(key)).to_bytes()
        assert first in [value.to_bytes() for value in values]
        await store.set_if_not_exists(key, buffer(b"late"))
        assert (await store.get(key)).to_bytes() == first


async def test_a_key_may_be_the_folder_of_others(uri):
    """No zarr hierarchy has that, but zarr's stores allow it."""
    store = BackendStore(uri)
    for key in ("a", "a/b/c", "a/b", "d/e", "d"):
        await store.set(key, buffer(key.encode()))
        await store.set_if_not_exists(key, buffer(b"late"))
    found = await _collect_aiterator(store.list())
    assert sorted(found) == ["a", "a/b", "a/b/c", "d", "d/e"]
    assert sorted(await _collect_aiterator(store.list_dir("a"))) == ["b"]
    for key in found:
        assert (await store.get(key)).to_bytes() == key.encode()
        assert await store.getsize(key) == len(key)
    await store.delete("a")
    await store.delete("d/e")
    assert sorted(await _collect_aiterator(store.list())) == ["a/b", "a/b/c", "d"]
    await store.set("d", buffer(b"again"))
    assert (await store.get("d")).to_bytes() == b"again"


async def test_keys_stay_below_the_store(uri):
    store = BackendStore(uri)
    await store.set("a", buffer(b"1"))
    for key in ("../a", "b/../../a", "a?t=1"):
        with pytest.raises(URIError):
            await store.get(key)
        with pytest.raises(URIError):
            await store.set(key, buffer(b"2"))


def test_another_process_reads_what_is_pickled(tmp_path):
    store = BackendStore(f"disk://{tmp_path}/h.zarr")
    store.set_sync("a", buffer(b"1"))
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).get_sync('a').to_bytes())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(store), capture_output=True, check=True
    )
    assert done.stdout == b"b'1'\n"


async def test_sizes_and_parts_fetch_no_more_than_was_asked_for(rig):
    store = BackendStore(f"s3://{rig.bucket}/h.zarr")
    for i in range(5):
        await store.set(f"c/{i}", buffer(bytes(100_000)))
    rig.server.reset()
    assert await store.getsize("c/1") == 100_000
    assert await store.exists("c/1")
    assert await store.getsize_prefix("c/") == 500_000
    assert rig.server.requests == {"HEAD": 2, "LIST": 1}
    parts = (RangeByteRequest(5, 15), OffsetByteRequest(99_990), SuffixByteRequest(10))
    for part in parts:
        assert len(await store.get("c/1", byte_range=part)) == 10
    got = await store.get_partial_values(default_buffer_prototype(), [("c/2", p) for p in parts])
    assert [len(value) for value in got] == [10, 10, 10]
    assert rig.server.requests["GET"] == 6
    assert rig.server.sent == 60
    rig.server.reset()
    await store.set("c/9", buffer(b"1"))
    await store.delete_dir("c")
    assert rig.server.requests == {"PUT": 1, "LIST": 1, "POST": 1}
