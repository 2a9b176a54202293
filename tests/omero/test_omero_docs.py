"""The page on OMERO: its code runs, and it names all settings and namespaces."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import polystore_flows as ps
from polystore_flows.settings import Settings
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.demo import add_demo_plate

TEXT = (Path(__file__).parents[2] / "docs" / "omero.md").read_text()


def test_the_code_runs(server: OmeroServer) -> None:
    match = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert match is not None
    number = add_demo_plate(server)
    code = match[1].replace("omero.lab/plate/123", f"{server.host}:{server.port}/plate/{number}")
    code = code.replace("omero.lab", f"{server.host}:{server.port}")
    exec(compile(code, "omero.md", "exec"), {})
    results = ps.open_plate(server.uri("plate/illumination-corrected"))
    assert results["B/3"].image(0).labels == ("nuclei",)
    assert list(ps.load(f"{results.uri}/tables/counts.csv")["count"]) == [12]


def test_all_settings_are_listed() -> None:
    listed = set(re.findall(r"^\| `POLYSTORE_(\w+)`", TEXT, re.MULTILINE))
    assert listed == {name.upper() for name in Settings.model_fields if name.startswith("omero")}


@pytest.mark.parametrize("command", re.findall(r"`polystore-flows ([a-z -]+)`", TEXT))
def test_the_commands_are_there(command: str) -> None:
    from typer.testing import CliRunner

    from polystore_flows.cli import app

    assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0
