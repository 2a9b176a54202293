"""Durable replacement of one JSON document: write beside, sync, replace, sync the folder."""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from polystore_flows.errors import (
    CorruptMetadataError,
    FileLockTimeoutError,
    MetadataWriteError,
    PolystoreError,
)
from polystore_flows.metadata.layout import encode
from polystore_flows.metadata.lock import DEFAULT_TIMEOUT, Hold, hold_lock
from polystore_flows.metadata.notes import checksum
from polystore_flows.metadata.paths import (
    HOST,
    is_object_uri,
    local_path,
    lock_path_of,
    make_folders,
    resolved,
    sync_folder,
)

ATTEMPTS = 20
"""How often a change or a reading is made anew because another writer interfered."""

_NAME_MAX = 255  # bytes in one file name, on every file system that matters here
_TEMPORARY = re.compile(r"[A-Za-z0-9_-]+-\d+-[0-9a-f]{16}\.tmp")
_HINTS = {
    errno.ENOSPC: "free some space and try again",
    errno.EDQUOT: "free some of your quota and try again",
    errno.EACCES: "ask for the right to read it and to write to its folder",
    errno.EPERM: "ask for the right to read it and to write to its folder",
    errno.EROFS: "the file system is read-only; work on a copy elsewhere",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a file is in the place of its folder; move that away",
    errno.EEXIST: "a file is in the place of its folder; move that away",
    errno.ELOOP: "links point at each other; remove one",
    errno.EXDEV: "a *.zarr folder must be on the file system of its parent folder",
}


class ForeignWriteError(Exception):
    """A writer that takes no lock has changed the document since it was read."""


class UnsyncedError(MetadataWriteError):
    """The new document is visible, but a loss of power may take it back."""


def atomic_write_json(
    path: str | os.PathLike[str], data: dict[str, Any], timeout: float = DEFAULT_TIMEOUT
) -> None:
    """Replace the JSON document `path` by `data`, whatever it held.

    Atomic and durable: readers see the old document or the new one, and the new one survives a
    loss of power once this returns. Mode and group of an existing file are kept (a read-only
    file is replaced too: its folder's permissions decide), its ACL and hard links are not; a new
    file follows the umask, missing folders are made, and a link to the document stays a link.
    Takes the document's lock, or works under the `file_lock` that this thread holds. To change
    a part of a document use `atomic_update_json`: this one overwrites the updates of others.

    A failure leaves the old document as it was, except where the message says that the new one
    is visible. Blocking; call it from async code through `asyncio.to_thread`.

    Args:
        path: A local path, or the URI of an object (see `objects.write_object_json`).
        data: A dict of JSON values; the order of keys is kept.
        timeout: Seconds to wait for the lock; 0 tries once.

    Raises:
        TypeError: `data` is no dict.
        ValueError: `data` holds NaN, an infinity or something that JSON cannot say.
        FileLockError: The lock cannot be taken, in time or at all.
        MetadataWriteError: The document could not be written.
    """
    if is_object_uri(path):
        from polystore_flows.metadata.objects import write_object_json

        write_object_json(os.fspath(path), data, timeout)
        return
    payload = encode(local_path(path), data)
    document = writable(path)
    with hold_lock(lock_path_of(document), timeout, borrow=True) as hold:
        for _ in range(ATTEMPTS):
            with contextlib.suppress(ForeignWriteError):
                replace(document, payload, status_of(document), hold)
                hold.notes.acknowledge()
                return
        raise interference(document)


def writable(path: str | os.PathLike[str]) -> Path:
    """Return where the document `path` really is, with its folder made.

    Raises:
        MetadataWriteError: It cannot be a document: a folder, or a link to nowhere.
    """
    given = local_path(path)
    with explained(given):
        document = resolved(given)
        status = status_of(document)
        if status is None and given.is_symlink():
            raise MetadataWriteError(
                f"{given} is a link to {document}, which does not exist; remove the link"
            )
        if status is not None and not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise MetadataWriteError(f"{given} is {kind}, not a document; choose another name")
        if status is None:
            make_folders(document.parent)
    return document


