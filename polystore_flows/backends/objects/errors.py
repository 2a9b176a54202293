"""The errors of obstore, translated so that each is one line without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore import exceptions as theirs

from ...errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    PolystoreError,
    StoreUnavailableError,
    UnsupportedError,
    URIError,
)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_NO_CREDENTIALS = re.compile(r"169\.254\.|metadata\.google|credential", re.IGNORECASE)
_ANSWER = re.compile(r"(status code: \d{3}[^:\n]*):.*", re.DOTALL)
_OUTER = re.compile(r"^Generic \w+ error: |Error performing |https?://\S+ ")

_KINDS: dict[type[BaseException], str] = {
    FileNotFoundError: "missing",
    theirs.AlreadyExistsError: "exists",
    theirs.PreconditionError: "conflict",
    theirs.NotModifiedError: "conflict",
    theirs.PermissionDeniedError: "denied",
    theirs.UnauthenticatedError: "denied",
    theirs.NotSupportedError: "unsupported",
    theirs.InvalidPathError: "malformed",
    ValueError: "malformed",
    theirs.UnknownConfigurationKeyError: "configuration",
    theirs.GenericError: "generic",
    theirs.JoinError: "generic",
    theirs.BaseError: "generic",
}
_STATUSES = {"401": "denied", "403": "denied", "404": "missing", "409": "conflict"}
_STATUSES |= {"412": "conflict"}


class NoBucketError(NotFoundError):
    """There is not even a bucket."""


@contextmanager
def object_errors(where: object) -> Iterator[None]:
    """Translate obstore's errors, so that each names `where` and what to do.

    ===================================  ================================================
    FileNotFoundError, status 404        `NotFoundError`; says when the bucket is missing
    AlreadyExistsError                   `AlreadyExistsError`
    PreconditionError, NotModifiedError  `ConflictError`
    PermissionDenied, Unauthenticated    `AccessDeniedError`
    NotSupportedError                    `UnsupportedError`
    InvalidPathError, ValueError         `URIError`
    any other                            `StoreUnavailableError`
    ===================================  ================================================

    A server's answer may repeat a session token, so the cause is chained without it.
    """
    try:
        yield
    except PolystoreError:
        raise
    except tuple(_KINDS) as error:
        raise _translated(where, error) from type(error)(_short(error))


def status_of(error: BaseException) -> str | None:
    """The HTTP status that an error of obstore tells of."""
    match = _STATUS.search(str(error))
    return match and match[1]


def _translated(where: object, error: BaseException) -> PolystoreError:
    text = str(error)
    kind = next(_KINDS[cls] for cls in type(error).__mro__ if cls in _KINDS)
    if kind == "generic":
        kind = _STATUSES.get(status_of(error) or "", kind)
    code = _CODE.search(text)
    told = f" ({code[1]})" if code else ""
    if _NO_BUCKET.search(text):
        return NoBucketError(f"{where}: there is no such bucket; make it first or correct its name")
    if kind == "missing":
        return NotFoundError(f"{where}: nothing is stored there")
    if kind == "exists":
        return AlreadyExistsError(f"{where}: exists already; pass overwrite=True or delete it")
    if kind == "conflict":
        return ConflictError(f"{where}: was changed by somebody else meanwhile; read it again")
    if kind == "denied":
        return AccessDeniedError(
            f"{where}: the server refuses this{told}; check the credentials and their rights"
        )
    if kind == "unsupported":
        return UnsupportedError(f"{where}: {_short(error)}")
    if kind == "malformed":
        return URIError(f"{where}: {_short(error)}")
    if kind == "configuration":
        return StoreUnavailableError(f"{where}: {_short(error)}; correct the settings")
    if _NO_CREDENTIALS.search(text):
        return AccessDeniedError(
            f"{where}: no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "a profile, or 'anonymous' in POLYSTORE_OBJECTS"
        )
    return StoreUnavailableError(
        f"{where}: the store cannot serve this now: {_short(error)}{told}; check the endpoint and "
        "try again"
    )


def _short(error: BaseException) -> str:
    """One line of obstore's text, without the server's answer and the debug form."""
    text = _ANSWER.sub(r"\1", str(error)).split("\n", 1)[0]
    return _OUTER.sub("", text).strip()
