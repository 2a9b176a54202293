"""Where the wells of a plate come from, as the plate itself tells it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..hcs.plate import Well

Facts = list[tuple[str, str]]

_OF_A_WELL = ("inputs", "created")  # what differs from well to well of one run


@dataclass(slots=True)
class Run:
    """What made several wells: the same tool with the same parameters."""

    title: str
    facts: Facts
    wells: dict[str, Facts] = field(default_factory=dict)
    """What is told of each well besides."""


def provenance_of(well: Well, field_name: str) -> Mapping[str, Any] | None:
    """What the plate tells of a field, as JSON; None where it tells nothing."""
    tell = getattr(well, "provenance", None)
    told = tell(field_name) if callable(tell) else None
    return None if told is None else told.as_json()


def runs_of(told: Iterable[tuple[str, Mapping[str, Any] | None]]) -> list[Run]:
    """Wells and what they tell, put together where one run made them."""
    runs: dict[str, Run] = {}
    for well, found in told:
        if not found:
            continue
        shared = {key: value for key, value in found.items() if key not in _OF_A_WELL}
        key = json.dumps(shared, sort_keys=True)
        if key not in runs:
            title = " ".join(str(found[k]) for k in ("tool", "version") if found.get(k))
            runs[key] = Run(title or "A run", facts_of(shared))
        own = {key: found[key] for key in _OF_A_WELL if key in found}
        runs[key].wells[well] = facts_of(own)
    return list(runs.values())


def facts_of(found: Mapping[str, Any], start: str = "") -> Facts:
    """Names and texts, those of nested objects with dots."""
    facts: Facts = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            facts += facts_of(value, f"{start}{name}.")
        elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
            for number, entry in enumerate(value, 1):
                facts += facts_of(entry, f"{start}{name} {number}: ")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            facts.append((f"{start}{name}", text))
    return facts
