"""Many loads or saves at once: each image is opened once, each well committed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...contracts import Identifier
from ...errors import AlreadyExistsError, MismatchError
from ...hcs.address import PlaneSelection
from ...hcs.plate import Image
from ...threads import WAITING, in_threads
from .commit import check_well
from .planes import Part, assemble, check_parts, replace_planes
from .plate import ZarrPlate
from .store_path import StorePath
from .target import Target, parse_target


class _Like(NamedTuple):
    shape: tuple[int, ...]
    dtype: Any


def load_images(targets: Sequence[Target]) -> list[Any]:
    """The selected planes of fields and label images, in the order of `targets`.

    Each image is opened once, and what is named twice is read once.
    """
    images: dict[tuple[str, str], Image] = {}
    reads: dict[tuple[str, str, PlaneSelection], Image] = {}
    keys = []
    for target in targets:
        address = target.address
        assert address.field is not None
        image_key = target.plate_uri, str(address)
        if image_key not in images:
            image = target.open()[str(address.well)].image(address.field)
            images[image_key] = image if address.label is None else image.label(address.label)
        keys.append((*image_key, address.planes))
        reads[keys[-1]] = images[image_key]
    far = any(isinstance(target.root, StorePath) for target in targets)
    workers = WAITING if far else 1  # Blosc keeps the cores of this machine busy by itself
    pixels = in_threads(lambda read: reads[read].select(read[2]), list(reads), workers)
    arrays = dict(zip(reads, pixels, strict=True))
    seen = set()
    loaded = []
    for key in keys:
        loaded.append(arrays[key].copy() if key in seen else arrays[key])  # each is the caller's
        seen.add(key)
    return loaded


def save_fields(data: Sequence[Any], targets: Sequence[Target], *, overwrite: bool = False) -> None:
    """Write fields and planes of fields, new fields of one well in one commit.

    Planes make up a new field if all of it are given, or replace those of one that is there.
    Shapes, dtypes and what is there already are checked for all of them before anything is
    written. Atomic for each well, and for each field of which planes are replaced; a failure
    leaves what was written before it.

    Raises:
        MismatchError: shapes or dtypes differ, or something is given twice.
        UnsupportedError: planes of a new field are missing.
        AlreadyExistsError: a field or plane exists and `overwrite` is false.
    """
    plates: dict[str, ZarrPlate] = {}
    wells: dict[tuple[str, str], dict[str, Any]] = {}
    parts: dict[tuple[str, str, str], list[Part]] = {}
    for array, target in zip(data, targets, strict=True):
        address, uri = target.address, target.plate_uri
        assert address.field is not None
        plate = plates.setdefault(uri, target.open("r+"))
        well = plate.layout_path(str(address.well))
        fields = wells.setdefault((uri, well), {})
        if address.field in fields:
            raise MismatchError(f"{target.uri} is given twice")
        if address.planes.is_all:
            fields[address.field] = plate.fit_image(str(address.well), address.field, array)
        else:
            part = Part.of(str(target.uri), address.planes, array)
            parts.setdefault((uri, well, address.field), []).append(part)
    for (uri, well, field), some in list(parts.items()):
        if field in wells[uri, well]:
            raise MismatchError(f"{some[0].uri} and the whole field are given")
        if field not in plates[uri].present(well):
            where = f"{uri}/{well}/{field}"
            wells[uri, well][field] = assemble(plates[uri], where, parts.pop((uri, well, field)))
        elif not overwrite:
            raise AlreadyExistsError(f"{some[0].uri} exists; give overwrite=True to replace it")
        else:
            check_parts(plates[uri][well].image(field).info, some)
    like: dict[str, Any] = {}
    for (uri, well), fields in wells.items():
        for array in list(fields.values())[:1]:
            first = _Like(array.shape, array.dtype)  # an array itself has no truth value
            options: dict[str, Any] = {"overwrite": overwrite, "keep_others": True}
            check_well(plates[uri], well, fields, like=like.setdefault(uri, first), **options)
    for (uri, well), fields in wells.items():
        if fields:
            plates[uri].write_well(well, fields, overwrite=overwrite, keep_others=True)
    for (uri, well, field), some in parts.items():
        replace_planes(plates[uri], well, field, some)


def images_in(identifiers: Sequence[Identifier]) -> list[Target] | None:
    """All `identifiers` as targets, if each names a field or a label image."""
    targets = [parse_target(identifier) for identifier in identifiers]
    image = all(target.address.kind in ("field", "label") for target in targets)
    return targets if image else None
