"""Local paths of queries, and how links and copies come to lie there.

A local path is made of the query's text alone, once or twice, so that it commutes with Snakemake's
filling in of wildcards, whatever their values::

    zarr:///d/p.zarr/B/03/0      zarr/abs/d/p.zarr/B/03/0/@.zarr
    zarr:///d/p.zarr/tables/a.csv     zarr/abs/d/p.zarr/tables/a.csv/@.csv
    disk:raw/a.tif               disk/rel/raw/a.tif/@/raw/a.tif

As no query has a part ``@`` or ``@.…``, no local path lies inside another: a linked plate or
folder never has the local copy of something else in it, whose removal would remove the source.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path, PurePosixPath

from polystore_flows.hcs.address import TEXT_SUFFIXES

from .query import without_constraints

TIMESTAMP = ".snakemake_timestamp"
"""Snakemake's own file in folders that are outputs; never stored."""

_FICLONE = 0x40049409  # linux/fs.h: let one file share the blocks of another


def local_suffix(query: str) -> str:
    """Where the local copy of `query`, which may hold wildcards, lies below the local prefix."""
    scheme, _, rest = query.partition(":")
    if rest.startswith("///"):
        place, path = "abs", rest[3:]
    elif rest.startswith("//"):
        place, path = "at", rest[2:]
    else:
        place, path = "rel", rest
    plain = without_constraints(path)
    suffix = PurePosixPath(plain).suffix
    if scheme in ("disk", "file"):
        leaf = f"@/{plain}"  # the name as it is, for programs that look at it
    else:
        leaf = f"@{suffix if suffix.lower() in TEXT_SUFFIXES else '.zarr'}"
    return f"{scheme}/{place}/{path}/{leaf}"


def link(source: Path, target: Path) -> None:
    """Make `target` a symbolic link to `source`; what was at `target` is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = _beside(target)
    staged.symlink_to(source.absolute())
    _put(staged, target)


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
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = _beside(target)
    try:
        (_copy_tree if source.is_dir() else _copy_file)(source, staged)
        _put(staged, target)
    finally:
        clear(staged)


def clear(path: Path) -> None:
    """Remove the local copy at `path`, if there is one; a link is removed, never followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name[:80]}.{uuid.uuid4().hex[:12]}")


def _put(staged: Path, target: Path) -> None:
    """Rename `staged` to `target`; only a folder that is replaced is away for a moment."""
    if target.is_dir() and not target.is_symlink():
        aside = _beside(target)
        target.rename(aside)
        staged.rename(target)
        shutil.rmtree(aside)
    elif staged.is_dir() and not staged.is_symlink():
        target.unlink(missing_ok=True)
        staged.rename(target)
    else:
        staged.replace(target)


def _copy_tree(source: Path, target: Path, above: tuple[Path, ...] = ()) -> None:
    here = source.resolve()
    if here in above:
        raise OSError(f"{source} is a link to a folder that holds it")
    target.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            _copy_tree(entry, target / entry.name, (*above, here))
        elif entry.name != TIMESTAMP:
            _copy_file(entry, target / entry.name)
    _keep_time(source, target)


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
