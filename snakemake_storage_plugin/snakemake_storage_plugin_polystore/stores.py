"""Moving files and folders between this machine and object stores, complete or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import polystore_flows as ps
from polystore_flows.errors import ConflictError, PolystoreError
from polystore_flows.registry import backend_for
from polystore_flows.threads import in_threads

from . import local
from .query import OBJECTS, Query, parse_query

INCOMPLETE = ".polystore-incomplete"
"""Object that lies in a folder of an object store while the folder is written or removed."""

_TRIES = 5


def is_complete(query: str) -> bool:
    """Whether something is stored under `query`, and all of it."""
    if not ps.exists(query):
        return False
    return not is_marked(query) or bool(backend_for(query).is_file(query))


def is_marked(query: str) -> bool:
    """Whether `query`, if it is a folder, is marked as one of which a part is there.

    Files, wells and fields appear at once, and so do folders on disk; the objects of a folder of
    an object store do not.
    """
    parsed = parse_query(query)
    if parsed.uri.scheme not in OBJECTS or parsed.address is not None:
        return False
    return bool(backend_for(query).is_file(f"{query}/{INCOMPLETE}"))


def download(query: str, target: Path) -> None:
    """Copy an object, or a folder with all below it, to `target`; atomic."""
    backend = backend_for(query)
    with local.staged(target) as staged:
        if backend.is_file(query):
            _fetch(query, staged)
        else:
            staged.mkdir(parents=True)
            files = backend.list_files(query, recursive=True)
            in_threads(lambda f: _fetch(f, staged / f[len(query) :].lstrip("/")), files)


def _fetch(query: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for last in [False] * _TRIES + [True]:
        try:
            with backend_for(query).open_binary(query) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file, 2**20)
            return
        except ConflictError:  # it was replaced while it was read
            if last:
                raise


def upload(path: Path, query: str) -> None:
    """Store the local file or folder `path`; what was stored is replaced.

    A file is replaced atomically. A folder does not exist, for `is_complete`, until all of it is
    there, and is as before only after another try if this one fails.
    """
    backend = backend_for(query)
    if not path.is_dir():
        backend.upload(path, query)
        return
    if backend.is_file(query):
        backend.delete(query)
    mark = f"{query}/{INCOMPLETE}"
    backend.write_bytes(b"", mark, overwrite=True)
    found = {f"{query}/{inner}": path / inner for inner in local.files_below(path)}
    for outdated in set(backend.list_files(query, recursive=True)) - {*found, mark}:
        backend.delete(outdated)
    in_threads(lambda target: backend.upload(found[target], target), list(found))
    backend.delete(mark)
    if not found:
        backend.ensure_directory(query)


def remove(query: str) -> None:
    """Remove an object, or a folder with all below it; a folder is gone at once for `is_complete`.

    Raises:
        NotFoundError: nothing is there.
    """
    backend = backend_for(query)
    if not backend.is_file(query) and backend.is_dir(query):
        mark = f"{query}/{INCOMPLETE}"
        backend.write_bytes(b"", mark, overwrite=True)
        for found in backend.list_files(query, recursive=True):
            if found != mark:
                backend.delete(found)
    backend.delete_all(query)


def is_plate(query: Query) -> bool:
    """Whether the folder that `query` names is a plate of ours or an OME-Zarr plate."""
    if query.kind != "path":
        return False
    backend, text = backend_for(query.uri), query.uri.text
    if any(backend.is_file(f"{text}/{name}") for name in ("zarr.json", ".zattrs")):
        text = text.replace("disk:", "zarr:", 1) if query.uri.is_local else f"zarr+{text}"
    elif not backend.is_file(f"{text}/openhcs_metadata.json"):
        return False
    try:
        return bool(getattr(ps.open_plate(text), "is_own", True))
    except PolystoreError:
        return False
