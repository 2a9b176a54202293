"""Single planes of fields: all that make up a new one, or some that replace those of another.

A shard must have one writer, so planes are never written into a field that is there: it is read,
changed and replaced as a whole, under the well's lock. That costs as much as loading and saving the
field, for one plane or for many. Writers of planes of one field wait for each other, and none
loses what another saved.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import (
    AddressError,
    AlreadyExistsError,
    ConflictError,
    MismatchError,
    UnsupportedError,
)
from ...hcs import ngff
from ...hcs.address import PlaneSelection
from ...hcs.image import AXES, ImageInfo, five_dimensional, named_channels, to_numpy
from ...hcs.well import MOST_READS
from ...metadata import read_json
from . import arrays
from .commit import forget_consolidated
from .locks import locked
from .nodes import attributes_in, document_path, read_attributes, translated
from .plate import ZarrPlate
from .staging import put, staged, sync_tree
from .store_path import StorePath
from .uploads import Upload, image_id, upload


@dataclass(frozen=True, slots=True)
class Part:
    """Planes of a field that are to be saved."""

    uri: str
    """Shown in errors."""
    planes: PlaneSelection
    data: NDArray[Any]
    """``(t, c, z, y, x)``, of length 1 along an axis for which `planes` has an index."""

    @classmethod
    def of(cls, uri: str, planes: PlaneSelection, data: Any) -> Part:
        """`data` with the axes that `planes` leaves, or one plane ``(y, x)``."""
        if planes.level:
            raise UnsupportedError(f"{uri}: level 0 is saved, and makes those below it")
        try:
            array = to_numpy(data)
            dropped = [i for i, at in enumerate((planes.t, planes.c, planes.z)) if at is not None]
            if array.ndim == 5 - len(dropped):
                array = np.expand_dims(array, dropped)
            return cls(uri, planes, five_dimensional(array))
        except MismatchError as error:
            raise MismatchError(f"{uri}: {error}") from error

    @property
    def extent(self) -> tuple[int, ...]:
        """The least lengths of t, c and z of a field that has these planes."""
        chosen = (self.planes.t, self.planes.c, self.planes.z)
        lengths = zip(chosen, self.data.shape, strict=False)
        return tuple(i + 1 if isinstance(i, int) else n for i, n in lengths)

    def index(self, info: ImageInfo) -> tuple[slice, ...]:
        """Where in a field like `info` they belong.

        Raises:
            AddressError: the field has no such planes.
            MismatchError: the shape or dtype is not that of the planes.
        """
        try:
            chosen = info.indices(self.planes)
        except AddressError as error:
            raise AddressError(f"{self.uri}: {error}") from error
        index = tuple(
            slice(0, n) if i is None else slice(i, i + 1)
            for i, n in zip(chosen, info.shape, strict=False)
        )
        wanted = (*(part.stop - part.start for part in index), *info.shape[3:])
        if (self.data.shape, self.data.dtype) != (wanted, info.dtype):
            raise MismatchError(
                f"{self.uri}: the array is {self.data.shape} {self.data.dtype}, but these planes "
                f"of the field are {wanted} {info.dtype}"
            )
        return index


def assemble(plate: ZarrPlate, where: str, parts: Sequence[Part]) -> NDArray[Any]:
    """The new field that `parts` make up.

    Raises:
        UnsupportedError: planes are missing.
        MismatchError: parts overlap, or do not fit each other or the plate.
    """
    info = _like(plate, parts)
    count, given = math.prod(info.shape[:3]), sum(math.prod(p.data.shape[:3]) for p in parts)
    if given < count:
        raise UnsupportedError(
            f"{where} does not exist, and {count - given} of its {count} planes are missing; save "
            "all planes of a new field in one save_batch(), or the whole field"
        )
    check_parts(info, parts)
    array = np.empty(info.shape, info.dtype)
    for part in parts:
        array[part.index(info)] = part.data
    return array


def check_parts(info: ImageInfo, parts: Sequence[Part]) -> None:
    """Refuse `parts` that overlap, or that are no planes of a field like `info`."""
    covered = np.zeros(info.shape[:3], bool)
    for part in parts:
        index = part.index(info)
        if covered[index].any():
            raise MismatchError(f"{part.uri} is given twice")
        covered[index] = True


def replace_planes(plate: ZarrPlate, well: str, field: str, parts: Sequence[Part]) -> None:
    """Replace planes of a field that is there; atomic. Its label images and attributes stay.

    In a store, where nothing is locked, it is done anew where another writer was faster.

    Raises:
        UnsupportedError: another program wrote the field, with other axes than ours.
        ConflictError: in a store, others replace the field all the time.
    """
    group = plate.group(well, field)
    where = f"{plate.uri}/{well}/{field}"
    if isinstance(group, StorePath):
        with translated(where), TemporaryDirectory(prefix="polystore-") as folder:
            for attempt in range(MOST_READS):
                staged_field = Path(folder, str(attempt))
                document = document_path(group, plate.version)
                content = read_json(document)
                _stage(plate, well, field, parts, staged_field)
                made = upload(
                    staged_field,
                    group,
                    plate.version,
                    image_id(attributes_in(document, content, where)),
                )
                if made.before == content and _committed(made, where):
                    return
                made.withdraw()
                shutil.rmtree(staged_field)
        raise ConflictError(f"{where} is replaced by others all the time; try again")
    with translated(where), staged(plate.root) as stage, locked(plate, well):
        forget_consolidated(plate)
        rewritten = _stage(plate, well, field, parts, stage / "field")

        def known(folder: str, names: list[str]) -> set[str]:
            return rewritten & set(names) if Path(folder) == group else set()

        # All files are replaced and never changed, so the old field and the new can share them.
        options: dict[str, Any] = {"ignore": known, "copy_function": _link, "dirs_exist_ok": True}
        shutil.copytree(group, stage / "field", **options)
        sync_tree(stage)
        put(stage / "field", group, plate.root)


def _stage(
    plate: ZarrPlate, well: str, field: str, parts: Sequence[Part], folder: Path
) -> set[str]:
    """Write the field with new planes, but nothing below it; names of what was written anew."""
    image = plate[well].image(field)
    attributes = read_attributes(plate.group(well, field), image.uri)
    document = ngff.read_image(attributes, image.uri)
    if document.axes != AXES:
        raise UnsupportedError(
            f"{image.uri} was written by another program, with the axes "
            f"{', '.join(document.axes)}; save the whole field"
        )
    array = image.read()
    for part in parts:
        array[part.index(image.info)] = part.data
    arrays.write_field(
        folder,
        array,
        name=f"{well}/{field}",
        channels=image.info.channels,
        provenance=None,
        pixel_size=image.pixel_size,
        levels=image.levels,
        config=plate.config,
        kept=attributes,
    )
    return {"zarr.json", ".zattrs", ".zgroup", *document.paths}


def _committed(made: Upload, where: str) -> bool:
    try:
        made.commit(where, overwrite=False)
    except AlreadyExistsError:
        return False
    made.remove_replaced()
    return True


def _like(plate: ZarrPlate, parts: Sequence[Part]) -> ImageInfo:
    """What a new field is like: the plate's other fields, else as large as `parts` need."""
    channels = plate.channel_info
    known = plate.ours.get("field")
    if known:
        shape, dtype = tuple(known["shape"]), np.dtype(known["dtype"])
    elif plate.first_image:
        shape, dtype = plate.first_image.shape, plate.first_image.dtype
    else:
        t, c, z = map(max, zip(*(part.extent for part in parts), strict=True))
        shape, dtype = (t, len(channels) or c, z, *parts[0].data.shape[3:]), parts[0].data.dtype
    names = [str(i) for i in range(shape[1])]
    return ImageInfo(shape, dtype, channels or named_channels(names), plate.pixel_size)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no hard links
        shutil.copy2(source, target)
