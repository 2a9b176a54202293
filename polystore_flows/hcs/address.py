"""Addresses inside a plate: wells, fields, planes, labels and files.

===============================  ==============================================
``""``                           the plate
``B/3`` or ``B/03``              a well
``B/03/0``                       a field
``B/03/0?c=DAPI&z=3&t=0``        planes of a field
``B/03/0/labels/nuclei``         a label image
``tables/a.csv``, ``B/03/x.json``  a table or text (.json .csv .tsv .txt)
``B03_s001_w1_z001_t001.tif``    a plane by OpenHCS' file name (one-based)
===============================  ==============================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..errors import URIError

TEXT_SUFFIXES = (".json", ".csv", ".tsv", ".txt")
"""Suffixes that make an address a file."""

_NAME = re.compile(r"[A-Za-z0-9]+")
_LABEL = re.compile(r"[A-Za-z0-9_. -]+")
_WELL = re.compile(r"([A-Za-z]{1,2})/?0*(\d{1,3})")
_WELL_IN_PATH = re.compile(r"[A-Z]{1,2}/\d{1,2}")
# OpenHCS writes ImageXpress-like names with padded numbers; z and t may be left out.
_PLANE_FILE = re.compile(
    r"(?P<row>[A-Z]{1,2})(?P<column>\d{2})_s(?P<site>\d+)_w(?P<channel>\d+)"
    r"(?:_z(?P<z>\d+))?(?:_t(?P<t>\d+))?\.(?:ome\.)?tiff?"
)


@dataclass(frozen=True, slots=True)
class WellAddress:
    """A well by row letters and column; ``B/3`` and ``B/03`` are equal."""

    row: str
    """Letters in upper case (or any alphanumeric name that a plate uses)."""
    column: str
    """Column without leading zeros."""

    def __str__(self) -> str:
        return f"{self.row}/{self.column}"


@dataclass(frozen=True, slots=True)
class PlaneSelection:
    """Which part of a field is meant; None keeps the whole axis, an index drops it."""

    t: int | None = None
    """Zero-based time point."""
    c: int | str | None = None
    """Zero-based channel or its name."""
    z: int | None = None
    """Zero-based z plane."""
    level: int = 0
    """Pyramid level, 0 is full size."""

    @property
    def is_all(self) -> bool:
        """Whether the whole field at full size is meant."""
        return self is _ALL or self == _ALL

    @property
    def is_plane(self) -> bool:
        """Whether exactly one (y, x) plane is meant."""
        return None not in (self.t, self.c, self.z)


_ALL = PlaneSelection()


@dataclass(frozen=True, slots=True)
class Address:
    """What a URI names below its plate."""

    well: WellAddress | None = None
    field: str | None = None
    """Path of the field in its well, ``0`` for the first."""
    label: str | None = None
    """Name of a label image of the field."""
    file: str | None = None
    """Path of a table or text below the plate, with ``/``."""
    planes: PlaneSelection = _ALL

    @property
    def kind(self) -> str:
        """``plate``, ``well``, ``field``, ``label`` or ``file``."""
        if self.file is not None:
            return "file"
        if self.label is not None:
            return "label"
        if self.field is not None:
            return "field"
        return "plate" if self.well is None else "well"

    def __str__(self) -> str:
        if self.file is not None:
            return self.file
        parts = [str(p) for p in (self.well, self.field) if p is not None]
        return "/".join([*parts, "labels", self.label] if self.label is not None else parts)


def parse_well(text: str) -> WellAddress:
    """``B/03``, ``B/3``, ``B03`` or ``b3`` as an address.

    Raises:
        URIError: it is none of these.
    """
    match = _WELL.fullmatch(text.strip("/"))
    if match:
        return WellAddress(match[1].upper(), match[2])
    row, slash, column = text.strip("/").partition("/")
    if slash and _NAME.fullmatch(row) and _NAME.fullmatch(column):
        return WellAddress(row, column.lstrip("0") or column)  # names that NGFF allows
    raise URIError(f"{text!r} names no well; write for example B/3 or B03")


def parse_address(inner: str, query: Iterable[tuple[str, str]] = ()) -> Address:
    """What `inner`, the path below a plate, and the URI's `query` name.

    Raises:
        URIError: they fit none of the forms above.
    """
    inner = inner.strip("/")
    parts = inner.split("/") if inner else []
    if ".." in parts:
        raise URIError(f"{inner!r} would leave the plate; write the address without '..'")
    planes = parse_planes(query)
    if inner.lower().endswith(TEXT_SUFFIXES):
        address = Address(file=inner)
    elif len(parts) == 1 and (plane := _PLANE_FILE.fullmatch(inner)):
        address, planes = _plane_file(plane)
    elif len(parts) in (2, 3) or (len(parts) == 5 and parts[3] == "labels"):
        address = Address(
            parse_well("/".join(parts[:2])),
            parts[2] if len(parts) > 2 else None,
            parts[4] if len(parts) > 4 else None,
        )
    elif not parts:
        address = Address()
    else:
        address = Address(field="")  # refused below
    bad_field = address.field is not None and not _NAME.fullmatch(address.field)
    bad_label = address.label is not None and not _LABEL.fullmatch(address.label)
    if bad_field or bad_label:
        raise URIError(
            f"{inner!r} names nothing in a plate; write row/column (B/3), row/column/field "
            "(B/3/0), B/3/0/labels/NAME, or a .json, .csv, .tsv or .txt file"
        )
    if address.kind not in ("field", "label") and not planes.is_all:
        raise URIError(f"{inner or 'the plate'}: only a field or a label has planes to select")
    return address if planes.is_all else replace(address, planes=planes)


def check_file_path(path: str) -> None:
    """Raise `URIError` unless `path` can name a file below a plate."""
    if ".." in path.split("/"):
        raise URIError(f"{path!r} would leave the plate; write the path without '..'")


def check_label_name(name: str) -> None:
    """Raise `URIError` unless `name` can name a label image: it is one part of a path."""
    if not _LABEL.fullmatch(name) or not name.strip("."):
        raise URIError(f"{name!r} names no label image; use letters, digits, '_', '-', '.' or ' '")


def check_field_name(name: str) -> None:
    """Raise `URIError` unless `name` can name a field: letters and digits, as NGFF wants it."""
    if not _NAME.fullmatch(name):
        raise URIError(f"{name!r} names no field; use letters and digits, 0 for the first")


def parse_planes(query: Iterable[tuple[str, str]]) -> PlaneSelection:
    """``t=0&c=DAPI&z=3&level=1`` as a selection.

    Raises:
        URIError: another key, a key twice, or an index that is no number.
    """
    found: dict[str, int | str] = {}
    for key, value in query:
        if key not in ("t", "c", "z", "level"):
            raise URIError(f"'{key}=' selects nothing; use t=, c=, z= or level=")
        if key in found:
            raise URIError(f"'{key}=' is given twice")
        if value.isdecimal():
            found[key] = int(value)
        elif key == "c" and value:
            found[key] = value
        else:
            raise URIError(f"'{key}={value}' is no index; count from 0")
    return PlaneSelection(**found) if found else _ALL  # type: ignore[arg-type]  # checked above


def plane_file_name(well: WellAddress, field: int, c: int, z: int, t: int) -> str:
    """OpenHCS' name of a plane, all arguments zero-based: ``B03_s001_w1_z001_t001.tif``."""
    column = well.column.zfill(2)
    return f"{well.row}{column}_s{field + 1:03d}_w{c + 1}_z{z + 1:03d}_t{t + 1:03d}.tif"


