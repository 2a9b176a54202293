"""What tests of several parts share: pixels, and an empty OME-Zarr plate."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

import polystore_flows as ps
from polystore_flows.hcs.plate import Plate

# Machines are shared: how long an example takes says nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# For the same reason: a flow without a server starts its own, and gives it 20 s.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
# What a shell runs in its background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def pixels() -> Callable[..., NDArray[Any]]:
    """Makes ``(t, c, z, y, x)`` noise; odd sizes, so that halving must round."""

    def make(
        shape: tuple[int, ...] = (2, 2, 3, 45, 67), dtype: str = "uint16", seed: int = 0
    ) -> NDArray[Any]:
        return np.random.default_rng(seed).integers(0, 4000, shape).astype(dtype)

    return make


@pytest.fixture(params=["0.4", "0.5"])
def plate(tmp_path: Path, request: pytest.FixtureRequest) -> Plate:
    """An empty OME-Zarr plate of each version with two channels."""
    return ps.create_plate(
        f"zarr://{tmp_path}/p.zarr",
        layout=96,
        channels=["DAPI", "GFP"],
        pixel_size=(2.0, 0.65, 0.65),
        ngff_version=request.param,
        levels=2,
    )
