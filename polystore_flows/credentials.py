"""Secrets that this process was given for a store, for as long as they are in use.

Backends ask `find` before they look at profiles and the environment. What is given is never
printed or pickled, and what is given for a ``with`` block is forgotten at its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from .errors import ConflictError


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """How to reach one store, with secrets; a backend takes what it knows of."""

    user: str | None = None
    """Access key id (s3), account (az) or user (omero)."""
    secret: str | None = None
    """Secret key (s3), account key (az), service account's JSON (gs) or password (omero)."""
    token: str | None = None
    """Session token (s3), shared access signature (az) or session key (omero)."""
    profile: str | None = None
    """Section of this machine's ~/.aws/credentials that holds the keys (s3)."""
    endpoint: str | None = None
    """URL of the server; by default the cloud's own."""
    region: str | None = None
    """Of the buckets (s3)."""
    allow_http: bool = False
    """Whether the endpoint may do without TLS."""

    def __repr__(self) -> str:
        return "<Credentials>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("credentials are not pickled; let the other process look them up itself")


_in_use: dict[str, list[Credentials]] = {}
_kept: dict[str, Credentials] = {}
_lock = Lock()


@contextmanager
def given(stores: dict[str, Credentials]) -> Iterator[None]:
    """Use credentials for stores, in all threads of this process, for the length of a block.

    Args:
        stores: ``s3://bucket`` or ``omero://host:port`` -> its credentials.

    Raises:
        ConflictError: a store is in use with other credentials in this process.
    """
    with _lock:
        for store, credentials in stores.items():
            if any(used != credentials for used in _in_use.get(store, ())):
                raise ConflictError(
                    f"{store} is in use with other credentials in this process; wait for that "
                    "to end, or work in another process"
                )
        for store, credentials in stores.items():
            _in_use.setdefault(store, []).append(credentials)
    try:
        yield
    finally:
        with _lock:
            for store in stores:
                _in_use[store].pop()
                if not _in_use[store]:
                    del _in_use[store]


def keep(store: str, credentials: Credentials) -> None:
    """Use `credentials` for `store` from now on, where no block has given others.

    For handles that outlive a block, such as opened plates. The last to be kept count.
    """
    with _lock:
        _kept[store] = credentials


def find(store: str) -> Credentials | None:
    """What was given for `store`; None leaves it to the profile and the environment."""
    with _lock:
        used = _in_use.get(store)
        return used[-1] if used else _kept.get(store)
