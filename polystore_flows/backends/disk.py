"""Files and folders of this machine's file systems: ``disk:///path``, ``disk:relative``."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat as modes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..contracts import Identifier, Stat
from ..errors import UnsupportedError, URIError
from ..uri import parse_uri
from .file_bytes import Place, is_temporary, os_errors
from .files import FileBackend

_SCHEME = re.compile(r"(disk|file):", re.IGNORECASE)
_NO_HARD_LINKS = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
)
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class DiskBackend(FileBackend):
    """Files and folders of the operating system.

    An identifier is a ``disk:`` or ``file:`` URI, or any path that is none. A write goes to a
    hidden temporary file beside its target, ``.polystore-….tmp``, which listings do not show; a
    process that is killed leaves at most that. Written data is on the medium (fsync of the file
    and its directory) before a write returns.
    """

    _backend_type = "disk"

    def list_dir(self, path: Identifier) -> list[str]:
        """Names of what lies directly in the directory, sorted; without our temporaries."""
        place = self._place(path)
        with os_errors(place):
            return sorted(n for n in os.listdir(place.path) if not is_temporary(n))  # noqa: PTH208

    def scan(self, directory: Identifier) -> dict[str, Stat | None]:
        """Names of what lies directly in `directory`, links followed; of files what `stat` tells.

        From one listing; links that do not resolve and our temporaries are left out.
        """
        place = self._place(directory)
        found: dict[str, Stat | None] = {}
        with os_errors(place), os.scandir(place.path) as entries:
            for entry in entries:
                if is_temporary(entry.name):
                    continue
                if entry.is_dir():
                    found[entry.name] = None
                elif (status := _stat_or_none(Path(entry.path))) is not None:
                    found[entry.name] = Stat("file", status.st_size, status.st_mtime)
        return found

    def is_symlink(self, path: Identifier) -> bool:
        """Whether `path` is a link, resolving or not."""
        return Path(self._place(path).path).is_symlink()

    def delete(self, path: Identifier) -> None:
        """Remove a file, a link (never its target) or an empty directory; atomic."""
        place = self._place(path)
        target = Path(place.path)
        with os_errors(place, writing=True):
            if modes.S_ISDIR(target.lstat().st_mode):
                target.rmdir()
            else:
                target.unlink()
            _sync_directory(target.parent)

    def copy(self, source: Identifier, target: Identifier) -> None:
        """Copy a file, or a directory with all below it, with modes and times of modification.

        Atomic: the copy appears whole under its name or not at all. Never overwrites. Links in a
        directory stay links; a link given as `source` is followed.
        """
        start, end = self._place(source), self._place(target)
        origin, goal = Path(start.path), Path(end.path)
        with os_errors(start):
            is_dir = modes.S_ISDIR(origin.stat().st_mode)
        with os_errors(end, writing=True):
            _refuse_nesting(start, end, is_dir)
            _refuse_taken(goal)
            _make_directories(goal.parent)
            _copy(origin, goal, is_dir)

    def move(self, source: Identifier, target: Identifier) -> None:
        """Rename a file, link or directory; never overwrites.

        Atomic for a directory. A file is for a moment seen under both names, and a crash may
        leave both. Between file systems it is a copy, then a deletion.
        """
        start, end = self._place(source), self._place(target)
        origin, goal = Path(start.path), Path(end.path)
        with os_errors(start):
            is_dir = modes.S_ISDIR(origin.lstat().st_mode)
        with os_errors(end, writing=True):
            _refuse_nesting(start, end, is_dir)
            _refuse_taken(goal)
            _make_directories(goal.parent)
            try:
                _publish(origin, goal, is_dir)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copy(origin, goal, is_dir)
                _remove(origin)
            _sync_directory(origin.parent)

    def ensure_directory(self, directory: Identifier) -> str:
        """Make `directory` and its parents where they are missing; its identifier."""
        place = self._place(directory)
        with os_errors(place, writing=True):
            _make_directories(Path(place.path))
        return place.uri.text if place.uri else place.given

    def create_symlink(
        self, source: Identifier, link_name: Identifier, *, overwrite: bool = False
    ) -> None:
        """Make `link_name` a link to the absolute path of `source`, which must exist; atomic.

        Overwrites a file or link, never a directory, and only with `overwrite`.
        """
        start, place = self._place(source), self._place(link_name)
        origin, link = os.path.abspath(start.path), Path(place.path)  # noqa: PTH100
        with os_errors(start):
            os.stat(origin)  # noqa: PTH116
        with os_errors(place, writing=True):
            same = os.path.realpath(link.parent) == os.path.realpath(os.path.dirname(origin))  # noqa: PTH120
            if not overwrite or (same and link.name == os.path.basename(origin)):  # noqa: PTH119
                _refuse_taken(link)
            _make_directories(link.parent)
            with _temporary(link.parent) as temporary:
                temporary.symlink_to(origin)
                if overwrite:
                    temporary.replace(link)
                else:
                    _publish(temporary, link, is_dir=False)

    # What FileBackend asks for.

    def _place(self, identifier: Identifier) -> Place:
        given = os.fspath(identifier)
        if not isinstance(given, str) or not given or "\0" in given:
            raise URIError(f"{identifier!r} is no path; write for example disk:///data/plate1")
        if isinstance(identifier, str):
            if _SCHEME.match(given):
                uri = parse_uri(given)
                return Place(uri.path, "", uri)
            if "://" in given:
                raise URIError(f"{parse_uri(given)}: the disk backend serves disk: and file: only")
        return Place(given, given)

    def _open(self, place: Place) -> BinaryIO:
        return Path(place.path).open("rb")

    def _write(self, data: bytes, place: Place, overwrite: bool) -> None:
        target = Path(place.path)
        if not overwrite:
            _refuse_taken(target)
        _make_directories(target.parent)
        old = _stat_or_none(target)
        if target.is_symlink():
            target = Path(os.path.realpath(target))
            if target.is_symlink():
                raise OSError(errno.ELOOP, "links run in a circle")
            _make_directories(target.parent)
        if old is not None:
            if not modes.S_ISREG(old.st_mode):
                raise IsADirectoryError(errno.EISDIR, "is no regular file")
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, "the file is write-protected")
        with _temporary(target.parent) as temporary:
            _fill(temporary, data, old)
            if overwrite:
                temporary.replace(target)
                _sync_directory(target.parent)
            else:
                _publish(temporary, target, is_dir=False)

    def _kind(self, place: Place) -> str | None:
        found = _stat_or_none(Path(place.path))
        if found is None:
            return None
        if modes.S_ISDIR(found.st_mode):
            return "directory"
        return "file" if modes.S_ISREG(found.st_mode) else "special"  # a pipe or device

    def _stat(self, place: Place) -> Stat | None:
        found = _stat_or_none(Path(place.path))
        if found is None:
            return None
        if not modes.S_ISDIR(found.st_mode):
            return Stat("file", found.st_size, found.st_mtime)
        size = sum(entry.stat(follow_symlinks=False).st_size for _, entry in _walk(place.path))
        return Stat("directory", size, found.st_mtime)

    def _files_below(self, place: Place, recursive: bool) -> Iterable[str]:
        for inner, entry in _walk(place.path, recursive=recursive):
            if not entry.is_symlink():
                is_file = entry.is_file(follow_symlinks=False)
            else:  # entry.is_file() would raise on links in a circle
                found = _stat_or_none(Path(entry.path))
                is_file = found is not None and modes.S_ISREG(found.st_mode)
            if is_file:
                yield inner

    def _touch(self, place: Place) -> None:
        os.utime(place.path)

    def _delete_all(self, place: Place) -> None:
        target = Path(place.path)
        _remove(target)
        _sync_directory(target.parent)


def _stat_or_none(path: Path) -> os.stat_result | None:
    """Of what `path` leads to; None if nothing is there. What may not be seen raises."""
    try:
        return path.stat()
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _walk(
    root: str, prefix: str = "", recursive: bool = True
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What is no directory below `root`, with its path in it; links are not followed."""
    with os.scandir(root) as entries:
        for entry in entries:
            if is_temporary(entry.name):
                continue
            if not entry.is_dir(follow_symlinks=False):
                yield prefix + entry.name, entry
            elif recursive:
                with suppress(FileNotFoundError):  # removed since it was listed
                    yield from _walk(entry.path, f"{prefix}{entry.name}/")


