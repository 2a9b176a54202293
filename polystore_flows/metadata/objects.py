"""Shared JSON documents on object stores, changed by compare-and-swap.

A change reads the document and its ETag and writes the new one on condition that the ETag is
still the same; whoever comes second reads again. The object's user metadata keeps the ids of the
last updates, so that a writer whose answer was lost finds out whether its put was done.

Processes of one host queue up first and share puts (see ``object_queue``). A store is tried once
whether it heeds conditions, and refused if not (see ``object_document``).
"""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from polystore_flows.errors import (
    ConflictError,
    CorruptMetadataError,
    FileLockTimeoutError,
    MetadataWriteError,
    PolystoreError,
    StoreUnavailableError,
)
from polystore_flows.metadata.lock import DEFAULT_TIMEOUT
from polystore_flows.metadata.object_document import (
    SCHEMES,
    ObjectDocument,
    State,
    encode,
    missing,
    parse,
)
from polystore_flows.metadata.object_queue import Queue, Waiting, new_id, try_turn
from polystore_flows.registry import backend_for

Document = dict[str, Any]
Step = tuple[str, Iterable[str], Any]
"""``("set" | "merge" | "append", path, value)``."""

Change = Callable[[bytes | None], Document]
"""What is stored, None for nothing -> the new document."""

_KINDS: dict[str, type] = {"set": object, "merge": dict, "append": list}
_LONGEST_WAIT = 0.5  # seconds between two tries
_LOOK = 0.003  # seconds between two looks for an answer


def is_object_uri(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is the URI of an object, and so for this module."""
    return isinstance(path, str) and path.partition("://")[0].lower() in SCHEMES


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

    Raises:
        TypeError, ValueError: `data` is no dict, or holds what JSON cannot say.
        MetadataWriteError, StoreUnavailableError: as `update_object_json`.
    """
    encode(uri, data)
    _update(uri, lambda _: data, timeout)


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


def change_object_json(
    uri: str, steps: Iterable[Step], timeout: float = DEFAULT_TIMEOUT, *, create: bool = True
) -> None:
    """Make an update said as data, in one put with those of others on this host.

    Atomic as `update_object_json`. The steps are made together, in their order, or not at all.

    Args:
        uri: of the document.
        steps: ``("set", path, value)`` puts a value there, ``("merge", path, mapping)`` sets the
            mapping's keys in the object there, ``("append", path, value)`` adds to the list
            there. Objects on the way are made where they are missing.
        timeout: seconds to wait for others; 0 tries once.
        create: make the document where there is none, instead of raising.

    Raises:
        NotFoundError: there is no document and `create` is false.
        CorruptMetadataError: something on a path is of another kind.
        Others as `update_object_json`.
    """
    made = [[verb, list(path), value] for verb, path, value in steps]
    for verb, keys, value in made:
        if verb not in _KINDS or not keys or (verb == "merge" and not isinstance(value, Mapping)):
            raise ValueError(f"{uri}: {verb!r} of {keys!r} is no step of an update")
    encode(uri, {"steps": made})
    store = ObjectDocument(uri)
    queue, identity = Queue(store.identity), new_id()
    if not queue.is_shared:
        update = Waiting(identity, Path(), made, create)

        def alone(content: bytes | None) -> Document:
            return _applied(uri, None if content is None else parse(uri, content), update)

        _update(uri, alone, timeout)
        return
    deadline = time.monotonic() + timeout
    path = queue.publish(identity, made, create)
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


def _update(uri: str, change: Change, timeout: float) -> Document:
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
    change: Change | None,
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
            new, waiting = _fold(store.uri, queue, state, change, waiting)
            if new is None:
                return None
            payload = encode(store.uri, new)
            if not waiting and state.content is not None and payload == state.content.rstrip():
                return new
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
                return new
            longest = min(_LONGEST_WAIT, 0.01 * 2 ** min(tries, 10))
            time.sleep(min(random.uniform(0, longest), max(0, deadline - time.monotonic())))
    finally:
        if not doubt:  # else the next holder of the turn looks for them in the document
            queue.release(waiting)


def _fold(
    uri: str,
    queue: Queue,
    state: State,
    change: Change | None,
    waiting: list[Waiting],
) -> tuple[Document | None, list[Waiting]]:
    """The new document, None if there is nothing to do, and the updates that are in it."""
    data: Document | None = None
    if change is not None:
        data = change(state.content)
        if not isinstance(data, dict):
            raise TypeError(
                f"{uri}: the update function must return the new document, a dict; it returned "
                f"{'None' if data is None else type(data).__name__}"
            )
    elif state.content is not None and waiting:
        data = parse(uri, state.content)
    made = []
    for update in waiting:
        try:
            data = _applied(uri, data, update)
        except PolystoreError as error:
            queue.answer(update, error)
        else:
            made.append(update)
    return (data, made) if made or change is not None else (None, made)


def _applied(uri: str, data: Document | None, update: Waiting) -> Document:
    """`data`, changed in place by the steps of `update`, or as it was if one cannot be made."""
    if data is None and not update.create:
        raise missing(uri)
    data = {} if data is None else data
    if len(update.steps) > 1:
        data = copy.deepcopy(data)
    for verb, path, value in update.steps:
        inside: Any = data
        for key, kind in zip(path, [dict] * (len(path) - 1) + [_KINDS[verb]], strict=True):
            if key in inside and not isinstance(inside[key], kind):
                raise CorruptMetadataError(
                    f"{uri}: {key!r} is no JSON {'array' if kind is list else 'object'} but "
                    f"{type(inside[key]).__name__}. The document was left as it is"
                )
            if kind is dict:
                inside = inside.setdefault(key, {})
        if verb == "set":
            inside[path[-1]] = value
        elif verb == "merge":
            inside.update(value)
        else:
            inside.setdefault(path[-1], []).append(value)
    return data


def _too_late(uri: str, timeout: float) -> FileLockTimeoutError:
    return FileLockTimeoutError(
        f"{uri}: others kept changing it for {timeout:g} s, and nothing was written; try again"
    )
