"""What a plate holds, as a tree of names, and many loads at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...contracts import Stat
from ...hcs.image import check_index
from ...hcs.plate import Image
from .annotations import Attachment
from .contents import Contents
from .planes import dtype_of
from .structure import ImageStructure

if TYPE_CHECKING:
    from .backend import OMEROLocalBackend
    from .target import Target


def is_file(contents: Contents, inner: str) -> bool:
    """Whether `inner` is a field, a label image or an attached file."""
    return (
        inner in contents.files
        or image_at(contents, inner) is not None
        or label_at(contents, inner) is not None
    )


def is_directory(contents: Contents, inner: str) -> bool:
    """Whether `inner` is a plate, a row with wells, a well, or a folder of files."""
    if not inner or inner in contents.structure.filled or is_row(contents, inner):
        return True
    if image_at(contents, inner) is not None:
        return False
    return any(path.startswith(f"{inner}/") for path in contents.files)


def is_row(contents: Contents, inner: str) -> bool:
    """Whether `inner` is a row with wells."""
    return any(well.startswith(f"{inner}/") for well in contents.structure.filled)


def children(contents: Contents, inner: str) -> tuple[set[str], set[str]]:
    """Names of the files and of the directories directly in the directory `inner`."""
    start = f"{inner}/" if inner else ""
    structure = contents.structure
    well = structure.wells.get(inner)
    files = set(well.images) if well is not None else set()
    folders = {
        path.removeprefix(start).split("/")[0]
        for path in structure.filled
        if path.startswith(start)
    }
    for path in contents.files:
        if path.startswith(start):
            first, slash, _ = path.removeprefix(start).partition("/")
            if slash and first not in files:
                folders.add(first)
            elif not slash:
                files.add(first)
    return files, folders


def walk(contents: Contents, inner: str, *, recursive: bool) -> Iterator[str]:
    """Paths of the files in the directory `inner`, and with `recursive` of all below."""
    if not recursive:
        start = f"{inner}/" if inner else ""
        yield from (start + name for name in children(contents, inner)[0])
        return
    start = f"{inner}/" if inner else ""
    labelled = contents.labelled
    for path, well in contents.structure.wells.items():
        for field in well.images:
            place = f"{path}/{field}"
            if place.startswith(start):
                yield place
                yield from (f"{place}/labels/{n}" for n in labelled.get((path, field), ()))
    yield from (path for path in contents.files if path.startswith(start))


def image_at(contents: Contents, inner: str) -> ImageStructure | None:
    """The image of the field `inner`."""
    well, _, field = inner.rpartition("/")
    stored = contents.structure.wells.get(well)
    return stored.images.get(field) if stored is not None else None


def label_at(contents: Contents, inner: str) -> Attachment | None:
    """The annotation of the label image `inner`."""
    field, middle, name = inner.partition("/labels/")
    image = image_at(contents, field) if middle else None
    return contents.labels(image).get(name) if image is not None else None


def stat(contents: Contents, inner: str) -> Stat:
    """Kind, bytes and time of what is at `inner`, which exists."""
    file, image, label = (
        contents.files.get(inner),
        image_at(contents, inner),
        label_at(contents, inner),
    )
    if file is not None:
        return Stat("file", file.size, file.created)
    if image is not None:
        return Stat("field", _bytes(image), image.created)
    if label is not None:
        of = image_at(contents, inner.partition("/labels/")[0])
        return Stat("label", _bytes(of) if of is not None else 0, label.created)
    start = f"{inner}/" if inner else ""
    images = [
        image
        for path, well in contents.structure.wells.items()
        if f"{path}/".startswith(start)
        for image in well.images.values()
    ]
    files = [f for path, f in contents.files.items() if path.startswith(start)]
    if inner in contents.structure.filled:
        return Stat("well", sum(map(_bytes, images)), max(i.created for i in images))
    size = sum(map(_bytes, images)) + sum(f.size for f in files)
    if not inner:
        return Stat("plate", size, contents.structure.created)
    newest = max([i.created for i in images] + [f.created for f in files], default=0.0)
    return Stat("directory", size, newest)


def survey(contents: Contents, kind: str) -> dict[str, float]:
    """Times of all wells and fields (``image``), or of all files; see ``PlateStore.survey``."""
    if kind == "file":
        return {path: file.created for path, file in contents.files.items()}
    found: dict[str, float] = {}
    for path, well in contents.structure.wells.items():
        times = {f"{path}/{field}": image.created for field, image in well.images.items()}
        if times:
            found |= {path: max(times.values()), **times}
    return found


def targets(contents: Contents, inner: str) -> dict[str, list[int]]:
    """Numbers, by OMERO's kind, of what is deleted with `inner`; no label image."""
    if not inner:
        return {"Plate": [contents.plate_id]}
    structure = contents.structure
    image = image_at(contents, inner)
    if image is not None:
        well = structure.wells[inner.rpartition("/")[0]]
        if len(well.images) > 1 or any(
            path.startswith(f"{inner.rpartition('/')[0]}/tables/") for path in contents.files
        ):
            return {"WellSample": [image.sample_id]}
        return {"Well": [well.well_id]}
    start = f"{inner}/"
    found: dict[str, list[int]] = {
        "Well": [
            well.well_id for path, well in structure.wells.items() if f"{path}/".startswith(start)
        ],
        "FileAnnotation": [
            f.id for path, f in contents.files.items() if path == inner or path.startswith(start)
        ],
    }
    return {kind: numbers for kind, numbers in found.items() if numbers}


def load_batch(backend: OMEROLocalBackend, wanted: Sequence[Target]) -> list[Any]:
    """Load each; the single planes of one image come through one store."""
    loaded: list[Any] = [None] * len(wanted)
    groups: dict[tuple[str, str], list[int]] = {}
    for place, target in enumerate(wanted):
        address = target.address
        if address.kind == "field" and address.planes.is_plane:
            groups.setdefault((target.plate_uri, str(address)), []).append(place)
        else:
            loaded[place] = backend.load(target.uri.text)
    for places in groups.values():
        first = wanted[places[0]]
        plate = backend._open(first)
        image = backend._image(plate, first.address)
        indices = [_indices(image, wanted[place]) for place in places]
        for place, plane in zip(places, image.planes(indices), strict=True):  # type: ignore[attr-defined]
            loaded[place] = plane
    return loaded


def _indices(image: Image, target: Target) -> tuple[int, int, int]:
    planes = target.address.planes
    t, c, z = planes.t or 0, 0 if planes.c is None else planes.c, planes.z or 0
    check_index("level", planes.level, image.levels)
    return (
        check_index("t", t, image.shape[0]),
        image.info.channel_index(c),
        check_index("z", z, image.shape[2]),
    )


def _bytes(image: ImageStructure) -> int:
    size = dtype_of(image.pixels_type, image.name).itemsize
    for length in image.shape:
        size *= length
    return size
