"""JSON documents on any backend, changed as one step."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import polystore_flows as ps
from polystore_flows.backends import codecs
from polystore_flows.errors import MismatchError, NotFoundError, UnsupportedError
from polystore_flows.metadata import atomic_update_json, file_lock
from polystore_flows.metadata.object_queue import private_folder
from polystore_flows.metadata.paths import OBJECT_SCHEMES
from polystore_flows.registry import backend_for
from polystore_flows.settings import get_settings
from polystore_flows.uri import BackendURI, parse_uri

Document = dict[str, Any]


def update_document(
    uri: str,
    update_func: Callable[[Document], Document],
    timeout: float | None = None,
    default_data: Document | None = None,
) -> Document:
    """Read the document at `uri`, change it and write it back; the new document.

    No update is lost to threads and processes of this host and, on file systems and buckets, of
    other hosts. What `update_func` raises leaves the document as it was.

    Args:
        uri: of a ``.json`` file, also below a plate.
        update_func: gets the document, its own copy, and returns the new one.
        timeout: seconds to wait for others; ``POLYSTORE_LOCK_TIMEOUT`` by default.
        default_data: what `update_func` gets where there is no document; ``{}`` if None.

    Raises:
        FileLockTimeoutError: others kept it; nothing was written.
        CorruptMetadataError: it is no JSON object.
    """
    parsed = parse_uri(uri)
    if codecs.suffix_of(parsed.path) != ".json":
        raise MismatchError(f"{parsed} is no JSON document; its name must end in .json")
    seconds = get_settings().lock_timeout if timeout is None else timeout
    place = _shared_place(parsed)
    if place is not None:
        return atomic_update_json(place, update_func, seconds, default_data)
    with file_lock(_lock_of(parsed), seconds):
        document = read_document(uri)
        new = update_func(copy.deepcopy(default_data or {}) if document is None else document)
        ps.save(new, parsed, overwrite=True)
        return new


def read_document(uri: str) -> Document | None:
    """The JSON document at `uri`; None where there is none.

    Raises:
        CorruptDataError, CorruptMetadataError: it is no JSON object.
    """
    try:
        found = ps.load(uri)
    except NotFoundError:
        return None
    if not isinstance(found, dict):
        raise MismatchError(f"{parse_uri(uri)} holds no JSON object; restore it from a copy")
    return found


def _shared_place(uri: BackendURI) -> str | None:
    """The path or object that `metadata` can change under its own lock, or None."""
    if uri.scheme == "zarr":
        folder = uri.at(uri.path.rpartition("/")[0] or "/")
        backend_for(uri).ensure_directory(folder.text)  # as a plate wants its tables' folder
        return parse_uri(backend_for(uri).raw_uri(uri.text)).path
    if uri.scheme == "disk":
        return uri.path
    scheme = uri.transport or uri.scheme
    return BackendURI(scheme, uri.authority, uri.path).text if scheme in OBJECT_SCHEMES else None


def _lock_of(uri: BackendURI) -> str:
    folder = private_folder()
    if folder is None:
        raise UnsupportedError(
            f"{uri}: this host offers no private folder for its lock; set TMPDIR"
        )
    return f"{folder}/{hashlib.sha256(uri.text.encode()).hexdigest()[:32]}.lock"
