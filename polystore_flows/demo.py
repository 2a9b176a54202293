"""The demonstration: a raw plate of real images, analysed by the Snakemake example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .errors import AlreadyExistsError, MissingDependencyError, NotFoundError, PolystoreError

_NEEDED = (
    *("snakemake", "snakemake_storage_plugin_polystore", "skimage", "ngio", "matplotlib"),
    *("jinja2", "vl_convert"),
)
_EXAMPLE = Path("examples", "snakemake-plate")
_MARKER = ".polystore-demo"
_STEPS = re.compile(r"(\d+) of (\d+) steps")
_TOTAL = re.compile(r"total +(\d+)")
_LOG = re.compile(r"Complete log(?:\(s\))?: (.+)")


@dataclass(frozen=True, slots=True)
class DemoResults:
    """Where the demonstration's results are."""

    plate: str
    """URI of the OME-Zarr plate."""
    table: str
    """URI of the plate's table, one row a well."""
    picture: Path
    """The heat map, a PNG."""
    report: Path
    """The page that shows the whole plate."""


def run_demo(
    directory: Path,
    cores: int | None = None,
    progress: Callable[[int, int, str], object] | None = None,
) -> DemoResults:
    """Make a raw plate in `directory`, run the example on it, and say where its results are.

    Run again in the same folder, it finds nothing to be done.

    Args:
        directory: new, empty, or of an earlier demonstration.
        cores: jobs at a time; all cores by default.
        progress: called as ``progress(done, total, step)``.

    Raises:
        MissingDependencyError: an extra is not installed.
        AlreadyExistsError: `directory` holds something else; nothing was written.
        PolystoreError: the workflow failed; names its log.
    """
    _check_installed()
    example = find_example()
    _claim(directory)
    report = progress or (lambda done, total, step: None)
    _run("the raw plate", [str(example / "make_raw_plate.py"), str(directory / "raw")], report)
    command = ["-m", "snakemake", "--snakefile", str(example / "Snakefile")]
    command += ["--directory", str(directory), "--cores", str(cores or os.cpu_count() or 1)]
    _run("the workflow", [*command, "--rerun-incomplete"], report)
    plate = f"zarr:{directory / 'plate.zarr'}"
    table = f"{plate}/tables/nuclei.csv"
    return DemoResults(plate, table, directory / "nuclei.png", directory / "report.html")


def find_example() -> Path:
    """The folder of the Snakemake example, in a checkout or as the wheel installed it.

    Raises:
        NotFoundError: it is in neither place.
    """
    checkout = Path(__file__).parent.parent / _EXAMPLE
    installed = Path(sysconfig.get_path("data"), "share", "polystore-flows", _EXAMPLE)
    for folder in (checkout, installed):
        if (folder / "Snakefile").is_file():
            return folder
    raise NotFoundError(f"the example is neither in {checkout} nor in {installed}")


def _check_installed() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"the demonstration needs {', '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed; "
            "run pip install 'polystore-flows[demo]'"
        )


def _claim(directory: Path) -> None:
    """Make `directory` ours, unless it holds what is not."""
    marker = directory / _MARKER
    if directory.exists() and not directory.is_dir():
        raise AlreadyExistsError(f"{directory} is a file; name another folder")
    if directory.is_dir() and not marker.exists() and any(directory.iterdir()):
        raise AlreadyExistsError(
            f"{directory} holds something else than an earlier demonstration; name another folder"
        )
    directory.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _run(what: str, arguments: list[str], report: Callable[[int, int, str], object]) -> None:
    """Run Python with `arguments`; the lines it prints tell how far it is."""
    last: deque[str] = deque(maxlen=200)
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                last.append(line.strip())
                if step := _STEPS.search(line):
                    report(int(step[1]), int(step[2]), "workflow")
                elif total := _TOTAL.fullmatch(line.strip()):
                    report(0, int(total[1]), "workflow")
        except KeyboardInterrupt:
            process.terminate()  # Snakemake starts no more jobs and waits for those that run
            process.stderr.read()
            raise
    if process.returncode:
        logs = [found[1] for line in last if (found := _LOG.search(line))]
        errors = [line for line in last if re.search(r"error|exception", line, re.IGNORECASE)]
        said = f"see its log {logs[-1]}" if logs else (errors or list(last) or ["no word"])[-1]
        if any("cannot be locked" in line for line in last):
            said = (
                "another Snakemake is at work in this folder; if it was killed, remove "
                "the folder's .snakemake/locks"
            )
        raise PolystoreError(f"{what} failed: {said}")
