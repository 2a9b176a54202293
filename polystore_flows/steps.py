"""Image analysis that a pipeline applies to the fields of a well: pure functions on arrays.

A function of one field's image that returns an image, labels or a table is a step that
``polystore_flows.flows`` can run over a plate; `makes` says what a plain array is.

Images are ``(t, c, z, y, x)``, label images ``(t, 1, z, y, x)`` with 0 for the background.
Equal input gives equal output bit for bit, whatever store it came from. scikit-image comes
with ``pip install 'polystore-flows[demo]'`` and is imported when a step first needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .errors import MismatchError, MissingDependencyError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_F = TypeVar("_F", bound=Callable[..., Any])

_STRIDE = 4  # illumination is smooth: every fourth pixel in y and x tells enough


def makes(output: str, *, of: str = "field") -> Callable[[_F], _F]:
    """Say where what a step returns goes; the function stays as it is.

    Args:
        output: ``image``, ``labels/NAME``, or ``tables/NAME.csv``.
        of: ``field``, or ``well`` for a step that takes all images of a well, as a dict of field
            -> ``(t, c, z, y, x)``, and returns such dicts, or a table.
    """

    def mark(function: _F) -> _F:
        function.output, function.of = output, of  # type: ignore[attr-defined]
        return function

    return mark


@makes("image", of="well")
def even_illumination(images: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Estimate the illumination from all fields of a well, and correct them for it.

    Args:
        images: field -> ``(t, c, z, y, x)``, as `flat_field` takes them.

    Returns:
        Field -> the corrected image.
    """
    flat = flat_field(list(images.values()))
    return {field: correct_illumination(image, flat) for field, image in images.items()}


@makes("image")
def maximum_projection(image: NDArray[Any]) -> NDArray[Any]:
    """The brightest of all z planes, ``(t, c, 1, y, x)``, pixel by pixel."""
    return np.asarray(image.max(axis=2, keepdims=True))


