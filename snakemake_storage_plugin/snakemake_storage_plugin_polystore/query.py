"""Queries: which ones are ours, why one is refused, and what it names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from snakemake_interface_storage_plugins.io import WILDCARD_REGEX

from polystore_flows.errors import URIError
from polystore_flows.hcs.address import Address, parse_address, parse_planes, split_plate_path
from polystore_flows.uri import BackendURI, parse_uri

SCHEMES = ("disk", "file", "zarr", "omero")
"""Ours, beside ``zarr+s3`` and its like; other plugins claim ``s3:`` and plain paths."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*):(.*)", re.DOTALL)
_KNOWN = ", ".join(f"{scheme}:" for scheme in SCHEMES) + " or zarr+s3:"


@dataclass(frozen=True, slots=True)
class Query:
    """A query without wildcards, taken apart."""

    uri: BackendURI
    plate: str
    """The query's own text up to the end of the plate; all of it for a plain file or folder."""
    address: Address | None
    """Below the plate; None for a plain file or folder."""

    @property
    def kind(self) -> str:
        """``plate``, ``well``, ``field``, ``label``, ``file`` of a plate, or a plain ``path``."""
        return "path" if self.address is None else self.address.kind

    @property
    def on_disk(self) -> bool:
        """Whether the scheme is ``disk:``, where an address may also be a real folder."""
        return self.uri.scheme == "disk"


def refusal(query: str) -> str | None:
    """Why `query` cannot be used, or None if it can; it may hold wildcards.

    A query has one spelling (no ``//``, ``.`` or trailing slash), so that two queries never
    share a local path.
    """
    text = without_constraints(query)
    match = _SCHEME.fullmatch(text)
    if match is None:
        return "it has no scheme; write for example zarr:///data/p.zarr/B/03/0 or disk:///raw/a.tif"
    scheme, rest = match.groups()
    if scheme in ("memory", "zarr+memory"):
        return "memory belongs to one process and jobs run in others; use disk: or zarr:"
    if scheme not in SCHEMES and not re.fullmatch(r"zarr\+[a-z0-9]+", scheme):
        return f"the scheme '{scheme}:' is not one of this plugin; use {_KNOWN}"
    try:
        return _bad_path(scheme, rest) or _bad_address(text, parse_uri(text))
    except URIError as error:
        return str(error)


def without_constraints(query: str) -> str:
    """`query` with ``{well,[A-H]/[0-9]+}`` as ``{well}``."""
    plain: str = WILDCARD_REGEX.sub(lambda match: "{" + match["name"] + "}", query)
    return plain


@lru_cache(maxsize=8192)
def parse_query(query: str) -> Query:
    """A valid query without wildcards, taken apart; text alone decides, nothing is looked up.

    Raises:
        URIError: its address is malformed.
    """
    uri = parse_uri(query)
    inner = _inner(uri)
    try:
        address = parse_address(inner, uri.query)
    except URIError:
        if uri.scheme != "disk":
            raise
        address = None
    if uri.scheme == "disk" and (address is None or address.kind in ("plate", "file")):
        return Query(uri, query, None)
    whole = query.partition("?")[0]
    return Query(uri, whole.removesuffix(f"/{inner}") if inner else whole, address)


def _inner(uri: BackendURI) -> str:
    """The address below the plate, as text."""
    if uri.backend == "omero":
        return "/".join(uri.path.strip("/").split("/")[2:])  # /plate/123/B/03
    return split_plate_path(uri.path)[1]


def _bad_path(scheme: str, rest: str) -> str | None:
    path = rest.lstrip("/")
    example = f"{scheme}:///data/…" if rest.startswith("/") else f"{scheme}:data/…"
    if rest.startswith("/") and not rest.startswith("//"):
        return f"an absolute path has three slashes; write {scheme}://{rest}"
    parts = path.split("/")
    if ".." in parts:
        return "'..' would leave its folder; write the path without it"
    if "" in parts or "." in parts or rest.startswith("////"):
        return f"it has an empty or '.' part; write {example} without '//', '/.' and last '/'"
    if any(part == "@" or part.startswith("@.") for part in parts):
        return "names '@' and '@.…' are kept for local copies; rename it"
    return None


def _bad_address(text: str, uri: BackendURI) -> str | None:
    if uri.scheme == "disk":
        parse_planes(() if "{" in text.partition("?")[2] else uri.query)
    elif "{" not in text:
        parse_query(text)
    elif "{" not in (inner := _inner(uri)) and "{" not in text.partition("?")[2]:
        parse_address(inner, uri.query)
    return None
