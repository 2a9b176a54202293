"""Removing parts of a plate: taken off the lists first, then renamed away.

So a reader meets all of a part or none, and a process that is killed leaves nothing listed that
is not there.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ...hcs.address import Address
from .commit import changing, forget_consolidated, set_fields, set_labels, unlist_wells
from .listing import is_directory, label_names
from .plate import ZarrPlate
from .tables import remove_file


def remove(plate: ZarrPlate, address: Address, inner: str, stage: Path) -> None:
    """Remove what is at the stored path `inner`, with all below it; `stage` gets the remains."""
    local = plate.root / inner
    if not inner:
        local.rename(stage / "removed")
    elif local.is_file():
        remove_file(plate, local, stage)
    else:
        forget_consolidated(plate)
        well = "/".join(inner.split("/")[:2])
        with changing(plate, well if well in plate.wells else None) as content:
            for number, part in enumerate(_unlist(plate, content, address, inner)):
                with suppress(FileNotFoundError):  # another process was faster
                    part.rename(stage / str(number))


def _unlist(plate: ZarrPlate, content: dict[str, Any], address: Address, inner: str) -> list[Path]:
    """Take `inner` off all lists; what is to be renamed away then."""
    if is_directory(plate, inner):
        inside = (w for w in plate.wells if w == inner or w.startswith(f"{inner}/"))
        unlist_wells(plate, content, tuple(inside))
        return [plate.root / inner]
    assert address.field is not None
    well = plate[str(address.well)].path
    if address.label is not None:
        rest = [n for n in label_names(plate, well, address.field) if n != address.label]
        set_labels(plate, plate.group(well, address.field) / "labels", rest)
        return [plate.root / inner]
    if _unlist_field(plate, content, well, address.field):
        return [plate.root / inner]
    group = plate.group(well)
    if not (group / "tables").is_dir():
        return [group]
    # A well without fields is no well, but its tables were not asked to go.
    return [part for part in group.iterdir() if part.name != "tables"]


def _unlist_field(plate: ZarrPlate, content: dict[str, Any], well: str, field: str) -> bool:
    """Take a field off its well's JSON, and a well that has no other off the plate's.

    Needs what `changing` holds. Returns whether the well is still listed.
    """
    rest = [name for name in plate.present(well) if name != field]
    if rest:
        set_fields(plate, well, rest)
    else:
        unlist_wells(plate, content, (well,))
    return bool(rest)
