"""Small plates and storage objects for the tests of the plugin."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from snakemake_storage_plugin_polystore import (
    StorageObject,
    StorageProvider,
    StorageProviderSettings,
)

import polystore_flows as ps
from polystore_flows.backends.zarr.nodes import make_group
from polystore_flows.hcs import ngff


def make_provider(folder: Path, **settings: Any) -> StorageProvider:
    """A storage provider with its local prefix below `folder`."""
    return StorageProvider(
        local_prefix=folder / "local_prefix",
        logger=logging.getLogger(__name__),
        settings=StorageProviderSettings(**settings),
    )


def make_object(folder: Path, query: str, mode: str = "link", **options: Any) -> StorageObject:
    """The storage object of `query`, with its local prefix below `folder`."""
    return make_provider(folder, mode=mode).object(query, **options)


def make_plate(path: Path, wells: Sequence[str] = ("B/3", "B/4"), fields: int = 1) -> str:
    """A zarr plate whose fields hold the number of their well; its URI."""
    uri = f"zarr://{path}"
    plate = ps.create_plate(uri, channels=["DAPI"])
    for number, well in enumerate(wells):
        image = np.full((1, 1, 1, 8, 8), number, "uint16")
        ps.open_plate(uri, "r+").write_well(well, dict.fromkeys(range(fields), image))
    assert plate is not None
    return uri


def make_hollow_plate(path: Path, wells: Sequence[str], layout: int = 1536) -> str:
    """A zarr plate whose wells have one field without pixels, made fast; its URI."""
    uri = f"zarr://{path}"
    plate = ps.create_plate(uri, layout=layout, channels=["DAPI"])
    document = ngff.PlateDocument(plate.layout, tuple(wells), plate.name, 1, "0.5")
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"] |= ngff.plate_attributes(document)
    for well in wells:
        make_group(path / well, ngff.well_attributes({"0": None}, "0.5"), "0.5")
        make_group(path / well / "0", {}, "0.5")
    (path / "zarr.json").write_text(json.dumps(content))
    return uri


def tree(path: Path) -> dict[str, bytes]:
    """Path -> content of all files below `path`."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
