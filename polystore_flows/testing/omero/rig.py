"""Rigs of the OMERO backend on a loopback server."""

from __future__ import annotations

import os
import uuid

from ...backends.omero.backend import OMEROLocalBackend
from ...hcs.layout import Layout
from ...hcs.spec import PlateSpec
from ...settings import get_settings
from ..rigs import Rig
from .server import OmeroServer


class OmeroRig(Rig):
    """The OMERO backend in a plate of its own on `server`, to which this process is led."""

    symlinks = False
    directories = times = False
    suffixes = (".json", ".csv", ".tsv", ".txt")

    def __init__(self, server: OmeroServer) -> None:
        self.server = server
        self._before = {name: os.environ.get(name) for name in server.environment}
        os.environ.update(server.environment)
        get_settings.cache_clear()
        self.plate = server.uri(f"plate/rig-{uuid.uuid4().hex[:12]}")
        backend = OMEROLocalBackend()
        backend.create_plate(self.plate, PlateSpec(Layout.of(96)))
        super().__init__(backend, f"{self.plate}/tables")

    def close(self) -> None:
        """Put the environment back."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        get_settings.cache_clear()
