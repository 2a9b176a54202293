"""A plate of drawn cells for the loopback server, to try OMERO flows on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .plates import add_plate
from .server import OmeroServer

if TYPE_CHECKING:
    from numpy.typing import NDArray

WELLS = ("B/2", "B/3", "B/4", "C/2", "C/3", "C/4")
CHANNELS = ("DAPI", "GFP")
SIDE = 256


def add_demo_plate(server: OmeroServer) -> int:
    """Put the plate ``demo`` onto the server: 6 wells, 2 fields, 2 channels; its number."""
    for row in server.store.all("Plate"):
        if row.fields["name"] == "demo":
            return row.id
    wells = {
        well: [_field(2 * number + field, 4 + 3 * number) for field in range(2)]
        for number, well in enumerate(WELLS)
    }
    return add_plate(server, wells, name="demo", channels=CHANNELS)


def _field(seed: int, cells: int) -> NDArray[Any]:
    """``(1, 2, 1, y, x)`` uint16: nuclei in one channel, the cells around them in the other."""
    import numpy as np

    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    planes = np.zeros((2, SIDE, SIDE))
    for centre_y, centre_x in random.uniform(16, SIDE - 16, (cells, 2)):
        squared = (y - centre_y) ** 2 + (x - centre_x) ** 2
        for plane, width in zip(planes, (7.0, 14.0), strict=True):
            plane += 3000 * np.exp(-squared / (2 * width**2))
    noisy = random.poisson(planes + 100)
    return noisy.clip(0, 65535).astype(np.uint16)[None, :, None]
