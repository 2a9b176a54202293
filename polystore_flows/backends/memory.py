"""Files in the memory of this process: ``memory://name/path``.

Files are kept encoded, as on disk, so that what was saved or loaded can be changed without
changing the store.
"""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from threading import RLock
from typing import BinaryIO

from ..contracts import DocumentStore, Identifier, Stat
from ..errors import ConflictError, UnsupportedError, URIError
from ..uri import parse_uri
from .file_bytes import Place, os_errors
from .files import FileBackend

_MOST_LINKS = 40
_versions = count(time.time_ns())  # an ETag that was kept must not be met in the next process


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    mtime: float = field(default_factory=time.time)
    etag: str = field(default_factory=lambda: f'"{next(_versions)}"')


@dataclass(frozen=True, slots=True)
class _Link:
    target: str


@dataclass(slots=True)
class _Folder:
    children: dict[str, _Node] = field(default_factory=dict)
    mtime: float = field(default_factory=time.time)

    def put(self, name: str, node: _Node) -> None:
        self.children[name] = node
        self.mtime = time.time()

    def drop(self, name: str) -> _Node:
        self.mtime = time.time()
        return self.children.pop(name)


_Node = _File | _Link | _Folder


class MemoryBackend(FileBackend, DocumentStore):
    """Files, directories and links in memory; threads may share it.

    ``memory://name/path`` and the plain path ``/name/path`` are the same.
    """

    _backend_type = "memory"

    def __init__(self) -> None:
        self._lock = RLock()
        self._root = _Folder()

    @property
    def requires_filesystem_validation(self) -> bool:
        """False: these paths are unknown to the operating system."""
        return False

    def clear_files(self) -> None:
        """Forget all files and links; directories stay."""
        with self._lock:
            folders = [self._root]
            while folders:
                folder = folders.pop()
                folder.children = {
                    n: node for n, node in folder.children.items() if isinstance(node, _Folder)
                }
                folders += [node for node in folder.children.values() if isinstance(node, _Folder)]

    def list_dir(self, path: Identifier) -> list[str]:
        """Names of what lies directly in the directory, sorted."""
        place = self._place(path)
        with self._lock, os_errors(place):
            return sorted(self._folder(place.path).children)

    def is_symlink(self, path: Identifier) -> bool:
        """Whether `path` is a link, resolving or not."""
        with self._lock:
            try:
                return isinstance(self._find(self._place(path).path, follow=False), _Link)
            except OSError:
                return False

    def delete(self, path: Identifier) -> None:
        """Remove a file, a link (never its target) or an empty directory; atomic."""
        place = self._place(path)
        with self._lock, os_errors(place, writing=True):
            node = self._find(place.path, follow=False)
            if isinstance(node, _Folder) and node.children:
                raise OSError(errno.ENOTEMPTY, "not empty")
            self._delete_all(place)

    def copy(self, source: Identifier, target: Identifier) -> None:
        """Copy a file, or a directory with all below it; atomic, never overwrites.

        Links in a directory stay links; a link given as `source` is followed.
        """
        self._transfer(source, target, keep=True)

    def move(self, source: Identifier, target: Identifier) -> None:
        """Rename a file, link or directory; atomic, never overwrites."""
        self._transfer(source, target, keep=False)

    def ensure_directory(self, directory: Identifier) -> str:
        """Make `directory` and its parents where they are missing; its identifier."""
        place = self._place(directory)
        with self._lock, os_errors(place, writing=True):
            self._make_folders(place.path)
        return place.uri.text if place.uri else place.given

    def create_symlink(
        self, source: Identifier, link_name: Identifier, *, overwrite: bool = False
    ) -> None:
        """Make `link_name` a link to `source`, which must exist; atomic.

        Overwrites a file or link, never a directory, and only with `overwrite`.
        """
        start, place = self._place(source), self._place(link_name)
        with self._lock:
            with os_errors(start):
                self._find(start.path)
            with os_errors(place, writing=True):
                parent, name = self._parent(place.path, make=True)
                old = parent.children.get(name)
                if old is not None and (not overwrite or start.path == place.path):
                    raise FileExistsError(errno.EEXIST, "exists")
                if isinstance(old, _Folder):
                    raise IsADirectoryError(errno.EISDIR, "is a directory")
                parent.put(name, _Link(start.path))

    # Documents, see ``metadata.objects``.

    def identity(self, identifier: Identifier) -> None:
        """None: other processes do not reach this store."""

    def read_with_etag(self, identifier: Identifier) -> tuple[bytes, str, dict[str, str]] | None:
        """A file, what `write_if` takes to replace just this one, and its user metadata."""
        place = self._place(identifier)
        with self._lock:
            node = self._find(place.path) if self._kind(place) == "file" else None
        return (node.data, node.etag, dict(node.attributes)) if isinstance(node, _File) else None

    def write_if(
        self,
        data: bytes,
        identifier: Identifier,
        etag: str | None,
        attributes: Mapping[str, str] | None = None,
    ) -> str:
        """Write a file only if it is still the one of `etag`; with None, if there is none.

        Atomic. Returns the new ETag; see ``contracts.DocumentStore``.
        """
        place = self._place(identifier)
        with self._lock, os_errors(place, writing=True):
            found = self.read_with_etag(identifier)
            if (found and found[1]) != etag:
                raise ConflictError(f"{place}: was changed by somebody else; read it again")
            self._write(data, place, True, attributes)
            written = self._find(place.path)
        assert isinstance(written, _File)
        return written.etag

    # What FileBackend asks for.

    def _place(self, identifier: Identifier) -> Place:
        if isinstance(identifier, str) and "://" in identifier:
            uri = parse_uri(identifier)
            if uri.scheme != "memory":
                raise URIError(f"{uri}: the memory backend serves memory://name/path only")
            return Place(f"/{uri.authority}/{uri.path.strip('/')}".rstrip("/"), "", uri)
        given = identifier if isinstance(identifier, str) else identifier.__fspath__()
        parts = [part for part in given.split("/") if part not in ("", ".")]
        if not given or ".." in parts:
            raise URIError(f"{given!r} is no path in memory; write memory://name/path")
        return Place("/" + "/".join(parts), given)

    def _open(self, place: Place) -> BinaryIO:
        with self._lock:
            node = self._find(place.path)
        if not isinstance(node, _File):
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        return _Reader(node.data)

    def _write(
        self,
        data: bytes,
        place: Place,
        overwrite: bool,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        with self._lock:
            parent, name = self._parent(place.path, make=True)
            old = parent.children.get(name)
            for _ in range(_MOST_LINKS):
                if not overwrite or not isinstance(old, _Link):
                    break
                parent, name = self._parent(old.target, make=True)
                old = parent.children.get(name)
            if isinstance(old, _Folder):
                raise IsADirectoryError(errno.EISDIR, "is a directory")
            if isinstance(old, _Link) and overwrite:
                raise OSError(errno.ELOOP, "links run in a circle")
            if old is not None and not overwrite:
                raise FileExistsError(errno.EEXIST, "exists")
            parent.put(name, _File(bytes(data), attributes or {}))

    def _kind(self, place: Place) -> str | None:
        with self._lock:
            try:
                node = self._find(place.path)
            except OSError:
                return None
            return "file" if isinstance(node, _File) else "directory"

    def _stat(self, place: Place) -> Stat | None:
        with self._lock:
            try:
                node = self._find(place.path)
            except OSError:
                return None
            if isinstance(node, _File):
                return Stat("file", len(node.data), node.mtime, node.etag)
            assert isinstance(node, _Folder)
            return Stat("directory", _size(node), node.mtime)

    def _files_below(self, place: Place, recursive: bool) -> Iterable[str]:
        with self._lock:
            found, folders = [], [("", self._folder(place.path))]
            while folders:
                prefix, folder = folders.pop()
                for name, node in folder.children.items():
                    if isinstance(node, _Folder):
                        folders += [(f"{prefix}{name}/", node)] if recursive else []
                    elif isinstance(node, _File) or self._leads_to_file(node):
                        found.append(prefix + name)
            return found

    def _touch(self, place: Place) -> None:
        with self._lock:
            node = self._find(place.path)
            if isinstance(node, _Folder):
                node.mtime = time.time()
            else:
                assert isinstance(node, _File)  # links were followed
                self._write(node.data, place, overwrite=True)

    def _delete_all(self, place: Place) -> None:
        with self._lock:
            self._find(place.path, follow=False)
            parent, name = self._parent(place.path)
            parent.drop(name)

    # The tree. These raise the operating system's errors, as a disk would.

    def _find(self, path: str, *, follow: bool = True) -> _Node:
        node: _Node = self._root
        ahead, links = path.strip("/").split("/")[::-1], 0
        while ahead:
            name = ahead.pop()
            if not isinstance(node, _Folder):
                raise NotADirectoryError(errno.ENOTDIR, "is no directory")
            if not name:
                continue
            if name not in node.children:
                raise FileNotFoundError(errno.ENOENT, "is not there")
            child = node.children[name]
            if isinstance(child, _Link) and (ahead or follow):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, "links run in a circle")
                ahead += child.target.strip("/").split("/")[::-1]
                child = self._root
            node = child
        return node

    def _folder(self, path: str) -> _Folder:
        node = self._find(path)
        if not isinstance(node, _Folder):
            raise NotADirectoryError(errno.ENOTDIR, "is no directory")
        return node

    def _parent(self, path: str, *, make: bool = False) -> tuple[_Folder, str]:
        above, _, name = path.rpartition("/")
        if not name:
            raise UnsupportedError("memory://: the root of all stores cannot be changed")
        return (self._make_folders(above) if make else self._folder(above)), name

    def _make_folders(self, path: str) -> _Folder:
        parts = [part for part in path.split("/") if part]
        for i in range(len(parts)):
            above = self._folder("/" + "/".join(parts[:i]))
            if parts[i] not in above.children:
                above.put(parts[i], _Folder())
        return self._folder(path)

    def _leads_to_file(self, link: _Link) -> bool:
        try:
            return isinstance(self._find(link.target), _File)
        except OSError:
            return False

    def _transfer(self, source: Identifier, target: Identifier, *, keep: bool) -> None:
        start, end = self._place(source), self._place(target)
        with self._lock:
            with os_errors(start):
                node = self._find(start.path, follow=keep)
            with os_errors(end, writing=True):
                if (end.path + "/").startswith(start.path + "/") and isinstance(node, _Folder):
                    raise UnsupportedError(f"{end}: lies in {start}, which cannot go into itself")
                parent, name = self._parent(end.path, make=True)
                if name in parent.children:
                    raise FileExistsError(errno.EEXIST, "exists")
                if _holds(node, parent):  # by way of a link
                    raise UnsupportedError(f"{end}: lies in {start}, which cannot go into itself")
                parent.put(name, _copied(node) if keep else node)
                if not keep:
                    above, old = self._parent(start.path)
                    above.drop(old)


class _Reader(io.BytesIO):
    """A file open for reading: seekable, not writable."""

    def writable(self) -> bool:
        return False

    def write(self, _: object, /) -> int:
        raise io.UnsupportedOperation("not writable")


def _copied(node: _Node) -> _Node:
    if not isinstance(node, _Folder):
        return node  # files and links never change
    return _Folder({name: _copied(child) for name, child in node.children.items()}, node.mtime)


def _holds(node: _Node, folder: _Folder) -> bool:
    if not isinstance(node, _Folder):
        return False
    return node is folder or any(_holds(child, folder) for child in node.children.values())


def _size(node: _Node) -> int:
    if isinstance(node, _Folder):
        return sum(map(_size, node.children.values()))
    return len(node.data) if isinstance(node, _File) else 0
