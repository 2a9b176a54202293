"""File-name patterns of microscopes: which file of a plate folder is which plane.

=============  ==================================  =================================
microscope     a file                              channel id
=============  ==================================  =================================
OpenHCS        ``A01_s001_w1_z001_t001.tif``       ``w1``
ImageXpress    ``TimePoint_1/ZStep_2/P_A01_s1_w1.tif``  ``w1``
Opera Phenix   ``r01c01f01p01-ch1sk1fk1fl1.tiff``  ``ch1``
CellVoyager    ``P_A01_T0001F001L01A01Z01C01.tif`` ``A01_C01``
=============  ==================================  =================================

Numbers stay as the files say; `index_planes` makes zero-based indices of them. A channel id
is never a bare number, because ``?c=1`` in a URI means the second channel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO

from ..errors import AddressError, AmbiguousPlateError, UnknownLayoutError, URIError
from .address import WellAddress, parse_well
from .layout import Layout, row_name

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
"""Suffixes of the files that can be planes, in lower case."""

_AXES = {
    "field": ("field",),
    "channel": ("channel", "action"),
    "z": ("z", "z_folder"),
    "t": ("t", "t_folder"),
}
"""Axis -> the groups of a regular expression that give it; the first one present wins."""

# macOS writes a hidden ._name.tif beside name.tif.
_HIDDEN = re.compile(r"(?:^|/)\.|_thumb|(?:^|/)thumb[^/]*/", re.IGNORECASE)
# CellVoyager's dark-current and shading corrections, as in DC_Andor #1_CAM1.tif.
_CORRECTION = re.compile(r"(?:^|/)(?:DC|SC)_[^/]*$")


@dataclass(frozen=True, slots=True)
class VendorPattern:
    """How one microscope names the files of a plate."""

    name: str
    """Lower case; also what ``?pattern=`` takes instead of a regular expression."""
    regex: re.Pattern[str]
    """Searched in the path below the plate folder; groups ``well`` (or ``row`` and ``column``),
    ``field``, ``channel``, ``z`` and ``t``, all but the well optional."""
    example: str
    """A file that fits."""
    numbers: str
    """How the numbers of a name map to the axes."""
    source: str
    """Where the naming is publicly described."""
    channel_id: str = "{channel}"
    """Format of a channel's id, with the groups of `regex`."""
    projection: int | None = None
    """Number of z that marks a projection, which is no plane of a stack."""

    def read(self, path: str) -> PlaneFile | None:
        """The plane that the file `path` (below the plate folder) holds, or None if none fits."""
        match = self.regex.search(path)
        if match is None:
            return None
        groups = match.groupdict()
        try:
            well = _well(groups.get("well") or "", groups.get("row") or "", groups.get("column"))
            field, z, t = (int(_first(groups, axis) or 1) for axis in ("field", "z", "t"))
        except ValueError:  # a number that is none, or a well that no plate has
            return None
        channel = groups.get("channel") or "1"
        if self.channel_id == "{channel}" and channel.isdecimal():
            channel = f"ch{channel}"
        return PlaneFile(
            path, well, field, self.channel_id.format_map(groups | {"channel": channel}), z, t
        )

    def names(self, path: str, *axes: str) -> bool:
        """Whether the name of the file `path` gives any of `axes`, such as ``field`` or ``z``."""
        match = self.regex.search(path)
        return match is not None and any(_first(match.groupdict(), axis) for axis in axes)


@dataclass(frozen=True, slots=True)
class PlaneFile:
    """One image file and the plane that its name says; numbers as found, 1 where absent."""

    path: str
    """Below the plate folder, with ``/``."""
    well: WellAddress
    field: int
    channel: str
    """Id such as ``w1``; see `VendorPattern.channel_id`."""
    z: int
    t: int


@dataclass(frozen=True, slots=True)
class PlaneIndex:
    """The planes of a plate by zero-based indices.

    An index counts the sorted numbers found in the whole plate, so that field 2 is the same
    site in every well; a site that a well lacks is not listed there.
    """

    fields: tuple[int, ...]
    """Numbers of the fields as the files say, sorted; likewise the next three."""
    channels: tuple[str, ...]
    zs: tuple[int, ...]
    ts: tuple[int, ...]
    wells: dict[WellAddress, dict[int, dict[tuple[int, int, int], str]]]
    """Well -> field -> ``(t, c, z)`` -> path below the plate folder."""


