"""Backend URIs: parse, join, print and redact them.

``scheme://authority/path?query``, where the authority is a bucket, a host or
the name of a memory store, and empty on a local file system. Paths are taken
as they stand (no percent-decoding), because lab folders hold spaces, ``#`` and
``%``. A URI may hold Snakemake wildcards such as ``{well}``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import PurePath
from urllib.parse import parse_qsl, quote, urlencode

from .errors import URIError
from .redaction import MASK, is_secret
from .redaction import redact as redact

LOCAL_SCHEMES = frozenset({"disk", "zarr"})
"""Schemes whose path lies on a file system of this machine."""

_NAMED = frozenset({"memory", "s3", "gs", "az", "omero"})
_ALIASES = {"file": "disk", "omero_local": "omero", "zarr+disk": "zarr", "zarr+file": "zarr"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class BackendURI:
    """One parsed URI. ``str()`` and ``repr()`` mask secrets; `text` is the whole of it."""

    scheme: str
    """Lower case, aliases resolved: ``disk``, ``memory``, ``zarr``, ``zarr+s3``, ``omero`` …"""
    authority: str = ""
    """Bucket, ``host[:port]`` or memory store; empty for local paths."""
    path: str = ""
    """Absolute (``/data/p.zarr/B/3``) or relative path, without a trailing slash."""
    query: tuple[tuple[str, str], ...] = ()
    """Decoded ``key, value`` pairs in their order."""

    @property
    def backend(self) -> str:
        """The part before ``+``: ``zarr`` of ``zarr+s3``."""
        return self.scheme.partition("+")[0]

    @property
    def transport(self) -> str | None:
        """The part after ``+``: ``s3`` of ``zarr+s3``; None for a local store."""
        return self.scheme.partition("+")[2] or None

    @property
    def is_local(self) -> bool:
        """Whether `path` is a path of this machine's file system."""
        return self.scheme in LOCAL_SCHEMES

    @property
    def text(self) -> str:
        """The URI in full, as it can be parsed again. Print ``str(uri)`` instead."""
        return self._render(self.query)

    def join(self, *parts: str) -> BackendURI:
        """This URI with `parts` below its path; the query is dropped.

        Raises:
            URIError: a part holds ``..`` and would leave this URI.
        """
        inner = "/".join(part.strip("/") for part in parts if part.strip("/"))
        if ".." in inner.split("/"):
            raise URIError(f"{self}: {inner!r} would leave it; use a path without '..'")
        path = f"{self.path}/{inner}" if inner and self.path != "." else inner or self.path
        return replace(self, path=path if self.path else inner, query=())

    def at(self, path: str) -> BackendURI:
        """This URI with another path and no query."""
        return replace(self, path=path, query=())

    def __str__(self) -> str:
        masked = ((k, MASK if is_secret(k) else v) for k, v in self.query)
        return self._render(tuple(masked))

    def __repr__(self) -> str:
        return f"BackendURI({str(self)!r})"

    def _render(self, query: tuple[tuple[str, str], ...]) -> str:
        if self.authority:
            start = f"{self.scheme}://{self.authority}/" + self.path.lstrip("/")
        elif self.path.startswith("/"):
            start = f"{self.scheme}://{self.path}"
        else:
            start = f"{self.scheme}:{self.path}"
        return start + ("?" + urlencode(query, safe="*{}:,", quote_via=quote) if query else "")


def parse_uri(text: str | os.PathLike[str] | BackendURI) -> BackendURI:
    """Parse `text`; a path without a scheme is ``zarr:`` if it lies in a ``.zarr``, else ``disk:``.

    Raises:
        URIError: it is empty, carries a password, or leaves its root by ``..``.
    """
    if isinstance(text, BackendURI):
        return text
    raw = os.fspath(text)
    if not isinstance(raw, str) or not raw or "\0" in raw:
        raise URIError(f"{text!r} is no URI; write for example disk:///data/plate1")
    match = None if isinstance(text, PurePath) else _SCHEME.fullmatch(raw)
    if match is None:
        in_zarr = any(part.endswith(".zarr") for part in raw.split("?")[0].split("/"))
        match = _SCHEME.fullmatch(f"{'zarr' if in_zarr else 'disk'}:{raw}")
        assert match is not None
    scheme = match[1].lower()
    scheme = _ALIASES.get(scheme, scheme)
    rest, _, query = match[2].partition("?")
    authority, path = _split_authority(scheme, rest, raw)
    parts = _segments(path, scheme, raw)
    if path.startswith("/") and (parts or scheme in LOCAL_SCHEMES):
        parts = "/" + parts
    elif not parts and path.strip("/"):  # "." and the like: the working directory
        parts = "."
    if not parts and not authority:
        raise URIError(f"{redact(raw)!r} names no path; write for example {scheme}:///data/plate1")
    selected = tuple(parse_qsl(query, keep_blank_values=True)) if query else ()
    return BackendURI(scheme, authority, parts, selected)


def _split_authority(scheme: str, rest: str, whole: str) -> tuple[str, str]:
    """Authority and path; `whole` is the URI, for errors."""
    named = scheme in _NAMED or "+" in scheme
    if not rest.startswith("//"):
        if named:
            raise URIError(f"{redact(whole)} has no '//'; write {scheme}://name/path instead")
        return "", rest
    authority, slash, path = rest[2:].partition("/")
    user, at, host = authority.rpartition("@")
    port = host.partition(":")[2]
    if at and ":" in user:
        raise URIError(
            f"{redact(whole)} carries a password; leave it out and give credentials by the "
            "environment, a session file or a profile"
        )
    if scheme in LOCAL_SCHEMES and authority:
        raise URIError(
            f"{redact(whole)} has two slashes; write {scheme}:///{authority}{slash}{path} for an "
            f"absolute path or {scheme}:{authority}{slash}{path} for a relative one"
        )
    if port and not port.isdecimal() and "{" not in port:
        raise URIError(f"{redact(whole)}: after the host's ':' stands no port")
    if named and not authority:
        raise URIError(f"{redact(whole)} names no host, bucket or store after '//'")
    return authority, slash + path


def _segments(path: str, scheme: str, whole: str) -> str:
    """`path` without empty and ``.`` segments; ``..`` only leads a relative local path."""
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part == ".." and (
            path.startswith("/") or scheme not in LOCAL_SCHEMES or set(parts) - {".."}
        ):
            raise URIError(f"{redact(whole)}: '..' would leave its root; write the path without it")
        parts.append(part)
    return "/".join(parts)
