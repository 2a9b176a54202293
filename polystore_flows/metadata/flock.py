"""One lock file at the level of the system: open it, lock it, say why not."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import portalocker

from polystore_flows.errors import FileLockError, PolystoreError
from polystore_flows.metadata.descriptors import Descriptor
from polystore_flows.metadata.paths import make_folders

_REASONS = {
    errno.EACCES: "no permission; ask for the right to write to it and its folder",
    errno.EPERM: "no permission; ask for the right to write to it and its folder",
    errno.EROFS: "the file system is read-only; work on a copy elsewhere",
    errno.ENOLCK: "the file system offers no locks; mount it with locks or work elsewhere",
    errno.ENOTSUP: "the file system offers no locks; mount it with locks or work elsewhere",
    errno.ENOSYS: "the file system offers no locks; mount it with locks or work elsewhere",
    errno.EBADF: "its lock file belongs to another user, and NFS needs the right to write to it",
    errno.EISDIR: "a folder is in its place; move that away",
    errno.ELOOP: "a symbolic link is in its place; remove that",
    errno.ENAMETOOLONG: "its name is too long; a document's name may have 250 bytes",
    errno.ENOSPC: "the disk is full; free some space",
    errno.EEXIST: "a file is in the place of its folder; move that away",
    errno.ENOTDIR: "a file is in the place of its folder; move that away",
    errno.EMFILE: "this process has too many open files; close some or raise the limit",
}


def lock(fd: int) -> bool:
    """Lock an open file without waiting; False if another has it."""
    try:
        # flock, which belongs to the open file: threads exclude each other, and closing
        # another descriptor of the file does not release it as it would with lockf.
        portalocker.lock(fd, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.LockException as error:
        cause = error.__cause__
        # It also takes EACCES for a lock that another has, which flock never means by that.
        locked = isinstance(error, portalocker.AlreadyLocked)
        if locked and (not isinstance(cause, OSError) or cause.errno == errno.EWOULDBLOCK):
            return False
        if isinstance(cause, OSError):
            raise cause from None
        raise OSError(str(error)) from error
    return True


def open_file(path: Path) -> Descriptor:
    """Open a lock file, or make it, with its folders."""
    try:
        return Descriptor(path, os.O_RDWR)
    except FileNotFoundError:
        make_folders(path.parent)
    except PermissionError as error:
        if error.errno != errno.EACCES:
            raise
        # Another user's lock file: flock needs no right to write, except over NFS.
        return Descriptor(path, os.O_RDONLY)
    try:
        made = Descriptor(path, os.O_RDWR | os.O_CREAT)
    except PermissionError:
        with contextlib.suppress(FileNotFoundError):  # else another user has made it just now
            return Descriptor(path, os.O_RDONLY)
        raise
    # Whoever may make files in the folder may sign the lock, whatever the umask of its maker.
    writers = path.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    status = os.fstat(made.fd)
    if writers & ~status.st_mode and status.st_uid == os.geteuid():
        with contextlib.suppress(OSError):
            os.chmod(made.fd, stat.S_IMODE(status.st_mode) | writers | writers << 1)  # noqa: PTH101
    return made


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system says into a `FileLockError` that names the lock file."""
    try:
        yield
    except PolystoreError:
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise FileLockError(f"{path} cannot be locked: {reason}") from error
