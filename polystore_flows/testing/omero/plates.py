"""Plates put into the loopback server as an import would, without a client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import omero
from omero.model import LengthI
from omero.model.enums import UnitsLength
from omero.rtypes import rint, rstring, unwrap

from ...backends.omero.mounted import MULTISCALES
from ...hcs.address import parse_well
from ...hcs.layout import Layout, row_name
from .access import Access
from .graph import Saver
from .server import OmeroServer
from .store import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TYPES = {"i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32"}
_TYPES |= {"u4": "uint32", "f4": "float", "f8": "double"}


def add_plate(
    server: OmeroServer,
    wells: Mapping[str, Sequence[NDArray[Any]]],
    *,
    name: str = "plate",
    layout: int = 96,
    channels: Sequence[str] = ("DAPI",),
    pixel_size: tuple[float, float, float] = (1.0, 0.65, 0.65),
    user: str = "demo",
    group: int | None = None,
) -> int:
    """Put a plate onto the server; its number.

    Args:
        server: where.
        wells: ``B/3`` -> fields ``(t, c, z, y, x)``, perhaps none.
        name: of the plate.
        layout: number of wells of its grid.
        channels: names.
        pixel_size: micrometres ``(z, y, x)``.
        user, group: whose it is.
    """
    owner = server.users[user]
    access = Access(server.store, owner, server.groups, owner.groups[0] if group is None else group)
    grid = Layout.of(layout)
    plate = omero.model.PlateI()
    plate.setName(rstring(name))
    plate.setRows(rint(len(grid.rows)))
    plate.setColumns(rint(len(grid.columns)))
    plate.setRowNamingConvention(rstring("letter"))
    plate.setColumnNamingConvention(rstring("number"))
    arrays = []
    for path, fields in wells.items():
        place = grid.find(parse_well(path))
        assert place is not None, path
        well = omero.model.WellI()
        well.setRow(rint(place[0]))
        well.setColumn(rint(place[1]))
        for number, array in enumerate(fields):
            image = image_of(f"{name} {path} #{number + 1}", array, channels, pixel_size)
            sample = omero.model.WellSampleI()
            sample.setImage(image)
            well.addWellSample(sample)
            arrays.append((image.getPixels(0), array))
        plate.addWell(well)
    with server.store.transaction():
        Saver(access).save(plate)
    for pixels, array in arrays:
        file = server.store.path("Pixels", unwrap(pixels.getId()))
        file.write_bytes(array.astype(array.dtype.newbyteorder(">")).tobytes())
    return int(unwrap(plate.getId()))


def keep_as_zarr(server: OmeroServer, plate: int, path: str) -> None:
    """Say of a plate's images, as omero-zarr-pixel-buffer wants it, where they are as OME-Zarr.

    Args:
        server: where.
        plate: its number.
        path: of the OME-Zarr plate, as the server sees it.
    """
    store = server.store
    for well in store.members("Well", "plate", plate):
        name = f"{row_name(well.fields['row'])}/{well.fields['column'] + 1}"
        for number, sample in enumerate(store.members("WellSample", "well", well.id)):
            image = store.find(*sample.fields["image"])
            assert image is not None
            told = {"entityId": 3, "entityType": MULTISCALES, "lsid": f"{path}/{name}/{number}"}
            row = Row("ExternalInfo", 0, told, image.owner, image.group)
            image.fields["externalInfo"] = store.insert(row).ref


def image_of(
    name: str,
    array: NDArray[Any],
    channels: Sequence[str],
    pixel_size: tuple[float, float, float],
) -> Any:
    """An unsaved image with pixels and channels for an array ``(t, c, z, y, x)``."""
    image = omero.model.ImageI()
    image.setName(rstring(name))
    pixels = omero.model.PixelsI()
    for axis, size in zip("TCZYX", array.shape, strict=True):
        setattr(pixels, f"_size{axis}", rint(size))
    for axis, length in zip("ZYX", pixel_size, strict=True):
        setattr(pixels, f"_physicalSize{axis}", LengthI(length, UnitsLength.MICROMETER))
    pixels.setSha1(rstring("imported"))
    kind = omero.model.PixelsTypeI()
    kind.setValue(rstring(_TYPES[f"{array.dtype.kind}{array.dtype.itemsize}"]))
    pixels.setPixelsType(kind)
    order = omero.model.DimensionOrderI()
    order.setValue(rstring("XYZCT"))
    pixels.setDimensionOrder(order)
    for channel_name in channels[: array.shape[1]]:
        channel = omero.model.ChannelI()
        logical = omero.model.LogicalChannelI()
        logical.setName(rstring(channel_name))
        channel.setLogicalChannel(logical)
        pixels.addChannel(channel)
    image.addPixels(pixels)
    return image
