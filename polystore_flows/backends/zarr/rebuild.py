"""The JSON of a plate that has lost it, made anew from the rows and wells that are there.

Each row's group keeps a copy of what the plate was made with. Where there is none, because
another program wrote the plate, the grid is the smallest that holds the wells, and channels and
pixel size are those of the first image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import PolystoreError
from ...hcs import ngff
from ...hcs.address import WellAddress, parse_well
from ...hcs.layout import Layout
from .arrays import ZarrImage
from .nodes import OURS, add_group, find_document, plate_name, read_attributes, version_at


def wells_in(root: Path) -> dict[str, WellAddress]:
    """Stored paths of all folders in `root` that hold a well, listed or not."""
    paths = (p.relative_to(root).as_posix() for p in root.glob("[A-Z]*/[0-9]*/"))
    return {path: parse_well(path) for path in paths if find_document(root / path) is not None}


def lost_wells(root: Path) -> dict[str, WellAddress]:
    """The wells in `root`, if it is the folder of a plate without its JSON."""
    return {} if find_document(root) is not None else wells_in(root)


def rebuild(root: Path, uri: str) -> None:
    """Write the JSON of the plate in `root`, with no well listed yet, if it is lost; atomic."""
    wells = lost_wells(root)
    if not wells:
        return
    version: ngff.Version = version_at(root / next(iter(wells)))
    ours = _kept(root, uri) or _guessed(root, uri, wells)
    add_group(root, {OURS: ours}, version)


def _kept(root: Path, uri: str) -> dict[str, Any] | None:
    for row in sorted(root.iterdir()):
        if find_document(row) is not None:
            ours = read_attributes(row, uri).get(OURS)
            if isinstance(ours, dict) and {"rows", "columns"} <= set(ours):
                return ours
    return None


def _guessed(root: Path, uri: str, wells: dict[str, WellAddress]) -> dict[str, Any]:
    layout = Layout.around(wells.values())
    names = [path.rpartition("/")[2] for path in wells]
    width = max((len(name) for name in names if name.startswith("0")), default=0)
    ours: dict[str, Any] = {
        "name": plate_name(root),
        "rows": list(layout.rows),
        "columns": [column.zfill(width) for column in layout.columns],
    }
    for path in sorted(wells):
        try:
            field = next(iter(ngff.read_well(read_attributes(root / path, uri), uri)))
            image = ZarrImage(root / path / field, uri)
        except PolystoreError:
            continue
        ours["channels"] = [{"name": c.name, "color": c.color} for c in image.info.channels]
        ours["pixel_size"] = list(image.pixel_size)
        break
    return ours
