"""The check of the check: code that breaks a promise must be caught by the harness."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_promise_is_noticed(name: str) -> None:
    """A scenario that cannot fail proves nothing. All of them pass on the code as it is."""
    if MUTANTS[name][1] == "read-only" and os.geteuid() != 0:
        pytest.skip("only root can become a user without permission")
    done = subprocess.run(
        [sys.executable, HERE / "mutants.py", name],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = done.stdout.strip()
    assert done.returncode == 0, done.stderr
    assert found, f"{MUTANTS[name][1]!r} did not notice: {name}"
    assert not found.startswith("skipped")
