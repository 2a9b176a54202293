"""Folders in which parts of a plate are made before they are renamed into it.

They lie in ``.<plate>.staging`` beside the plate: on its file system, so that a rename is
enough, and outside its zarr hierarchy, so that no reader ever meets them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h


def staging_root(plate: Path) -> Path:
    """Where the staged parts of the plate at `plate` lie."""
    return plate.parent / f".{plate.name}.staging"


@contextlib.contextmanager
def staged(plate: Path) -> Iterator[Path]:
    """A fresh folder for one writer, removed at the end with what was not renamed out of it.

    What writers of this machine left when they were killed is removed first.
    """
    root = staging_root(plate)
    _sweep(root)
    folder = root / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    _make(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others still stage there
            root.rmdir()


def sync_tree(folder: Path) -> None:
    """Bring all files and folders below `folder` to the disk."""
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync_folder(Path(path) / name)
        sync_folder(Path(path))


def put(staged_part: Path, target: Path) -> None:
    """Rename `staged_part` to `target`, atomically, whether or not a folder is there.

    A replaced folder takes the staged part's place, to be removed with it. On Linux the two are
    exchanged, so that there is no moment without a target; where the file system cannot do
    that, the old one is moved aside just before.
    """
    if not target.exists():
        staged_part.rename(target)
    elif not _exchange(staged_part, target):
        aside = staged_part.with_name(staged_part.name + ".old")
        target.rename(aside)
        staged_part.rename(target)
    sync_folder(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    code = rename(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)
    )
    if code == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def sync_folder(path: Path) -> None:
    """Bring a folder, or a file, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    for _ in range(100):  # the last writer before us may remove the empty parent in between
        try:
            folder.mkdir(parents=True)
            return
        except FileNotFoundError:
            continue
    folder.mkdir(parents=True)


def _sweep(root: Path) -> None:
    try:
        left = list(root.iterdir())
    except FileNotFoundError:
        return
    for folder in left:
        host, pid = folder.name.rsplit("-", 2)[:2]
        if host == socket.gethostname() and pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
