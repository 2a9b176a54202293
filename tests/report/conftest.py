"""Small plates that the page is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_plates import picture, square

import polystore_flows as ps


@pytest.fixture(scope="session")
def make_plate() -> Callable[..., Any]:
    """A function that makes a plate with images, labels and a table."""

    def make(
        folder: Path,
        wells: tuple[str, ...] = ("A/1", "A/2", "B/1"),
        *,
        layout: int = 6,
        channels: tuple[str, ...] = ("DAPI", "GFP"),
        name: str = "a plate",
        tables: dict[str, Any] | None = None,
        fields: int = 1,
    ) -> ps.hcs.plate.Plate:
        plate = ps.create_plate(f"zarr:{folder}/p.zarr", layout, list(channels), name=name)
        for number, well in enumerate(wells):
            images = {field: picture(number, len(channels)) for field in range(fields)}
            labels = {field: {"nuclei": square()} for field in range(fields)}
            plate.write_well(well, images, labels)
        counts = [{"well": well, "nuclei": 10 + n} for n, well in enumerate(wells)]
        for path, rows in ({"tables/counts.csv": counts} if tables is None else tables).items():
            plate.write_table(path, rows)
        return plate

    return make
