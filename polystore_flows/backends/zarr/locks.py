"""Locks of single wells, so that writers of different wells do not wait for each other.

A well's lock is one byte of a file beside the plate, the well's number in the grid; who changes
what several wells share locks the whole file. It is a lock of the open file (Linux "open file
description lock"): threads exclude each other too, and it ends with its holder. What it promises
on which file system is said in ``metadata.lock``; where the system has no such locks, every well
locks the whole file. Whoever also needs the lock of the plate's JSON takes it after this one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from ...errors import FileLockTimeoutError
from ...hcs.address import parse_well
from ...metadata import flock
from ...settings import get_settings
from .plate import ZarrPlate

TABLES = "tables"
"""The tables of the plate itself."""

_SET = getattr(fcntl, "F_OFD_SETLK", None)
_BUSY = (errno.EAGAIN, errno.EACCES)
_GATE = 1 << 40  # a byte that is no well's
_PAUSE = (0.0005, 0.01)  # seconds between two tries


@contextlib.contextmanager
def locked(plate: ZarrPlate, part: str | None = None) -> Iterator[None]:
    """Keep others from changing a well, the plate's `TABLES`, or any of them; does not nest.

    Raises:
        FileLockTimeoutError: another writer kept it for longer than ``lock_timeout``.
        FileLockError: it cannot be taken at all.
    """
    root = Path(os.path.realpath(plate.root))
    path = root.parent / f".{root.name}.wells.lock"
    first, count = 0, 0  # a count of 0 reaches to the end of every file
    if part == TABLES:
        first, count = plate.layout.size, 1
    elif part is not None:
        row, column = plate.layout.find_all(parse_well(part))[0]
        first, count = row * len(plate.columns) + column, 1
    timeout = get_settings().lock_timeout
    end = time.monotonic() + timeout
    with flock.explained(path):
        file = flock.open_file(path)
        try:
            while not _try(file.fd, first, count):
                if time.monotonic() >= end:
                    raise FileLockTimeoutError(
                        f"{plate.uri}{f'/{part}' if part else ''} is being written by another "
                        f"process, for more than {timeout:g} s; wait for it or stop it"
                    )
                time.sleep(random.uniform(*_PAUSE))
        except BaseException:
            file.close()
            raise
    try:
        yield
    finally:
        if file.fd >= 0:  # a forked child has closed its copy, which its parent's lock outlives
            with contextlib.suppress(OSError):
                _set(file.fd, fcntl.F_UNLCK, first, count)
        file.close()


def _try(fd: int, first: int, count: int) -> bool:
    """Lock a part of a file, or all of it, without waiting; False if another has some of it."""
    if _SET is None:
        return _set(fd, fcntl.F_WRLCK, 0, 0)
    # Who waits for all wells keeps the gate, or those who come and go would never let it in.
    if not _set(fd, fcntl.F_RDLCK if count else fcntl.F_WRLCK, _GATE, 1):
        return False
    got = _set(fd, fcntl.F_WRLCK, first, count)
    if count:
        _set(fd, fcntl.F_UNLCK, _GATE, 1)
    return got


def _set(fd: int, kind: int, first: int, count: int) -> bool:
    try:
        if _SET is None:
            unlock = kind == fcntl.F_UNLCK
            fcntl.flock(fd, fcntl.LOCK_UN if unlock else fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:  # struct flock of Linux: type, whence, start, length, process
            fcntl.fcntl(fd, _SET, struct.pack("hhqqi", kind, os.SEEK_SET, first, count, 0))
    except OSError as error:
        if error.errno == errno.EBADF:  # open for reading, because it may not be written
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from error
        if error.errno not in _BUSY:
            raise
        return False
    return True
