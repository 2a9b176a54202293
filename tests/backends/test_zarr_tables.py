"""Tables are plain files beside the arrays, and ngio finds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ngio
import pandas as pd
import pytest
from ngio.tables import ConditionTable, GenericTable

import polystore_flows as ps
from polystore_flows.backends.zarr.nodes import find_document
from polystore_flows.errors import AlreadyExistsError
from polystore_flows.hcs.plate import Plate

Pixels = Callable[..., Any]
COUNTS = [{"well": "B/3", "row": "B", "nuclei": 7, "mean": 0.5}]


def _root(plate: Plate) -> Path:
    return Path(plate.uri.removeprefix("zarr://"))


@pytest.fixture
def filled(plate: Plate, pixels: Pixels) -> Plate:
    """One well with one field and tables at all three places."""
    plate.write_image("B/3", 0, pixels())
    plate.write_table("tables/counts.csv", COUNTS)
    plate.write_table("B/03/0/tables/nuclei.csv", [{"label": 1, "area": 3.5}])
    plate.write_table("B/03/tables/cells.csv", [{"n": 1}])
    return plate


def test_ngio_reads_the_tables_of_the_plate_and_of_an_image(filled: Plate) -> None:
    opened = ngio.open_ome_zarr_plate(_root(filled), mode="r")
    assert opened.list_tables() == ["counts"]
    table = opened.get_table("counts")
    assert isinstance(table, GenericTable)
    assert table.dataframe.to_dict("records") == COUNTS
    image = opened.get_image("B", 3, "0")
    assert image.list_tables() == ["nuclei"]
    assert image.get_table("nuclei").dataframe.to_dict("records") == [{"label": 1, "area": 3.5}]


def test_the_plate_map_is_a_condition_table(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    plate.write_conditions([{"row": "B", "column": 3, "drug": "x"}])
    opened = ngio.open_ome_zarr_plate(_root(plate), mode="r")
    table = opened.get_condition_table("conditions")
    assert isinstance(table, ConditionTable)
    assert table.dataframe["drug"].tolist() == ["x"]


def test_the_plain_files_are_what_is_read_listed_and_stays(filled: Plate) -> None:
    for path, rows in (
        ("tables/counts.csv", COUNTS),
        ("B/3/0/tables/nuclei.csv", [{"label": 1, "area": 3.5}]),
        ("B/3/tables/cells.csv", [{"n": 1}]),
    ):
        pd.testing.assert_frame_equal(pd.read_csv(_root(filled) / path), pd.DataFrame(rows))
        assert ps.load(f"{filled.uri}/{path}").to_dict("records") == rows
    assert ps.list_files(filled.uri, recursive=True) == [
        f"{filled.uri}/B/3/0",
        f"{filled.uri}/B/3/0/tables/nuclei.csv",
        f"{filled.uri}/B/3/tables/cells.csv",
        f"{filled.uri}/tables/counts.csv",
    ]
    backend = ps.get_backend("zarr")
    assert backend.list_dir(f"{filled.uri}/tables") == ["counts.csv"]
    assert backend.list_dir(f"{filled.uri}/B/3/0/tables") == ["nuclei.csv"]
    assert not ps.exists(f"{filled.uri}/tables/counts")
    assert backend.check_plate(filled.uri) == []


def test_a_replaced_table_is_replaced_for_ngio_too(filled: Plate) -> None:
    more = [*COUNTS, {"well": "B/4", "row": "B", "nuclei": 1, "mean": 0.25}]
    filled.write_table("tables/counts.csv", more)
    opened = ngio.open_ome_zarr_plate(_root(filled), mode="r")
    assert opened.get_table("counts").dataframe.to_dict("records") == more
    assert opened.list_tables() == ["counts"]


def test_a_file_that_is_edited_in_place_is_the_same_for_ngio(filled: Plate) -> None:
    """pandas and editors write into the file that is there."""
    pd.DataFrame([{"n": 5}]).to_csv(_root(filled) / "tables" / "counts.csv", index=False)
    opened = ngio.open_ome_zarr_plate(_root(filled), mode="r")
    assert opened.get_table("counts").dataframe.to_dict("records") == [{"n": 5}]


def test_without_hard_links_ngio_gets_a_copy(
    plate: Plate, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    plate.write_image("B/3", 0, pixels())
    monkeypatch.setattr(os, "link", refuse)
    plate.write_table("tables/counts.csv", COUNTS)
    monkeypatch.undo()
    opened = ngio.open_ome_zarr_plate(_root(plate), mode="r")
    assert opened.get_table("counts").dataframe.to_dict("records") == COUNTS
    assert (_root(plate) / "tables" / "counts.csv").stat().st_nlink == 1


def test_deleting_a_table_unlists_it(filled: Plate) -> None:
    filled.write_table("tables/a.csv", COUNTS)
    ps.delete(f"{filled.uri}/tables/counts.csv")
    ps.delete(f"{filled.uri}/B/3/0/tables/nuclei.csv")
    opened = ngio.open_ome_zarr_plate(_root(filled), mode="r")
    assert opened.list_tables() == ["a"]
    assert opened.get_image("B", 3, "0").list_tables() == []
    left = {path.name for path in (_root(filled) / "tables").iterdir()}
    assert left - {"zarr.json", ".zgroup", ".zattrs"} == {"a", "a.csv"}


def test_a_table_that_ngio_keeps_under_the_name_is_not_hidden(filled: Plate) -> None:
    opened = ngio.open_ome_zarr_plate(_root(filled), mode="r+")
    theirs = GenericTable(table_data=pd.DataFrame([{"theirs": 1}]))
    opened.add_table("mine", theirs, backend="csv")
    with pytest.raises(AlreadyExistsError, match=r"tables/mine.csv: another program keeps a table"):
        filled.write_table("tables/mine.csv", COUNTS)
    filled.write_table("tables/other.csv", COUNTS)
    opened = ngio.open_ome_zarr_plate(_root(filled), mode="r")
    assert sorted(opened.list_tables()) == ["counts", "mine", "other"]
    assert opened.get_table("mine").dataframe.to_dict("records") == [{"theirs": 1}]


def test_tables_that_are_written_at_once_are_all_listed(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    names = [f"t{number}" for number in range(8)]
    threads = [
        threading.Thread(target=plate.write_table, args=(f"tables/{name}.csv", [{"n": name}]))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened = ngio.open_ome_zarr_plate(_root(plate), mode="r")
    assert opened.list_tables() == names
    for name in names:
        assert opened.get_table(name).dataframe.to_dict("records") == [{"n": name}]


def test_a_writer_that_dies_in_between_leaves_a_table_that_check_lists(filled: Plate) -> None:
    script = """
