"""Helpers for a Snakefile and its scripts: wells in batches, planes of an input.

    from polystore_flows.snakemake import open_plane, wells

A job costs a third of a second to start, Python with NumPy and zarr some seconds, and a ``run:``
block three seconds more, because Snakemake starts itself again for it: use ``script:`` or
``shell:``, and let a job do several wells.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import api
from .errors import NotFoundError, UnsupportedError
from .hcs.layout import batches
from .registry import plate_store_for
from .transfer import plate_of
from .uri import BackendURI, parse_uri

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .hcs.plate import Image


def wells(plate: api.URI, group: int = 8) -> dict[str, tuple[str, ...]]:
    """The wells of a plate in batches of `group`, by names for wildcards and rules.

    ``{"B3_B10": ("B/3", …, "B/10"), …}``, in the plate's order; with ``group=1`` ``{"B3": …}``.
    From one listing, nothing is opened.

    Raises:
        NotFoundError: there is no plate.
    """
    uri = parse_uri(plate)
    found = plate_store_for(uri).survey(uri.text, "image")
    if found is None:
        paths = api.open_plate(uri).wells
    else:
        paths = tuple(path for path in found if path.count("/") == 1)
    return {_name(batch): batch for batch in batches(paths, group)}


def open_plane(
    source: api.URI,
    *,
    t: int = 0,
    c: int | str = 0,
    z: int = 0,
    field: int | str = 0,
    level: int = 0,
) -> NDArray[Any]:
    """One ``(y, x)`` plane of a job's input, whichever way the job got it; reads that plane only.

    Args:
        source: ``input[0]``: the URI of a well, a field or a label image, or the local path of
            one or of a TIFF.
        t, c, z: zero-based, or the channel's name; what the URI itself selects wins.
        field: of a well.
        level: of the pyramid, 0 is full size.

    Raises:
        NotFoundError: there is none.
        AddressError, IndexError: the image, or the file, has no such plane.
        UnsupportedError: `source` is a whole plate.
    """
    text = source.text if isinstance(source, BackendURI) else os.fspath(source)
    path = Path(text)
    if path.is_file():
        return _plane_of_file(path, t, c, z)
    if path.is_dir():
        image, planes = _local_image(path, field), None
    else:
        image, planes = _image(text, field)
    if planes is not None:
        t, z = (b if a is None else a for a, b in ((planes.t, t), (planes.z, z)))
        c, level = c if planes.c is None else planes.c, planes.level or level
    return image.plane(t, c, z, level=level)


def _name(batch: tuple[str, ...]) -> str:
    return "_".join(dict.fromkeys(well.replace("/", "") for well in (batch[0], batch[-1])))


def _image(text: str, field: int | str) -> tuple[Image, Any]:
    """The image that a URI names, and what it selects of it."""
    plate, address = plate_of(parse_uri(text))
    if address.well is None:
        raise UnsupportedError(
            f"{plate.uri} is a plate; name a well (B/3) or a field (B/3/0) of it"
        )
    image = plate[str(address.well)].image(field if address.field is None else address.field)
    return image if address.label is None else image.label(address.label), address.planes


def _local_image(path: Path, field: int | str) -> Image:
    """The image in a folder of this machine, a well's or its own."""
    from .backends.zarr.arrays import ZarrImage
    from .backends.zarr.nodes import read_attributes

    attributes = read_attributes(path, str(path))
    body = attributes.get("ome", attributes)
    if "plate" in body:
        raise UnsupportedError(f"{path} is a plate; name a well (B/3) or a field (B/3/0) of it")
    return ZarrImage(path / str(field) if "well" in body else path, str(path))


def _plane_of_file(path: Path, t: int, c: int | str, z: int) -> NDArray[Any]:
    from .backends.codecs import open_image

    if isinstance(c, str):
        raise NotFoundError(f"{path} names no channels; give the index of {c!r}")
    with path.open("rb") as file, open_image(file, path.name, where=str(path)) as image:
        return image.plane(t, c, z)
