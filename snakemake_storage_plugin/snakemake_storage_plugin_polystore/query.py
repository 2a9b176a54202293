"""Queries: which ones are ours, why one is refused, and what it names.

What is found out about a query is remembered, as Snakemake asks several times for each, but as
text only: where there are thousands of queries, to keep objects costs the garbage collector more
time than to make them again.
"""

from __future__ import annotations

import os
import re
from functools import cache, lru_cache
from typing import NamedTuple
from urllib.parse import urlencode

from snakemake_interface_storage_plugins.io import WILDCARD_REGEX

from polystore_flows.errors import URIError
from polystore_flows.hcs.address import (
    TEXT_SUFFIXES,
    Address,
    parse_address,
    parse_planes,
    split_plate_path,
)
from polystore_flows.uri import BackendURI, parse_uri

OBJECTS = ("s3", "gs", "az")
"""Claimed by providers that the user named only: other plugins infer them."""

FILES = ("disk", *OBJECTS)
"""Where an address in a plate may also be a real file or folder."""

_RECENT = 64
"""Queries of which the parts are kept."""

_CLAIMED = ("disk", "file", "zarr", *(f"zarr+{scheme}" for scheme in OBJECTS), "omero")
_KNOWN = ", ".join(f"{scheme}:" for scheme in _CLAIMED)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*):(.*)", re.DOTALL)
_OMERO = re.compile(r"/plate/[^/]+(/.*)?")  # a number, or the name of one that this package made
_LIKELY = {"well": "A/1", "row": "A", "column": "1", "col": "1", "field": "0", "site": "0"}
"""What wildcards of these names stand for, to tell the kind of a query with wildcards."""


class Query(NamedTuple):
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
    def is_array(self) -> bool:
        """Whether it is a plate or images of one, which jobs best open themselves."""
        return self.kind not in ("path", "file")

    @property
    def among_files(self) -> bool:
        """Whether it lies where an address in a plate may also be a real file or folder."""
        return self.uri.scheme in FILES


def refusal(query: str, *, named: bool = False) -> str | None:
    """Why `query` cannot be used, or None if it can; it may hold wildcards.

    A query has one spelling (no ``//``, ``.`` or trailing slash), so that two queries never
    share a local path.

    Args:
        query: of a Snakefile.
        named: whether the user named this plugin, so that queries are ours that others infer.
    """
    scheme = query.partition(":")[0]
    if scheme in OBJECTS and not named:
        return f"'{scheme}:' is for this plugin only if it is named: storage.polystore(…)"
    return _refusal(query)


@cache
def _refusal(query: str) -> str | None:
    text = without_constraints(query)
    match = _SCHEME.fullmatch(text)
    if match is None:
        return "it has no scheme; write for example zarr:///data/p.zarr/B/03/0 or disk:///raw/a.tif"
    scheme, rest = match.groups()
    if scheme in ("memory", "zarr+memory"):
        return "memory belongs to one process and jobs run in others; use disk: or zarr:"
    if scheme not in (*_CLAIMED, *OBJECTS):
        return f"the scheme '{scheme}:' is not one of this plugin; use {_KNOWN}"
    try:
        return _bad_path(scheme, rest) or _bad_address(text)
    except URIError as error:
        return str(error)


def without_constraints(query: str) -> str:
    """`query` with ``{well,[A-H]/[0-9]+}`` as ``{well}``."""
    plain: str = WILDCARD_REGEX.sub(lambda match: "{" + match["name"] + "}", query)
    return plain


@lru_cache(maxsize=_RECENT)
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
        if uri.scheme not in FILES:
            raise
        address = None
    if uri.scheme in FILES and (address is None or address.kind in ("plate", "file")):
        return Query(uri, query, None)
    whole = query.partition("?")[0]
    return Query(uri, whole.removesuffix(f"/{inner}") if inner else whole, address)


@cache
def outline(query: str) -> tuple[str, str, bool]:
    """``Query.kind`` and ``Query.plate`` of a valid query, and whether its plate may list it.

    It may not where it names planes, or may be a real file or folder too.

    Raises:
        URIError: its address is malformed.
    """
    parsed = parse_query(query)
    whole = parsed.address is not None and parsed.address.planes.is_all and not parsed.uri.query
    return parsed.kind, parsed.plate, whole and not parsed.among_files


@cache
def place_of(query: str) -> str:
    """A name for what `query` names, the same for all its spellings; for caches."""
    if outline(query)[0] == "path":
        uri = parse_uri(query)
        root, inner = uri.path, ""
    else:
        parsed = parse_query(query)
        uri = parsed.uri
        root = uri.path[: -len(_inner(uri)) or None].rstrip("/")
        inner = f"/{parsed.address}".rstrip("/")
    planes = f"?{urlencode(sorted(uri.query))}" if uri.query else ""
    if uri.is_local:
        return os.path.abspath(root) + inner + planes  # noqa: PTH100 (links stay)
    return f"{uri.transport or uri.backend}://{uri.authority}{root}{inner}{planes}"


def by_reference(query: str) -> bool:
    """Whether jobs best open `query`, which may hold wildcards: a plate, images, all of OMERO.

    ``{well}``, ``{row}``, ``{column}`` and ``{field}`` stand for what they are called.
    """
    if query.startswith("omero:"):
        return True
    text = WILDCARD_REGEX.sub(lambda match: _LIKELY.get(match["name"], "0"), query)
    if not text.startswith(tuple(f"{scheme}:" for scheme in (*FILES, "file"))):
        return not text.partition("?")[0].lower().endswith(TEXT_SUFFIXES)
    try:
        return parse_query(text).is_array
    except URIError:
        return False


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
    if any(part.endswith("@") for part in parts):
        return "names that end in '@' are kept for local copies; rename it"
    return None


def _bad_address(text: str) -> str | None:
    has_wildcards = "{" in text
    if not has_wildcards:
        outline(text)  # raises what is wrong; else it is asked for next
    uri = parse_uri(text) if has_wildcards else parse_query(text).uri
    if uri.scheme in OBJECTS and not uri.path:
        return "it names a whole bucket; name a key in it"
    if uri.backend == "omero" and not _OMERO.fullmatch(f"/{uri.path.strip('/')}"):
        return "it names no plate; write for example omero://host/plate/12/B/03/0"
    if uri.scheme in FILES:
        parse_planes(() if "{" in text.partition("?")[2] else uri.query)
    elif has_wildcards and "{" not in (inner := _inner(uri)) + text.partition("?")[2]:
        parse_address(inner, uri.query)
    return None
