"""Images in TIFF and PNG files: header, single planes, pixels; a file that was cut off raises.

tifffile reads much of a truncated file without complaint (fewer pages, zeros), so the chain of
image file directories and the place of every strip are checked here first.
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from ..errors import CorruptDataError, MismatchError, PolystoreError, UnsupportedError
from .pixel_size import pixel_size_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AXES_MARK = "polystore-flows axes="
"""Starts the Software tag of our OME-TIFFs; the axes that the saved array had follow it."""

# TIFF 6.0, section 2: bytes of the field types 1 to 13, and of BigTIFF's 16 to 18.
_TYPE_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image file tells without its pixels."""

    shape: tuple[int, ...]
    """As `ImageFile.read` gives it, one length per letter of `axes`."""
    dtype: np.dtype[Any]
    """Of the pixels."""
    axes: str
    """``YX``, ``ZYX`` …, ``YXS`` for colour; OME-TIFFs of others have always ``TCZYX``."""
    pixel_size: tuple[float, float, float] | None
    """Micrometres ``(z, y, x)``, z 1 where the file does not say; None if it says nothing."""

    @property
    def tczyx(self) -> tuple[int, int, int, int, int]:
        """The shape as ``(t, c, z, y, x)``; a stack of unnamed pages counts as z.

        Raises:
            MismatchError: the image is coloured or has further axes.
        """
        length = dict(zip(_named_axes(self.axes), self.shape, strict=True))
        return (length.get("T", 1), length.get("C", 1), length.get("Z", 1), *self.shape[-2:])  # type: ignore[return-value]


class ImageFile(ABC):
    """An open image; reads pixels when asked. The file it was made from stays the caller's."""

    header: ImageHeader

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole image; see `ImageHeader`."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.header.dtype

    @property
    def pixel_size(self) -> tuple[float, float, float] | None:
        """Micrometres ``(z, y, x)``, if the file tells them."""
        return self.header.pixel_size

    @abstractmethod
    def read(self) -> NDArray[Any]:
        """The whole image, axes as in the header.

        Raises:
            CorruptDataError: it is cut off or cannot be decoded.
        """

    def plane(self, t: int = 0, c: int = 0, z: int = 0) -> NDArray[Any]:
        """One ``(y, x)`` plane; reads only that plane's part of the file where it can.

        Raises:
            MismatchError: the image is coloured.
            IndexError: there is no such plane.
            CorruptDataError: it is cut off or cannot be decoded.
        """
        at = {"T": t, "C": c, "Z": z}
        axes = _named_axes(self.header.axes)[:-2]
        if any(not 0 <= i < n for i, n in zip(at.values(), self.header.tczyx, strict=False)):
            raise IndexError(f"no plane t={t}, c={c}, z={z}; (t, c, z, y, x): {self.header.tczyx}")
        return self._plane(tuple(at[axis] for axis in axes))

    def _plane(self, index: tuple[int, ...]) -> NDArray[Any]:
        plane: NDArray[Any] = self.read()[index]
        return plane

    def close(self) -> None:  # noqa: B027  # a PNG has nothing to close
        """Let go of the file without closing it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TiffImage(ImageFile):
    """The first series of a TIFF, BigTIFF, ImageJ TIFF or OME-TIFF."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        import tifffile

        self._where = where
        with decoding(where):
            self._size = _check_directories(file)
            # Not the other files of a multi-file OME-TIFF: one file is one image here.
            self._tif = tifffile.TiffFile(file, _multifile=False)
            if not self._tif.series:
                raise ValueError("it holds no image")
            self._series = self._tif.series[0]
            self._check_series()
            self.header = self._read_header()

    def read(self) -> NDArray[Any]:
        import numpy as np

        with decoding(self._where):
            for page in self._series.pages:
                self._check_page(page)
            array = self._series.asarray()
            if self._series.kind == "ome":
                array = np.transpose(array, self._ome_order)
        return np.ascontiguousarray(array).reshape(self.header.shape)

    def close(self) -> None:
        self._tif.close()

    def _plane(self, index: tuple[int, ...]) -> NDArray[Any]:
        import numpy as np

        lengths, order = self.header.shape[:-2], list(_named_axes(self.header.axes)[:-2])
        if self._series.kind == "ome":  # pages come in the order of the file's axes
            by_axis = dict(zip(order, zip(index, lengths, strict=True), strict=True))
            stored = [by_axis[a] for a in self._series.axes if a not in "YXS"]
            index, lengths = tuple(i for i, _ in stored), tuple(n for _, n in stored)
        if len(self._series.pages) != math.prod(lengths):  # one page stands for all of them
            return super()._plane(tuple(index))
        number = int(np.ravel_multi_index(index, lengths)) if lengths else 0
        with decoding(self._where):
            page: Any = self._series.pages[number]
            self._check_page(page)
            plane: NDArray[Any] = page.asarray()
            return plane.reshape(self.header.shape[-2:])

    @property
    def _ome_order(self) -> tuple[int, ...]:
        """How the axes of an OME series, as tifffile gives them, go into the order TCZYXS."""
        axes = self._series.axes
        return tuple(sorted(range(len(axes)), key=lambda i: "TCZYXS".find(axes[i])))

    def _read_header(self) -> ImageHeader:
        series, page = self._series, self._series.keyframe
        shape, axes = tuple(series.shape), str(series.axes)
        if series.kind == "ome":
            # tifffile leaves out axes of length 1; OME has all five, ours those that were saved.
            length = dict(zip(axes, shape, strict=True))
            wanted = "TCZYX"
            software = str(page.tags.valueof(305, default=""))
            if software.startswith(AXES_MARK):
                wanted = software.removeprefix(AXES_MARK)
            kept = [a for a in "TCZYXS" if a in wanted or length.get(a, 1) > 1]
            shape, axes = tuple(length.get(a, 1) for a in kept), "".join(kept)
        elif series.kind == "shaped" and set(axes[:-2]) == {"Q"} and len(axes) <= 5:
            axes = "TCZYX"[-len(axes) :]  # a NumPy array whose axes nobody named
        return ImageHeader(shape, series.dtype, axes, pixel_size_of(self._tif))

    def _check_series(self) -> None:
        tif, series = self._tif, self._series
        for kind in ("imagej", "shaped"):
            if getattr(tif, f"is_{kind}") and series.kind not in (kind, "ome"):
                raise ValueError(f"its {kind} description names more pixels than it holds")
        if any(page is None for page in series.pages):
            raise ValueError("its OME description names more planes than it holds")
        if series.dtype is None:
            raise ValueError("its pixels are of an unknown type")
        if series.dataoffset is not None and series.dataoffset + series.nbytes > self._size:
            raise ValueError("it is cut off")

    def _check_page(self, page: Any) -> None:
        offsets, counts = page.dataoffsets, page.databytecounts
        whole = len(offsets) == len(counts) > 0 and all(
            min(start, count) > 0 and start + count <= self._size
            for start, count in zip(offsets, counts, strict=True)
        )
        key = page.keyframe
        plain = key.compression == 1 and key.photometric != 6 and key.bitspersample in (8, 16, 32)
        if not whole or (plain and sum(counts) < key.nbytes):
            raise ValueError("it is cut off")


