"""What a plate folder holds: its wells, channels and pixel size, found without reading pixels.

Our own folder says so in its document. A microscope's folder costs one listing, the header of
one image and, if there is one, the microscope's own metadata file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import cast
from xml.etree.ElementTree import ParseError

from ..errors import (
    AmbiguousPlateError,
    CorruptMetadataError,
    MismatchError,
    NotFoundError,
    StoredDataError,
    UnknownLayoutError,
)
from ..hcs.address import WellAddress, parse_well, plane_file_name
from ..hcs.image import Shape, named_channels
from ..hcs.layout import Layout, row_name
from ..hcs.spec import PlateSpec
from ..hcs.vendors import (
    IMAGE_SUFFIXES,
    PlaneIndex,
    VendorMetadata,
    VendorPattern,
    channel_number,
    expected_path,
    index_planes,
    match_files,
    read_harmony_index,
    read_htd,
)
from .codecs import ImageHeader, read_image_header
from .folder_writer import (
    LABELS,
    Document,
    Folder,
    OwnPlate,
    own_plate,
    plane_names,
    read_document,
)

_HARMONY = ("index.idx.xml", "index.xml", "index.ref.xml")
_OURS = (f"{LABELS}/", "tables/")
_FRESH = 2.0  # seconds that a listing is trusted, and the coarsest time stamp of a file system
_MOST_RECENT = 8  # listings that are kept


@dataclass(frozen=True, slots=True)
class Contents:
    """All that opening a folder finds out."""

    spec: PlateSpec
    shape: Shape | None
    """``(t, c, z, y, x)`` of every field; None before the first."""
    dtype: str | None
    fields: Mapping[str, tuple[str, ...]]
    """Stored path of a well -> its fields; wells by row, then column."""
    pattern: VendorPattern | None = None
    """Of a microscope's folder; None for our own."""
    index: PlaneIndex | None = None
    ignored: tuple[str, ...] = ()
    """Images that are no plane of the plate."""
    folders: frozenset[str] = frozenset()
    """The plate folder and those below it that hold files."""

    def path(self, well: str, field: str, t: int, c: int, z: int) -> str:
        """The file that holds a plane of a listed field; it may hold other planes too.

        Raises:
            NotFoundError: the listing did not have it; names the file that is missing.
        """
        address, number = parse_well(well), int(field)
        if self.index is None or self.pattern is None:
            return plane_file_name(address, number, c, z, t)
        index = self.index
        axes = (t, len(index.ts)), (c, len(index.channels)), (z, len(index.zs))
        t, c, z = (i if n > 1 else 0 for i, n in axes)  # an axis that no name counts is in a file
        found = index.wells[address][number].get((t, c, z))
        if found is None:
            missing = expected_path(self.pattern, index, address, number, t, c, z)
            raise NotFoundError(f"{missing} is missing, a plane of {well}/{field}")
        return found

    def paths(self, well: str, field: str) -> list[str]:
        """All files of a listed field that are there."""
        if self.index is None:
            return plane_names("", well, field, self.shape or (0, 0, 0))
        return list(self.index.wells[parse_well(well)][int(field)].values())