@contextmanager
def _temporary(directory: Path) -> Iterator[Path]:
    """A hidden path in `directory` that no other writer uses; nothing is left there."""
    path = directory / f".polystore-{os.urandom(8).hex()}.tmp"
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):
            _remove(path)


def _fill(path: Path, data: bytes, old: os.stat_result | None) -> None:
    """Write a new file, with mode and owner of the `old` one, and wait until it is stored."""
    mode = 0o600 if old else 0o666  # the umask applies
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        if old is not None:
            with suppress(PermissionError):
                os.chown(path, old.st_uid, old.st_gid)
            path.chmod(modes.S_IMODE(old.st_mode))
        os.fsync(file.fileno())


def _publish(path: Path, target: Path, is_dir: bool) -> None:
    """Rename `path` to `target`, which is never replaced, also when another process makes it."""
    if is_dir:
        _refuse_taken(target)
        try:
            path.rename(target)  # at worst onto an empty directory made since, never onto data
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, "exists") from error
            raise
    else:
        try:
            os.link(path, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # Reserve the name, then replace what reserves it; seen empty for a moment.
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            path.replace(target)
        else:
            path.unlink()
    _sync_directory(target.parent)


def _copy(origin: Path, goal: Path, is_dir: bool) -> None:
    with _temporary(goal.parent) as temporary:
        if is_dir:
            shutil.copytree(origin, temporary, symlinks=True, ignore=_temporaries)
        else:
            shutil.copy2(origin, temporary)
        for path in [temporary, *temporary.rglob("*")] if is_dir else [temporary]:
            if not path.is_symlink():
                _sync(path)
        _publish(temporary, goal, is_dir)


def _temporaries(_: str, names: list[str]) -> list[str]:
    return [name for name in names if is_temporary(name)]


def _remove(path: Path) -> None:
    if modes.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        code = errno.EISDIR if path.is_dir() and not path.is_symlink() else errno.EEXIST
        raise OSError(code, os.strerror(code))


def _refuse_nesting(start: Place, end: Place, is_dir: bool) -> None:
    if not is_dir:
        return
    above = os.path.realpath(start.path)
    if os.path.realpath(end.path).startswith(above.rstrip("/") + "/"):
        raise UnsupportedError(f"{end}: lies in {start}, which cannot go into itself")


def _make_directories(path: Path) -> None:
    """Make `path` and what is missing above it, durably."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Wait until the names in `path` are stored, where the file system can say so."""
    if os.name == "posix":
        with suppress(PermissionError):  # a directory may be writable but not readable
            _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
