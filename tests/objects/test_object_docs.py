"""The code and the settings in the documentation of object stores work as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polystore_flows as ps
from polystore_flows.metadata import read_json
from polystore_flows.settings import ObjectStoreSettings, Settings

TEXT = (Path(__file__).parents[2] / "docs" / "object-stores.md").read_text()


def _blocks(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return "\n".join(found)


def test_the_code_runs(rig):
    code = _blocks("python").replace("lab-plates", rig.bucket)
    exec(compile(code, "object-stores.md", "exec"), {})
    notes = read_json(f"s3://{rig.bucket}/notes.json")
    assert notes == {"checked": True, "subdirectories": {"B": {"wells": 3}}}
    assert ps.open_plate(f"zarr+s3://{rig.bucket}/run7.zarr").wells == ("B/3",)


def test_the_settings_are_settings_and_all_are_listed():
    for entry in json.loads(_blocks("json")).values():
        ObjectStoreSettings(**entry)
    table = re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)
    assert set(table) == set(ObjectStoreSettings.model_fields)
    for name in Settings.model_fields:
        if name.startswith("objects"):
            assert f"POLYSTORE_{name.upper()}`" in TEXT, name