def look(folder: Folder, pattern: str | None) -> Contents:
    """What `folder` holds now; `pattern` as in ``match_files``.

    Raises:
        NotFoundError: there is no folder, or no image in it.
        UnknownLayoutError: its file names fit no known microscope.
        AmbiguousPlateError: two files are one plane.
        MismatchError: names and files count one axis both.
        CorruptMetadataError, CorruptDataError: a document or the first image is damaged.
    """
    document = read_document(folder)
    own = own_plate(folder, document) if pattern is None else None
    if own is not None:
        return own_contents(own)
    listed = _listing(folder)
    below, told = _openhcs(document or {}, listed)
    paths = [p for p in listed if p.startswith(below) and not p.startswith(_OURS)]
    if not any(p.lower().endswith(IMAGE_SUFFIXES) for p in paths):
        raise NotFoundError(
            f"{folder.root} holds no image files; open the folder of the images, or make a plate "
            "with create_plate"
        )
    try:
        vendor, planes, ignored = match_files(paths, pattern)
    except (UnknownLayoutError, AmbiguousPlateError) as error:
        raise type(error)(f"{folder.root}: {error}") from error
    index = index_planes(planes)
    wells = sorted(index.wells, key=lambda well: (len(well.row), well.row, int(well.column)))
    first = index.wells[wells[0]]
    path = min(first[min(first)].items())[1]
    with folder.backend.open_binary(folder.at(path)) as file:
        header = read_image_header(file, path, where=folder.at(path))
    shape = _shape(folder, path, index, header)
    told = _merged(told, _companion(folder, vendor, paths, index, shape))
    return Contents(
        _spec(folder, wells, index, shape, header, told),
        shape,
        str(header.dtype.newbyteorder("=")),
        {str(well): tuple(str(f) for f in sorted(index.wells[well])) for well in wells},
        vendor,
        index,
        tuple(ignored),
        frozenset(parent for p in listed for parent in _parents(p)) | {""},
    )


def look_again(folder: Folder, pattern: str | None) -> Contents:
    """As `look`, but a microscope's folder on disk that has not changed is not listed again.

    For calls that each open the plate anew. A change is seen by the time stamps of the folders
    that hold files, and after two seconds in any case.
    """
    key, now = (folder.root.text, pattern), time.time()
    at, stamps, contents = _recent.get(key, (0.0, (), None))
    recent = contents is not None and 0 <= now - at < _FRESH
    if contents is not None and recent and stamps == _stamps(folder, contents.folders):
        return contents
    contents = look(folder, pattern)
    stamps = _stamps(folder, contents.folders) if folder.root.is_local else ()
    with _recent_lock:
        _recent.pop(key, None)
        # Of a folder that changed just now a later change might leave the time stamp as it is.
        if contents.pattern is not None and stamps and max(stamps) < now - _FRESH:
            while len(_recent) >= _MOST_RECENT:
                _recent.pop(next(iter(_recent)))
            _recent[key] = time.time(), stamps, contents
    return contents


_recent_lock = Lock()
_recent: dict[tuple[str, str | None], tuple[float, tuple[float, ...], Contents | None]] = {}


def own_contents(own: OwnPlate) -> Contents:
    """What the document of our own plate says."""

    def place(well: str) -> tuple[int, int]:
        return own.spec.layout.find(parse_well(well)) or (0, 0)

    fields = {well: own.fields[well] for well in sorted(own.fields, key=place)}
    return Contents(own.spec, cast("Shape | None", own.shape), own.dtype, fields)


def _listing(folder: Folder) -> list[str]:
    try:
        found = folder.backend.list_files(folder.root.text, recursive=True)
    except NotFoundError as error:
        raise NotFoundError(
            f"{folder.root}: there is no such folder; make a plate with create_plate"
        ) from error
    start = len(folder.root.text.rstrip("/")) + 1
    return [identifier[start:] for identifier in found]


