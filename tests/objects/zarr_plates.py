"""Small OME-Zarr plates on a store, and what is stored of them."""

from __future__ import annotations

import numpy as np

import polystore_flows as ps
from polystore_flows.backends.zarr.store_path import StorePath
from polystore_flows.uri import parse_uri

SHAPE = (2, 2, 3, 45, 67)


def noise(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(1, 4000, shape).astype("uint16")


def new(uri, **options):
    common = {"layout": 96, "channels": ["DAPI", "GFP"], "pixel_size": (2, 0.65, 0.65), "levels": 2}
    return ps.create_plate(uri, **(common | options))


def check(plate, **options):
    return ps.get_backend("zarr").check_plate(plate.uri, **options)


def keys(plate):
    """All that is stored of a plate."""
    return StorePath(parse_uri(plate.uri.removeprefix("zarr+"))).files()
