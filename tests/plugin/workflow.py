"""A folder with a Snakefile, and runs of Snakemake in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path


class Workflow:
    """A folder with a Snakefile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str | None] = {}
        """Variables beside those of this process; None takes one away."""

    def run(
        self, *options: str, ok: bool = True, cores: int = 2, program: tuple[str, ...] = ()
    ) -> str:
        """What a run prints."""
        command = [sys.executable, *(program or ("-m", "snakemake")), "--cores", f"{cores}"]
        done = subprocess.run(
            [*command, *options],
            cwd=self.folder,
            env={k: v for k, v in {**os.environ, **self.environment}.items() if v is not None},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        output = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, output
        if not ok:
            assert done.returncode == 1, output
        assert "--verbose" in options or "Traceback" not in output, output
        return output

    def counted(self, *options: str) -> tuple[str, Counter[str]]:
        """What a run prints, and how often backends were asked what: ``stat zarr:…/B/3`` …"""
        program = str(Path(__file__).with_name("counting.py"))
        output, _, counts = self.run(*options, program=(program,)).rpartition("COUNTED ")
        return output, Counter(json.loads(counts.splitlines()[0]))

    def write(self, snakefile: str, **texts: str) -> None:
        """Write the Snakefile and scripts; ``PYTHON`` and ``HERE`` are filled in."""
        for name, text in {"Snakefile": snakefile, **texts}.items():
            path = self.folder / (name if name == "Snakefile" else f"{name}.py")
            text = text.replace("PYTHON", sys.executable).replace("HERE", str(self.folder))
            path.write_text(text)
