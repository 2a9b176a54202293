"""Opens OME-Zarr plates with other people's readers; run by an interpreter that has them.

``python read_plate.py READER,READER… PLATE…`` prints JSON: plate -> reader -> what it saw, or its
error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def digest(array: Any) -> str:
    """Of the pixels in C order, little-endian; axes of length 1 do not count."""
    import numpy as np

    pixels = np.ascontiguousarray(array)
    return hashlib.sha256(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()).hexdigest()[:16]


def _arrays(plate: str) -> Iterator[Path]:
    for path in sorted(Path(plate).rglob("*")):
        v3 = path.name == "zarr.json" and json.loads(path.read_text())["node_type"] == "array"
        if v3 or path.name == ".zarray":
            yield path.parent


def zarr_python(plate: str) -> dict[str, Any]:
    import zarr

    return {
        str(path.relative_to(plate)): digest(zarr.open_array(path, mode="r")[...])
        for path in _arrays(plate)
    }


def tensorstore(plate: str) -> dict[str, Any]:
    import tensorstore as ts

    found = {}
    for path in _arrays(plate):
        driver = "zarr3" if (path / "zarr.json").exists() else "zarr"
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}}
        stored = ts.open(spec, read=True, open=True).result()
        found[str(path.relative_to(plate))] = digest(stored.read().result())
    return found


def ome_zarr_models(plate: str) -> dict[str, Any]:
    import ome_zarr_models
    import zarr

    hcs = ome_zarr_models.open_ome_zarr(zarr.open_group(plate, mode="r"))
    well = next(iter(hcs.well_groups))
    attributes = getattr(hcs, "ome_attributes", hcs.attributes)
    times = attributes.plate.acquisitions or []
    return {
        "kind": type(hcs).__name__,
        "wells": hcs.n_wells,
        "well": type(well).__name__,
        "acquisitions": [[time.id, time.name] for time in times],
    }


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
        "acquisitions": [list(opened.acquisition_ids), list(opened.acquisitions_names)],
        "of the second": sorted(opened.images_paths(acquisition=1)),
        "tables": list(opened.list_tables()),
        "counts": opened.get_table("counts").dataframe.to_dict("records"),
        "conditions": opened.get_condition_table("conditions").dataframe["drug"].tolist(),
        "image tables": list(first.list_tables()),
        "nuclei": first.get_table("nuclei").dataframe.to_dict("records"),
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
        "pixels": {name: digest(position["0"][:]) for name, position in positions.items()},
    }


def napari(plate: str) -> dict[str, Any]:
    import numpy as np
    from napari_ome_zarr import napari_get_reader

    with contextlib.redirect_stdout(sys.stderr):
        layers = napari_get_reader(plate)()
        field = napari_get_reader(f"{plate}/A/12/0")()
    return {
        "plate": [[kind, options["name"], list(data[0].shape)] for data, options, kind in layers],
        "scale": list(field[0][1]["scale"]),
        "colours": [options["colormap"].name for _, options, kind in field if kind == "image"],
        "limits": [options["contrast_limits"] for _, options, kind in field if kind == "image"],
        "sums": [int(np.asarray(data[0]).sum()) for data, _, _ in field],
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
    for reader in (
        zarr_python,
        tensorstore,
        ome_zarr_models,
        ome_zarr,
        ngio,
        iohub,
        yaozarrs,
        ngff_zarr,
        napari,
    )
}


def main(names: str, *plates: str) -> None:
    """Print what each of the readers `names` sees in each of `plates`."""
    logging.disable(logging.WARNING)
    seen: dict[str, dict[str, Any]] = {plate: {} for plate in plates}
    for plate in plates:
        for name in names.split(","):
            try:
                seen[plate][name] = READERS[name](plate)
            except Exception as error:  # noqa: BLE001  # the test shows it
                seen[plate][name] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
