"""What the clients of a network file system do in one round, and what the server has then."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from updates import HOW, NAME, careless, entries

from polystore_flows.metadata import read_json

PROCESSES, UPDATES = 4, 18
"""Of each of two clients: 144 updates in a round."""


def crowd(folder: Path, number: int) -> dict[str, Any]:
    """Update one document by several processes at once; a new document each round."""
    return _fan_out(folder / str(number), lambda process: HOW[process % len(HOW)])


def without_a_lock(folder: Path, number: int) -> dict[str, Any]:
    return _fan_out(folder / str(number), lambda process: careless)


def once(folder: Path, number: int) -> dict[str, Any]:
    """One update, and what becomes of it."""
    began = time.monotonic()
    place = folder / str(number)
    place.mkdir(exist_ok=True)
    try:
        HOW[number % len(HOW)](place / NAME, f"{os.uname().nodename}-once-0", 5)
        error = None
    except OSError as caught:
        error = f"{type(caught).__name__}: {caught}"
    return {"error": error, "took": round(time.monotonic() - began, 3)}


def _fan_out(folder: Path, how: Callable[[int], Callable[..., None]]) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    errors, pids = [], []
    for process in range(PROCESSES):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _work(folder / NAME, f"{os.uname().nodename}-{process}", how(process), write)
            os._exit(0)
        os.close(write)
        pids.append((pid, read))
    for pid, read in pids:
        with os.fdopen(read) as pipe:
            errors += pipe.read().splitlines()
        os.waitpid(pid, 0)
    # Through its own cache, a client must see at least what it was told is there.
    there = set(entries(read_json(folder / NAME)))
    mine = {f"{os.uname().nodename}-{p}-{n}" for p in range(PROCESSES) for n in range(UPDATES)}
    return {"errors": errors, "unseen": len(mine - there)}


def _work(document: Path, name: str, update: Callable[..., None], errors: int) -> None:
    for number in range(UPDATES):
        try:
            update(document, f"{name}-{number}")
        except Exception as error:  # noqa: BLE001 - every error is one too many
            os.write(errors, f"{type(error).__name__}: {error}\n".encode())


def found(disk: Path, number: int) -> dict[str, Any]:
    """What the server has after a round."""
    folder = disk / str(number)
    here = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208
    there = entries(read_json(folder / NAME)) if NAME in here else []
    return {
        "left": len(set(here) - {NAME, f"{NAME}.lock"}),
        "there": len(set(there)),
        "twice": len(there) - len(set(there)),
    }


WORK: dict[str, Callable[[Path, Any], Any]] = {
    "crowd": crowd,
    "careless": without_a_lock,
    "once": once,
}
