"""`check` finds what is wrong with a plate, and `repair` mends it without losing anything."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import polystore_flows as ps
from polystore_flows.cli import main

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(params=["0.4", "0.5"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A plate of two wells with two fields and labels."""
    plate = ps.create_plate(
        tmp_path / "p.zarr", channels=["DAPI"], ngff_version=request.param, levels=2
    )
    image = np.ones((1, 1, 1, 16, 16), "uint16")
    for well in ("B/3", "C/4"):
        plate.write_well(well, {0: image, 1: image}, {0: {"nuclei": image}})
    plate.write_table("tables/a.csv", [{"n": 1}])
    plate.write_table("B/3/tables/a.csv", [{"n": 1}])
    return tmp_path / "p.zarr"


def _edit(group: Path, edit: Edit) -> None:
    """Change what NGFF says in the attributes of `group`."""
    path = group / "zarr.json" if (group / "zarr.json").exists() else group / ".zattrs"
    content = json.loads(path.read_text())
    edit(content["attributes"]["ome"] if path.name == "zarr.json" else content)
    path.write_text(json.dumps(content))


def _found(root: Path) -> list[tuple[str, str]]:
    findings = ps.get_backend("zarr").check_plate(f"zarr:{root}")
    return [(f.rule, f.where.removeprefix(f"zarr://{root}").lstrip("/")) for f in findings]


def test_a_plate_of_ours_breaks_no_rule(root: Path) -> None:
    assert _found(root) == []
    assert ps.get_backend("zarr").check_plate(f"zarr:{root}", repair=True) == []


def _unlist(root: Path) -> None:
    _edit(root, lambda ome: ome["plate"]["wells"].pop())


def _lose_well(root: Path) -> None:
    shutil.rmtree(root / "C" / "4")


def _lose_field(root: Path) -> None:
    shutil.rmtree(root / "C" / "4" / "1")


def _unlist_field(root: Path) -> None:
    _edit(root / "C" / "4", lambda ome: ome["well"]["images"].pop())


def _lose_label(root: Path) -> None:
    shutil.rmtree(root / "C" / "4" / "0" / "labels" / "nuclei")


def _unlist_label(root: Path) -> None:
    _edit(root / "C" / "4" / "0" / "labels", lambda ome: ome.update(labels=[]))


def _count(root: Path) -> None:
    _edit(root, lambda ome: ome["plate"].update(field_count=1))


def _stage(root: Path) -> None:
    left = root.parent / ".p.zarr.staging" / "another-host-ab"
    left.mkdir(parents=True)
    left.with_suffix(".alive").touch()


def _unlist_table(root: Path) -> None:
    path = root / "tables" / ("zarr.json" if (root / "zarr.json").exists() else ".zattrs")
    path.write_text(path.read_text().replace('["a"]', "[]"))


def _outdated_table(root: Path) -> None:
    (root / "tables" / "a.csv").unlink()
    (root / "tables" / "a.csv").write_text("n\n1\n2\n")


