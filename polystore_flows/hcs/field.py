"""An opened field or label image, as every backend gives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ..errors import AddressError, NotFoundError
from .address import PlaneSelection
from .image import AXES, ImageInfo, check_index

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Image(ABC):
    """A field or a label image: ``(t, c, z, y, x)``. Opening it reads metadata only."""

    def __init__(self, uri: str, info: ImageInfo) -> None:
        self.uri = uri
        self.info = info

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Full size, ``(t, c, z, y, x)``."""
        return self.info.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.info.dtype

    @property
    def axes(self) -> tuple[str, ...]:
        """Always ``("t", "c", "z", "y", "x")``."""
        return AXES

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(channel.name for channel in self.info.channels)

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        """Micrometres ``(z, y, x)``."""
        return self.info.pixel_size

    @property
    def levels(self) -> int:
        """Number of pyramid levels."""
        return self.info.levels

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label images of this field."""
        return ()

    def label(self, name: str) -> Image:
        """The label image `name` of this field.

        Raises:
            NotFoundError: the field has none of this name.
        """
        known = ", ".join(self.labels) or "none"
        raise NotFoundError(f"{self.uri} has no label image {name!r}; it has {known}")

    def plane(self, t: int = 0, c: int | str = 0, z: int = 0, *, level: int = 0) -> NDArray[Any]:
        """One ``(y, x)`` plane; reads that plane's chunks only."""
        return self.select(PlaneSelection(t, c, z, level))

    def read(self, *, level: int = 0) -> NDArray[Any]:
        """The whole field, ``(t, c, z, y, x)``."""
        return self.select(PlaneSelection(level=level))

    def select(self, planes: PlaneSelection) -> NDArray[Any]:
        """The selected part; an axis with an index is dropped, as in NumPy.

        Raises:
            AddressError: the image has no such plane, channel or level.
        """
        try:
            t, c, z = self.info.indices(planes)
            level = check_index("level", planes.level, self.levels)
        except AddressError as error:
            raise AddressError(f"{self.uri}: {error}") from error
        return self._read(level, t, c, z)

    @abstractmethod
    def _read(self, level: int, t: int | None, c: int | None, z: int | None) -> NDArray[Any]:
        """Read checked indices of `level`; an axis with an index is dropped."""

    def __repr__(self) -> str:
        return f"<Image {self.uri} {self.shape} {self.dtype}>"
