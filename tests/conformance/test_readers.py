"""Plates that we write are opened by everybody else's readers, and come back as written.

Readers that our own dependencies bring run in this environment. The others run in one of their
own, made with uv on Python 3.12 or newer, since iohub reads zarr v3 only there. Pixels are
compared by a digest of every array of every well.
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
from read_plate import digest

import polystore_flows as ps
from polystore_flows.hcs.zarr_config import ZarrChunkStrategy, ZarrCompressor, ZarrConfig

pytestmark = [pytest.mark.conformance, pytest.mark.slow]

SCRIPT = Path(__file__).with_name("read_plate.py")
HERE = ["zarr_python", "ome_zarr_models", "ome_zarr", "ngio"]
APART = [*HERE, "tensorstore", "iohub", "yaozarrs", "ngff_zarr", "napari"]
REQUIREMENTS = [
    "iohub>=0.3.11", "napari-ome-zarr>=0.9", "ngff-zarr[validate]", "ngio>=1.1", "ome-zarr>=0.18",
    "ome-zarr-models>=1.6", "tensorstore", "yaozarrs", "zarr>=3.1.6",
]  # fmt: skip
KINDS = {
    "0.4": ZarrConfig(ngff_version="0.4"),
    "0.5 unsharded": ZarrConfig(sharding=False),
    "0.5 sharded": ZarrConfig(),
}
CONFIGS = {
    f"{version}-{sharding}-{strategy.value}-{compressor.value}": ZarrConfig(
        compressor, None, strategy, sharding, version
    )
    for compressor in ZarrCompressor
    for strategy in ZarrChunkStrategy
    for version, sharding in (("0.4", False), ("0.5", False), ("0.5", True))
}


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


def _read(python: str, plates: list[Path], names: list[str]) -> list[dict[str, Any]]:
    command = [python, str(SCRIPT), ",".join(names), *map(str, plates)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return [seen[str(plate)] for plate in plates]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind -> a plate of two wells with all that a plate can have."""
    folder = tmp_path_factory.mktemp("written")
    paths = {kind: folder / f"{kind.replace(' ', '-')}.zarr" for kind in KINDS}
    for kind, path in paths.items():
        _write(path, KINDS[kind])
    return paths


def _write(path: Path, config: ZarrConfig) -> None:
    """Two fields in two acquisitions, two channels, labels, all kinds of tables."""
    times, size = ["before", "after"], (2.0, 0.65, 0.65)
    plate = ps.create_plate(path, 96, ["DAPI", "GFP"], size, acquisitions=times, config=config)
    rng = np.random.default_rng(0)
    made = ps.provenance("simulate", "1", parameters={"seed": 0})
    for well in ("A/12", "H/3"):
        fields = {f: rng.integers(0, 4000, (1, 2, 3, 301, 533), "uint16") for f in range(2)}
        masks = {f: {"nuclei": (a[:, :1] > 2000).astype("uint32")} for f, a in fields.items()}
        plate.write_well(well, fields, masks, acquisition={0: 0, 1: "after"}, provenance=made)
        plate.write_table(f"{well}/tables/cells.csv", [{"area": 3}])
        plate.write_table(f"{well}/0/tables/nuclei.csv", [{"label": 1, "area": 3}])
    plate.write_table("tables/counts.csv", [{"well": "A/12", "n": 3}])
    plate.write_conditions([{"row": "A", "column": 12, "drug": "x"}])


def _digests(path: Path) -> dict[str, str]:
    """Array -> digest, as we read it."""
    found = {}
    plate = ps.open_plate(path)
    for well in plate.wells:
        for field in plate[well].fields:
            image = plate[well].image(field)
            parts = {"": image} | {f"labels/{name}/": image.label(name) for name in image.labels}
            for inner, part in parts.items():
                for level in range(part.levels):
                    found[f"{well}/{field}/{inner}{level}"] = digest(part.read(level=level))
    return found


