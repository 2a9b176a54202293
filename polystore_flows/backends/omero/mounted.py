"""Images that the server keeps as OME-Zarr in a folder that is mounted here too.

Their path stands in the image's ``externalInfo``, where `omero-zarr-pixel-buffer
<https://github.com/glencoesoftware/omero-zarr-pixel-buffer>`_ reads it. Pixels then come from the
folder, and only what they are from the server.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ...errors import PolystoreError
from ...hcs.address import parse_address, split_plate_path
from ...hcs.plate import Image
from ...registry import plate_store_for
from ...settings import get_settings
from .connection import Connection

if TYPE_CHECKING:
    from ...hcs.image import ImageInfo

MULTISCALES = "com.glencoesoftware.ngff:multiscales"
"""``entityType`` of an ``externalInfo`` whose ``lsid`` is the path of an OME-Zarr image."""

_PATHS = """
    select i.id, e.lsid from Image as i join i.details.externalInfo as e
      join i.wellSamples as ws join ws.well as w
     where w.plate.id = :id and e.entityType = :type
"""


def read_paths(connection: Connection, plate_id: int, where: str) -> dict[int, str]:
    """Number of an image -> where the server keeps it as OME-Zarr; one call."""
    return dict(connection.rows(_PATHS, where, id=plate_id, type=MULTISCALES))


def mounted_image(path: str, info: ImageInfo) -> Image | None:
    """The image at the server's `path` if its plate is mounted here, and of the same size."""
    local = _local(path)
    if local is None:
        return None
    root, inner = split_plate_path(local)
    try:
        address = parse_address(inner)
        uri = f"zarr://{root}"
        image = plate_store_for(uri).open_plate(uri)[str(address.well)].image(str(address.field))
    except PolystoreError:
        return None  # not there, or no plate: the server has it anyway
    return image if (image.shape, image.dtype) == (info.shape, info.dtype) else None


def _local(path: str) -> str | None:
    for theirs, ours in get_settings().omero_mounts.items():
        if PurePosixPath(path).is_relative_to(theirs):
            return str(ours / PurePosixPath(path).relative_to(theirs))
    return None
