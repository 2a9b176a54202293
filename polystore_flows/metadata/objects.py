"""Shared JSON documents on object stores, changed by compare-and-swap.

A change reads the document and its ETag and writes the new one on condition that the ETag is
still the same; whoever comes second reads again. The object's user metadata keeps the ids of the
last updates, so that a writer whose answer was lost finds out whether its put was done.

Processes of one host queue up first and share puts (see ``object_queue``). A store is tried once
whether it heeds conditions, and refused if not (see ``object_document``).
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from polystore_flows.errors import (
    ConflictError,
    FileLockTimeoutError,
    MetadataWriteError,
    PolystoreError,
    StoreUnavailableError,
)
from polystore_flows.metadata.atomic import parse
from polystore_flows.metadata.changes import Change, apply, missing
from polystore_flows.metadata.layout import Draft, encode
from polystore_flows.metadata.lock import DEFAULT_TIMEOUT
from polystore_flows.metadata.object_document import ObjectDocument, State
from polystore_flows.metadata.object_queue import Queue, Waiting, new_id, try_turn
from polystore_flows.registry import backend_for

Document = dict[str, Any]
Update = Callable[[bytes | None], Document]
"""What is stored, None for nothing -> the new document."""

_LONGEST_WAIT = 0.5  # seconds between two tries
_LOOK = 0.003  # seconds between two looks for an answer


def read_object_json(uri: str) -> Document:
    """Read a JSON document.

    Raises:
        NotFoundError: there is no document.
        CorruptMetadataError: it is not the text of a JSON object.
    """
    found = backend_for(uri).read_with_etag(uri)
    if found is None:
        raise missing(uri)
    return parse(uri, found[0])


def write_object_json(uri: str, data: Document, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Replace the JSON document at `uri` by `data`, whatever it held; atomic.

    Inside `object_lock` it is written only if nobody wrote it since the lock was taken.

    Raises:
        TypeError, ValueError: `data` is no dict, or holds what JSON cannot say.
        MetadataWriteError, StoreUnavailableError: as `update_object_json`.
    """
    payload = encode(uri, data)
    hold = _held().get(uri)
    if hold is None:
        _update(uri, lambda _: data, timeout)
    else:
        hold.write(payload)


@contextlib.contextmanager
def object_lock(uri: str, timeout: float = DEFAULT_TIMEOUT) -> Iterator[None]:
    """Keep others from changing the document at `uri` for the length of a ``with`` block.

    Threads and processes of this host and user wait for each other; a death releases the lock.
    No store can do that for hosts, so between hosts the lock is an optimistic one: a document
    that another host changed in the meantime is not overwritten in the block, but raises.

    Raises:
        FileLockTimeoutError: another holder kept it.
        FileLockError: it cannot be taken at all, or this thread holds it already.
        UnsupportedError: the store ignores conditions.
    """
    store = ObjectDocument(uri)
    with Queue(store.identity).turn(timeout):
        held = _held()
        held[uri] = _Hold(store)
        try:
            yield
        finally:
            del held[uri]


class _Hold:
    """A document as it was when its lock was taken, or as it was written since."""

    def __init__(self, store: ObjectDocument) -> None:
        self._store = store
        self._state = store.read()

    def write(self, payload: bytes) -> None:
        mine = new_id()
        ids = [*self._state.ids, mine]
        try:
            etag = self._store.write(payload, self._state.etag, ids)
        except (ConflictError, StoreUnavailableError) as error:
            found = self._store.read()
            if mine not in found.ids:  # else the answer was lost
                if isinstance(error, StoreUnavailableError) and found.etag == self._state.etag:
                    raise
                raise MetadataWriteError(
                    f"{self._store.uri}: another host changed it since the lock was taken, and "
                    "nothing was written; use atomic_update_json, which tries again"
                ) from error
            if found.ids[-1] == mine:  # else the next write is refused, as it should be
                self._state = found
        else:
            self._state = State(payload, etag, ids)