_WELL = r"(?P<well>[A-Z]{1,2}\d{1,2})"
_GUID = r"(?:[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12})?"

VENDORS = (
    VendorPattern(
        "openhcs",
        re.compile(
            r"(?:^|/)(?P<well>[A-Z]{1,2}\d{2})_s(?P<field>\d{3,})_w(?P<channel>\d+)"
            r"_z(?P<z>\d{3,})_t(?P<t>\d{3,})\.(?:ome\.)?tiff?$"
        ),
        "A01_s001_w1_z001_t001.tif",
        "s site, w wavelength, z plane, t time point; all from 1",
        "https://github.com/OpenHCSDev/openhcs openhcs/microscopes/imagexpress.py "
        "(ImageXpressFilenameParser), openhcs/microscopes/openhcs.py",
        "w{channel}",
    ),
    VendorPattern(
        "imagexpress",
        re.compile(
            r"(?:^|/)(?:TimePoint[_-]?(?P<t_folder>\d+)/)?(?:ZStep[_-]?(?P<z_folder>\d+)/)?"
            rf"(?:[^/]*?_)??(?-i:{_WELL})(?:_s(?P<field>\d+))?(?:_w(?P<channel>\d+?))?"
            rf"(?:_z(?P<z>\d+))?(?:_t(?P<t>\d+))?{_GUID}\.tiff?$",
            re.IGNORECASE,
        ),
        "TimePoint_1/ZStep_2/Plate_A01_s1_w1.tif",
        "s site and w wavelength, left out where there is one; TimePoint_n and ZStep_n folders, "
        "ZStep_0 is the projection; all else from 1",
        "https://github.com/ome/bioformats components/formats-gpl/src/loci/formats/in/"
        "CellWorxReader.java (getTiffFiles); https://github.com/CarragherLab/parserix "
        "(names with a GUID); https://rdrr.io/github/asauvat/MetaxpR/man/GetIMPath.html (z 0)",
        "w{channel}",
        projection=0,
    ),
    VendorPattern(
        "phenix",
        re.compile(
            r"(?:^|/)r(?P<row>\d{2})c(?P<column>\d{2})f(?P<field>\d+)p(?P<z>\d+)"
            r"-ch(?P<channel>\d+)(?:sk(?P<t>\d+))?(?:fk\d+)?(?:fl\d+)?\.tiff?$"
        ),
        "Images/r01c01f01p01-ch1sk1fk1fl1.tiff",
        "r row and c column by number, f field, p plane, ch channel, sk time point; all from 1",
        "https://fractal-analytics-platform.github.io/fractal-uzh-converters/dev/converters/"
        "operetta (PerkinElmer Operetta / Opera Phenix)",
        "ch{channel}",
    ),
    VendorPattern(
        "cellvoyager",
        re.compile(
            rf"(?:^|[/_]){_WELL}_T(?P<t>\d{{4,}})F(?P<field>\d{{3,}})L\d+A(?P<action>\d+)"
            r"Z(?P<z>\d+)C(?P<channel>\d+)\.(?:tiff?|png)$"
        ),
        "AssayPlate_A01_T0001F001L01A01Z01C01.tif",
        "T time point, F field, Z plane, all from 1; A action and C channel make the channel",
        "https://github.com/fractal-analytics-platform/fractal-tasks-core "
        "fractal_tasks_core/cellvoyager/filenames.py (parse_filename)",
        "A{action}_C{channel}",
    ),
)
"""The known microscopes; of those that fit equally many files the first one wins."""


def user_pattern(regex: str) -> VendorPattern:
    """A pattern from a regular expression that a user gives.

    It is searched in the path below the plate folder and names the groups ``well`` (or ``row``
    and ``column``; rows are letters or numbers from 1), ``field``, ``channel``, ``z`` and ``t``.

    Raises:
        URIError: it does not compile, names no well, or names a group of another kind.
    """
    try:
        compiled = re.compile(regex)
    except re.error as error:
        raise URIError(f"the pattern {regex!r} is no regular expression: {error}") from error
    groups = set(compiled.groupindex)
    unknown = sorted(groups - {"well", "row", "column", "field", "channel", "z", "t"})
    if unknown or not (("well" in groups) ^ ({"row", "column"} <= groups)):
        fault = f"has an unknown group {unknown[0]!r}" if unknown else "names no well"
        raise URIError(
            f"the pattern {regex!r} {fault}; name the groups (?P<well>…), or (?P<row>…) and "
            "(?P<column>…), and any of field, channel, z and t"
        )
    return VendorPattern("pattern", compiled, regex, "as the groups say", "given by the user")


