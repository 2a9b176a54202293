"""Small plates and storage objects for the tests of the plugin."""

from __future__ import annotations

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


def make_object(folder: Path, query: str, mode: str = "link", **options: Any) -> StorageObject:
    """The storage object of `query`, with its local prefix below `folder`."""
    provider = StorageProvider(
        local_prefix=folder / "local_prefix",
        logger=logging.getLogger(__name__),
        settings=StorageProviderSettings(mode=mode),
    )
    return provider.object(query, **options)


def make_plate(path: Path, wells: Sequence[str] = ("B/3", "B/4"), fields: int = 1) -> str:
    """A zarr plate whose fields hold the number of their well; its URI."""
    uri = f"zarr://{path}"
    plate = ps.create_plate(uri, channels=["DAPI"])
    for number, well in enumerate(wells):
        image = np.full((1, 1, 1, 8, 8), number, "uint16")
        ps.open_plate(uri, "r+").write_well(well, dict.fromkeys(range(fields), image))
    assert plate is not None
    return uri


def tree(path: Path) -> dict[str, bytes]:
    """Path -> content of all files below `path`."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
