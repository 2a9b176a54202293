"""Plates as other programs write them, made with zarr-python."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from polystore_flows.hcs.layout import Layout

FULL = ("t", "c", "z", "y", "x")
_TYPES = {"t": "time", "c": "channel"}
SIZES = {"t": 2, "c": 3, "z": 2, "y": 40, "x": 51}


def pixels(axes: tuple[str, ...], dtype: str, seed: int = 0) -> NDArray[Any]:
    """Noise with these axes."""
    shape = tuple(SIZES[axis] for axis in axes)
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(dtype)


def write_plate(
    root: Path,
    wells: dict[str, dict[str, NDArray[Any]]],
    *,
    version: str = "0.4",
    layout: Layout | None = None,
    axes: tuple[str, ...] = FULL,
    levels: int = 1,
    unlisted: tuple[str, ...] = (),
    plate: dict[str, Any] | None = None,
    **array: Any,
) -> None:
    """Write a plate.

    Args:
        root: where.
        wells: path -> field -> pixels.
        version: of NGFF; 0.4 on zarr v2, 0.5 on v3.
        layout: rows and columns; by default 96 wells with padded columns.
        axes: of the arrays.
        levels: every level has each second pixel of the one before.
        unlisted: wells that the plate's JSON leaves out.
        plate: more keys of the plate's NGFF object.
        array: for ``create_array``.
    """
    new = version == "0.5"
    group = zarr.open_group(root, mode="w", zarr_format=3 if new else 2)
    layout = layout or Layout(tuple("ABCDEFGH"), tuple(f"{i:02d}" for i in range(1, 13)))
    body = {
        "name": "theirs",
        "version": version,
        "field_count": max(map(len, wells.values())),
        "rows": [{"name": name} for name in layout.rows],
        "columns": [{"name": name} for name in layout.columns],
        "wells": [
            {
                "path": path,
                "rowIndex": layout.rows.index(path.split("/")[0]),
                "columnIndex": layout.columns.index(path.split("/")[1]),
            }
            for path in wells
            if path not in unlisted
        ],
        **(plate or {}),
    }
    _say(group, version, plate=body)
    for path, fields in wells.items():
        well = group.create_group(path)
        _say(well, version, well={"version": version, "images": [{"path": f} for f in fields]})
        for name, data in fields.items():
            field = well.create_group(name)
            _say(field, version, multiscales=[_multiscale(axes, levels, version)], omero=_omero())
            for level in range(levels):
                part = data[..., :: 2**level, :: 2**level]
                defaults: dict[str, Any] = {
                    "chunks": (1,) * (part.ndim - 2) + part.shape[-2:],
                    "dimension_names": axes if new else None,
                }
                options = defaults | array
                stored = field.create_array(
                    str(level), shape=part.shape, dtype=part.dtype, **options
                )
                stored[...] = part


def as_bioformats2raw(root: Path, wells: dict[str, dict[str, NDArray[Any]]]) -> None:
    """A plate as ``bioformats2raw --hcs`` 0.9 lays it out: NGFF 0.4, big-endian, nested chunks."""
    write_plate(
        root,
        wells,
        layout=Layout.of(96),
        levels=2,
        plate={"acquisitions": [{"id": 0}]},
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    group = zarr.open_group(root, mode="r+")
    group.attrs["bioformats2raw.layout"] = 3
    ome = group.create_group("OME")
    ome.attrs["series"] = [f"{well}/{field}" for well, fields in wells.items() for field in fields]
    (root / "OME" / "METADATA.ome.xml").write_text("<OME/>")
    for well, fields in wells.items():
        images = [{"path": field, "acquisition": 0} for field in fields]
        group[well].attrs["well"] = {"version": "0.4", "images": images}


def consolidate(root: Path) -> None:
    """Keep a copy of all metadata at the root, as many tools do at their end."""
    with warnings.catch_warnings(action="ignore"):  # not in the specification of zarr v3
        zarr.consolidate_metadata(root)


def document(root: Path) -> dict[str, Any]:
    """The plate's attributes file, parsed."""
    path = root / "zarr.json" if (root / "zarr.json").exists() else root / ".zattrs"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _say(group: zarr.Group, version: str, **body: Any) -> None:
    group.attrs.update({"ome": {"version": version, **body}} if version == "0.5" else body)


def _multiscale(axes: tuple[str, ...], levels: int, version: str) -> dict[str, Any]:
    size = {"z": 2.0, "y": 0.5, "x": 0.5}
    listed = [
        {"name": axis, "type": _TYPES.get(axis, "space")}
        | ({"unit": "micrometer"} if axis in size else {})
        for axis in axes
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {
                    "type": "scale",
                    "scale": [size.get(a, 1.0) * (2**level if a in "yx" else 1) for a in axes],
                }
            ],
        }
        for level in range(levels)
    ]
    said = {"axes": listed, "datasets": datasets, "metadata": {"method": "theirs"}}
    return said | ({"version": version} if version == "0.4" else {})


def _omero() -> dict[str, Any]:
    window = {"min": 0.0, "max": 65535.0, "start": 0.0, "end": 4000.0}
    names = ("DAPI", "GFP", "Cy5")
    return {
        "channels": [
            {"label": name, "color": "#00FF00", "active": True, "window": window} for name in names
        ],
        "rdefs": {"model": "color"},
    }
