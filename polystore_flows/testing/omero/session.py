"""The Glacier2 router and the services of a session, as ``omero.client`` meets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import Glacier2
import omero
import omero.api
import omero.cmd

from . import services, stores
from .commands import Handle, run
from .servant import Servant, Session
from .tables import Resources

if TYPE_CHECKING:
    from .server import OmeroServer

_STATELESS = {
    "getAdminService": (services.Admin, omero.api.IAdminPrx),
    "getConfigService": (services.Config, omero.api.IConfigPrx),
    "getContainerService": (services.Container, omero.api.IContainerPrx),
    "getPixelsService": (services.Pixels, omero.api.IPixelsPrx),
    "getQueryService": (services.Query, omero.api.IQueryPrx),
    "getSessionService": (services.Sessions, omero.api.ISessionPrx),
    "getUpdateService": (services.Update, omero.api.IUpdatePrx),
}


class Router(Servant, Glacier2.Router):
    """Opens sessions by user and password, or by session key for both."""

    def __init__(self, server: OmeroServer) -> None:
        self._server = server

    def createSession(self, name: str, password: str, current: Any) -> Any:
        """A session's factory of services.

        Raises:
            Glacier2.PermissionDeniedException: a wrong password, or no such session.
        """
        session = self._server.log_in(name, password)
        session.clients += 1
        self._server.bind(current.con, session)
        proxy = session.add(session.uuid, Factory(session))
        return Glacier2.SessionPrx.uncheckedCast(proxy)

    def destroySession(self, current: Any) -> None:
        """End the caller's use of its session."""
        self._server.leave(current.con)

    def refreshSession(self, current: Any) -> None:
        """Nothing to do."""

    def getCategoryForClient(self, current: Any) -> str:
        """Category of the caller's own objects."""
        return "client"

    def getSessionTimeout(self, current: Any) -> int:
        """Seconds."""
        return 600

    def getACMTimeout(self, current: Any) -> int:
        """Seconds; 0 for none."""
        return 0

    def getClientProxy(self, current: Any) -> Any:
        """What requests are sent to: the router itself."""
        return self._server.proxy("OMERO.Glacier2", "router")

    def getServerProxy(self, current: Any) -> Any:
        """What callbacks would be sent to."""
        return self._server.proxy("OMERO.Glacier2", "router")

    def addProxies(self, proxies: list[Any], current: Any) -> list[Any]:
        """Nothing is evicted."""
        return []


class Factory(Servant, omero.api.ServiceFactory):
    """ServiceFactory: gives the proxies of a session's services."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def createRawPixelsStore(self, current: Any) -> Any:
        """A service of its own for each caller."""
        made = stores.PixelsStore(self._session)
        proxy = self._session.add("RawPixelsStore", made, fresh=True)
        return omero.api.RawPixelsStorePrx.uncheckedCast(proxy)

    def createRawFileStore(self, current: Any) -> Any:
        """A service of its own for each caller."""
        made = stores.FileStore(self._session)
        proxy = self._session.add("RawFileStore", made, fresh=True)
        return omero.api.RawFileStorePrx.uncheckedCast(proxy)

    def sharedResources(self, current: Any) -> Any:
        """Tables."""
        proxy = self._session.add("SharedResources", Resources(self._session))
        return omero.grid.SharedResourcesPrx.uncheckedCast(proxy)

    def submit(self, request: Any, current: Any) -> Any:
        """Run a command."""
        handle = Handle(request, run(request, self._session, current))
        return omero.cmd.HandlePrx.uncheckedCast(self._session.add("Handle", handle, fresh=True))

    def setCallback(self, callback: Any, current: Any) -> None:
        """Accepted; this server calls nobody."""

    def detachOnDestroy(self, current: Any) -> None:
        """The session outlives this client."""
        self._session.keeps = True

    def closeOnDestroy(self, current: Any) -> None:
        """The session ends with its last client."""
        self._session.keeps = False

    def activeServices(self, current: Any) -> list[str]:
        """Names of what is open."""
        return sorted(self._session.servants)

    def keepAlive(self, proxy: Any, current: Any) -> bool:
        """The session is alive, or the call would not have come here."""
        return True

    def keepAllAlive(self, proxies: list[Any], current: Any) -> int:
        """As `keepAlive`; no bit is set."""
        return 0

    def destroy(self, current: Any) -> None:
        """End the session."""
        self._session.server.expire(self._session.uuid)


def _give(service: type, cast: Any) -> Any:
    def operation(self: Factory, current: Any) -> Any:
        name = service.__name__
        known = self._session.servants.get(name) or service(self._session)
        return cast.uncheckedCast(self._session.add(name, known))

    return operation


for _name, (_service, _cast) in _STATELESS.items():
    setattr(Factory, _name, _give(_service, _cast))
