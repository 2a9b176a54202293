"""Where the wells of a plate come from, as the plate itself tells it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..hcs.provenance import Provenance

Facts = list[tuple[str, str]]

_OF_A_WELL = ("inputs", "created")  # what differs from well to well of one run


@dataclass(slots=True)
class Run:
    """What made several wells: the same tool with the same parameters."""

    title: str
    facts: Facts
    wells: dict[str, Facts] = field(default_factory=dict)
    """What is told of each well besides."""


def runs_of(told: Iterable[tuple[str, Provenance | None]]) -> list[Run]:
    """Wells and what they tell, put together where one run made them."""
    runs: dict[str, Run] = {}
    for well, provenance in told:
        if provenance is None:
            continue
        found = provenance.as_json()
        shared = {key: value for key, value in found.items() if key not in _OF_A_WELL}
        key = json.dumps(shared, sort_keys=True)
        if key not in runs:
            title = f"{provenance.tool} {provenance.version}".rstrip()
            runs[key] = Run(title, facts_of(shared))
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
