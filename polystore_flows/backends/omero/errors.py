"""The errors of Ice and OMERO, translated so that each is one line without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import Glacier2
import Ice
import omero

from ...errors import (
    AccessDeniedError,
    ConflictError,
    MismatchError,
    PolystoreError,
    StoreUnavailableError,
)

# A session's key is a UUID, and OMERO's messages repeat it.
_KEY = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

NOT_DONE: tuple[type[BaseException], ...] = (
    Ice.ObjectNotExistException,
    Ice.ConnectionRefusedException,
    Ice.ConnectTimeoutException,
    Glacier2.SessionNotExistException,
    omero.SessionException,
)
"""Errors of calls that were not carried out, for there was no session or no server."""

PASSING: tuple[type[BaseException], ...] = (
    *NOT_DONE,
    Ice.SocketException,
    Ice.TimeoutException,
    Ice.CloseConnectionException,
    Ice.ForcedCloseConnectionException,
    Ice.CommunicatorDestroyedException,
    Ice.UnknownLocalException,
    omero.ConcurrencyException,
)
"""Errors after which a new connection, or another try, may help."""


class OmeroCause(Exception):
    """What OMERO said, without keys; the cause of our error."""


REFUSED = (Glacier2.PermissionDeniedException, Glacier2.CannotCreateSessionException)
"""What a router says to wrong credentials."""


@contextmanager
def omero_errors(where: object) -> Iterator[None]:
    """Translate the errors of Ice and OMERO, so that each names `where` and what to do.

    =======================================  ===========================================
    PermissionDenied, SecurityViolation      `AccessDeniedError`
    OptimisticLockException                  `ConflictError`
    ValidationException, OverUsageException  `MismatchError`
    any other of OMERO, Ice or Glacier2      `StoreUnavailableError`
    =======================================  ===========================================

    Their texts may repeat the session's key, so the cause is chained without it.
    """
    try:
        yield
    except PolystoreError:
        raise
    except (Ice.Exception, omero.ClientError) as error:
        raise _translated(where, error) from OmeroCause(
            f"{type(error).__module__}.{type(error).__name__}: {message_of(error)}"
        )


def message_of(error: BaseException) -> str:
    """One line of the error's own text, without keys."""
    text = getattr(error, "message", "") or getattr(error, "reason", "") or ""
    if not text and isinstance(error, omero.ClientError):
        text = str(error)
    return _KEY.sub("***", " ".join(str(text).split()))[:300]


def _translated(where: object, error: BaseException) -> PolystoreError:
    told = message_of(error)
    said = f" ({told})" if told else ""
    if isinstance(error, REFUSED):
        return AccessDeniedError(
            f"{where}: the server refuses this user, password or session key{said}; log in anew "
            "with 'omero login', or correct OMERO_USER and OMERO_PASSWORD"
        )
    if isinstance(error, omero.SecurityViolation):
        return AccessDeniedError(
            f"{where}: this user may not do that{said}; check the group's permissions and the owner"
        )
    if isinstance(error, omero.OptimisticLockException):
        return ConflictError(f"{where}: was changed by somebody else meanwhile; try again")
    if isinstance(error, omero.ValidationException | omero.OverUsageException):
        return MismatchError(f"{where}: the server does not take this{said}")
    if isinstance(error, Ice.TimeoutException):
        return StoreUnavailableError(
            f"{where}: the server did not answer in time; see POLYSTORE_OMERO_TIMEOUT"
        )
    if isinstance(error, Ice.SocketException | Ice.DNSException | Ice.ProtocolException):
        return StoreUnavailableError(
            f"{where}: no OMERO server can be reached there ({type(error).__name__}); check host, "
            "port and POLYSTORE_OMERO_TLS"
        )
    return StoreUnavailableError(f"{where}: the server failed: {type(error).__name__}{said}")
