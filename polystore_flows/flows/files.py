"""Whole files as bytes, on backends of files and in plates that keep tables and texts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import polystore_flows as ps
from polystore_flows.backends import codecs
from polystore_flows.errors import CorruptDataError, UnsupportedError, URIError
from polystore_flows.hcs.address import TEXT_SUFFIXES
from polystore_flows.registry import backend_for
from polystore_flows.uri import BackendURI, parse_uri, redact

_SECRET_IN_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s@?#]*:[^/\s@?#]*@"
    r"|://\S*[?&][^=&\s]*(?:pass|pwd|secret|token|signature|credential)[^=&\s]*=",
    re.IGNORECASE,
)


def carries_secret(value: object) -> bool:
    """Whether a text, or one in a list or dict, holds a URI with a password or another secret."""
    if isinstance(value, str):
        return _SECRET_IN_URI.search(value) is not None
    if isinstance(value, Mapping):
        return any(carries_secret(item) for pair in value.items() for item in pair)
    return isinstance(value, list | tuple) and any(map(carries_secret, value))


def checked(uri: str) -> BackendURI:
    """`uri`, parsed.

    Raises:
        URIError: it is malformed, or carries a password or another secret.
    """
    parsed = parse_uri(uri)
    if str(parsed) != parsed.text or redact(uri) != uri:
        raise URIError(
            f"{parsed} carries a secret, which runs and logs would keep; leave it out and save "
            "it in a credentials block"
        )
    return parsed


def read_bytes(uri: str) -> bytes:
    """The file at `uri` as it is stored; from a plate, as its suffix encodes it.

    Raises:
        NotFoundError: nothing is stored there.
    """
    backend = backend_for(uri)
    if hasattr(backend, "read_bytes"):
        content: bytes = backend.read_bytes(uri)
        return content
    place = _in_plate(uri)
    return codecs.encode(ps.load(place), place)


def write_bytes(uri: str, content: bytes) -> None:
    """Store `content` at `uri`; atomic, overwrites.

    A plate keeps tables and texts only: there a file without such a suffix becomes a text.

    Raises:
        MismatchError: a file of this suffix cannot hold `content`.
    """
    backend = backend_for(uri)
    if hasattr(backend, "write_bytes"):
        backend.write_bytes(content, uri, overwrite=True)
        return
    place = _in_plate(uri)
    try:
        data = codecs.decode(content, place, where=str(parse_uri(uri)))
    except CorruptDataError as error:
        raise UnsupportedError(f"{error}; keep such files on a store of files") from error
    ps.save(data, place, overwrite=True)


def stored_name(uri: str) -> str:
    """Where `write_bytes` puts what is given for `uri`."""
    return uri if hasattr(backend_for(uri), "write_bytes") else _in_plate(uri)


def _in_plate(uri: str) -> str:
    return uri if uri.lower().endswith(TEXT_SUFFIXES) else f"{uri}.txt"
