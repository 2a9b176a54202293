"""What the Snakemake plugin costs beside plain files and beside Snakemake's own ``fs`` plugin.

``python benchmarks/snakemake_overhead.py`` takes some ten minutes, ``--quick`` about two. All run
in one environment, made by uv and thrown away, in turn, round after round, so that whatever else
the machine does meets them all; what counts is the median over the rounds of the ratio within a
round.

Two things are measured: a run of 96 trivial shell jobs on two cores, wall time; and a dry run of
1,536 outputs that are up to date, CPU time. Ours is measured with files (``disk:``) in both, and
in the dry run with the wells of OME-Zarr plates too. The ``fs`` plugin copies by ``rsync``, which
it does not install.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import polystore_flows as ps
from polystore_flows.backends.zarr.nodes import make_group
from polystore_flows.hcs import ngff
from polystore_flows.hcs.layout import SIZES, row_name

ROOT = Path(__file__).parents[1]
LABELS = {
    "plain": "plain files",
    "fs": "fs plugin",
    "disk": "ours, files",
    "zarr": "ours, wells of OME-Zarr plates",
}
PATTERNS = {
    "plain": ('"{folder}/{name}.txt"', ""),
    "fs": ('storage.fs("{folder}/{name}.txt")', 'storage fs:\n    provider="fs"\n'),
    "disk": ('storage("disk:{folder}/{name}.txt")', ""),
    "zarr": ('storage("zarr:{folder}.zarr/{name}")', ""),
}
SNAKEFILE = """
{setup}
NAMES = {names}

rule all:
    input: {all}

rule copy:
    input: {input}
    output: {output}
    shell: "cp {{input}} {{output}}"
"""


def environment(folder: Path) -> str:
    """Make the environment in `folder`; returns its Python."""
    uv, python = shutil.which("uv") or "uv", str(folder / "bin" / "python")
    packages = [f"{ROOT}[snakemake]", "snakemake-storage-plugin-fs"]
    options = ["--constraints", str(ROOT / "constraints.txt")]
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    install = [uv, "pip", "install", "-q", "--python", python, *options, *packages]
    subprocess.run(install, check=True)
    return python


def prepare(kind: str, folder: Path, names: Sequence[str], *, done: bool) -> None:
    """A Snakefile of this kind in `folder` with its inputs, and its outputs if they are `done`."""
    folder.mkdir()
    pattern, setup = PATTERNS[kind]
    said = {end: pattern.replace("{folder}", end) for end in ("raw", "out")}
    call, bracket, query = said["out"].rpartition("(")
    whole = f"{call}{bracket}expand({query.rstrip(')')}, name=NAMES){')' if bracket else ''}"
    text = SNAKEFILE.format(
        setup=setup, names=list(names), all=whole, input=said["raw"], output=said["out"]
    )
    (folder / "Snakefile").write_text(text)
    for end in ("raw", "out") if done else ("raw",):
        if kind == "zarr":
            _plate(folder / f"{end}.zarr", names)
            continue
        (folder / end).mkdir()
        for name in names:
            path = folder / end / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)


def _plate(path: Path, wells: Sequence[str]) -> None:
    """An OME-Zarr plate whose wells have one field without pixels, which nobody opens here."""
    plate = ps.create_plate(f"zarr://{path.absolute()}", layout=1536, channels=["DAPI"])
    document = ngff.PlateDocument(plate.layout, tuple(wells), plate.name, 1, "0.5")
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"] |= ngff.plate_attributes(document)
    for well in wells:
        make_group(path / well, ngff.well_attributes({"0": None}, "0.5"), "0.5")
        make_group(path / well / "0", {}, "0.5")
    (path / "zarr.json").write_text(json.dumps(content))


def snakemake(python: str, folder: Path, *options: str) -> tuple[float, float]:
    """Run it; seconds of wall and CPU time, children included."""
    command = [python, "-m", "snakemake", "--cores", "2", "--quiet", "all", *options]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=_environment())
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed in {folder}:\n{done.stderr}")
    after, took = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    return took, sum(after[:2]) - sum(before[:2])


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run_jobs(python: str, kind: str, where: Path, count: int) -> float:
    """Wall time of a run of `count` trivial jobs; its files stay, see below."""
    folder = where / f"{kind}-{len(list(where.iterdir()))}"
    prepare(kind, folder, [f"{number:04}" for number in range(count)], done=False)
    took, _ = snakemake(python, folder)
    # ext4 passes over inodes that were freed in the last seconds, one by one: to remove thousands
    # of files here would make new ones slow for whoever is next.
    assert len(list((folder / "out").iterdir())) == count
    return took


def dry_run(python: str, kind: str, where: Path) -> float:
    """CPU time of a dry run with all outputs up to date, the second of two."""
    folder = where / f"dry-{kind}"
    if not folder.exists():
        rows, columns = SIZES[1536]
        wells = [
            f"{row_name(row)}/{column + 1}" for row in range(rows) for column in range(columns)
        ]
        prepare(kind, folder, wells, done=True)
        snakemake(python, folder, "--dry-run")
    return snakemake(python, folder, "--dry-run")[1]


def measure(
    rounds: int, kinds: Sequence[str], act: Callable[[str], float]
) -> dict[str, list[float]]:
    """All figures; each round begins with another kind."""
    figures: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        turn = number % len(kinds)
        for kind in [*kinds[turn:], *kinds[:turn]]:
            figures[kind].append(act(kind))
    return figures


def show(title: str, figures: dict[str, list[float]], limits: dict[str, float]) -> None:
    """Print medians, and ratios to plain files with what they are to be at most."""
    print(f"\n{title}\n")
    for kind, seconds in sorted(figures.items(), key=lambda item: list(LABELS).index(item[0])):
        ratio = median(a / b for a, b in zip(seconds, figures["plain"], strict=True))
        limit = f"  (at most {limits[kind]:.2f})" if kind in limits else ""
        print(f"  {LABELS[kind]:32} {median(seconds):6.2f} s   {ratio:5.2f} ×{limit}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=96)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else arguments.rounds
    peers = ["plain", "fs", "disk"]
    if shutil.which("rsync") is None:
        peers.remove("fs")
        print("NOT RUN: the fs plugin, which needs rsync; apt-get install rsync", file=sys.stderr)
    with TemporaryDirectory(prefix="overhead-") as temporary:
        where = Path(temporary)
        python = environment(where / "environment")
        run = measure(rounds, peers, lambda kind: run_jobs(python, kind, where, arguments.jobs))
        dry = measure(rounds, [*peers, "zarr"], lambda kind: dry_run(python, kind, where))
    show(f"{arguments.jobs} shell jobs on 2 cores, wall time", run, {"disk": 1.10})
    show("dry run of 1,536 outputs up to date, CPU time", dry, {"disk": 1.3, "zarr": 1.3})


if __name__ == "__main__":
    main()
