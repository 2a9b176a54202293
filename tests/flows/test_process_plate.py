"""process_plate: what it makes, what it makes again, and what it leaves alone."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import flow_steps
import numpy as np
import pytest
from plates import make_raw
from prefect import flow
from prefect.transactions import transaction

import polystore_flows as ps
from polystore_flows.errors import (
    AlreadyExistsError,
    MismatchError,
    NotFoundError,
    StepError,
    URIError,
)
from polystore_flows.flows import record
from polystore_flows.flows.plates import process_plate
from polystore_flows.flows.step import Step
from polystore_flows.flows.tasks import chunks_of, plan_chunks, process_chunk
from polystore_flows.hcs.layout import Layout

ALL = ["B/1", "B/2", "B/3", "B/4", "C/1", "C/2", "C/3", "C/4"]


@pytest.fixture
def raw(places):
    return make_raw(places("raw"))


@pytest.fixture
def one(tmp_path):
    """A raw OME-Zarr plate."""
    return make_raw(f"zarr://{tmp_path}/raw.zarr")


@pytest.fixture
def out(tmp_path):
    return f"zarr://{tmp_path}/out.zarr"


def test_what_is_up_to_date_is_not_made_again(raw, places):
    """In every kind of store: a changed well, a deleted output, other parameters."""
    source, out = raw.uri, places("out")
    scale = "flow_steps:scale"
    done = process_plate(source, out, scale)
    assert (done["processed"], done["up_to_date"], done["failed"]) == (ALL, [], {})
    made = ps.open_plate(out)
    assert made.channels == raw.channels
    for well in made.wells:
        image = made[well].image(0)
        np.testing.assert_array_equal(image.read(), raw[well].image(0).read() * 2)
    again = process_plate(source, out, scale)
    assert (again["processed"], len(again["up_to_date"])) == ([], 8)
    raw.write_image("B/3", 0, np.full(raw["B/3"].image(0).shape, 9, "uint16"), overwrite=True)
    assert process_plate(source, out, scale)["processed"] == ["B/3"]
    assert ps.load(f"{out}/B/3/0").max() == 18
    for _ in range(2):  # twice: what was recorded the first time must not be taken for the second
        ps.delete(f"{out}/C/2")
        assert process_plate(source, out, scale)["processed"] == ["C/2"]
    assert process_plate(source, out, scale, {"factor": 3}, wells=["B/1"])["processed"] == ["B/1"]
    assert ps.load(f"{out}/B/1/0").max() == 3


def test_a_deleted_target_is_made_anew(one, out):
    """Nothing that Prefect remembers may stand for a plate that is gone."""
    process_plate(one.uri, out, flow_steps.scale)
    ps.delete(out)
    assert process_plate(one.uri, out, flow_steps.scale)["processed"] == ALL
    assert len(ps.open_plate(out)) == 8


def test_labels_and_tables_go_beside_the_source(raw):
    done = process_plate(raw.uri, step="flow_steps:bright")
    assert done["processed"] == ALL
    assert ps.open_plate(raw.uri)["B/3"].image(0).label("bright").read().all()
    done = process_plate(raw.uri, step=flow_steps.count, output="tables/cells.csv")
    assert done["tables"] == [f"{raw.uri}/tables/cells.csv"]
    table = ps.load(done["tables"][0])
    assert list(table.columns) == [
        *("well", "row", "column", "fields", "cells", "cells_per_field", "area_um2")
    ]
    assert table["cells"].tolist() == [2] * 8
    rows = ps.load(f"{raw.uri}/B/3/tables/cells.csv")
    assert list(rows.columns) == ["field", "label", "area_um2"]
    assert rows["area_um2"].tolist()[0] == 96 * 0.25
    assert process_plate(raw.uri, step="flow_steps:bright")["processed"] == []
    ps.delete(f"{raw.uri}/B/3/tables/cells.csv")
    again = process_plate(raw.uri, step=flow_steps.count, output="tables/cells.csv")
    assert again["processed"] == ["B/3"]


def test_labels_in_another_plate_lie_on_copies_of_the_images(one, out):
    process_plate(one.uri, out, "flow_steps:bright", wells=["B/03"])
    image = ps.open_plate(out)["B/3"].image(0)
    np.testing.assert_array_equal(image.read(), one["B/3"].image(0).read())
    assert image.labels == ("bright",)


def test_a_step_may_make_several_things_or_see_the_whole_well(tmp_path, out):
    one = make_raw(f"zarr://{tmp_path}/raw.zarr", rows="B", columns=2, fields=2)
    one.write_image("B/2", 1, np.full(one["B/2"].image(0).shape, 7, "uint16"), overwrite=True)
    process_plate(one.uri, out, flow_steps.everything)
    well = ps.open_plate(out)["B/2"]
    assert [well.image(f).labels for f in well.fields] == [("bright",), ("bright",)]
    table = ps.load(f"{out}/B/2/tables/means.csv")
    assert table["field"].tolist() == ["0", "0", "1", "1"]
    assert table["channel"].tolist() == ["DAPI", "GFP"] * 2
    process_plate(one.uri, out, flow_steps.rows, overwrite=True)
    assert ps.load(f"{out}/B/2/tables/means.csv")["channel"].tolist() == ["DAPI", "GFP"] * 2
    process_plate(one.uri, f"{out[:-5]}2.zarr", flow_steps.against_mean)
    assert ps.load(f"{out[:-5]}2.zarr/B/2/1").max() == 5
    assert ps.load(f"{out[:-5]}2.zarr/B/2/0").max() == 0


def test_a_step_may_be_a_file_or_a_function_of_the_caller(one, out, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def same(image):\n    return image\n")
    assert process_plate(one.uri, out, f"{path}:same")["processed"] == ALL
    assert process_plate(one.uri, out, f"{path}:same")["processed"] == []
    path.write_text("def same(image):\n    return image + 1\n")
    assert process_plate(one.uri, out, f"{path}:same")["processed"] == ALL
    assert ps.load(f"{out}/B/1/0").max() == 2
    other = f"{out[:-5]}2.zarr"
    assert process_plate(one.uri, other, lambda image: image * 2, wells=["B/1"])["failed"] == {}
    assert ps.load(f"{other}/B/1/0").max() == 2


def test_a_step_that_raises_on_one_well_leaves_the_others_to_finish(one, out):
    with pytest.raises(StepError) as caught:
        process_plate(one.uri, out, "flow_steps:fails_on")
    assert set(caught.value.failed) == {"B/3", "C/3"}
    assert "2 of 8 wells failed: B/3 (ZeroDivisionError: no way with 3)" in str(caught.value)
    assert set(ps.open_plate(out).wells) == {w for w in ALL if not w.endswith("3")}
    state = process_plate(one.uri, out, "flow_steps:fails_on", return_state=True)
    assert state.is_failed()
    assert "B/3 (ZeroDivisionError" in state.message
    one.write_image("B/3", 0, np.full(one["B/3"].image(0).shape, 5, "uint16"), overwrite=True)
    with pytest.raises(StepError, match=r"1 of 8 wells failed: C/3"):
        process_plate(one.uri, out, "flow_steps:fails_on")
    assert "B/3" in ps.open_plate(out)
    done = process_plate(one.uri, out, "flow_steps:fails_on", {"values": ()})
    assert done["processed"] == ALL


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("flow_steps:wrong_shape", r"B/3 \(MismatchError: .*B/3/0: the array is \(1, 2, 1, 6, 7\)"),
        ("flow_steps:nothing", r"B/1 \(StepError: flow_steps:nothing returned NoneType instead"),
        ("flow_steps:no_table", r"B/1 \(StepError: .* returned list instead of a data frame or a"),
    ],
)
def test_a_wrong_result_names_the_well_and_what_is_wrong(one, out, step, reason):
    process_plate(one.uri, out, step, {"values": ()}, wells=["C/1"]) if "wrong" in step else None
    with pytest.raises(StepError, match=reason):
        process_plate(one.uri, out, step)
    assert set(ps.open_plate(out).wells) <= {w for w in ALL if not w.endswith("3")}


def test_what_something_else_has_made_is_left_alone(one, out):
    other = ps.create_plate(out, like=one)
    other.write_image("C/4", 0, np.full(one["B/3"].image(0).shape, 100, "uint16"))
    with pytest.raises(AlreadyExistsError, match=r"out.zarr/C/4 was not made by flow_steps:scale"):
        process_plate(one.uri, out, "flow_steps:scale")
    assert ps.open_plate(out).wells == ("C/4",)
    wells = [f"{one.uri}/C/4"]
    state = process_chunk(wells, out, "flow_steps:scale", return_state=True)
    assert state.is_failed()
    assert ps.load(f"{out}/C/4/0").max() == 100
    process_plate(one.uri, out, "flow_steps:scale", overwrite=True)
    assert ps.load(f"{out}/C/4/0").max() == 8
    assert process_plate(one.uri, out, "flow_steps:scale")["processed"] == []


def test_two_flows_on_one_plate_at_once_do_the_work_once(one, out, tmp_path):
    """Each waits for the other's chunks and takes their results."""
    (tmp_path / "notes").mkdir()
    params = {"folder": str(tmp_path / "notes"), "pause": 0.05}

    def run() -> list[str]:
        done = process_plate(one.uri, out, "flow_steps:noted", params)
        return sorted(done["processed"] + done["up_to_date"])

    contexts = [copy_context() for _ in range(2)]  # which name the server of the tests
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(context.run, run) for context in contexts]
        assert [future.result() for future in both] == [ALL, ALL]
    assert len(list(Path(params["folder"]).iterdir())) == 8
    assert len(ps.open_plate(out)) == 8


