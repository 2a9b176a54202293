"""What a new plate is made from: its grid, channels and pixel size."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import MismatchError
from .image import Channel, named_channels
from .layout import Layout
from .zarr_config import Version, ZarrConfig, default_config


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


def plate_spec(
    layout: int | Layout = 96,
    channels: tuple[str, ...] | list[str] | None = None,
    pixel_size: tuple[float, float, float] | None = None,
    name: str = "",
    ngff_version: Version | None = None,
    levels: int | None = None,
    config: ZarrConfig | None = None,
) -> PlateSpec:
    """A checked `PlateSpec`; arguments as in ``polystore_flows.create_plate``.

    Raises:
        MismatchError: a pixel size that is not three positive numbers, a name twice or an
            unknown version.
    """
    names = tuple(channels or ())
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
    return PlateSpec(grid, named_channels(names), size, name, config, levels)


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
    ):
        if has != asked:
            raise MismatchError(
                f"{uri} exists with {what} {has}, not {asked}; write to another plate or delete "
                "it first"
            )


def _names(spec: PlateSpec) -> tuple[str, ...]:
    return tuple(channel.name for channel in spec.channels)
