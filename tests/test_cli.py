"""The command line: exit status, one-line errors, JSON, and no control codes in a pipe."""

import json
import os
import pty
import re
import signal
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
    """What Python prints to a terminal, given these arguments."""
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | env
    process = subprocess.Popen(
        [sys.executable, *map(str, args)],
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
    for name in ("backends", "info", "ls", "cp", "check", "report", "serve", "demo"):
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
    assert "\x1b" in in_terminal(
        "-m", "polystore_flows", "cp", plate.uri, f"zarr:{tmp_path}/b.zarr"
    )
    assert "\x1b[1m" in in_terminal("-m", "polystore_flows", "ls", plate.uri)
    assert "\x1b" not in in_terminal("-m", "polystore_flows", "ls", plate.uri, NO_COLOR="1")


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


def test_report_writes_a_page_and_says_what_is_wrong_with_the_plate(run, plate, tmp_path):
    page = tmp_path / "r.html"
    code, out, _ = run("report", plate.uri, "-o", page, "--json")
    assert (code, json.loads(out)) == (
        0,
        {"report": f"disk://{page}", "bytes": page.stat().st_size, "wells": 2, "problems": []},
    )
    code, _, err = run("report", plate.uri, "-o", page)
    assert code == 1
    assert_one_line(err)
    assert run("report", plate.uri, "-o", page, "--overwrite", "--measure", "n*")[0] == 0
    assert run("report", plate.uri)[0] == 2


def test_an_interrupted_report_says_that_nothing_was_written(run, plate, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("polystore_flows.report.write.read_wells", interrupt)
    code, _, err = run("report", plate.uri, "-o", tmp_path / "r.html")
    assert (code, err) == (
        130,
        "error: interrupted; nothing was written; run the same command again\n",
    )
    assert not (tmp_path / "r.html").exists()


def test_serve_says_where_the_plate_is_until_ctrl_c(plate):
    process = subprocess.Popen(
        [sys.executable, "-m", "polystore_flows", "serve", plate.uri, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr.readline() == "Ctrl-C ends it\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "ended\n")
    told = json.loads(out)
    assert told["plate"].startswith("http://127.0.0.1:")
    assert told["vizarr"].endswith(told["plate"])


def test_a_terminal_sees_rate_and_time_left():
    """Rich draws nothing for a bar that is over at once, so it is told of a well by hand."""
    code = (
        "import time\n"
        "from polystore_flows.cli.output import progress\n"
        "with progress('wells', '') as show:\n"
        "    for done in range(1, 4): show(done, 4, f'A/{done}'); time.sleep(0.3)\n"
    )
    said = in_terminal("-c", code)
    assert "3/4" in said
    assert re.search(r"\d/s", said)
    assert re.search(r"0:00:0\d", said)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["inf"], {"info"}),
        (["info", "za"], {"zarr:"}),
        (["ls", "zarr:{folder}/a"], {"zarr:{folder}/a.zarr"}),
        (["ls", "zarr://{folder}/a"], {"zarr://{folder}/a.zarr"}),
        (["check", "{folder}/"], {"{folder}/a.zarr"}),
        (["info", "s3://bucket/"], set()),
    ],
)
def test_the_shell_completes_commands_schemes_and_paths(plate, words, offered):
    words = [word.replace("{folder}", str(plate.root.parent)) for word in words]
    done = command(
        _POLYSTORE_FLOWS_COMPLETE="complete_bash",
        COMP_WORDS=" ".join(["polystore-flows", *words]),
        COMP_CWORD=str(len(words)),
    )
    expected = {word.replace("{folder}", str(plate.root.parent)) for word in offered}
    assert set(done.stdout.split()) == expected


def test_a_group_of_commands_is_imported_when_it_is_asked_for(run, monkeypatch, tmp_path):
    """One line in a table adds it; the help of the whole does not import it."""
    (tmp_path / "later_commands.py").write_text(
        "import typer\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def hello(name: str) -> None:\n"
        "    '''Greet somebody.'''\n"
        "    typer.echo(f'hello {name}')\n"
        "@app.command()\n"
        "def other() -> None: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    commands = sys.modules["polystore_flows.cli.app"]  # the package's own `app` hides its name
    monkeypatch.setitem(commands.LATER, "greet", ("later_commands:app", "Greetings."))
    code, out, _ = run("--help")
    assert (code, "Greetings." in out) == (0, True)
    assert "later_commands" not in sys.modules
    assert run("greet", "hello", "you") == (0, "hello you\n", "")
    assert "Greet somebody." in run("greet", "--help")[1]
    assert run("greet", "nothing")[0] == 2
