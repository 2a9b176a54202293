"""``python -m polystore_flows.testing.faults``: break things, and tell what was lost."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from polystore_flows.testing.faults import crowd
from polystore_flows.testing.faults.scenarios import SCENARIOS, SKIPPED, run
from polystore_flows.testing.faults.storm import storm


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m polystore_flows.testing.faults", description=main.__doc__
    )
    parser.add_argument("--minutes", type=float, default=1, help="length of the storm of kills")
    parser.add_argument("--kills", type=int, default=0, help="kills in the storm, at least")
    parser.add_argument("--seed", type=int, default=0, help="of its random numbers")
    parser.add_argument("--folder", type=Path, help="where, to try a certain file system")
    parser.add_argument("--only", choices=[*SCENARIOS, "steps"], help="one scenario, no storm")
    chosen = parser.parse_args(arguments)
    faults = 0
    for name in [chosen.only] if chosen.only else [*SCENARIOS, "steps"]:
        began = time.monotonic()
        found = _steps() if name == "steps" else run(name)
        skipped = [line for line in found if line.startswith(SKIPPED)]
        faults += len(found) - len(skipped)
        print(
            f"{name}: {'; '.join(found) or 'good'} ({time.monotonic() - began:.1f} s)", flush=True
        )
    if not chosen.only:
        with TemporaryDirectory(dir=chosen.folder) as folder:
            figures = storm(
                Path(folder) / "storm",
                kills=chosen.kills,
                minutes=0 if chosen.kills else chosen.minutes,
                seed=chosen.seed,
            )
        faults += len(figures.faults)
        print(f"storm: {figures}")
    print(f"{faults} faults")
    return int(faults > 0)


def _steps() -> list[str]:
    """Kill the leader at every step, ten times each."""
    with TemporaryDirectory() as folder:
        return crowd.killed(Path(folder) / "world", "leader", times=10)


if __name__ == "__main__":
    sys.exit(main())
