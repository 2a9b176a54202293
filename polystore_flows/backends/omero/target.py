"""What an identifier of the OMERO backend names: a server, a plate, and an address below it.

``omero://host[:port]/plate/123`` is a plate by number, ``omero://host/plate/NAME`` one that was
made by this package, by name. A name with a slash is written with ``%2F``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import unquote

from ...contracts import Identifier, check_identifiers
from ...errors import URIError
from ...hcs.address import Address, parse_address
from ...settings import get_settings
from ...uri import BackendURI, parse_uri
from .login import Login, login_of


@dataclass(frozen=True, slots=True)
class Target:
    """An identifier, understood."""

    uri: BackendURI
    """The whole."""
    login: Login
    plate: int | str
    """Number, or name."""
    inner: str
    """The path below the plate."""

    @property
    def plate_uri(self) -> str:
        """The plate, to be shown."""
        return str(self.uri.at("/".join(self.uri.path.split("/")[:3])))

    @property
    def address(self) -> Address:
        """What `inner` and the query select. Raises `URIError`."""
        try:
            return parse_address(self.inner, self.uri.query)
        except URIError as error:
            raise URIError(f"{self.uri}: {error}") from error


def parse_target(identifier: Identifier) -> Target:
    """The parts of `identifier`.

    Raises:
        URIError: it names no plate on a server.
    """
    check_identifiers([identifier])
    uri = parse_uri(os.fspath(identifier))
    if uri.scheme != "omero":
        raise URIError(f"{uri} names no OMERO server; write omero://host/plate/123")
    kind, _, rest = uri.path.strip("/").partition("/")
    name, _, inner = rest.partition("/")
    if kind != "plate" or not name:
        raise URIError(f"{uri} names no plate; write omero://{uri.authority}/plate/123")
    settings = get_settings()
    login = login_of(uri, group=settings.omero_group, tls=settings.omero_tls)
    plate = int(name) if name.isdecimal() else unquote(name)
    return Target(uri, login, plate, inner)