def match_files(
    paths: Iterable[str], pattern: str | VendorPattern | None = None
) -> tuple[VendorPattern, list[PlaneFile], list[str]]:
    """Which microscope wrote `paths`, their planes, and the images that are no plane of it.

    Args:
        paths: of files below the plate folder, with ``/``. Files other than images, thumbnails,
            hidden files and CellVoyager's correction images are passed over.
        pattern: a microscope's name or a regular expression (see `user_pattern`); without one
            the microscope is taken whose pattern fits most files.

    Raises:
        UnknownLayoutError: no file fits.
        AmbiguousPlateError: two files are one plane.
        URIError: `pattern` is no pattern.
    """
    images = [p for p in paths if p.lower().endswith(IMAGE_SUFFIXES) and not _HIDDEN.search(p)]
    candidates = _candidates(pattern)
    best, planes = candidates[0], list[PlaneFile]()
    for candidate in candidates:
        found = [plane for path in images if (plane := candidate.read(path)) is not None]
        if len(found) > len(planes):
            best, planes = candidate, found
        if len(planes) == len(images):
            break
    if not planes:
        raise UnknownLayoutError(_nothing_fits(candidates, images))
    planes = _without_strays(best, planes)
    index_planes(planes)
    used = {plane.path for plane in planes}
    ignored = [path for path in images if path not in used and not _CORRECTION.search(path)]
    return best, planes, ignored


def index_planes(planes: Sequence[PlaneFile]) -> PlaneIndex:
    """`planes` by zero-based indices.

    Raises:
        AmbiguousPlateError: two files are one plane.
    """
    fields = sorted({plane.field for plane in planes})
    channels = sorted({plane.channel for plane in planes}, key=_natural)
    zs, ts = sorted({plane.z for plane in planes}), sorted({plane.t for plane in planes})
    f_of, c_of, z_of, t_of = ({v: i for i, v in enumerate(a)} for a in (fields, channels, zs, ts))
    wells: dict[WellAddress, dict[int, dict[tuple[int, int, int], str]]] = {}
    for plane in planes:
        field = wells.setdefault(plane.well, {}).setdefault(f_of[plane.field], {})
        at = t_of[plane.t], c_of[plane.channel], z_of[plane.z]
        other = field.setdefault(at, plane.path)
        if other is not plane.path:
            raise AmbiguousPlateError(
                f"{other} and {plane.path} are one plane (well {plane.well}, field {plane.field}, "
                f"channel {plane.channel}, z {plane.z}, t {plane.t}); open the folder of one "
                "plate, or tell the files apart with ?pattern="
            )
    return PlaneIndex(tuple(fields), tuple(channels), tuple(zs), tuple(ts), wells)


def expected_path(
    pattern: VendorPattern, index: PlaneIndex, well: WellAddress, field: int, t: int, c: int, z: int
) -> str:
    """The path that a missing plane of a listed field would have, by its neighbours' names."""
    paths = [path for f in index.wells.values() for p in f.values() for path in p.values()]
    template = pattern.regex.search(next(iter(index.wells[well][field].values())))
    assert template is not None
    texts: dict[str, str] = {}
    for axis, value in (("channel", index.channels[c]), ("z", index.zs[z]), ("t", index.ts[t])):
        for path in paths:
            plane = pattern.read(path)
            if plane is not None and getattr(plane, axis) == value:
                donor = pattern.regex.search(path)
                assert donor is not None
                texts |= {g: x for g, x in donor.groupdict().items() if x and g in _AXES[axis]}
                break
    name = template.string
    present = [g for g in texts if template[g] is not None]
    for group in sorted(present, key=template.start, reverse=True):
        name = name[: template.start(group)] + texts[group] + name[template.end(group) :]
    return name


@dataclass(frozen=True, slots=True)
class VendorMetadata:
    """What a microscope's companion file tells; empty where it does not."""

    channels: dict[int, str] = field(default_factory=dict)
    """Number of a channel in file names -> its name."""
    pixel_size: tuple[float | None, float | None] = (None, None)
    """Micrometres, z and both y and x."""
    grid: tuple[int, int] | None = None
    """Rows and columns of the plate."""