def _consolidate(root: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(root)


@pytest.mark.parametrize(
    ("harm", "rule", "where"),
    [
        (_unlist_table, "table", "tables/a.csv"),
        (_outdated_table, "table", "tables/a.csv"),
        (_consolidate, "consolidated", ""),
        (_unlist, "unlisted-well", "C/4"),
        (_lose_well, "missing-well", "C/4"),
        (_lose_field, "missing-field", "C/4/1"),
        (_unlist_field, "unlisted-field", "C/4/1"),
        (_lose_label, "missing-label", "C/4/0/labels/nuclei"),
        (_unlist_label, "unlisted-label", "C/4/0/labels/nuclei"),
        (_count, "field-count", ""),
        (_stage, "staging", ""),
    ],
)
def test_what_can_be_mended_is_found_and_mended(
    root: Path, harm: Callable[[Path], None], rule: str, where: str
) -> None:
    harm(root)
    assert _found(root) == [(rule, where)]
    mended = ps.get_backend("zarr").check_plate(f"zarr:{root}", repair=True)
    assert [finding.rule for finding in mended] == [rule]
    assert _found(root) == []
    plate = ps.open_plate(root)
    assert plate.wells == (("B/3",) if harm is _lose_well else ("B/3", "C/4"))
    assert plate["B/3"].image(0).labels == ("nuclei",)
    assert ps.load(f"zarr:{root}/B/3/tables/a.csv").to_dict("list") == {"n": [1]}


def _colour(root: Path) -> None:
    _edit(root / "B/3/0", lambda ome: ome["omero"]["channels"][0].update(color="#0000FF"))


def _float_label(root: Path) -> None:
    array = root / "B" / "3" / "0" / "labels" / "nuclei" / "0"
    name = "zarr.json" if (array / "zarr.json").exists() else ".zarray"
    content = json.loads((array / name).read_text())
    if name == "zarr.json":
        content["data_type"] = "float32"
        content["fill_value"] = 0.0
    else:
        content["dtype"] = "<f4"
    (array / name).write_text(json.dumps(content))


def _fewer_levels(root: Path) -> None:
    _edit(root / "B/3/0/labels/nuclei", lambda ome: ome["multiscales"][0]["datasets"].pop())


def _lose_array(root: Path) -> None:
    shutil.rmtree(root / "B" / "3" / "0" / "1")


def _wrong_acquisition(root: Path) -> None:
    _edit(root / "B" / "3", lambda ome: ome["well"]["images"][0].update(acquisition=3))


def _no_acquisition(root: Path) -> None:
    def edit(ome: dict[str, Any]) -> None:
        ome["plate"].update(acquisitions=[{"id": 0}, {"id": 1}])

    def name(ome: dict[str, Any]) -> None:
        for image in ome["well"]["images"]:
            image["acquisition"] = 1

    _edit(root, edit)
    for well in ("B/3", "C/4"):
        _edit(root / well, name)
    _edit(root / "C" / "4", lambda ome: ome["well"]["images"][1].pop("acquisition"))


def _fewer_rows(root: Path) -> None:
    _edit(root, lambda ome: ome["plate"].update(rows=ome["plate"]["rows"][:3]))


@pytest.mark.parametrize(
    ("harm", "rule", "where"),
    [
        (_colour, "color", "B/3/0"),
        (_float_label, "label", "B/3/0/labels/nuclei"),
        (_fewer_levels, "label", "B/3/0/labels/nuclei"),
        (_lose_array, "image", "B/3/0"),
        (_fewer_rows, "grid", ""),
        (_wrong_acquisition, "acquisition", "B/3/0"),
        (_no_acquisition, "acquisition", "C/4/1"),
    ],
)
def test_what_cannot_be_mended_is_found_and_left(
    root: Path, harm: Callable[[Path], None], rule: str, where: str
) -> None:
    harm(root)
    assert _found(root) == [(rule, where)]
    assert ps.get_backend("zarr").check_plate(f"zarr:{root}", repair=True) == []
    assert _found(root) == [(rule, where)]


def test_checking_changes_nothing(root: Path) -> None:
    _unlist(root)
    _stage(root)

    def state() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in root.parent.rglob("*") if p.is_file()}

    before = state()
    assert len(_found(root)) == 2
    assert state() == before
    assert (root.parent / ".p.zarr.staging").is_dir()


def test_the_command_line_says_what_it_found_and_what_it_mended(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as done:
            main(["check", *words])
        return int(done.value.code or 0), capsys.readouterr().out

    uri = f"zarr:{root}"
    assert run(uri) == (0, f"zarr://{root}: no rule is broken\n")
    _unlist(root)
    _colour(root)
    status, printed = run(uri, "--json")
    assert status == 1
    states = {(row["rule"], row["state"]) for row in json.loads(printed)}
    assert states == {("unlisted-well", "repairable"), ("color", "wrong")}
    status, printed = run(uri, "--repair")
    assert status == 1
    assert "repaired" in printed
    assert "unlisted-well" in printed
    status, printed = run(uri)
    assert status == 1
    assert "unlisted-well" not in printed


def test_a_folder_of_tiffs_is_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["check", f"disk:{tmp_path}"])
    assert done.value.code == 1
    assert "only OME-Zarr plates are checked" in capsys.readouterr().err
