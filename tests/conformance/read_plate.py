"""Opens an OME-Zarr plate with other people's readers; run by an interpreter that has them.

``python read_plate.py PLATE READER…`` prints JSON: reader -> what it saw, or its error.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any


def ome_zarr_models(plate: str) -> dict[str, Any]:
    import ome_zarr_models
    import zarr

    hcs = ome_zarr_models.open_ome_zarr(zarr.open_group(plate, mode="r"))
    well = next(iter(hcs.well_groups))
    return {"kind": type(hcs).__name__, "wells": hcs.n_wells, "well": type(well).__name__}


def ome_zarr(plate: str) -> dict[str, Any]:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    nodes = list(Reader(parse_url(plate, mode="r"))())
    return {"specs": sorted({type(spec).__name__ for node in nodes for spec in node.specs})}


def ngio(plate: str) -> dict[str, Any]:
    import ngio

    opened = ngio.open_ome_zarr_plate(plate, mode="r")
    wells = opened.wells_paths()
    images = opened.get_images()
    first = images[min(images)]
    size = first.get_image().pixel_size
    return {
        "rows": list(opened.rows),
        "columns": list(opened.columns),
        "wells": list(wells),
        "fields": sorted(images),
        "channels": list(first.channel_labels),
        "pixel_size": [size.z, size.y, size.x],
        "labels": list(first.list_labels()),
        "label_sum": int(first.get_label(first.list_labels()[0]).get_as_numpy().sum()),
        "sum": int(first.get_image().get_as_numpy().sum()),
    }


def iohub(plate: str) -> dict[str, Any]:
    from iohub.ngff import open_ome_zarr

    opened = open_ome_zarr(plate, mode="r")
    positions = dict(opened.positions())
    first = positions[min(positions)]
    return {
        "fields": sorted(positions),
        "channels": list(opened.channel_names),
        "pixel_size": list(first.scale[-3:]),
        "sum": int(first["0"][:].sum()),
    }


def yaozarrs(plate: str) -> dict[str, Any]:
    import yaozarrs

    yaozarrs.validate_zarr_store(plate)
    return {"valid": True}


def ngff_zarr(plate: str) -> dict[str, Any]:
    import zarr
    from ngff_zarr import from_hcs_zarr
    from ngff_zarr.validate import validate

    attributes = zarr.open_group(plate, mode="r").attrs.asdict()
    version = "0.5" if "ome" in attributes else "0.4"
    validate(attributes, version, "plate", strict=True)
    return {"kind": type(from_hcs_zarr(plate, validate=True)).__name__}


READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    reader.__name__: reader
    for reader in (ome_zarr_models, ome_zarr, ngio, iohub, yaozarrs, ngff_zarr)
}


def main(plate: str, *names: str) -> None:
    """Print what each of `names` sees in `plate`."""
    logging.disable(logging.WARNING)
    seen = {}
    for name in names:
        try:
            seen[name] = READERS[name](plate)
        except Exception as error:  # noqa: BLE001  # the test shows it
            seen[name] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
