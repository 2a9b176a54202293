"""A plate's structure, annotations and channels, kept for a while and shared by all who read it."""

from __future__ import annotations

import json
import os
import time
from threading import RLock
from typing import Any

from ...hcs.image import Channel, ImageInfo, named_channels
from ...hcs.plate import Image
from ...settings import get_settings
from .annotations import SPEC, Attachment, Owner, read_attachments
from .connection import Connection
from .labels import label_name
from .login import Login
from .mounted import mounted_image, read_paths
from .planes import dtype_of
from .structure import (
    ImageStructure,
    PixelsInfo,
    PlateStructure,
    read_channel_names,
    read_pixels,
    read_structure,
)

MOST_KEPT = 16
"""Plates whose contents are kept."""
FRESH = 2.0
"""Seconds for which times and sizes are believed: other processes write, too."""
SHARE = 5
"""A "no" is believed for so many times the time that looking took."""


class Contents:
    """What a plate holds; read when first asked for, again when it is old or was changed by us.

    Thread-safe. Opening and listing a plate costs at most six calls, whatever it holds.
    """

    def __init__(self, connection: Connection, plate_id: int, where: str) -> None:
        self.connection, self.plate_id, self.where = connection, plate_id, where
        self._lock = RLock()
        self._until = self._read_at = self._cost = 0.0
        self._known: dict[str, Any] = {}

    def forget(self) -> None:
        """Read all anew when next asked; after a write."""
        with self._lock:
            self._known.clear()
            self._until = 0.0

    def renew(self, age: float | None = None) -> bool:
        """Forget what was read more than `age` seconds ago; whether it was forgotten.

        Without `age`, as long ago as makes asking again take a small share of the time.
        """
        with self._lock:
            old = time.monotonic() - self._read_at > (self._cost * SHARE if age is None else age)
            if old:
                self.forget()
            return old

    def _get(self, name: str, read: Any) -> Any:
        with self._lock:
            start = time.monotonic()
            if start > self._until:
                self._known.clear()
                self._until = start + get_settings().omero_cache
                self._read_at, self._cost = start, 0.0
            if name not in self._known:
                self._known[name] = read()
                self._cost += time.monotonic() - start
            return self._known[name]

    @property
    def structure(self) -> PlateStructure:
        """Wells and images."""
        found: PlateStructure = self._get(
            "structure", lambda: read_structure(self.connection, self.plate_id, self.where)
        )
        return found

    @property
    def attachments(self) -> list[Attachment]:
        """Annotations on the plate, its wells and images."""
        found: list[Attachment] = self._get(
            "attachments", lambda: read_attachments(self.connection, self.plate_id, self.where)
        )
        return found

    @property
    def spec(self) -> dict[str, Any]:
        """What a plate that we made was made from; empty for others."""
        if not self.structure.ours:
            return {}
        for attachment in self.attachments:
            if attachment.ns == SPEC:
                found: dict[str, Any] = json.loads(attachment.description)
                return found
        return {}

    @property
    def first(self) -> PixelsInfo | None:
        """Channels and pixel size of the first image."""
        image = self.structure.first
        return None if image is None else self.pixels(image)

    def pixels(self, image: ImageStructure) -> PixelsInfo:
        """Channels and pixel size of an image; one call each."""
        found: PixelsInfo = self._get(
            f"pixels {image.pixels_id}",
            lambda: read_pixels(self.connection, image.pixels_id, self.where),
        )
        return found

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The plate's channels: as it was made, or the first image's."""
        kept = tuple(Channel(c["name"], c["color"]) for c in self.spec.get("channels", ()))
        return kept or (self.first.channels if self.first is not None else ())

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        """Micrometres ``(z, y, x)``, as `channels`."""
        if "pixel_size" in self.spec:
            z, y, x = self.spec["pixel_size"]
            return z, y, x
        return self.first.pixel_size if self.first is not None else (1.0, 1.0, 1.0)

    def info(self, image: ImageStructure, where: str) -> ImageInfo:
        """All that is known of an image; the channels of all images cost one call together."""
        dtype = dtype_of(image.pixels_type, where)
        first = self.structure.first
        assert first is not None
        assert self.first is not None
        if image.pixels_id == first.pixels_id:
            pixels = self.first
        elif image.physical != first.physical:
            pixels = self.pixels(image)  # perhaps in other units
        else:
            names = self._names.get(image.pixels_id, ())
            same = names == tuple(c.name for c in self.first.channels)
            channels = self.first.channels if same else named_channels(names)
            pixels = PixelsInfo(channels, self.first.pixel_size)
        channels = pixels.channels
        if len(channels) != image.size_c:  # none were stored
            channels = named_channels([str(i) for i in range(image.size_c)])
        return ImageInfo(image.shape, dtype, channels, pixels.pixel_size)

    @property
    def _names(self) -> dict[int, tuple[str, ...]]:
        found: dict[int, tuple[str, ...]] = self._get(
            "names", lambda: read_channel_names(self.connection, self.plate_id, self.where)
        )
        return found

    def mounted(self, image: ImageStructure, info: ImageInfo) -> Image | None:
        """The image in a folder that is mounted here, if any; one call for a whole plate."""
        if not get_settings().omero_mounts:
            return None
        paths: dict[int, str] = self._get(
            "mounted", lambda: read_paths(self.connection, self.plate_id, self.where)
        )
        path = paths.get(image.image_id)
        return None if path is None else mounted_image(path, info)

    # Files and labels by address

    @property
    def files(self) -> dict[str, Attachment]:
        """Path below the plate -> file; the newest where two have one path."""
        places = self._places
        found = {}
        for attachment in self.attachments:
            if attachment.name and attachment.owner in places:
                prefix = places[attachment.owner]
                found[f"{prefix}/{attachment.name}" if prefix else attachment.name] = attachment
        return found

    def labels(self, image: ImageStructure) -> dict[str, Attachment]:
        """Name -> label image of an image."""
        owner = Owner("Image", image.image_id)
        mine = (a for a in self.attachments if a.owner == owner)
        return {name: a for a in mine if (name := label_name(a)) is not None}

    @property
    def labelled(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Well and field -> names of label images."""
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for attachment in self.attachments:
            name, place = label_name(attachment), self._places.get(attachment.owner)
            if name is not None and place is not None:
                well, _, field = place.rpartition("/")
                found[well, field] = (*found.get((well, field), ()), name)
        return found

    def owner_of(self, path: str) -> tuple[Owner, str]:
        """What the file at `path` below the plate is attached to, and its path below that."""
        by_place = {place: owner for owner, place in self._places.items()}
        parts = path.split("/")
        for length in (3, 2):
            place = "/".join(parts[:length])
            if len(parts) > length and place in by_place:
                return by_place[place], "/".join(parts[length:])
        return Owner("Plate", self.plate_id), path

    @property
    def _places(self) -> dict[Owner, str]:
        def read() -> dict[Owner, str]:
            places = {Owner("Plate", self.plate_id): ""}
            for path, well in self.structure.wells.items():
                places[Owner("Well", well.well_id)] = path
                for field, image in well.images.items():
                    places[Owner("Image", image.image_id)] = f"{path}/{field}"
            return places

        found: dict[Owner, str] = self._get("places", read)
        return found


_kept: dict[tuple[Login, int], Contents] = {}
_lock = RLock()


def _after_fork() -> None:
    """Another thread may have held a lock."""
    global _lock
    _lock = RLock()
    _kept.clear()


os.register_at_fork(after_in_child=_after_fork)


def contents_of(connection: Connection, plate_id: int, where: str) -> Contents:
    """The contents of a plate, the same object as long as it is kept."""
    with _lock:
        key = (connection.login, plate_id)
        found = _kept.pop(key, None)
        if found is None or found.connection is not connection:
            found = Contents(connection, plate_id, where)
        _kept[key] = found  # last, as the latest used
        if len(_kept) > MOST_KEPT:
            _kept.pop(next(iter(_kept)))
        return found
