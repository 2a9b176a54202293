"""What all servants of the loopback server share: one spelling of operations, one kind of error."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import Ice
import omero

from .access import Access, User

if TYPE_CHECKING:
    from .server import OmeroServer

_log = logging.getLogger(__name__)


class Servant:
    """Mixed into a skeleton; operations are plain methods, whatever Slice makes of them.

    For operations that Slice declares ``amd``, Ice calls ``name_async`` with a callback: it is
    made of the method here. An operation that is not written is refused by Ice.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and not name.startswith("_"):
                setattr(cls, name, _translating(method))
                setattr(cls, f"{name}_async", _asynchronous(method))


def _translating(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        try:
            return method(self, *args)
        except Ice.Exception:
            raise
        except Exception as error:
            raise _internal(error) from error

    return call


def _asynchronous(method: Callable[..., Any]) -> Callable[..., None]:
    gives_nothing = method.__annotations__.get("return") in (None, "None")

    def call(self: Any, callback: Any, *args: Any) -> None:
        try:
            result = method(self, *args)
        except Ice.Exception as error:
            callback.ice_exception(error)
        except Exception as error:  # noqa: BLE001  # told to the client
            callback.ice_exception(_internal(error))
        else:
            callback.ice_response(*(() if gives_nothing else (result,)))

    return call


def _internal(error: Exception) -> Exception:
    """A fault of this server, as OMERO tells of its own."""
    _log.error("the loopback server failed", exc_info=error)
    made: Exception = omero.InternalException(
        serverExceptionClass=type(error).__name__, message=f"{type(error).__name__}: {error}"
    )
    return made


@dataclass(eq=False)
class Session:
    """A session of a user, shared by all clients that join it."""

    server: OmeroServer
    uuid: str
    user: User
    group: int
    clients: int = 0
    """Connections that use it."""
    servants: dict[str, Any] = field(default_factory=dict)
    """Services of the session by the name of their identity."""
    keeps: bool = False
    """Whether it outlives its last client (``detachOnDestroy``)."""

    @property
    def category(self) -> str:
        """Category of the identities of its services."""
        return f"session-{self.uuid}"

    def access(self, current: Any) -> Access:
        """The view of one call; its context may name another group."""
        group = int(current.ctx.get("omero.group") or self.group)
        return Access(self.server.store, self.user, self.server.groups, group)

    def add(self, name: str, servant: Any, *, fresh: bool = False) -> Any:
        """A proxy to a service of this session; `fresh` for one of its own for each caller."""
        if fresh:
            name = f"{name}-{self.server.number()}"
        self.servants.setdefault(name, servant)
        return self.server.proxy(self.category, name)
