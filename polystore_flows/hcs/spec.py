"""What a new plate is made from: its grid, channels and pixel size."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import MismatchError
from .image import Channel, named_channels
from .layout import Layout
from .zarr_config import Version, ZarrConfig, default_config


@dataclass(frozen=True, slots=True)
class Acquisition:
    """One time at which a plate was imaged."""

    id: int
    """0 or more; images refer to it."""
    name: str = ""
    """Shown to people; by default its id."""


@dataclass(frozen=True, slots=True)
class PlateSpec:
    """What a new plate is made from."""

    layout: Layout
    """The physical grid."""
    channels: tuple[Channel, ...] = ()
    """Empty: named ``0``, ``1`` … after the first image."""
    pixel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Micrometres ``(z, y, x)``."""
    name: str = ""
    """Shown to people; by default the folder's name."""
    config: ZarrConfig | None = None
    """How OME-Zarr arrays are written; None as the settings say. Other formats ignore it."""
    levels: int | None = None
    """Pyramid levels; None chooses by size."""
    acquisitions: tuple[Acquisition, ...] = ()
    """The times at which it is imaged; with more than one, each field names its own."""


def plate_spec(
    layout: int | Layout = 96,
    channels: Sequence[str | Channel] | None = None,
    pixel_size: tuple[float, float, float] | None = None,
    name: str = "",
    ngff_version: Version | None = None,
    levels: int | None = None,
    config: ZarrConfig | None = None,
    acquisitions: Sequence[str | Acquisition] = (),
) -> PlateSpec:
    """A checked `PlateSpec`; arguments as in ``polystore_flows.create_plate``.

    Raises:
        MismatchError: a pixel size that is not three positive numbers, a name twice or an
            unknown version.
    """
    made = named_channels(channels or ())
    names = [channel.name for channel in made]
    size = tuple(float(s) for s in pixel_size or (1.0, 1.0, 1.0))
    if len(size) != 3 or not all(0 < s < float("inf") for s in size):
        raise MismatchError(
            f"a pixel size is three positive micrometres (z, y, x), not {pixel_size}"
        )
    if len(set(names)) != len(names):
        raise MismatchError(f"channels need different names, not {', '.join(names)}")
    if ngff_version is not None:
        config = replace(config or default_config(), ngff_version=ngff_version)
    if levels is not None and levels < 1:
        raise MismatchError(f"an image has at least one pyramid level, not {levels}")
    grid = layout if isinstance(layout, Layout) else Layout.of(layout)
    times = _acquisitions(acquisitions)
    return PlateSpec(grid, tuple(_checked(c) for c in made), size, name, config, levels, times)


def require_like(uri: str, existing: PlateSpec, wanted: PlateSpec) -> None:
    """Refuse a plate that exists and is not like the one that was to be made.

    Raises:
        MismatchError: it has another grid, other channels or another pixel size. A wanted spec
            without channels fits any.
    """
    grids = existing.layout, wanted.layout
    for what, has, asked in (
        ("wells", *(grid.size for grid in grids)),
        ("rows", *(grid.rows for grid in grids)),
        ("columns", *(grid.columns for grid in grids)),
        ("channels", _names(existing), _names(wanted) or _names(existing)),
        ("pixel size", existing.pixel_size, wanted.pixel_size),
        ("acquisitions", existing.acquisitions, wanted.acquisitions or existing.acquisitions),
    ):
        if has != asked:
            raise MismatchError(
                f"{uri} exists with {what} {has}, not {asked}; write to another plate or delete "
                "it first"
            )


def find_acquisition(
    known: Sequence[Acquisition], wanted: int | str | None, where: str
) -> int | None:
    """The id of the acquisition that is `wanted`, by id or name; None where there is none.

    Raises:
        MismatchError: there is no such one, or more than one and none was named.
    """
    if wanted is None and len(known) < 2:
        return known[0].id if known else None
    for one in known:
        if wanted in (one.id, one.name) and type(wanted) in (int, str):
            return one.id
    listed = ", ".join(f"{one.id} ({one.name})" if one.name else str(one.id) for one in known)
    asked = "give acquisition=" if wanted is None else f"acquisition {wanted!r} is not among them"
    raise MismatchError(f"{where}: the plate's acquisitions are {listed or 'none'}; {asked}")


def _acquisitions(given: Sequence[str | Acquisition]) -> tuple[Acquisition, ...]:
    made = tuple(
        a if isinstance(a, Acquisition) else Acquisition(i, a) for i, a in enumerate(given)
    )
    ids, names = [a.id for a in made], [a.name for a in made]
    if len(set(ids)) != len(ids) or len(set(names)) != len(names):
        raise MismatchError("acquisitions need different ids and names")
    if any(type(i) is not int or i < 0 for i in ids):
        raise MismatchError(f"an acquisition's id is a number from 0, not {ids}")
    return made


def _checked(channel: Channel) -> Channel:
    if not re.fullmatch(r"[0-9A-Fa-f]{6}", channel.color):
        raise MismatchError(
            f"the colour of channel {channel.name} is six hex digits without '#', not "
            f"{channel.color!r}"
        )
    if channel.window is not None:
        start, end = channel.window
        if not -math.inf < start < end < math.inf:
            raise MismatchError(f"the window of channel {channel.name} is {start} to {end}")
    return channel


def _names(spec: PlateSpec) -> tuple[str, ...]:
    return tuple(channel.name for channel in spec.channels)