import os, signal, sys
import polystore_flows as ps
from polystore_flows.backends.zarr import tables
tables._list = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
ps.save([{"n": 2}], sys.argv[1] + "/tables/counts.csv", overwrite=True)
"""
    subprocess.run([sys.executable, "-c", script, filled.uri], check=False)
    assert ps.load(f"{filled.uri}/tables/counts.csv").to_dict("records") == [{"n": 2}]
    backend = ps.get_backend("zarr")
    found = [finding.rule for finding in backend.check_plate(filled.uri)]
    assert found == ["table", "staging"]
    backend.check_plate(filled.uri, repair=True)
    assert backend.check_plate(filled.uri) == []
    opened = ngio.open_ome_zarr_plate(_root(filled), mode="r")
    assert opened.get_table("counts").dataframe.to_dict("records") == [{"n": 2}]


def test_tables_are_copied_with_their_plate(filled: Plate, tmp_path: Path) -> None:
    ps.copy(filled.uri, f"zarr:{tmp_path}/copy.zarr")
    opened = ngio.open_ome_zarr_plate(tmp_path / "copy.zarr", mode="r")
    assert opened.list_tables() == ["counts"]
    assert opened.get_image("B", 3, "0").list_tables() == ["nuclei"]


def test_other_files_are_no_tables_of_ngio(plate: Plate, pixels: Pixels) -> None:
    plate.write_image("B/3", 0, pixels())
    ps.save({"a": 1}, f"{plate.uri}/tables/notes.json")
    ps.save([{"a": 1}], f"{plate.uri}/tables/deep/a.csv")
    ps.save([{"a": 1}], f"{plate.uri}/summary.csv")
    assert ngio.open_ome_zarr_plate(_root(plate), mode="r").list_tables() == []
    folder = _root(plate) / "tables"
    document = find_document(folder)
    assert document is not None
    content = json.loads(document.read_text())
    assert content.get("attributes", content) == {"tables": []}
