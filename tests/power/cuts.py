"""Cuts the power again and again while writers update one document, and counts what is lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kernel import Kernel, make_disk
from updates import NAME

KEPT = [NAME, f"{NAME}.lock"]
PATIENCE = 60  # seconds for what takes two


@dataclass
class Figures:
    """What came of a series of cuts.

    Attributes:
        cuts: How often the power was cut.
        interrupted: How many of these hit a kernel before it had looked at the document.
        acknowledged: Updates that were reported as durable.
        unreported: Updates that survived although their acknowledgement did not get out.
        lost: Updates that were acknowledged and are gone.
        losing_cuts: Cuts that lost something.
        twice: Updates that are in the document twice.
        left: The most files that a cut left beside the document and its lock.
        stay: The most of these files that the next update did not remove.
        slowest: Seconds of the slowest first update after a cut.
        faults: All else: a document that does not parse, a stuck lock.
        seconds: How long it all took.
    """

    cuts: int = 0
    interrupted: int = 0
    acknowledged: int = 0
    unreported: int = 0
    lost: int = 0
    losing_cuts: int = 0
    twice: int = 0
    left: int = 0
    stay: int = 0
    slowest: float = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0

    @property
    def caught(self) -> bool:
        """Whether something was lost, doubled or broken."""
        return bool(self.lost or self.twice or self.faults)


def cut_power(
    folder: Path, *, cuts: int, seed: int, mutant: str = "none", options: str = "-"
) -> Figures:
    """Cut the power of a kernel with busy writers, `cuts` times, always with the same disk.

    Args:
        folder: An empty folder, for the disk and the console.
        cuts: How often.
        seed: Of the random moments.
        mutant: What is broken in the writers, see `cut_guest`; ends when that was noticed.
        options: How the ext4 is mounted; ``-`` for its defaults.
    """
    chance, figures, began = random.Random(seed), Figures(), time.monotonic()
    disk, expected = make_disk(folder / "disk"), set[str]()
    for boot in range(cuts + 1):
        kernel = Kernel(*("cut", boot, options, mutant), disk=disk, log=folder / "console")
        try:
            early = None
            if 0 < boot < cuts and boot % 5 == 0:  # a cut while it starts and recovers
                early = kernel.line(chance.uniform(0.3, 1.5))
                if early is None:
                    figures.cuts, figures.interrupted = figures.cuts + 1, figures.interrupted + 1
                    continue
            found = kernel.report(PATIENCE, early)
            if "error" in found:
                figures.faults.append(f"boot {boot}: {found['error']}")
                break
            expected = _judge(figures, boot, expected, found)
            if boot == cuts or (mutant != "none" and figures.caught):
                break
            first = kernel.line(PATIENCE)  # the cut shall hit them at work
            assert first is not None, kernel.console()
            for line in [first, *kernel.lines(chance.uniform(0.02, 1.2))]:
                expected.add(line.removeprefix("+ "))
        finally:
            kernel.cut()
        expected.update(line.removeprefix("+ ") for line in kernel.lines(1))
        figures.cuts += 1
        figures.acknowledged += sum(entry.startswith(f"{boot}-") for entry in expected)
    figures.seconds = round(time.monotonic() - began, 1)
    return figures


def _judge(figures: Figures, boot: int, expected: set[str], found: dict) -> set[str]:
    """Compare what is there with what was acknowledged; returns what must be there from now on."""
    there = Counter(found["log"])
    lost = expected - set(there)
    figures.lost += len(lost)
    figures.losing_cuts += bool(lost)
    figures.twice += sum(many - 1 for many in there.values())
    figures.left = max(figures.left, len(set(found["left"]) - set(KEPT)))
    figures.slowest = max(figures.slowest, round(found["took"], 3))
    figures.stay = max(figures.stay, len(set(found["kept"]) - set(KEPT)))
    unreported = set(there) - expected
    figures.unreported += len(unreported)
    writers = Counter(entry.rsplit("-", 1)[0] for entry in unreported)
    if not lost and any(many > 1 for many in writers.values()):
        figures.faults.append(f"boot {boot}: more than was asked for: {sorted(unreported)}")
    return {*there, f"{boot}-first-0"}
