"""How fast OME-Zarr plates are written and read, by polystore, ngio, iohub and others, and ours.

``python benchmarks/zarr_vs_peers.py`` takes some twenty minutes, ``--quick`` about five. A well has
4 fields of 3 channels, 5 z and 1080 x 1080 pixels of uint16, noise with blobs, 140 MB; all have one
pyramid level. The engines are run in turn, round after round, each in a process of its own and the
order turned in each round, so that whatever else the machine does meets them all; what counts are
ratios of medians over the rounds.

Peers are installed into environments that are thrown away. Zarr engines get chunks of one plane and
Blosc LZ4-5 with bit shuffling where they let one choose; ngio, zarr-python and tensorstore write
shards as we do, iohub writes chunks, which it does faster. What is read was written just before, so
it is in the page cache; ``sync`` is run before each process. Ours and tensorstore sync what they
write to the disk before they return, the others leave that to the system.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ENGINES = Path(__file__).with_name("zarr_engines.py")
LABELS = {
    "ours": "Polystore Flows",
    "polystore": "polystore 0.6.3",
    "ngio": "ngio",
    "iohub": "iohub (zarrs)",
    "iohub-tensorstore": "iohub (tensorstore)",
    "zarr-python": "zarr-python, arrays alone",
    "tensorstore": "tensorstore, arrays alone",
    "tifffile": "TIFF files",
    "numpy": "numpy.save",
}
PLATES = ("ngio", "iohub", "iohub-tensorstore")
"""Peers that write plates as OME-NGFF wants them."""
ZARR = (*PLATES, "polystore", "zarr-python", "tensorstore")
COLUMNS = {
    "write": "write a well",
    "plane": "one plane, opening included",
    "open plane": "a plane, open",
    "well": "read a well",
    "twelve": "12 planes of 12 wells",
}
SIZES = (96, 384, 1536)


class Results:
    """All figures, by what was run, one for each round."""

    def __init__(self) -> None:
        self.rounds: dict[tuple[str, int | None], list[dict[str, float]]] = defaultdict(list)

    def middle(self, engine: str, what: str, count: int | None = None) -> float:
        return median(figures[what] for figures in self.rounds[engine, count])

    def has(self, *engines: str, count: int | None = None) -> bool:
        return all((engine, count) in self.rounds for engine in engines)


def environment(folder: Path, python: str, *packages: str) -> str:
    """Make an environment that is thrown away; returns its Python."""
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("the peers are installed with uv; install that, or give --only ours")
    subprocess.run([uv, "venv", "-q", "--python", python, str(folder)], check=True)
    inside = str(folder / "bin" / "python")
    subprocess.run([uv, "pip", "install", "-q", "--python", inside, *packages], check=True)
    return inside


def pythons(chosen: Sequence[str], python: str, folder: Path) -> dict[str, str]:
    """Engine -> a Python that has it."""
    found = {"ours": sys.executable}
    peers = set(LABELS) - {"ours", "polystore"}
    if peers & set(chosen):
        packages = ("ngio", "iohub", "tensorstore", "zarr", "tifffile", "numpy")
        found |= dict.fromkeys(peers, environment(folder / "peers", python, *packages))
    if "polystore" in chosen:
        old = environment(folder / "polystore", sys.executable, "polystore==0.6.3")
        found["polystore"] = old
    return {engine: found[engine] for engine in chosen}


def run(python: str, what: str, engine: str, where: Path, argument: object) -> dict[str, float]:
    """Let one engine work in a process of its own, in a folder of its own."""
    os.sync()
    with TemporaryDirectory(dir=where, prefix=f"{engine}-") as folder:
        command = [python, str(ENGINES), what, engine, folder, str(argument)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{engine}: {done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(arguments: argparse.Namespace, interpreters: dict[str, str], where: Path) -> Results:
    """Run all engines in turn, round after round."""
    results = Results()
    np.save(where / "fields.npy", well(arguments.side))
    for number in range(arguments.rounds):
        for engine in turned(list(interpreters), number):
            figures = run(interpreters[engine], "pixels", engine, where, where / "fields.npy")
            results.rounds[engine, None].append(figures)
            said = ", ".join(f"{what} {1000 * figures[what]:.1f}" for what in COLUMNS)
            print(f"round {number + 1}, {engine}: {said} ms", file=sys.stderr)
    plates = [engine for engine in interpreters if engine in ("ours", "polystore", *PLATES)]
    for number in range(arguments.plate_rounds):
        for count in (1, *arguments.sizes):
            for engine in turned(plates, number):
                if count == 1 and engine != "ours":
                    continue
                figures = run(interpreters[engine], "wells", engine, where, count)
                results.rounds[engine, count].append(figures)
                said = ", ".join(f"{what} {1000 * s:.2f} ms" for what, s in figures.items())
                print(f"round {number + 1}, {count} wells, {engine}: {said}", file=sys.stderr)
    return results


def turned(engines: list[str], number: int) -> list[str]:
    """The engines, another one first in each round."""
    first = number % len(engines)
    return engines[first:] + engines[:first]


def well(side: int) -> Any:
    """Four fields ``(t, c, z, y, x)`` of noise with blobs; LZ4 with bit shuffling halves them."""
    chance = np.random.default_rng(0)
    fields = chance.normal(200, 12, (4, 1, 3, 5, side, side)).astype("uint16")
    y, x = np.mgrid[-20:21, -20:21]
    blob = (3000 * np.exp(-(x**2 + y**2) / 128)).astype("uint16")
    for field, c, z in np.ndindex(4, 3, 5):
        for top, left in chance.integers(0, side - 41, (60, 2)):
            fields[field, 0, c, z, top : top + 41, left : left + 41] += blob
    return fields


def number(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(results: Results) -> str:
    """A Markdown table of pixels: milliseconds, and what is on disk."""
    names = [engine for engine in LABELS if results.has(engine)]
    lines = ["| ms | " + " | ".join(COLUMNS.values()) + " | files, MB a well |"]
    lines.append("|---|" + "---|" * (len(COLUMNS) + 1))
    for engine in names:
        cells = [number(1000 * results.middle(engine, what)) for what in COLUMNS]
        size = results.middle(engine, "size") / 1e6
        cells.append(f"{results.middle(engine, 'files'):.0f}, {size:.0f}")
        lines.append(f"| {LABELS[engine]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plates(results: Results, sizes: Sequence[int]) -> str:
    """A Markdown table: milliseconds for one well more, by the number of wells."""
    lines = ["| ms to add a small well to | " + " | ".join(f"{n} wells" for n in sizes) + " |"]
    lines.append("|---|" + "---|" * len(sizes))
    for engine in LABELS:
        if all(results.has(engine, count=count) for count in sizes):
            cells = [number(1000 * results.middle(engine, "add", count)) for count in sizes]
            lines.append(f"| {LABELS[engine]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def targets(results: Results, sizes: Sequence[int]) -> list[tuple[str, float, bool]]:
    """What is promised, what was measured, and whether that is enough."""
    found: list[tuple[str, float, bool]] = []

    def add(text: str, what: str, peers: Sequence[str], good: Callable[[float], bool]) -> None:
        there = [engine for engine in peers if results.has(engine)]
        if there:
            ratio = results.middle("ours", what) / min(results.middle(e, what) for e in there)
            found.append((text, ratio, good(ratio)))

    def at_most(most: float) -> Callable[[float], bool]:
        return lambda ratio: ratio <= most

    add("write, of the fastest peer that writes plates, ≤ 1", "write", PLATES, at_most(1))
    add("write, of polystore, ≤ 1/8", "write", ["polystore"], at_most(1 / 8))
    add("one plane, of the fastest zarr peer, ≤ 1", "plane", ZARR, at_most(1))
    add("an open plane, of the fastest zarr peer, ≤ 1", "open plane", ZARR, at_most(1))
    add("a well, of the fastest zarr peer, ≤ 1", "well", ZARR, at_most(1))
    add("a well, of TIFF files, ≤ 1", "well", ["tifffile"], at_most(1))
    add("12 planes, of the fastest zarr peer, ≤ 1", "twelve", ZARR, at_most(1))
    most = max(sizes)
    for what, less, text in (
        ("plane", 1, f"one plane of a plate of {most} wells, of that of one well, ≤ 1.1"),
        ("add", min(sizes), f"a well more beside {most}, of that beside {min(sizes)}, ≤ 2"),
    ):
        if results.has("ours", count=most) and less < most:
            ratio = results.middle("ours", what, most) / results.middle("ours", what, less)
            found.append((text, ratio, ratio <= (1.1 if less == 1 else 2)))
    return found


def plot(results: Results, sizes: Sequence[int], file: Path) -> None:
    """Draw milliseconds, one panel for each thing that is done."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    names = [engine for engine in LABELS if results.has(engine)][::-1]
    figure, panels = pyplot.subplots(2, 3, figsize=(13, 6.5), sharey=False)
    for panel, (what, title) in zip(panels.flat, COLUMNS.items(), strict=False):
        values = [1000 * results.middle(engine, what) for engine in names]
        colors = ["tab:orange" if engine == "ours" else "tab:blue" for engine in names]
        bars = panel.barh([LABELS[engine] for engine in names], values, color=colors)
        panel.bar_label(bars, [number(value) for value in values], padding=3, fontsize=8)
        panel.set(title=f"{title} [ms]", xscale="log", xlim=(min(values) / 2, max(values) * 9))
        panel.tick_params(axis="y", labelsize=8)
    last = panels.flat[len(COLUMNS)]
    last.set_prop_cycle(color=["tab:blue", "tab:green", "tab:red", "tab:purple"])
    for engine in LABELS:
        if all(results.has(engine, count=count) for count in sizes):
            values = [1000 * results.middle(engine, "add", count) for count in sizes]
            ours = {"color": "tab:orange"} if engine == "ours" else {}
            last.plot(sizes, values, marker="o", label=LABELS[engine], **ours)
    last.set(title="add a small well [ms]", xscale="log", yscale="log", xlabel="wells of the plate")
    last.set_xticks(list(sizes), [str(size) for size in sizes])
    last.minorticks_off()
    last.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round; no plates of 1536 wells")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plate-rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--side", type=int, default=1080, help="of a plane, in pixels")
    parser.add_argument("--only", nargs="+", choices=list(LABELS), default=list(LABELS))
    parser.add_argument("--python", default="3.12", help="of the peers; iohub needs 3.12 or newer")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to measure")
    parser.add_argument("--plot", type=Path, default=Path("zarr-vs-peers.png"))
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = arguments.plate_rounds = 1
        arguments.sizes = [size for size in arguments.sizes if size < 1536]
    with TemporaryDirectory(dir=arguments.folder) as folder:
        interpreters = pythons(arguments.only, arguments.python, Path(folder))
        results = measure(arguments, interpreters, Path(folder))
    print("Medians of", arguments.rounds, "rounds:\n")
    print(table(results))
    print()
    print(plates(results, arguments.sizes))
    print()
    missed = 0
    for text, figure, good in targets(results, arguments.sizes):
        missed += not good
        print(f"{'yes' if good else 'NO '}  {text}: {figure:.3g}")
    plot(results, arguments.sizes, arguments.plot)
    print(f"\n{arguments.plot}")
    return int(arguments.check and missed > 0)


if __name__ == "__main__":
    sys.exit(main())
