"""The command line: exit status, one-line errors, JSON, and no control codes in a pipe."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows import cli
from polystore_flows.errors import MissingDependencyError


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    """A small zarr plate with two wells, labels and a table."""
    folder = tmp_path_factory.mktemp("plates")
    plate = ps.create_plate(f"zarr:{folder}/a.zarr", 24, ["DAPI", "GFP"], (1, 0.5, 0.25))
    image = np.arange(2 * 30 * 40, dtype=np.uint16).reshape(1, 2, 1, 30, 40)
    for well in ("A/1", "B/3"):
        plate.write_well(well, {0: image, 1: image}, {0: {"nuclei": image[:, :1] // 100}})
    plate.write_table("tables/counts.csv", [{"well": "A/1", "n": 1}])
    return plate


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command in this process; exit status, stdout, stderr."""
    monkeypatch.delenv("POLYSTORE_DEBUG", raising=False)

    def call(*args):
        with pytest.raises(SystemExit) as ended:
            cli.main(list(map(str, args)))
        return (ended.value.code, *capsys.readouterr())

    return call


def command(*args, **env):
    """Run the command as a process."""
    return subprocess.run(
        [sys.executable, "-m", "polystore_flows", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )


def in_terminal(*args, **env):
    """What the command prints to a terminal."""
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | env
    process = subprocess.Popen(
        [sys.executable, "-m", "polystore_flows", *map(str, args)],
        stdout=theirs,
        stderr=theirs,
        env=env,
    )
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 4096):
            text += part
    except OSError:  # the process has closed the terminal
        pass
    os.close(ours)
    assert process.wait() == 0
    return text.decode()


