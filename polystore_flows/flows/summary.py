"""What is known of a plate once its wells are done: one row a well, a heat map."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from PIL import Image, ImageDraw

import polystore_flows as ps
from polystore_flows.hcs.address import parse_well
from polystore_flows.hcs.layout import Layout
from polystore_flows.hcs.plate import Plate

_NO_MEASURES = frozenset({"field", "label", "t", "z", "y_um", "x_um"})
"""Columns that say which object it is and where: their means mean nothing."""

_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_EMPTY, _FAILED, _RIM, _INK = (240, 240, 240), (200, 40, 40), (150, 150, 150), (40, 40, 40)

Row = dict[str, Any]


def summarise(
    plate: Plate, name: str, wells: Sequence[str], fields: Mapping[str, int]
) -> list[Row]:
    """One row a well from the tables ``tables/NAME.csv`` of the wells.

    Args:
        plate: that holds them.
        name: ``nuclei.csv``; its stem names the column with the number of rows.
        wells: stored paths, in the order of the rows.
        fields: of each well, how many there are.

    Returns:
        ``well, row, column, fields, NAME, NAME_per_field``, and the mean of every measure.
    """
    tables = ps.load_batch([f"{plate.uri}/{well}/tables/{name}" for well in wells])
    stem = name.removesuffix(".csv")
    measures = list(
        dict.fromkeys(
            column
            for table in tables
            for column in table.select_dtypes("number")
            if column not in _NO_MEASURES
        )
    )
    rows = []
    for well, table in zip(wells, tables, strict=True):
        row, column = well.split("/")
        place = {"well": well, "row": row, "column": int(column) if column.isdecimal() else column}
        counts: Row = {"fields": fields[well], stem: len(table)}
        counts[f"{stem}_per_field"] = len(table) / max(fields[well], 1)
        means = {m: pd.to_numeric(table[m]).mean() if m in table else None for m in measures}
        rows.append(place | counts | means)
    return rows


def heat_map(
    layout: Layout, values: Mapping[str, float], failed: Sequence[str] = (), well_pixels: int = 0
) -> bytes:
    """The values of wells as a PNG of the plate; wells that failed are crossed out.

    Args:
        layout: of the plate.
        values: well -> number; NaN counts as missing.
        failed: wells.
        well_pixels: the size of a well; chosen by the layout unless given.
    """
    rows, columns = len(layout.rows), len(layout.columns)
    side = well_pixels or max(10, min(36, 720 // columns))
    margin = 26
    picture = Image.new("RGB", (columns * side + margin + 6, rows * side + margin + 6), "white")
    draw = ImageDraw.Draw(picture)
    known = [value for value in values.values() if value == value]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    shown = {parse_well(well): value for well, value in values.items() if value == value}
    crossed = {parse_well(well) for well in failed}
    for r, row in enumerate(layout.rows):
        _label(draw, row, margin / 2, margin + (r + 0.5) * side, side)
        for c, column in enumerate(layout.columns):
            well = parse_well(f"{row}/{column}")
            x, y = margin + c * side, margin + r * side
            box = (x + 1, y + 1, x + side - 2, y + side - 2)
            colour = _EMPTY
            if well in shown:
                colour = _colour((shown[well] - low) / (high - low) if high > low else 0.5)
            draw.ellipse(box, fill=colour, outline=_RIM)
            if well in crossed:
                draw.line((box[0], box[1], box[2], box[3]), fill=_FAILED, width=2)
                draw.line((box[0], box[3], box[2], box[1]), fill=_FAILED, width=2)
    for c, column in enumerate(layout.columns):
        _label(draw, column, margin + (c + 0.5) * side, margin / 2, side)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _label(draw: ImageDraw.ImageDraw, text: str, x: float, y: float, side: int) -> None:
    draw.text((x, y), text, fill=_INK, anchor="mm", font_size=min(12, side * 0.8))


def _colour(share: float) -> tuple[int, int, int]:
    """Viridis, between its five anchors."""
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    start = min(int(place), len(_VIRIDIS) - 2)
    pairs = zip(_VIRIDIS[start], _VIRIDIS[start + 1], strict=True)
    red, green, blue = (round(a + (b - a) * (place - start)) for a, b in pairs)
    return red, green, blue
