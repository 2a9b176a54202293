"""Bad input, as a user meets it on the command line: one line, a status, nothing half-written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import polystore_flows as ps
from polystore_flows.cli import main


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command line; its status, and what it printed as error."""

    def call(*args: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as done:
            main([str(arg) for arg in args])
        return int(done.value.code or 0), capfd.readouterr().err

    return call


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """ImageXpress TIFFs of three wells."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for well in ("B02", "B03", "C02"):
        for site in (1, 2):
            plane = np.full((24, 32), site, "uint16")
            tifffile.imwrite(folder / f"{well}_s{site}_w1.tif", plane)
    return folder


def _one_line(error: str, *parts: str) -> None:
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    for part in parts:
        assert part in error, error


def _nothing_but(folder: Path, *names: str) -> None:
    """Only these, and locks, which are kept; no staging folder, no temporary file."""
    left = {p.name for p in folder.iterdir() if not p.name.endswith(".lock")}
    assert left == set(names)


@pytest.mark.parametrize("command", ["info", "ls"])
def test_a_wrong_scheme_lists_the_known_ones(run: Run, command: str) -> None:
    status, error = run(command, "zar:///data/p.zarr")
    assert status == 2
    _one_line(error, "zar:///data/p.zarr", "az:, disk:, gs:, memory:, omero:, s3:, zarr:")


def test_a_wrong_scheme_of_a_target_changes_nothing(run: Run, raw: Path, tmp_path: Path) -> None:
    status, error = run("cp", f"disk:{raw}", "zar:plate")
    assert status == 2
    _one_line(error, "zar:plate")
    _nothing_but(tmp_path, "raw")


@pytest.mark.parametrize("uri", ["zarr:{}/nowhere.zarr", "disk:{}/nowhere"])
def test_a_missing_plate_is_named(run: Run, tmp_path: Path, uri: str) -> None:
    uri = uri.format(tmp_path)
    for words in (("info", uri), ("ls", uri), ("cp", uri, f"zarr:{tmp_path}/out.zarr")):
        status, error = run(*words)
        assert status == 1
        _one_line(error, "nowhere")
    _nothing_but(tmp_path)


@pytest.mark.parametrize("target", ["zarr:{}/p.zarr", "disk:{}/p"])
def test_a_well_that_the_layout_does_not_have_is_refused(
    run: Run, raw: Path, tmp_path: Path, target: str
) -> None:
    target = target.format(tmp_path)
    ps.create_plate(target, layout=6)
    status, error = run("cp", f"disk:{raw}/C/2", f"{target}/H/12")
    assert status == 1
    _one_line(error, "H/12", "rows A to B, columns 1 to 3")
    assert ps.open_plate(target).wells == ()
    status, error = run("cp", f"disk:{raw}", target)
    assert status == 1
    _one_line(error, target.partition(":")[2])
    assert ps.open_plate(target).wells == ()


@pytest.mark.parametrize("target", ["zarr:{}/p.zarr", "disk:{}/p"])
@pytest.mark.parametrize("change", ["shape", "dtype"])
def test_a_field_unlike_its_plate_is_refused(
    run: Run, raw: Path, tmp_path: Path, target: str, change: str
) -> None:
    target = target.format(tmp_path)
    plate = ps.create_plate(target, like=ps.open_plate(f"disk:{raw}"))
    other: Any = np.ones((24, 31), "uint16") if change == "shape" else np.ones((24, 32), "uint8")
    plate.write_image("A/1", 0, other)
    status, error = run("cp", f"disk:{raw}/B/2", f"{target}/B/2")
    assert status == 1
    _one_line(error, "/B/2", "uint16", "(1, 1, 1, 24, 32)")
    assert ps.open_plate(target).wells == ("A/1",)


def test_a_truncated_tiff_fails_its_well_alone(run: Run, raw: Path, tmp_path: Path) -> None:
    victim = raw / "B03_s2_w1.tif"
    victim.write_bytes(victim.read_bytes()[:-100])
    status, error = run("cp", f"disk:{raw}", f"zarr:{tmp_path}/out.zarr")
    assert status == 1
    _one_line(error, "B/3", "B03_s2_w1.tif", "cut off")
    assert ps.open_plate(tmp_path / "out.zarr").wells == ("B/2", "C/2")
    _nothing_but(tmp_path, "raw", "out.zarr")
    assert not (tmp_path / "out.zarr/B/3").exists()


def test_two_files_for_one_plane_are_both_named(run: Run, raw: Path, tmp_path: Path) -> None:
    (raw / "again").mkdir()
    (raw / "again" / "B02_s1_w1.tif").write_bytes((raw / "B02_s1_w1.tif").read_bytes())
    for words in (("info", f"disk:{raw}"), ("cp", f"disk:{raw}", f"zarr:{tmp_path}/out.zarr")):
        status, error = run(*words)
        assert status == 1
        _one_line(error, str(raw), "B02_s1_w1.tif and again/B02_s1_w1.tif")
    _nothing_but(tmp_path, "raw")


def test_an_unknown_folder_lists_the_patterns_and_three_names(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for number in range(5):
        tifffile.imwrite(folder / f"picture-{number}.tif", np.ones((4, 4), "uint8"))
    with pytest.raises(ps.PolystoreError) as caught:
        ps.open_plate(f"disk:{folder}")
    error = str(caught.value)
    for part in ("imagexpress", "phenix", "cellvoyager", "openhcs", "picture-2.tif"):
        assert part in error
    assert "picture-3.tif" not in error
    assert "\n" not in error


@pytest.mark.parametrize("target", ["zarr:{}/p.zarr", "disk:{}/p"])
def test_a_corrupt_plate_json_is_named_and_left(
    run: Run, raw: Path, tmp_path: Path, target: str
) -> None:
    target = target.format(tmp_path)
    assert run("cp", f"disk:{raw}", target)[0] == 0
    document = next(
        p
        for p in (tmp_path / "p.zarr/zarr.json", tmp_path / "p/openhcs_metadata.json")
        if p.exists()
    )
    document.write_text(document.read_text()[:-20])
    before = document.read_bytes()
    for words in (("info", target), ("ls", target), ("cp", f"disk:{raw}", target)):
        status, error = run(*words)
        assert status == 1
        _one_line(error, document.name)
    assert document.read_bytes() == before


@pytest.fixture
def closed() -> Iterator[Path]:
    """A readable plate in ``raw``, and ``shut``, where this process cannot write, even as root."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        (folder / "raw").mkdir()
        (folder / "shut").mkdir()
        tifffile.imwrite(folder / "raw" / "A01_s1_w1.tif", np.ones((8, 8), "uint16"))
        for target in (f"zarr:{folder}/warm.zarr", f"disk:{folder}/warm"):
            ps.copy(f"disk:{folder}/raw", target)  # imports all that is needed while it can
        (folder / "shut").chmod(0o555)
        folder.chmod(0o755)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(was)
        (folder / "shut").chmod(0o755)


@pytest.mark.parametrize("target", ["zarr:{}/shut/out.zarr", "disk:{}/shut/out"])
def test_a_read_only_target_is_named(run: Run, closed: Path, target: str) -> None:
    target = target.format(closed)
    status, error = run("cp", f"disk:{closed}/raw", target)
    assert status == 1
    _one_line(error, target.partition(":")[2], "cannot be written")
    assert list((closed / "shut").iterdir()) == []
