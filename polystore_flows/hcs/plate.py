"""Plates, wells and images as every backend gives them.

A backend derives `Plate` and `Image` and fills in the few methods that do I/O; finding a
well, selecting planes and checking what is written is done here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..errors import (
    AddressError,
    MismatchError,
    NotFoundError,
    ReadOnlyError,
    UnsupportedError,
)
from .address import (
    PlaneSelection,
    WellAddress,
    check_field_name,
    check_file_path,
    check_label_name,
    parse_well,
)
from .image import AXES, Channel, ImageInfo, check_index, five_dimensional
from .layout import Layout
from .spec import PlateSpec
from .well import Well

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Mode = Literal["r", "r+"]


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


class Plate(ABC):
    """An opened plate; a mapping from a well's address to the well.

    Derived classes set what is declared here and implement the methods with an underscore.
    """

    uri: str
    """Of the plate, as it may be shown."""
    mode: Mode
    """``r``, or ``r+`` where it can be written."""
    name: str
    layout: Layout
    """The physical grid with the stored names."""

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of all rows of the grid."""
        return self.layout.rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns of the grid, as stored."""
        return self.layout.columns

    @property
    @abstractmethod
    def wells(self) -> tuple[str, ...]:
        """Stored paths of the wells that hold data, ``B/03``, by row, then column."""

    @property
    @abstractmethod
    def channel_info(self) -> tuple[Channel, ...]:
        """Channels with their colours; empty while the plate has neither names nor images."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(channel.name for channel in self.channel_info)

    @property
    @abstractmethod
    def pixel_size(self) -> tuple[float, float, float]:
        """Micrometres ``(z, y, x)``."""

    @property
    def spec(self) -> PlateSpec:
        """What a plate like this one is made from (``create_plate(..., like=)``)."""
        return PlateSpec(self.layout, self.channel_info, self.pixel_size, self.name)

    def find(self, well: str) -> str | None:
        """Stored path of `well` (``B/3``, ``B/03`` or ``B03``), or None if it holds no data."""
        address = parse_well(well)
        return self._by_address.get(address)

    @property
    def _by_address(self) -> Mapping[WellAddress, str]:
        return {parse_well(path): path for path in self.wells}

    def __getitem__(self, well: str) -> Well:
        stored = self.find(well)
        if stored is None:
            raise NotFoundError(f"{self.uri} has no well {well}; it has {_some(self.wells)}")
        return Well(self, stored)

    def __contains__(self, well: object) -> bool:
        return isinstance(well, str) and self.find(well) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.wells)

    def __len__(self) -> int:
        return len(self.wells)

    @abstractmethod
    def _fields(self, well: str) -> tuple[str, ...]:
        """Paths of the fields of a stored well."""

    @abstractmethod
    def _image(self, well: str, field: str) -> Image:
        """A field that `_fields` lists."""

    def _revision(self, well: str) -> object:
        """Differs from an earlier one if the well was replaced since; the same if unknown."""
        return None

    # Writing. A backend that can write overrides the methods with an underscore.

    def write_image(
        self, well: str, field: int | str, data: ArrayLike, *, overwrite: bool = False
    ) -> None:
        """Write one field and list it.

        Args:
            well: ``B/3``, ``B/03`` or ``B03``; must lie on the plate's layout.
            field: path of the field in the well.
            data: ``(t, c, z, y, x)``, or one ``(y, x)`` plane; integers or floats. All fields
                of a plate have one shape and dtype.
            overwrite: whether an existing field, with its labels, is replaced.

        Atomic where the backend says so: a reader sees the old field or the new one.

        Raises:
            AlreadyExistsError: the field exists and `overwrite` is false.
            MismatchError: the array does not fit the plate. Nothing was written.
        """
        self.write_well(well, {field: data}, overwrite=overwrite, keep_others=True)

    def write_well(
        self,
        well: str,
        images: Mapping[Any, ArrayLike],
        labels: Mapping[Any, Mapping[str, ArrayLike]] | None = None,
        *,
        overwrite: bool = False,
        keep_others: bool = False,
    ) -> None:
        """Write all fields of a well, with their labels, and list the well once all are complete.

        Args:
            well: as in `write_image`.
            images: field -> ``(t, c, z, y, x)``; all of one shape and dtype.
            labels: field -> name -> integer array, ``(t, 1, z, y, x)`` or ``(y, x)``.
            overwrite: whether existing fields are replaced.
            keep_others: whether fields that `images` does not name stay.

        Raises:
            AlreadyExistsError: the well (a field of it, with `keep_others`) exists.
            MismatchError: an array does not fit. Nothing was written.
        """
        self._writable()
        labels = labels or {}
        for field in images:
            check_field_name(str(field))
        arrays = {str(f): self.fit_image(well, f, data) for f, data in images.items()}
        if not arrays:
            raise MismatchError(f"{self.uri}/{well}: a well needs at least one field")
        for field in labels:
            if str(field) not in arrays:
                raise MismatchError(
                    f"{self.uri}/{well}: labels of field {field}, but no image of it"
                )
        masks = {
            str(f): {
                n: self.fit_label(f"{well}/{f}", n, m, arrays[str(f)].shape) for n, m in d.items()
            }
            for f, d in labels.items()
        }
        self._write_well(self.layout_path(well), arrays, masks, overwrite, keep_others)

    def write_label(
        self, well: str, field: int | str, name: str, data: ArrayLike, *, overwrite: bool = False
    ) -> None:
        """Write a label image of an existing field; atomic, and listed last.

        Args:
            well, field: an existing field.
            name: such as ``nuclei``.
            data: integers, ``(t, 1, z, y, x)`` with the field's t, z, y, x, or ``(y, x)``.
            overwrite: whether an existing label image of this name is replaced.
        """
        self._writable()
        image = self[well].image(field)
        array = self.fit_label(f"{well}/{field}", name, data, image.shape)
        stored = self[well].path
        self._write_label(stored, str(field), name, array, overwrite)

    def write_table(self, path: str, table: Any, *, overwrite: bool = True) -> None:
        """Write a data frame (or rows as dicts) below the plate; atomic."""
        self._writable()
        check_file_path(path)
        self._write_file(path, table, overwrite)

    def read_table(self, path: str) -> Any:
        """The table or text at `path` below the plate, decoded by its suffix."""
        raise UnsupportedError(f"{self.uri}: this backend keeps no tables")

    def layout_path(self, well: str) -> str:
        """``row/column`` of `well` as this plate stores it, whether it holds data or not.

        Raises:
            AddressError: the layout does not have it.
        """
        try:
            return self.find(well) or self.layout.path(parse_well(well))
        except AddressError as error:
            raise AddressError(f"{self.uri}: {error}") from error

    def _writable(self) -> None:
        if self.mode != "r+":
            raise ReadOnlyError(f"{self.uri} is open for reading; open it with mode='r+'")

    def fit_image(self, well: str, field: int | str, data: ArrayLike) -> NDArray[Any]:
        """A field checked against the plate's channels, as ``(t, c, z, y, x)``."""
        where = f"{self.uri}/{well}/{field}"
        try:
            array = five_dimensional(data)
        except MismatchError as error:
            raise MismatchError(f"{where}: {error}") from error
        channels = self.channel_info
        if channels and array.shape[1] != len(channels):
            raise MismatchError(
                f"{where}: the array has {array.shape[1]} channels, its plate {len(channels)} "
                f"({', '.join(self.channels)})"
            )
        return array

    def fit_label(
        self, where: str, name: str, data: ArrayLike, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """A label image checked against the `shape` of its field, as ``(t, 1, z, y, x)``."""
        check_label_name(name)
        where = f"{self.uri}/{where}/labels/{name}"
        try:
            array = five_dimensional(data)
        except MismatchError as error:
            raise MismatchError(f"{where}: {error}") from error
        wanted = (shape[0], 1, *shape[2:])
        if array.dtype.kind not in "iu":
            raise MismatchError(f"{where}: labels are integers, not {array.dtype}")
        if array.shape != wanted:
            raise MismatchError(
                f"{where}: the label's shape is {array.shape}, its field's {wanted}"
            )
        return array

    def _write_well(
        self,
        well: str,
        images: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Mapping[str, NDArray[Any]]],
        overwrite: bool,
        keep_others: bool,
    ) -> None:
        raise UnsupportedError(f"{self.uri}: this backend cannot write images")

    def _write_label(
        self, well: str, field: str, name: str, array: NDArray[Any], overwrite: bool
    ) -> None:
        raise UnsupportedError(f"{self.uri}: this backend cannot write labels")

    def _write_file(self, path: str, data: Any, overwrite: bool) -> None:
        raise UnsupportedError(f"{self.uri}: this backend keeps no tables")

    def __repr__(self) -> str:
        return f"<Plate {self.uri} {len(self)} wells>"


def _some(items: tuple[str, ...], most: int = 8) -> str:
    shown = ", ".join(items[:most]) or "none"
    return f"{shown} … ({len(items)} in all)" if len(items) > most else shown