def read_htd(text: str) -> VendorMetadata:
    """What an ImageXpress ``.HTD`` file says: lines such as ``"WaveName1", "DAPI"``."""
    found = dict(re.findall(r'^"(\w+)",\s*"?([^"\r\n]*)', text, re.MULTILINE))
    waves = {int(k[8:]): v.strip() for k, v in found.items() if re.fullmatch(r"WaveName\d+", k)}
    sizes = found.get("YWells", ""), found.get("XWells", "")
    grid = (int(sizes[0]), int(sizes[1])) if all(s.strip().isdecimal() for s in sizes) else None
    return VendorMetadata({n: v for n, v in waves.items() if v}, grid=grid)


def read_harmony_index(file: IO[bytes], channels: set[int], stack: bool) -> VendorMetadata:
    """What Harmony's ``Index.xml`` (Opera Phenix, Operetta) says; reads no further than needed.

    Args:
        file: the XML; its lengths are in metres.
        channels: numbers of the channels whose names are wanted.
        stack: whether the distance of z planes is wanted.

    Raises:
        xml.etree.ElementTree.ParseError: it is no XML, as far as it was read.
    """
    from xml.etree.ElementTree import iterparse

    names: dict[int, str] = {}
    grid, side, step, heights = None, None, None, dict[tuple[str, ...], tuple[int, float]]()
    for _, element in iterparse(file):
        tag = element.tag.rpartition("}")[2]
        if tag not in ("Plate", "Entry", "Image"):
            continue
        text = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element}
        if {"PlateRows", "PlateColumns"} <= text.keys():
            grid = int(text["PlateRows"]), int(text["PlateColumns"])
        number = element.get("ChannelID") or text.get("ChannelID")
        if number and text.get("ChannelName"):
            names.setdefault(int(number), text["ChannelName"])
        if text.get("ImageResolutionX"):
            side = side or float(text["ImageResolutionX"]) * 1e6
        if "PlaneID" in text and "PositionZ" in text:
            stack_of = tuple(text.get(k, "") for k in ("Row", "Col", "FieldID", "ChannelID"))
            plane, height = int(text["PlaneID"]), float(text["PositionZ"]) * 1e6
            first = heights.setdefault(stack_of, (plane, height))
            if plane != first[0]:
                step = step or abs(height - first[1]) / abs(plane - first[0])
        if tag == "Image":
            element.clear()
        if channels <= names.keys() and side and grid and (step or not stack):
            break
    return VendorMetadata(names, (step or None, side), grid)


def channel_number(channel: str) -> int | None:
    """The number at the end of a channel's id, ``1`` of ``w1`` or ``A01_C01``."""
    digits = re.search(r"\d+$", channel)
    return int(digits[0]) if digits else None


def _candidates(pattern: str | VendorPattern | None) -> tuple[VendorPattern, ...]:
    if pattern is None:
        return VENDORS
    if isinstance(pattern, VendorPattern):
        return (pattern,)
    return tuple(v for v in VENDORS if v.name == pattern.lower()) or (user_pattern(pattern),)


def _without_strays(pattern: VendorPattern, planes: list[PlaneFile]) -> list[PlaneFile]:
    """`planes` without projections, and without overviews such as ``overview_B02.tif``: names
    with neither field nor channel in a folder where others have them."""
    numbered = [p for p in planes if pattern.names(p.path, "field", "channel")]
    planes = numbered or planes
    return [p for p in planes if p.z != pattern.projection] or planes


def _nothing_fits(candidates: Sequence[VendorPattern], images: Sequence[str]) -> str:
    if not images:
        return f"there is no image file ({', '.join(IMAGE_SUFFIXES)})"
    tried = ", ".join(f"{c.name} ({c.example})" for c in candidates)
    return (
        f"the names of {len(images)} image files fit no known microscope, for example "
        f"{', '.join(images[:3])}; tried {tried}. Give a regular expression with ?pattern=, "
        "with groups well, field, channel, z and t"
    )


@lru_cache(maxsize=4096)
def _well(well: str, row: str, column: str | None) -> WellAddress:
    """The address; AddressError (a ``ValueError``) where no plate has it."""
    if not well:
        if row.isdecimal():
            row = row_name(int(row) - 1)
        well = f"{row}{int(column or '')}"
    address = parse_well(well)
    if Layout.of(1536).find(address) is None:
        raise AddressError(f"no plate has a well {well}")
    return address


def _first(groups: dict[str, str | None], axis: str) -> str | None:
    return next((groups[g] for g in _AXES[axis] if groups.get(g)), None)


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", text)]