def test_the_same_chunk_twice_is_cached_while_its_outputs_are_there(raw, places):
    out = places("out")
    call = ([f"{raw.uri}/B/1", f"{raw.uri}/B/2"], out, "flow_steps:scale")
    states = [process_chunk(*call, return_state=True) for _ in range(2)]
    assert [state.name for state in states] == ["Completed", "Cached"]
    assert [ref.load()["0"].max() for ref in states[1].result()["outputs"]] == [2, 4]
    ps.delete(f"{out}/B/2")
    assert process_chunk(*call, return_state=True).name == "Completed"
    assert ps.exists(f"{out}/B/2")


def test_a_chunk_that_is_rolled_back_takes_back_what_it_wrote(one, out):
    """As a step of a user's own transaction, of which a later one fails."""
    process_plate(one.uri, out, "flow_steps:everything", wells=["B/1"])

    @flow
    def composed() -> None:
        with transaction():
            process_chunk([f"{one.uri}/B/1", f"{one.uri}/B/2"], out, "flow_steps:everything")
            assert "B/2" in ps.open_plate(out)
            raise RuntimeError("a later step failed")

    with pytest.raises(RuntimeError, match="later step"):
        composed()
    assert ps.open_plate(out).wells == ("B/1",)
    assert not ps.exists(f"{out}/B/2/tables/means.csv")
    step = Step.of("flow_steps:everything", None, None)
    assert set(record.entries(out, step)) <= {"B/1"}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"step": "nowhere:at_all"}, MismatchError, "'nowhere:at_all' is not found"),
        ({"step": "flow_steps:missing"}, MismatchError, "is not found"),
        ({"step": ""}, MismatchError, "write module:function"),
        ({"params": {"wrong": 1}}, MismatchError, "does not take these parameters"),
        ({"output": "pictures/x"}, MismatchError, "is no output of a step"),
        ({"output": "tables/../x.csv"}, MismatchError, "is no output of a step"),
        ({"runner": "slurm"}, MismatchError, "'slurm' is no runner; there are threads"),
        ({"runner": "threads:0"}, MismatchError, "is no runner"),
        ({"chunk_size": 0}, MismatchError, "one well or more"),
        ({"wells": ["H/12"]}, NotFoundError, "has no well H/12"),
        ({"wells": ["../x"]}, URIError, "names no well"),
        ({"source": "zarr:/none.zarr"}, NotFoundError, "does not exist"),
        ({"source": "nothing://x"}, KeyError, "no backend for the scheme"),
        ({"target": None}, MismatchError, "is the source, too"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_arguments_are_refused_before_anything_is_done(one, out, change, error, text):
    call = {"source": one.uri, "target": out, "step": "flow_steps:scale"} | change
    with pytest.raises(error, match=re.escape(text)):
        process_plate(**call)
    assert not ps.exists(out) or not ps.open_plate(out).wells


def test_a_plate_in_memory_is_refused_where_others_would_not_see_it(one):
    with pytest.raises(ps.errors.UnsupportedError, match="in the memory of this process"):
        process_plate(one.uri, "memory://x/out", "flow_steps:scale", runner="processes")


def test_chunks_are_rows_unless_the_caller_says_otherwise():
    """8 to 48 chunks for 384 wells, 24 to 64 for 1536: a task costs a tenth of a second."""
    for size, count in {96: 8, 384: 16, 1536: 32}.items():
        layout = Layout.of(size)
        wells = [f"{row}/{column}" for row in layout.rows for column in layout.columns]
        assert len(chunks_of(wells, None)) == count
    assert chunks_of(["A/1", "A/2", "B/1"], 2) == [["A/1", "A/2"], ["B/1"]]
    assert chunks_of([], None) == chunks_of([], 3) == []


def test_a_plan_of_an_object_store_does_not_grow_with_the_wells(s3, s3_server):
    """One request a well would make the plan of a large plate slower than its work."""
    asked = []
    for rows, name in (("B", "small"), ("BCDEFG", "large")):
        plate = make_raw(f"{s3}/{name}", rows=rows)
        target = f"{s3}/{name}-out"
        ps.create_plate(target, like=plate)
        s3_server.reset()
        plan_chunks.fn(plate.uri, target, "flow_steps:scale")
        asked.append(s3_server.requests.total())
    assert asked[1] <= asked[0] + 2
