"""Plates and images of OMERO as the model of ``hcs`` has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import AlreadyExistsError, NotFoundError, UnsupportedError
from ...hcs.image import Channel, ImageInfo
from ...hcs.layout import Layout
from ...hcs.plate import Image, Mode, Notes, Plate
from ...hcs.provenance import Provenance
from .. import codecs
from . import derived, labels, tables
from .annotations import PROVENANCE, TABLE_TYPE, Owner, read_file, write_file
from .contents import Contents
from .planes import read_planes
from .structure import ImageStructure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class OmeroImage(Image):
    """A field; reads the planes that are asked for, each by one call."""

    def __init__(self, contents: Contents, stored: ImageStructure, uri: str) -> None:
        super().__init__(uri, contents.info(stored, uri))
        self.contents, self.stored = contents, stored

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label images of this field."""
        return tuple(sorted(self.contents.labels(self.stored)))

    def label(self, name: str) -> Image:
        """The label image `name`; its masks are read when its pixels are."""
        if name not in self.contents.labels(self.stored):
            return super().label(name)
        return OmeroLabel(self, name)

    def planes(self, places: Sequence[tuple[int, int, int]]) -> list[NDArray[Any]]:
        """Planes at ``(t, c, z)``, in their order; one named twice is read once."""
        mounted = self.contents.mounted(self.stored, self.info)
        if mounted is not None:
            return [mounted.plane(*place) for place in places]
        distinct = list(dict.fromkeys(places))
        read = read_planes(
            self.contents.connection,
            self.stored.pixels_id,
            distinct,
            (self.shape[3], self.shape[4]),
            self.dtype,
            self.uri,
        )
        by_place = dict(zip(distinct, read, strict=True))
        first = {place: at for at, place in reversed(list(enumerate(places)))}
        # A caller may change one of them, so what is named twice is copied.
        return [
            by_place[place] if first[place] == at else by_place[place].copy()
            for at, place in enumerate(places)
        ]

    def _read(self, level: int, t: int | None, c: int | None, z: int | None) -> NDArray[Any]:
        import numpy as np

        sizes = self.shape[:3]
        axes = [range(n) if i is None else (i,) for i, n in zip((t, c, z), sizes, strict=True)]
        planes = self.planes([(i, j, k) for i in axes[0] for j in axes[1] for k in axes[2]])
        kept = [n for i, n in zip((t, c, z), sizes, strict=True) if i is None]
        if not kept:
            return planes[0]
        return np.stack(planes).reshape(*kept, *self.shape[3:])


class OmeroLabel(Image):
    """A label image."""

    def __init__(self, image: OmeroImage, name: str) -> None:
        import numpy as np

        contents = image.contents
        self._contents, self._of = contents, image.stored
        self._kept = contents.labels(image.stored)[name]
        dtype: np.dtype[Any] = np.dtype(json.loads(self._kept.description)["dtype"])
        shape = (image.shape[0], 1, *image.shape[2:])
        info = ImageInfo(shape, dtype, (Channel(name),), image.pixel_size)
        super().__init__(f"{image.uri}/labels/{name}", info)

    def _read(self, level: int, t: int | None, c: int | None, z: int | None) -> NDArray[Any]:
        whole = labels.read_label(self._contents.connection, self._kept, self.shape, self.uri)
        every = slice(None)
        part: NDArray[Any] = whole[
            every if t is None else t, every if c is None else c, every if z is None else z
        ]
        return part


