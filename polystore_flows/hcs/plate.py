"""Plates, wells and images as every backend gives them.

A backend derives `Plate` and `Image` and fills in the few methods that do I/O; finding a
well, selecting planes and checking what is written is done here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from ..errors import AddressError, MismatchError, NotFoundError, ReadOnlyError, UnsupportedError
from .address import (
    WellAddress,
    check_field_name,
    check_file_path,
    check_label_name,
    parse_well,
)
from .field import Image as Image
from .image import Channel, five_dimensional
from .layout import Layout
from .plate_map import PLATE_MAP, checked_plate_map
from .provenance import Provenance
from .spec import Acquisition, PlateSpec
from .well import Well

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

Mode = Literal["r", "r+"]


@dataclass(frozen=True, slots=True)
class Notes:
    """What is said of the fields of a well besides their pixels; each field is a key."""

    acquisitions: Mapping[str, int | str | None]
    """By id or name; None where the writer said nothing."""
    provenance: Mapping[str, Provenance | None]


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
        return PlateSpec(
            self.layout,
            self.channel_info,
            self.pixel_size,
            self.name,
            acquisitions=self.acquisitions,
        )

    @property
    def acquisitions(self) -> tuple[Acquisition, ...]:
        """The times at which the plate was imaged, where that is kept."""
        return ()

    @property
    def conditions(self) -> pd.DataFrame:
        """The plate map: one row for a well, by its path ``B/3``; empty where there is none.

        Raises:
            MismatchError: the stored map does not fit the plate.
        """
        where = f"{self.uri}/{PLATE_MAP}"
        try:
            table = self.read_table(PLATE_MAP)
        except (NotFoundError, UnsupportedError):
            table = {"row": [], "column": []}
        return checked_plate_map(table, self.layout, where)

    def find(self, well: str) -> str | None:
        """Stored path of `well` (``B/3``, ``B/03`` or ``B03``), or None if it holds no data."""
        return _by_address(self.wells).get(parse_well(well))

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

    def _acquisitions_of(self, well: str) -> dict[str, int | None]:
        return dict.fromkeys(self._fields(well))

    def _provenance(self, well: str, field: str) -> Provenance | None:
        path = _provenance_path(well, field)
        try:
            return Provenance.from_json(self.read_table(path), f"{self.uri}/{path}")
        except (NotFoundError, UnsupportedError):
            return None

    # Writing. A backend that can write overrides the methods with an underscore.

    def write_image(
        self,
        well: str,
        field: int | str,
        data: ArrayLike,
        *,
        overwrite: bool = False,
        acquisition: int | str | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        """Write one field and list it.

        Args:
            well: ``B/3``, ``B/03`` or ``B03``; must lie on the plate's layout.
            field: path of the field in the well.
            data: ``(t, c, z, y, x)``, or one ``(y, x)`` plane; integers or floats. All fields
                of a plate have one shape and dtype.
            overwrite: whether an existing field, with its labels and tables, is replaced.
            acquisition: id or name of the one it belongs to; may be left out where the plate has
                at most one, or to leave that of an existing field as it is.
            provenance: what made it.

        Atomic where the backend says so: a reader sees the old field or the new one.

        Raises:
            AlreadyExistsError: the field exists and `overwrite` is false.
            MismatchError: the array does not fit the plate. Nothing was written.
        """
        self.write_well(
            well,
            {field: data},
            overwrite=overwrite,
            keep_others=True,
            acquisition=acquisition,
            provenance=provenance,
        )

    def write_well(
        self,
        well: str,
        images: Mapping[Any, ArrayLike],
        labels: Mapping[Any, Mapping[str, ArrayLike]] | None = None,
        *,
        overwrite: bool = False,
        keep_others: bool = False,
        acquisition: int | str | Mapping[Any, int | str | None] | None = None,
        provenance: Provenance | Mapping[Any, Provenance | None] | None = None,
    ) -> None:
        """Write all fields of a well, with their labels, and list the well once all are complete.

        Args:
            well: as in `write_image`.
            images: field -> ``(t, c, z, y, x)``; all of one shape and dtype.
            labels: field -> name -> integer array, ``(t, 1, z, y, x)`` or ``(y, x)``.
            overwrite: whether existing fields are replaced.
            keep_others: whether fields that `images` does not name stay.
            acquisition: as in `write_image`; for all fields, or field -> its own.
            provenance: the same.

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
        notes = Notes(_each(arrays, acquisition), _each(arrays, provenance))
        self._write_noted(self.layout_path(well), arrays, masks, overwrite, keep_others, notes)

    def write_label(
        self, well: str, field: int | str, name: str, data: ArrayLike, *, overwrite: bool = False
    ) -> None:
        """Write a label image of an existing field; atomic, and listed last.

        Args:
            well: ``B/3``, ``B/03`` or ``B03``.
            field: an existing field of it.
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

    def write_conditions(self, table: Any, *, overwrite: bool = True) -> None:
        """Write the plate map, a table of row, column and any columns; atomic.

        Args:
            table: see `checked_plate_map`.
            overwrite: whether an existing plate map is replaced.

        Raises:
            MismatchError: it does not fit the plate; nothing was written.
        """
        self._writable()
        checked = checked_plate_map(table, self.layout, f"{self.uri}/{PLATE_MAP}")
        self._write_file(PLATE_MAP, checked, overwrite)

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

    def _write_noted(
        self,
        well: str,
        images: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Mapping[str, NDArray[Any]]],
        overwrite: bool,
        keep_others: bool,
        notes: Notes,
    ) -> None:
        """`_write_well`, then the provenance of each field as a text beside the well's tables."""
        if any(acquisition is not None for acquisition in notes.acquisitions.values()):
            raise UnsupportedError(
                f"{self.uri}: only OME-Zarr plates keep acquisitions; write one plate for each"
            )
        self._write_well(well, images, labels, overwrite, keep_others)
        for field, provenance in notes.provenance.items():
            if provenance is not None:
                self._write_file(_provenance_path(well, field), provenance.as_json(), True)

    def _write_label(
        self, well: str, field: str, name: str, array: NDArray[Any], overwrite: bool
    ) -> None:
        raise UnsupportedError(f"{self.uri}: this backend cannot write labels")

    def _write_file(self, path: str, data: Any, overwrite: bool) -> None:
        raise UnsupportedError(f"{self.uri}: this backend keeps no tables")

    def __repr__(self) -> str:
        return f"<Plate {self.uri} {len(self)} wells>"


@lru_cache(maxsize=8)
def _by_address(wells: tuple[str, ...]) -> Mapping[WellAddress, str]:
    """For who asks for one well after another: 1,536 addresses take milliseconds to parse."""
    return {parse_well(path): path for path in wells}


def _each(fields: Iterable[str], given: Any) -> dict[str, Any]:
    """Field -> what is given for it, or for all."""
    if isinstance(given, Mapping):
        return {f: given.get(f, given.get(int(f) if f.isdecimal() else f)) for f in fields}
    return dict.fromkeys(fields, given)


def _provenance_path(well: str, field: str) -> str:
    return f"{well}/provenance_{field}.json"


def _some(items: tuple[str, ...], most: int = 8) -> str:
    shown = ", ".join(items[:most]) or "none"
    return f"{shown} … ({len(items)} in all)" if len(items) > most else shown
