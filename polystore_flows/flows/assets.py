"""Keys of Prefect's assets for URIs, and the events that tell of plates."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace

from prefect.assets import Asset, AssetProperties
from prefect.events import emit_event

from polystore_flows.uri import BackendURI, parse_uri

PLATE_COMPLETE = "polystore.plate.complete"
"""A plate lies there, whole; a deployment may start on it."""
PLATE_PROCESSED = "polystore.plate.processed"
"""All wells were made of it that were to be."""
PLATE_INCOMPLETE = "polystore.plate.incomplete"
"""Some wells failed."""

_MOST = 512  # characters of a key
_OURS = "polystore"
_REFUSED = re.compile(r"[^A-Za-z0-9._/:@,=+-]")


def absolute(uri: str | BackendURI) -> BackendURI:
    """`uri`, a relative local path starting at the root: the same place in any process."""
    parsed = parse_uri(uri)
    return replace(parsed, path=os.path.abspath(parsed.path)) if parsed.is_local else parsed  # noqa: PTH100


def same_place(one: str, two: str) -> bool:
    """Whether two URIs name one plate, whatever links lead there."""
    a, b = (absolute(uri) for uri in (one, two))
    if a.is_local and b.is_local:
        return os.path.realpath(a.path) == os.path.realpath(b.path)
    return (a.scheme, a.authority, a.path) == (b.scheme, b.authority, b.path)


def asset_key(uri: str | BackendURI) -> str:
    """A key that Prefect accepts, another one for every other place.

    It is the absolute URI without secrets; ``~`` and two hexadecimal digits stand for a byte that
    Prefect refuses, ``polystore://zarr+s3/`` for ``zarr+s3://``, and the hash of it all for the
    end of one that is too long.
    """
    parsed = absolute(uri)
    scheme, _, rest = str(parsed).partition("://")
    if not re.fullmatch(r"[a-z0-9]+", scheme) or scheme == _OURS:
        scheme, rest = _OURS, f"{scheme}/{rest}"
    key = f"{scheme}://" + _REFUSED.sub(_escaped, rest)
    if len(key) <= _MOST:
        return key
    return f"{key[: _MOST - 66]}~~{hashlib.sha256(key.encode()).hexdigest()}"


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"~{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))


def asset_of(uri: str) -> Asset:
    """The asset of a plate or a file."""
    name = parse_uri(uri).path.rstrip("/").rpartition("/")[2] or str(parse_uri(uri))
    return Asset(key=asset_key(uri), properties=AssetProperties(name=name))


def announce_plate(uri: str, event: str = PLATE_COMPLETE, **payload: object) -> None:
    """Tell Prefect of a plate, for automations to react to.

    Args:
        uri: of the plate; the payload's ``uri`` is it, made absolute.
        event: what happened to it.
        payload: what else to say; no secrets.
    """
    parsed = absolute(uri)
    name = parsed.path.rstrip("/").rpartition("/")[2]
    emit_event(
        event=event,
        resource={"prefect.resource.id": asset_key(parsed), "prefect.resource.name": name},
        payload={"uri": str(parsed), **payload},
    )
