"""Prefect for plates: blocks, tasks, flows and deployments over the registry of backends."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polystore_flows.flows.assets import announce_plate, asset_key
    from polystore_flows.flows.blocks import PlateRef, PolystoreCredentials, PolystoreStore
    from polystore_flows.flows.cache import ContentPolicy
    from polystore_flows.flows.finalize import finalize_plate
    from polystore_flows.flows.locks import FlowLocks
    from polystore_flows.flows.near_data import run_near_data
    from polystore_flows.flows.plates import check_plate, copy_plate, plate_flow, process_plate
    from polystore_flows.flows.references import Reference, ReferenceSerializer
    from polystore_flows.flows.tasks import plan_chunks, process_chunk

_HOMES = {
    "assets": "announce_plate asset_key",
    "blocks": "PlateRef PolystoreCredentials PolystoreStore",
    "cache": "ContentPolicy",
    "finalize": "finalize_plate",
    "locks": "FlowLocks",
    "near_data": "run_near_data",
    "plates": "check_plate copy_plate plate_flow process_plate",
    "references": "Reference ReferenceSerializer",
    "tasks": "plan_chunks process_chunk",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "ContentPolicy",
    "FlowLocks",
    "PlateRef",
    "PolystoreCredentials",
    "PolystoreStore",
    "Reference",
    "ReferenceSerializer",
    "announce_plate",
    "asset_key",
    "check_plate",
    "copy_plate",
    "finalize_plate",
    "plan_chunks",
    "plate_flow",
    "process_chunk",
    "process_plate",
    "run_near_data",
]


def __getattr__(name: str) -> Any:  # PEP 562: blocks are found without loading the flows
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
