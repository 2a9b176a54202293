"""Work on many objects: sizes and times of directories, copies in threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import obstore

from ...contracts import Stat
from ...threads import in_threads
from .stores import Store

DIRECTORY = ".polystore-directory"
"""Name of the empty object that keeps a directory without others."""


def object_stat(kind: str, found: Sequence[Any]) -> Stat:
    """The sum of the sizes and the newest time of listed objects; a file is one with its ETag."""
    newest = max((meta["last_modified"].timestamp() for meta in found), default=0.0)
    etag = found[0]["e_tag"] if kind == "file" else None
    return Stat(kind, sum(meta["size"] for meta in found), newest, etag)


def touch_object(store: Store, key: str) -> None:
    """Make an object look written now: the server copies it to another name and back.

    A server refuses to copy an object onto itself. Atomic; if it is killed, the copy is left under
    a name that no listing of ours shows.
    """
    folder, slash, _ = key.rpartition("/")
    aside = f"{folder}{slash}.polystore-{os.urandom(8).hex()}.tmp"
    obstore.copy(store, key, aside)
    try:
        obstore.copy(store, aside, key)
    finally:
        obstore.delete(store, [aside])


def copy_objects(source: Store, target: Store, pairs: Sequence[tuple[str, str]]) -> None:
    """Copy each ``(key, new key)``, none of which may exist; in threads, by the server if it can.

    Atomic for each object. Raises obstore's errors; copies that are done stay.
    """

    def copy(pair: tuple[str, str]) -> None:
        if source is target:
            obstore.copy(source, *pair, overwrite=False)
        else:
            data = obstore.get(source, pair[0]).bytes()
            obstore.put(target, pair[1], data, mode="create", use_multipart=False)

    in_threads(copy, pairs)
