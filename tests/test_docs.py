"""The documentation works: its blocks run, its commands and settings are those that there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from polystore_flows.cli import app
from polystore_flows.settings import Settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*DOCS.rglob("*.md")])
ELSEWHERE = {
    "docs/object-stores.md": "tests/objects/test_object_docs.py",  # on a local S3 server
    "docs/prefect.md": "tests/flows/test_flow_docs.py",  # with a server
    "docs/omero.md": "tests/omero/test_omero_docs.py",  # with a loopback OMERO server
    "docs/troubleshooting.md": "tests/test_docs.py",  # block by block, below
}
"""Pages whose blocks another test runs."""
SLOW = {"docs/tutorial-snakemake.md", "docs/tutorial-prefect.md", "docs/cli.md"}
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _text(page: str) -> str:
    """A page, with the files that it takes in."""
    text = (ROOT / page).read_text()
    return re.sub(r"--8<--\n(.+)\n--8<--\n", lambda found: (ROOT / found[1]).read_text(), text)


def _blocks(page: str) -> list[tuple[str, str, str]]:
    """Language, title and code of each block."""
    return [(found[1], found[2] or "", found[3]) for found in BLOCK.finditer(_text(page))]


def _run_page(page: str, folder: Path) -> None:
    """From top to bottom in one folder: ``python`` and ``sh`` run, what has a title is a file."""
    names: dict[str, Any] = {"__name__": "docs"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for language, title, code in _blocks(page):
        if title:
            file = folder / title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(code)
        elif language == "python":
            exec(compile(code, page, "exec"), names)
        elif language == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code],
                cwd=folder,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])
        for page in PAGES
        if page not in ELSEWHERE
    ],
)
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.chdir(tmp_path)
    _run_page(page, tmp_path)


def test_pages_that_are_run_elsewhere_are():
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text()


def test_the_messages_of_the_troubleshooting_page_are_those_that_people_get(tmp_path, monkeypatch):
    """A ``python`` block, then the text of its error; a block without one only prepares."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = _blocks("docs/troubleshooting.md")
    told = 0
    for (language, _, code), (following, _, text) in zip(
        blocks, [*blocks[1:], ("", "", "")], strict=True
    ):
        if language != "python":
            continue
        if following != "text":
            exec(compile(code, "troubleshooting.md", "exec"), names)
            continue
        with pytest.raises(Exception) as raised:
            exec(compile(code, "troubleshooting.md", "exec"), names)
        message = f"{type(raised.value).__name__}: {raised.value}"
        assert message.replace(str(tmp_path), "/data") == text.strip()
        told += 1
    assert told >= 10


def _commands(group: Any, start: str = "") -> dict[str, Any]:
    """All commands with those of groups: ``deploy serve`` -> command."""
    found = {}
    context = typer.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            found |= _commands(command, f"{start}{name} ")
        else:
            found[f"{start}{name}"] = command
    return found


def test_every_command_and_option_is_documented_with_an_example():
    page = (DOCS / "cli.md").read_text()
    commands = _commands(typer.main.get_command(app))
    assert {
        "backends",
        "info",
        "ls",
        "cp",
        "check",
        "report",
        "serve",
        "deploy run",
        "demo",
    } <= set(commands)
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    for name, command in commands.items():
        assert name in sections, f"docs/cli.md has no section '## {name}'"
        section = sections[name]
        examples = [code for language, _, code in BLOCK.findall(section) if language != "python"]
        assert any(f"polystore-flows {name}" in code for code in examples), name
        for parameter in command.params:
            options = [word for word in parameter.opts if word.startswith("--")]
            if options and parameter.name != "help" and not parameter.hidden:
                assert any(option in section for option in options), (name, options)
    assert set(sections) == set(commands)


def test_every_setting_is_documented_and_no_other():
    page = (DOCS / "settings.md").read_text()
    table = re.findall(r"^\| `(POLYSTORE_\w+)` \|", page, re.MULTILINE)
    assert sorted(table) == sorted(f"POLYSTORE_{name.upper()}" for name in Settings.model_fields)


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"\s+", "-", word) for word in words}


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_no_link_inside_the_documentation_is_dead(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page}: {target}"


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    """Also the docstrings of all that the reference shows, and every link in them."""
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    html = (tmp_path / "site" / "index.html").read_text()
    assert not re.search(r"<(?:script|img)[^>]+src=\"https?:", html)  # nothing from elsewhere
    worked = (tmp_path / "site" / "backends" / "index.html").read_text()
    assert "_backend_type" in worked  # the example's files are taken in
    assert "8&lt;" not in worked


@pytest.mark.slow
def test_the_worked_backend_is_built_installed_and_passes_the_suite(tmp_path):
    """As a third party would: a wheel, an entry point, the contract suite that we ship."""
    example = ROOT / "examples" / "third-party-backend"
    install = [
        "uv",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(tmp_path),
        str(example),
    ]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(example / "tests")]
    done = subprocess.run(
        tests,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