def assert_one_line(err):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["info", "zarr:nothing.zarr"], 1, "zarr:nothing.zarr does not exist"),
        (["info", "disk:nothing"], 1, "disk:nothing"),
        (["ls", "disk:nothing"], 1, "disk:nothing"),
        (["cp", "disk:nothing", "disk:copy"], 1, "disk:nothing"),
        (["info", "zarr:{plate}/Z/77"], 1, "Z/77"),
        (["info", "zarr:{plate}/A/1/0?c=Cy5"], 1, "Cy5"),
        (["info", "nix:///a"], 2, "there are az:, disk:, gs:, memory:, omero:, s3:, zarr:"),
        (["info", "zarr://two/slashes"], 2, "two slashes"),
        (["info", "zarr:a.zarr/../b"], 2, "'..'"),
        (["info", "memory:a"], 2, "'//'"),
        (["info", "zarr:{plate}/A/1/0?c=DAPI&c=GFP"], 2, "given twice"),
        (["info"], 2, "Missing argument"),
        (["info", "a", "b"], 2, "unexpected extra argument"),
        (["info", "a", "--nix"], 2, "--nix"),
        (["nix"], 2, "No such command"),
        ([], 2, "Missing command"),
        (["cp", "a", "b", "--workers", "0"], 2, "--workers"),
        (["cp", "a", "b", "--workers", "many"], 2, "--workers"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_status(
    run, plate, tmp_path, monkeypatch, args, status, said
):
    """1: the thing asked about is wrong; 2: the command was."""
    monkeypatch.chdir(tmp_path)
    args = [a.replace("{plate}", str(plate.root)) for a in args]
    code, out, err = run(*args)
    assert (code, out) == (status, "")
    assert_one_line(err)
    assert said in err


def test_debug_shows_the_trace_wherever_the_option_stands(plate):
    for args in (["--debug", "info", "zarr:no.zarr"], ["info", "zarr:no.zarr", "--debug"]):
        done = command(*args)
        assert done.returncode == 1
        assert "Traceback" in done.stderr
    done = command("info", "zarr:no.zarr", POLYSTORE_DEBUG="1")
    assert "Traceback" in done.stderr


def test_a_password_in_a_uri_is_not_printed(run):
    code, _, err = run("info", "omero://me:hunter2@host/plate/1")
    assert code == 2
    assert "hunter2" not in err


def test_version_and_help(run):
    assert run("--version") == (0, f"polystore-flows {ps.__version__}\n", "")
    code, out, _ = run("--help")
    assert code == 0
    for name in ("backends", "info", "ls", "cp", "demo"):
        assert name in out


def test_backends_are_listed_with_what_is_missing(run, monkeypatch):
    code, out, _ = run("backends", "--json")
    rows = {row["scheme"]: row for row in json.loads(out)}
    assert code == 0
    assert {"disk:", "memory:", "zarr:"} <= set(rows)
    assert rows["zarr:"] == {"scheme": "zarr:", "plates": True, "note": ""}

    class Missing(dict):
        def __getitem__(self, name):
            raise MissingDependencyError("run pip install 'polystore-flows[omero]'")

    monkeypatch.setattr("polystore_flows.registry.storage_registry", Missing(omero=None))
    code, out, _ = run("backends")
    assert code == 0
    assert "pip install 'polystore-flows[omero]'" in out


def test_info_tells_a_plate_without_reading_pixels(run, plate):
    code, out, _ = run("info", plate.uri, "--json")
    assert code == 0
    assert json.loads(out) == {
        "uri": plate.uri,
        "kind": "plate",
        "name": "a",
        "layout": "4 × 6",
        "wells": 2,
        "channels": ["DAPI", "GFP"],
        "pixel_size_um": [1.0, 0.5, 0.25],
        "fields": 2,
        "shape": [1, 2, 1, 30, 40],
        "dtype": "uint16",
        "levels": 1,
        "labels": ["nuclei"],
    }


@pytest.mark.parametrize(
    ("inner", "kind", "shape"),
    [
        ("B/03", "well", [1, 2, 1, 30, 40]),
        ("B/03/1", "field", [1, 2, 1, 30, 40]),
        ("B/03/1?c=GFP&z=0", "field", [1, 30, 40]),
        ("B/3/0/labels/nuclei", "label", [1, 1, 1, 30, 40]),
        ("tables/counts.csv", "file", None),
    ],
)
def test_info_tells_the_parts_of_a_plate(run, plate, inner, kind, shape):
    code, out, err = run("info", f"{plate.uri}/{inner}", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["kind"], facts.get("shape")) == (kind, shape)
    assert facts["bytes"] > 0


def test_ls_lists_wells_fields_tables_and_files(run, plate, tmp_path):
    _, out, _ = run("ls", plate.uri, "--json")
    assert json.loads(out) == [{"well": "A/1", "fields": 2}, {"well": "B/3", "fields": 2}]
    _, out, _ = run("ls", f"{plate.uri}/B/3", "--json")
    assert [(row["field"], row["labels"]) for row in json.loads(out)] == [
        ("0", ["nuclei"]),
        ("1", []),
    ]
    _, out, _ = run("ls", f"{plate.uri}/tables")
    assert out.split() == ["name", "counts.csv"]
    (tmp_path / "some folder").mkdir()
    code, out, _ = run("ls", f"disk:{tmp_path}", "--json")
    assert (code, json.loads(out)) == (0, [{"name": "some folder"}])


def test_an_empty_folder_lists_nothing(run, tmp_path):
    assert run("ls", f"disk:{tmp_path}", "--json") == (0, "[]\n", "")
    assert run("ls", f"disk:{tmp_path}")[0] == 0


def test_cp_copies_resumes_and_says_what_it_did(run, plate, tmp_path):
    target = f"disk://{tmp_path}/copy"
    assert run("cp", plate.uri, target, "--well", "B/03") == (
        0,
        f"copied 1 well to {target}\n",
        "",
    )
    code, out, _ = run("cp", plate.uri, target, "--workers", "2")
    assert (code, out) == (0, f"copied 1 well to {target}; 1 was unchanged\n")
    code, out, _ = run("cp", plate.uri, target, "--overwrite")
    assert out == f"copied 2 wells to {target}\n"
    assert ps.open_plate(target).wells == ("A/1", "B/3")
    code, _, err = run("cp", plate.uri, plate.uri)
    assert code == 1
    assert_one_line(err)


def test_an_interrupted_cp_says_how_to_resume(run, plate, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt("1 of 2 wells are complete; run the same copy again to resume")

    monkeypatch.setattr("polystore_flows.transfer.copy", interrupt)
    code, _, err = run("cp", plate.uri, f"zarr:{tmp_path}/b.zarr")
    assert code == 130
    assert err == (
        "error: interrupted; 1 of 2 wells are complete; run the same copy again to resume\n"
    )


def test_a_pipe_gets_whole_lines_and_no_control_codes(plate, tmp_path):
    for args in (
        ["info", plate.uri],
        ["ls", plate.uri],
        ["cp", plate.uri, f"zarr:{tmp_path}/b.zarr"],
    ):
        done = command(*args)
        assert done.returncode == 0
        assert "\x1b" not in done.stdout + done.stderr
    long = tmp_path / ("x" * 150)
    long.touch()
    assert long.name in command("ls", f"disk:{tmp_path}").stdout


def test_a_terminal_gets_progress_and_colour_unless_it_refuses_them(plate, tmp_path):
    assert "\x1b" in in_terminal("cp", plate.uri, f"zarr:{tmp_path}/b.zarr")
    assert "\x1b[1m" in in_terminal("ls", plate.uri)
    assert "\x1b" not in in_terminal("ls", plate.uri, NO_COLOR="1")


def test_a_reader_that_leaves_early_is_no_error_of_ours(plate):
    line = f"{sys.executable} -m polystore_flows ls {plate.uri} --json | head -c 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[", "")


def test_help_needs_no_heavy_import():
    code = (
        "import sys\n"
        "from polystore_flows import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = 'numpy zarr pandas snakemake prefect omero'.split()\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_module_and_the_script_are_the_same_command():
    script = Path(sys.executable).with_name("polystore-flows")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == command("--version").stdout
