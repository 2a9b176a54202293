"""``backends``, ``info`` and ``ls``: what there is; nothing is changed and no pixel is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import AddressError
from .output import AsJson, print_facts, print_rows
from .uris import PlateOrPart, parse

if TYPE_CHECKING:
    from ..hcs.address import PlaneSelection
    from ..hcs.plate import Image, Plate
    from ..uri import BackendURI


def backends(as_json: AsJson = False) -> None:
    """List the backends and whether what they need is installed."""
    from ..contracts import PlateStore
    from ..errors import MissingDependencyError
    from ..registry import storage_registry

    rows = []
    for name in storage_registry:
        try:
            backend = storage_registry[name]
            row = {"scheme": f"{name}:", "plates": isinstance(backend, PlateStore), "note": ""}
        except MissingDependencyError as error:
            row = {"scheme": f"{name}:", "plates": None, "note": str(error)}
        rows.append(row)
    print_rows(rows, as_json)


def info(uri: PlateOrPart, as_json: AsJson = False) -> None:
    """Show what is stored at a URI, without reading pixels."""
    print_facts(_facts(uri), as_json)


def list_(uri: PlateOrPart, as_json: AsJson = False) -> None:
    """List the wells of a plate, the fields of a well, or the files of a folder."""
    from .. import api
    from ..transfer import plate_at, plate_of

    parsed = parse(uri)
    plate = plate_at(parsed)
    if plate is not None:
        rows = [{"well": well, "fields": len(plate[well].fields)} for well in plate.wells]
    elif (kind := api.stat(parsed).kind) == "well":
        plate, address = plate_of(parsed)
        well = plate[str(address.well)]
        rows = [{"field": field, **_image_facts(well.image(field))} for field in well.fields]
    elif kind == "directory":
        from ..registry import backend_for

        rows = [{"name": name} for name in backend_for(parsed).list_dir(parsed.text)]
    else:
        rows = [_facts(uri)]
    print_rows(rows, as_json)


def _facts(text: str) -> dict[str, Any]:
    from .. import api
    from ..transfer import plate_at, plate_of

    uri = parse(text)
    plate = plate_at(uri)
    if plate is not None:
        return {"uri": str(uri), "kind": "plate", **_plate_facts(plate)}
    stat = api.stat(uri)
    facts: dict[str, Any] = {"uri": str(uri), "kind": stat.kind, "bytes": stat.size}
    facts["modified"] = _time(stat.mtime)
    if stat.kind in ("well", "field", "label"):
        plate, address = plate_of(uri)
        well = plate[str(address.well)]
        if address.field is None:
            facts["fields"] = list(well.fields)
        image = well.image(address.field or well.fields[0])
        image = image.label(address.label) if address.label else image
        facts |= _image_facts(image)
        facts["shape"] = _selected(uri, image, address.planes)
        facts["pixel_size_um"] = list(image.pixel_size)
        provenance = well.provenance(address.field or well.fields[0])
        if provenance is not None:
            facts["provenance"] = provenance.as_json()
    return facts


def _plate_facts(plate: Plate) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": plate.name,
        "layout": f"{len(plate.rows)} × {len(plate.columns)}",
        "wells": len(plate),
        "channels": list(plate.channels),
        "pixel_size_um": list(plate.pixel_size),
    }
    if plate.acquisitions:
        facts["acquisitions"] = [a.name or str(a.id) for a in plate.acquisitions]
    if plate.wells:
        first = plate[plate.wells[0]]
        facts["fields"] = len(first.fields)
        facts |= _image_facts(first.image(first.fields[0]))
    return facts


def _image_facts(image: Any) -> dict[str, Any]:
    return {
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "levels": image.levels,
        "labels": list(image.labels),
    }


def _selected(uri: BackendURI, image: Image, planes: PlaneSelection) -> list[int]:
    """The shape of the selected planes; raises where the image does not have them."""
    from ..hcs.image import check_index

    length = dict(zip("tczyx", image.shape, strict=True))
    try:
        c = None if planes.c is None else image.info.channel_index(planes.c)
        for axis, index in (("t", planes.t), ("c", c), ("z", planes.z)):
            if index is not None:
                check_index(axis, index, length.pop(axis))
        check_index("level", planes.level, image.levels)
    except AddressError as error:
        raise AddressError(f"{uri}: {error}") from error
    return [n // 2**planes.level if axis in "yx" else n for axis, n in length.items()]


def _time(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
