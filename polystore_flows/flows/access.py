"""Credentials of a run: which block each store needs, and using them where the work is done.

Tasks get names of blocks, never blocks: each process looks the secrets up by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, cast

from prefect.blocks.core import Block
from pydantic import Field

from polystore_flows.credentials import Credentials, given
from polystore_flows.errors import AccessDeniedError, ConflictError, NotFoundError
from polystore_flows.flows.blocks import PlateRef, PolystoreCredentials, PolystoreStore
from polystore_flows.flows.blocks.located import Located, store_of
from polystore_flows.flows.files import checked

WITHOUT_SECRET = (
    r"^(?![^/?]*//[^/]*:[^/]*@)"
    r"(?!.*[?&][^=&]*([Pp]ass|[Ss]ecret|[Tt]oken|[Ss]ignature|[Cc]redential)[^=&]*=)"
)
"""What Prefect's server matches the URIs of a submitted run with, before it keeps them."""

Place = (
    Annotated[str, Field(json_schema_extra={"pattern": WITHOUT_SECRET})] | PlateRef | PolystoreStore
)
"""A plate as a flow takes it: its URI, or a block that has one."""


def uri_of(place: Place) -> str:
    """The URI of a place, checked.

    Raises:
        URIError: it is malformed or carries a secret.
    """
    return checked(place.uri if isinstance(place, Located) else place).text


def blocks_of(*places: Place) -> dict[str, str]:
    """Store -> ``slug/name`` of the block with its credentials, for `granted`.

    Raises:
        AccessDeniedError: credentials are in a block that was not saved.
        ConflictError: two places lie in one store and have different credentials.
    """
    found: dict[str, str] = {}
    for place in places:
        if not isinstance(place, Located) or place.credentials is None:
            continue
        store = store_of(place.uri)
        if store is None:
            continue
        holder: Block = place.credentials
        if holder._block_document_name is None:
            holder = place
        if holder._block_document_name is None:
            raise AccessDeniedError(
                f"{store}: its credentials are in a block that was not saved, and secrets do not "
                "travel to where the work is done; save the block and pass it again"
            )
        name = f"{holder.get_block_type_slug()}/{holder._block_document_name}"
        if found.setdefault(store, name) != name:
            raise ConflictError(
                f"{store}: one run cannot use the credentials of both {found[store]} and {name}; "
                "give both places the same ones"
            )
    return found


@contextmanager
def granted(blocks: Mapping[str, str] | None) -> Iterator[None]:
    """Use the credentials in `blocks` (see `blocks_of`) inside a ``with`` block.

    Raises:
        NotFoundError: the server has no such block.
        ConflictError: this process uses other credentials for a store just now.
    """
    with given({store: _looked_up(store, name) for store, name in (blocks or {}).items()}):
        yield


def _looked_up(store: str, name: str) -> Credentials:
    try:
        block = cast("Any", Block).load(name, _sync=True)
    except ValueError as error:
        raise NotFoundError(
            f"{store}: this Prefect server has no block {name}; save the credentials under it"
        ) from error
    if isinstance(block, PolystoreCredentials):
        return block.get()
    assert isinstance(block, Located)
    return block.given_credentials()[store]
