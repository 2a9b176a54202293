"""Who of this host waits for a lock, in order, and the updates that its holder may take along.

A waiter has a FIFO in a private folder of this host and user. An update that can be said as data
lies beside it as a file; whoever removes that file has it: the holder of the lock, who then
commits it together with its own and says so through the FIFO, or the waiter, who gives up. A
holder that lets go calls the first waiter. A FIFO that nobody reads belonged to a process that
is dead.

Nothing here is needed for correctness: the lock alone excludes. Where there is no such folder,
waiters try the lock again and again and updates are committed one by one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import random
import select
import stat
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from polystore_flows.metadata.descriptors import Descriptor
from polystore_flows.metadata.notes import is_alive

DONE, CALL, RETURNED, UNSURE = b"+", b"!", b"?", b"~"
"""What a FIFO says: committed; your turn; see for yourself; visible, but (text)."""

MOST = 128
"""Updates in one commit."""

_FIRST_PAUSE = (0.0005, 0.02)  # seconds between two tries of the first waiter
_OTHER_PAUSE = (0.05, 0.15)  # of the others, who are called when it is their turn
_SHARED_MEMORY = "/dev/shm"
_CLOSURE, _UPDATE, _PAYLOAD = ".turn", ".update", ".json"


def address(document: Path) -> bytes:
    """The first line of an update, which says what it is for."""
    return json.dumps(str(document)).encode()


class Request:
    """An update of another thread or process that this one is about to commit."""

    def __init__(self, identity: str, update: bytes, fifo: int) -> None:
        self.id = identity
        self.update = update
        self._fifo = fifo

    def answer(self, what: bytes, text: str = "") -> bool:
        """Tell the waiter, once; False if it lives and could not be told."""
        fifo, self._fifo = self._fifo, -1
        return fifo < 0 or _say(fifo, what + text.replace("\n", " ").encode()[:3000] + b"\n")


class Queue:
    """The waiters of this host and user for one lock file.

    Args:
        folder: Where they are; None where there is no place for that.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = folder

    @classmethod
    def of(cls, key: tuple[int, int]) -> Queue:
        """Return the queue for the lock file with this device and inode."""
        root = _root(os.geteuid())
        return cls(root and f"{root}/{key[0]:x}-{key[1]:x}")

    def names(self) -> list[str]:
        """All files of the queue, the oldest waiter's first."""
        if self.folder is None or not os.access(self.folder, os.F_OK):
            return []
        try:
            return sorted(os.listdir(self.folder))  # noqa: PTH208 - half the time of a Path
        except OSError:
            return []

    def is_contended(self, names: Sequence[str]) -> bool:
        """Whether one of them cannot be taken along: then newcomers wait as well."""
        return any(name.endswith(_CLOSURE) and self._lives(name) for name in names)

    def is_first(self, waiter: str, names: Sequence[str]) -> bool:
        """Whether nobody of them who still listens has waited longer."""
        for name in names:
            if name == waiter:
                break
            if not name.endswith(_PAYLOAD):
                fifo = self._reach(name)
                if fifo is not None and _say(fifo, b"", only_if_heard=True):
                    return False
        return True

    def _lives(self, name: str) -> bool:
        fifo = self._reach(name)
        return fifo is not None and _say(fifo, b"")

    def claim(self, document: Path, limit: int) -> list[Request]:
        """Take the updates of `document` that wait. Needs the lock."""
        claimed: list[Request] = []
        about = address(document)
        for name in self.names():
            if len(claimed) >= limit:
                break
            if name.endswith(_PAYLOAD):
                request = self._claim(name.removesuffix(_PAYLOAD), about)
                if request is not None:
                    claimed.append(request)
        return claimed

    def _claim(self, identity: str, about: bytes) -> Request | None:
        payload = f"{self.folder}/{identity}{_PAYLOAD}"
        fifo = self._reach(f"{identity}{_UPDATE}")
        if fifo is None:
            return None
        try:
            with open(payload, "rb") as file:  # noqa: PTH123
                content = file.read()
            lines = content.split(b"\n")
            if len(lines) == 3 and lines[0] == about:  # else it is still being written
                os.unlink(payload)  # noqa: PTH108 - the claim: one unlink succeeds, not two
                return Request(identity, lines[1], fifo)
        except OSError:
            pass  # given up meanwhile
        _say(fifo, b"")
        return None

    def call_next(self) -> None:
        """Wake who has waited longest; called after the lock was released."""
        for name in self.names():
            fifo = None if name.endswith(_PAYLOAD) else self._reach(name)
            if fifo is not None and _say(fifo, CALL + b"\n", only_if_heard=True):
                return

    def _reach(self, name: str) -> int | None:
        """Open a waiter's FIFO; where it is dead, remove what it left.

        One without a reader may also be just made, by a process that is about to open it.
        """
        fifo = f"{self.folder}/{name}"
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.ENOENT or (error.errno == errno.ENXIO and not _is_made(name)):
                for left in (f"{self.folder}/{name.partition('.')[0]}{_PAYLOAD}", fifo):
                    with contextlib.suppress(OSError):
                        os.unlink(left)  # noqa: PTH108
                self.close()
            return None

    def close(self) -> None:
        """Remove the folder, if it was the last waiter's."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                os.rmdir(self.folder)  # noqa: PTH106


class Place:
    """One waiter's place in a queue.

    Args:
        queue: The queue.
        update: The `address` of the document and the `Change`, as two lines; None where only the
            lock itself will do.
        before: Names of the queue when this one came.
    """

    def __init__(self, queue: Queue, update: bytes | None, before: Sequence[str] = ()) -> None:
        # The clock of this boot, which nobody sets, gives the order; the rest makes it unique.
        self.id = f"{time.monotonic_ns():016x}-{os.getpid()}-{os.urandom(6).hex()}"
        self._before: Sequence[str] | None = before
        self._queue = queue
        self._name = f"{self.id}{_CLOSURE if update is None else _UPDATE}"
        self._fifo: Descriptor | None = None
        self._said = b""
        self._published = False
        if queue.folder is not None:
            with contextlib.suppress(OSError):
                self._enter(queue.folder, update)

    def _enter(self, folder: str, update: bytes | None) -> None:
        fifo = f"{folder}/{self._name}"
        for _ in range(20):  # as often as a leaving waiter removes the folder in between
            with contextlib.suppress(FileNotFoundError):
                os.mkfifo(fifo, 0o600)
                break
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)  # noqa: PTH102
        # Open for both, so that it is never at its end; others see that it has a reader.
        self._fifo = Descriptor(fifo, os.O_RDWR | os.O_NONBLOCK)
        if update is None:
            return
        payload = os.open(
            f"{folder}/{self.id}{_PAYLOAD}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
        )
        try:
            self._published = True
            rest = memoryview(update)
            while rest:
                rest = rest[os.write(payload, rest) :]
        finally:
            os.close(payload)

    def wait(self, seconds: float) -> bytes | None:
        """Wait to be called, but not for long; returns what `answer` does."""
        fd = self._fifo.fd if self._fifo is not None else -1
        names = self._queue.names() if self._before is None else self._before
        self._before = None
        first = fd < 0 or self._queue.is_first(self._name, names)
        pause = min(random.uniform(*(_FIRST_PAUSE if first else _OTHER_PAUSE)), seconds)
        if fd < 0:
            time.sleep(pause)
            return None
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(pause * 1000)
        return self.answer()

    def answer(self) -> bytes | None:
        """What became of the update: ``DONE``, ``UNSURE`` with a text, or None as yet."""
        if self._fifo is None or self._fifo.fd < 0:
            return None
        with contextlib.suppress(OSError):
            self._said += os.read(self._fifo.fd, 1 << 16)
        for line in self._said.split(b"\n")[:-1]:
            if line[:1] in (DONE, UNSURE):
                self._published = False
                return line
        return None

    def withdraw(self) -> bool:
        """Take the update back; False where another has it, had it when it died, or may have."""
        if not self._published:
            return True
        try:
            os.unlink(f"{self._queue.folder}/{self.id}{_PAYLOAD}")  # noqa: PTH108
        except OSError:
            return False
        self._published = False
        return True

    def leave(self) -> None:
        """Give the place up; an update that nobody has taken is withdrawn."""
        fifo, self._fifo = self._fifo, None
        if fifo is not None and fifo.fd >= 0:  # a forked child leaves its parent's place alone
            with contextlib.suppress(OSError):
                self.withdraw()
            with contextlib.suppress(OSError):
                os.unlink(f"{self._queue.folder}/{self._name}")  # noqa: PTH108
            fifo.close()
        self._queue.close()


def _say(fifo: int, what: bytes, *, only_if_heard: bool = False) -> bool:
    """Write to a FIFO and close it; False if somebody who reads it did not get it.

    Args:
        fifo: Its descriptor.
        what: At most as much as a pipe takes at once.
        only_if_heard: Not if the reader has not yet heard what was said before: it has its
            answer, was called already, or is stopped.
    """
    try:
        if only_if_heard and any(fcntl.ioctl(fifo, termios.FIONREAD, bytes(4))):
            return False
        return os.write(fifo, what) == len(what) if what else True
    except BrokenPipeError:
        return True
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.close(fifo)


def _is_made(name: str) -> bool:
    """Whether the process that a FIFO is named after lives, and may yet open it."""
    pid = name.partition("-")[2].partition("-")[0]
    return pid.isdigit() and is_alive(int(pid))


@functools.lru_cache(maxsize=8)
def _root(user: int) -> str | None:
    """The private folder of this host and user, in memory where that can be had."""
    candidates: list[Callable[[], str]] = [lambda: _SHARED_MEMORY, tempfile.gettempdir]
    for candidate in candidates:
        with contextlib.suppress(OSError):
            folder = f"{candidate()}/polystore-flows-{user}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)  # noqa: PTH102
            status = os.lstat(folder)
            if (
                stat.S_ISDIR(status.st_mode)
                and status.st_uid == user
                and not status.st_mode & 0o077
                and os.access(folder, os.W_OK | os.X_OK)
            ):
                _tidy(folder)
                return folder
    return None


def _tidy(root: str) -> None:
    """Remove what processes left that were killed while they waited for documents long gone."""
    for name in os.listdir(root)[:16]:  # noqa: PTH208
        queue = Queue(f"{root}/{name}")
        for waiter in queue.names():
            if not waiter.endswith(_PAYLOAD):
                queue._lives(waiter)
        queue.close()
