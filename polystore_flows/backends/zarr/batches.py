"""Many loads or saves at once: each image is opened once, each well committed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...contracts import Identifier
from ...errors import MismatchError, UnsupportedError
from ...hcs.plate import Image
from .commit import check_well
from .plate import ZarrPlate
from .target import Target, parse_target


class _Like(NamedTuple):
    shape: tuple[int, ...]
    dtype: Any


def load_images(targets: Sequence[Target]) -> list[Any]:
    """The selected planes of fields and label images, in the order of `targets`.

    Each image is opened once, and what is named twice is read once.
    """
    images: dict[tuple[str, str], Image] = {}
    read: dict[tuple[str, str, Any], Any] = {}
    loaded = []
    for target in targets:
        address = target.address
        assert address.field is not None
        image_key = target.plate_uri, str(address)
        if image_key not in images:
            image = target.open()[str(address.well)].image(address.field)
            images[image_key] = image if address.label is None else image.label(address.label)
        key = (*image_key, address.planes)
        if key in read:
            loaded.append(read[key].copy())  # a caller may change one of them
        else:
            read[key] = images[image_key].select(address.planes)
            loaded.append(read[key])
    return loaded


def save_fields(data: Sequence[Any], targets: Sequence[Target], *, overwrite: bool = False) -> None:
    """Write fields, those of one well in one commit.

    Shapes, dtypes and what is there already are checked for all of them before anything is
    written. Atomic for each well; a failure leaves the wells before it written.

    Raises:
        MismatchError: shapes or dtypes differ, or one field is given twice.
        AlreadyExistsError: a field exists and `overwrite` is false.
    """
    plates: dict[str, ZarrPlate] = {}
    wells: dict[tuple[str, str], dict[str, Any]] = {}
    for array, target in zip(data, targets, strict=True):
        address = target.address
        assert address.field is not None
        if not address.planes.is_all:
            raise UnsupportedError(
                f"{target.uri}: a single plane cannot be written; save the whole field"
            )
        plate = plates.setdefault(target.plate_uri, target.open("r+"))
        well = plate.layout_path(str(address.well))
        fields = wells.setdefault((target.plate_uri, well), {})
        if address.field in fields:
            raise MismatchError(f"{target.uri} is given twice")
        fields[address.field] = plate.fit_image(str(address.well), address.field, array)
    like: dict[str, Any] = {}
    for (uri, well), fields in wells.items():
        array = next(iter(fields.values()))
        first = _Like(array.shape, array.dtype)  # an array itself has no truth value
        options: dict[str, Any] = {"overwrite": overwrite, "keep_others": True}
        check_well(plates[uri], well, fields, like=like.setdefault(uri, first), **options)
    for (uri, well), fields in wells.items():
        plates[uri].write_well(well, fields, overwrite=overwrite, keep_others=True)


def images_in(identifiers: Sequence[Identifier]) -> list[Target] | None:
    """All `identifiers` as targets, if each names a field or a label image."""
    targets = [parse_target(identifier) for identifier in identifiers]
    image = all(target.address.kind in ("field", "label") for target in targets)
    return targets if image else None
