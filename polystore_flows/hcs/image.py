"""What is known of an image without its pixels: axes, dtype, pixel size, channels, pyramid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import AddressError, MismatchError
from .address import PlaneSelection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AXES = ("t", "c", "z", "y", "x")
"""Order of the axes of every image: time, channel, z, y, x."""

Shape = tuple[int, int, int, int, int]

# Where channel names give the dye away, its colour is what biologists expect to see.
_DYES = {
    "0000FF": ("dapi", "hoechst", "nuclei", "405"),
    "00FF00": ("gfp", "fitc", "488", "alexa488", "er"),
    "FF0000": ("rfp", "tritc", "cy3", "568", "594", "mcherry"),
    "FF00FF": ("cy5", "647", "640"),
}
_LOOKED_AT = 2**18  # pixels of which a window is chosen
_CYCLE = ("0000FF", "00FF00", "FF0000", "FF00FF", "00FFFF", "FFFF00", "FFFFFF")


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel of a plate."""

    name: str
    """As users select it: ``DAPI``."""
    color: str = "FFFFFF"
    """Six hex digits without ``#``."""
    window: tuple[float, float] | None = None
    """Values to be shown black and white; None chooses by the plate's first field."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """All that opening an image tells."""

    shape: Shape
    """Full size, ``(t, c, z, y, x)``."""
    dtype: np.dtype[Any]
    """Of the pixels, native byte order or as stored."""
    channels: tuple[Channel, ...]
    """As many as ``shape[1]``."""
    pixel_size: tuple[float, float, float]
    """Micrometres ``(z, y, x)``."""
    levels: int = 1
    """Number of pyramid levels, at least 1."""

    def channel_index(self, channel: int | str) -> int:
        """Zero-based index of a channel given by index or name.

        Raises:
            AddressError: the image does not have it.
        """
        names = [c.name for c in self.channels]
        if isinstance(channel, str):
            if channel not in names:
                raise AddressError(f"no channel {channel!r}; there are {', '.join(names)}")
            return names.index(channel)
        if channel >= len(names) and str(channel) in names:  # in a URI, ?c=488 is a number
            return names.index(str(channel))
        return check_index("c", channel, self.shape[1])

    def indices(self, planes: PlaneSelection) -> tuple[int | None, int | None, int | None]:
        """Zero-based indices of t, c and z that `planes` selects; None for a whole axis.

        Raises:
            AddressError: the image does not have them.
        """
        return (
            None if planes.t is None else check_index("t", planes.t, self.shape[0]),
            None if planes.c is None else self.channel_index(planes.c),
            None if planes.z is None else check_index("z", planes.z, self.shape[2]),
        )


def check_index(axis: str, index: int, length: int) -> int:
    """`index`, if an axis of `length` has it; negative ones count from the end.

    Raises:
        AddressError: it does not.
    """
    if not -length <= index < length:
        raise AddressError(f"{axis}={index} is outside the image; it has {axis} 0 to {length - 1}")
    return index % length


def named_channels(names: Sequence[str | Channel]) -> tuple[Channel, ...]:
    """Channels with these names, coloured by their dye where the name tells it, else in turn."""
    chosen = []
    for i, name in enumerate(names):
        if isinstance(name, Channel):
            chosen.append(name)
            continue
        own = {
            *re.split(r"[^a-z0-9]+", name.lower())
        }  # "ER" names a stain, the end of "laser" does not
        dye = (
            color
            for color, words in _DYES.items()
            if any(w in own or (len(w) > 2 and w in name.lower()) for w in words)
        )
        chosen.append(Channel(name, next(dye, _CYCLE[i % len(_CYCLE)])))
    return tuple(chosen)


def display_window(pixels: NDArray[Any]) -> tuple[float, float]:
    """Values to be shown black and white: a thousandth of the pixels lies below, one above.

    So a few hot pixels do not make the rest black. Of large images only some pixels are looked at.

    Args:
        pixels: ``(…, y, x)``, any integer or float dtype.
    """
    import numpy as np

    step = max(1, round((pixels.size / _LOOKED_AT) ** 0.5))
    seen = pixels[..., ::step, ::step]
    seen = seen[np.isfinite(seen)]
    if not seen.size:
        return 0.0, 1.0
    low, high = np.percentile(seen, (0.1, 99.9)).tolist()
    if pixels.dtype.kind != "f":
        low, high = round(low), round(high)
    return low, high if high > low else low + 1


def pyramid_levels(shape: tuple[int, ...], smallest: int = 256) -> int:
    """Levels until the longer side of a plane is at most `smallest` pixels, halving each time."""
    side, levels = max(shape[-2:]), 1
    while side > smallest:
        side, levels = side // 2, levels + 1
    return levels


def halve(array: NDArray[Any], *, labels: bool = False) -> NDArray[Any]:
    """The next pyramid level: half the size in y and x.

    Odd sizes lose their last row or column, so that a pixel is exactly twice as wide and the
    origin stays. Images take the mean of 2 × 2 pixels, labels the top left one.

    Args:
        array: ``(…, y, x)``, any integer or float dtype.
        labels: whether values are names, which cannot be averaged.
    """
    import numpy as np

    height, width = max(array.shape[-2] // 2, 1), max(array.shape[-1] // 2, 1)
    if labels:
        return np.ascontiguousarray(array[..., : 2 * height : 2, : 2 * width : 2])
    rows = [array[..., i : 2 * height : 2, :] for i in range(min(2, array.shape[-2]))]
    parts = [r[..., j : 2 * width : 2] for r in rows for j in range(min(2, array.shape[-1]))]
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:  # more bits than a float holds
        count = array.dtype.type(len(parts))
        rest = sum((p % count).astype(np.float64) for p in parts) / len(parts)
        return np.asarray(sum(p // count for p in parts) + np.rint(rest).astype(array.dtype))
    wide = np.float64 if array.dtype.itemsize > 2 else np.float32
    mean: NDArray[Any] = np.zeros(parts[0].shape, wide)
    for part in parts:
        mean += part
    mean /= len(parts)
    return (np.rint(mean) if array.dtype.kind in "iub" else mean).astype(array.dtype)


def to_numpy(data: Any) -> NDArray[Any]:
    """`data` as a NumPy array: NumPy, ``__array__``, PyTorch, CuPy and DLPack arrays.

    Raises:
        MismatchError: it is no array.
    """
    import numpy as np

    if isinstance(data, np.ndarray):
        return data
    if hasattr(data, "cpu"):  # PyTorch: off the device and out of the graph
        data = data.detach().cpu() if hasattr(data, "detach") else data.cpu()
    elif hasattr(data, "get") and hasattr(data, "dtype"):  # CuPy refuses __array__
        data = data.get()
    if hasattr(data, "__array__"):
        return np.asarray(data)
    if hasattr(data, "__dlpack__"):
        return np.from_dlpack(data)
    if isinstance(data, list | tuple):
        try:
            return np.asarray(data)
        except ValueError as error:
            raise MismatchError(
                f"a list whose rows differ in length is no array: {error}"
            ) from error
    raise MismatchError(f"{type(data).__name__} is no array; give a NumPy, CuPy or PyTorch array")


def five_dimensional(data: Any) -> NDArray[Any]:
    """`data` as a C-contiguous ``(t, c, z, y, x)`` array; a 2D plane gets three leading axes.

    Raises:
        MismatchError: it has another number of axes, an empty one, or a dtype that is no number.
    """
    import numpy as np

    array = to_numpy(data)
    if array.ndim == 2:
        array = array[None, None, None]
    if array.ndim != 5:
        raise MismatchError(
            f"an image has the axes (t, c, z, y, x), but the array's shape is {array.shape}"
        )
    if 0 in array.shape:
        raise MismatchError(f"an image of shape {array.shape} holds no pixel")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise MismatchError(f"pixels are integers or floats, not {array.dtype}")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
