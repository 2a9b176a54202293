"""Plates that we write are opened by everybody else's readers, and come back as written.

Readers that our own dependencies bring run in this environment. The others run in one of their
own, made with uv on Python 3.12 or newer, since iohub reads zarr v3 only there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polystore_flows as ps

pytestmark = [pytest.mark.conformance, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("read_plate.py")
HERE = ["ome_zarr_models", "ome_zarr", "ngio"]
APART = ["ome_zarr_models", "ome_zarr", "ngio", "iohub", "yaozarrs", "ngff_zarr"]
REQUIREMENTS = [
    "iohub>=0.3.11", "ngff-zarr[validate]", "ngio>=1.1", "ome-zarr>=0.18",
    "ome-zarr-models>=1.6", "yaozarrs", "zarr>=3.1.6",
]  # fmt: skip


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has all readers."""
    uv = os.environ.get("UV") or shutil.which("uv")
    base = _newer_python(uv)
    if uv is None or base is None:
        pytest.skip("NOT RUN: iohub, yaozarrs and ngff-zarr need uv and Python 3.12 or newer")
    folder = tmp_path_factory.mktemp("readers") / "env"
    subprocess.run([uv, "venv", "-q", "--python", base, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *REQUIREMENTS], check=True)
    return python


def _newer_python(uv: str | None) -> str | None:
    """A CPython 3.12 or newer: this one, pyenv's, or what uv finds."""
    if sys.version_info >= (3, 12):
        return sys.executable
    for name in ("3.13", "3.12"):
        asked = [["pyenv", "prefix", name], [str(uv), "python", "find", "--no-project", name]]
        for command in asked if uv else asked[:1]:
            if shutil.which(command[0]) is None:
                continue
            found = subprocess.run(command, capture_output=True, text=True)
            path = Path(found.stdout.strip() or "/nowhere")
            path = path / "bin" / "python" if path.is_dir() else path
            if found.returncode == 0 and path.exists():
                return str(path)
    return _pyenv_of_series()


def _pyenv_of_series() -> str | None:
    """pyenv's newest 3.12 or 3.13; older pyenvs know only whole version numbers."""
    if shutil.which("pyenv") is None:
        return None
    listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True)
    names = [n.strip() for n in listed.stdout.split() if n.startswith(("3.12.", "3.13."))]
    for name in sorted(names, reverse=True):
        found = subprocess.run(["pyenv", "prefix", name], capture_output=True, text=True)
        if found.returncode == 0:
            return str(Path(found.stdout.strip()) / "bin" / "python")
    return None


def _read(python: str, plate: Path, names: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [python, str(SCRIPT), str(plate), *names], capture_output=True, text=True, check=True
    )
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate with two wells of two fields, two channels, labels and tables."""
    path = tmp_path_factory.mktemp("written") / f"p{request.param}.zarr"
    plate = ps.create_plate(
        path, 96, ["DAPI", "GFP"], (2.0, 0.65, 0.65), ngff_version=request.param
    )
    rng = np.random.default_rng(0)
    for well in ("A/12", "H/3"):
        fields = {f: rng.integers(0, 4000, (1, 2, 3, 301, 533), "uint16") for f in range(2)}
        masks = {f: {"nuclei": (a[:, :1] > 2000).astype("uint32")} for f, a in fields.items()}
        plate.write_well(well, fields, masks)
        plate.write_table(f"{well}/tables/cells.csv", [{"area": 3}])
    plate.write_table("tables/counts.csv", [{"well": "A/12", "n": 3}])
    return path


def _check(plate: Path, seen: dict[str, Any]) -> None:
    errors = {name: found["error"] for name, found in seen.items() if "error" in found}
    assert errors == {}
    first = ps.open_plate(plate)["A/12"].image(0)
    total = int(first.read().sum())
    fields = ["A/12/0", "A/12/1", "H/3/0", "H/3/1"]
    expected = {
        "ome_zarr_models": {"kind": "HCS", "wells": 2, "well": "Well"},
        "ome_zarr": {"specs": ["Plate"]},
        "ngio": {
            "rows": list("ABCDEFGH"),
            "columns": [str(i) for i in range(1, 13)],
            "wells": ["A/12", "H/3"],
            "fields": fields,
            "channels": ["DAPI", "GFP"],
            "pixel_size": [2.0, 0.65, 0.65],
            "labels": ["nuclei"],
            "label_sum": int(first.label("nuclei").read().sum()),
            "sum": total,
        },
        "iohub": {
            "fields": fields,
            "channels": ["DAPI", "GFP"],
            "pixel_size": [2.0, 0.65, 0.65],
            "sum": total,
        },
        "yaozarrs": {"valid": True},
        "ngff_zarr": {"kind": "HCSPlate"},
    }
    assert seen == {name: expected[name] for name in seen}


def test_readers_of_this_environment_see_the_plate_as_written(written: Path) -> None:
    _check(written, _read(sys.executable, written, HERE))


def test_all_readers_see_the_plate_as_written(written: Path, apart: str) -> None:
    _check(written, _read(apart, written, APART))


def test_all_readers_open_the_plate_of_the_demonstration(
    apart: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "polystore_flows", "demo", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    seen = _read(apart, folder / "plate.zarr", APART)
    assert {name: found["error"] for name, found in seen.items() if "error" in found} == {}
    assert seen["ome_zarr_models"] == {"kind": "HCS", "wells": 12, "well": "Well"}
    assert len(seen["iohub"]["fields"]) == len(seen["ngio"]["fields"]) == 24
    assert seen["ngio"]["pixel_size"] == seen["iohub"]["pixel_size"] == [1.0, 0.325, 0.325]


def test_a_reader_that_meets_a_broken_plate_is_noticed(written: Path, tmp_path: Path) -> None:
    """The check itself can fail."""
    broken = tmp_path / "broken.zarr"
    shutil.copytree(written, broken)
    shutil.rmtree(broken / "A" / "12" / "0" / "0")
    seen = _read(sys.executable, broken, HERE)
    with pytest.raises(AssertionError):
        _check(broken, seen)
