"""How fast a crowd can update one document: polystore 0.6.3, plain flock, SQLite and ours.

``python benchmarks/metadata.py`` takes some ten minutes, ``--quick`` about one. The four are run
in turn, round after round, so that whatever else the machine does meets them all; what counts is
the median over the rounds of the ratio within a round. Every process has the same number of
updates to make, and the rate is that of all of them until the last one is done: a process that
starves counts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

KINDS = ("polystore", "flock", "sqlite", "ours")
LABELS = {
    "polystore": "polystore 0.6.3",
    "flock": "flock + sync",
    "sqlite": "SQLite WAL, FULL",
    "ours": "Polystore Flows",
}
CROWD = Path(__file__).with_name("metadata_crowd.py")

Cell = tuple[int, int]
"""Processes and entries."""


class Results:
    """All figures, by cell and kind, one for each round."""

    def __init__(self) -> None:
        self.rounds: dict[tuple[Cell, str], list[dict[str, float]]] = defaultdict(list)

    def middle(self, cell: Cell, kind: str, what: str) -> float:
        return median(figures[what] for figures in self.rounds[cell, kind])

    def ratio(self, top: tuple[Cell, str], bottom: tuple[Cell, str], what: str) -> float:
        """The median over the rounds of one figure divided by another."""
        pairs = zip(self.rounds[top], self.rounds[bottom], strict=True)
        return median(first[what] / second[what] for first, second in pairs)


def peer(folder: Path) -> str:
    """Install polystore 0.6.3 into an environment that is thrown away; returns its Python."""
    python = str(folder / "bin" / "python")
    package = "polystore==0.6.3"
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, package], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    return python


def crowd(python: str, kind: str, where: Path, cell: Cell, updates: int) -> dict[str, float]:
    """Let each process of a crowd make `updates` updates, and return the figures."""
    options = [kind, where, *cell, updates]
    command = [python, CROWD, *map(str, options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(arguments: argparse.Namespace, python: str, where: Path) -> Results:
    """Run all cells and kinds in turn, round after round."""
    results = Results()
    cells = [(p, e) for e in arguments.entries for p in arguments.processes]
    for number in range(arguments.rounds):
        for cell in cells:
            for kind in KINDS[number % 4 :] + KINDS[: number % 4]:
                interpreter = python if kind == "polystore" else sys.executable
                figures = crowd(interpreter, kind, where, cell, _share(cell, arguments))
                results.rounds[cell, kind].append(figures)
            rates = ", ".join(f"{k} {results.rounds[cell, k][-1]['rate']:.0f}/s" for k in KINDS)
            print(f"round {number + 1}, {cell[0]} x {cell[1]}: {rates}", file=sys.stderr)
    return results


def _share(cell: Cell, arguments: argparse.Namespace) -> int:
    """How many updates each process makes: fewer in all where there are few processes."""
    return max(50, 200 // cell[0]) // (5 if arguments.quick else 1)


def table(results: Results) -> str:
    """A Markdown table: updates per second and p99 in milliseconds."""
    lines = ["| processes × entries | " + " | ".join(LABELS[kind] for kind in KINDS) + " |"]
    lines.append("|---|" + "---|" * len(KINDS))
    for cell in dict.fromkeys(cell for cell, _ in results.rounds):
        figures = [
            f"{results.middle(cell, kind, 'rate'):.0f} / {results.middle(cell, kind, 'p99'):.1f}"
            for kind in KINDS
        ]
        lines.append(f"| {cell[0]} × {cell[1]} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def targets(results: Results, commits: float) -> list[tuple[str, float, bool]]:
    """What is promised, what was measured, and whether that is enough."""
    crowded, some = (32, 1536), (8, 1536)
    cells = {cell for cell, _ in results.rounds}
    found: list[tuple[str, float, bool]] = []

    def add(text: str, needs: set[Cell], value: Callable[[], float], good: Any) -> None:
        if needs <= cells:
            figure = value()
            found.append((text, figure, bool(good(figure))))

    def times(cell: Cell, other: str, what: str = "rate") -> Callable[[], float]:
        return lambda: results.ratio((cell, "ours"), (cell, other), what)

    add("32 × 1536: times polystore, ≥ 8", {crowded}, times(crowded, "polystore"), lambda x: x >= 8)
    add(
        "32 × 1536: p99 of polystore's, ≤ 1/30",
        {crowded},
        times(crowded, "polystore", "p99"),
        lambda x: x <= 1 / 30,
    )
    add("32 × 1536: times SQLite, > 1", {crowded}, times(crowded, "sqlite"), lambda x: x > 1)
    add("8 × 1536: times plain flock, ≥ 5", {some}, times(some, "flock"), lambda x: x >= 5)
    for processes in sorted({cell[0] for cell in cells}):
        large, little = (processes, 1536), (processes, 96)
        add(
            f"{processes} processes: 1536 entries against 96, ≥ 0.35",
            {large, little},
            lambda a=large, b=little: results.ratio((a, "ours"), (b, "ours"), "rate"),
            lambda x: x >= 0.35,
        )
    for entries in sorted({cell[1] for cell in cells}):
        add(
            f"1 × {entries}: times polystore, ≥ 1",
            {(1, entries)},
            times((1, entries), "polystore"),
            lambda x: x >= 1,
        )
    found.append(("commits for 1,600 updates of 32 processes, ≤ 160", commits, commits <= 160))
    return found


def plot(results: Results, file: Path) -> None:
    """Draw updates per second over processes, one panel for each size of the document."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    sizes = sorted({cell[1] for cell, _ in results.rounds})
    processes = sorted({cell[0] for cell, _ in results.rounds})
    figure, panels = pyplot.subplots(
        2, len(sizes), figsize=(3.6 * len(sizes), 6), sharex=True, sharey="row", squeeze=False
    )
    for column, size in enumerate(sizes):
        for row, (what, name) in enumerate([("rate", "updates / s"), ("p99", "p99 [ms]")]):
            panel = panels[row][column]
            for kind in KINDS:
                values = [results.middle((number, size), kind, what) for number in processes]
                panel.plot(processes, values, marker="o", label=LABELS[kind])
            panel.set(xscale="log", yscale="log", xticks=processes)
            panel.set_xticklabels([str(number) for number in processes])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
            if row == 0:
                panel.set_title(f"{size} entries")
            else:
                panel.set_xlabel("processes")
            if column == 0:
                panel.set_ylabel(name)
    panels[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few cells, few updates, once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 8, 32])
    parser.add_argument("--entries", type=int, nargs="+", default=[96, 384, 1536])
    parser.add_argument("--peer", help="a Python that has polystore 0.6.3; else it is installed")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to measure")
    parser.add_argument("--plot", type=Path, default=Path("metadata.png"))
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 1
        arguments.processes, arguments.entries = [1, 8, 32], [96, 1536]
    with TemporaryDirectory(dir=arguments.folder) as folder:
        python = arguments.peer or peer(Path(folder) / "peer")
        results = measure(arguments, python, Path(folder))
        commits = [
            crowd(sys.executable, "ours", Path(folder), (32, 1536), 50)["commits"]
            for _ in range(arguments.rounds)
        ]
    print("Updates per second / p99 in milliseconds, medians:\n")
    print(table(results))
    print()
    missed = 0
    for text, figure, good in targets(results, median(commits)):
        missed += not good
        print(f"{'yes' if good else 'NO '}  {text}: {figure:.3g}")
    plot(results, arguments.plot)
    print(f"\n{arguments.plot}")
    return int(arguments.check and missed > 0)


if __name__ == "__main__":
    sys.exit(main())
