"""One commit that others have joined, in which one process dies or fails at a given call."""

from __future__ import annotations

import mmap
import os
import signal
import time
from itertools import count, product
from pathlib import Path
from typing import Any

from polystore_flows.metadata import MetadataWriteError, atomic_update_json
from polystore_flows.metadata.changes import Change
from polystore_flows.metadata.document import apply_change
from polystore_flows.testing.faults.shim import ERRORS, SHORT, Plan, Shim, fail_at, kill_at
from polystore_flows.testing.faults.world import BROKEN, REFUSED, World, fork, wait, wait_for_stop

FOLLOWERS = 3


def killed(folder: Path, victim: str, *, times: int = 1, every: int = 1) -> list[str]:
    """Kill the leader or a follower before each of its system calls."""
    faults: list[str] = []
    world = World(folder)
    for number in count(0, every):
        for _ in range(times):
            died, found = _commit(world, victim, kill_at(number))
            faults += [f"{victim} killed at call {number}: {fault}" for fault in found]
        if not died or len(faults) > 5:
            break
    return faults


def heir_killed(folder: Path) -> list[str]:
    """Kill the leader when the new document is in place, and who comes next before each call.

    Those who joined the leader are stopped meanwhile, and find out what became of their updates
    when both are dead.
    """
    faults: list[str] = []
    world = World(folder)
    for closure in (False, True):
        for number in count():
            died, found = _inherit(world, closure, kill_at(number))
            faults += [f"heir killed at call {number}: {fault}" for fault in found]
            if not died or len(faults) > 5:
                break
    return faults


def _inherit(world: World, closure: bool, plan: Plan) -> tuple[bool, list[str]]:
    world.reset()
    go_read, go_write = os.pipe()
    leader = fork(lambda: _lead(world, go_write, _stop_when_replaced()))
    followers = [
        fork(lambda n=number: _follow(world, n, go_read, None))  # type: ignore[misc]
        for number in range(FOLLOWERS)
    ]
    faults = [] if wait_for_stop(leader) else ["the leader was not stopped"]
    for follower in followers:
        os.kill(follower, signal.SIGSTOP)
    os.kill(leader, signal.SIGKILL)
    wait(leader)
    heir = wait(fork(lambda: _alone(world, plan, closure)))
    for follower in followers:
        os.kill(follower, signal.SIGCONT)
    os.close(go_read)
    os.close(go_write)
    for number, follower in enumerate(followers):
        status = wait(follower, 10)
        faults += [f"follower {number} ended with {status}"] if status else []
    return heir == -signal.SIGKILL, faults + world.aftermath()


def _stop_when_replaced() -> Plan:
    """Stop the process before the first call after it has replaced the document."""
    replaced: list[int] = []

    def plan(index: int, name: str) -> int:
        if replaced and index == replaced[0] + 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        if name == "replace":
            replaced.append(index)
        return 0

    return plan


def failed(folder: Path, victim: str, *, every: int = 1) -> list[str]:
    """Let each of the victim's system calls fail, once and from there on."""
    faults: list[str] = []
    world = World(folder)
    calls = _Counter()
    _commit(world, victim, calls)
    for number, error, persistent in _failures(calls.seen, every):
        if len(faults) > 5:
            break
        _, found = _commit(world, victim, fail_at(number, error, persistent=persistent))
        how = f"call {number} of the {victim}, errno {error}{' and on' if persistent else ''}"
        faults += [f"{how}: {fault}" for fault in found]
    return faults


def _failures(calls: int, every: int) -> list[tuple[int, int, bool]]:
    """Every n-th of all ways in which `calls` calls can fail."""
    errors = (*ERRORS, SHORT)
    return list(product(range(calls), errors, (False, True)))[::every]


