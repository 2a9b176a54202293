"""What blocks share that have a URI and, maybe, credentials for it."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, field_validator

from polystore_flows.credentials import Credentials, given
from polystore_flows.flows.blocks.credentials import PolystoreCredentials, as_saved
from polystore_flows.flows.files import checked
from polystore_flows.uri import BackendURI, parse_uri

_NO_SERVER = frozenset({"memory"})


def store_of(uri: str | BackendURI) -> str | None:
    """The store that `uri` lies in and credentials are for: ``s3://bucket``; None on this host."""
    parsed = parse_uri(uri)
    scheme = parsed.transport or parsed.backend
    if not parsed.authority or scheme in _NO_SERVER:
        return None
    return f"{scheme}://{parsed.authority}"


class Located(Block, ABC):
    """A block with a URI."""

    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    uri: str = Field(
        title="URI",
        description="Backend URI without secrets, such as disk:///data, zarr:///data/p.zarr, "
        "s3://bucket/prefix or omero://host/plate/1.",
    )
    credentials: PolystoreCredentials | None = Field(
        default=None,
        description="For the store of the URI; by default what its machine's profiles and "
        "environment say.",
    )

    @field_validator("uri")
    @classmethod
    def _without_secrets(cls, value: str) -> str:
        return checked(value).text

    @contextmanager
    def access(self) -> Iterator[None]:
        """Reach the store with the block's credentials inside a ``with`` block, in all threads.

        Raises:
            ConflictError: this process uses other credentials for the same store just now.
        """
        with given(self.given_credentials()):
            yield

    def given_credentials(self) -> dict[str, Credentials]:
        """Store -> its credentials, as `polystore_flows.credentials.given` takes it."""
        store = store_of(self.uri)
        if store is None or self.credentials is None:
            return {}
        held = self.credentials
        if held._left_behind and held._block_document_name is None and self._block_document_name:
            held = as_saved(self).credentials or held
        return {store: held.get()}