def _check(path: Path, seen: dict[str, Any]) -> None:
    errors = {name: found["error"] for name, found in seen.items() if "error" in found}
    assert errors == {}
    first = ps.open_plate(path)["A/12"].image(0)
    pixels, mask = first.read(), first.label("nuclei").read()
    fields = ["A/12/0", "A/12/1", "H/3/0", "H/3/1"]
    digests = _digests(path)
    plate = [1, 3, 8 * 301, 12 * 533]
    windows = [[channel["start"], channel["end"]] for channel in _windows(path)]
    expected = {
        "zarr_python": digests,
        "tensorstore": digests,
        "ome_zarr_models": {
            "kind": "HCS",
            "wells": 2,
            "well": "Well",
            "acquisitions": [[0, "before"], [1, "after"]],
        },
        "ome_zarr": {"specs": ["Plate"]},
        "ngio": {
            "rows": list("ABCDEFGH"),
            "columns": [str(i) for i in range(1, 13)],
            "wells": ["A/12", "H/3"],
            "fields": fields,
            "acquisitions": [[0, 1], ["before", "after"]],
            "of the second": ["A/12/1", "H/3/1"],
            "tables": ["conditions", "counts"],
            "counts": [{"well": "A/12", "n": 3}],
            "conditions": ["x"],
            "image tables": ["nuclei"],
            "nuclei": [{"label": 1, "area": 3}],
            "channels": ["DAPI", "GFP"],
            "pixel_size": [2.0, 0.65, 0.65],
            "labels": ["nuclei"],
            "label_sum": int(mask.sum()),
            "sum": int(pixels.sum()),
        },
        "iohub": {
            "fields": fields,
            "channels": ["DAPI", "GFP"],
            "pixel_size": [2.0, 0.65, 0.65],
            "pixels": {field: digests[f"{field}/0"] for field in fields},
        },
        "yaozarrs": {"valid": True},
        "ngff_zarr": {"kind": "HCSPlate"},
        "napari": {
            "plate": [
                ["image", "A/12/0: DAPI", plate],
                ["image", "A/12/0: GFP", plate],
                ["labels", "nuclei", plate],
            ],
            "scale": [1.0, 2.0, 0.65, 0.65],
            "colours": ["blue", "green"],
            "limits": windows,
            "sums": [*(int(pixels[:, c].sum()) for c in range(2)), int(mask.sum())],
        },
    }
    assert seen == {name: expected[name] for name in seen}


def _windows(path: Path) -> list[dict[str, float]]:
    group = path / "A" / "12" / "0"
    document = group / "zarr.json" if (group / "zarr.json").exists() else group / ".zattrs"
    content = json.loads(document.read_text())
    body = content["attributes"]["ome"] if "attributes" in content else content
    return [channel["window"] for channel in body["omero"]["channels"]]


def test_readers_of_this_environment_see_the_plates_as_written(written: dict[str, Path]) -> None:
    plates = list(written.values())
    for path, seen in zip(plates, _read(sys.executable, plates, HERE), strict=True):
        _check(path, seen)


@pytest.fixture(scope="module")
def seen_apart(written: dict[str, Path], apart: str) -> dict[str, dict[str, Any]]:
    """Kind -> reader -> what it saw."""
    return dict(zip(written, _read(apart, list(written.values()), APART), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_all_readers_see_the_plate_as_written(
    written: dict[str, Path], seen_apart: dict[str, dict[str, Any]], kind: str
) -> None:
    assert set(seen_apart[kind]) == set(APART)
    _check(written[kind], seen_apart[kind])


def test_pixels_of_every_configuration_are_read_by_zarr_python_tensorstore_and_iohub(
    apart: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, (2, 2, 2, 33, 41), "uint16")
    image[0, 1] = 0  # planes of zeros are not stored
    plates = [tmp_path / f"{name}.zarr" for name in CONFIGS]
    for path, config in zip(plates, CONFIGS.values(), strict=True):
        plate = ps.create_plate(path, 96, ["a", "b"], config=config, levels=2)
        plate.write_well("B/3", {0: image}, {0: {"m": image[:, :1].astype("int32")}})
    for path, seen in zip(
        plates, _read(apart, plates, ["zarr_python", "tensorstore", "iohub"]), strict=True
    ):
        expected = _digests(path)
        assert expected["B/3/0/0"] == digest(image)
        assert seen["zarr_python"] == expected, path.name
        assert seen["tensorstore"] == expected, path.name
        assert seen["iohub"]["pixels"] == {"B/3/0": expected["B/3/0/0"]}, path.name


def test_all_readers_open_the_plate_of_the_demonstration(
    apart: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "polystore_flows", "demo", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    names = ["ome_zarr_models", "ome_zarr", "iohub", "yaozarrs", "ngff_zarr", "tensorstore"]
    (seen,) = _read(apart, [folder / "plate.zarr"], names)
    assert {name: found["error"] for name, found in seen.items() if "error" in found} == {}
    found = seen["ome_zarr_models"]
    assert (found["kind"], found["wells"], found["well"]) == ("HCS", 12, "Well")
    assert len(seen["iohub"]["fields"]) == 24
    assert seen["iohub"]["pixel_size"] == [1.0, 0.325, 0.325]
    assert seen["tensorstore"] == _digests(folder / "plate.zarr")


def test_a_reader_that_meets_a_broken_plate_is_noticed(
    written: dict[str, Path], tmp_path: Path
) -> None:
    """The check itself can fail."""
    broken = tmp_path / "broken.zarr"
    shutil.copytree(written["0.5 sharded"], broken)
    shutil.rmtree(broken / "A" / "12" / "0" / "0")
    seen = _read(sys.executable, [broken], HERE)
    with pytest.raises(AssertionError):
        _check(broken, *seen)
