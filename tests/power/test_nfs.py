"""Two hosts update one document on an NFS server; all three live in one kernel."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Any

import kernel
import pytest
from kernel import MODULES, Kernel, make_disk

ROUNDS, UPDATES = 12, 144


def missing() -> str | None:
    """Why this cannot run here, or None."""
    if reason := kernel.missing():
        return reason
    if shutil.which("ip") is None:
        return "no `ip`; apt-get install iproute2"
    if platform.machine() != "x86_64" or not MODULES.is_dir():
        return "no modules for the kernel; apt-get install user-mode-linux"
    return None


pytestmark = pytest.mark.skipif(missing() is not None, reason=f"NOT RUN: {missing()}")


def run(folder: Path, what: str, options: str, rounds: int) -> tuple[list[str], list[Any]]:
    """Let two clients do `what` in that many rounds; returns how they mounted and what came."""
    host = Kernel(
        *("nfs", what, options, rounds), disk=make_disk(folder / "disk"), log=folder / "console"
    )
    try:
        mounts = host.report(60)["mounts"]
        return mounts, [host.report(120) for _ in range(rounds)]
    finally:
        host.cut()


def errors_of(rounds: list[Any]) -> list[str]:
    return [error for found in rounds for client in found["said"] for error in client["errors"]]


@pytest.mark.parametrize("version", ["4.2", "4.0"])
def test_12_rounds_of_144_updates_by_two_clients_lose_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    mounts, rounds = run(tmp_path, "crowd", f"vers={version}", ROUNDS)
    seconds = sorted(found["seconds"] for found in rounds)
    there = sum(found["there"] for found in rounds)
    with capsys.disabled():
        print(
            f"\nNFS {version}: {there} of {ROUNDS * UPDATES} updates in {sum(seconds):.0f} s, "
            f"{UPDATES / seconds[-1]:.0f} to {UPDATES / seconds[0]:.0f} a second, "
            f"{len(errors_of(rounds))} errors"
        )
    assert all(f"vers={version}," in mount for mount in mounts)
    assert errors_of(rounds) == []
    assert there == ROUNDS * UPDATES
    assert sum(found["twice"] for found in rounds) == 0
    assert sum(client["unseen"] for found in rounds for client in found["said"]) == 0
    assert max(found["left"] for found in rounds) == 0


def test_writers_without_a_lock_lose_updates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check of the check: the clients are in each other's way."""
    _, rounds = run(tmp_path, "careless", "vers=4.2", 1)
    with capsys.disabled():
        print(f"\nNFS without a lock: {rounds[0]['there']} of {UPDATES} updates")
    assert rounds[0]["there"] < UPDATES


@pytest.mark.parametrize("option", ["nolock", "local_lock=flock"])
def test_a_mount_whose_locks_stay_in_the_client_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """Each client would believe that it is alone: at once, for each kind of update.

    Two open files of one client do exclude each other there, so trying that tells nothing.
    """
    mounts, rounds = run(tmp_path, "once", f"vers=3,{option}", 3)
    assert all("local_lock=" in mount and "local_lock=none" not in mount for mount in mounts)
    said = [client for found in rounds for client in found["said"]]
    slowest = max(client["took"] for client in said[2:])  # the first round imports modules
    with capsys.disabled():
        print(f"\nNFS with {option}: refused in {slowest:.3f} s: {said[0]['error']}")
    assert all(client["error"].startswith("FileLockError: ") for client in said)
    assert all(option in client["error"] for client in said)
    assert slowest < 1  # of the 5 that were asked for
    assert max(found["there"] for found in rounds) == 0
