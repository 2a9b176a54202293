"""Codecs: what a file holds by the suffix of its name.

=============================  ===================================================
``.tif .tiff``                 array of two axes or more; no further metadata
``.ome.tif .ome.tiff``         array; 5 axes are ``(t, c, z, y, x)``, 4 ``(c, z, y, x)`` …
``.npy``                       any array of numbers; never a pickle
``.png``                       ``(y, x)`` uint8 or uint16, ``(y, x, 3 or 4)`` uint8
``.json``                      what JSON holds, without NaN
``.csv .tsv``                  a table, see ``tables``
``.txt``                       text, UTF-8
anything else                  bytes
=============================  ===================================================

Libraries are imported when a suffix first needs them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import CorruptDataError, MismatchError
from ..hcs.image import to_numpy
from .tables import decode_table, encode_table
from .tiff import AXES_MARK, ImageFile, ImageHeader, PngImage, TiffImage, decoding

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFile",
    "ImageHeader",
    "decode",
    "encode",
    "is_image",
    "open_image",
    "read_image_header",
    "suffix_of",
]

IMAGE_SUFFIXES = (".tif", ".tiff", ".ome.tif", ".ome.tiff", ".png")
"""Suffixes that `open_image` opens."""

_TIFF = (".tif", ".tiff")
_OME = (".ome.tif", ".ome.tiff")


def suffix_of(name: str) -> str:
    """The lower-case suffix of a file's name or path: ``.tif``, ``.ome.tif``, or ``""``."""
    last = name.rstrip("/").rpartition("/")[2].lower()
    suffix = PurePosixPath(last).suffix if last else ""
    ome = suffix in _TIFF and last.removesuffix(suffix).endswith(".ome")
    return f".ome{suffix}" if ome else suffix


def is_image(name: str) -> bool:
    """Whether a file of this name is a TIFF or PNG."""
    return suffix_of(name) in IMAGE_SUFFIXES


def encode(data: Any, name: str, *, where: str = "") -> bytes:
    """`data` as a file of this name holds it.

    Args:
        data: what the suffix stands for; arrays may lie on a GPU.
        name: file name or path.
        where: URI that an error's message starts with; `name` if empty.

    Raises:
        MismatchError: such a file cannot hold `data`.
    """
    where = where or name
    suffix = suffix_of(name)
    try:
        return _ENCODERS.get(suffix, _encode_bytes)(data, suffix)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        held = f"a {suffix} file" if suffix else "a file without a suffix"
        raise MismatchError(f"{where}: {held} cannot hold this: {reason}") from error


def decode(data: bytes, name: str, *, where: str = "") -> Any:
    """What a file of this name, whose content is `data`, holds.

    Args:
        data: the whole file.
        name: file name or path.
        where: URI that an error's message starts with; `name` if empty.

    Raises:
        CorruptDataError: it is cut off or no such file.
    """
    suffix = suffix_of(name)
    with decoding(where or name):
        if suffix in IMAGE_SUFFIXES:
            if suffix == ".png" and _PNG_END not in data[-4096:]:
                raise CorruptDataError(f"{where or name}: cannot be decoded: it is cut off")
            with open_image(io.BytesIO(data), name, where=where) as image:
                return image.read()
        return _DECODERS.get(suffix, _decode_bytes)(data, suffix)


def open_image(file: BinaryIO, name: str, *, where: str = "") -> ImageFile:
    """Open a TIFF or PNG; reads its header, and pixels when they are asked for.

    Args:
        file: seekable; must stay open as long as the image is read, and is not closed by it.
        name: file name or path.
        where: URI that an error's message starts with; `name` if empty.

    Raises:
        CorruptDataError: it is cut off or no image.
        MismatchError: the name is not one of an image.
    """
    suffix = suffix_of(name)
    if suffix not in IMAGE_SUFFIXES:
        raise MismatchError(f"{where or name}: {suffix or 'no suffix'} is not one of an image")
    return (PngImage if suffix == ".png" else TiffImage)(file, where or name)


