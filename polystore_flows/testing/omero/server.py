"""An OMERO server on the loopback interface, on Ice with omero-py's own skeletons.

It speaks the real protocol over TCP with any client of OMERO, counts calls and bytes, and can be
told to be slow, to drop connections and to expire sessions. It runs in threads of its process.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Self

import Glacier2
import Ice
import omero
import omero.gateway  # registers all types
import omero.ObjectFactoryRegistrar as registrar
import omero.rtypes

from .access import SYSTEM_GROUP, USER_GROUP, Group, User
from .schema import root_of
from .servant import Session
from .services import experimenter, membership
from .session import Router
from .store import Row, Store

_ROUTER = Ice.Identity(category="OMERO.Glacier2", name="router")
_OWN = {"createSession", "destroySession", "getClientProxy", "getServerProxy", "addProxies"}
_OWN |= {"getCategoryForClient", "getSessionTimeout", "getACMTimeout", "refreshSession"}
_OWN |= {"setCallback", "closeOnDestroy", "detachOnDestroy", "ice_isA", "ice_id", "ice_ping"}

SECRET = "canary-secret-that-must-not-be-seen"
"""The user's password in tests."""


class OmeroServer:
    """One server; a context manager. Its knobs can be turned while it runs.

    It starts with the groups ``system``, ``user`` and ``lab`` (``rwra--``) and the user ``demo``
    of ``lab``.

    Args:
        folder: where it keeps its data; found again by the next server on it. By default in
            memory and a temporary folder.
        port: a free one by default.
        password: of ``demo``; the default one is for tests to look for where no secret may be.
    """

    def __init__(
        self, folder: Path | None = None, port: int = 0, *, password: str = SECRET
    ) -> None:
        self.calls: Counter[str] = Counter()
        """Calls since `reset` by ``Service.operation``, without those that make a connection."""
        self.bytes_sent = self.bytes_received = 0
        """Bytes of pixels, files and tables since `reset`."""
        self.delay = 0.0
        """Seconds that every call takes longer."""
        self.drop_every = 0
        """Close the connection instead of answering every n-th call."""
        self.unanswered: list[str] = []
        """Operations that are carried out once each without an answer: the connection closes."""
        self.groups: dict[int, Group] = {}
        self.users: dict[str, User] = {}
        self._sessions: dict[str, Session] = {}
        self._connections: dict[str, Session] = {}
        self._numbers = itertools.count(1)
        self._lock = Lock()
        self.store = Store(folder)
        self.add_group("system", "rw----", SYSTEM_GROUP)
        self.add_group("user", "rwr-r-", USER_GROUP)
        lab = self.add_group("lab", "rwra--", 3)
        self.demo = self.add_user("demo", password, [lab.id, USER_GROUP])
        self._start(port)

    def _start(self, port: int) -> None:
        data = Ice.InitializationData()
        data.properties = Ice.createProperties()
        for key, value in {
            "Ice.MessageSizeMax": "250000",
            "Ice.ThreadPool.Server.Size": "2",
            "Ice.ThreadPool.Server.SizeMax": "32",
            "Ice.ACM.Server.Timeout": "0",
            "Ice.Warn.Connections": "0",
            "Ice.Warn.Dispatch": "0",
        }.items():
            data.properties.setProperty(key, value)
        self._ice = Ice.initialize(data)
        registrar.registerObjectFactory(self._ice, None)
        for factory in omero.rtypes.ObjectFactories.values():
            factory.register(self._ice)
        self._adapter = self._ice.createObjectAdapterWithEndpoints(
            "loopback", f"tcp -h 127.0.0.1 -p {port}"
        )
        self._router = Router(self)
        self._adapter.addServantLocator(_Dispatcher(self), "")
        self._adapter.activate()
        self.port: int = self._adapter.getEndpoints()[0].getInfo().port

    @property
    def host(self) -> str:
        """Where it listens."""
        return "127.0.0.1"

    @property
    def router_address(self) -> str:
        """The router, as Ice writes it."""
        return f"OMERO.Glacier2/router:tcp -p {self.port} -h {self.host}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that let a process in as ``demo``."""
        return {
            "OMERO_USER": self.demo.name,
            "OMERO_PASSWORD": self.demo.password,
            "POLYSTORE_OMERO_TLS": "false",
        }

    def uri(self, path: str = "") -> str:
        """An ``omero:`` URI on this server."""
        return f"omero://{self.host}:{self.port}/{path}"

    def add_group(self, name: str, permissions: str = "rw----", number: int | None = None) -> Group:
        """Make a group with OMERO's permissions, ``rwr---`` or ``rwrw--``."""
        group = Group(self.number() + 100 if number is None else number, name, permissions)
        self.groups[group.id] = group
        self._keep(Row("ExperimenterGroup", group.id, {"name": name, "ldap": False}))
        return group

    def add_user(self, name: str, password: str, groups: list[int], *, admin: bool = False) -> User:
        """Make a user; the first of its groups is the default."""
        user = User(self.number() + 100, name, password, groups, admin)
        self.users[name] = user
        self._keep(Row("Experimenter", user.id, experimenter(name)))
        for group in groups:
            row = membership(user.id, group)
            row.id = self.number() + 1000
            self._keep(row)
        return user

    def user(self, number: int) -> User:
        """A user by number."""
        return next(user for user in self.users.values() if user.id == number)

    def _keep(self, row: Row) -> None:
        self.store.rows.setdefault(root_of(row.kind), {})[row.id] = row

    # Sessions

    def open_session(self, user: User, group: int | None = None) -> Session:
        """Open a session without a client, as a web login does; its ``uuid`` is the key."""
        made = Session(self, str(uuid.uuid4()), user, user.groups[0] if group is None else group)
        self._sessions[made.uuid] = made
        return made

    def log_in(self, name: str, password: str) -> Session:
        """A new session by name and password, or a running one by its key."""
        if name == password and name in self._sessions:
            return self._sessions[name]
        user = self.users.get(name)
        if user is None or user.password != password:
            raise Glacier2.PermissionDeniedException("Password check failed")
        return self.open_session(user)

    def session(self, key: str) -> Session:
        """The running session of this key."""
        found = self._sessions.get(key)
        if found is None:
            raise omero.RemovedSessionException(message=f"No session with uuid: {key}")
        return found

    @property
    def sessions(self) -> list[Session]:
        """All running sessions."""
        return list(self._sessions.values())

    def expire(self, key: str | None = None) -> None:
        """End the session of this key, or all."""
        for known in list(self._sessions) if key is None else [key]:
            self._sessions.pop(known, None)

    def bind(self, connection: Any, session: Session) -> None:
        """Remember whose connection it is."""
        self._connections[connection.toString()] = session

    def leave(self, connection: Any) -> None:
        """One client less; the session ends with its last unless it is to be kept."""
        session = self._connections.pop(connection.toString(), None)
        if session is not None:
            session.clients -= 1
            if session.clients < 1 and not session.keeps:
                self.expire(session.uuid)

    # Counting

    def reset(self) -> None:
        """Count from zero."""
        with self._lock:
            self.calls.clear()
            self.bytes_sent = self.bytes_received = 0

    @property
    def total_calls(self) -> int:
        """Calls since `reset`."""
        return sum(self.calls.values())

    def sent(self, count: int) -> None:
        """Count bytes that leave."""
        with self._lock:
            self.bytes_sent += count

    def received(self, count: int) -> None:
        """Count bytes that come."""
        with self._lock:
            self.bytes_received += count

    def number(self) -> int:
        """A number that was not given before."""
        return next(self._numbers)

    def proxy(self, category: str, name: str) -> Any:
        """A proxy to one of its objects."""
        return self._adapter.createProxy(Ice.Identity(category=category, name=name))

    def before(self, current: Any) -> Any:
        """Count a call and do what the knobs say; the servant it is for."""
        name = current.id.name
        kind = "ServiceFactory" if name in self._sessions else name.partition("-")[0]
        with self._lock:
            if current.operation not in _OWN:
                self.calls[f"{kind}.{current.operation}"] += 1
            total = self.total_calls
        if self.delay:
            time.sleep(self.delay)
        if self.drop_every and current.operation not in _OWN and not total % self.drop_every:
            current.con.close(True)
            return None
        if current.id == _ROUTER:
            return self._router
        session = self.session(current.id.category.removeprefix("session-"))
        return session.servants.get(name)

    def after(self, current: Any) -> None:
        """Lose an answer, if told to."""
        if current.operation in self.unanswered:
            self.unanswered.remove(current.operation)
            current.con.close(True)

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Answer later while the block runs."""
        self.delay = seconds
        try:
            yield
        finally:
            self.delay = 0.0

    def close(self) -> None:
        """Stop; the port refuses connections afterwards."""
        self._ice.destroy()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Dispatcher(Ice.ServantLocator):
    """Hands every call to the server first."""

    def __init__(self, server: OmeroServer) -> None:
        self._server = server

    def locate(self, current: Any) -> Any:
        return self._server.before(current), None

    def finished(self, current: Any, servant: Any, cookie: Any) -> None:
        self._server.after(current)

    def deactivate(self, category: str) -> None:
        pass
