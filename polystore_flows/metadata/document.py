"""Read-modify-write of a shared JSON document, alone or together with others who wait."""

from __future__ import annotations

import copy
import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polystore_flows.errors import (
    CorruptMetadataError,
    MetadataWriteError,
    MismatchError,
    NotFoundError,
)
from polystore_flows.metadata.atomic import (
    ATTEMPTS,
    ForeignWriteError,
    UnsyncedError,
    explained,
    interference,
    load,
    look_again,
    parse,
    recover,
    replace,
    writable,
)
from polystore_flows.metadata.changes import Change, apply, missing
from polystore_flows.metadata.layout import Draft, unspeakable
from polystore_flows.metadata.lock import DEFAULT_TIMEOUT, Hold, hold_lock
from polystore_flows.metadata.notes import checksum
from polystore_flows.metadata.paths import (
    ABSENT,
    is_object_uri,
    local_path,
    lock_path_of,
    sync_folder,
)
from polystore_flows.metadata.queue import DONE, MOST, RETURNED, UNSURE, Request, address

_REMEMBERED, _LARGEST = 4, 1 << 23  # documents whose text is kept, and bytes of the largest
_PAUSES = (0.0, 0.05, 0.2)  # seconds before an old state of a document is looked at again
_drafts: dict[Path, Draft] = {}


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON document; no lock is needed, writers replace it whole.

    Raises:
        NotFoundError: There is no document.
        CorruptMetadataError: It is not the text of a JSON object.
        OSError: It could not be read.
    """
    if is_object_uri(path):
        from polystore_flows.metadata.objects import read_object_json

        return read_object_json(os.fspath(path))
    document = local_path(path)
    try:
        content, _ = load(document)
    except OSError as error:
        if error.errno == errno.EISDIR:
            raise NotFoundError(f"{document} is a folder, not a document") from error
        if error.errno not in ABSENT:
            raise
        content = None
    if content is None:
        raise missing(document)
    return parse(document, content)


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
        path: A local path, or the URI of an object (see `objects.update_object_json`).
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
    if is_object_uri(path):
        from polystore_flows.metadata.objects import update_object_json

        return update_object_json(os.fspath(path), update_func, timeout, default_data)
    document = writable(path)

    def change(content: bytes | None) -> Draft:
        data = copy.deepcopy(default_data or {}) if content is None else parse(document, content)
        new = update_func(data)
        if not isinstance(new, dict):
            raise TypeError(
                f"{document}: the update function must return the new document, a dict; "
                f"it returned {'None' if new is None else type(new).__name__}"
            )
        draft = Draft(new)
        try:
            draft.render()
        except (TypeError, ValueError, RecursionError) as error:
            raise unspeakable(document, new, error) from error
        return draft

    with hold_lock(lock_path_of(document), timeout) as hold:
        return _commit(document, hold, change).data


def apply_change(path: str | os.PathLike[str], change: Change, timeout: float) -> None:
    """Make `change`, together with the changes of others who wait for the same document.

    Atomic and durable as `atomic_update_json`. If this has to wait, whoever holds the lock may
    make the change in the same commit as its own; this returns once that is durable. If that
    process dies, the change is made exactly once all the same.

    Raises:
        NotFoundError: There is no document, and `change` does not make one.
        ValueError: JSON has no way to say something in `change`.
        CorruptMetadataError: The document is not the text of a JSON object, or not of the kind
            that `change` is meant for.
        MismatchError: Something that `change` shall agree with is different.
        FileLockTimeoutError: The lock was not released in time. Nothing was written, unless the
            message says that the update may still be applied: then another process is at it.
        FileLockError: The lock cannot be taken at all.
        MetadataWriteError: The document could not be read or written.
    """
    if is_object_uri(path):
        from polystore_flows.metadata.objects import change_object_json

        change_object_json(os.fspath(path), change, timeout)
        return
    given = local_path(path)
    encoded = change.encode(given)
    if not change.creates:
        try:
            given.stat()
        except OSError as error:  # before anything is made beside it
            if error.errno in ABSENT:
                raise missing(given) from error
    document = writable(given)

    def make(content: bytes | None) -> Draft:
        draft = _drafts.pop(document, None)
        if content is None:
            draft = None
        elif draft is None or draft.content != content:
            noted = hold.seen(document)
            is_ours = noted is not None and checksum(content) == noted[:2]
            draft = (Draft.of(content) if is_ours else None) or Draft(parse(document, content))
        return apply(encoded, draft, document)

    update = b"\n".join([address(document), encoded])
    with hold_lock(lock_path_of(document), timeout, update=update) as hold:
        if hold.answer is not None:
            if hold.answer.startswith(UNSURE):
                raise MetadataWriteError(hold.answer[1:].decode())
        elif hold.doubt is None or not _is_in(document, hold, hold.doubt):
            draft = _commit(document, hold, make)
            if len(draft.content) <= _LARGEST:
                _drafts[document] = draft
                while len(_drafts) > _REMEMBERED:
                    _drafts.pop(next(iter(_drafts)), None)


def _is_in(document: Path, hold: Hold, update: str) -> bool:
    """Whether an update is in the document whose committer died before saying so."""
    with explained(document):
        recover(hold)
        if not hold.notes.is_settled(update):
            return False
        sync_folder(document.parent)
        return True


def _commit(document: Path, hold: Hold, change: Callable[[bytes | None], Draft]) -> Draft:
    """Change a document under its lock, and take along what others have asked for.

    Returns:
        What `change` returned, with the text that was written.
    """
    requests: list[Request] = []
    done: list[Request] = []
    with explained(document):
        recover(hold)
    try:
        for _ in range(ATTEMPTS):
            with explained(document, "read"):
                content, status = _latest(document, hold)
            draft = change(content)
            if hold.noted:  # else nobody could tell after a crash what was committed
                requests += hold.queue.claim(document, MOST - len(requests))
            done, payload = _joined(draft, requests, document)
            try:
                replace(document, payload, status, hold, [request.id for request in done])
            except ForeignWriteError:
                continue
            hold.notes.acknowledge([r.id for r in done if not r.answer(DONE)])
            return draft
        raise interference(document)
    except UnsyncedError as error:
        hold.notes.acknowledge([r.id for r in done if not r.answer(UNSURE, str(error))])
        raise
    finally:
        for request in requests:  # those without an answer see for themselves
            request.answer(RETURNED)


def _joined(draft: Draft, requests: list[Request], document: Path) -> tuple[list[Request], bytes]:
    """Apply `requests` to a document; returns those that could be, and the text of it all."""
    own = draft.content
    if requests and own:  # the dict of a caller, which is to hold the change of that caller only
        draft = Draft.of(own) or Draft(json.loads(own))
    done = []
    for request in requests:
        try:
            apply(request.update, draft, document)
        except (CorruptMetadataError, MismatchError):
            continue  # its owner will see that too, and say it
        done.append(request)
    return done, draft.render() if done or not own else own


def _latest(document: Path, hold: Hold) -> tuple[bytes | None, os.stat_result | None]:
    """Read the document, and again if it is older than what was committed last.

    A client of a network file system may go on seeing the file that was replaced. Whatever else
    differs from the notes in the lock file was written by somebody who does not know of them.
    """
    content, status = load(document)
    noted = hold.seen(document)
    for pause in _PAUSES:
        if noted is None or (status is not None and status.st_mtime_ns > noted[2]):
            break
        if content is not None and checksum(content) == noted[:2]:
            break
        time.sleep(pause)
        look_again(hold)
        content, status = load(document)
    return content, status
