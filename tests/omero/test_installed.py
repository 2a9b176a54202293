"""Says loudly when the tests of OMERO cannot run."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def test_the_tests_of_omero_run() -> None:
    """They need a C++ compiler once, so the everyday environment does without."""
    if find_spec("omero") is None:
        pytest.skip(
            "NO TEST OF OMERO IS RUN: omero-py is not installed; run 'uv run --extra omero pytest'"
        )
