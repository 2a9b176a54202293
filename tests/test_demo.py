"""The demonstration and its Snakefile, run for real on real images."""

import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows import demo
from polystore_flows.errors import (
    AlreadyExistsError,
    MissingDependencyError,
    NotFoundError,
    PolystoreError,
)

WELLS = tuple(f"{row}/{column}" for row in "BCD" for column in (2, 3, 4, 5))


def run_demo(folder):
    done = subprocess.run(
        [sys.executable, "-m", "polystore_flows", "demo", str(folder), "--cores", "2"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def run_snakemake(folder, *config):
    """What Snakemake says, and how often each rule ran."""
    snakefile = demo.find_example() / "Snakefile"
    arguments = ["--snakefile", snakefile, "--directory", folder, "--cores", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments, *(["--config", *config] if config else [])],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, Counter(re.findall(r"^(?:local)?rule (\w+):", done.stderr, re.MULTILINE))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a demonstration that has run, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("some where") / "demo"
    printed = run_demo(folder)
    for name in ("plate.zarr", "plate.zarr/tables/nuclei.csv", "nuclei.png"):
        assert f"{folder / name}" in printed
    return folder


@pytest.mark.slow
def test_the_demo_finds_the_nuclei_of_every_well(finished):
    """Columns 2 to 5 have lost 0, 25, 50 and 75 % of some 84 nuclei; see the example's README."""
    plate = ps.open_plate(f"zarr:{finished}/plate.zarr")
    assert plate.wells == WELLS
    assert plate.pixel_size == pytest.approx((1, 0.325, 0.325))
    table = plate.read_table("tables/nuclei.csv").set_index("well")
    assert tuple(table.index) == WELLS
    share = table.groupby("column")["nuclei"].mean() / 84
    assert list(share) == pytest.approx([1, 0.75, 0.5, 0.25], abs=0.08)
    assert table["area_um2"].between(80, 140).all()
    assert table["mean_0"].std() / table["mean_0"].mean() < 0.05
    assert (finished / "nuclei.png").read_bytes().startswith(b"\x89PNG")
    assert "positive control" in (finished / "report.html").read_text()


@pytest.mark.slow
def test_labels_tables_and_images_of_a_well_agree(finished):
    uri = f"zarr:{finished}/plate.zarr"
    well = ps.open_plate(uri)["C/3"]
    assert well.fields == ("0", "1")
    rows = ps.load(f"{uri}/C/3/tables/nuclei.csv")
    for field in well.fields:
        labels = well.image(field).label("nuclei").read()
        here = rows[rows["field"] == field]
        assert list(here["label"]) == list(np.unique(labels[labels > 0]))
        assert list(here["area_um2"]) == pytest.approx(np.bincount(labels.ravel())[1:] * 0.325**2)
    raw = ps.open_plate(f"disk:{finished}/raw")["C/3"].image(0).read()
    corrected = well.image(0).read()
    assert corrected.dtype == raw.dtype == np.uint16
    assert not np.array_equal(corrected, raw)


@pytest.mark.slow
def test_a_second_run_finds_nothing_to_be_done(finished):
    before = {well: ps.stat(f"zarr:{finished}/plate.zarr/{well}").mtime for well in WELLS}
    run_demo(finished)
    log = max((finished / ".snakemake/log").glob("*.log")).read_text()
    assert "Nothing to be done" in log
    after = {well: ps.stat(f"zarr:{finished}/plate.zarr/{well}").mtime for well in WELLS}
    assert before == after


@pytest.mark.slow
def test_one_touched_raw_well_reruns_that_well_and_what_depends_on_it(finished):
    time.sleep(0.1)
    (finished / "raw" / "C03_s2_w1.tif").touch()
    said, jobs = run_snakemake(finished)
    assert jobs == {"well": 1, "plate_table": 1, "heat_map": 1, "plate_report": 1, "all": 1}
    assert "wildcards: well=C/3" in said
    assert "Nothing to be done" in run_snakemake(finished)[0]


@pytest.mark.slow
def test_snakemakes_own_report_holds_the_page(finished, tmp_path):
    """``report()`` of the Snakefile embeds it, byte for byte."""
    snakefile = demo.find_example() / "Snakefile"
    words = ["--snakefile", snakefile, "--directory", finished, "--report", tmp_path / "all.html"]
    subprocess.run([sys.executable, "-m", "snakemake", *words], check=True, capture_output=True)
    page = base64.b64encode((finished / "report.html").read_bytes()).decode()
    assert page in (tmp_path / "all.html").read_text()


@pytest.mark.slow
def test_the_same_snakefile_on_an_ome_zarr_plate_gives_the_same_bits(finished):
    """One line of the configuration changes, and no label and no number of a table."""
    ps.copy(f"disk:{finished}/raw", f"zarr:{finished}/raw.zarr")
    _, jobs = run_snakemake(
        finished,
        "source=zarr:raw.zarr",
        "target=zarr:plate2.zarr",
        "picture=nuclei2.png",
        "report=report2.html",
    )
    assert jobs["well"] == len(WELLS)
    one, two = (ps.open_plate(f"zarr:{finished}/{name}.zarr") for name in ("plate", "plate2"))
    assert one.wells == two.wells == WELLS
    for well in WELLS:
        assert one[well].fields == two[well].fields
        for field in one[well].fields:
            a, b = one[well].image(field), two[well].image(field)
            np.testing.assert_array_equal(a.read(), b.read())
            np.testing.assert_array_equal(a.label("nuclei").read(), b.label("nuclei").read())
    tables = [
        "tables/nuclei.csv",
        "tables/conditions.csv",
        *(f"{well}/tables/nuclei.csv" for well in WELLS),
    ]
    for name in tables:
        here, there = finished / "plate.zarr" / name, finished / "plate2.zarr" / name
        assert here.read_bytes() == there.read_bytes(), name


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(AlreadyExistsError, match="holds something else"):
        demo.run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    (tmp_path / "file").touch()
    with pytest.raises(AlreadyExistsError, match="is a file"):
        demo.run_demo(tmp_path / "file")


def test_missing_packages_are_named_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "ngio" else find_spec(name))
    with pytest.raises(MissingDependencyError, match=r"ngio, .*'polystore-flows\[demo\]'"):
        demo.run_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_the_example_is_found_in_a_checkout_and_where_a_wheel_puts_it(tmp_path, monkeypatch):
    assert (demo.find_example() / "Snakefile").is_file()
    package = tmp_path / "lib" / "site-packages" / "polystore_flows" / "demo.py"
    monkeypatch.setattr(demo, "__file__", str(package))
    monkeypatch.setattr(demo.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(NotFoundError):
        demo.find_example()
    folder = tmp_path / "share" / "polystore-flows" / "examples" / "snakemake-plate"
    folder.mkdir(parents=True)
    (folder / "Snakefile").touch()
    assert demo.find_example() == folder


def test_a_workflow_that_fails_is_told_in_one_line_with_its_log(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(
        "import sys\n"
        "print('1 of 4 steps (25%) done', file=sys.stderr)\n"
        "print('Complete log(s): /logs/a.log', file=sys.stderr)\n"
        "sys.exit(3)\n"
    )
    seen = []
    with pytest.raises(PolystoreError, match=r"^the workflow failed: see its log /logs/a\.log$"):
        demo._run("the workflow", [str(script)], lambda *said: seen.append(said))
    assert seen == [(1, 4, "workflow")]
    script.write_text("raise SystemExit('error: no disk')")
    with pytest.raises(PolystoreError, match=r"^the raw plate failed: error: no disk$"):
        demo._run("the raw plate", [str(script)], lambda *said: None)


@pytest.mark.slow
def test_the_raw_plate_is_the_same_every_time_and_completes_itself(tmp_path):
    script = demo.find_example() / "make_raw_plate.py"
    for folder in ("a", "b"):
        subprocess.run([sys.executable, script, tmp_path / folder], check=True)
    names = sorted(path.name for path in (tmp_path / "a").glob("*.tif"))
    assert len(names) == 24
    assert names[0] == "B02_s1_w1.tif"
    map_ = ps.load(f"disk:{tmp_path}/a/tables/conditions.csv")
    assert list(map_["lost_percent"][:4]) == [0, 25, 50, 75]
    assert set(map_["control"].dropna()) == {"negative", "positive"}
    (tmp_path / "b" / names[3]).unlink()
    subprocess.run([sys.executable, script, tmp_path / "b"], check=True)
    for name in names:
        assert Path(tmp_path, "a", name).read_bytes() == Path(tmp_path, "b", name).read_bytes()


@pytest.mark.slow
def test_an_interrupted_demonstration_leaves_no_process_and_goes_on(tmp_path):
    """Ctrl-C reaches the whole group of processes; Snakemake lets running jobs finish."""
    command = [sys.executable, "-m", "polystore_flows", "demo", str(tmp_path / "demo")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (tmp_path / "demo" / "plate.zarr").exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err == "error: interrupted; run the same command again to go on\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    run_demo(tmp_path / "demo")
    assert ps.open_plate(f"zarr:{tmp_path}/demo/plate.zarr").wells == WELLS
