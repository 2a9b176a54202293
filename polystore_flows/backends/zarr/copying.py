"""Copies of whole plates, and of the folders of tables in them."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...errors import AlreadyExistsError, UnsupportedError
from .listing import walk
from .nodes import translated
from .plate import ZarrPlate
from .staging import staged, sync_tree
from .store_plate import create as create_in_store
from .target import Target
from .writing import create


def copy_plate(here: Target, plate: ZarrPlate, there: Target) -> None:
    """Copy a plate; never overwrites.

    Atomic on a file system. To and from a store each well is read and written anew, and a failure
    leaves the wells before it.
    """
    if isinstance(plate.root, Path) and isinstance(there.root, Path):
        _copy_tree(here, plate.root, there, there.root)
        return
    if isinstance(there.root, Path):
        target = create(there.root, there.plate_uri, plate.spec, exist_ok=False)
    else:
        target = create_in_store(there.root, there.plate_uri, plate.spec, exist_ok=False)
    for well in plate.wells:
        images, labels = plate[well].read()
        notes = plate[well].notes({field: field for field in images}, target)
        target.write_well(well, images, labels, **notes)
    for path in walk(plate, "", recursive=True):
        if plate.file_path(path).is_file():
            target.write_table(path, plate.read_table(path))


def copy_folder(here: Target, plate: ZarrPlate, there: Target) -> None:
    """Copy a folder of tables and texts; never overwrites. Atomic on a file system."""
    target = there.open("r+")
    inner, to = here.stored(plate), there.stored(target)
    if isinstance(plate.root, Path) and isinstance(target.root, Path):
        _copy_tree(here, plate.root / inner, there, target.root / to)
        return
    if (target.root / to).is_dir():
        raise AlreadyExistsError(f"{there.uri} exists; delete it or choose another name")
    for path in list(walk(plate, inner, recursive=True)):
        table, name = plate.read_table(path), path.removeprefix(f"{inner}/")
        target.write_table(f"{to}/{name}", table, overwrite=False)


def _copy_tree(here: Target, start: Path, there: Target, end: Path) -> None:
    if end == start or start in end.parents:
        raise UnsupportedError(f"{here.uri} cannot be copied into itself")
    assert isinstance(there.root, Path)
    with translated(str(there.uri)), staged(there.root) as stage:
        if end.exists():
            raise AlreadyExistsError(f"{there.uri} exists; delete it or choose another name")
        shutil.copytree(start, stage / "copy")
        sync_tree(stage)
        end.parent.mkdir(parents=True, exist_ok=True)
        (stage / "copy").rename(end)
