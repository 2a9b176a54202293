"""The verbs of ``import polystore_flows as ps``: each finds the backend of a URI and asks it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from .contracts import Stat, check_batch, check_identifiers
from .errors import UnsupportedError
from .hcs.image import Channel, display_window
from .hcs.layout import Layout
from .hcs.plate import Mode, Plate
from .hcs.provenance import Input, Provenance
from .hcs.spec import Acquisition, plate_spec
from .hcs.zarr_config import ZarrConfig
from .registry import backend_for, plate_store_for
from .uri import BackendURI, parse_uri

URI = str | os.PathLike[str] | BackendURI


def open_plate(uri: URI, mode: Mode = "r") -> Plate:
    """Open a plate on any backend; reads metadata only.

    Args:
        uri: of the plate, ``zarr:///data/p.zarr`` or ``disk:///raw/plate1``.
        mode: ``r``, or ``r+`` to write.

    Raises:
        NotFoundError: there is no plate.
        StoredDataError: what is there is not a valid plate.
        UnknownBackendError: a wrong scheme.
    """
    parsed = parse_uri(uri)
    return plate_store_for(parsed).open_plate(parsed.text, mode)


def create_plate(
    uri: URI,
    layout: int | Layout = 96,
    channels: Sequence[str | Channel] | None = None,
    pixel_size: tuple[float, float, float] | None = None,
    *,
    name: str = "",
    acquisitions: Sequence[str | Acquisition] | None = None,
    ngff_version: Literal["0.4", "0.5"] | None = None,
    levels: int | None = None,
    config: ZarrConfig | None = None,
    like: Plate | None = None,
    exist_ok: bool = False,
) -> Plate:
    """Make a plate without wells and open it for writing.

    Args:
        uri: where; nothing may be there.
        layout: number of wells (6, 12, 24, 48, 96, 384, 1536) or a `Layout`.
        channels: names, or `Channel` to choose colours and windows; without them the first
            image says how many there are.
        pixel_size: micrometres ``(z, y, x)``.
        name: shown to people; by default the folder's name.
        acquisitions: the times at which the plate is imaged, by name (ids from 0) or as
            `Acquisition`; OME-Zarr only. With more than one, each image names its own.
        ngff_version: of the OME-NGFF specification; wins over that of `config`.
        levels: pyramid levels; chosen by size unless given.
        config: how OME-Zarr arrays are chunked and compressed; by default as the settings say.
        like: a plate whose layout, channels, pixel size and acquisitions are taken.
        exist_ok: open the plate if it exists and has this layout and these channels, so that
            parallel jobs can all start with this call. It keeps its own `config`.

    Atomic: a plate is there whole or not at all, also when several processes create it.

    Raises:
        AlreadyExistsError: something is there and `exist_ok` is false.
        MismatchError: arguments that fit no plate, or not the existing one.
    """
    if like is not None:
        layout, pixel_size = like.layout, pixel_size or like.pixel_size
        acquisitions = like.acquisitions if acquisitions is None else acquisitions
    spec = plate_spec(
        layout, channels, pixel_size, name, ngff_version, levels, config, acquisitions or ()
    )
    if like is not None and channels is None:
        spec = replace(spec, channels=like.channel_info)  # with their colours
    parsed = parse_uri(uri)
    return plate_store_for(parsed).create_plate(parsed.text, spec, exist_ok=exist_ok)


def display_channels(plate: Plate) -> list[Channel]:
    """The channels of `plate`, with the contrast that a plane of its first field suggests.

    For ``create_plate(…, like=plate, channels=display_channels(plate), exist_ok=True)`` in jobs
    that run side by side, so that the plate is the same whichever of them comes first. A plate
    that is made without contrasts gets those of the first field that is written.
    """
    first = plate[plate.wells[0]]
    image = first.image(first.fields[0])
    return [
        replace(
            channel,
            window=channel.window or display_window(image.plane(c=c, z=image.info.shape[2] // 2)),
        )
        for c, channel in enumerate(image.info.channels)
    ]


def provenance(
    tool: str,
    version: str = "",
    *,
    parameters: Mapping[str, Any] | None = None,
    inputs: Sequence[URI | Input] = (),
) -> Provenance:
    """What made an image, to be written with it: `write_image(..., provenance=)`.

    Args:
        tool: name of the program or step.
        version: of the tool.
        parameters: JSON values.
        inputs: URIs of what was read, of which size and time are noted now; or `Input`.

    Raises:
        NotFoundError: an input is not there.
    """
    noted = []
    for given in inputs:
        if isinstance(given, Input):
            noted.append(given)
            continue
        uri, found = parse_uri(given), stat(given)
        modified = datetime.fromtimestamp(found.mtime, UTC).isoformat(timespec="milliseconds")
        noted.append(Input(str(uri), found.size, modified))
    return Provenance(tool, version, parameters or {}, tuple(noted))


def load(uri: URI) -> Any:
    """What is stored at `uri`: an array, a table, text or JSON, by what the URI names."""
    parsed = parse_uri(uri)
    return backend_for(parsed).load(parsed.text)


def save(data: Any, uri: URI, *, overwrite: bool = False) -> None:
    """Store `data` at `uri`, whole or not at all; never overwrites unless told to."""
    parsed = parse_uri(uri)
    backend_for(parsed).save(data, parsed.text, overwrite=overwrite)


def load_batch(uris: Sequence[URI]) -> list[Any]:
    """`load` for each, in the order of `uris`; each backend is asked once for its part."""
    parsed = [parse_uri(uri) for uri in uris]
    loaded: list[Any] = [None] * len(parsed)
    for backend, places in _by_backend(parsed):
        for place, data in zip(
            places, backend.load_batch([parsed[i].text for i in places]), strict=True
        ):
            loaded[place] = data
    return loaded


def save_batch(data: Sequence[Any], uris: Sequence[URI], *, overwrite: bool = False) -> None:
    """`save` for each; lengths and URIs are checked before anything is written.

    Raises:
        ValueError: the lengths differ.
        TypeError: a URI is not path-like.
    """
    check_batch(data, [u.text if isinstance(u, BackendURI) else u for u in uris])
    parsed = [parse_uri(uri) for uri in uris]
    for backend, places in _by_backend(parsed):
        texts = [parsed[i].text for i in places]
        backend.save_batch([data[i] for i in places], texts, overwrite=overwrite)


def exists(uri: URI) -> bool:
    """Whether something is stored at `uri`."""
    parsed = parse_uri(uri)
    return bool(backend_for(parsed).exists(parsed.text))


def stat(uri: URI) -> Stat:
    """Kind, size and time of what is stored at `uri`.

    Raises:
        NotFoundError: nothing is.
        UnsupportedError: a read-only backend that tells neither.
    """
    parsed = parse_uri(uri)
    backend = backend_for(parsed)
    if not hasattr(backend, "stat"):
        raise UnsupportedError(f"{parsed}: this backend tells neither size nor time; load it")
    found = backend.stat(parsed.text)
    assert isinstance(found, Stat)
    return found


def list_files(
    uri: URI,
    pattern: str | None = None,
    extensions: Collection[str] | None = None,
    recursive: bool = False,
) -> list[str]:
    """Files in the directory `uri`, sorted; see ``DataSource.list_files``."""
    parsed = parse_uri(uri)
    found: list[str] = backend_for(parsed).list_files(parsed.text, pattern, extensions, recursive)
    return found


def delete(uri: URI) -> None:
    """Remove what is stored at `uri`, a whole well or plate with all it holds."""
    parsed = parse_uri(uri)
    backend_for(parsed).delete_all(parsed.text)


def _by_backend(parsed: Sequence[BackendURI]) -> list[tuple[Any, list[int]]]:
    check_identifiers([uri.text for uri in parsed])
    groups: dict[int, tuple[Any, list[int]]] = {}
    for place, uri in enumerate(parsed):
        backend = backend_for(uri)
        groups.setdefault(id(backend), (backend, []))[1].append(place)
    return list(groups.values())
