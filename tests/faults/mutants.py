"""Broken copies of our own code: each breaks one promise, and a scenario must notice.

Run as ``python mutants.py MUTANT SCENARIO``; prints what the scenario found.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polystore_flows.errors import CorruptMetadataError
from polystore_flows.metadata import atomic, descriptors, document, flock, lock, notes, queue
from polystore_flows.testing.faults import run


def no_data_sync() -> None:
    atomic._write = _written(whole=True, sync=False)


def no_folder_sync() -> None:
    atomic.sync_folder = lambda folder: None


def lock_unlinked_after_release() -> None:
    close = lock.Hold._close

    def unlink(self: lock.Hold) -> None:
        held = self.held
        close(self)
        if held:
            self.path.unlink(missing_ok=True)

    lock.Hold._close = unlink


def lock_not_checked_by_inode() -> None:
    def current(self: lock.Hold) -> bool:
        self._locked = True
        lock._owners[self._key] = self
        return True

    lock.Hold._is_current = current


def no_lock() -> None:
    flock.lock = lambda fd: True
    lock.Hold._prove = lambda self: None


def acknowledge_before_commit() -> None:
    replace = document.replace

    def early(path: Path, payload: bytes, before: Any, hold: Any, ids: Any = ()) -> None:
        for request in claimed:
            request.answer(queue.DONE)
        replace(path, payload, before, hold, ids)

    claimed: list[queue.Request] = []
    claim = queue.Queue.claim

    def remember(self: queue.Queue, *args: Any) -> list[queue.Request]:
        claimed[:] = claim(self, *args)
        return list(claimed)

    document.replace = early
    queue.Queue.claim = remember


def default_on_corrupt() -> None:
    parse = document.parse

    def lenient(path: Path, content: bytes) -> dict[str, Any]:
        try:
            return parse(path, content)
        except CorruptMetadataError:
            return {}

    document.parse = lenient


def forget_what_a_dead_leader_did() -> None:
    notes.Notes.is_settled = lambda self, update: False


def believe_a_dead_leader() -> None:
    notes.Notes.is_settled = lambda self, update: True


def forget_it_when_the_next_dies() -> None:
    remember = lock.Hold.remember
    lock.Hold.remember = lambda self: remember(self) if self.notes.batch else None


def claim_without_taking() -> None:
    def claim(self: queue.Queue, identity: str, about: bytes) -> queue.Request | None:
        fifo = self._reach(f"{identity}.update")
        content = Path(f"{self.folder}/{identity}.json").read_bytes() if fifo else b""
        return queue.Request(identity, content, fifo) if fifo else None

    queue.Queue._claim = claim


def write_in_place() -> None:
    def replace(path: Path, payload: bytes, *_: Any) -> None:
        path.write_bytes(payload)

    document.replace = replace


def one_write() -> None:
    atomic._write = _written(whole=False, sync=True)


def _written(*, whole: bool, sync: bool) -> Callable[..., os.stat_result]:
    def write(temporary: Path, payload: bytes, before: Any) -> os.stat_result:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        rest = payload[os.write(fd, payload) :]
        while whole and rest:
            rest = rest[os.write(fd, rest) :]
        if sync:
            os.fdatasync(fd)
        status = os.fstat(fd)
        os.close(fd)
        return status

    return write


def no_sweep() -> None:
    atomic._sweep = lambda base: None


def foreign_writers_ignored() -> None:
    atomic._identity = lambda status: None


def children_keep_descriptors() -> None:
    def keep(self: descriptors.Descriptor, path: Path, flags: int, mode: int = 0o666) -> None:
        self.fd = os.open(path, flags | os.O_CLOEXEC, mode)

    descriptors.Descriptor.__init__ = keep


def every_lock_error_is_waited_for() -> None:
    real = os.open

    def patient(path: Any, *args: Any, **kwargs: Any) -> int:
        try:
            return real(path, *args, **kwargs)
        except PermissionError:
            time.sleep(0.3)
            raise

    os.open = patient


MUTANTS: dict[str, tuple[Callable[[], None], str]] = {
    "no data sync": (no_data_sync, "order"),
    "no folder sync": (no_folder_sync, "order"),
    "lock unlinked after release": (lock_unlinked_after_release, "threads"),
    "lock not checked by inode": (lock_not_checked_by_inode, "replaced lock"),
    "no lock": (no_lock, "threads"),
    "acknowledge before commit": (acknowledge_before_commit, "leader killed"),
    "default on corrupt": (default_on_corrupt, "corrupt"),
    "apply twice": (forget_what_a_dead_leader_did, "leader killed"),
    "believe a dead leader": (believe_a_dead_leader, "leader killed"),
    "apply twice after two deaths": (forget_it_when_the_next_dies, "heir killed"),
    "claim without taking": (claim_without_taking, "threads"),
    "write in place": (write_in_place, "storm"),
    "one write": (one_write, "alone failed"),
    "no sweep": (no_sweep, "alone killed"),
    "foreign writers ignored": (foreign_writers_ignored, "foreign"),
    "children keep descriptors": (children_keep_descriptors, "forked"),
    "lock errors waited for": (every_lock_error_is_waited_for, "read-only"),
}
"""Name to the mutation and the scenario that must notice it."""

if __name__ == "__main__":
    mutate, scenario = MUTANTS[sys.argv[1]]
    if sys.argv[2:] != ["sane"]:
        mutate()
    print(*run(scenario), sep="\n")
