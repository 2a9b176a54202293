"""A plate of any backend as an OME-Zarr hierarchy that is made up while it is read.

So zarr, and all that opens OME-Zarr, read the TIFFs of a microscope or the planes of a server.
There are the documents of NGFF 0.5 and, of each image, the array of full size with a chunk for
each plane, uncompressed.
"""

from __future__ import annotations

import asyncio
import builtins
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from ...errors import AddressError, NotFoundError
from ...hcs import ngff
from ...hcs.field import Image
from ...hcs.image import AXES
from ...hcs.plate import Plate
from ...registry import plate_store_for
from ...uri import BackendURI, parse_uri
from .nodes import group_content
from .store import span


@dataclass(frozen=True, slots=True)
class _File:
    content: Callable[[], bytes]


_Level = Mapping[str, "_File | Callable[[], _Level]"]
"""Name -> a file, or what gives the level below."""


class PlateView(Store):
    """A read-only zarr v3 store that shows a plate as OME-Zarr; the plate is opened when needed.

    Args:
        uri: of the plate.
        read_only: must be true.
    """

    supports_writes: bool = False
    supports_deletes: bool = False
    supports_listing: bool = True

    def __init__(self, uri: str | BackendURI, *, read_only: bool = True) -> None:
        if not read_only:
            raise ValueError("a plate is shown as OME-Zarr for reading only")
        super().__init__(read_only=True)
        self._uri = parse_uri(uri)
        self._level = lru_cache(maxsize=1024)(self._find)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._uri,)

    def with_read_only(self, read_only: bool = True) -> PlateView:
        """The same store, which cannot be made writable."""
        return type(self)(self._uri, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other._uri == self._uri

    def __str__(self) -> str:
        return str(self._uri)

    def __repr__(self) -> str:
        return f"PlateView('{self}')"

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The document or chunk `key`, or a part of it; None where there is none."""
        start, end = span(byte_range)
        folder, _, name = key.rpartition("/")
        entry = self._level(folder).get(name)
        if not isinstance(entry, _File):
            return None
        content = entry.content()[start:end]
        return (prototype or default_buffer_prototype()).buffer.from_bytes(content)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """As `get_sync`."""
        await self._ensure_open()
        return await asyncio.to_thread(
            self.get_sync, key, prototype=prototype, byte_range=byte_range
        )

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> builtins.list[Buffer | None]:
        """`get` for each, in their order."""
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def exists(self, key: str) -> bool:
        """Whether there is such a document or chunk."""
        folder, _, name = key.rpartition("/")
        return isinstance((await asyncio.to_thread(self._level, folder)).get(name), _File)

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin with `prefix`."""
        folder = prefix.rpartition("/")[0]
        for key in await asyncio.to_thread(lambda: [*self._below(folder)]):
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The next part of all keys below the folder `prefix`."""
        for name in await asyncio.to_thread(self._level, prefix.strip("/")):
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        """Refused."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refused."""
        self._check_writable()

    def _find(self, folder: str) -> _Level:
        """What lies directly in `folder`; nothing where there is no such folder."""
        if not folder:
            return _plate(plate_store_for(self._uri).open_plate(self._uri.text))
        above, _, name = folder.rpartition("/")
        entry = self._level(above).get(name)
        try:
            return {} if entry is None or isinstance(entry, _File) else entry()
        except (NotFoundError, AddressError):  # removed since the plate was opened
            return {}

    def _below(self, folder: str) -> Iterator[str]:
        for name, entry in self._level(folder).items():
            key = f"{folder}/{name}".lstrip("/")
            if isinstance(entry, _File):
                yield key
            else:
                yield from self._below(key)


def _plate(plate: Plate) -> _Level:
    rows: dict[str, list[str]] = {}
    for well in plate.wells:
        rows.setdefault(well.partition("/")[0], []).append(well)

    def document() -> ngff.Attributes:
        if not plate.wells:
            return {}
        count = max(len(plate[well].fields) for well in plate.wells)
        return ngff.plate_attributes(
            ngff.PlateDocument(plate.layout, plate.wells, plate.name, count, "0.5")
        )

    return {"zarr.json": _group(document)} | {
        row: partial(_row, plate, wells) for row, wells in rows.items()
    }


def _row(plate: Plate, wells: list[str]) -> _Level:
    below = {well.partition("/")[2]: partial(_well, plate, well) for well in wells}
    return {"zarr.json": _group(dict), **below}


def _well(plate: Plate, well: str) -> _Level:
    fields = plate[well].fields
    document = partial(ngff.well_attributes, dict.fromkeys(fields), "0.5")
    below = {field: partial(_field, plate, well, field) for field in fields}
    return {"zarr.json": _group(document), **below}


def _field(plate: Plate, well: str, field: str) -> _Level:
    image = plate[well].image(field)

    def document() -> ngff.Attributes:
        limits = (0.0, 1.0)
        if image.dtype.kind != "f":
            info = np.iinfo(image.dtype)
            limits = int(info.min), int(info.max)
        shown = [(channel, limits, channel.window or limits) for channel in image.info.channels]
        return ngff.image_attributes(f"{well}/{field}", 1, image.pixel_size, shown, "0.5")

    labels: _Level = {"labels": partial(_labels, image)} if image.labels else {}
    return {"zarr.json": _group(document), "0": partial(_array, image, AXES), **labels}


def _labels(image: Image) -> _Level:
    names = image.labels
    document = partial(ngff.labels_attributes, names, "0.5")
    below = {name: partial(_label, image.label(name), name) for name in names}
    return {"zarr.json": _group(document), **below}


def _label(label: Image, name: str) -> _Level:
    document = partial(ngff.label_attributes, name, 1, label.pixel_size, "0.5")
    axes = tuple(axis for axis in AXES if axis != "c")
    return {"zarr.json": _group(document), "0": partial(_array, label, axes)}


def _array(image: Image, axes: tuple[str, ...]) -> _Level:
    shape = [image.shape[AXES.index(axis)] for axis in axes]
    endian = {"configuration": {"endian": "little"}} if image.dtype.itemsize > 1 else {}
    chunk = [1] * (len(shape) - 2) + shape[-2:]
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": image.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0.0 if image.dtype.kind == "f" else 0,
        "codecs": [{"name": "bytes", **endian}],
        "attributes": {},
        "dimension_names": list(axes),
    }

    def plane(index: tuple[int, ...]) -> bytes:
        pixels: NDArray[Any] = image.plane(**dict(zip(axes[:-2], index, strict=False)))
        return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()

    counts = (*shape[:-2], 1, 1)
    return {"zarr.json": _json(lambda: metadata), "c": partial(_chunks, plane, counts, ())}


def _chunks(
    plane: Callable[[tuple[int, ...]], bytes], counts: tuple[int, ...], index: tuple[int, ...]
) -> _Level:
    places = [(*index, i) for i in range(counts[len(index)])]
    if len(index) + 1 == len(counts):
        return {str(place[-1]): _File(partial(plane, place)) for place in places}
    return {str(place[-1]): partial(_chunks, plane, counts, place) for place in places}


def _group(attributes: Callable[[], ngff.Attributes]) -> _File:
    return _json(lambda: group_content(attributes(), "0.5"))


def _json(content: Callable[[], dict[str, Any]]) -> _File:
    return _File(lambda: json.dumps(content()).encode())
