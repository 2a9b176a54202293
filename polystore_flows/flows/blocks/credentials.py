"""The block that holds secrets."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar, cast

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr

from polystore_flows.credentials import Credentials
from polystore_flows.errors import AccessDeniedError

B = TypeVar("B", bound=Block)

DOCS: Any = "https://polystore-flows.readthedocs.io/en/latest/prefect.html"
LOGO: Any = "https://polystore-flows.readthedocs.io/en/latest/_static/logo.png"
VERSION = "1.0.0"
"""Of the blocks' schemas; one more when a field changes."""


class PolystoreCredentials(Block):
    """
    Credentials for an object store or an OMERO server.

    Attributes:
        user: Access key id of s3, account of az, or user of OMERO.
        secret: Secret key of s3, account key of az, JSON of a service account of gs, or password.
        token: Session token of s3, shared access signature of az, or session key of OMERO.

    Example:
        Load stored credentials:
        ```python
        from polystore_flows.flows.blocks import PolystoreCredentials

        credentials = PolystoreCredentials.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Polystore Credentials"
    _block_type_slug = "polystore-credentials"
    _block_schema_version = VERSION
    _documentation_url = DOCS
    _logo_url = LOGO

    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    user: str | None = Field(
        default=None, description="Access key id of s3, account of az, or user of OMERO."
    )
    secret: SecretStr | None = Field(
        default=None,
        description="Secret key of s3, account key of az, JSON of a service account of gs, or "
        "password of OMERO.",
    )
    token: SecretStr | None = Field(
        default=None,
        description="Session token of s3, shared access signature of az, or session key of OMERO.",
    )
    profile: str | None = Field(
        default=None,
        description="Instead of secrets: the section of ~/.aws/credentials on the machine that "
        "does the work.",
    )
    endpoint: str | None = Field(
        default=None, description="URL of the server, if it is not the cloud's own."
    )
    region: str | None = Field(default=None, description="Region of the buckets of s3.")
    allow_http: bool = Field(default=False, description="Allow an endpoint without TLS.")

    _left_behind: bool = PrivateAttr(default=False)

    def __getstate__(self) -> dict[Any, Any]:
        # Pickles go to other processes, to results and to caches: none of them gets a secret.
        state = super().__getstate__()
        values = state["__dict__"]
        secret = {name for name, value in values.items() if isinstance(value, SecretStr)}
        private = {**(state["__pydantic_private__"] or {})}
        private["_left_behind"] = self._left_behind or bool(secret)
        return {
            **state,
            "__dict__": {name: None if name in secret else v for name, v in values.items()},
            "__pydantic_private__": private,
        }

    def get(self) -> Credentials:
        """The credentials with their secrets, for `polystore_flows.credentials.given`.

        Raises:
            AccessDeniedError: they came from another process without their secrets, and were
                never saved.
        """
        held = self
        if self._left_behind:
            if self._block_document_name is None:
                raise AccessDeniedError(
                    "these credentials came from another process, and secrets do not travel; "
                    "save them as a block and pass its name"
                )
            held = as_saved(self)
        return Credentials(
            user=held.user,
            secret=_text(held.secret),
            token=_text(held.token),
            profile=held.profile,
            endpoint=held.endpoint,
            region=held.region,
            allow_http=held.allow_http,
        )


def as_saved(block: B) -> B:
    """`block`, which was saved, as the server holds it now."""
    name = block._block_document_name
    found: B = cast("Any", type(block)).load(name, _sync=True)
    return found


def _text(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
