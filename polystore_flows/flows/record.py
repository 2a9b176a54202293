"""The record of a plate: which step made what of which well, and from what.

It lies below the plate, ``tables/processing.json``, and is what `plan_chunks` goes by::

    {"polystore_flows.steps:segment_nuclei -> labels/nuclei": {
        "source": "zarr:///data/raw.zarr", "params": {"diameter": 11},
        "wells": {"B/3": {"key": "…", "outputs": {"B/3/0/labels/nuclei": "…"}}}}}

A well is up to date if its key (the source well's stamp, the step, its parameters) is what it
would be now, and its outputs have the stamps they were written with. Losing the record, or an
entry of it, costs time and never data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from polystore_flows.flows.documents import Document, read_document, update_document
from polystore_flows.flows.stamps import stamps
from polystore_flows.flows.step import Step
from polystore_flows.uri import parse_uri

RECORD = "tables/processing.json"

Entry = dict[str, Any]
"""``{"key": text, "outputs": {path below the plate: stamp}}``."""


def key_of(step: Step, source: str, stamp: str | None) -> str:
    """What the entry of a well holds that `step` makes from the well `source` of this stamp."""
    text = repr((source, stamp, step.fingerprint))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def entries(plate_uri: str, step: Step) -> dict[str, Entry]:
    """Well -> its entry for `step`; none where there is no plate or no record."""
    record = read_document(_at(plate_uri)) or {}
    wells: dict[str, Entry] = record.get(step.title, {}).get("wells", {})
    return wells


def up_to_date(plate_uri: str, keys: Mapping[str, str], step: Step) -> list[str]:
    """Those wells in `keys` (well -> what its key is now) that need not be made again."""
    held = entries(plate_uri, step)
    same = {well: held[well]["outputs"] for well, key in keys.items() if _has(held, well, key)}
    paths = {path for outputs in same.values() for path in outputs}
    now = stamps(f"{plate_uri}/{path}" for path in sorted(paths))
    return [
        well
        for well, outputs in same.items()
        if all(
            stamp is not None and now[f"{plate_uri}/{p}"] == stamp for p, stamp in outputs.items()
        )
    ]


def add(plate_uri: str, step: Step, source: str, made: Mapping[str, Entry]) -> None:
    """Enter wells that are complete; atomic, and loses no entry of others."""

    def change(record: Document) -> Document:
        part = record.setdefault(step.title, {})
        part |= {"source": source, "params": dict(step.params)}
        part.setdefault("wells", {}).update(made)
        return record

    update_document(_at(plate_uri), change)


def remove(plate_uri: str, title: str, wells: Iterable[str]) -> None:
    """Forget wells, so that they are made again."""

    def change(record: Document) -> Document:
        for well in wells:
            record.get(title, {}).get("wells", {}).pop(well, None)
        return record

    update_document(_at(plate_uri), change)


def tables(plate_uri: str, step: Step) -> list[str]:
    """Names of the plate's tables that were made from those of `step`."""
    record = read_document(_at(plate_uri)) or {}
    names: list[str] = record.get(step.title, {}).get("tables", [])
    return names


def add_tables(plate_uri: str, step: Step, names: Iterable[str]) -> None:
    """Enter tables of the plate."""

    def change(record: Document) -> Document:
        part = record.setdefault(step.title, {})
        part["tables"] = sorted({*part.get("tables", []), *names})
        return record

    update_document(_at(plate_uri), change)


def _has(held: Mapping[str, Entry], well: str, key: str) -> bool:
    return well in held and held[well].get("key") == key and bool(held[well].get("outputs"))


def _at(plate_uri: str) -> str:
    return parse_uri(plate_uri).join(RECORD).text
