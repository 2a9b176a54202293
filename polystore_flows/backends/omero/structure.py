"""What an OMERO plate holds, read by a constant number of queries and kept for a while.

Fields of a plate made elsewhere are named by their order in the well, ``0`` first. Plates that
we made say so in their ``externalIdentifier``; their images are named ``… [B/3/0]``, for fields
may be written in any order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ...errors import NotFoundError
from ...hcs.address import parse_well
from ...hcs.image import Channel, named_channels
from ...hcs.layout import Layout, row_name
from .connection import Connection

OURS = "polystore-flows"
"""``externalIdentifier`` of plates that we made, and namespace of our annotations."""

MICROMETERS = {
    "ANGSTROM": 1e-4, "NANOMETER": 1e-3, "MICROMETER": 1.0, "MILLIMETER": 1e3,
    "CENTIMETER": 1e4, "METER": 1e6, "INCH": 25400.0,
}  # fmt: skip
"""OMERO's units of length that stand for one, in micrometres; others count as 1."""

_WELLS = """
    select pl.name, pl.rows, pl.columns, pl.rowNamingConvention, pl.columnNamingConvention,
           pl.externalIdentifier, pl.details.group.id, plate_event.time,
           w.id, w.row, w.column, ws.id, index(ws), i.id, i.name, event.time,
           p.id, p.sizeT, p.sizeC, p.sizeZ, p.sizeY, p.sizeX, kind.value,
           p.physicalSizeZ.value, p.physicalSizeY.value, p.physicalSizeX.value
      from Plate as pl
      join pl.details.creationEvent as plate_event
      left outer join pl.wells as w
      left outer join w.wellSamples as ws
      left outer join ws.image as i
      left outer join i.details.creationEvent as event
      left outer join i.pixels as p
      left outer join p.pixelsType as kind
     where pl.id = :id
     order by w.row, w.column, index(ws), p.id
"""
_PIXELS = """
    select p from Pixels as p left outer join fetch p.channels as c
      left outer join fetch c.logicalChannel as lc where p.id = :id
"""
_CHANNELS = """
    select p.id, lc.name, lc.emissionWave.value, index(c) from Pixels as p
      join p.channels as c join c.logicalChannel as lc join p.image as i
      join i.wellSamples as ws join ws.well as w
     where w.plate.id = :id order by p.id, index(c)
"""
_OUR_NAME = re.compile(r".* \[([^\[\]/]+/[^\[\]/]+)/([A-Za-z0-9]+)\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ImageStructure:
    """One field."""

    image_id: int
    sample_id: int
    """Of the WellSample."""
    pixels_id: int
    name: str
    shape: tuple[int, int, int, int, int]
    """``(t, c, z, y, x)``."""
    pixels_type: str
    """As OMERO names it: ``uint16``, ``float`` …"""
    physical: tuple[float | None, float | None, float | None]
    """Pixel size ``(z, y, x)`` in the image's own units."""
    created: float
    """Seconds since 1970."""

    @property
    def size_t(self) -> int:
        """Number of time points."""
        return self.shape[0]

    @property
    def size_c(self) -> int:
        """Number of channels."""
        return self.shape[1]

    @property
    def size_z(self) -> int:
        """Number of z planes."""
        return self.shape[2]

    @property
    def size_y(self) -> int:
        """Rows of a plane."""
        return self.shape[3]

    @property
    def size_x(self) -> int:
        """Columns of a plane."""
        return self.shape[4]


@dataclass(frozen=True, slots=True)
class WellStructure:
    """One well, perhaps without images."""

    well_id: int
    row: int
    column: int
    images: dict[str, ImageStructure] = field(default_factory=dict)
    """Field -> image, in their order."""


@dataclass(frozen=True, slots=True)
class PlateStructure:
    """All of a plate without its pixels."""

    plate_id: int
    name: str
    group_id: int
    ours: bool
    """Whether we made it."""
    layout: Layout
    created: float
    wells: dict[str, WellStructure]
    """``B/3`` -> well, by row, then column; those without images too."""

    @property
    def filled(self) -> tuple[str, ...]:
        """Paths of the wells that hold images."""
        return tuple(path for path, well in self.wells.items() if well.images)

    @property
    def first(self) -> ImageStructure | None:
        """The first field of the first well that holds one."""
        for path in self.filled:
            return next(iter(self.wells[path].images.values()))
        return None


@dataclass(frozen=True, slots=True)
class PixelsInfo:
    """Channels and pixel size of an image."""

    channels: tuple[Channel, ...]
    pixel_size: tuple[float, float, float]
    """Micrometres ``(z, y, x)``."""


def read_structure(connection: Connection, plate_id: int, where: str) -> PlateStructure:
    """The plate's wells and images; one call, whatever their number.

    Raises:
        NotFoundError: there is no such plate, or this user may not see it.
    """
    rows = connection.rows(_WELLS, where, id=plate_id)
    if not rows:
        raise NotFoundError(
            f"{where} does not exist, or this user may not read it; check the number and the group"
        )
    name, n_rows, n_columns, row_rule, column_rule, mark, group, created = rows[0][:8]
    ours = mark == OURS
    found: dict[tuple[int, int], WellStructure] = {}
    for row in rows:
        well_id, r, c = row[8:11]
        if well_id is None or r is None or c is None:
            continue
        well = found.setdefault((r, c), WellStructure(well_id, r, c))
        if row[11] is not None and row[16] is not None:
            _add_image(well, row[11:], ours=ours)
    layout = _layout(n_rows, n_columns, row_rule, column_rule, found)
    wells = {
        f"{layout.rows[r]}/{layout.columns[c]}": _in_order(found[r, c]) for r, c in sorted(found)
    }
    return PlateStructure(plate_id, name or "", group, ours, layout, _seconds(created), wells)


def read_pixels(connection: Connection, pixels_id: int, where: str) -> PixelsInfo:
    """Channels with their colours, and the pixel size, of one image; one call."""
    found = connection.objects(_PIXELS, where, id=pixels_id)
    if not found:
        raise NotFoundError(f"{where} does not exist any more; open the plate again")
    pixels = found[0]
    size = (_micrometers(getattr(pixels, f"physicalSize{axis}")) for axis in "ZYX")
    z, y, x = (value or 1.0 for value in size)
    channels = [_channel(c, i) for i, c in enumerate(pixels.copyChannels())]
    return PixelsInfo(_distinct(channels), (z, y, x))


def read_channel_names(
    connection: Connection, plate_id: int, where: str
) -> dict[int, tuple[str, ...]]:
    """Names of the channels of all images of a plate, by number of the pixels; one call."""
    found: dict[int, list[Channel]] = {}
    for pixels, name, wave, index in connection.rows(_CHANNELS, where, id=plate_id):
        found.setdefault(pixels, []).append(Channel(_label(name, wave, index)))
    return {key: tuple(c.name for c in _distinct(channels)) for key, channels in found.items()}


def image_name(plate: str, well: str, field_name: str) -> str:
    """How the image of a field is named in a plate that we make."""
    return f"{plate} [{well}/{field_name}]"


def _add_image(well: WellStructure, row: tuple[Any, ...], *, ours: bool) -> None:
    sample, _, image, name, time, pixels, *shape = row[:11]
    kind, *physical = row[11:]
    match = _OUR_NAME.fullmatch(name or "") if ours else None
    place = match[2] if match else str(len(well.images))
    if any(known.sample_id == sample for known in well.images.values()):
        return  # an image has one set of pixels that counts, the first
    well.images[place] = ImageStructure(
        image,
        sample,
        pixels,
        name or "",
        tuple(shape),
        kind,
        tuple(physical),
        _seconds(time),
    )


def _in_order(well: WellStructure) -> WellStructure:
    def key(place: str) -> tuple[bool, int, str]:
        return (not place.isdecimal(), int(place) if place.isdecimal() else 0, place)

    images = {place: well.images[place] for place in sorted(well.images, key=key)}
    return WellStructure(well.well_id, well.row, well.column, images)


def _layout(
    rows: int | None,
    columns: int | None,
    row_rule: str | None,
    column_rule: str | None,
    wells: Iterable[tuple[int, int]],
) -> Layout:
    """The plate's grid; the smallest that holds all `wells` where the server does not say."""
    places = list(wells)
    least_rows = max((r + 1 for r, _ in places), default=1)
    least_columns = max((c + 1 for _, c in places), default=1)
    if not rows or not columns:
        around = Layout.around(
            parse_well(f"{row_name(r)}/{c + 1}") for r, c in (places or [(0, 0)])
        )
        rows, columns = len(around.rows), len(around.columns)
    return Layout(
        tuple(_names(max(rows, least_rows), row_rule or "letter")),
        tuple(_names(max(columns, least_columns), column_rule or "number")),
    )


def _names(count: int, rule: str) -> list[str]:
    return [row_name(i) if rule == "letter" else str(i + 1) for i in range(count)]


def _channel(channel: Any, index: int) -> Channel:
    logical = channel.getLogicalChannel()
    name = logical.getName().getValue() if logical and logical.getName() else None
    wave = logical.getEmissionWave() if logical else None
    label = _label(name, wave.getValue() if wave else None, index)
    parts = [getattr(channel, color) for color in ("red", "green", "blue")]
    if any(part is None for part in parts):
        return named_channels([label])[0]
    return Channel(label, "".join(f"{part.getValue() & 255:02X}" for part in parts))


def _label(name: str | None, wave: float | None, index: int) -> str:
    """A channel's name as OMERO's clients show it: its name, emission wave or number."""
    if name and name.strip():
        return name.strip()
    return str(index) if wave is None else f"{wave:g}"


def _distinct(channels: list[Channel]) -> tuple[Channel, ...]:
    """Channels with a number behind names that come twice, so that each can be selected."""
    names = [channel.name for channel in channels]
    return tuple(
        Channel(c.name if names.count(c.name) == 1 else f"{c.name} {i}", c.color)
        for i, c in enumerate(channels)
    )


def _micrometers(length: Any) -> float | None:
    if length is None:
        return None
    return float(length.getValue()) * MICROMETERS.get(str(length.getUnit()), 1.0)


def _seconds(milliseconds: int | None) -> float:
    return (milliseconds or 0) / 1000
