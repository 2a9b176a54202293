"""Whoever writes, reads or is killed at the same time: no well is lost, mixed or half-made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STORMS = Path(__file__).with_name("storms.py")


def _storm(name: str, folder: Path, *arguments: object) -> Any:
    command = [sys.executable, "-W", "error", STORMS, name, folder, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_sixteen_first_writers_lose_no_well(tmp_path: Path, version: str) -> None:
    """Each process may be the one that makes the plate."""
    assert _storm("first_writers", tmp_path, version, 2) == []


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_sixteen_first_writers_lose_no_well_in_20_repeats(tmp_path: Path, version: str) -> None:
    assert _storm("first_writers", tmp_path, version, 20) == []


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_15_kills_leave_every_well_old_or_new_and_nothing_beside(
    tmp_path: Path, version: str
) -> None:
    """After each kill the plate is loaded, mended, checked and loaded again."""
    assert _storm("kills", tmp_path, version, 15, 1) == []


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["yes", "no"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_200_kills_leave_every_well_old_or_new_and_nothing_beside(
    tmp_path: Path, version: str, exchange: str
) -> None:
    """Also where the file system cannot exchange two folders, as NFS."""
    assert _storm("kills", tmp_path, version, 200, 2, exchange) == []


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_reader_of_a_well_meets_no_mixture_in_30_replacements(
    tmp_path: Path, version: str
) -> None:
    assert _storm("replaced_under_a_reader", tmp_path, version, 30) == []


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_reader_of_a_well_meets_no_mixture_in_100_replacements(
    tmp_path: Path, version: str
) -> None:
    assert _storm("replaced_under_a_reader", tmp_path, version, 100) == []


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_8_processes_that_save_planes_of_one_field_lose_none(tmp_path: Path, version: str) -> None:
    assert _storm("plane_by_plane", tmp_path, version) == []
