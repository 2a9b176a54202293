"""Fields and label images: their pyramids are written, and opened again.

Arrays are laid out in `array_layout`. Shards are read in `shards`, all others by zarr-python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import CorruptDataError, MismatchError, NotFoundError, StoredDataError
from ...hcs import ngff
from ...hcs.image import AXES, Channel, ImageInfo, display_window, halve
from ...hcs.plate import Image
from ...hcs.provenance import Provenance
from ...hcs.well import MOST_READS
from ...hcs.zarr_config import ZarrConfig
from .array_layout import write_array
from .nodes import OURS, make_group, read_attributes, revision, translated
from .shards import open_sharded
from .store_path import StorePath

T = TypeVar("T")


def write_field(
    group: Path,
    array: NDArray[Any],
    *,
    name: str,
    channels: Sequence[Channel],
    provenance: Provenance | None,
    pixel_size: tuple[float, float, float],
    levels: int,
    config: ZarrConfig,
    kept: ngff.Attributes | None = None,
) -> None:
    """Write a field with its pyramid into a folder that nobody else sees yet; not atomic.

    Args:
        group: the field's folder.
        array: ``(t, c, z, y, x)``.
        name: shown to people.
        channels: as many as ``array.shape[1]``, with windows.
        provenance: what made it, if that is known.
        pixel_size: micrometres ``(z, y, x)``.
        levels: pyramid levels.
        config: of the plate.
        kept: attributes of the field that it replaces; what NGFF says of images is made anew.
    """
    shown = [
        (channel, _limits(array[:, c]), channel.window or display_window(array[:, c]))
        for c, channel in enumerate(channels)
    ]
    version = config.ngff_version
    attributes = ngff.image_attributes(name, levels, pixel_size, shown, version)
    if provenance is not None:
        attributes[OURS] = {"provenance": provenance.as_json()}
    if kept is not None and version == "0.5":
        attributes["ome"] = kept["ome"] | attributes["ome"]
    make_group(group, (kept or {}) | attributes, version)
    _write_pyramid(group, array, AXES, levels, config, labels=False)


def write_label(
    group: Path,
    array: NDArray[Any],
    *,
    name: str,
    pixel_size: tuple[float, float, float],
    levels: int,
    config: ZarrConfig,
) -> None:
    """Write a label image, stored ``(t, z, y, x)``; arguments as `write_field`."""
    version = config.ngff_version
    make_group(group, ngff.label_attributes(name, levels, pixel_size, version), version)
    _write_pyramid(group, array[:, 0], ("t", "z", "y", "x"), levels, config, labels=True)


class ZarrImage(Image):
    """A field or label image in a plate; arrays are opened when first read."""

    def __init__(self, group: Path, uri: str, channels: tuple[Channel, ...] = ()) -> None:
        """Read the image's metadata.

        Args:
            group: the image's folder.
            uri: shown in errors.
            channels: the plate's, which win over the image's own names.

        Raises:
            CorruptMetadataError: the metadata is no image's.
            CorruptDataError: an array's metadata cannot be read.
        """
        self._group = group
        self.uri = uri
        self._look()
        first = self._consistently(lambda: self._array(0))
        if len(first.shape) != len(self._document.axes):
            raise MismatchError(
                f"{uri}: its array has {len(first.shape)} axes, its metadata "
                f"{len(self._document.axes)}"
            )
        size = dict(zip(self._document.axes, first.shape, strict=True))
        shape = tuple(int(size.get(axis, 1)) for axis in AXES)
        named = channels if len(channels) == shape[1] else self._document.channels
        if len(named) != shape[1]:
            named = tuple(Channel(str(i)) for i in range(shape[1]))
        super().__init__(
            uri,
            ImageInfo(
                shape,  # type: ignore[arg-type]  # five axes
                first.dtype.newbyteorder("="),
                named,
                self._document.pixel_size,
                len(self._document.paths),
            ),
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label images that the field lists."""
        folder = self._group / "labels"
        if not folder.is_dir():
            return ()
        return ngff.read_labels(read_attributes(folder, self.uri), self.uri)

    def label(self, name: str) -> Image:
        """The label image `name`; reads metadata only."""
        if name not in self.labels:
            return super().label(name)
        return ZarrImage(self._group / "labels" / name, f"{self.uri}/labels/{name}")

    def _identity(self) -> tuple[int | str, int]:
        identity = revision(self._group)
        if identity is None:
            raise NotFoundError(f"{self.uri} is gone")
        return identity

    def _array(self, level: int) -> Any:
        if level not in self._arrays:
            path = self._group / self._document.paths[level]
            self._arrays[level] = open_sharded(path) or _open_foreign(path)
        return self._arrays[level]

    def _read(self, level: int, t: int | None, c: int | None, z: int | None) -> NDArray[Any]:
        chosen: dict[str, int | None] = {"t": t, "c": c, "z": z}
        stored = self._document.axes
        index = tuple(slice(None) if chosen.get(axis) is None else chosen[axis] for axis in stored)
        pixels = self._consistently(lambda: np.asarray(self._array(level)[index]))
        missing = tuple(
            i
            for i, axis in enumerate(axis for axis in AXES if chosen.get(axis) is None)
            if axis not in stored
        )
        pixels = np.expand_dims(pixels, missing) if missing else pixels
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)

    def _consistently(self, read: Callable[[], T]) -> T:
        """What `read` gives, all of it from one revision of the image.

        zarr opens files as it needs them. Where the image was replaced since it was opened, an
        index of the old shard would be applied to the new one: then the whole is read again.
        """
        for _ in range(MOST_READS):
            try:
                with translated(self.uri):
                    result = read()
            except (NotFoundError, StoredDataError):
                if self._identity() == self._seen:
                    raise
            else:
                if self._identity() == self._seen:
                    return result
            self._look()
        raise CorruptDataError(f"{self.uri} is replaced faster than it can be read; try again")

    def _look(self) -> None:
        """Read the image's JSON, which names its arrays."""
        self._seen = self._identity()
        self._document = ngff.read_image(read_attributes(self._group, self.uri), self.uri)
        self._arrays: dict[int, Any] = {}


def _write_pyramid(
    group: Path,
    array: NDArray[Any],
    axes: tuple[str, ...],
    levels: int,
    config: ZarrConfig,
    *,
    labels: bool,
) -> None:
    for level in range(levels):
        write_array(group / str(level), array, axes, config)
        if level + 1 < levels:
            array = halve(array, labels=labels)


def _open_foreign(path: Path) -> Any:
    import zarr

    if isinstance(path, StorePath):
        from .store import BackendStore

        return zarr.open_array(BackendStore(path.uri, read_only=True), mode="r")
    version: Literal[2, 3] = 2 if (path / ".zarray").is_file() else 3  # else zarr looks for both
    return zarr.open_array(path, mode="r", zarr_format=version)


def _limits(pixels: NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest value that there can be, or of floats that there is."""
    if pixels.dtype.kind != "f":
        info = np.iinfo(pixels.dtype)
        return int(info.min), int(info.max)
    finite = pixels[np.isfinite(pixels)]
    return (finite.min().item(), finite.max().item()) if finite.size else (0.0, 1.0)
