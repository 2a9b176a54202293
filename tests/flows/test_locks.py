"""The lock manager of transactions: exclusive, freed by death, for any key."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
import time
from pathlib import Path

import flow_workers
import pytest
from prefect.locking.protocol import LockManager
from prefect.settings import get_current_settings

from polystore_flows.errors import FileLockTimeoutError
from polystore_flows.flows.blocks import PolystoreStore
from polystore_flows.flows.locks import FlowLocks

KEYS = ["plate.A", "plate.B", "plate", "PLATE", "a/b", "a b", "größe"]


@pytest.fixture
def manager(tmp_path):
    return FlowLocks(str(tmp_path / "locks"))


def test_it_is_what_prefect_asks_for(manager):
    assert isinstance(manager, LockManager)
    assert pickle.loads(pickle.dumps(manager)) == manager


def test_two_holders_exclude_each_other_also_in_one_thread(manager):
    """A transaction is a holder, and one thread may have two of them open."""
    assert manager.acquire_lock("key", "one")
    assert manager.acquire_lock("key", "one")
    assert not manager.acquire_lock("key", "two", acquire_timeout=0)
    assert manager.is_locked("key")
    assert manager.is_lock_holder("key", "one")
    assert not manager.is_lock_holder("key", "two")
    assert not manager.wait_for_lock("key", timeout=0.05)
    with pytest.raises(ValueError, match="two does not hold"):
        manager.release_lock("key", "two")
    manager.release_lock("key", "one")
    assert not manager.is_locked("key")
    assert manager.wait_for_lock("key", timeout=0.05)


def test_each_key_has_a_lock_of_its_own(manager):
    """Prefect's own file locks take plate.A and plate.B for one."""
    for key in KEYS:
        assert manager.acquire_lock(key, key, acquire_timeout=0)
    for key in KEYS:
        manager.release_lock(key, key)


def test_a_lock_may_be_released_by_another_thread(manager):
    assert manager.acquire_lock("key", "one")
    thread = threading.Thread(target=manager.release_lock, args=("key", "one"))
    thread.start()
    thread.join()
    assert manager.acquire_lock("key", "two", acquire_timeout=0)
    manager.release_lock("key", "two")


def test_a_hold_may_be_given_an_end(manager):
    manager.acquire_lock("key", "one", hold_timeout=0.1)
    assert manager.wait_for_lock("key", timeout=30)
    assert not manager.is_lock_holder("key", "one")


def test_coroutines_wait_without_stopping_the_loop(manager):
    async def use() -> int:
        assert await manager.aacquire_lock("key", "one")
        waiting = asyncio.create_task(manager.aacquire_lock("key", "two"))
        turns = 0
        while turns < 5:
            await asyncio.sleep(0.01)
            turns += 1
        assert not waiting.done()
        manager.release_lock("key", "one")
        assert await waiting
        assert not await manager.await_for_lock("key", timeout=0.05)
        assert not await manager.aacquire_lock("key", "three", acquire_timeout=0.05)
        manager.release_lock("key", "two")
        assert await manager.await_for_lock("key", timeout=5)
        return turns

    assert asyncio.run(use()) == 5


def test_eight_processes_lose_no_update_under_the_locks(tmp_path):
    """Prefect's own file locks failed in 157 of 400."""
    codes = flow_workers.crowd(
        8, flow_workers.add_under_locks, str(tmp_path), ["plate.A", "plate.B"], 50
    )
    assert codes == [0] * 8
    for key in ("plate.A", "plate.B"):
        assert (tmp_path / f"count of {key}").read_text() == "400"


def test_eight_processes_lose_no_update_through_the_block(tmp_path):
    codes = flow_workers.crowd(8, flow_workers.update, f"disk://{tmp_path}", 50)
    assert codes == [0] * 8
    assert (tmp_path / "count.json").read_text().split() == ["{", '"count":', "400", "}"]


def test_the_death_of_who_changes_a_document_loses_nothing_and_lets_the_next_one_in(tmp_path):
    """SIGKILL in the middle of an update: the old document stands and nobody waits for the dead."""
    store = PolystoreStore(uri=f"disk://{tmp_path}/store")
    store.update_json("count.json", lambda _: {"count": 1})
    process = flow_workers.start(flow_workers.update_for_ever, store.uri, str(tmp_path))
    while not (tmp_path / "changing").exists():
        assert process.is_alive()
        time.sleep(0.01)
    with pytest.raises(FileLockTimeoutError):
        store.update_json("count.json", lambda _: {}, timeout=0.1)
    process.kill()
    process.join()
    assert store.update_json("count.json", lambda d: {"count": d["count"] + 1}, timeout=1) == {
        "count": 2
    }


def test_the_death_of_a_holder_frees_its_lock(tmp_path):
    """SIGKILL runs no clean-up; the next one proceeds at once, not after a time-out."""
    process = flow_workers.start(flow_workers.hold, str(tmp_path), "key")
    while not (tmp_path / "held").exists():
        assert process.is_alive()
        time.sleep(0.01)
    manager = FlowLocks(str(tmp_path))
    assert manager.is_locked("key")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert manager.acquire_lock("key", "next", acquire_timeout=0)
    manager.release_lock("key", "next")


def test_of_four_racers_one_executes_and_the_others_get_its_result(tmp_path):
    """Isolation SERIALIZABLE: no racer fails, and none runs the task beside another."""
    current = get_current_settings().to_environment_variables(exclude_unset=True)
    (tmp_path / "raw.txt").write_text("raw")
    source = f"disk://{tmp_path}/raw.txt"
    codes = flow_workers.crowd(4, flow_workers.race, source, str(tmp_path), current)
    assert codes == [0] * 4
    assert len(list(tmp_path.glob("executed by *"))) == 1
    assert len(list(tmp_path.glob("Cached *"))) == 3
    assert len(list(Path(tmp_path, "locks").glob("*.lock"))) == 1
