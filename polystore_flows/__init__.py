"""Storage backends for high-content-screening plates, usable from Snakemake and Prefect."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .api import (
        create_plate,
        delete,
        display_channels,
        exists,
        list_files,
        load,
        load_batch,
        open_plate,
        provenance,
        save,
        save_batch,
        stat,
    )
    from .backends.zarr.store import zarr_store
    from .errors import PolystoreError
    from .hcs.image import Channel
    from .hcs.layout import Layout
    from .hcs.provenance import Input, Provenance
    from .hcs.spec import Acquisition
    from .hcs.zarr_config import ZarrChunkStrategy, ZarrCompressor, ZarrConfig
    from .registry import get_backend, storage_registry
    from .transfer import copy
    from .uri import parse_uri

_HOMES = {
    "api": "create_plate delete display_channels exists list_files load load_batch open_plate "
    "provenance save save_batch stat",
    "backends.zarr.store": "zarr_store",
    "errors": "PolystoreError",
    "hcs.image": "Channel",
    "hcs.layout": "Layout",
    "hcs.provenance": "Input Provenance",
    "hcs.spec": "Acquisition",
    "hcs.zarr_config": "ZarrChunkStrategy ZarrCompressor ZarrConfig",
    "registry": "get_backend storage_registry",
    "transfer": "copy",
    "uri": "parse_uri",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Acquisition",
    "Channel",
    "Input",
    "Layout",
    "PolystoreError",
    "Provenance",
    "ZarrChunkStrategy",
    "ZarrCompressor",
    "ZarrConfig",
    "__version__",
    "copy",
    "create_plate",
    "delete",
    "display_channels",
    "exists",
    "get_backend",
    "list_files",
    "load",
    "load_batch",
    "open_plate",
    "parse_uri",
    "provenance",
    "save",
    "save_batch",
    "stat",
    "storage_registry",
    "zarr_store",
]


def __getattr__(name: str) -> Any:  # PEP 562: a name is imported when it is first used
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