_holds = threading.local()


def _held() -> dict[str, _Hold]:
    """The documents whose locks this thread holds."""
    if not hasattr(_holds, "by_uri"):
        _holds.by_uri = {}
    return _holds.by_uri  # type: ignore[no-any-return]


def update_object_json(
    uri: str,
    update_func: Callable[[Document], Document],
    timeout: float = DEFAULT_TIMEOUT,
    default_data: Document | None = None,
) -> Document:
    """Read the JSON document at `uri`, change it and write it back, as one step.

    Atomic: no update of any thread, process or host is lost or made twice, and readers see the
    old document or the new one. A failure leaves the document as it was, unless the message says
    that it may have been written.

    Args:
        uri: ``s3://bucket/key`` or a sibling.
        update_func: gets the document, its own copy to change freely, and returns the new one;
            called again if another host was faster. What it raises reaches the caller unchanged,
            and nothing is written.
        timeout: seconds to wait for others; 0 tries once.
        default_data: what `update_func` gets (a copy of) where there is no document; ``{}`` if
            None. Never used in place of a corrupt document.

    Returns:
        The new document.

    Raises:
        TypeError, ValueError: `update_func` returned no dict, or what JSON cannot say.
        CorruptMetadataError: the document is not the text of a JSON object.
        FileLockTimeoutError: others kept changing it; nothing was written.
        MetadataWriteError: it cannot be told whether it was written.
        UnsupportedError: the store ignores conditions.
        StoreUnavailableError, AccessDeniedError, NotFoundError: no server, no right, no bucket.
    """
    if not isinstance(default_data, dict | None):
        raise TypeError(f"default_data must be a dict, not {type(default_data).__name__}")

    def change(content: bytes | None) -> Document:
        if content is None:
            return update_func(copy.deepcopy(default_data or {}))
        return update_func(parse(uri, content))

    return _update(uri, change, timeout)