class OmeroPlate(Plate):
    """A plate on a server."""

    def __init__(self, contents: Contents, uri: str, mode: Mode) -> None:
        self.contents, self.uri, self.mode = contents, uri, mode
        self.name = contents.structure.name

    @property
    def layout(self) -> Layout:  # type: ignore[override]
        """The physical grid."""
        return self.contents.structure.layout

    @property
    def wells(self) -> tuple[str, ...]:
        """Paths of the wells that hold images, by row, then column."""
        return self.contents.structure.filled

    @property
    def channel_info(self) -> tuple[Channel, ...]:
        """Channels of the plate as it was made, or of its first image."""
        return self.contents.channels

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        """Micrometres ``(z, y, x)``."""
        return self.contents.pixel_size

    def _fields(self, well: str) -> tuple[str, ...]:
        return tuple(self.contents.structure.wells[well].images)

    def _image(self, well: str, field: str) -> OmeroImage:
        stored = self.contents.structure.wells[well].images[field]
        return OmeroImage(self.contents, stored, f"{self.uri}/{well}/{field}")

    def _provenance(self, well: str, field: str) -> Provenance | None:
        owner = Owner("Image", self.contents.structure.wells[well].images[field].image_id)
        for attachment in self.contents.attachments:
            if (attachment.owner, attachment.ns) == (owner, PROVENANCE):
                where = f"{self.uri}/{well}/{field}"
                return Provenance.from_json(json.loads(attachment.description), where)
        return super()._provenance(well, field)

    def read_table(self, path: str) -> Any:
        """The table or text at `path` below the plate."""
        where = f"{self.uri}/{path}"
        found = self.contents.files.get(self.stored_path(path))
        if found is None or found.file_id is None:
            raise NotFoundError(f"{where} does not exist")
        if found.mimetype == TABLE_TYPE:
            return tables.read_table(self.contents.connection, found.file_id, where)
        data = read_file(self.contents.connection, found.file_id, found.size, where)
        return codecs.decode(data, path, where=where)

    def stored_path(self, path: str) -> str:
        """`path` with the names that the plate has, so that ``B/03/a.csv`` finds ``B/3/a.csv``."""
        row, _, rest = path.strip("/").partition("/")
        column, _, below = rest.partition("/")
        if row.isalpha() and column.isdecimal():
            return f"{self.layout_path(f'{row}/{column}')}/{below}".rstrip("/")
        return path.strip("/")

    # Writing

    def _write_noted(
        self,
        well: str,
        images: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Mapping[str, NDArray[Any]]],
        overwrite: bool,
        keep_others: bool,
        notes: Notes,
    ) -> None:
        if any(acquisition is not None for acquisition in notes.acquisitions.values()):
            raise UnsupportedError(
                f"{self.uri}: only OME-Zarr plates keep acquisitions; write one plate for each"
            )
        self.contents.forget()
        try:
            derived.write_well(
                self,
                well,
                images,
                labels,
                notes.provenance,
                overwrite=overwrite,
                keep_others=keep_others,
            )
        finally:
            self.contents.forget()

    def _write_label(
        self, well: str, field: str, name: str, array: NDArray[Any], overwrite: bool
    ) -> None:
        where = f"{self.uri}/{well}/{field}/labels/{name}"
        image = self.contents.structure.wells[well].images[field]
        old = self.contents.labels(image).get(name)
        if old is not None and not overwrite:
            raise AlreadyExistsError(f"{where} exists; pass overwrite=True to replace it")
        try:
            labels.write_label(
                self.contents.connection,
                image.image_id,
                name,
                array,
                self.contents.structure.group_id,
                where,
                old=old,
                overwrite=overwrite,
            )
        finally:
            self.contents.forget()

    def _write_file(self, path: str, data: Any, overwrite: bool) -> None:
        where, stored = f"{self.uri}/{path}", self.stored_path(path)
        is_table = codecs.suffix_of(path) in (".csv", ".tsv")
        encoded = b"" if is_table else codecs.encode(data, path, where=where)
        if not overwrite and stored in self.contents.files:
            raise AlreadyExistsError(f"{where} exists; pass overwrite=True to replace it")
        owner, inner = self.contents.owner_of(stored)
        connection, group = self.contents.connection, self.contents.structure.group_id
        try:
            if is_table:
                tables.write_table(
                    connection, owner, inner, data, group, where, overwrite=overwrite
                )
            else:
                write_file(connection, owner, inner, encoded, group, where, overwrite=overwrite)
        finally:
            self.contents.forget()
