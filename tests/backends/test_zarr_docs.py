"""The code and the tables in the documentation of OME-Zarr plates agree with the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import polystore_flows as ps
from polystore_flows.hcs.zarr_config import ZarrChunkStrategy, ZarrCompressor, ZarrConfig

TEXT = (Path(__file__).parents[2] / "docs" / "ome-zarr.md").read_text()


def _block(language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert match is not None
    return match[1]


def test_the_code_runs_and_its_comments_are_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(_block("python"), "ome-zarr.md", "exec"), names)
    said = re.findall(r"^(again\S.*?)  +# (.*)$", _block("python"), re.MULTILINE)
    assert len(said) == 3
    for expression, value in said:
        assert eval(expression, names) == eval(value), expression
    assert (tmp_path / "plate.zarr/tables/counts/table.csv").is_file()
    assert ps.get_backend("zarr").check_plate("zarr:plate.zarr") == []


def test_the_setting_is_one_and_the_table_lists_all_there_is() -> None:
    ZarrConfig(**json.loads(_block("json")))
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXT, re.MULTILINE))
    assert set(rows) == set(ZarrConfig.__slots__)
    values = {name: re.findall(r"`([\w.-]+)`", text) for name, text in rows.items()}
    assert {c.value for c in ZarrCompressor} <= {*values["compressor"]}
    assert {c.value for c in ZarrChunkStrategy} == {*values["chunk_strategy"]}
    defaults = ", ".join(str(ZarrConfig(c).level or "–") for c in ZarrCompressor)
    assert f"| 0 to 9 | {defaults} |" in TEXT
