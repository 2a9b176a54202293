"""What is believed without asking again, and what is not."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from plugin_rig import make_plate, make_provider
from snakemake_storage_plugin_polystore.answers import Answers
from snakemake_storage_plugin_polystore.query import place_of

import polystore_flows as ps


@pytest.fixture
def plate(tmp_path):
    """URI of a plate with the wells B/3 and B/4 of one field."""
    return make_plate(tmp_path / "p.zarr")


def expire(provider):
    """As if the seconds of the setting had gone by."""
    for place in provider.answers._until:
        provider.answers._until[place] = 0.0


def test_what_exists_and_its_size_are_asked_for_once(tmp_path, plate, counting):
    """Whenever a job ends, Snakemake asks for the inputs of all jobs that are ready."""
    provider = make_provider(tmp_path)
    for _ in range(20):
        for spelling in ("B/3", "B/03"):
            part = provider.object(f"{plate}/{spelling}")
            assert asyncio.run(part.managed_exists())
            assert asyncio.run(part.managed_size()) == part.size() > 0
    assert len(counting.calls) == 2


def test_what_does_not_exist_is_asked_for_each_time(tmp_path, plate):
    provider = make_provider(tmp_path)
    part = provider.object(f"{plate}/C/1")
    assert not asyncio.run(part.managed_exists())
    image = np.zeros((1, 1, 1, 8, 8), "uint16")
    ps.open_plate(plate, "r+").write_image("C/1", 0, image)
    assert asyncio.run(part.managed_exists())


def test_outdated_answers_about_a_plate_are_renewed_by_one_listing(tmp_path, plate, counting):
    provider = make_provider(tmp_path)
    parts = [provider.object(f"{plate}/{path}") for path in ("B/3", "B/4", "B/3/0", "B/4/0")]
    assert all(part.exists() for part in parts)
    expire(provider)
    counting.calls.clear()
    assert all(part.exists() for part in parts)
    assert [verb for verb, _ in counting.calls] == ["survey"]


def test_what_was_removed_by_others_is_noticed_when_answers_are_outdated(tmp_path, plate):
    provider = make_provider(tmp_path)
    part = provider.object(f"{plate}/B/3")
    assert part.exists()
    ps.delete(f"{plate}/B/3")
    expire(provider)
    assert not part.exists()


def test_nothing_is_believed_for_zero_seconds(tmp_path, plate):
    part = make_provider(tmp_path, cache_seconds=0.0).object(f"{plate}/B/3")
    assert part.exists()
    ps.delete(f"{plate}/B/3")
    assert not part.exists()


def test_own_removals_are_seen_at_once_in_all_spellings_and_parts(tmp_path, plate):
    provider = make_provider(tmp_path)
    paths = ("B/3", "B/03", "B/3/0", "B/03/0?c=DAPI", "B/4", "B/4/0")
    parts = [provider.object(f"{plate}/{path}") for path in paths]
    assert all(part.exists() and part.size() for part in parts)
    provider.object(f"{plate}/B/03").remove()
    assert [part.exists() for part in parts] == [False] * 4 + [True] * 2


def test_own_writes_are_seen_at_once(tmp_path):
    provider = make_provider(tmp_path)
    part = provider.object(f"disk://{tmp_path}/out.txt")
    part.local_path().parent.mkdir(parents=True)
    for text in ("short", "a longer text"):
        part.local_path().write_text(text)
        part.store_object()
        assert part.exists()
        assert part.size() == len(text)


def test_writing_a_well_forgets_nothing_of_its_neighbours():
    """Else every job of a plate would have all other wells asked for again."""
    answers = Answers(60)
    for place in ("/p", "/p/B/3", "/p/B/3/0", "/p/B/3?c=1", "/p/B/30", "/p/B/4"):
        answers.found(place)
        answers.sized(place, 1)
    answers.forget("/p/B/3")
    assert [answers.exists(f"/p{x}") for x in ("/B/3", "/B/3/0", "/B/3?c=1")] == [False] * 3
    assert [answers.exists(f"/p{x}") for x in ("/B/30", "/B/4")] == [True] * 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("zarr:///d/p.zarr/B/3", "zarr:///d/p.zarr/B/03"),
        ("zarr:///d/p.zarr/B/3/0", "disk:///d/p.zarr/B/3/0"),
        ("disk:///d/a.txt", "file:///d/a.txt"),
        ("zarr+s3://b/p.zarr/B/3", "zarr+s3://b/p.zarr/B/03"),
    ],
)
def test_spellings_of_one_thing_are_one_place(one, other):
    assert place_of(one) == place_of(other)


def test_things_that_differ_are_different_places():
    queries = [f"zarr:///d/p.zarr{x}" for x in ("", "/B/3", "/B/3/0", "/B/3/0?c=1", "/B/3/0?c=2")]
    queries += ["zarr:d/p.zarr", "zarr+s3://d/p.zarr", "zarr+gs://d/p.zarr", "s3://d/p.tar"]
    assert len({place_of(query) for query in queries}) == len(queries)


def test_stores_are_called_side_by_side(tmp_path, monkeypatch):
    """One after the other, eight retrievals of a second would take eight seconds."""
    from snakemake_storage_plugin_polystore import local

    all_there = threading.Barrier(8, timeout=30)
    link = local.link

    def slow(*args):
        all_there.wait()
        link(*args)

    monkeypatch.setattr(local, "link", slow)
    provider = make_provider(tmp_path)
    parts = [provider.object(f"disk://{tmp_path}/{number}.txt") for number in range(8)]
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(f"{number}")

    async def retrieve():
        await asyncio.gather(*(part.managed_retrieve() for part in parts))

    asyncio.run(retrieve())
    assert [part.local_path().read_text() for part in parts] == [f"{n}" for n in range(8)]
