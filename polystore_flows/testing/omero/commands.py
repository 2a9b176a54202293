"""Commands of ``omero.cmd``: Delete2, done at once and told through a handle."""

from __future__ import annotations

from typing import Any

import Ice
import omero
import omero.cmd

from .deletion import delete
from .servant import Servant, Session


class Handle(Servant, omero.cmd.Handle):
    """A command that has run."""

    def __init__(self, request: Any, response: Any) -> None:
        self._request, self._response = request, response

    def getRequest(self, current: Any) -> Any:
        """What was asked for."""
        return self._request

    def getResponse(self, current: Any) -> Any:
        """What came of it."""
        return self._response

    def getStatus(self, current: Any) -> Any:
        """Finished, perhaps with a failure."""
        failed = isinstance(self._response, omero.cmd.ERR)
        state = omero.cmd.State
        return omero.cmd.Status(flags=[state.FAILURE if failed else state.SUCCESS, state.INACTIVE])

    def addCallback(self, callback: Any, current: Any) -> None:
        """Accepted; a client that asks for the response has it at once."""

    def removeCallback(self, callback: Any, current: Any) -> None:
        """Accepted."""

    def cancel(self, current: Any) -> bool:
        """Too late."""
        return False

    def close(self, current: Any) -> None:
        """Nothing is held."""


def run(request: Any, session: Session, current: Any) -> Any:
    """Carry out a command in one transaction; its response, an ``ERR`` where it failed."""
    if not isinstance(request, omero.cmd.Delete2):
        raise omero.ApiUsageException(
            message=f"the loopback server has no {type(request).__name__}"
        )
    store = session.server.store
    try:
        with store.transaction():
            gone = delete(request.targetObjects or {}, session.access(current))
    except Ice.Exception as error:
        message = getattr(error, "message", "")
        return omero.cmd.GraphException(
            category="::omero::cmd::Delete2",
            name=type(error).__name__,
            parameters={"message": message},
            message=message,
        )
    found: dict[str, list[int]] = {}
    for row in gone:
        found.setdefault(f"ome.model.{row.kind}", []).append(row.id)
        for kind in ("Pixels", "OriginalFile"):
            if row.kind == kind:
                store.path(kind, row.id).unlink(missing_ok=True)
    return omero.cmd.Delete2Response(deletedObjects=found)
