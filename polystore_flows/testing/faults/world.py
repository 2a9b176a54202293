"""One document in a folder of its own, processes that write it, and what must hold afterwards."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from polystore_flows.errors import CorruptMetadataError, PolystoreError
from polystore_flows.metadata import atomic_update_json, atomic_write_json, read_json
from polystore_flows.metadata.changes import Change
from polystore_flows.metadata.document import apply_change
from polystore_flows.metadata.queue import Queue

SOON = 1.0
"""Seconds in which the next commit must be done, whatever happened before."""

REFUSED, BROKEN = 3, 4
"""Exit statuses of a child: one of our own errors, any other error."""

_write = os.write  # also while the writer's own one fails


class World:
    """A document, and a list of the updates that were acknowledged.

    Args:
        folder: An empty folder, or one that does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "plate"
        self.document = self.folder / "a.json"
        self.folder.mkdir(parents=True)
        self._log = folder / "acknowledged"
        self._acknowledged = os.open(self._log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.reset()

    def reset(self) -> None:
        """Begin with a document that holds nothing but ballast."""
        os.ftruncate(self._acknowledged, 0)
        ballast = {f"well{number}": {"done": True} for number in range(96)}
        atomic_write_json(self.document, {"wells": ballast, "log": []})

    def append(self, entry: str, *, closure: bool = False, timeout: float = 30) -> None:
        """Add `entry` to the log in the document, and note that this was acknowledged."""
        if closure:
            atomic_update_json(
                self.document, lambda data: {**data, "log": [*data.get("log", []), entry]}, timeout
            )
        else:
            apply_change(self.document, Change().append("log", value=entry), timeout)
        self.acknowledge(entry)

    def acknowledge(self, entry: str) -> None:
        """Note that the caller was told that `entry` is in the document."""
        _write(self._acknowledged, f"{entry}\n".encode())

    @property
    def acknowledged(self) -> list[str]:
        """All entries that were acknowledged."""
        return self._log.read_text().split("\n")[:-1]

    def waiting(self) -> list[str]:
        """The files of the queue."""
        lock = Path(f"{self.document}.lock")
        if not lock.exists():
            return []
        status = lock.stat()
        return Queue.of((status.st_dev, status.st_ino)).names()

    def entries(self, faults: list[str]) -> list[str]:
        """The log in the document; whatever is wrong with it is added to `faults`."""
        try:
            log = read_json(self.document)["log"]
        except (CorruptMetadataError, FileNotFoundError, KeyError) as error:
            faults.append(f"the document is damaged: {error}")
            return []
        count = Counter(log)
        told = self.acknowledged
        faults += [f"lost: {entry}" for entry in told if not count[entry]]
        faults += [f"applied {n} times: {entry}" for entry, n in count.items() if n > 1]
        return list(log)

    def aftermath(self) -> list[str]:
        """Return all that is wrong once everybody is dead or done."""
        faults: list[str] = []
        began = time.monotonic()
        pid = fork(lambda: self.append("aftermath", timeout=3))
        status = wait(pid, 20)
        if status != 0:
            faults.append(f"stuck: the next commit ended with {status}")
        elif time.monotonic() - began > SOON:
            faults.append(f"slow: the next commit took {time.monotonic() - began:.2f} s")
        self.entries(faults)
        left = sorted(path.name for path in self.folder.iterdir())
        if left != ["a.json", "a.json.lock"]:
            faults.append(f"left over: {left}")
        if self.waiting():
            faults.append(f"left over in the queue: {self.waiting()}")
        return faults


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child of this process, which must have no other thread."""
    pid = os.fork()
    if pid:
        return pid
    status = 0
    try:
        work()
    except PolystoreError:
        status = REFUSED
    except BaseException:  # noqa: BLE001 - told apart from ours, and printed
        traceback.print_exc()
        sys.stderr.flush()
        status = BROKEN
    finally:
        os._exit(status)


def wait(pid: int, seconds: float = 30) -> int:
    """Wait for a child and return its exit status; one that hangs is killed."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGALRM
        time.sleep(0.001)


def wait_for_stop(pid: int) -> bool:
    """Wait until a child has stopped itself; False if it ended instead."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    return os.WIFSTOPPED(status)


def torn_or_backward(document: Path, report: Callable[[str], None]) -> None:
    """Read the document for ever, as somebody who knows nothing of locks."""
    longest = 0
    while True:
        try:
            length = len(json.loads(document.read_bytes())["log"])
        except (ValueError, KeyError, FileNotFoundError) as error:
            report(f"! torn: {error}")
            return
        if length < longest:
            report(f"! backward: {longest} entries, then {length}")
        longest = max(longest, length)
        time.sleep(0.0005)
