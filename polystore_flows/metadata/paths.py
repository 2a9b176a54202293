"""Where a document, its lock and its temporary files are, and folders that last."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from polystore_flows.errors import URIError
from polystore_flows.uri import parse_uri

HOST = re.sub(r"[^A-Za-z0-9-]", "_", os.uname().nodename)[:32] or "unknown"
"""This host as written in lock files and names of temporary files."""

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What the system says where no document is."""

OBJECT_SCHEMES = frozenset({"s3", "gs", "az", "memory"})
"""Schemes of stores whose documents are changed by compare-and-swap, see ``objects``."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_LOCAL = ("disk", "file")


def is_object_uri(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is the URI of a document on an object store, or in memory."""
    text = os.fspath(path)
    return isinstance(text, str) and text.partition("://")[0].lower() in OBJECT_SCHEMES


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a `Path`; ``disk:///`` and ``file:///`` may stand before it.

    Raises:
        URIError: It is a URI of another kind, is empty or holds a null byte.
        TypeError: It is no path.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path is a str or an os.PathLike of str, not {type(text).__name__}")
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() in _LOCAL:
        text = parse_uri(text).path
    elif scheme:
        # Only the scheme is printed: the rest may hold a secret.
        raise URIError(
            f"a document is a local path or the URI of an object (s3, gs, az), not {scheme[1]}://…"
        )
    if not text or "\0" in text:
        raise URIError(f"{text!r} is not a path: it is empty or holds a null byte")
    return Path(text)


def sidecar(path: str | os.PathLike[str]) -> Path:
    """Return the path that the lock and temporary files of a document are named after.

    That is the document itself, links resolved, except inside a zarr hierarchy (a folder
    ``*.zarr``, the outermost counts), where a foreign file makes zarr warn: there it is
    ``.<root>`` beside the root, so that all documents of a plate share one lock and change
    together. ``<sidecar>.lock`` is the lock.
    """
    return _beside(resolved(local_path(path)))


def resolved(path: Path) -> Path:
    """Return where `path` leads to; what does not exist yet leads where it stands.

    Raises:
        OSError: A link could not be read: to take it for a file would be another document.
    """
    try:
        return Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return Path(os.path.realpath(path))


def lock_path_of(document: Path) -> Path:
    """Return the lock file of `document`, whose links are resolved."""
    return Path(f"{_beside(document)}.lock")


def _beside(document: Path) -> Path:
    for root in reversed(document.parents) if ".zarr/" in str(document) else ():
        if root.name.endswith(".zarr"):
            return root.parent / f".{root.name}"
    return document


def make_folders(folder: Path) -> None:
    """Make `folder` and its missing parents so that they survive a loss of power."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in `folder` to disk, where the file system can do that."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some SMB and FUSE file systems know no sync of folders; their server decides.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
