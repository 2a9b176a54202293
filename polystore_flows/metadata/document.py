"""Read-modify-write of a shared JSON document."""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Callable
from typing import Any

from polystore_flows.errors import NotFoundError
from polystore_flows.metadata.atomic import (
    ATTEMPTS,
    ForeignWriteError,
    encode,
    explained,
    interference,
    load,
    replace,
    writable,
)
from polystore_flows.metadata.lock import DEFAULT_TIMEOUT, hold_lock, local_path, lock_path_of

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON document; no lock is needed, writers replace it whole.

    Raises:
        NotFoundError: There is no document.
        CorruptMetadataError: It is not the text of a JSON object.
        OSError: It could not be read.
    """
    document = local_path(path)
    try:
        data, _ = load(document)
    except OSError as error:
        if error.errno == errno.EISDIR:
            raise NotFoundError(f"{document} is a folder, not a document") from error
        if error.errno not in _ABSENT:
            raise
        data = None
    if data is None:
        raise _missing(path)
    return data


def atomic_update_json(
    path: str | os.PathLike[str],
    update_func: Callable[[dict[str, Any]], dict[str, Any]],
    timeout: float = DEFAULT_TIMEOUT,
    default_data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Read the JSON document `path`, change it and write it back, as one step.

    Atomic and durable: no update of any other thread, process or host is lost, readers see the
    old document or the new one, and the new one survives a loss of power once this returns. The
    document is overwritten whole; what is kept of the file (mode, group, links) and where new
    ones come from is said at `atomic_write_json`. A failure leaves the document byte for byte as
    it was, except where the message says that the new one is visible.

    Blocking; call it from async code through `asyncio.to_thread`. Updates of one document do not
    nest: `update_func` must not update the same document.

    Args:
        path: A local path.
        update_func: Gets the document, its own copy to change freely, and returns the new one.
            It may be called again on a newer document when a program that takes no lock
            interfered. What it raises reaches the caller unchanged, and nothing is written.
        timeout: Seconds to wait for the lock; 0 tries once.
        default_data: What `update_func` gets (a copy of) where there is no document; ``{}`` if
            None. Never used in place of a corrupt document.

    Returns:
        The new document, as `update_func` returned it.

    Raises:
        TypeError: `update_func` returned no dict.
        ValueError: It returned NaN, an infinity or something that JSON cannot say.
        CorruptMetadataError: The document is not the text of a JSON object.
        FileLockError: The lock cannot be taken, in time or at all.
        MetadataWriteError: The document could not be read or written.
    """
    if not isinstance(default_data, dict | None):
        raise TypeError(f"default_data must be a dict, not {type(default_data).__name__}")
    return update(path, update_func, timeout, default_data or {})


def update(
    path: str | os.PathLike[str],
    update_func: Callable[[dict[str, Any]], dict[str, Any]],
    timeout: float,
    default_data: dict[str, Any] | None,
) -> dict[str, Any]:
    """Do as `atomic_update_json`, but raise where there is no document and no default."""
    if default_data is None:
        try:
            local_path(path).stat()
        except OSError as error:  # before anything is made beside it
            if error.errno in _ABSENT:
                raise _missing(path) from error
    document = writable(path)
    with hold_lock(lock_path_of(document), timeout) as hold:
        for _ in range(ATTEMPTS):
            with explained(document, "read"):
                data, status = load(document)
            if data is None:
                if default_data is None:
                    raise _missing(path)
                data = copy.deepcopy(default_data)
            new = update_func(data)
            if not isinstance(new, dict):
                raise TypeError(
                    f"{document}: the update function must return the new document, a dict; "
                    f"it returned {'None' if new is None else type(new).__name__}"
                )
            try:
                replace(document, encode(document, new), status, hold)
            except ForeignWriteError:
                continue
            return new
        raise interference(document)


def _missing(path: str | os.PathLike[str]) -> NotFoundError:
    return NotFoundError(f"there is no document {os.fspath(path)}; create it first")
