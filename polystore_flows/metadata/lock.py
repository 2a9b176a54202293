"""The lock that guards a shared document between threads, processes and hosts.

The lock is an exclusive ``flock`` on the file ``<name>.lock`` beside the document. It is
released by ``close`` or by the death of its holder, is never taken over because of its age,
and its file is never removed: removing it would let two holders lock two different files.

What it promises depends on the file system that holds the lock file:

* **Local** (ext4, XFS, btrfs, APFS, tmpfs): threads and processes of one host exclude each other.
* **NFS**: Linux turns ``flock`` into a byte-range lock at the server, so hosts exclude each other
  if the server offers locks (v4, or v3 with ``lockd``) and the mount has no ``nolock`` or
  ``local_lock``. Two limits remain: a client that loses the server for longer than its lease loses
  its lock without being told, and a client's cached directory entry may show it an older document
  for a moment, so that an update of another host can, rarely, be lost.
* **SMB**: Linux 5.5 or newer forwards ``flock`` to the server; older kernels, and mounts with
  ``nobrl``, exclude within one host only.
* **FUSE** (sshfs, s3fs, gcsfuse …): unless the file system implements ``flock`` itself, which few
  do, the kernel excludes within one host only. Let one host write.
* Windows is not supported.

A file system that has no locks at all raises `FileLockError` at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import portalocker

from polystore_flows.errors import (
    FileLockError,
    FileLockTimeoutError,
    PolystoreError,
    URIError,
)

DEFAULT_TIMEOUT = 30.0
"""Seconds to wait for a lock unless the caller says otherwise."""

HOST = re.sub(r"[^A-Za-z0-9-]", "_", os.uname().nodename)[:32] or "unknown"
"""This host as written in lock files and names of temporary files."""

_SHORTEST_WAIT, _LONGEST_WAIT = 0.0005, 0.02  # seconds between two tries
_RECORD = re.compile(rb"(\d+) (\S+) *\n")
_RECORD_SIZE = 64  # fixed, so that one write replaces an older record whole
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
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


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a `Path`.

    Raises:
        URIError: It is a URI, is empty or holds a null byte.
        TypeError: It is no path.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is a str or an os.PathLike of str, not {type(text).__name__}")
    if scheme := _SCHEME.match(text):
        # Only the scheme is printed: the rest may hold a secret.
        raise URIError(
            f"only local documents are supported here, not {scheme[1]}://…; give a local path"
        )
    if not text or "\0" in text:
        raise URIError(f"{text!r} is not a path: it is empty or holds a null byte")
    return Path(text)


def sidecar(path: str | os.PathLike[str]) -> Path:
    """Return the path that the lock and temporary files of a document are named after.

    That is the document itself, links resolved, except inside a zarr hierarchy (a folder
    ``*.zarr``, the outermost counts), where a foreign file makes zarr warn: there it is
    ``.<root>`` beside the root, so that all documents of a plate share one lock and change
    together. ``<sidecar>.lock`` is the lock.
    """
    document = Path(os.path.realpath(local_path(path)))
    for root in reversed(document.parents):
        if root.name.endswith(".zarr"):
            return root.parent / f".{root.name}"
    return document


@contextlib.contextmanager
def file_lock(path: str | os.PathLike[str], timeout: float = DEFAULT_TIMEOUT) -> Iterator[None]:
    """Hold the lock of the document `path` for the length of a ``with`` block.

    All paths to one document share one lock. The document need not exist; missing folders are
    made. Inside the block the same thread may call `atomic_write_json` for documents under this
    lock; any other locking call of that thread for it raises. The block must not be left to
    another coroutine (no ``await`` inside); async code runs the whole of it in
    `asyncio.to_thread`.

    The module's docstring says what is promised on which file system.

    Args:
        path: The document. A path that ends in ``.lock`` is taken as the lock file itself.
        timeout: Seconds to wait for another holder; 0 tries once.

    Raises:
        FileLockTimeoutError: Another holder kept it; the message names its process and host.
        FileLockError: It cannot be taken at all, or this thread holds it already.
    """
    document = local_path(path)
    lock_path = Path(os.path.realpath(document))
    if document.suffix != ".lock":
        lock_path = lock_path_of(document)
    with hold_lock(lock_path, timeout, lends=True):
        yield


def lock_path_of(document: Path) -> Path:
    """Return the lock file of `document`."""
    base = sidecar(document)
    return base.with_name(f"{base.name}.lock")


@contextlib.contextmanager
def hold_lock(
    lock_path: Path, timeout: float, *, lends: bool = False, borrow: bool = False
) -> Iterator[Hold]:
    """Hold the lock file `lock_path`.

    Args:
        lock_path: The lock file; made if missing, with its folders.
        timeout: Seconds to wait; 0 tries once.
        lends: Let later calls of this thread with `borrow` work under this lock.
        borrow: Work under a lock that this thread holds and lends, instead of raising.
    """
    if not timeout >= 0:  # also refuses NaN
        raise ValueError(f"timeout must be 0 or more seconds, not {timeout!r}")
    hold = Hold(lock_path, lends)
    try:
        lender = hold.acquire(timeout, borrow)
        yield lender or hold
    finally:
        hold.release()


class Hold:
    """One use of a lock file; `dirty` says that an earlier holder may have crashed."""

    def __init__(self, path: Path, lends: bool) -> None:
        self.path = path
        self.dirty = False
        self._lends = lends
        self._fd = -1
        self._key = (-1, -1)
        self._thread = threading.get_ident()
        self._locked = self._signed = False

    def acquire(self, timeout: float, borrow: bool) -> Hold | None:
        """Take the lock, or return the hold of this thread that lends it."""
        deadline = time.monotonic() + timeout
        while True:
            with _explained(self.path):
                mine = self._open()
                if mine is not None:
                    return self._lender(mine, borrow)
                if self._try():
                    if self._is_current():
                        break
                    self._close()  # somebody has put another file under this name: lock that
                    continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise FileLockTimeoutError(
                    f"{self.path} was not released within {timeout:g} s: {self._holder()}. "
                    "Wait for it or stop that process; never delete the lock file"
                )
            # Not longer each time: newcomers would overtake whoever has waited longest.
            time.sleep(min(left, random.uniform(_SHORTEST_WAIT, _LONGEST_WAIT)))
        self._sign()
        return None

    def release(self) -> None:
        """Let go, if this process still holds it; never raises for a lock that is gone."""
        if self._locked and self._signed and not self.dirty:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
        self._close()

    def check(self) -> None:
        """Raise unless this very process holds the lock, as a forked child does not."""
        if not self._locked:
            raise FileLockError(
                f"{self.path} is held by the parent process, not by this forked child; "
                "take the lock in the child"
            )

    def _open(self) -> Hold | None:
        """Open the lock file, unless this thread has it locked: then return that hold."""
        if self._fd >= 0:
            return None
        with _mutex:  # a fork must find either no descriptor or one that is in the table
            self._fd = _open_lock_file(self.path)
            _opened.add(self)
            status = os.fstat(self._fd)
            self._key = (status.st_dev, status.st_ino)
            owner = _owners.get(self._key)
        return owner if owner is not None and owner._thread == self._thread else None

    def _try(self) -> bool:
        try:
            # flock, which belongs to the open file: threads exclude each other, and closing
            # another descriptor of the file does not release it as it would with lockf.
            portalocker.lock(
                self._fd, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
            )
        except portalocker.AlreadyLocked:
            return False
        except portalocker.LockException as error:
            cause = error.__cause__
            if not isinstance(cause, OSError):
                raise OSError(str(error)) from error
            if cause.errno != errno.ESTALE:
                raise cause from None
            self._close()  # NFS: the file behind this descriptor is gone, open it anew
            return False
        return True

    def _is_current(self) -> bool:
        """Note the lock as held if the locked file is the one that others find by its name."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return False
        if (status.st_dev, status.st_ino) != self._key:
            return False
        with _mutex:
            self._locked = True
            _owners[self._key] = self
        return True

    def _sign(self) -> None:
        """Write who holds the lock, and see from the last signature whether that one crashed."""
        with contextlib.suppress(OSError):  # a lock without a signature is as good a lock
            status = os.fstat(self._fd)
            record = os.pread(self._fd, _RECORD_SIZE + 1, 0)
            if record and not _RECORD.fullmatch(record):
                return  # somebody keeps something else in this file: lock it, leave it alone
            # After a power cut the record may be gone, but the last use is older than this boot.
            self.dirty = bool(record) or status.st_mtime < _boot_time()
            os.pwrite(self._fd, f"{os.getpid()} {HOST}".ljust(_RECORD_SIZE - 1).encode() + b"\n", 0)
            self._signed = True

    def _holder(self) -> str:
        try:
            record = _RECORD.fullmatch(os.pread(self._fd, _RECORD_SIZE + 1, 0))
        except OSError:
            record = None
        if record is None:
            return "its holder left no name"
        pid, host = int(record[1]), record[2].decode()
        if host == HOST and not _alive(pid):
            return "its holder left no name"  # that process crashed; another program came after it
        return f"it is held by process {pid} on {host}"

    def _lender(self, owner: Hold, borrow: bool) -> Hold:
        if borrow and owner._lends:
            return owner
        raise FileLockError(
            f"{self.path} is held by this thread already, waiting for it would never end; "
            "do one update inside the other, or use atomic_write_json inside file_lock"
        )

    def _close(self) -> None:
        with _mutex:
            if self._fd < 0:
                return
            if self._locked:
                _owners.pop(self._key, None)
                # Closing alone would wait for children that copied the descriptor unseen.
                with contextlib.suppress(OSError, portalocker.LockException):
                    portalocker.unlock(self._fd)
            _opened.discard(self)
            fd, self._fd, self._locked = self._fd, -1, False
            os.close(fd)


