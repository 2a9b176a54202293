"""Removing parts of a plate on a file system: off the lists first, then renamed away."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from .commit import changing, forget_consolidated, set_labels, unlist_field, unlist_wells
from .listing import is_directory, label_names
from .plate import ZarrPlate
from .staging import staged
from .tables import remove_file


def remove(plate: ZarrPlate, inner: str) -> None:
    """Remove what the stored path `inner` names, with all below it.

    A reader meets all of it or none, and a process that is killed leaves nothing listed that is
    not there.
    """
    place = plate.root / inner
    with staged(plate.root) as stage:
        if not inner:
            place.rename(stage / "removed")
        elif place.is_file():
            remove_file(plate, place, stage)
        else:
            forget_consolidated(plate)
            well = "/".join(inner.split("/")[:2])
            with changing(plate, well if well in plate.wells else None) as content:
                for number, part in enumerate(_unlist(plate, content, inner)):
                    with suppress(FileNotFoundError):  # another process was faster
                        part.rename(stage / str(number))


def _unlist(plate: ZarrPlate, content: dict[str, Any], inner: str) -> list[Path]:
    """Take `inner` off all lists; what is to be renamed away then."""
    if is_directory(plate, inner):
        inside = (w for w in plate.wells if w == inner or w.startswith(f"{inner}/"))
        unlist_wells(plate, content, tuple(inside))
        return [plate.root / inner]
    row, column, field, *label = inner.split("/")
    well = f"{row}/{column}"
    if label:
        rest = [name for name in label_names(plate, well, field) if name != label[-1]]
        set_labels(plate, plate.group(well, field) / "labels", rest)
        return [plate.root / inner]
    if unlist_field(plate, content, well, field):
        return [plate.root / inner]
    group = plate.group(well)
    if not (group / "tables").is_dir():
        return [group]
    # A well without fields is no well, but its tables were not asked to go.
    return [part for part in group.iterdir() if part.name != "tables"]
