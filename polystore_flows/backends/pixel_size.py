"""The pixel size that a TIFF's OME, ImageJ, MetaXpress or resolution tags tell, in micrometres."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

_MICROMETRES = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "\\u00b5m": 1.0, "nm": 1e-3, "pm": 1e-6, "å": 1e-4, "mm": 1e3, "cm": 1e4, "m": 1e6,
    "inch": 25400.0,
}  # fmt: skip
_LARGEST = 25.0
"""A plain resolution tag that tells larger pixels is one of print (72 or 300 dots per inch)."""


def pixel_size_of(tif: Any) -> tuple[float, float, float] | None:
    """``(z, y, x)`` of an open ``tifffile.TiffFile``, z 1 where it is not told; None if unknown."""
    if tif.is_ome:
        found = _of_ome(tif.ome_metadata)
    elif tif.is_imagej:
        found = _of_imagej(tif)
    elif tif.is_metaseries:
        found = _of_metaseries(tif.metaseries_metadata or {})
    else:
        found = _of_resolution(tif)
    if found is None or not all(math.isfinite(s) and s > 0 for s in found):
        return None
    return found


def _of_ome(xml: str) -> tuple[float, float, float] | None:
    root = ElementTree.fromstring(xml)
    pixels = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return None

    def size(axis: str) -> float | None:
        value = pixels.get(f"PhysicalSize{axis}")
        unit = _MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").lower())
        return float(value) * unit if value and unit else None

    z, y, x = size("Z"), size("Y"), size("X")
    return (z or 1.0, y, x) if y and x else None


def _of_imagej(tif: Any) -> tuple[float, float, float] | None:
    meta = tif.imagej_metadata or {}
    unit = _MICROMETRES.get(str(meta.get("unit", "")).lower())
    y, x = _resolution(tif)
    if unit is None or not y or not x:
        return None
    return float(meta.get("spacing", 1.0)) * unit, unit / y, unit / x


def _of_metaseries(meta: dict[str, Any]) -> tuple[float, float, float] | None:
    info = meta.get("PlaneInfo", {})
    unit = _MICROMETRES.get(str(info.get("spatial-calibration-units", "")).lower())
    x, y = info.get("spatial-calibration-x"), info.get("spatial-calibration-y")
    if unit is None or not x or not y or info.get("spatial-calibration-state") is False:
        return None
    return 1.0, float(y) * unit, float(x) * unit


def _of_resolution(tif: Any) -> tuple[float, float, float] | None:
    unit = {2: 25400.0, 3: 10000.0}.get(tif.pages[0].tags.valueof(296, default=2))
    y, x = _resolution(tif)
    if unit is None or not y or not x or unit / min(y, x) > _LARGEST:
        return None
    return 1.0, unit / y, unit / x


def _resolution(tif: Any) -> tuple[float, float]:
    """Pixels per unit in y and x, 0 where there is no tag."""
    tags = tif.pages[0].tags
    (xn, xd), (yn, yd) = (tags.valueof(code, default=(0, 1)) for code in (282, 283))
    return (yn / yd if yd else 0.0), (xn / xd if xd else 0.0)