def flat_field(images: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Estimate the illumination of each channel from the fields of one well.

    A surface of second order is fitted to the logarithm of the foreground's intensity, over
    all fields, times and z planes (a parametric model as in Likar et al., J Microsc 197, 2000,
    doi:10.1046/j.1365-2818.2000.00669.x, here by least squares). Nothing outside the well is
    looked at, so that a change of one well changes no other well's result.

    Args:
        images: fields ``(t, c, z, y, x)`` of one size in c, y, x; any integer or float dtype.

    Returns:
        Relative illumination ``(c, y, x)`` with mean 1; all ones for a channel without signal.
    """
    shapes = {(image.shape[1], *image.shape[3:]) for image in images}
    if len(shapes) != 1:
        raise MismatchError(f"a flat field needs fields of one size, not {sorted(shapes)}")
    channels, height, width = shapes.pop()
    surface = np.ones((channels, height, width), np.float32)
    terms = _terms(height, width)
    coarse = terms[:, ::_STRIDE, ::_STRIDE]
    for c in range(channels):
        planes = [image[:, c, :, ::_STRIDE, ::_STRIDE].astype(np.float64) for image in images]
        stack = np.concatenate([part.reshape(-1, *part.shape[-2:]) for part in planes])
        foreground = stack > _otsu(stack)
        if np.count_nonzero(foreground) < 10 * len(terms):
            continue
        design = np.broadcast_to(coarse[:, None], (len(terms), *stack.shape))[:, foreground]
        fit = np.linalg.lstsq(design.T, np.log(stack[foreground]), rcond=None)[0]
        light = np.exp(np.tensordot(fit[1:], terms[1:], axes=1))
        surface[c] = light / light.mean()
    return surface


def correct_illumination(image: NDArray[Any], flat: NDArray[Any]) -> NDArray[Any]:
    """Divide every plane by its channel's flat field.

    Args:
        image: ``(t, c, z, y, x)``, any integer or float dtype.
        flat: ``(c, y, x)`` with mean 1, as `flat_field` gives it.

    Returns:
        The corrected image; integers are rounded and clipped to what the dtype holds.
    """
    if flat.shape != (image.shape[1], *image.shape[3:]):
        raise MismatchError(
            f"the flat field's shape (c, y, x) is {flat.shape}, the image's {image.shape}"
        )
    corrected: NDArray[Any] = image / flat[None, :, None].astype(np.float64)
    if image.dtype.kind in "iu":
        limits = np.iinfo(image.dtype)
        corrected = np.clip(np.rint(corrected), limits.min, limits.max)
    return corrected.astype(image.dtype)


@makes("labels/nuclei")
def segment_nuclei(
    image: NDArray[Any],
    channel: int = 0,
    *,
    pixel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    diameter: float = 11.0,
) -> NDArray[np.uint32]:
    """Find bright round objects in every plane of one channel.

    Gaussian smoothing, a threshold after Otsu (IEEE Trans SMC 9, 1979), and a watershed of the
    distance to the background that separates nuclei which touch. Each plane is segmented on its
    own; the numbers of a field run on from plane to plane.

    Args:
        image: ``(t, c, z, y, x)``, any integer or float dtype.
        channel: zero-based, the one with the nuclear stain.
        pixel_size: micrometres ``(z, y, x)``.
        diameter: of a typical nucleus in micrometres; objects of less than an eighth of its
            area are taken for debris.

    Returns:
        Labels ``(t, 1, z, y, x)``; nuclei are numbered from 1.
    """
    labels = np.zeros((image.shape[0], 1, *image.shape[2:]), np.uint32)
    in_pixels = diameter / float(np.sqrt(pixel_size[1] * pixel_size[2]))
    last = 0
    for t, z in np.ndindex(image.shape[0], image.shape[2]):
        found = _nuclei_of_plane(image[t, channel, z].astype(np.float64), in_pixels)
        labels[t, 0, z] = np.where(found > 0, found + last, 0)
        last += int(found.max(initial=0))
    return labels


def measure_nuclei(
    labels: NDArray[Any],
    image: NDArray[Any],
    *,
    pixel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    channels: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One row for every nucleus of a label image.

    Args:
        labels: ``(t, 1, z, y, x)``, as `segment_nuclei` gives it.
        image: ``(t, c, z, y, x)`` of the same t, z, y, x.
        pixel_size: micrometres ``(z, y, x)``.
        channels: names for the columns ``mean_<channel>``; ``0``, ``1`` … without them.

    Returns:
        ``label, t, z`` (zero-based plane), ``y_um, x_um`` (centre, micrometres from the first
        pixel's centre), ``area_um2``, and the mean intensity of each channel.
    """
    import pandas as pd

    ndimage = _module("scipy.ndimage")
    if labels.shape != (image.shape[0], 1, *image.shape[2:]):
        raise MismatchError(f"labels of shape {labels.shape} do not lie on {image.shape}")
    names = [str(name) for name in (channels or range(image.shape[1]))]
    parts = []
    for t, z in np.ndindex(labels.shape[0], labels.shape[2]):
        plane = labels[t, 0, z]
        ids = np.unique(plane[plane > 0])
        if not len(ids):
            continue
        centres = np.array(ndimage.center_of_mass(plane > 0, plane, ids))
        rows = {
            "label": ids.astype(np.int64),
            "t": t,
            "z": z,
            "y_um": centres[:, 0] * pixel_size[1],
            "x_um": centres[:, 1] * pixel_size[2],
            "area_um2": np.bincount(plane.ravel())[ids] * (pixel_size[1] * pixel_size[2]),
        }
        for c, name in enumerate(names):
            rows[f"mean_{name}"] = ndimage.mean(image[t, c, z], plane, ids)
        parts.append(pd.DataFrame(rows))
    columns = ["label", "t", "z", "y_um", "x_um", "area_um2", *(f"mean_{n}" for n in names)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


@makes("tables/nuclei.csv")
def find_nuclei(
    image: NDArray[Any],
    channel: int = 0,
    *,
    pixel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    channels: Sequence[str] | None = None,
    diameter: float = 11.0,
) -> pd.DataFrame:
    """`segment_nuclei`, then `measure_nuclei`: a table straight from an image."""
    labels = segment_nuclei(image, channel, pixel_size=pixel_size, diameter=diameter)
    return measure_nuclei(labels, image, pixel_size=pixel_size, channels=channels)


@makes("image", of="well")
def analyse_nuclei(
    images: dict[str, NDArray[Any]],
    *,
    pixel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
    channels: Sequence[str] = (),
    channel: int | str = 0,
    diameter: float = 11.0,
) -> dict[str, Any]:
    """All of it for a well: even illumination, label images of the nuclei, their table.

    Args:
        images: field -> ``(t, c, z, y, x)``.
        pixel_size: micrometres ``(z, y, x)``.
        channels: names.
        channel: index or name of the one with the nuclear stain.
        diameter: of a typical nucleus in micrometres.

    Returns:
        ``image`` and ``labels/nuclei`` by field, and ``tables/nuclei.csv``.
    """
    import pandas as pd

    if isinstance(channel, str):
        if channel not in channels:
            raise MismatchError(f"no channel {channel!r}; there are {', '.join(channels)}")
        channel = list(channels).index(channel)
    even = even_illumination(images)
    labels, tables = {}, []
    for field, image in even.items():
        nuclei = segment_nuclei(image, channel, pixel_size=pixel_size, diameter=diameter)
        table = measure_nuclei(nuclei, image, pixel_size=pixel_size)
        table.insert(0, "field", field)
        labels[field] = nuclei
        tables.append(table)
    rows = pd.concat(tables, ignore_index=True)
    return {"image": even, "labels/nuclei": labels, "tables/nuclei.csv": rows}


def _nuclei_of_plane(plane: NDArray[np.float64], diameter: float) -> NDArray[Any]:
    ndimage, segmentation = _module("scipy.ndimage"), _module("skimage.segmentation")
    smooth = ndimage.gaussian_filter(plane, diameter / 20)
    if smooth.max() <= smooth.min():  # an empty plane has no two classes of pixels
        return np.zeros(plane.shape, np.uint32)
    area = np.pi / 4 * diameter**2
    mask = _without_small(smooth > _otsu(smooth), area / 8)
    mask = ~_without_small(~mask, area / 8)  # holes; what lies between nuclei is larger
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), diameter / 12)
    peaks = _module("skimage.feature").peak_local_max(
        depth, min_distance=max(round(diameter / 4), 1), labels=mask, exclude_border=False
    )
    seeds = np.zeros(plane.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    found: NDArray[Any] = segmentation.watershed(-depth, seeds, mask=mask)
    big_enough = np.bincount(found.ravel(), minlength=len(peaks) + 1) >= area / 8
    found = np.where(big_enough[found], found, 0)
    return np.asarray(segmentation.relabel_sequential(found)[0])


def _without_small(mask: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    ndimage = _module("scipy.ndimage")
    parts, _ = ndimage.label(mask)
    kept: NDArray[np.bool_] = np.bincount(parts.ravel())[parts] >= pixels
    return kept & mask


def _otsu(values: NDArray[np.float64]) -> float:
    return (
        float(_module("skimage.filters").threshold_otsu(values)) if np.ptp(values) else float("inf")
    )


def _terms(height: int, width: int) -> NDArray[np.float64]:
    """The six terms of a surface of second order, ``(6, y, x)``, y and x from -1 to 1."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return np.stack([np.ones_like(y), y, x, y * y, x * y, x * x])


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"this step needs the module {error.name!r}, which is not installed; "
            "run pip install 'polystore-flows[demo]'"
        ) from error
