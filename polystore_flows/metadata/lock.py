"""The lock that guards a shared document between threads, processes and hosts.

The lock is an exclusive ``flock`` on the file ``<name>.lock`` beside the document. It is
released by ``close`` or by the death of its holder, is never taken over because of its age,
and its file is never removed: removing it would let two holders lock two different files.

What it promises depends on the file system that holds the lock file:

* **Local** (ext4, XFS, btrfs, APFS, tmpfs): threads and processes of one host exclude each other.
* **NFS**: Linux turns ``flock`` into a byte-range lock at the server, so hosts exclude each other
  if the server offers locks (v4, or v3 with ``lockd``) and the mount has no ``nolock`` or
  ``local_lock``. A client whose cached directory entry shows it an older document notices that by
  the size and CRC in the lock file, and looks again. One limit remains: a client that loses the
  server for longer than its lease loses its lock without being told.
* **SMB**: Linux 5.5 or newer forwards ``flock`` to the server, unless the mount has ``nobrl``;
  older kernels exclude within one host only.
* **FUSE** (sshfs, s3fs, gcsfuse …): unless the file system implements ``flock`` itself, which few
  do, the kernel excludes within one host only. Let one host write.
* Windows is not supported.

`FileLockError` is raised at once where a file system has no locks at all, where its locks do not
exclude (two open files of one process are tried), and where the mount says that they stay within
one host (`mounts`); the latter two are looked at once per file system.

Waiters of one host and user queue up in a private folder (`queue`), so that the first to come is
the first to be served; others (hosts, users, programs that only know ``flock``) are met by trying
the lock again every 0.5 to 20 ms, which the first of the queue does for all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import portalocker

from polystore_flows.errors import FileLockError, FileLockTimeoutError
from polystore_flows.metadata import descriptors, flock, mounts, notes
from polystore_flows.metadata.descriptors import Descriptor
from polystore_flows.metadata.paths import HOST, is_object_uri, local_path, lock_path_of, resolved
from polystore_flows.metadata.queue import Place, Queue

DEFAULT_TIMEOUT = 30.0
"""Seconds to wait for a lock unless the caller says otherwise."""

_TAKEN = "another process has taken this update to commit it, so it may still be applied"
_MOST_NOTES = 1 << 17  # bytes; more in a lock file is not ours


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
        path: The document. A path that ends in ``.lock`` is taken as the lock file itself; for
            the URI of an object see `objects.object_lock`.
        timeout: Seconds to wait for another holder; 0 tries once.

    Raises:
        FileLockTimeoutError: Another holder kept it; the message names its process and host.
        FileLockError: It cannot be taken at all, or this thread holds it already.
    """
    if is_object_uri(path):
        from polystore_flows.metadata.objects import object_lock

        with object_lock(os.fspath(path), timeout):
            yield
        return
    document = local_path(path)
    with flock.explained(document):
        lock_path = resolved(document)
    if document.suffix != ".lock":
        lock_path = lock_path_of(lock_path)
    with hold_lock(lock_path, timeout, lends=True):
        yield


@contextlib.contextmanager
def hold_lock(
    lock_path: Path,
    timeout: float,
    *,
    lends: bool = False,
    borrow: bool = False,
    update: bytes | None = None,
) -> Iterator[Hold]:
    """Hold the lock file `lock_path`.

    Args:
        lock_path: The lock file; made if missing, with its folders.
        timeout: Seconds to wait; 0 tries once.
        lends: Let calls of this thread that `borrow` work under this lock.
        borrow: Work under a lock that this thread holds and lends, instead of raising.
        update: An update (see `Place`) that the present holder may take along. It has done so
            where the `Hold` has an `answer`: then there is nothing left to do, nor a lock.
    """
    if not timeout >= 0:  # also refuses NaN
        raise ValueError(f"timeout must be 0 or more seconds, not {timeout!r}")
    hold = Hold(lock_path, lends)
    try:
        lender = hold.acquire(timeout, borrow, update)
        yield lender or hold
    finally:
        hold.release()


