"""Local paths of queries, and how links and copies come to lie there.

A local path is the query's text twice, so that it commutes with Snakemake's filling in of
wildcards, whatever their values, and ends in the name that programs look at::

    zarr:///d/p.zarr/B/03/0     zarr/abs/d/p.zarr/B/03/0@/d/p.zarr/B/03/0
    disk:raw/a.tif              disk/rel/raw/a.tif@/raw/a.tif

As no part of a query ends in ``@``, no local path lies inside another: a linked plate or folder
never has the local copy of something else in it, whose removal would remove the source.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .query import without_constraints

TIMESTAMP = ".snakemake_timestamp"
"""Snakemake's own file in folders that are outputs; never stored."""

MOST_HASHED = 1_000_000
"""Bytes up to which Snakemake compares checksums by default."""

_FICLONE = 0x40049409  # linux/fs.h: let one file share the blocks of another


@cache
def local_suffix(query: str) -> str:
    """Where the local copy of `query`, which may hold wildcards, lies below the local prefix."""
    scheme, _, rest = query.partition(":")
    if rest.startswith("///"):
        place, path = "abs", rest[3:]
    elif rest.startswith("//"):
        place, path = "at", rest[2:]
    else:
        place, path = "rel", rest
    return f"{scheme}/{place}/{path}@/{without_constraints(path)}"


def link(source: Path, target: Path) -> None:
    """Make `target` a symbolic link to `source`; what was at `target` is replaced."""
    with staged(target) as new:
        new.symlink_to(source.absolute())


def copy(source: Path, target: Path) -> None:
    """Make `target` a copy of the file or folder `source`, links in it followed.

    Blocks are shared where the file system can do that (btrfs, XFS), never whole files: a job
    may change its copy. A failure leaves `target` as it was; files are replaced atomically.
    """
    origin, place = source.resolve(), target.resolve()
    if origin == place:
        return
    if origin in place.parents:
        raise OSError(f"{source} cannot be copied into itself, to {target}")
    with staged(target) as new:
        if not source.is_dir():
            _copy_file(source, new)
            return
        new.mkdir()
        for inner in folders_below(source):
            (new / inner).mkdir()
        for inner in files_below(source):
            _copy_file(source / inner, new / inner)
        _keep_time(source, new)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A path beside `target`, for what replaces it at the end; nothing is left of a failure.

    Only a folder that is replaced by a folder is away for a moment.
    """
    _make_folder(target.parent)
    new = _beside(target)
    try:
        yield new
        if is_folder(new) or is_folder(target):
            clear(target)
        new.replace(target)
    finally:
        clear(new)


def _make_folder(folder: Path) -> None:
    """With its parents, which Snakemake removes as soon as they are empty."""
    for last in (False, False, False, True):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError):
            if last:
                raise
        else:
            return


def clear(path: Path) -> None:
    """Remove what is at `path`, if anything is; a link is removed, never followed.

    A folder is gone at once, under a name of its own that no listing of ours shows.
    """
    if is_folder(path):
        aside = _beside(path)
        path.rename(aside)
        shutil.rmtree(aside)
    else:
        path.unlink(missing_ok=True)


def is_folder(path: Path) -> bool:
    """Whether a real folder is at `path`, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def files_below(folder: Path) -> Iterator[str]:
    """Paths of the files below `folder`, relative to it, links followed; without `TIMESTAMP`."""
    for inner, names in _walk(folder):
        yield from (f"{inner}{name}" for name in names if name != TIMESTAMP)


def folders_below(folder: Path) -> Iterator[str]:
    """Paths of the folders below `folder`, relative to it, links followed, outer ones first."""
    yield from (inner for inner, _ in _walk(folder) if inner)


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum((path / inner).stat().st_size for inner in files_below(path))


def checksum(path: Path) -> str | None:
    """SHA-256 of a file, for Snakemake; None of a folder, and of a file that is long to read."""
    if path.is_dir() or path.stat().st_size > MOST_HASHED:
        return None
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder from `folder` on, as a prefix, and the names of the files in it.

    Raises:
        OSError: a link leads to a folder that holds it.
    """
    todo: list[tuple[str, tuple[Path, ...]]] = [("", ())]
    while todo:
        inner, above = todo.pop()
        here = (folder / inner).resolve()
        if here in above:
            raise OSError(f"{folder / inner} is a link to a folder that holds it")
        names = []
        for entry in sorted((folder / inner).iterdir()):
            if entry.is_dir():
                todo.append((f"{inner}{entry.name}/", (*above, here)))
            elif entry.exists():
                names.append(entry.name)
        yield inner, names


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name[:80]}-{os.urandom(8).hex()}.tmp")


def _copy_file(source: Path, target: Path) -> None:
    if not _share_blocks(source, target):
        shutil.copyfile(source, target)
    target.chmod(source.stat().st_mode | 0o200)
    _keep_time(source, target)


def _share_blocks(source: Path, target: Path) -> bool:
    try:
        import fcntl

        with source.open("rb") as old, target.open("wb") as new:
            fcntl.ioctl(new, _FICLONE, old.fileno())
    except (ImportError, OSError):
        return False
    return True


def _keep_time(source: Path, target: Path) -> None:
    status = source.stat()
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
