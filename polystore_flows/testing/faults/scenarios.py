"""All that can go wrong, by name; each returns what is wrong, which should be nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from polystore_flows.errors import CorruptMetadataError
from polystore_flows.metadata import (
    FileLockError,
    FileLockTimeoutError,
    MetadataWriteError,
    atomic_update_json,
    file_lock,
    read_json,
)
from polystore_flows.testing.faults import crowd
from polystore_flows.testing.faults.shim import Shim
from polystore_flows.testing.faults.storm import storm
from polystore_flows.testing.faults.world import World, fork, wait

SKIPPED = "skipped: "


def order(folder: Path) -> list[str]:
    """Data is synced before the replacement, the folder after it and before any answer."""
    world, faults = World(folder), []
    for closure in (False, True):
        with Shim() as shim:
            world.append(f"closure {closure}", closure=closure)
        calls = shim.calls
        replaced = calls.index("replace temporary")
        written = max(i for i, call in enumerate(calls) if call == "write temporary")
        if "fdatasync temporary" not in calls[written:replaced]:
            faults.append("the data was not synced between writing and replacing")
        if "fsync folder" not in calls[replaced:]:
            faults.append("the folder was not synced after replacing")
    return faults


def corrupt(folder: Path) -> list[str]:
    """A document that is no JSON object raises and stays as it is."""
    world, faults = World(folder), []
    for content in (b"", b"{", b"null", b"[]", b"\0" * 50, b'{"a": NaN}'):
        for closure in (False, True):
            world.document.write_bytes(content)
            try:
                world.append("never", closure=closure)
                faults.append(f"{content!r} was taken for a document")
            except CorruptMetadataError:
                pass
            if world.document.read_bytes() != content:
                faults.append(f"{content!r} was overwritten")
    return faults


def replaced_lock(folder: Path) -> list[str]:
    """A lock file that somebody has replaced since it was opened is not the lock."""
    world = World(folder)
    lock, real = Path(f"{world.document}.lock"), os.open
    swapped: list[int] = []

    def swap(path: str, flags: int, mode: int = 0o777) -> int:
        fd = real(path, flags, mode)
        if os.fspath(path) == str(lock) and not swapped:
            swapped.append(1)
            lock.unlink()
            lock.touch()
        return fd

    os.open = swap  # type: ignore[assignment]
    try:
        with file_lock(world.document):
            fd = real(lock, os.O_RDWR)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return ["two holders: the lock file had been replaced"]
            except BlockingIOError:
                return []
            finally:
                os.close(fd)
    finally:
        os.open = real


def foreign(folder: Path) -> list[str]:
    """A writer that takes no lock is noticed, and what it wrote is kept."""
    world, faults = World(folder), []
    calls: list[int] = []

    def change(data: dict[str, object]) -> dict[str, object]:
        calls.append(1)
        if len(calls) == 1:
            world.document.write_text('{"log": ["foreign"]}')
        return {**data, "mine": True}

    atomic_update_json(world.document, change)
    if read_json(world.document) != {"log": ["foreign"], "mine": True}:
        faults.append("what another program wrote was overwritten")
    return faults


def threads(folder: Path) -> list[str]:
    """Threads of one process, with functions and with data, lose nothing."""
    world = World(folder)

    def work(name: int) -> None:
        for number in range(25):
            world.append(f"{name}-{number}", closure=bool(name % 2))

    def all_at_once() -> None:
        workers = [threading.Thread(target=work, args=(name,)) for name in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    status = wait(fork(all_at_once), 60)
    found = [] if status == 0 else [f"ended with {status}"]
    if len(world.acknowledged) != 150:
        found.append(f"{len(world.acknowledged)} of 150 were acknowledged")
    return found + world.aftermath()


def stopped_holder(folder: Path) -> list[str]:
    """A holder that hangs is named in time, and what timed out is never applied."""
    world, faults = World(folder), []
    read, write = os.pipe()

    def hold() -> None:
        with file_lock(world.document):
            os.write(write, b"h")
            time.sleep(600)

    holder = fork(hold)
    os.read(read, 1)
    os.kill(holder, signal.SIGSTOP)
    for closure in (False, True):
        began = time.monotonic()
        try:
            world.append("late", closure=closure, timeout=0.5)
            faults.append("a lock that is held was taken")
        except FileLockTimeoutError as error:
            took = time.monotonic() - began
            if not 0.5 <= took <= 0.7:
                faults.append(f"timed out after {took:.2f} s instead of 0.5")
            if f"process {holder} on" not in str(error):
                faults.append(f"the holder is not named: {error}")
    os.kill(holder, signal.SIGKILL)
    wait(holder)
    faults += world.aftermath()
    if "late" in world.entries([]):
        faults.append("an update that timed out was applied later")
    return faults


def forked(folder: Path) -> list[str]:
    """A child that was forked under the lock neither has it nor keeps it."""
    world = World(folder)
    read, write = os.pipe()

    def hold() -> None:
        with file_lock(world.document):
            child = fork(lambda: time.sleep(600))
            os.write(write, f"{child}\n".encode())
            time.sleep(600)

    holder = fork(hold)
    child = int(os.read(read, 20))
    time.sleep(0.1)
    os.kill(holder, signal.SIGKILL)
    wait(holder)
    try:
        return world.aftermath()
    finally:
        os.kill(child, signal.SIGKILL)


def read_only(folder: Path) -> list[str]:
    """No permission is an error at once, not a time-out, and nothing changes."""
    if os.geteuid() != 0:
        return [f"{SKIPPED}only root can become a user without permission here"]
    faults: list[str] = []
    with TemporaryDirectory() as place:  # where that user may look
        Path(place).chmod(0o755)
        world = World(Path(place) / "x")
        before = world.document.stat().st_ino

        def refused() -> None:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            for closure in (False, True):
                began = time.monotonic()
                try:
                    world.append("forbidden", closure=closure)
                except (FileLockError, MetadataWriteError) as error:
                    if isinstance(error, FileLockTimeoutError) or "right" not in str(error):
                        world.acknowledge(f"! {error}")
                    if time.monotonic() - began > 0.1:
                        world.acknowledge("! it took long")

        status = wait(fork(refused))
        faults += [f"ended with {status}"] if status else []
        faults += world.acknowledged
        if world.document.stat().st_ino != before:
            faults.append("the document was changed")
    return faults


def full_disk(folder: Path) -> list[str]:
    """A disk that is full refuses an update, keeps the document, and goes on when there is room."""
    disk = folder / "disk"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        return [f"{SKIPPED}a small disk can be mounted by root only"]
    try:
        world, faults = World(disk / "x"), []
        told = 0
        try:
            for number in range(500):
                world.append(f"{number} {'x' * 500}", closure=bool(number % 2))
                told = number
            faults.append("the disk was never full")
        except (FileLockError, MetadataWriteError) as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno != errno.ENOSPC:
                faults.append(f"not told that the disk is full: {error}")
        except OSError as error:  # from our own list of acknowledged updates
            faults += [] if error.errno == errno.ENOSPC else [str(error)]
        if len([e for e in world.entries(faults) if e]) < told:
            faults.append("acknowledged updates are gone")
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        return faults + world.aftermath()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def small_storm(folder: Path) -> list[str]:
    """A hundred random kills."""
    return storm(folder, kills=100).faults


SCENARIOS: dict[str, Callable[[Path], list[str]]] = {
    "order": order,
    "corrupt": corrupt,
    "replaced lock": replaced_lock,
    "foreign": foreign,
    "threads": threads,
    "stopped holder": stopped_holder,
    "forked": forked,
    "read-only": read_only,
    "full disk": full_disk,
    "alone killed": crowd.alone_killed,
    "alone failed": lambda folder: crowd.alone_failed(folder, every=11),
    "leader killed": lambda folder: crowd.killed(folder, "leader"),
    "follower killed": lambda folder: crowd.killed(folder, "follower"),
    "heir killed": crowd.heir_killed,
    "leader failed": lambda folder: crowd.failed(folder, "leader", every=29),
    "follower failed": lambda folder: crowd.failed(folder, "follower", every=29),
    "storm": small_storm,
}
"""Name to a function that gets an empty folder. Those that kill fork: use one thread."""


def run(name: str) -> list[str]:
    """Run one scenario in a temporary folder."""
    with TemporaryDirectory() as folder:
        return SCENARIOS[name](Path(folder) / "world")
