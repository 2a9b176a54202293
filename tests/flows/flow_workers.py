"""What processes of the tests of flows do; they are forked from one that has imported it all."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from polystore_flows.flows import cache, locks, references
from polystore_flows.flows.blocks import PolystoreStore
from polystore_flows.flows.locks import FlowLocks

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([cache.__name__, locks.__name__, references.__name__])


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """A process of its own."""
    process = _context.Process(target=target, args=args)
    process.start()
    return process


def crowd(count: int, target: Callable[..., None], *args: Any) -> list[int | None]:
    """The exit codes of `count` processes that do the same at once."""
    gate = _context.Barrier(count)
    processes = [start(_at_once, gate, target, args) for _ in range(count)]
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def _at_once(gate: Any, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    gate.wait(120)
    target(*args)


def update(uri: str, times: int) -> None:
    """Count up in a document, through the block."""
    store = PolystoreStore(uri=uri)
    for _ in range(times):
        store.update_json("count.json", lambda d: {"count": d.get("count", 0) + 1}, timeout=120)


def update_for_ever(uri: str, folder: str) -> None:
    """Begin to change a document through the block, until killed."""

    def change(document: dict[str, Any]) -> dict[str, Any]:
        Path(folder, "changing").touch()
        time.sleep(600)
        return {}

    PolystoreStore(uri=uri).update_json("count.json", change)


def add_under_locks(folder: str, keys: list[str], times: int) -> None:
    """Count up in plain files, under the lock manager."""
    manager = FlowLocks(folder)
    for number in range(times):
        for key in keys:
            holder = f"{os.getpid()}-{number}"
            assert manager.acquire_lock(key, holder, acquire_timeout=120)
            path = Path(folder, f"count of {key}")
            path.write_text(str(int(path.read_text() or 0) + 1 if path.exists() else 1))
            manager.release_lock(key, holder)


def hold(folder: str, key: str) -> None:
    """Hold a lock until killed."""
    assert FlowLocks(folder).acquire_lock(key, "holder")
    Path(folder, "held").touch()
    time.sleep(600)


def race(source: str, folder: str, settings: Mapping[str, str]) -> None:
    """Run one and the same task, whose executions are counted in `folder`."""
    os.environ.update(settings)
    from prefect import task
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()
    policy = cache.ContentPolicy().configure(
        isolation_level="SERIALIZABLE",
        lock_manager=FlowLocks(f"{folder}/locks"),
    )

    @task(
        persist_result=True,
        cache_policy=policy,
        result_serializer=references.ReferenceSerializer(),
    )
    def measure(source: str) -> int:
        Path(folder, f"executed by {os.getpid()}").touch()
        time.sleep(1)
        return 42

    state = measure(source, return_state=True)
    assert state.is_completed()
    assert state.result() == 42
    Path(folder, f"{state.name} {os.getpid()}").touch()