def _parents(path: str) -> Iterable[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _stamps(folder: Folder, below: Iterable[str]) -> tuple[float, ...]:
    """When each folder last changed; empty if one is gone."""
    try:
        return tuple(os.stat(f"{folder.root.path}/{path}").st_mtime for path in sorted(below))  # noqa: PTH116
    except OSError:
        return ()


def _shape(folder: Folder, path: str, index: PlaneIndex, header: ImageHeader) -> Shape:
    try:
        held = header.tczyx
    except MismatchError as error:
        raise MismatchError(f"{folder.at(path)}: {error}") from error
    named = (len(index.ts), len(index.channels), len(index.zs))
    for axis, a, b in zip("tcz", named, held, strict=False):
        if a > 1 and b > 1:
            raise MismatchError(
                f"{folder.at(path)} holds {b} planes along {axis}, which the file names count as "
                "well; give a pattern that leaves it out"
            )
    t, c, z = (max(a, b) for a, b in zip(named, held, strict=False))
    return t, c, z, held[3], held[4]


def _spec(
    folder: Folder,
    wells: Sequence[WellAddress],
    index: PlaneIndex,
    shape: Shape,
    header: ImageHeader,
    told: VendorMetadata,
) -> PlateSpec:
    if len(index.channels) == shape[1]:
        numbers = {name: channel_number(name) or 0 for name in index.channels}
    else:  # the channels are in the files
        numbers = {str(i): i + 1 for i in range(shape[1])}
    names = [told.channels.get(number, name) for name, number in numbers.items()]
    names = [n if names.count(n) == 1 else f"{n} {i}" for n, i in zip(names, numbers, strict=True)]
    tags = header.pixel_size or (1.0, 1.0, 1.0)
    depth, side = told.pixel_size
    size = (depth or tags[0], side or tags[1], side or tags[2])
    layout = None
    if told.grid is not None:
        rows, columns = map(range, told.grid)
        layout = Layout(tuple(map(row_name, rows)), tuple(str(i + 1) for i in columns))
    if layout is None or any(layout.find(well) is None for well in wells):
        layout = Layout.around(wells)
    name = folder.root.path.rpartition("/")[2] or folder.root.authority
    return PlateSpec(layout, named_channels(names), size, name)


def _openhcs(document: Document, listed: Sequence[str]) -> tuple[str, VendorMetadata]:
    """What an ``openhcs_metadata.json`` that is not ours says: where the images are, and more."""
    parts = document.get("subdirectories")
    parts = (
        {k: p for k, p in parts.items() if isinstance(p, dict)} if isinstance(parts, dict) else {}
    )
    if not parts:
        return "", VendorMetadata()
    name = next((k for k, p in parts.items() if p.get("main")), next(iter(parts)))
    names, side = parts[name].get("channels"), parts[name].get("pixel_size")
    channels = names.items() if isinstance(names, dict) else ()
    told = VendorMetadata(
        {int(k): v for k, v in channels if k.isdecimal() and isinstance(v, str) and v},
        (None, float(side) if isinstance(side, int | float) and side > 0 else None),
    )
    below = f"{name}/"
    return below if any(path.startswith(below) for path in listed) else "", told


def _merged(first: VendorMetadata, second: VendorMetadata) -> VendorMetadata:
    depth, side = (a or b for a, b in zip(first.pixel_size, second.pixel_size, strict=True))
    return VendorMetadata(
        second.channels | first.channels, (depth, side), first.grid or second.grid
    )


def _companion(
    folder: Folder, vendor: VendorPattern, paths: Sequence[str], index: PlaneIndex, shape: Shape
) -> VendorMetadata:
    """What the microscope's metadata file says, if it is among `paths`."""
    lower = {p: p.lower().rpartition("/")[2] for p in paths}
    if vendor.name == "phenix":
        found = [p for name in _HARMONY for p in paths if lower[p] == name]
    elif vendor.name == "imagexpress":
        found = sorted((p for p in paths if lower[p].endswith(".htd")), key=lambda p: p.count("/"))
    else:
        found = []
    if not found:
        return VendorMetadata()
    identifier = folder.at(found[0])
    try:
        with folder.backend.open_binary(identifier) as file:
            if vendor.name == "imagexpress":
                return read_htd(file.read().decode("cp1252", errors="replace"))
            numbers = {n for n in map(channel_number, index.channels) if n is not None}
            return read_harmony_index(file, numbers, shape[2] > 1)
    except (ParseError, ValueError) as error:
        if isinstance(error, StoredDataError):
            raise
        raise CorruptMetadataError(f"{identifier}: cannot be read: {error}") from error
