"""Artifacts: what Prefect's pages show of a plate."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    Artifact,
    create_image_artifact,
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from polystore_flows.uri import parse_uri

RESULT = "polystore-result"
"""Type of the artifact that holds the result of a flow as JSON."""


def key_for(uri: str, what: str) -> str:
    """A key of lower-case letters, digits and dashes, another one for every other plate."""
    parsed = parse_uri(uri)
    name = re.sub(r"[^a-z0-9]+", "-", parsed.path.lower().rpartition("/")[2]).strip("-")[:40]
    short = hashlib.sha256(str(parsed).encode()).hexdigest()[:8]
    return "-".join(part for part in (name, short, what) if part)


class Progress:
    """How far a run is with a plate, as a progress artifact."""

    def __init__(self, uri: str, total: int) -> None:
        self._total, self._done, self._uri = max(total, 1), 0, parse_uri(uri)
        made: Any = create_progress_artifact(
            progress=0.0, key=key_for(uri, "progress"), description=self._text()
        )
        self._id: UUID = made

    def add(self, wells: int) -> None:
        """So many wells more are done, or failed."""
        self._done += wells
        update_progress_artifact(
            artifact_id=self._id,
            progress=round(100 * min(self._done / self._total, 1), 1),
            description=self._text(),
        )

    def _text(self) -> str:
        return f"{self._done} of {self._total} wells of {self._uri}"


def show_wells(uri: str, rows: Sequence[dict[str, Any]]) -> None:
    """A table with one row a well."""
    create_table_artifact(
        table=[{key: _plain(value) for key, value in row.items()} for row in rows],
        key=key_for(uri, "wells"),
        description=f"Wells of {parse_uri(uri)}",
    )


def show_picture(uri: str, png: bytes, description: str) -> None:
    """A picture, which travels inside the artifact."""
    data = base64.b64encode(png).decode()
    create_image_artifact(
        image_url=f"data:image/png;base64,{data}",
        key=key_for(uri, "heat-map"),
        description=description,
    )


def show_link(uri: str, link: str) -> None:
    """A link to the plate's report."""
    text = f"Report of {parse_uri(uri)}"
    create_link_artifact(link=link, link_text=text, key=key_for(uri, "report"))


def show_result(uri: str, result: dict[str, Any]) -> None:
    """The result of a flow, for whoever submitted it from another machine."""
    Artifact(type=RESULT, key=key_for(uri, "result"), data=result).create()


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if value != value else value
