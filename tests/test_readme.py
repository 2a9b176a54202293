"""The README's code runs as it stands, and its tables agree with the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

import polystore_flows as ps
from polystore_flows.registry import storage_registry

README = (Path(__file__).parents[1] / "README.md").read_text()


def _block(after: str, language: str = "python") -> str:
    """The first code block of `language` below the text `after`."""
    below = README[README.index(after) :]
    match = re.search(rf"```{language}\n(.*?)```", below, re.DOTALL)
    assert match is not None, f"no {language} block after {after!r}"
    return match[1]


def test_the_python_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(_block("## In Python"), "README.md", "exec"), {})
    plate = ps.open_plate("zarr:demo.zarr")
    assert plate.wells == ("B/3",)
    assert plate["B/3"].image(0).labels == ("nuclei",)


@pytest.mark.slow
def test_the_snakefile_runs_on_tiffs_and_on_ome_zarr(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    for well in ("B02", "B03", "C02"):
        plane = rng.integers(0, 4000, (32, 48), "uint16")
        tifffile.imwrite(tmp_path / "raw" / f"{well}_s1_w1.tif", plane)
    (tmp_path / "Snakefile").write_text(_block("## In a Snakefile"))
    (tmp_path / "blur.py").write_text(_block("`blur.py` is ordinary Python"))
    _snakemake(tmp_path)
    plate = ps.open_plate(tmp_path / "plate.zarr")
    raw = ps.open_plate(f"disk:{tmp_path}/raw")
    assert plate.wells == raw.wells == ("B/2", "B/3", "C/2")
    before = {well: plate[well].image(0).read() for well in plate.wells}
    expected = gaussian_filter(raw["B/2"].image(0).read(), (0, 0, 0, 2, 2))
    np.testing.assert_array_equal(before["B/2"], expected)
    assert "Nothing to be done" in _snakemake(tmp_path)

    ps.copy(f"disk:{tmp_path}/raw", f"zarr:{tmp_path}/other.zarr")
    ps.delete(f"zarr:{tmp_path}/plate.zarr")
    snakefile = _block("## In a Snakefile").replace("disk:raw", "zarr:other.zarr")
    (tmp_path / "Snakefile").write_text(snakefile)
    _snakemake(tmp_path)
    again = ps.open_plate(tmp_path / "plate.zarr")
    for well, array in before.items():
        np.testing.assert_array_equal(again[well].image(0).read(), array)


@pytest.mark.slow
def test_the_prefect_flow_runs_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    """As a script, since its processes read it again; Prefect starts a server for it."""
    rng = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    for well in ("B02", "B03", "C02"):
        plane = rng.integers(0, 4000, (32, 48), "uint16")
        tifffile.imwrite(tmp_path / "raw" / f"{well}_s1_w1.tif", plane)
    (tmp_path / "flow.py").write_text(_block("## In a Prefect flow"))
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "flow.py"],
            cwd=tmp_path,
            env={**os.environ, "PREFECT_HOME": str(tmp_path / "home"), "PREFECT_API_URL": ""},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert "process disk:" not in done.stderr
    raw, plate = ps.open_plate(f"disk:{tmp_path}/raw"), ps.open_plate(tmp_path / "plate.zarr")
    assert plate.wells == raw.wells
    expected = gaussian_filter(raw["B/2"].image(0).read(), (0, 0, 0, 3, 3))
    np.testing.assert_array_equal(plate["B/2"].image(0).read(), expected)


def _snakemake(folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_table_of_backends_lists_all_that_there_are() -> None:
    table = README[README.index("## Backends") : README.index("Below a plate")]
    listed = set(re.findall(r"^\| `(\w+):", table, re.MULTILINE))
    assert listed == {name for name in storage_registry.names() if not name.startswith("test")}


def test_the_table_of_extras_lists_all_that_there_are() -> None:
    table = README[README.index("| extra | brings |") :]
    listed = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    from importlib.metadata import metadata

    assert listed == set(metadata("polystore-flows").get_all("Provides-Extra"))
