"""What is released: built, checked, and installed where nothing else is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import polystore_flows as ps

ROOT = Path(__file__).parents[1]
EXTRAS = ("snakemake", "prefect", "objects", "report", "demo")
"""Those that install without a compiler."""


def run(*command: object, **options: object) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_version_is_the_same_wherever_it_stands():
    plugin = (ROOT / "snakemake_storage_plugin" / "pyproject.toml").read_text()
    assert re.findall(r'^version = "(.+)"', plugin, re.MULTILINE) == [ps.__version__]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == ps.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_every_change_note_has_a_kind_and_comes_into_the_change_notes():
    drawn = run(sys.executable, "-m", "towncrier", "build", "--draft", cwd=ROOT)
    assert f"## {ps.__version__}" in drawn
    notes = [note for note in (ROOT / "changes").iterdir() if note.name != "README.md"]
    words = " ".join(drawn.split())
    for note in notes:
        assert re.fullmatch(r"\+[\w-]+\.(added|changed|fixed|removed)\.md", note.name), note.name
        assert " ".join(note.read_text().split()) in words, note.name


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the wheel and the sdist of both distributions."""
    folder = tmp_path_factory.mktemp("dist")
    installer = "uv" if shutil.which("uv") else "pip"  # uv is ten times as fast
    build = (sys.executable, "-m", "build", "--installer", installer, "--outdir", folder)
    for project in (ROOT, ROOT / "snakemake_storage_plugin"):
        run(*build, project)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    return next(built.glob("polystore_flows-*.whl"))


@pytest.mark.release
def test_what_is_built_passes_the_check_of_the_index(built):
    files = sorted(built.iterdir())
    assert len(files) == 4
    assert f"polystore_flows-{ps.__version__}-py3-none-any.whl" in [file.name for file in files]
    run(sys.executable, "-m", "twine", "check", "--strict", *files)


@pytest.mark.release
def test_the_wheel_holds_types_page_and_example_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "polystore_flows/py.typed" in names
    assert "polystore_flows/report/page/report.html.j2" in names
    assert "snakemake_storage_plugin_polystore/__init__.py" in names
    assert any(
        name.endswith("share/polystore-flows/examples/snakemake-plate/Snakefile") for name in names
    )
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if "." not in top} == {
        "polystore_flows",
        "snakemake_storage_plugin_polystore",
    }


@pytest.mark.release
def test_the_sdist_can_be_tested(built):
    with tarfile.open(next(built.glob("polystore_flows-*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"tests/test_release.py", "docs/index.md", "changes/README.md", "CITATION.cff"} <= names
    assert not any(name.startswith(".ci") for name in names)


@pytest.mark.release
def test_the_plugins_distribution_holds_nothing_but_a_name(built):
    names = zipfile.ZipFile(next(built.glob("snakemake_*.whl"))).namelist()
    assert all(".dist-info/" in name for name in names)


def python_of(series: str) -> str:
    """An interpreter of this series."""
    if sys.version_info[:2] == tuple(map(int, series.split("."))):
        return sys.executable
    found = subprocess.run(
        ["uv", "python", "find", "--no-project", series], capture_output=True, text=True
    )
    if found.returncode == 0:
        return found.stdout.strip()
    if shutil.which("pyenv"):
        versions = run("pyenv", "versions", "--bare").split()
        fitting = [v for v in versions if v.startswith(f"{series}.")]
        if fitting:
            return f"{run('pyenv', 'prefix', fitting[-1]).strip()}/bin/python"
    pytest.skip(f"NOT RUN: Python {series} is not on this machine")


@pytest.mark.release
@pytest.mark.parametrize("series", ["3.11", "3.12", "3.13"])
def test_a_clean_environment_installs_the_wheel_and_runs_the_demo(wheel, series, tmp_path):
    """First the core alone, then all extras; nothing of this checkout is on the path."""
    if shutil.which("uv") is None:
        pytest.skip("NOT RUN: no uv on this machine")
    run("uv", "venv", "-q", "--python", python_of(series), tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    command = tmp_path / "env" / "bin" / "polystore-flows"
    install = ("uv", "pip", "install", "-q", "--python", python)
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL", "PYTHONPATH"))
    }
    options = {"cwd": tmp_path, "env": environment}

    run(*install, wheel, **options)
    assert run(command, "--version", **options) == f"polystore-flows {ps.__version__}\n"
    told = run(command, "backends", **options)
    assert "pip install 'polystore-flows[objects]'" in told
    code = (
        "import polystore_flows as ps; ps.create_plate('zarr:p.zarr').write_image('A/1', 0, [[1]])"
    )
    run(python, "-c", code, **options)

    for extra in EXTRAS:
        run(*install, f"{wheel}[{extra}]", **options)
    assert "polystore-flows[objects]" not in run(command, "backends", **options)
    told = run(command, "demo", "out", "--cores", "2", **options)
    assert "report.html" in told
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000


@pytest.mark.release
def test_the_omero_extra_installs_into_a_clean_environment(tmp_path):
    """For this Python: the index has Ice as source only, and uv keeps what it compiled last."""
    if shutil.which("uv") is None or find_spec("Ice") is None:
        pytest.skip("NOT RUN: no uv, or no compiler, on this machine")
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(tmp_path / "env")}
    options = ("--no-dev", "--no-editable", "--extra", "omero", "--python", sys.executable)
    run("uv", "sync", "-q", *options, cwd=ROOT, env=environment)
    code = "import omero.gateway, polystore_flows.backends.omero.backend as b; print(b.__file__)"
    assert str(tmp_path) in run(tmp_path / "env" / "bin" / "python", "-c", code, cwd=tmp_path)