def status_of(document: Path) -> os.stat_result | None:
    """Return the status of `document`, or None where nothing is."""
    try:
        return document.stat()
    except FileNotFoundError:
        return None


def load(document: Path) -> tuple[bytes | None, os.stat_result | None]:
    """Read a document and the status that tells this state of it from others.

    Returns:
        Its text and its status, or two Nones where nothing is.

    Raises:
        OSError: It could not be read.
    """
    tries = 0
    while True:
        try:
            return _load(document)
        except OSError as error:
            tries += 1
            if error.errno != errno.ESTALE or tries == ATTEMPTS:
                raise
        # NFS: another host has replaced it. Opened again it would be the same old file, until
        # this host asks the server who has that name.
        with contextlib.suppress(OSError):
            document.stat()


def _load(document: Path) -> tuple[bytes | None, os.stat_result | None]:
    try:
        # A pipe would wait for its writer.
        fd = os.open(document, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, None
    try:
        status = os.fstat(fd)
        parts = []
        while part := os.read(fd, max(1 << 16, status.st_size + 1)):
            parts.append(part)
        return b"".join(parts), status
    finally:
        os.close(fd)


def parse(document: object, content: bytes) -> dict[str, Any]:
    """Return what the text of a document says.

    Raises:
        CorruptMetadataError: It is not the text of a JSON object.
    """
    try:
        data = json.loads(content.removeprefix(codecs.BOM_UTF8).decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        what = "it is empty" if not content.strip() else str(error)
        raise CorruptMetadataError(
            f"{document} is not JSON: {what}. It was left as it is; restore it from a copy"
        ) from error
    if not isinstance(data, dict):
        raise CorruptMetadataError(
            f"{document} holds no JSON object but {type(data).__name__}. "
            "It was left as it is; restore it from a copy"
        )
    return data


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")


def replace(
    document: Path,
    payload: bytes,
    before: os.stat_result | None,
    hold: Hold,
    ids: Sequence[str] = (),
) -> None:
    """Put `payload` in the place of `document`, durably, if it is still as in `before`.

    Atomic. A failure leaves the old document and no temporary file; a crash leaves at most one
    temporary file, which the next writer removes.

    Args:
        document: The document.
        payload: Its new text.
        before: Its status when it was read.
        hold: Its lock.
        ids: The updates of others that `payload` holds.

    Raises:
        ForeignWriteError: The document is not as in `before` any more; nothing was written.
        UnsyncedError: The folder could not be synced: visible, but perhaps not for good.
        MetadataWriteError: The system refused.
        FileLockError: The lock is not held by this process.
    """
    hold.check()
    with explained(document):
        recover(hold)
        temporary = _temporary(hold.base)
        try:
            written = _write(temporary, payload, before)
            hold.announce(document, (*checksum(payload), written.st_mtime_ns), list(ids))
            now = status_of(document)
            if _identity(now) != _identity(before):
                raise ForeignWriteError
            try:
                os.replace(temporary, document)  # noqa: PTH105 - the step that all is about
            except FileNotFoundError:  # swept: somebody else believes to hold the lock
                hold.notes.batch = None
                raise ForeignWriteError from None
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108 - fails if an interrupt came after it was moved
                hold.notes.batch = None
            raise
    try:
        sync_folder(document.parent)
    except OSError as error:
        raise UnsyncedError(
            f"{document}: the new document is visible, but whether it survives a loss of power "
            f"is unknown: its folder could not be synced ({error.strerror}). Check the disk, "
            "then write again"
        ) from error


def recover(hold: Hold) -> None:
    """Look after what crashed holders left: updates that nobody knows of, temporary files."""
    if not hold.dirty:
        return
    look_again(hold)
    settled = hold.notes.settle(hold.path.parent)
    if settled is not None:
        hold.remember()  # this holder may die as well, after it has changed the document
        sync_folder(settled.parent)  # the one who died may not have come to that
    _sweep(hold.base)
    hold.recovered()


def strays(path: str | os.PathLike[str], *, remove: bool = False) -> list[Path]:
    """Find, and remove if told to, what crashed writers of the document `path` left beside it.

    The next writer removes that too. Nothing is found while somebody writes, for a temporary file
    in use looks the same.

    Raises:
        FileLockError: There is something, but the lock cannot be taken.
    """
    lock_path = lock_path_of(resolved(local_path(path)))
    if not any(_temporaries(str(lock_path).removesuffix(".lock"))):
        return []
    with contextlib.suppress(FileLockTimeoutError), hold_lock(lock_path, 0) as hold:
        found = list(_temporaries(hold.base))
        if remove:
            recover(hold)
        return found
    return []


def look_again(hold: Hold) -> None:
    """Make a network file system ask its server what is in the folder of the lock."""
    with contextlib.suppress(OSError):
        temporary = _temporary(hold.base)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(temporary)  # noqa: PTH108


def _temporary(base: str) -> str:
    folder, name = os.path.split(base)
    return f"{folder}/{_stem(name)}{HOST}-{os.getpid()}-{os.urandom(8).hex()}.tmp"


def _write(temporary: str, payload: bytes, before: os.stat_result | None) -> os.stat_result:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # Private until mode and group are right; the umask decides for a new document.
    fd = os.open(temporary, flags, 0o666 if before is None else 0o600)
    try:
        if before is not None:
            _keep_mode(fd, before)
        rest = memoryview(payload)
        while rest:
            rest = rest[os.write(fd, rest) :]
        # Never tried again after a failure: the kernel may have dropped the pages as written.
        getattr(os, "fdatasync", os.fsync)(fd)
        return os.fstat(fd)
    finally:
        os.close(fd)


def _keep_mode(fd: int, before: os.stat_result) -> None:
    mode = stat.S_IMODE(before.st_mode)
    new = os.fstat(fd)
    if (new.st_uid, new.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.fchown(fd, before.st_uid, before.st_gid)
        except PermissionError:  # only root gives files away
            try:
                os.fchown(fd, -1, before.st_gid)
            except PermissionError:
                # Not our group: what its members might do, the members of ours may not.
                mode = (mode & ~0o2070) | (mode & 0o007) << 3
    os.fchmod(fd, mode)


def _sweep(base: str) -> None:
    """Remove what crashed writers left: whoever holds the lock is the only live writer."""
    for temporary in _temporaries(base):
        with contextlib.suppress(OSError):
            temporary.unlink()


def _temporaries(base: str) -> Iterator[Path]:
    folder, name = os.path.split(base)
    stem = _stem(name)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(stem) and _TEMPORARY.fullmatch(entry.name[len(stem) :]):
                yield Path(entry.path)


def _stem(name: str) -> str:
    """Return how temporary files of a document begin; a long name is shortened to a hash."""
    if len(os.fsencode(name)) + len(HOST) + 40 > _NAME_MAX:
        name = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
    return f".{name}."


def _identity(status: os.stat_result | None) -> tuple[int, ...] | None:
    if status is None:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def interference(document: Path) -> MetadataWriteError:
    """Return the error for a document that others change all the time without the lock."""
    return MetadataWriteError(
        f"{document} was changed {ATTEMPTS} times by a program that does not take its lock; "
        "nothing was written. Stop that program"
    )


@contextlib.contextmanager
def explained(document: Path, doing: str = "written") -> Iterator[None]:
    """Turn what the system says into a `MetadataWriteError` that names the document."""
    try:
        yield
    except PolystoreError:
        raise
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "check the disk and try again")
        raise MetadataWriteError(
            f"{document} could not be {doing}, and is as it was: {error.strerror or error}; {hint}"
        ) from error
