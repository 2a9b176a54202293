"""Folders in which parts of a plate are made before they are renamed into it.

They lie in ``.<plate>.staging`` beside the plate: on its file system, so that a rename is
enough, and outside its zarr hierarchy, so that no reader ever meets them. Beside each lies
``<folder>.alive``, which its writer holds locked: whoever can lock it knows that the writer is
dead, in whatever container or on whatever host it ran.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from ...metadata import flock
from ...metadata.descriptors import Descriptor
from ...metadata.paths import HOST, sync_folder

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h
_ALIVE = ".alive"
_REPLACED = "~replaced"  # no name in a plate holds a tilde


def staging_root(plate: Path) -> Path:
    """Where the staged parts of the plate at `plate` lie."""
    return plate.parent / f".{plate.name}.staging"


@contextlib.contextmanager
def staged(plate: Path) -> Iterator[Path]:
    """A fresh folder for one writer, removed at the end with what was not renamed out of it.

    What writers of this host left when they were killed is swept first.
    """
    sweep(plate, f"{HOST}-")
    folder, alive = _begin(staging_root(plate))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # before anybody can lock what tells of it
        alive.close()
        _end(folder)


def sweep(plate: Path, start: str = "") -> None:
    """Remove what killed writers left, and put back what one had moved aside to replace it."""
    for folder in abandoned(plate, start):
        for aside in folder.rglob(f"*{_REPLACED}"):
            with contextlib.suppress(OSError):  # else its replacement is in place
                aside.rename(plate / unquote(aside.name.removesuffix(_REPLACED)))
        _remove(folder)
    with contextlib.suppress(OSError):
        staging_root(plate).rmdir()


def abandoned(plate: Path, start: str = "") -> Iterator[Path]:
    """Folders that killed writers left; each is locked until the next is asked for.

    Args:
        plate: folder of the plate.
        start: of the folders' names, which begin with the host; by default those of all hosts.
    """
    root = staging_root(plate)
    try:
        found = {path.name.removesuffix(_ALIVE) for path in root.iterdir()}
    except FileNotFoundError:
        return
    for name in sorted(name for name in found if name.startswith(start)):
        try:
            alive = _open(root / f"{name}{_ALIVE}")
        except FileNotFoundError:  # it is made before the folder and removed after it
            yield root / name
            continue
        try:
            if flock.lock(alive.fd):
                yield root / name
        finally:
            alive.close()


def sync_tree(folder: Path) -> None:
    """Bring all files and folders below `folder` to the disk."""
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(path) / name)
        sync_folder(Path(path))


def put(staged_part: Path, target: Path, plate: Path) -> None:
    """Rename `staged_part` to `target` in `plate`, atomically, whether or not a folder is there.

    A replaced folder takes the staged part's place, to be removed with it. On Linux the two are
    exchanged, so that there is no moment without a target. Where the file system cannot do that
    (NFS), the old one is moved aside just before, under a name by which `sweep` puts it back.
    """
    if not target.exists():
        staged_part.rename(target)
    elif not _exchange(staged_part, target):
        place = quote(target.relative_to(plate).as_posix(), safe="")
        aside = staged_part.with_name(f"{place}{_REPLACED}")
        target.rename(aside)
        try:
            staged_part.rename(target)
        except BaseException:
            aside.rename(target)
            raise
        aside.rename(staged_part)
    sync_folder(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    code = rename(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)
    )
    if code == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _begin(root: Path) -> tuple[Path, Descriptor]:
    while True:
        folder = root / f"{HOST}-{uuid.uuid4().hex}"
        mark = Path(f"{folder}{_ALIVE}")
        try:
            root.mkdir(parents=True, exist_ok=True)
            alive = Descriptor(mark, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except FileNotFoundError:  # the last writer before us removed the empty root in between
            continue
        except FileExistsError:  # likewise, between mkdir and its look at what is there
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(root.lstat().st_mode):
                    raise
            continue
        except OSError:
            _end(folder)
            raise
        if flock.lock(alive.fd) and mark.exists():  # nobody took us for dead before that
            try:
                folder.mkdir()
            except OSError:  # a full disk has room for one of the two
                alive.close()
                _end(folder)
                raise
            return folder, alive
        alive.close()


def _open(mark: Path) -> Descriptor:
    try:
        return Descriptor(mark, os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        return Descriptor(mark, os.O_RDONLY)  # which cannot be locked over NFS


def _end(folder: Path) -> None:
    _remove(folder)
    with contextlib.suppress(OSError):  # others still stage there
        folder.parent.rmdir()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        Path(f"{folder}{_ALIVE}").unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
