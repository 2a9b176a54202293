"""Plates on OMERO servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .annotations import OMEROFileFormatRegistry
    from .backend import OMEROLocalBackend
    from .instance import OMEROInstanceManager
    from .structure import ImageStructure, PlateStructure, WellStructure

_NAMES = {
    "ImageStructure": "structure",
    "OMEROFileFormatRegistry": "annotations",
    "OMEROInstanceManager": "instance",
    "OMEROLocalBackend": "backend",
    "PlateStructure": "structure",
    "WellStructure": "structure",
}

__all__ = [
    "ImageStructure",
    "OMEROFileFormatRegistry",
    "OMEROInstanceManager",
    "OMEROLocalBackend",
    "PlateStructure",
    "WellStructure",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_NAMES[name]}", __name__), name)
