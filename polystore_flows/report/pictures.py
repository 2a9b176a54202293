"""Tiles as pictures in the page: one contrast for each channel of the plate, small WebP files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from ..hcs.address import parse_well
from ..hcs.layout import Layout
from .wells import SIDES, FieldTiles, WellTiles, shrink

LOW, HIGH = 5.0, 99.8
"""Percentiles of a channel's pixels, over all wells, that are drawn black and white."""

Limits = Sequence[tuple[float, float]]
"""For each channel what is black and what is white."""

_QUALITY = 60
_LEAST_SIDE = 96  # fewer fields are shown before they become smaller than this
_SAMPLE = 24  # fields that are encoded to learn how large all will become
_SPARE = 0.9  # of the room, for what the sample does not tell
_SOME_PIXELS = 4_000_000  # that a contrast is taken from
_SHEET_CELLS = ((12, 96), (24, 64), (10_000, 40))  # columns of the plate up to -> pixels a well


@dataclass(frozen=True, slots=True)
class Sheets:
    """For each channel one picture of the whole grid, with a cell for every well."""

    cell: int
    """Pixels of a well, along y and x."""
    data: list[str]
    """``data:`` URLs."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The pictures of all fields that are shown."""

    side: int
    """Pixels of the longer side."""
    shown: int
    """Of each well at most."""
    data: dict[str, list[dict[str, Any]]]
    """Well -> for each field ``name``, ``channels`` and ``outlines`` (by label) as base64."""


def contrast(wells: Sequence[WellTiles], channels: int) -> list[tuple[float, float]]:
    """What is black and what is white in each channel, the same for the whole plate."""
    fields = [field for well in wells for field in well.fields]
    return [_limits([field.channels[c] for field in fields]) for c in range(channels)]


def draw_sheets(wells: Sequence[WellTiles], layout: Layout, limits: Limits) -> Sheets:
    """The first field of every well in its place; black where there is none."""
    cell = next(size for columns, size in _SHEET_CELLS if len(layout.columns) <= columns)
    shape = len(layout.rows) * cell, len(layout.columns) * cell
    sheets = [np.zeros(shape, np.uint8) for _ in limits]
    for well in wells:
        place = layout.find(parse_well(well.path))
        if place is None or not well.fields:
            continue
        for sheet, tile, (low, high) in zip(sheets, well.fields[0].channels, limits, strict=True):
            grey = _grey(shrink(tile, cell), low, high)
            top = place[0] * cell + (cell - grey.shape[0]) // 2
            left = place[1] * cell + (cell - grey.shape[1]) // 2
            sheet[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    return Sheets(cell, ["data:image/webp;base64," + _webp(sheet) for sheet in sheets])


def draw_fields(wells: Sequence[WellTiles], limits: Limits, room: int) -> Fields:
    """The fields as large as fit in `room` characters, all of them if they are not too small."""
    shown, side = _fit(wells, limits, room)

    def draw(well: WellTiles) -> list[dict[str, Any]]:
        return [_field(field, limits, side) for field in well.fields[:shown]]

    with ThreadPoolExecutor() as pool:  # the encoder lets other threads run
        drawn = dict(zip((well.path for well in wells), pool.map(draw, wells), strict=True))
    return Fields(side, shown, drawn)


def _fit(wells: Sequence[WellTiles], limits: Limits, room: int) -> tuple[int, int]:
    """How many fields of a well, and how large, fit in `room`; judged from a sample."""
    fields = [field for well in wells for field in well.fields]
    if not fields:
        return 0, 0
    counts = [len(well.fields) for well in wells]
    sample = fields[:: max(len(fields) // _SAMPLE, 1)][:_SAMPLE]

    @lru_cache
    def cost(side: int) -> float:  # of one field
        return sum(_length(_field(field, limits, side)) for field in sample) / len(sample)

    largest = max(max(field.channels[0].shape) for field in fields)
    sides = [largest, *(side for side in SIDES if side < largest)]
    large = [side for side in sides if side >= min(_LEAST_SIDE, largest)]
    ways = [(shown, side) for shown in range(max(counts), 0, -1) for side in large]
    ways += [(1, side) for side in sides if side < _LEAST_SIDE]
    for shown, side in ways:
        if cost(side) * sum(min(count, shown) for count in counts) <= room * _SPARE:
            break
    return shown, side


def _limits(tiles: list[NDArray[Any]]) -> tuple[float, float]:
    step = max(sum(tile.size for tile in tiles) // _SOME_PIXELS, 1)
    some = [tile.ravel()[::step] for tile in tiles]
    values = np.concatenate(some or [np.zeros(0)]).astype(np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, (LOW, HIGH))
    return float(low), float(high if high > low else low + 1)


def _field(tiles: FieldTiles, limits: Limits, side: int) -> dict[str, Any]:
    return {
        "name": tiles.name,
        "channels": [
            _webp(_grey(shrink(tile, side), low, high))
            for tile, (low, high) in zip(tiles.channels, limits, strict=True)
        ],
        "outlines": {name: _mask(mask, side) for name, mask in tiles.outlines.items()},
    }


def _length(field: dict[str, Any]) -> int:
    return sum(map(len, [*field["channels"], *field["outlines"].values()]))


def _grey(tile: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (tile.astype(np.float64) - low) * (255 / (high - low))
    return np.nan_to_num(np.clip(scaled, 0, 255), nan=0.0).astype(np.uint8)


def _mask(mask: NDArray[np.bool_], side: int) -> str:
    """A picture that is white where the mask is set and transparent elsewhere."""
    alpha = shrink(mask.astype(np.uint8) * 255, side)
    if alpha.shape != mask.shape:  # thin lines stay visible when they are made smaller
        alpha = np.minimum(alpha.astype(np.uint16) * 2, 255).astype(np.uint8)
    picture = Pictures.new("RGBA", alpha.shape[::-1], "white")
    picture.putalpha(Pictures.fromarray(alpha))
    return _encoded(picture, lossless=True)


def _webp(grey: NDArray[np.uint8]) -> str:
    return _encoded(Pictures.fromarray(grey), quality=_QUALITY)


def _encoded(picture: Pictures.Image, **how: Any) -> str:
    file = io.BytesIO()
    picture.save(file, "WEBP", method=4, **how)
    return base64.b64encode(file.getvalue()).decode()
