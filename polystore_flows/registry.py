"""Backends by name and scheme: a table of strings, imported on demand, plus entry points.

A third party registers a backend either by defining the class (see ``contracts``) or by an
entry point in the group ``polystore_flows.backends``::

    [project.entry-points."polystore_flows.backends"]
    mine = "my_package.backend:MyBackend"

The entry point's name is both the backend's name and its URI scheme.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from importlib.metadata import entry_points
from threading import RLock
from typing import Any

from .contracts import BackendBase, PlateStore, registered_classes
from .errors import MissingDependencyError, UnknownBackendError, UnsupportedError
from .uri import BackendURI, parse_uri

ENTRY_POINT_GROUP = "polystore_flows.backends"

_TABLE = {
    "az": "polystore_flows.backends.objects.backend:AzureBackend",
    "disk": "polystore_flows.backends.disk:DiskBackend",
    "gs": "polystore_flows.backends.objects.backend:GoogleBackend",
    "memory": "polystore_flows.backends.memory:MemoryBackend",
    "omero": "polystore_flows.backends.omero.backend:OMEROLocalBackend",
    "s3": "polystore_flows.backends.objects.backend:ObjectsBackend",
    "zarr": "polystore_flows.backends.zarr.backend:ZarrBackend",
}
"""Backend name -> ``module:class``. The name is also the scheme of its URIs."""

_ALIASES = {"omero_local": "omero"}
"""Other name -> name; not listed, and a backend assigned to the other name wins."""

_EXTRAS = {"obstore": "objects", "omero": "omero", "Glacier2": "omero", "Ice": "omero"}
"""Module that may be missing -> the extra that installs it."""


class StorageRegistry(MutableMapping[str, BackendBase]):
    """Backend name -> backend; names are case-blind, a backend is made when first asked for.

    Thread-safe. A backend assigned by hand, at any time, is kept.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._made: dict[str, BackendBase] = {}
        self._targets: dict[str, str] | None = None

    def _known(self) -> dict[str, str]:
        """Name -> ``module:class`` of all that can be imported; entry points are read once."""
        with self._lock:
            if self._targets is None:
                found = {ep.name.lower(): ep.value for ep in entry_points(group=ENTRY_POINT_GROUP)}
                self._targets = found | _TABLE  # a third party cannot shadow ours
            return self._targets

    def names(self) -> list[str]:
        """All names, sorted; imports no backend."""
        with self._lock:
            return sorted({*self._known(), *registered_classes, *self._made})

    def __getitem__(self, name: str) -> BackendBase:
        name = name.lower()
        with self._lock:
            if name not in self._made:
                name = _ALIASES.get(name, name)
            if name not in self._made:
                self._made[name] = self._make(name)
            return self._made[name]

    def _make(self, name: str) -> BackendBase:
        target = self._known().get(name)
        if target is not None:
            made: BackendBase = _load(name, target)()
            return made
        if name in registered_classes:
            return registered_classes[name]()
        raise UnknownBackendError(f"no backend {name!r}; there are {', '.join(self.names())}")

    def __setitem__(self, name: str, backend: BackendBase) -> None:
        with self._lock:
            self._made[name.lower()] = backend

    def __delitem__(self, name: str) -> None:
        with self._lock:
            del self._made[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in (*self.names(), *_ALIASES)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())


storage_registry = StorageRegistry()
"""The registry of this process."""


def ensure_storage_registry() -> StorageRegistry:
    """The registry, with the entry points read."""
    storage_registry._known()
    return storage_registry


def get_backend(name: str) -> Any:
    """The backend `name`, in any case.

    Raises:
        UnknownBackendError: there is none; a ``KeyError`` that lists what there is.
        MissingDependencyError: an extra is not installed.
    """
    return storage_registry[name]


def backend_for(uri: str | BackendURI) -> Any:
    """The backend that serves `uri`.

    Raises:
        UnknownBackendError: no backend has its scheme.
    """
    parsed = parse_uri(uri)
    if parsed.backend not in storage_registry:
        schemes = ", ".join(f"{name}:" for name in storage_registry)
        raise UnknownBackendError(
            f"{parsed}: no backend for the scheme '{parsed.scheme}:'; there are {schemes}"
        )
    return storage_registry[parsed.backend]


def plate_store_for(uri: str | BackendURI) -> PlateStore:
    """The backend that serves `uri`, if it holds plates.

    Raises:
        UnsupportedError: it does not.
    """
    backend = backend_for(uri)
    if not isinstance(backend, PlateStore):
        raise UnsupportedError(f"{parse_uri(uri)}: the backend of this scheme holds no plates")
    return backend


def reset_memory_backend() -> None:
    """Forget all files of the memory backend; its directories stay."""
    get_backend("memory").clear_files()


def _load(name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "polystore_flows"):
            raise
        extra = _EXTRAS.get(missing)
        line = f"pip install 'polystore-flows[{extra}]'" if extra else f"pip install {missing}"
        raise MissingDependencyError(
            f"{name}: needs the module {missing!r}, which is not installed; run {line}"
        ) from error