def read_image_header(file: BinaryIO, name: str = "image.tif", *, where: str = "") -> ImageHeader:
    """Shape, dtype, axes and pixel size of a TIFF or PNG; reads no pixels. Raises as above."""
    with open_image(file, name, where=where) as image:
        return image.header


_PNG_END = b"IEND\xaeB`\x82"


def _pixels(data: Any) -> NDArray[Any]:
    array = to_numpy(data)
    if array.dtype.kind not in "biufc":
        raise MismatchError(f"pixels are numbers, not {array.dtype}")
    if array.ndim < 2 or not array.size:
        raise MismatchError(f"an array of shape {array.shape} is no image")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _is_colour(array: NDArray[Any]) -> bool:
    return array.ndim == 3 and array.shape[-1] in (3, 4) and array.dtype in ("uint8", "uint16")


def _encode_tiff(data: Any, suffix: str) -> bytes:
    import tifffile

    array = _pixels(data)
    options: dict[str, Any] = {"photometric": "rgb" if _is_colour(array) else "minisblack"}
    if suffix in _OME:
        if array.ndim > 5 or array.dtype.kind == "c":
            raise MismatchError(f"OME-TIFF has no {array.dtype} of shape {array.shape}")
        axes = "YXS" if _is_colour(array) else "TCZYX"[-array.ndim :]
        options |= {"ome": True, "metadata": {"axes": axes}, "software": AXES_MARK + axes}
    elif array.ndim == 2:
        options["metadata"] = None  # with more axes, tifffile's description keeps the shape
    else:
        options["ome"] = False
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def _encode_png(data: Any, _: str) -> bytes:
    from PIL import Image

    array = _pixels(data)
    grey = array.ndim == 2 and array.dtype in ("uint8", "uint16")
    if not grey and not (_is_colour(array) and array.dtype == "uint8"):
        raise MismatchError(
            f"PNG holds (y, x) uint8 or uint16 and (y, x, 3 or 4) uint8, not {array.dtype} of "
            f"shape {array.shape}"
        )
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def _encode_npy(data: Any, _: str) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, to_numpy(data), allow_pickle=False)
    return buffer.getvalue()


def _decode_npy(data: bytes, _: str) -> Any:
    import numpy as np

    # Not np.load, which would open archives and pickles by what they start with.
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version in ((1, 0), (2, 0)):  # before np allocates what a wrong header claims
        read = np.lib.format.read_array_header_1_0
        shape, _order, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(
            file
        )
        wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if not dtype.hasobject and len(data) - file.tell() < wanted:
            raise ValueError("it is cut off")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _encode_json(data: Any, _: str) -> bytes:
    _check_keys(data)
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, indent=2)
    return (text + "\n").encode()


def _check_keys(data: Any) -> None:
    """``json.dumps`` would turn a key 1 into "1" without a word."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not text")
            _check_keys(value)
    elif isinstance(data, list | tuple):
        for value in data:
            _check_keys(value)


def _decode_json(data: bytes, _: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(data.decode("utf-8-sig"), parse_constant=refuse)


def _encode_text(data: Any, _: str) -> bytes:
    if not isinstance(data, str):
        raise TypeError(f"{type(data).__name__} is not text")
    return data.encode()


def _decode_text(data: bytes, _: str) -> str:
    return data.decode()


def _encode_bytes(data: Any, _: str) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"{type(data).__name__} is not bytes; name it .tif, .npy, .json or .csv")
    return bytes(data)


def _decode_bytes(data: bytes, _: str) -> bytes:
    return bytes(data)


_ENCODERS: dict[str, Callable[[Any, str], bytes]] = {
    **dict.fromkeys((*_TIFF, *_OME), _encode_tiff),
    ".png": _encode_png,
    ".npy": _encode_npy,
    ".json": _encode_json,
    ".csv": encode_table,
    ".tsv": encode_table,
    ".txt": _encode_text,
}
_DECODERS: dict[str, Callable[[bytes, str], Any]] = {
    ".npy": _decode_npy,
    ".json": _decode_json,
    ".csv": decode_table,
    ".tsv": decode_table,
    ".txt": _decode_text,
}
