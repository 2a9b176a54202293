"""Writers that are killed at random, again and again."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

from polystore_flows.testing.faults.world import World, fork, torn_or_backward, wait

_WRITERS = 4
_ROUND = 100  # kills before everything is checked and the document is made anew


@dataclass
class Figures:
    """What a storm did, and what it found.

    Attributes:
        kills: Writers that were ended by SIGKILL.
        stops: How many of them were stopped for a while before that.
        acknowledged: Updates whose callers were told that they are there.
        seconds: How long it took.
        slowest: Seconds of the slowest commit after a round.
        faults: What must not be.
    """

    kills: int = 0
    stops: int = 0
    acknowledged: int = 0
    seconds: float = 0
    slowest: float = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


def storm(folder: Path, *, kills: int = 0, minutes: float = 0, seed: int = 0) -> Figures:
    """Kill concurrent writers of one document.

    Each writer appends numbered entries, as data or by a function, some from several threads,
    some believing in another time of day. A reader that takes no lock looks on.

    Args:
        folder: Where to work.
        kills: How many, at least.
        minutes: How long, at least.
        seed: Of the random numbers; the scheduling of the system is random as well.
    """
    world, figures, chance = World(folder), Figures(), random.Random(seed)
    began = time.monotonic()
    names = count()
    while figures.kills < kills or time.monotonic() - began < 60 * minutes:
        _round(world, figures, chance, names)
        if len(figures.faults) > 20:
            break
    figures.seconds = round(time.monotonic() - began, 1)
    return figures


def _round(world: World, figures: Figures, chance: random.Random, names: Iterator[int]) -> None:
    world.reset()
    reader = fork(lambda: torn_or_backward(world.document, world.acknowledge))
    writers = [_start(world, next(names), chance) for _ in range(_WRITERS)]
    for _ in range(_ROUND):
        time.sleep(chance.uniform(0, 0.012))
        victim = chance.randrange(_WRITERS)
        if chance.random() < 0.1:
            os.kill(writers[victim], signal.SIGSTOP)
            time.sleep(chance.uniform(0, 0.03))
            figures.stops += 1
            if chance.random() < 0.5:
                os.kill(writers[victim], signal.SIGCONT)
        _kill(writers[victim], figures)
        writers[victim] = _start(world, next(names), chance)
    for writer in writers:
        _kill(writer, figures)
    os.kill(reader, signal.SIGKILL)
    wait(reader)
    began = time.monotonic()
    faults = [line for line in world.acknowledged if line.startswith("!")]
    faults += [fault for fault in world.aftermath() if not fault.startswith("lost: !")]
    figures.slowest = max(figures.slowest, round(time.monotonic() - began, 3))
    figures.acknowledged += len(world.acknowledged)
    log = world.entries([])
    by_writer: dict[str, list[int]] = {}
    for entry in log:
        name, _, number = entry.rpartition("-")
        if name:
            by_writer.setdefault(name, []).append(int(number))
    for name, own in by_writer.items():
        if own != list(range(len(own))):
            faults.append(f"not in the order of {name}: {own}")
    figures.faults += faults


def _kill(pid: int, figures: Figures) -> None:
    os.kill(pid, signal.SIGKILL)
    status = wait(pid)
    figures.kills += 1
    if status != -signal.SIGKILL:  # it should have written for ever
        figures.faults.append(f"a writer ended by itself with {status}")


def _start(world: World, name: int, chance: random.Random) -> int:
    kind, shift = chance.random(), chance.choice([0, 0, 0, -1e7, 1e7])

    def work() -> None:
        real = time.time
        time.time = lambda: real() + shift  # the clock was set meanwhile
        threads = [
            threading.Thread(target=_append, args=(world, f"{name}t{n}", kind), daemon=True)
            for n in range(3 if kind < 0.2 else 0)
        ]
        for thread in threads:
            thread.start()
        _append(world, str(name), kind)

    return fork(work)


def _append(world: World, name: str, kind: float) -> None:
    for number in count():
        world.append(f"{name}-{number}", closure=kind > 0.8 or (kind > 0.6 and number % 3 == 0))
