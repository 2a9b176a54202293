"""Serve the files of one plate over HTTP on this machine, for viewers such as vizarr and napari.

Read-only, on the loopback interface only. A secret part of the path keeps other users and web
pages out; the ``Host`` header must name this machine, so that no web site can reach the server
under a name of its own. One byte range of a request is understood (RFC 9110, section 14), which
is what readers of OME-Zarr ask for.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from . import api
from .errors import NotFoundError, PolystoreError, UnsupportedError, URIError
from .registry import backend_for
from .uri import BackendURI, parse_uri

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_HOSTS = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?", re.IGNORECASE)
_CHUNK = 1024 * 1024
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "Range",
    "Access-Control-Expose-Headers": "Content-Length, Content-Range, Accept-Ranges",
    "Access-Control-Allow-Private-Network": "true",  # Chrome asks before a public page gets local
    "Access-Control-Max-Age": "600",
}


class PlateServer(ThreadingHTTPServer):
    """Serves one plate; ``serve_forever()`` starts it, ``shutdown()`` ends it.

    Args:
        uri: of a plate on a backend of files: ``disk:``, ``zarr:``, or objects below either.
        port: on 127.0.0.1; 0 takes a free one.
        token: the secret part of the path; a new one by default, ``""`` for none.

    Raises:
        NotFoundError: there is no plate.
        UnsupportedError: the backend has no files, as OMERO.
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, uri: api.URI, port: int = 0, token: str | None = None) -> None:
        parsed = parse_uri(uri)
        api.open_plate(parsed)
        self.files = _files_of(parsed)
        self.backend = backend_for(self.files)
        if not hasattr(self.backend, "open_binary"):
            raise UnsupportedError(
                f"{parsed}: this backend keeps no files that could be served; copy the plate to "
                "OME-Zarr first (polystore-flows cp)"
            )
        self.token = secrets.token_urlsafe(18) if token is None else token
        self.name = self.files.path.rpartition("/")[2] or self.files.authority
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise OSError(
                error.errno, f"port {port} cannot be used ({error.strerror}); choose another"
            ) from error

    @property
    def url(self) -> str:
        """Of the plate, with the token."""
        parts = (quote(part) for part in (self.token, self.name) if part)
        return f"http://127.0.0.1:{self.server_port}/" + "/".join(parts)

    def open(self, inner: str) -> BinaryIO | None:
        """The file at the path `inner` below the plate; None where there is none.

        Raises:
            URIError: the path would leave the plate.
        """
        place = self.files.join(inner)
        if self.files.is_local:
            root, real = os.path.realpath(self.files.path), os.path.realpath(place.path)
            if os.path.commonpath([root, real]) != root:
                raise URIError(f"{inner!r} is a link that leaves the plate")
        if not self.backend.is_file(place.text):
            return None
        try:
            file: BinaryIO = self.backend.open_binary(place.text)
        except NotFoundError:
            return None
        return file


def _files_of(uri: BackendURI) -> BackendURI:
    """The plate as files: ``zarr:`` on a disk, ``zarr+s3:`` on objects."""
    if uri.backend == "zarr":
        return replace(uri, scheme=uri.transport or "disk", query=())
    return replace(uri, query=())


class _Handler(BaseHTTPRequestHandler):
    """One request; nothing of it is logged, since its path holds the token."""

    server: PlateServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "polystore-flows", ""
    timeout = 60

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_OPTIONS(self) -> None:
        if self._is_for_us():
            self._head(HTTPStatus.NO_CONTENT, 0)

    def _refuse_method(self) -> None:
        self.close_connection = True  # its body is not read
        self._say(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD, OPTIONS"})

    do_POST = do_PUT = do_DELETE = do_PATCH = _refuse_method

    def _answer(self, *, with_body: bool) -> None:
        inner = self._inner()
        if inner is None:
            return
        try:
            file = self.server.open(inner)
        except URIError:
            self._say(HTTPStatus.FORBIDDEN)
            return
        except (PolystoreError, OSError):
            self._say(HTTPStatus.BAD_GATEWAY)
            return
        if file is None:
            self._say(HTTPStatus.NOT_FOUND)
            return
        with file:
            self._send(file, inner, with_body)

    def _send(self, file: BinaryIO, inner: str, with_body: bool) -> None:
        size = file.seek(0, os.SEEK_END)
        wanted = _wanted(self.headers.get("Range", ""), size)
        if wanted is None:
            self._say(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"}
            )
            return
        start, end = wanted
        headers = {"Content-Type": _type_of(inner), "Accept-Ranges": "bytes"}
        status = HTTPStatus.OK
        if (start, end) != (0, size):
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._head(status, end - start, headers)
        file.seek(start)
        try:
            while with_body and start < end:
                part = file.read(min(end - start, _CHUNK))
                if not part:
                    raise EOFError
                self.wfile.write(part)
                start += len(part)
        except (PolystoreError, OSError, EOFError):
            self.close_connection = True  # fewer bytes than announced: the client notices

    def _is_for_us(self) -> bool:
        """Whether the request names this machine and the token; else it is refused."""
        given = unquote(urlsplit(self.path).path).split("/")[1]
        known = not self.server.token or hmac.compare_digest(
            given.encode(), self.server.token.encode()
        )
        if known and _HOSTS.fullmatch(self.headers.get("Host", "")):
            return True
        self._say(HTTPStatus.FORBIDDEN)
        return False

    def _inner(self) -> str | None:
        """The path below the plate; None where the request was answered already."""
        if not self._is_for_us():
            return None
        parts = unquote(urlsplit(self.path).path).split("/")[1:]
        if self.server.token:
            parts = parts[1:]
        if ".." in parts or "\0" in self.path or "\\" in "".join(parts):
            self._say(HTTPStatus.FORBIDDEN)
            return None
        if parts[:1] != [self.server.name]:
            self._say(HTTPStatus.NOT_FOUND)
            return None
        return "/".join(parts[1:])

    def _say(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        text = f"{status.value} {status.phrase}\n".encode()
        self._head(status, len(text), {"Content-Type": "text/plain"} | (headers or {}))
        if self.command != "HEAD":
            self.wfile.write(text)

    def _head(self, status: HTTPStatus, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        told = _CORS | {"Content-Length": str(length), "X-Content-Type-Options": "nosniff"}
        for name, value in (told | {"Cache-Control": "no-store"} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""


def _wanted(header: str, size: int) -> tuple[int, int] | None:
    """Start and end of the bytes asked for: all, where a range is not one that is understood.

    None where the range lies outside.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:  # the last bytes
        return (max(size - int(last), 0), size) if int(last) and size else None
    start, end = int(first), min(int(last), size - 1) + 1 if last else size
    if last and int(last) < int(first):
        return 0, size
    return (start, end) if start < size else None


def _type_of(inner: str) -> str:
    name = inner.rpartition("/")[2]
    is_json = name.endswith(".json") or name in (".zattrs", ".zgroup", ".zarray", ".zmetadata")
    return "application/json" if is_json else "application/octet-stream"