class Hold:
    """One use of a lock file.

    Args:
        path: The lock file.
        lends: Whether calls of the same owner that `borrow` may work under this lock.
        owner: Who must not wait for itself; by default the calling thread.

    Attributes:
        path: The lock file.
        dirty: An earlier holder may have crashed: there may be something to sweep.
        notes: What the last committers have written into the lock file.
        noted: Whether this holder can write there.
        answer: What another holder says of the update of this one, who then holds nothing.
        doubt: The id of this holder's update if another took it and fell silent.
    """

    def __init__(self, path: Path, lends: bool, owner: object = None) -> None:
        self.path = path
        self.dirty = self.noted = False
        self.notes = notes.Notes()
        self.answer: bytes | None = None
        self.doubt: str | None = None
        self.queue = Queue(None)
        self._lends = lends
        self._file: Descriptor | None = None
        self._key = (-1, -1)
        self._owner = owner or threading.get_ident()
        self._locked = self._crashed = False

    @property
    def held(self) -> bool:
        """Whether this very process holds the lock, as a forked child does not."""
        return self._locked and self._file is not None and self._file.fd >= 0

    def acquire(self, timeout: float, borrow: bool, update: bytes | None = None) -> Hold | None:
        """Take the lock, or return the hold of this thread that lends it."""
        deadline = time.monotonic() + timeout
        place: Place | None = None
        before: list[str] = []
        try:
            while True:
                with flock.explained(self.path):
                    mine = self._open()
                    if mine is not None:
                        return self._lender(mine, borrow)
                    # A newcomer does not overtake those who wait for the lock itself.
                    if timeout and not place:
                        before = self.queue.names()
                    if place or not self.queue.is_contended(before):
                        if self._try():
                            if self._is_current():
                                break
                            self._close()  # another file has this name now: lock that
                            continue
                        if self._file is None:
                            continue
                left = deadline - time.monotonic()
                if left <= 0:
                    if place is None or place.withdraw():
                        raise self._late(timeout, "nothing was written")
                    self.answer = place.answer()
                    if self.answer is None:
                        raise self._late(timeout, _TAKEN)
                    self._close()
                    return None
                if place is None:
                    place = Place(self.queue, update, before)
                self.answer = place.wait(left)
                if self.answer is not None:
                    self._close()
                    return None
            with flock.explained(self.path):
                self._sign()
            if place is not None:
                # Whoever takes an update holds the lock, so now it is clear what became of ours.
                self.answer = place.answer()
                if self.answer is None and not place.withdraw():
                    self.doubt = place.id
            return None
        finally:
            if place is not None:
                place.leave()

    def release(self) -> None:
        """Let go, if this process still holds it; never raises for a lock that is gone."""
        if (
            self._file
            and self.held
            and self.noted
            and not self._crashed
            and self.notes.batch is None
        ):
            with contextlib.suppress(OSError):
                record = notes.render(self.notes)
                self._write(record)
                os.ftruncate(self._file.fd, len(record))
        self._close()

    def check(self) -> None:
        """Raise unless this very process holds the lock."""
        if not self.held:
            raise FileLockError(
                f"{self.path} is held by the parent process, not by this forked child; "
                "take the lock in the child"
            )

    @property
    def base(self) -> str:
        """The path that the files beside the document are named after, see `sidecar`."""
        return str(self.path).removesuffix(".lock")

    def seen(self, document: Path) -> notes.Identity | None:
        """What the document was when it was last committed, if that is known."""
        return self.notes.seen.get(self._name(document))

    def announce(self, document: Path, identity: notes.Identity, ids: list[str]) -> None:
        """Note what is about to be committed, and in the lock file, if it is for others."""
        self.notes.announce(self._name(document), identity, ids)
        if self.noted and ids:
            self.remember()

    def remember(self) -> None:
        """Write the notes into the lock file, for whoever comes after a crash of this holder."""
        self._write(notes.render(self.notes, notes.signature()))

    def _name(self, document: Path) -> str:
        if str(self.path) == f"{document}.lock":
            return document.name
        return os.path.relpath(document, self.path.parent)

    def recovered(self) -> None:
        """Say that nothing of earlier crashes is left to look after."""
        self.dirty = self._crashed = False

    def _open(self) -> Hold | None:
        """Open the lock file, unless this thread has it locked: then return that hold."""
        if self._file is not None:
            return None
        with descriptors.mutex:
            self._file = flock.open_file(self.path)
            status = os.fstat(self._file.fd)
            self._key = (status.st_dev, status.st_ino)
            owner = _owners.get(self._key)
        if self._key[0] not in _shared:
            mounts.check(self.path, self._key[0])
            _shared.add(self._key[0])
        self.queue = Queue.of(self._key)
        return owner if owner and owner.held and owner._owner == self._owner else None

    def _try(self) -> bool:
        """Lock the open file; False if it is locked, or had to be closed."""
        assert self._file is not None
        try:
            if not flock.lock(self._file.fd):
                return False
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            self._close()  # NFS: the file behind this descriptor is gone, open it anew
            return False
        if self._key[0] not in _proven:
            self._prove()
        return True

    def _prove(self) -> None:
        """See that a second open file is kept out, as a lock that does nothing would not do."""
        second = flock.open_file(self.path)
        try:
            other = os.fstat(second.fd)
            if (other.st_dev, other.st_ino) == self._key:
                if flock.lock(second.fd):
                    raise FileLockError(
                        f"{self.path} cannot be locked: the locks of this file system do not "
                        "exclude anybody; mount it with locks or work elsewhere"
                    )
                _proven.add(self._key[0])
        finally:
            second.close()

    def _is_current(self) -> bool:
        """Note the lock as held if the locked file is the one that others find by its name."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return False
        if (status.st_dev, status.st_ino) != self._key:
            return False
        with descriptors.mutex:
            self._locked = True
            _owners[self._key] = self
        return True

    def _sign(self) -> None:
        """Write who holds the lock, and see from the last signature whether that one crashed."""
        assert self._file is not None
        status = os.fstat(self._file.fd)
        record = os.pread(self._file.fd, min(status.st_size, _MOST_NOTES) + 1, 0)
        said = notes.parse(record) if len(record) <= _MOST_NOTES else None
        if said is None:
            return  # somebody keeps something else in this file: lock it, leave it alone
        holder, self.notes = said
        # After a power cut the record may be gone, but the last use is older than this boot.
        self._crashed = holder is not None or status.st_mtime < notes.boot_time()
        self.dirty = self._crashed or notes.is_blank(record)
        with contextlib.suppress(OSError):  # a lock without a signature is as good a lock
            os.pwrite(self._file.fd, notes.signature(), 0)
            self.noted = True

    def _write(self, record: bytes) -> None:
        assert self._file is not None
        if os.pwrite(self._file.fd, record, 0) != len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _late(self, timeout: float, what: str) -> FileLockTimeoutError:
        return FileLockTimeoutError(
            f"{self.path} was not released within {timeout:g} s: {self._holder()}; {what}. "
            "Wait for it or stop that process; never delete the lock file"
        )

    def _holder(self) -> str:
        assert self._file is not None
        try:
            holder = notes.holder_in(os.pread(self._file.fd, notes.SIZE, 0))
        except OSError:
            holder = None
        if holder is None or (holder[1] == HOST and not notes.is_alive(holder[0])):
            return "its holder left no name"  # or crashed, and another program came after it
        return f"it is held by process {holder[0]} on {holder[1]}"

    def _lender(self, owner: Hold, borrow: bool) -> Hold:
        if borrow and owner._lends:
            return owner
        raise FileLockError(
            f"{self.path} is held by this thread already, waiting for it would never end; "
            "do one update inside the other, or use atomic_write_json inside file_lock"
        )

    def _close(self) -> None:
        with descriptors.mutex:
            file, self._file = self._file, None
            if file is None:
                return
            held = self._locked and file.fd >= 0
            self._locked = False
            if held:
                _owners.pop(self._key, None)
                # Closing alone would wait for children that copied the descriptor unseen.
                with contextlib.suppress(OSError, portalocker.LockException):
                    portalocker.unlock(file.fd)
            file.close()
        if held:
            self.queue.call_next()


_owners: dict[tuple[int, int], Hold] = {}
_shared: set[int] = set()
_proven: set[int] = set()
"""File systems whose mount was looked at, and those that two open files were tried on."""
