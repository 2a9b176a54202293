"""Where a field comes from: the tool that made it, with its parameters and inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..errors import CorruptMetadataError, MismatchError
from ..redaction import MASK, is_secret, redact


@dataclass(frozen=True, slots=True)
class Input:
    """One thing that a tool read, and the state that it was in."""

    uri: str
    """As it may be shown: secrets are masked."""
    bytes: int | None = None
    """Its size."""
    modified: str | None = None
    """Its time, ISO 8601 in UTC."""
    sha256: str | None = None
    """Hash of its content, if somebody computed it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", redact(self.uri))


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made a field; kept with it, and never holds a secret."""

    tool: str
    """Name of the program or step: ``illumination``."""
    version: str = ""
    """Of the tool."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON values; secrets in URIs are masked, and text under a name like ``token``."""
    inputs: tuple[Input, ...] = ()
    """What was read."""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """When, ISO 8601 in UTC."""

    def __post_init__(self) -> None:
        if not self.tool:
            raise MismatchError("a provenance needs the name of its tool")
        try:
            plain = json.loads(json.dumps(dict(self.parameters), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise MismatchError(f"the parameters of {self.tool} are no JSON: {error}") from error
        object.__setattr__(self, "parameters", _masked(plain))
        object.__setattr__(self, "inputs", tuple(self.inputs))

    def as_json(self) -> dict[str, Any]:
        """This as JSON, without what is not known."""
        whole = asdict(self)
        whole["inputs"] = [
            {key: value for key, value in entry.items() if value is not None}
            for entry in whole["inputs"]
        ]
        return {key: value for key, value in whole.items() if value}

    @classmethod
    def from_json(cls, stored: Any, where: str) -> Provenance:
        """What `as_json` gave; `where` begins the error.

        Raises:
            CorruptMetadataError: it is something else.
        """
        try:
            inputs = tuple(Input(**entry) for entry in stored.get("inputs", ()))
            return cls(**{**stored, "inputs": inputs})
        except (TypeError, AttributeError, MismatchError) as error:
            raise CorruptMetadataError(f"{where}: this is no provenance: {error}") from error


def _masked(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner, name) for inner in value]
    if isinstance(value, str) and value:
        if is_secret(name):
            return MASK
        return redact(value) if ":" in value else value
    return value