class PngImage(ImageFile):
    """A PNG: ``(y, x)`` uint8 or uint16, or ``(y, x, channel)`` uint8."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        import numpy as np
        from PIL import PngImagePlugin

        self._where = where
        with decoding(where):
            start = file.tell()
            head = file.read(26)
            file.seek(start)
            # Made directly: Image.open() refuses the sizes that stitched wells have.
            self._png = PngImagePlugin.PngImageFile(file)
            if head[24] == 16 and head[25] in (2, 4, 6):
                raise UnsupportedError(f"{where}: a 16-bit colour PNG would lose bits; use a TIFF")
            if self._png.mode == "P":
                self._mode = "RGBA" if "transparency" in self._png.info else "RGB"
            else:
                self._mode = self._png.mode
            bands = {"RGB": (3,), "RGBA": (4,), "LA": (2,)}.get(self._mode, ())
            dtype = {"1": "bool", "I;16": "uint16", "I": "int32"}.get(self._mode, "uint8")
            shape = (self._png.height, self._png.width, *bands)
            axes = "YXS" if bands else "YX"
            self.header = ImageHeader(shape, np.dtype(dtype), axes, None)

    def read(self) -> NDArray[Any]:
        import numpy as np

        with decoding(self._where):
            self._png.load()
            png = self._png if self._mode == self._png.mode else self._png.convert(self._mode)
            return np.array(png)


@contextmanager
def decoding(where: str) -> Iterator[None]:
    """Whatever a decoder raises within becomes a `CorruptDataError` that starts with `where`."""
    try:
        yield
    except (PolystoreError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CorruptDataError(f"{where}: cannot be decoded: {reason}") from error


def _named_axes(axes: str) -> str:
    if "S" in axes or not axes.endswith("YX"):
        raise MismatchError(f"an image with the axes {axes} is no grey (t, c, z, y, x) image")
    unknown = [axis for axis in axes[:-2] if axis not in "TCZ"]
    if len(unknown) > 1 or (unknown and "Z" in axes):
        raise MismatchError(f"the axes {axes} do not say which of them are t, c and z")
    return axes.replace(unknown[0], "Z") if unknown else axes


def _check_directories(file: BinaryIO) -> int:
    """Walk the chain of directories (TIFF 6.0, section 2; BigTIFF); the file's size."""
    size = file.seek(0, 2)

    def read(at: int, count: int) -> bytes:
        file.seek(at)
        data = file.read(count) if at + count <= size else b""
        if len(data) < count:
            raise ValueError("it is cut off")
        return data

    head = read(0, 8)
    order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
    version = struct.unpack(order + "H", head[2:4])[0] if order else 0
    if version not in (42, 43):
        raise ValueError("it is no TIFF")
    big = version == 43
    word, count_of = (order + "Q", order + "Q") if big else (order + "I", order + "H")
    entry = struct.Struct(order + ("HHQQ" if big else "HHII"))
    inline, counted = struct.calcsize(word), struct.calcsize(count_of)
    at = struct.unpack(word, read(8, 8) if big else head[4:8])[0]
    seen: set[int] = set()
    while at:
        if at in seen:
            raise ValueError("its directories run in a circle")
        seen.add(at)
        entries = struct.unpack(count_of, read(at, counted))[0]
        table = read(at + counted, entries * entry.size + inline)
        for _, kind, count, place in entry.iter_unpack(table[:-inline]):
            length = count * (_TYPE_SIZES[kind] if kind < len(_TYPE_SIZES) else 0)
            if length > inline and place + length > size:
                raise ValueError("it is cut off")
        at = struct.unpack(word, table[-inline:])[0]
    if not seen:
        raise ValueError("it holds no image")
    file.seek(0)
    return size
