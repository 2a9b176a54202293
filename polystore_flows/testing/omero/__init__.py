"""A loopback OMERO server for tests and trials; needs omero-py."""

from __future__ import annotations

from .server import OmeroServer

__all__ = ["OmeroServer"]