def make_folders(folder: Path) -> None:
    """Make `folder` and its missing parents so that they survive a loss of power."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in `folder` to disk, where the file system can do that."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some SMB and FUSE file systems know no sync of folders; their server decides.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(fd)


def _open_lock_file(path: Path) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags)
    except FileNotFoundError:
        make_folders(path.parent)
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError as error:
        if error.errno != errno.EACCES:
            raise
        # Another user's lock file: flock needs no right to write, except over NFS.
        return os.open(path, os.O_RDONLY | flags)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _boot_time() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.time() - time.clock_gettime(clock)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the system says into a `FileLockError` that names the lock file."""
    try:
        yield
    except PolystoreError:
        raise
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise FileLockError(f"{path} cannot be locked: {reason}") from error


_mutex = threading.RLock()
_opened: set[Hold] = set()
_owners: dict[tuple[int, int], Hold] = {}


def _forget_in_child() -> None:
    """Close what a fork has copied: it would keep the parent's locks beyond its death."""
    for hold in _opened:
        with contextlib.suppress(OSError):
            os.close(hold._fd)  # never an unlock: that would release the parent's lock
        hold._fd, hold._locked = -1, False
    _opened.clear()
    _owners.clear()
    _mutex.release()


os.register_at_fork(
    before=_mutex.acquire, after_in_parent=_mutex.release, after_in_child=_forget_in_child
)