def change_object_json(uri: str, change: Change, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Make a change that is said as data, in one put with those of others on this host.

    Atomic as `update_object_json`.

    Raises:
        NotFoundError: there is no document, and `change` does not make one.
        CorruptMetadataError: something on a path is of another kind.
        Others as `update_object_json`.
    """
    encoded = change.encode(uri)
    store = ObjectDocument(uri)
    queue, identity = Queue(store.identity), new_id()
    if not queue.is_shared:

        def alone(content: bytes | None) -> Document:
            return apply(encoded, _draft(uri, content), uri).data

        _update(uri, alone, timeout)
        return
    deadline = time.monotonic() + timeout
    path = queue.publish(identity, encoded)
    try:
        _wait(store, queue, identity, deadline, timeout)
    except PolystoreError as error:
        if queue.withdraw(path):
            raise  # and nothing was written
        if path.with_suffix(".claimed").exists():
            raise MetadataWriteError(
                f"{uri}: this update was being written and nobody knows what became of it; it may "
                f"still be applied ({error})"
            ) from error
        if not queue.answered(identity):
            raise
    except BaseException:
        queue.withdraw(path)
        raise


def _wait(
    store: ObjectDocument, queue: Queue, identity: str, deadline: float, timeout: float
) -> None:
    """Wait until an update that was published is made, by somebody or by this thread."""
    looks = 0
    while not queue.answered(identity):
        turn = try_turn(queue) if looks % 8 == 0 else None
        looks += 1
        if turn is not None:
            with turn:
                if queue.answered(identity):
                    return
                queue.sweep()
                queue.gather()
                _commit(store, queue, None, deadline, timeout)
            continue
        if time.monotonic() >= deadline and looks > 1:
            raise _too_late(store.uri, timeout)
        time.sleep(random.uniform(_LOOK / 2, _LOOK))


def _update(uri: str, change: Update, timeout: float) -> Document:
    if not timeout >= 0:  # also refuses NaN
        raise ValueError(f"timeout must be 0 or more seconds, not {timeout!r}")
    deadline = time.monotonic() + timeout
    store = ObjectDocument(uri)
    queue = Queue(store.identity)
    with queue.turn(timeout):
        made = _commit(store, queue, change, deadline, timeout)
    assert made is not None
    return made


def _commit(
    store: ObjectDocument,
    queue: Queue,
    change: Update | None,
    deadline: float,
    timeout: float,
) -> Document | None:
    """Write `change` and what waits in the queue; the new document, None if nothing was new."""
    # After a put that did not succeed it may have been made all the same: also after a conflict,
    # which can be with ourselves, where the client lost an answer and tried again.
    mine, tries, doubt = new_id(), 0, False
    known, waiting = State(), list[Waiting]()
    failure: PolystoreError | None = None
    try:
        while True:
            held = {update.id for update in waiting}
            waiting += [update for update in queue.claim() if update.id not in held]
            state = store.read()
            if doubt and not state.remembers(known):
                raise MetadataWriteError(
                    f"{store.uri}: the answer to a write was lost and others wrote since; it may "
                    "have been applied; look before you try again"
                )
            for update in [u for u in waiting if u.id in state.ids]:
                queue.answer(update, None)
                waiting.remove(update)
            if tries and mine in state.ids:
                return parse(store.uri, state.content or b"")
            doubt = failure is not None  # then the put may still be on its way
            if tries and time.monotonic() >= deadline:
                raise failure or _too_late(store.uri, timeout)
            own = None if change is None else _new(store.uri, change(state.content))
            made, payload = _joined(store.uri, queue, state, own, waiting)
            waiting = made
            if not payload:
                return None
            if own and not made and (state.content or b"").rstrip() == payload.rstrip():
                return own.data
            ids = [*state.ids, *(update.id for update in waiting), *([mine] if change else [])]
            known, tries, doubt = state, tries + 1, True
            try:
                store.write(payload, state.etag, ids)
            except ConflictError:
                failure = None
            except StoreUnavailableError as error:
                failure = error
            else:
                doubt = False
                for update in waiting:
                    queue.answer(update, None)
                waiting = []
                return own.data if own else None
            longest = min(_LONGEST_WAIT, 0.01 * 2 ** min(tries, 10))
            time.sleep(min(random.uniform(0, longest), max(0, deadline - time.monotonic())))
    finally:
        if not doubt:  # else the next holder of the turn looks for them in the document
            queue.release(waiting)


def _new(uri: str, data: Document) -> Draft:
    """The draft of what an update function returned, with its text."""
    if not isinstance(data, dict):
        raise TypeError(
            f"{uri}: the update function must return the new document, a dict; it returned "
            f"{'None' if data is None else type(data).__name__}"
        )
    draft = Draft(data)
    draft.content = encode(uri, data)
    return draft


def _draft(uri: str, content: bytes | None) -> Draft | None:
    return None if content is None else Draft(parse(uri, content))


def _joined(
    uri: str, queue: Queue, state: State, own: Draft | None, waiting: list[Waiting]
) -> tuple[list[Waiting], bytes]:
    """Apply what waits after `own`; which of it could be, and the text of it all."""
    if not waiting:
        return [], own.content if own else b""
    # A copy of `own`, whose dict is the caller's and is to hold the caller's change only.
    draft = Draft(json.loads(own.content)) if own else _draft(uri, state.content)
    made = []
    for update in waiting:
        try:
            draft = apply(update.change, draft, uri)
        except PolystoreError as error:
            queue.answer(update, error)
        else:
            made.append(update)
    if made and draft is not None:
        return made, draft.render()
    return [], own.content if own else b""


def _too_late(uri: str, timeout: float) -> FileLockTimeoutError:
    return FileLockTimeoutError(
        f"{uri}: others kept changing it for {timeout:g} s, and nothing was written; try again"
    )
