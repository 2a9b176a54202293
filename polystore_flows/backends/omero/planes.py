"""Pixels from and to OMERO: one RawPixelsStore an image, several planes under way at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import Ice
import omero

from ...errors import CorruptDataError, MismatchError, StoreUnavailableError
from .connection import Connection, Live

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Place = tuple[int, int, int]
"""``(t, c, z)`` of a plane."""

MOST_BYTES = 32 * 2**20
"""A larger plane is read and written in bands of rows, for a message of Ice has a limit."""
AHEAD = 4
"""Planes that are asked for before the first has come."""

_DTYPES = {
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float": "f4", "double": "f8",
}  # fmt: skip
_TYPES = {code: name for name, code in _DTYPES.items()}


def dtype_of(pixels_type: str, where: str) -> np.dtype[Any]:
    """NumPy's dtype, in native byte order, of one of OMERO's.

    Raises:
        CorruptDataError: there is none (``bit``, ``complex``).
    """
    import numpy as np

    if pixels_type not in _DTYPES:
        raise CorruptDataError(f"{where}: pixels of type {pixels_type!r} cannot be read as numbers")
    return np.dtype(_DTYPES[pixels_type])


def pixels_type_of(dtype: np.dtype[Any], where: str) -> str:
    """OMERO's name of a dtype.

    Raises:
        MismatchError: OMERO has none (64-bit integers, 16-bit floats).
    """
    code = f"{dtype.kind}{dtype.itemsize}"
    if code not in _TYPES:
        raise MismatchError(
            f"{where}: OMERO holds no pixels of {dtype}; convert them to one of "
            f"{', '.join(str(name) for name in _DTYPES)}"
        )
    return _TYPES[code]


def read_planes(
    connection: Connection,
    pixels_id: int,
    places: Sequence[Place],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    where: str,
) -> list[NDArray[Any]]:
    """Planes ``(y, x)`` in the order of `places`; each is sent once, by one call.

    When the session or the connection is lost, what has come is kept and the rest asked for anew,
    as long as that brings any.

    Raises:
        CorruptDataError: the server has no pixels, or fewer than the image's size says.
    """
    done: dict[int, NDArray[Any]] = {}

    def act(live: Live) -> None:
        with _store(live, pixels_id) as store:
            waiting: deque[tuple[int, list[tuple[Any, int]]]] = deque()
            for number, place in enumerate(places):
                if number in done:
                    continue
                waiting.append((number, _ask(store, place, shape, dtype)))
                if len(waiting) >= AHEAD:
                    _take(store, waiting, done, shape, dtype, where)
            while waiting:
                _take(store, waiting, done, shape, dtype, where)

    while True:
        before = len(done)
        try:
            connection.run(act, where)
        except StoreUnavailableError:
            if len(done) == before:
                raise
        else:
            return [done[number] for number in range(len(places))]


def write_planes(
    connection: Connection, pixels_id: int, array: NDArray[Any], group: int, where: str
) -> None:
    """Write all of an image, ``(t, c, z, y, x)``, and end it; repeated whole after a failure."""
    t, c, z, height, width = array.shape
    band = max(1, MOST_BYTES // (width * array.dtype.itemsize))
    big_endian = array.dtype.newbyteorder(">")

    def act(live: Live) -> None:
        with _store(live, pixels_id, group) as store:
            for place in _places(t, c, z):
                plane = array[place].astype(big_endian, copy=False)
                at = (place[2], place[1], place[0])
                if height <= band:
                    store.setPlane(plane.tobytes(), *at)
                    continue
                for y in range(0, height, band):
                    rows = plane[y : y + band]
                    store.setTile(rows.tobytes(), *at, 0, y, width, len(rows))
            store.save()

    connection.run(act, where)


def _places(t: int, c: int, z: int) -> Iterator[Place]:
    for i in range(t):
        for j in range(c):
            for k in range(z):
                yield i, j, k


@contextmanager
def _store(live: Live, pixels_id: int, group: int = -1) -> Iterator[Any]:
    context = {"omero.group": str(group)}
    store = live.factory.createRawPixelsStore(context).ice_context(
        live.client.getImplicitContext().getContext() | context
    )
    try:
        store.setPixelsId(pixels_id, True)
        yield store
    finally:
        with suppress(Ice.Exception):
            store.close()


def _ask(
    store: Any, place: Place, shape: tuple[int, int], dtype: np.dtype[Any]
) -> list[tuple[Any, int]]:
    """Requests for a plane, and the rows that each gives."""
    t, c, z = place
    height, width = shape
    band = max(1, MOST_BYTES // (width * dtype.itemsize))
    if height <= band:
        return [(store.begin_getPlane(z, c, t), height)]
    starts = range(0, height, band)
    sizes = [min(band, height - y) for y in starts]
    return [
        (store.begin_getTile(z, c, t, 0, y, width, size), size)
        for y, size in zip(starts, sizes, strict=True)
    ]


def _take(
    store: Any,
    waiting: deque[tuple[int, list[tuple[Any, int]]]],
    done: dict[int, NDArray[Any]],
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    where: str,
) -> None:
    import numpy as np

    number, requests = waiting.popleft()
    parts = []
    for request, rows in requests:
        end = store.end_getPlane if len(requests) == 1 else store.end_getTile
        try:
            data = end(request)
        except omero.ResourceError as error:
            raise CorruptDataError(
                f"{where}: the server has no pixels of this image; import it again"
            ) from error
        if len(data) != rows * shape[1] * dtype.itemsize:
            raise CorruptDataError(
                f"{where}: the server sent {len(data)} bytes of a plane, not "
                f"{rows * shape[1] * dtype.itemsize}"
            )
        parts.append(np.frombuffer(data, dtype.newbyteorder(">")))
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
    done[number] = flat.reshape(shape).astype(dtype)
