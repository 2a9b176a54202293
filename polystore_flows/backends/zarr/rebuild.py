"""The JSON of a plate that has lost it, made anew from the rows and wells that are there.

Each row's group keeps a copy of what the plate was made with. Where there is none, because
another program wrote the plate, the grid is the smallest that holds the wells, and channels and
pixel size are those of the first image.
"""

from __future__ import annotations

from typing import Any

from ...errors import PolystoreError
from ...hcs import ngff
from ...hcs.address import WellAddress, parse_well
from ...hcs.layout import Layout
from .arrays import ZarrImage
from .nodes import OURS, Place, find_document, plate_name, read_attributes


def wells_in(root: Place) -> dict[str, WellAddress]:
    """Stored paths of all folders in `root` that hold a well, listed or not."""
    rows = (row for row in root.iterdir() if row.name[:1].isupper() and row.is_dir())
    groups = [
        (f"{row.name}/{group.name}", group)
        for row in rows
        for group in row.iterdir()
        if group.name.isdecimal() and find_document(group) is not None
    ]
    return {path: parse_well(path) for path, group in groups}


def lost_wells(root: Place) -> dict[str, WellAddress]:
    """The wells in `root`, if it is the folder of a plate without its JSON."""
    return {} if find_document(root) is not None or not root.is_dir() else wells_in(root)


def document_of(root: Place, uri: str, wells: dict[str, WellAddress]) -> ngff.Attributes:
    """The attributes of the plate in `root` that has lost them, with no well listed yet."""
    return {OURS: _kept(root, uri) or _guessed(root, uri, wells)}


def _kept(root: Place, uri: str) -> dict[str, Any] | None:
    rows: list[Place] = [*root.iterdir()]
    for row in sorted(rows, key=lambda row: row.name):
        if find_document(row) is not None:
            ours = read_attributes(row, uri).get(OURS)
            if isinstance(ours, dict) and {"rows", "columns"} <= set(ours):
                return ours
    return None


def _guessed(root: Place, uri: str, wells: dict[str, WellAddress]) -> dict[str, Any]:
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
            group: Any = root / path / field
            image = ZarrImage(group, uri)
        except PolystoreError:
            continue
        ours["channels"] = [{"name": c.name, "color": c.color} for c in image.info.channels]
        ours["pixel_size"] = list(image.pixel_size)
        break
    return ours
