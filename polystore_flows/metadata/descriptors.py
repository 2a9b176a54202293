"""File descriptors that a forked child does not keep.

``flock`` and the readers of a FIFO live as long as any copy of the open file. A fork copies them
all, so without this a child would keep the locks of a parent that is dead.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

mutex = threading.RLock()
"""Held while a fork happens; guards what a child must find whole."""

_opened: set[Descriptor] = set()


class Descriptor:
    """One open file of this process; `fd` is -1 once it is closed, and in a forked child."""

    def __init__(self, path: str | Path, flags: int, mode: int = 0o666) -> None:
        with mutex:  # a fork must find either no descriptor or one that is in the table
            self.fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
            _opened.add(self)

    def close(self) -> None:
        """Close it, once."""
        with mutex:
            _opened.discard(self)
            fd, self.fd = self.fd, -1
            if fd >= 0:
                with contextlib.suppress(OSError):  # it is closed all the same
                    os.close(fd)


def _close_in_child() -> None:
    for descriptor in _opened:
        with contextlib.suppress(OSError):
            os.close(descriptor.fd)  # never an unlock: that would release the parent's lock
        descriptor.fd = -1
    _opened.clear()
    mutex.release()


os.register_at_fork(
    before=mutex.acquire, after_in_parent=mutex.release, after_in_child=_close_in_child
)
