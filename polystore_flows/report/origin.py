"""Where the wells of a plate come from, as the plate itself tells it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..hcs.plate import Well

_TITLE = ("tool", "name", "step")  # what names a run, whichever comes first


@dataclass(slots=True)
class Run:
    """What several wells have in common: how they were made."""

    title: str
    facts: list[tuple[str, str]]
    wells: list[str] = field(default_factory=list)


def runs_of(told: Iterable[tuple[str, Mapping[str, Any] | None]]) -> list[Run]:
    """Wells and what they tell of their origin, put together where they tell the same."""
    runs: dict[str, Run] = {}
    for well, found in told:
        if found:
            key = json.dumps(found, sort_keys=True, default=str)
            if key not in runs:
                title = next((str(found[k]) for k in _TITLE if found.get(k)), "A run")
                runs[key] = Run(title, _facts(found))
            runs[key].wells.append(well)
    return list(runs.values())


def provenance_of(well: Well) -> Mapping[str, Any] | None:
    """What the plate tells of a well; None where it tells nothing."""
    found = getattr(well, "provenance", None)
    return found if isinstance(found, Mapping) else None


def _facts(found: Mapping[str, Any], start: str = "") -> list[tuple[str, str]]:
    """Names and texts, those of nested objects with dots."""
    facts = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            facts += _facts(value, f"{start}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            facts.append((f"{start}{name}", text))
    return facts
