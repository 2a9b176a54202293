"""Stamps: texts that change whenever what is stored under a URI does, without reading it.

An object's stamp is its ETag, that of anything else its size and the time of its commit. A well's
stamp is that of its images: labels and tables that are added to it later do not change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeGuard

import polystore_flows as ps
from polystore_flows.backends.folder_plate import FolderPlate, stat_part_of
from polystore_flows.contracts import ByteStore, Stat
from polystore_flows.errors import NotFoundError, URIError
from polystore_flows.hcs.address import parse_address, split_plate_path
from polystore_flows.hcs.well import Well
from polystore_flows.registry import backend_for
from polystore_flows.uri import BackendURI, parse_uri


def stamp(uri: str) -> str | None:
    """The stamp of a file, a plate or a part of one; None where nothing is."""
    return stamps([uri])[uri]


def stamps(uris: Iterable[str]) -> dict[str, str | None]:
    """The stamps of many URIs; the wells of a plate cost one listing on an object store."""
    found: dict[str, str | None] = {}
    wells: dict[str, dict[str, str]] = {}
    for uri in uris:
        parsed = parse_uri(uri)
        root, inner = split_plate_path(parsed.path)
        if _is_well(parsed, inner):
            wells.setdefault(parsed.at(root).text, {})[uri] = inner
        else:
            found[uri] = _one(parsed)
    for plate, names in wells.items():
        held = well_stamps(plate, list(names.values()))
        found |= {uri: held.get(inner) for uri, inner in names.items()}
    return found


def well_stamps(plate_uri: str, wells: Sequence[str]) -> dict[str, str]:
    """Those of `wells` that the plate has, as they are written there, and their stamps."""
    try:
        plate = ps.open_plate(plate_uri)
    except NotFoundError:
        return {}
    present = {well: plate[stored] for well in wells if (stored := plate.find(well))}
    backend = backend_for(plate_uri)
    if isinstance(plate, FolderPlate) and _lists_cheaply(backend) and present:
        uri = parse_uri(plate_uri)
        files = backend.stat_files(uri.at(uri.path).text)
        return {
            well: _hash((p, _text(files[p]) if p in files else None) for p in _files(held))
            for well, held in present.items()
        }
    return {
        well: _hash((field, _of_field(held, field)) for field in held.fields)
        for well, held in present.items()
    }


def _of_field(well: Well, field: str) -> str | None:
    if not isinstance(well.plate, FolderPlate):
        return _one(parse_uri(f"{well.uri}/{field}"))
    with suppress(NotFoundError):  # not by its URI: that would look through the folder again
        return _text(stat_part_of(well.plate, parse_address(f"{well.path}/{field}")))
    return None


def _files(well: Well) -> Iterator[str]:
    """Paths of the images of a well, below the folder of its plate."""
    assert isinstance(well.plate, FolderPlate)
    for field in well.fields:
        yield from well.plate.field_image(well.path, field).all_files()


def _hash(parts: Iterable[object]) -> str:
    return hashlib.sha256(repr(list(parts)).encode()).hexdigest()[:32]


def _lists_cheaply(backend: object) -> TypeGuard[ByteStore]:
    """Whether one request lists a thousand files, as on object stores."""
    return isinstance(backend, ByteStore) and not backend.has_folders


def _one(uri: BackendURI) -> str | None:
    with suppress(NotFoundError):
        return _text(ps.stat(uri))
    return None


def _text(held: Stat) -> str:
    return held.etag or f"{held.kind} {held.size} {held.mtime!r}"


def _is_well(uri: BackendURI, inner: str) -> bool:
    with suppress(URIError):
        return bool(inner) and not uri.query and parse_address(inner).kind == "well"
    return False
