"""Where to log in and with what: session keys, session files, the environment.

Credentials are looked for when a connection is made, in this order, and kept nowhere:

1. those given to the backend in this process (`Credentials`);
2. ``POLYSTORE_OMERO_SESSION``, a session key;
3. the session file that ``omero login`` wrote for this host;
4. ``OMERO_USER`` and ``OMERO_PASSWORD``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import AccessDeniedError, URIError
from ...uri import BackendURI

DEFAULT_PORT = 4064


@dataclass(frozen=True, slots=True)
class Login:
    """A server and whom to be there; no secret, so it may be pickled, printed and logged."""

    host: str
    port: int = DEFAULT_PORT
    user: str | None = None
    """Name; None for whom the credentials are of."""
    group: str | None = None
    """Group that new things are made in; None for the user's default."""
    tls: bool = True

    def __str__(self) -> str:
        return f"omero://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A session key, or a user and password; never pickled."""

    session: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("credentials are not pickled; give them to each process by its environment")

    @property
    def pair(self) -> tuple[str, str]:
        """Name and secret as the router takes them."""
        if self.session:
            return self.session, self.session
        return self.user or "", self.password or ""


def login_of(uri: BackendURI, *, group: str | None, tls: bool) -> Login:
    """The server that an ``omero:`` URI names, ``user@`` included."""
    user, _, place = uri.authority.rpartition("@")
    host, _, port = place.partition(":")
    if not host:
        raise URIError(f"{uri} names no host; write omero://host/plate/123")
    return Login(host, int(port) if port else DEFAULT_PORT, user or None, group, tls)


def find_credentials(login: Login) -> Iterator[Credentials]:
    """What this process may log in with, the best first.

    Raises:
        AccessDeniedError: there is nothing.
    """
    found = False
    key = os.environ.get("POLYSTORE_OMERO_SESSION")
    if key:
        found = True
        yield Credentials(session=key)
    kept = _session_file(login)
    if kept:
        found = True
        yield Credentials(session=kept)
    user, password = os.environ.get("OMERO_USER"), os.environ.get("OMERO_PASSWORD")
    if user and password and login.user in (None, user):
        found = True
        yield Credentials(user=user, password=password)
    if not found:
        raise AccessDeniedError(
            f"{login}: no credentials; run 'omero login {login.host}', or set "
            "POLYSTORE_OMERO_SESSION, or OMERO_USER and OMERO_PASSWORD"
        )


def _session_file(login: Login) -> str | None:
    """The key of the session that ``omero login`` opened last on this host for this user."""
    folder = os.environ.get("OMERO_SESSIONDIR")
    base = Path(folder) if folder else _user_folder() / "sessions"
    if not base.is_dir():
        return None
    from omero.util.sessions import SessionsStore

    store = SessionsStore(str(base))
    try:
        name = login.user or store.user_file(login.host).text().strip()
        key = store.sess_file(login.host, name).text().strip()
        port = store.get(login.host, name, key).get("omero.port", str(DEFAULT_PORT))
    except OSError:
        return None
    return key if port == str(login.port) else None


def _user_folder() -> Path:
    """As omero-py's own ``get_omero_userdir``, without its warnings."""
    named = os.environ.get("OMERO_USERDIR")
    return Path(named) if named else Path.home() / "omero"
