"""The ways in which the writers update a document, and what they leave in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from polystore_flows.metadata import AtomicMetadataWriter, atomic_update_json
from polystore_flows.metadata.changes import Change
from polystore_flows.metadata.document import apply_change

NAME = "openhcs_metadata.json"


def append(document: Path, entry: str, timeout: float = 30) -> None:
    """By a function, which is committed alone or first."""
    atomic_update_json(
        document, lambda data: {**data, "log": [*data.get("log", []), entry]}, timeout
    )


def append_together(document: Path, entry: str, timeout: float = 30) -> None:
    """By data, which others may commit."""
    apply_change(document, Change().append("log", value=entry), timeout)


def set_plate(document: Path, entry: str, timeout: float = 30) -> None:
    """By the class for plates; the number at the end of `entry` grows from 0."""
    name, number = entry.rsplit("-", 1)
    AtomicMetadataWriter(timeout).update_subdirectory_metadata(
        document, name, {"seen": list(range(int(number) + 1))}
    )


def careless(document: Path, entry: str, timeout: float = 30) -> None:
    """As nobody should: whole and durable, but without a lock."""
    data = json.loads(document.read_text()) if document.exists() else {}
    beside = document.with_name(f"{entry}.tmp")
    with beside.open("w") as file:
        json.dump({**data, "log": [*data.get("log", []), entry]}, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(document)


HOW = (append, append_together, set_plate)


def entries(data: dict[str, Any]) -> list[str]:
    """All updates that a document holds."""
    plates = data.get("subdirectories", {})
    seen = [f"{name}-{number}" for name, said in plates.items() for number in said["seen"]]
    return [*data.get("log", []), *seen]