def split_plate_path(path: str) -> tuple[str, str]:
    """`path` as (plate, address below it).

    A segment that ends in ``.zarr`` ends the plate. Without one, the plate ends before a plane's
    file name, the last ``row/column`` pair or the last ``tables`` folder, or is the whole path:
    folders above a plate may look like wells (``/data/A/1/plate/B/03``), those in it do not.
    """
    parts = path.split("/")
    for i, part in enumerate(parts):
        if part.lower().endswith(".zarr"):
            return "/".join(parts[: i + 1]), "/".join(parts[i + 1 :])
    places = range(len(parts) - 1, 0, -1)
    found = [i for i in places[:1] if _PLANE_FILE.fullmatch(parts[i])]
    found += [i for i in places if _WELL_IN_PATH.fullmatch("/".join(parts[i : i + 2]))]
    found += [i for i in places if parts[i] == "tables"]
    if found:
        return "/".join(parts[: found[0]]), "/".join(parts[found[0] :])
    return path, ""


def _plane_file(match: re.Match[str]) -> tuple[Address, PlaneSelection]:
    number = {
        key: int(value or 1) - 1 for key, value in match.groupdict("1").items() if key != "row"
    }
    if min(number.values()) < 0:
        raise URIError(f"{match[0]}: sites, channels, z and t of a file name are counted from 1")
    well = parse_well(f"{match['row']}/{match['column']}")
    planes = PlaneSelection(t=number["t"], c=number["channel"], z=number["z"])
    return Address(well, str(number["site"])), planes
