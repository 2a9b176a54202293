"""One chunk of wells at work: what is up to date, what is ours, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.logging.loggers import get_logger

import polystore_flows as ps
from polystore_flows.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    FileLockError,
    NotFoundError,
    StoreUnavailableError,
)
from polystore_flows.flows import record
from polystore_flows.flows.outputs import canonical, taken, write
from polystore_flows.flows.stamps import stamps
from polystore_flows.flows.step import Step
from polystore_flows.hcs.address import split_plate_path
from polystore_flows.hcs.plate import Plate
from polystore_flows.hcs.well import Well
from polystore_flows.uri import parse_uri, redact

_STORE_FAILED = (StoreUnavailableError, AccessDeniedError, FileLockError)
"""Errors that all other wells would meet, too."""


class Chunk:
    """One chunk at work."""

    def __init__(self, uris: list[str], target: str, step: Step, overwrite: bool) -> None:
        self.target, self.step, self.overwrite = target, step, overwrite
        self.wells = {canonical(well.path): (uri, well) for uri, well in _opened(uris)}
        source = next(iter(self.wells.values()))[1].plate
        self.source = source.uri
        self.plate = open_target(target, source)
        now = stamps(uri for uri, _ in self.wells.values())
        self.keys = {n: record.key_of(step, uri, now[uri]) for n, (uri, _) in self.wells.items()}
        self.known = record.entries(target, step)
        done = record.up_to_date(target, self.keys, step)
        self.complete = {name: self.known[name] for name in done}
        self.failed: dict[str, str] = {}
        self.paths: dict[str, list[str]] = {}

    @property
    def undo(self) -> dict[str, Any]:
        """What takes it all back."""
        new = [p for name, paths in self.paths.items() if name not in self.known for p in paths]
        title = self.step.title
        return {"target": self.target, "title": title, "wells": list(self.paths), "new": new}

    def run(self) -> None:
        """Process what is not up to date."""
        todo = [name for name in self.wells if name not in self.complete]
        if not self.overwrite:
            refuse_others(self.plate, [self.wells[name][1].path for name in todo], self.step)
        # From now on they are ours: a killed process leaves what the next one may replace.
        begun = {name: {"key": "", "outputs": {}} for name in todo if name not in self.known}
        if begun:
            record.add(self.target, self.step, self.source, begun)
        logger = run_logger()
        for name in todo:
            try:
                self._process(name)
            except _STORE_FAILED:
                raise
            except Exception as error:  # noqa: BLE001 - a step may raise anything
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self.failed[name] = redact(reason)
                logger.error("%s failed: %s", self.wells[name][0], redact(reason))
                if name in begun and isinstance(error, AlreadyExistsError):
                    record.remove(self.target, self.step.title, [name])

    def enter(self) -> None:
        """Enter what is complete in the record."""
        if not self.paths:
            return
        now = stamps(f"{self.target}/{path}" for paths in self.paths.values() for path in paths)
        made = {
            name: {
                "key": self.keys[name],
                "outputs": {path: now[f"{self.target}/{path}"] for path in paths},
            }
            for name, paths in self.paths.items()
        }
        record.add(self.target, self.step, self.source, made)
        self.complete |= made

    def _process(self, name: str) -> None:
        well = self.wells[name][1]
        made = self.step.run(well)
        overwrite = self.overwrite or name in self.known
        self.paths[name] = write(self.plate, well, made, overwrite=overwrite)


def failure(failed: Mapping[str, str], total: int, target: str) -> str:
    """The one line that says which wells failed, and why."""
    shown = "; ".join(f"{well} ({reason})" for well, reason in list(failed.items())[:8])
    more = f"; and {len(failed) - 8} more" if len(failed) > 8 else ""
    return (
        f"{len(failed)} of {total} wells failed: {shown}{more}. The others are complete in "
        f"{parse_uri(target)}; run it again for these"
    )


def open_target(target: str, like: Plate) -> Plate:
    try:
        return ps.open_plate(target, "r+")
    except NotFoundError:
        return ps.create_plate(target, like=like, exist_ok=True)


def refuse_others(goal: Plate, wells: list[str], step: Step) -> None:
    ours = record.entries(goal.uri, step)
    places = (taken(goal, well, step) for well in wells if canonical(well) not in ours)
    there = [place for place in places if place]
    if there:
        raise AlreadyExistsError(
            f"{there[0]}{f' and {len(there) - 1} more' if there[1:] else ''} was not made by "
            f"{step.name}; pass overwrite=True to replace, or choose another target"
        )


def _opened(uris: list[str]) -> list[tuple[str, Well]]:
    """Each URI's well; each plate is opened once."""
    plates: dict[str, Plate] = {}
    found = []
    for uri in uris:
        parsed = parse_uri(uri)
        root, inner = split_plate_path(parsed.path)
        at = parsed.at(root).text
        if at not in plates:
            plates[at] = ps.open_plate(at)
        found.append((uri, plates[at][inner]))
    return found


def run_logger() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("polystore")
