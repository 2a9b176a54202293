"""One session with an OMERO server for a process: made on first use, kept alive, made again.

A fork inherits no session: the child makes its own, and leaves its parent's alone. Pickles carry
the `Login` only.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.util import Finalize
from threading import RLock
from typing import Any, TypeVar

import Ice
import omero
import omero.clients
from omero.rtypes import rlist, rlong, rstring, unwrap

from ...settings import get_settings
from .errors import NOT_DONE, PASSING, REFUSED, omero_errors
from .login import Credentials, Login, find_credentials

_T = TypeVar("_T")

AGENT = "polystore-flows"
"""What we are called in the server's list of sessions."""
TRIES = 4
"""How often a call that may be repeated is sent."""
PAUSE = 0.1
"""Seconds before the second try; each further one waits three times as long, at most 3."""
KEEP_ALIVE = 60
"""Seconds between two signs of life."""
_ABSENT = (Ice.ConnectionRefusedException, Ice.ConnectTimeoutException)

_open: weakref.WeakSet[Connection] = weakref.WeakSet()


class Live:
    """A session that is up, and the proxies of its services."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.factory = client.getSession()
        self._services: dict[str, Any] = {}

    def service(self, name: str) -> Any:
        """A stateless service, ``getQueryService``; asked for once."""
        if name not in self._services:
            self._services[name] = getattr(self.factory, name)()
        return self._services[name]


class Connection:
    """The session of this process with one server; safe for threads, forks and pickles.

    Args:
        login: where and as whom.
        credentials: instead of those that `find_credentials` finds; stay in this process.
    """

    def __init__(self, login: Login, credentials: Credentials | None = None) -> None:
        self.login = login
        self._credentials = credentials
        self._lock = RLock()
        self._live: Live | None = None
        _open.add(self)

    def __reduce__(self) -> tuple[object, ...]:
        return Connection, (self.login,)

    def __repr__(self) -> str:
        return f"<Connection {self.login}>"

    # Calls

    def run(self, act: Callable[[Live], _T], where: object = "", *, repeat: bool = True) -> _T:
        """What `act` gives on a live session; with `repeat` sent again after a passing failure.

        Without `repeat` it is sent again only if it was surely not carried out.

        Raises:
            StoreUnavailableError: no server answers; without `repeat` the call may have acted.
            AccessDeniedError: it refuses the credentials or what is asked.
        """
        with omero_errors(where or self.login):
            pause = PAUSE
            for left in reversed(range(TRIES)):
                live = None
                try:
                    live = self.live()
                    return act(live)
                except omero.OptimisticLockException:
                    raise  # is a ConcurrencyException, but the same call would fail again
                except PASSING as error:
                    if live is not None and not isinstance(error, omero.ConcurrencyException):
                        self._drop(live)
                    if live is None:  # the connection was lost while logging in
                        again = not isinstance(error, _ABSENT)
                    else:
                        again = repeat or isinstance(error, NOT_DONE)
                    if not left or not again:
                        raise
                    time.sleep(pause)
                    pause = min(pause * 3, 3.0)
            raise AssertionError("unreachable")

    def rows(
        self, query: str, where: object = "", *, group: int = -1, **values: Any
    ) -> list[tuple[Any, ...]]:
        """``IQuery.projection`` as plain values; `values` are the query's parameters."""

        def act(live: Live) -> list[Any]:
            service = live.service("getQueryService")
            found: list[Any] = service.projection(query, _parameters(values), _context(group))
            return found

        return [tuple(unwrap(value) for value in row) for row in self.run(act, where)]

    def objects(
        self, query: str, where: object = "", *, group: int = -1, **values: Any
    ) -> list[Any]:
        """``IQuery.findAllByQuery``."""

        def act(live: Live) -> list[Any]:
            service = live.service("getQueryService")
            found: list[Any] = service.findAllByQuery(query, _parameters(values), _context(group))
            return found

        return self.run(act, where)

    def save(self, objects: Sequence[Any], group: int, where: object = "") -> list[Any]:
        """Write graphs in one transaction; not sent twice."""

        def act(live: Live) -> list[Any]:
            service = live.service("getUpdateService")
            saved: list[Any] = service.saveAndReturnArray(list(objects), _context(group))
            return saved

        return self.run(act, where, repeat=False)

    def delete(self, targets: dict[str, list[int]], where: object = "", *, group: int = -1) -> None:
        """Delete objects by kind and number with all below them; all or nothing."""
        from omero.cmd import ERR, Delete2

        def act(live: Live) -> Any:
            handle = live.factory.submit(Delete2(targetObjects=targets), _context(group))
            try:
                pause = 0.01
                while (response := handle.getResponse()) is None:
                    time.sleep(pause)
                    pause = min(pause * 2, 1.0)
                return response
            finally:
                with suppress(Ice.Exception):
                    handle.close()

        response = self.run(act, where, repeat=False)
        if isinstance(response, ERR):
            told = (response.parameters or {}).get("message", response.name)
            kind = omero.SecurityViolation if "permi" in told else omero.ValidationException
            with omero_errors(where or self.login):
                raise kind(message=told)

    # The session

    def live(self) -> Live:
        """The session, made if there is none."""
        with self._lock:
            if self._live is None:
                self._live = Live(self._connect())
                _close_at_end()
            return self._live

    @property
    def is_live(self) -> bool:
        """Whether a session was made and not found to be lost."""
        return self._live is not None

    def _connect(self) -> Any:
        """Log in with the first credentials that the server takes."""
        tried = [self._credentials] if self._credentials else find_credentials(self.login)
        refused: BaseException | None = None
        for credentials in tried:
            client = self._client()
            try:
                client.createSession(*credentials.pair)
            except REFUSED as error:
                refused = error
                _destroy(client)
                continue
            except BaseException:
                _destroy(client)
                raise
            if credentials.session:
                client.getSession().detachOnDestroy()  # it is somebody else's to close
            client.enableKeepAlive(KEEP_ALIVE)
            return client
        assert refused is not None
        raise refused

    def _client(self) -> Any:
        login = self.login
        properties = {
            "Ice.Default.InvocationTimeout": str(int(get_settings().omero_timeout * 1000)),
            "Ice.Override.ConnectTimeout": "10000",
            "Ice.Warn.Connections": "0",
        }
        host = login.host if login.tls else f"tcp://{login.host}"
        # The first argument names the program in what Ice prints.
        client = omero.client(args=[AGENT], host=host, port=login.port, pmap=properties)
        client.setAgent(AGENT)
        return client

    def _drop(self, live: Live) -> None:
        """Forget a session that was lost, unless another thread did and made a new one."""
        with self._lock:
            if self._live is live:
                self._live = None
                _destroy(live.client)

    def close(self) -> None:
        """End the session; the next call makes a new one."""
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            with suppress(Ice.Exception, omero.ClientError):
                live.client.closeSession()
            _destroy(live.client)

    def _forget(self) -> None:
        """In a forked child: leave the parent's session alone, also when it is collected."""
        self._lock = RLock()
        live, self._live = self._live, None
        if live is not None:
            _inherited.append(live)
            _disarm(live.client)


