"""The images of a plate, read once: small tiles, outlines of labels, statistics of channels.

Of each field the middle z plane of the first time point is read, at the pyramid level that is
just larger than a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from ..errors import MismatchError, PolystoreError
from ..hcs.plate import Image, Plate
from ..hcs.provenance import Provenance
from ..hcs.well import Well

SIDES = (384, 256, 192, 128, 96, 64, 48, 32)
"""Longer sides that tiles may have, in pixels."""
MOST_BYTES = 256 * 2**20
"""Of memory for all tiles of a plate."""
STATISTICS = ("mean", "median", "sd", "1st percentile", "99th percentile")
"""Of a channel's pixels in a well, over its fields."""


@dataclass(frozen=True, slots=True)
class FieldTiles:
    """A field made small."""

    name: str
    channels: tuple[NDArray[Any], ...]
    """``(y, x)`` for each channel, the dtype of the image or float32."""
    outlines: dict[str, NDArray[np.bool_]]
    """Label image -> where the border of an object is, ``(y, x)``."""


@dataclass(slots=True)
class WellTiles:
    """What was read of one well."""

    path: str
    fields: list[FieldTiles] = field(default_factory=list)
    statistics: list[tuple[float, ...]] = field(default_factory=list)
    """For each channel, in the order of `STATISTICS`."""
    listed: int = 0
    """Fields that the well has."""
    binning: int = 1
    """Pixels of the image for one that was measured, along y and x."""
    provenance: Provenance | None = None
    """Where its images come from, as the first field that tells it does."""
    problems: list[str] = field(default_factory=list)
    """Why something could not be read."""


def read_wells(
    plate: Plate,
    fields: int,
    workers: int,
    progress: Callable[[int, int, str], object] | None = None,
) -> list[WellTiles]:
    """Read all wells of a plate; what cannot be read is said in the well's `problems`.

    Args:
        plate: opened.
        fields: read of each well, the first ones.
        workers: wells at a time.
        progress: called as ``progress(done, total, well)``.
    """
    names = plate.wells
    side = _side(len(names) * fields * max(len(plate.channels), 1))
    pool = ThreadPoolExecutor(workers)
    jobs = {pool.submit(_read_well, plate, name, fields, side): name for name in names}
    try:
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            if progress is not None:
                progress(done, len(names), jobs[job])
    finally:
        pool.shutdown(cancel_futures=True)
    return [job.result() for job in jobs]


def _side(tiles: int) -> int:
    """The largest side of which `tiles` of two bytes a pixel fit in memory."""
    return next((s for s in SIDES if tiles * s * s * 2 <= MOST_BYTES), SIDES[-1])


def _read_well(plate: Plate, name: str, most: int, side: int) -> WellTiles:
    made = WellTiles(name)
    try:
        well = plate[name]
        made.listed = len(well.fields)
    except (PolystoreError, OSError) as error:
        made.problems.append(str(error))
        return made
    pixels: list[list[NDArray[Any]]] = []
    for field_name in well.fields[:most]:
        try:
            planes, image = _read_field(well, field_name, side)
            made.provenance = made.provenance or well.provenance(field_name)
            made.fields.append(_small(planes, image, field_name, side, made))
        except (PolystoreError, OSError) as error:
            made.problems.append(str(error))
            continue
        pixels.append(planes)
    made.statistics = [_measure(list(planes)) for planes in zip(*pixels, strict=True)]
    return made


def _read_field(well: Well, name: str, side: int) -> tuple[list[NDArray[Any]], Image]:
    image = well.image(name)
    if image.shape[1] != len(well.plate.channels):
        raise MismatchError(
            f"{image.uri} has {image.shape[1]} channels, its plate {len(well.plate.channels)}"
        )
    level = _level(image, side)
    z = image.shape[2] // 2
    return [image.plane(c=c, z=z, level=level) for c in range(image.shape[1])], image


def _small(
    planes: list[NDArray[Any]], image: Image, name: str, side: int, made: WellTiles
) -> FieldTiles:
    made.binning = 2 ** _level(image, side)
    outlines = {}
    for label in image.labels:
        try:
            outlines[label] = _outline(image.label(label), side)
        except (PolystoreError, OSError) as error:  # the field can be shown without it
            made.problems.append(str(error))
    return FieldTiles(name, tuple(shrink(plane, side) for plane in planes), outlines)


def _level(image: Image, side: int) -> int:
    """The smallest pyramid level whose longer side is not below `side`."""
    longer, level = max(image.shape[-2:]), 0
    while level + 1 < image.levels and longer // 2 >= side:
        longer, level = longer // 2, level + 1
    return level


def shrink(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """The plane ``(y, x)`` with its longer side at most `side`, by averages."""
    height, width = _size(plane, side)
    dtype = plane.dtype if plane.dtype.kind in "iu" and plane.dtype.itemsize <= 2 else np.float32
    values = plane.astype(np.float32)
    if (height, width) != plane.shape:
        values = np.asarray(
            Pictures.fromarray(values).resize((width, height), Pictures.Resampling.BOX)
        )
    return values.astype(dtype)


def _size(plane: NDArray[Any], side: int) -> tuple[int, int]:
    share = min(side / max(plane.shape), 1)
    return max(round(plane.shape[0] * share), 1), max(round(plane.shape[1] * share), 1)


def _outline(label: Image, side: int) -> NDArray[np.bool_]:
    """Where an object's border is, drawn at a tile's size."""
    names = label.plane(z=label.shape[2] // 2, level=_level(label, side))
    height, width = _size(names, side)
    rows = np.arange(height) * names.shape[0] // height
    columns = np.arange(width) * names.shape[1] // width
    names = names[rows[:, None], columns]
    differs = np.zeros(names.shape, bool)
    for axis in (0, 1):
        for step in (-1, 1):
            differs |= names != _shifted(names, step, axis)
    edge: NDArray[np.bool_] = differs & (names > 0)
    return edge


def _shifted(names: NDArray[Any], step: int, axis: int) -> NDArray[Any]:
    """`names` moved by one pixel; the border of the image borders on itself."""
    moved = np.roll(names, step, axis)
    edge: list[Any] = [slice(None), slice(None)]
    edge[axis] = 0 if step > 0 else -1
    moved[tuple(edge)] = names[tuple(edge)]
    return moved


def _measure(planes: list[NDArray[Any]]) -> tuple[float, ...]:
    values = np.concatenate([plane.ravel() for plane in planes]).astype(np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return (float("nan"),) * len(STATISTICS)
    low, median, high = np.percentile(values, (1, 50, 99))
    return float(values.mean()), float(median), float(values.std()), float(low), float(high)