class _Counter:
    """A plan that only counts, across the fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def __call__(self, index: int, _: str) -> int:
        self._memory[:] = (index + 1).to_bytes(8, "big")
        return 0

    @property
    def seen(self) -> int:
        return int.from_bytes(self._memory[:], "big")


def _commit(world: World, victim: str, plan: Plan) -> tuple[bool, list[str]]:
    """Let a leader commit its own update and those of its followers."""
    world.reset()
    faults: list[str] = []
    go_read, go_write = os.pipe()
    leader = fork(lambda: _lead(world, go_write, plan if victim == "leader" else None))
    followers = [
        fork(
            lambda n=number: _follow(  # type: ignore[misc]
                world, n, go_read, plan if victim == "follower" and n == 0 else None
            )
        )
        for number in range(FOLLOWERS)
    ]
    statuses = {"leader": wait(leader, 10)}
    os.write(go_write, b"g" * FOLLOWERS)
    for number, follower in enumerate(followers):
        statuses["follower" if number == 0 else f"bystander {number}"] = wait(follower, 10)
    os.close(go_read)
    os.close(go_write)
    for name, status in statuses.items():
        fine = {0, REFUSED, -signal.SIGKILL} if name == victim else {0}
        if status not in fine:
            what = {BROKEN: "another error", REFUSED: "refused"}.get(status, status)
            faults.append(f"the {name} ended with {what}")
    faults += world.aftermath()
    return statuses[victim] == -signal.SIGKILL, faults


def _lead(world: World, go: int, plan: Plan | None) -> None:
    with Shim(plan) as shim:

        def gather(data: dict[str, Any]) -> dict[str, Any]:
            with shim.paused():
                os.write(go, b"g" * FOLLOWERS)
                end = time.monotonic() + 0.25
                while time.monotonic() < end:
                    if sum(name.endswith(".json") for name in world.waiting()) == FOLLOWERS:
                        break
                    time.sleep(0.001)
            return {**data, "log": [*data["log"], "leader"]}

        atomic_update_json(world.document, gather, 10)
    world.acknowledge("leader")


def _follow(world: World, number: int, go: int, plan: Plan | None) -> None:
    os.read(go, 1)
    change = Change().append("log", value=f"follower {number}")
    try:
        with Shim(plan):
            apply_change(world.document, change, 10)
    except MetadataWriteError as error:
        if "is visible" not in str(error):  # else it must be in the document
            raise
    world.acknowledge(f"follower {number}")


def alone_killed(folder: Path) -> list[str]:
    """Kill one writer that nobody waits for, before each of its system calls."""
    faults: list[str] = []
    world = World(folder)
    for closure in (False, True):
        for number in count():
            world.reset()
            pid = fork(lambda n=number, c=closure: _alone(world, kill_at(n), c))  # type: ignore[misc]
            status = wait(pid)
            faults += [f"killed at call {number}: {fault}" for fault in world.aftermath()]
            if status == 0 or len(faults) > 5:
                break
    return faults


def alone_failed(folder: Path, *, every: int = 1) -> list[str]:
    """Let each system call of one writer fail: only declared errors, and they tell the truth."""
    faults: list[str] = []
    world = World(folder)
    for closure in (False, True):
        world.reset()
        calls = _Counter()
        wait(fork(lambda k=calls, c=closure: _alone(world, k, c)))  # type: ignore[misc]
        for number, error, persistent in _failures(calls.seen, every):
            if len(faults) > 5:
                break
            world.reset()
            plan = fail_at(number, error, persistent=persistent)
            status = wait(fork(lambda p=plan, c=closure: _alone(world, p, c)))  # type: ignore[misc]
            found = world.aftermath()
            if status not in (0, REFUSED):
                found.append(f"ended with {status}")
            told = world.acknowledged
            if status == REFUSED and ("alone" in world.entries([])) != ("visible" in told):
                found.append("the error does not tell whether the update is in the document")
            how = f"call {number}, errno {error}{' and on' if persistent else ''}"
            faults += [f"{how}: {fault}" for fault in found if fault != "lost: visible"]
    return faults


def _alone(world: World, plan: Plan, closure: bool) -> None:
    try:
        with Shim(plan):
            if closure:
                atomic_update_json(
                    world.document, lambda data: {**data, "log": [*data["log"], "alone"]}, 5
                )
            else:
                apply_change(world.document, Change().append("log", value="alone"), 5)
    except OSError as error:
        if "is visible" in str(error):
            world.acknowledge("visible")
        raise
    world.acknowledge("alone")