_shared: dict[Login, Connection] = {}
_shared_lock = RLock()


def shared(login: Login) -> Connection:
    """The connection of this process for `login`, with the credentials that it finds."""
    with _shared_lock:
        if login not in _shared:
            _shared[login] = Connection(login)
        return _shared[login]


_inherited: list[Live] = []
_registered = 0


def _disarm(client: Any) -> None:
    """Let ``omero.client`` hold nothing, so that it does not end a session when collected."""
    for name in ("sf", "ic", "oa", "resources"):
        setattr(client, f"_BaseClient__{name}", None)


def _destroy(client: Any) -> None:
    """Release what a client holds here; says nothing to the server, which may be gone."""
    with suppress(Ice.Exception, omero.ClientError):
        client.stopKeepAlive()
        communicator = client.getCommunicator()
        _disarm(client)
        communicator.destroy()


def _parameters(values: dict[str, Any]) -> Any:
    parameters = omero.sys.ParametersI()
    for name, value in values.items():
        if isinstance(value, str):
            parameters.add(name, rstring(value))
        elif isinstance(value, int):
            parameters.add(name, rlong(value))
        else:
            wrap = rstring if value and isinstance(next(iter(value)), str) else rlong
            parameters.add(name, rlist([wrap(item) for item in value]))
    return parameters


def _context(group: int) -> dict[str, str]:
    return {"omero.group": str(group)}


def _close_all() -> None:
    for connection in list(_open):
        connection.close()


def _close_at_end() -> None:
    """Once for each process; those of multiprocessing do not run ``atexit``."""
    global _registered
    if _registered != os.getpid():
        _registered = os.getpid()
        Finalize(None, _close_all, exitpriority=1)


def _after_fork() -> None:
    global _shared_lock
    _shared_lock = RLock()
    for connection in list(_open):
        connection._forget()


os.register_at_fork(after_in_child=_after_fork)
