"""Plates for the tests of flows."""

from __future__ import annotations

import numpy as np

import polystore_flows as ps
from polystore_flows.hcs.plate import Plate

SHAPE = (1, 2, 1, 6, 8)


def make_raw(uri: str, rows: str = "BC", columns: int = 4, fields: int = 1) -> Plate:
    """A plate whose wells hold the number of their column."""
    plate = ps.create_plate(uri, channels=["DAPI", "GFP"], pixel_size=(1, 0.5, 0.5))
    for row in rows:
        for column in range(1, columns + 1):
            image = np.full(SHAPE, column, "uint16")
            plate.write_well(f"{row}/{column}", dict.fromkeys(range(fields), image))
    return ps.open_plate(uri, "r+")
