"""Runs the tests of OMERO where omero-py is not installed, or says loudly that they cannot run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISSING = find_spec("Ice") is None


def test_the_compiled_ice_is_the_one_that_omero_speaks() -> None:
    """Its compilation needs a C++ compiler, so the everyday environment does without."""
    if MISSING:
        pytest.skip(
            "THE TESTS OF OMERO ARE NOT RUN HERE: omero-py is not installed; 'uv run --extra omero "
            "pytest' installs it (Debian: g++ libssl-dev libbz2-dev)"
        )
    import Ice

    assert Ice.stringVersion() == "3.6.5"


@pytest.mark.slow
@pytest.mark.skipif(not MISSING, reason="the tests of OMERO run with all others")
def test_the_tests_of_omero_pass_in_an_environment_of_their_own(tmp_path: Path) -> None:
    """So that all tests are run by ``uv run pytest``, and the demo still compiles nothing."""
    uv = shutil.which("uv")
    if uv is None or shutil.which("c++") is None:
        pytest.skip("NO TEST OF OMERO IS RUN: they need uv and a C++ compiler (Debian: g++)")
    environment = os.environ | {"UV_PROJECT_ENVIRONMENT": str(tmp_path / "venv")}
    made = subprocess.run(
        [uv, "sync", "--quiet", "--extra", "omero", "--python", sys.executable],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"NO TEST OF OMERO IS RUN: zeroc-ice did not compile:\n{made.stderr[-2000:]}")
    ran = subprocess.run(
        [tmp_path / "venv/bin/python", "-m", "pytest", "-q", "tests/omero"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-10_000:] + ran.stderr[-2000:]
