"""The cache policy: what makes a task run again, and what does not."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from prefect import flow, task
from prefect.context import TaskRunContext

import polystore_flows as ps
from polystore_flows.backends import folder_contents
from polystore_flows.flows.blocks import PlateRef, PolystoreStore
from polystore_flows.flows.cache import ContentPolicy
from polystore_flows.flows.references import Reference, ReferenceSerializer
from polystore_flows.flows.stamps import stamps

IMAGE = np.ones((1, 1, 1, 8, 6), "uint16")


@task(
    persist_result=True,
    cache_policy=ContentPolicy(outputs=("target",)),
    result_serializer=ReferenceSerializer(),
)
def double(wells: list[str], target: str, factor: int = 2) -> list[Reference]:
    plate = ps.open_plate(target, "r+")
    made = []
    for well in wells:
        source, _, name = well.rpartition("/B/")
        image = ps.open_plate(source)[f"B/{name}"].image(0).read() * factor
        plate.write_image(f"B/{name}", 0, image, overwrite=True)
        made.append(Reference.to(f"{target}/B/{name}"))
    return made


@pytest.fixture
def raw(places):
    plate = ps.create_plate(places("raw"), channels=["DAPI"])
    for column in (3, 4, 5):
        plate.write_image(f"B/{column}", 0, IMAGE * column)
    ps.create_plate(places("out"), channels=["DAPI"])
    return plate


@flow
def doubling(chunks: list[list[str]], target: str, factor: int = 2) -> list[str]:
    states = [double(chunk, target, factor, return_state=True) for chunk in chunks]
    return [state.name for state in states]


def test_a_task_is_cached_until_an_input_an_output_or_a_parameter_changes(raw, places):
    """In every kind of store: one changed well runs one chunk, a deleted output is made again."""
    chunks = [[f"{raw.uri}/B/3"], [f"{raw.uri}/B/4", f"{raw.uri}/B/5"]]
    target = places("out")
    assert doubling(chunks, target) == ["Completed", "Completed"]
    assert doubling(chunks, target) == ["Cached", "Cached"]
    raw.write_image("B/5", 0, IMAGE * 9, overwrite=True)
    assert doubling(chunks, target) == ["Cached", "Completed"]
    np.testing.assert_array_equal(ps.load(f"{target}/B/5/0"), IMAGE * 18)
    assert doubling(chunks, target) == ["Cached", "Cached"]
    ps.delete(f"{target}/B/3")
    assert doubling(chunks, target) == ["Completed", "Cached"]
    assert ps.exists(f"{target}/B/3")
    ps.delete(f"{target}/B/3")  # a second time: the record is no older than the output
    assert doubling(chunks, target) == ["Completed", "Cached"]
    assert doubling(chunks, target, factor=3) == ["Completed", "Completed"]


def test_a_label_added_to_an_input_changes_nothing(raw, places):
    chunks, target = [[f"{raw.uri}/B/3"]], places("out")
    doubling(chunks, target)
    raw.write_label("B/3", 0, "nuclei", IMAGE)
    assert doubling(chunks, target) == ["Cached"]


def _key(policy: ContentPolicy, function=double, **inputs: object) -> str | None:
    context = TaskRunContext.model_construct(task=function)
    return policy.compute_key(context, inputs, {})


def test_a_key_knows_uris_in_blocks_lists_and_dicts(tmp_path):
    path = tmp_path / "a.txt"
    for make in (
        lambda uri: uri,
        lambda uri: {"nested": [uri]},
        lambda uri: PlateRef(uri=uri),
        lambda uri: PolystoreStore(uri=uri),
    ):
        path.write_text("one")
        value = make(f"disk://{path}")
        first = _key(ContentPolicy(), source=value)
        assert _key(ContentPolicy(), source=value) == first
        path.write_text("two, longer")
        assert _key(ContentPolicy(), source=value) != first
        skipped = ContentPolicy(outputs=("source",))
        second = _key(skipped, source=value)
        path.write_text("one")
        assert _key(skipped, source=value) == second


def test_a_key_knows_the_source_of_the_task_and_of_functions():
    @task
    def other(wells: list[str]) -> None:
        """Another source."""

    def make(source: str):
        space: dict[str, object] = {}
        exec(source, space)
        return space["step"]

    assert _key(ContentPolicy(), double, a=1) != _key(ContentPolicy(), other, a=1)
    one, two = make("def step(x): return x + a"), make("def step(x): return x * b")
    assert _key(ContentPolicy(), step=one) == _key(ContentPolicy(), step=one)
    assert _key(ContentPolicy(), step=one) != _key(ContentPolicy(), step=two)
    assert _key(ContentPolicy()) is None


def test_texts_that_are_no_uris_of_a_store_are_texts():
    for text in ("a: b", "12:30", "https://host/x", "nothing://x/y", ":", "zarr:", "x" * 9):
        assert _key(ContentPolicy(), note=text) != _key(ContentPolicy(), note=f"{text}.")


def test_the_wells_of_a_folder_cost_one_listing_while_it_is_written(tmp_path, monkeypatch):
    """Else a step that adds tables beside the images takes a time with the square of the plate."""
    listings, look = [], folder_contents._listing
    monkeypatch.setattr(
        folder_contents, "_listing", lambda folder: listings.append(folder) or look(folder)
    )
    for number in range(1, 13):
        tifffile.imwrite(tmp_path / f"B{number:02}_s1_w1.tif", np.full((8, 8), number, "uint16"))
    wells = [f"disk://{tmp_path}/B/{number}" for number in range(1, 14)]
    found = stamps(wells)
    assert len(listings) == 1
    assert found.pop(wells[-1]) is None
    assert len({*found.values()}) == 12
    ps.save({"a": 1}, f"disk://{tmp_path}/B/01/tables/a.json")
    assert stamps(found) == found


def test_the_wells_of_a_plate_on_an_object_store_cost_one_listing(s3, s3_server):
    """384 wells of many planes, each with a request of its own, would take minutes."""
    plate = ps.create_plate(f"{s3}/plate", channels=["DAPI", "GFP"])
    for column in range(1, 9):
        plate.write_image(f"B/{column}", 0, np.ones((1, 2, 3, 8, 8), "uint16"))
    s3_server.reset()
    found = stamps(f"{s3}/plate/B/{column}" for column in range(1, 10))
    assert s3_server.requests.total() <= 3
    assert found.pop(f"{s3}/plate/B/9") is None
    assert len({*found.values()}) == 8
