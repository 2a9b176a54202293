"""Durable replacement of one JSON document: write beside, sync, replace, sync the folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polystore_flows.errors import CorruptMetadataError, MetadataWriteError, PolystoreError
from polystore_flows.metadata.lock import (
    DEFAULT_TIMEOUT,
    HOST,
    Hold,
    hold_lock,
    local_path,
    lock_path_of,
    make_folders,
    sidecar,
    sync_folder,
)

ATTEMPTS = 20
"""How often a change is made anew because a writer without the lock interfered."""

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
        path: A local path.
        data: A dict of JSON values; the order of keys is kept.
        timeout: Seconds to wait for the lock; 0 tries once.

    Raises:
        TypeError: `data` is no dict.
        ValueError: `data` holds NaN, an infinity or something that JSON cannot say.
        FileLockError: The lock cannot be taken, in time or at all.
        MetadataWriteError: The document could not be written.
    """
    payload = encode(path, data)
    document = writable(path)
    with hold_lock(lock_path_of(document), timeout, borrow=True) as hold:
        for _ in range(ATTEMPTS):
            with contextlib.suppress(ForeignWriteError):
                return replace(document, payload, status_of(document), hold)
        raise interference(document)


def writable(path: str | os.PathLike[str]) -> Path:
    """Return where the document `path` really is, with its folder made.

    Raises:
        MetadataWriteError: It cannot be a document: a folder, or a link to nowhere.
    """
    given = local_path(path)
    document = Path(os.path.realpath(given))
    with explained(given):
        status = status_of(document)
        if status is None and given.is_symlink():
            raise MetadataWriteError(
                f"{given} is a link to {document}, which does not exist; remove the link"
            )
        if status is not None and not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise MetadataWriteError(f"{given} is {kind}, not a document; choose another name")
        make_folders(document.parent)
    return document


def status_of(document: Path) -> os.stat_result | None:
    """Return the status of `document`, or None where nothing is."""
    try:
        return document.stat()
    except FileNotFoundError:
        return None


def encode(path: str | os.PathLike[str], data: dict[str, Any]) -> bytes:
    """Return `data` as the text of a JSON document.

    Raises:
        TypeError: `data` is no dict.
        ValueError: JSON has no way to say something in it.
    """
    if not isinstance(data, dict):
        raise TypeError(f"{local_path(path)}: a document is a dict, not {type(data).__name__}")
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{local_path(path)}: this cannot be written as JSON, and nothing was: "
            f"{_culprit(data) or error}"
        ) from error
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can say
        return f"{json.dumps(data, indent=2, allow_nan=False)}\n".encode()


def _culprit(data: dict[str, Any]) -> str | None:
    """Name the first value that is not JSON, and where it stands."""
    pending: list[tuple[str, Any, int]] = [("", data, 0)]
    while pending:
        where, value, depth = pending.pop()
        if depth > 900:
            return "it is nested too deeply or contains itself"
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str | int | float | None):
                    return f"the key {key!r} of {where or 'the document'} is no string"
            pending += [(f"{where}/{key}", value[key], depth + 1) for key in reversed(value)]
        elif isinstance(value, list | tuple):
            items = list(enumerate(value))[::-1]
            pending += [(f"{where}/{index}", item, depth + 1) for index, item in items]
        elif not isinstance(value, str | int | float | None):
            return f"{where} is a {type(value).__module__}.{type(value).__qualname__}"
        elif isinstance(value, float) and (
            value != value or value in (float("inf"), -float("inf"))
        ):
            return f"{where} is {value}"
    return None


def load(document: Path) -> tuple[dict[str, Any] | None, os.stat_result | None]:
    """Read a document and the status that tells this state of it from others.

    Returns:
        The document and its status, or two Nones where nothing is.

    Raises:
        CorruptMetadataError: It is not the text of a JSON object.
        OSError: It could not be read.
    """
    try:
        with open(document, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            content = file.read()
    except FileNotFoundError:
        return None, None
    try:
        data = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse)
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
    return data, status


def _open_at_once(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)  # a pipe would wait for its writer


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")


def replace(document: Path, payload: bytes, before: os.stat_result | None, hold: Hold) -> None:
    """Put `payload` in the place of `document`, durably, if it is still as in `before`.

    Atomic. A failure leaves the old document and no temporary file; a crash leaves at most one
    temporary file, which the next writer removes.

    Raises:
        ForeignWriteError: The document is not as in `before` any more; nothing was written.
        MetadataWriteError: The system refused; or the folder could not be synced: visible then.
        FileLockError: The lock is not held by this process.
    """
    base = sidecar(document)
    hold.check()
    with explained(document):
        if hold.dirty:
            _sweep(base)
            hold.dirty = False
        temporary = base.with_name(
            f"{_stem(base.name)}{HOST}-{os.getpid()}-{os.urandom(8).hex()}.tmp"
        )
        try:
            _write(temporary, payload, before)
            now = status_of(document)
            if _identity(now) != _identity(before):
                raise ForeignWriteError
            try:
                os.replace(temporary, document)  # noqa: PTH105 - the step that all is about
            except FileNotFoundError:  # swept: somebody else believes to hold the lock
                raise ForeignWriteError from None
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    try:
        sync_folder(document.parent)
    except OSError as error:
        raise MetadataWriteError(
            f"{document}: the new document is visible, but whether it survives a loss of power "
            f"is unknown: its folder could not be synced ({error.strerror}). Check the disk, "
            "then write again"
        ) from error


def _write(temporary: Path, payload: bytes, before: os.stat_result | None) -> None:
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


def _sweep(base: Path) -> None:
    """Remove what crashed writers left: whoever holds the lock is the only live writer."""
    stem = _stem(base.name)
    with contextlib.suppress(OSError), os.scandir(base.parent) as entries:
        for entry in entries:
            if entry.name.startswith(stem) and _TEMPORARY.fullmatch(entry.name[len(stem) :]):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()


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
