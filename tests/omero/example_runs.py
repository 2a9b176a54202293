"""Runs of the examples with OMERO as source and target, and what is looked at afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import polystore_flows as ps
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.server import SECRET

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(folder: Path, *arguments: str, **variables: str) -> str:
    """Run Python in `folder`, without this process' settings of Prefect; what is printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=env | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def assert_equal(one: str, other: str) -> None:
    """The results at two plates, of the same images, are the same."""
    ours, theirs = ps.open_plate(one), ps.open_plate(other)
    assert ours.wells == theirs.wells
    for well in ours.wells:
        assert ours[well].fields == theirs[well].fields
        for field in ours[well].fields:
            image, same = ours[well].image(field), theirs[well].image(field)
            np.testing.assert_array_equal(image.read(), same.read())
            np.testing.assert_array_equal(image.label("nuclei").read(), same.label("nuclei").read())
        path = f"{well}/tables/nuclei.csv"
        pd.testing.assert_frame_equal(ours.read_table(path), theirs.read_table(path))


def assert_no_secret(server: OmeroServer, printed: str, folder: Path) -> list[bytes]:
    """Neither the password nor a session's key is in what was printed or left in `folder`.

    Returns the contents of its files.
    """
    kept = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for secret in (SECRET.encode(), *(session.uuid.encode() for session in server.sessions)):
        assert secret not in printed.encode()
        assert not any(secret in content for content in kept)
    return kept
