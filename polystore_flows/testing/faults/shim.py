"""A layer over the system calls of one process, where the n-th one kills it or fails.

It stands in Python, so it sees what our code asks for and nothing else; what the kernel itself
does at a full disk or at a kill is for the other scenarios.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import portalocker

_NAMES = """
    open close read write pread pwrite ftruncate fsync fdatasync fstat stat lstat readlink fchmod
    fchown chmod rename replace unlink mkdir rmdir mkfifo listdir scandir
"""
_BY_DESCRIPTOR = "close read write pread pwrite ftruncate fsync fdatasync fstat fchmod fchown"
_readlink, _kill, _getpid, _close = os.readlink, os.kill, os.getpid, os.close

Plan = Callable[[int, str], int]
"""Gets the number and the name of a call; returns an errno, `SHORT`, or 0 to let it pass."""

SHORT = -1
"""The call shall write half of what it is given."""


def kill_at(number: int) -> Plan:
    """End the process by SIGKILL before the call `number`."""

    def plan(index: int, _: str) -> int:
        if index == number:
            _kill(_getpid(), signal.SIGKILL)
        return 0

    return plan


def fail_at(number: int, error: int, *, persistent: bool) -> Plan:
    """Let the call `number`, or each one from there on, fail with an errno (or `SHORT`)."""

    def plan(index: int, _: str) -> int:
        return error if index == number or (persistent and index > number) else 0

    return plan


class Shim:
    """The layer; in effect while it is used as a context manager.

    Args:
        plan: What is to go wrong; nothing by default.

    Attributes:
        calls: The calls so far: name and role of the file, such as ``fdatasync temporary``.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self.calls: list[str] = []
        self._plan = plan or (lambda index, name: 0)
        self._paused = False
        self._real: dict[str, Any] = {}

    def __enter__(self) -> Shim:
        for name in _NAMES.split():
            self._real[name] = getattr(os, name)
            setattr(os, name, self._wrapped(name, self._real[name]))
        self._locker = portalocker.portalocker.LOCKER
        portalocker.portalocker.LOCKER = self._wrapped("flock", fcntl.flock)
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        portalocker.portalocker.LOCKER = self._locker

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let the calls of a block through, uncounted."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._paused:
                return real(*args, **kwargs)
            self.calls.append(f"{name} {_role(name, args[0])}")
            fault = self._plan(len(self.calls) - 1, name)
            if fault > 0:
                if name == "close":
                    _close(args[0])  # it fails, and is closed all the same
                raise OSError(fault, os.strerror(fault))
            if fault == SHORT and name == "write" and len(args[1]) > 1:
                args = (args[0], bytes(args[1])[: len(args[1]) // 2])
            return real(*args, **kwargs)

        return call


def _role(name: str, what: Any) -> str:
    """What a file is to the document, which the tests call ``a.json``."""
    if isinstance(what, int) or name in _BY_DESCRIPTOR.split():
        try:
            what = _readlink(f"/proc/self/fd/{what}")
        except OSError:
            return "?"
    path = Path(what)
    kinds = {".tmp": "temporary", ".lock": "lock", ".turn": "fifo", ".update": "fifo"}
    if path.suffix in kinds:
        return kinds[path.suffix]
    if "polystore-flows-" in str(path):
        return "queue"
    return "document" if path.name == "a.json" else "folder"


ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.ESTALE)
"""What disks and network file systems say when they fail."""
