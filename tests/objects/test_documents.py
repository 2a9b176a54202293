"""JSON documents on an object store: nothing is lost, nothing is made twice."""

from __future__ import annotations

import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import workers

from polystore_flows.errors import (
    CorruptMetadataError,
    FileLockError,
    FileLockTimeoutError,
    MetadataWriteError,
    NotFoundError,
    UnsupportedError,
    URIError,
)
from polystore_flows.metadata import object_document, object_queue, objects
from polystore_flows.metadata.objects import (
    change_object_json,
    is_object_uri,
    read_object_json,
    update_object_json,
    write_object_json,
)


@pytest.fixture
def uri(rig):
    return f"{rig.root}/plate/doc.json"


@pytest.fixture
def hosts(rig, tmp_path):
    """Environments of processes, each with a private folder of its own, as on other hosts."""

    def make(number, *, together=False):
        made = []
        for i in range(number):
            folder = tmp_path / ("one" if together else str(i))
            folder.mkdir(exist_ok=True)
            made.append({**os.environ, "XDG_RUNTIME_DIR": str(folder)})
        return made

    return make


def names(rig):
    listed = rig.backend.list_files(f"s3://{rig.bucket}", recursive=True)
    return [name.rpartition("/")[2] for name in listed]


def test_a_document_is_made_changed_read_and_replaced(rig, uri):
    assert update_object_json(uri, workers.increment) == {"count": 1}
    assert update_object_json(uri, workers.increment, default_data={"count": 7}) == {"count": 2}
    assert read_object_json(uri) == {"count": 2}
    write_object_json(uri, {"µ": 1})
    assert json.loads(rig.backend.read_bytes(uri)) == {"µ": 1}
    assert names(rig) == ["doc.json"]  # the scratch object of the probe is gone


def test_the_default_is_a_copy_and_only_for_a_document_that_is_not_there(uri):
    default = {"count": 7}
    assert update_object_json(uri, workers.increment, default_data=default) == {"count": 8}
    assert default == {"count": 7}


def test_steps_set_merge_and_append_where_things_are_missing(uri):
    steps = [
        ("set", ["a", "b"], 1),
        ("merge", ["a", "c"], {"x": 1, "y": {"z": 2}}),
        ("append", ["list"], 3),
    ]
    change_object_json(uri, steps)
    change_object_json(uri, [("merge", ["a", "c"], {"x": 5}), ("append", ["list"], 4)])
    document = {"a": {"b": 1, "c": {"x": 5, "y": {"z": 2}}}, "list": [3, 4]}
    assert read_object_json(uri) == document


def test_steps_are_made_together_or_not_at_all(uri):
    write_object_json(uri, {"list": [], "text": "x"})
    with pytest.raises(CorruptMetadataError, match="'text' is no JSON object"):
        change_object_json(uri, [("append", ["list"], 1), ("set", ["text", "key"], 2)])
    assert read_object_json(uri) == {"list": [], "text": "x"}


@pytest.mark.parametrize("step", [("remove", ["a"], 1), ("set", [], 1), ("merge", ["a"], 1)])
def test_what_is_no_step_is_refused(uri, step):
    with pytest.raises(ValueError, match="no step"):
        change_object_json(uri, [step])


def test_without_create_a_document_that_is_not_there_is_an_error(rig, uri):
    with pytest.raises(NotFoundError, match=r"doc\.json; create it first"):
        change_object_json(uri, [("set", ["a"], 1)], create=False)
    with pytest.raises(NotFoundError, match=r"doc\.json"):
        read_object_json(uri)
    assert names(rig) == []


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[1]", b'{"a": NaN}', b"\xff"])
def test_a_corrupt_document_raises_and_stays_as_it_was(rig, uri, text):
    rig.backend.write_bytes(text, uri)
    for call in (
        lambda: read_object_json(uri),
        lambda: update_object_json(uri, workers.increment, default_data={}),
        lambda: change_object_json(uri, [("set", ["a"], 1)]),
    ):
        with pytest.raises(CorruptMetadataError, match=r"doc\.json"):
            call()
    assert rig.backend.read_bytes(uri) == text
    write_object_json(uri, {"a": 1})  # says that it replaces whatever is there
    assert read_object_json(uri) == {"a": 1}


def test_what_an_update_raises_is_unchanged_and_nothing_is_written(rig, uri):
    class Mine(Exception):
        pass

    def fail(document):
        document["a"] = 2
        raise Mine

    write_object_json(uri, {"a": 1})
    before = rig.backend.read_bytes(uri)
    with pytest.raises(Mine):
        update_object_json(uri, fail)
    with pytest.raises(TypeError, match="returned None"):
        update_object_json(uri, lambda document: None)
    for wrong in (math.nan, math.inf, object(), {1, 2}):
        with pytest.raises(ValueError, match=r"doc\.json"):
            update_object_json(uri, lambda document, wrong=wrong: {"a": wrong})
        with pytest.raises(ValueError, match=r"doc\.json"):
            change_object_json(uri, [("set", ["a"], wrong)])
    assert rig.backend.read_bytes(uri) == before


def test_an_update_that_changes_nothing_writes_nothing(rig, uri):
    write_object_json(uri, {"a": 1})
    rig.server.reset()
    update_object_json(uri, lambda document: document)
    assert rig.server.requests == {"GET": 1}


def test_one_update_is_one_get_and_one_put(rig, uri):
    update_object_json(uri, workers.increment)
    rig.server.reset()
    update_object_json(uri, workers.increment)
    change_object_json(uri, [("set", ["a"], 1)])
    assert rig.server.requests == {"GET": 2, "PUT": 2}


def test_the_same_text_never_has_the_same_etag(rig, uri):
    """Else a put whose answer was lost could come true after others wrote and wrote back."""
    etags = set()
    for value in (1, 2, 1, 2, 1):
        write_object_json(uri, {"a": value})
        etags.add(rig.backend.read_with_etag(uri)[1])
    assert len(etags) == 5


def test_an_update_inside_an_update_is_refused_and_not_waited_for(uri):
    def nested(document):
        update_object_json(uri, workers.increment, timeout=5)
        return document

    before = time.monotonic()
    with pytest.raises(FileLockError, match="held by this thread already"):
        update_object_json(uri, nested)
    assert time.monotonic() - before < 2


def test_threads_lose_nothing(uri):
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(update_object_json, uri, workers.increment) for _ in range(24)]
        futures += [
            pool.submit(change_object_json, uri, [("set", [f"k{i}"], i)]) for i in range(24)
        ]
        for future in futures:
            future.result()
    document = read_object_json(uri)
    assert document.pop("count") == 24
    assert document == {f"k{i}": i for i in range(24)}


def test_eight_processes_on_eight_hosts_lose_nothing(rig, uri, hosts):
    """Without a queue in common: compare-and-swap alone, 8 × 50 updates."""
    workers.run("closures", uri, 50, hosts(8))
    document = read_object_json(uri)
    assert document["count"] == 400
    assert sorted(document["keys"]) == workers.expected(8, 50)
    assert names(rig) == ["doc.json"]


def test_when_every_tenth_answer_is_lost_each_update_is_made_once(rig, uri, hosts):
    rig.server.lose_every = 10
    workers.run("closures", uri, 15, hosts(8))
    document = read_object_json(uri)
    assert document["count"] == 120
    assert sorted(document["keys"]) == workers.expected(8, 15)


def test_when_answers_to_shared_puts_are_lost_each_update_is_made_once(rig, uri, hosts):
    rig.server.lose_every = 3
    workers.run("steps", uri, 12, [*hosts(4, together=True), *hosts(2)])
    assert sorted(read_object_json(uri)["keys"]) == workers.expected(6, 12)


@pytest.mark.slow
def test_thirty_two_processes_share_puts(rig, uri, hosts):
    rig.server.reset()
    workers.run("steps", uri, 12, hosts(32, together=True))
    puts = rig.server.requests["PUT"]
    assert sorted(read_object_json(uri)["keys"]) == workers.expected(32, 12)
    assert puts <= 40, puts


def test_the_answer_to_the_only_put_may_be_lost(rig, uri):
    write_object_json(uri, {"count": 0})
    rig.server.reset()
    rig.server.lose_every = 1

    def recover(document):
        return workers.increment(document)

    assert update_object_json(uri, recover) == {"count": 1}
    rig.server.lose_every = 0
    assert read_object_json(uri) == {"count": 1}


def test_an_update_that_cannot_be_told_from_lost_is_an_error_not_a_guess(rig, uri, monkeypatch):
    """More updates of others than a document remembers came between a put and the look."""
    monkeypatch.setattr(object_document, "KEPT", 3)
    write_object_json(uri, {"count": 0})
    write = object_document.ObjectDocument.write

    def lost(self, payload, etag, ids):
        monkeypatch.setattr(object_document.ObjectDocument, "write", write)
        write(self, payload, etag, ids)
        for i in range(4):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(objects, "Queue", lambda identity: _NoQueue())
                update_object_json(uri, lambda document, i=i: {**document, "other": i})
        raise object_document.StoreUnavailableError("lost")

    monkeypatch.setattr(object_document.ObjectDocument, "write", lost)
    with pytest.raises(MetadataWriteError, match="may have been applied"):
        update_object_json(uri, workers.increment)
    assert read_object_json(uri) == {"count": 1, "other": 3}


class _NoQueue(object_queue.Queue):
    def __init__(self):
        self._folder = None


def test_without_a_private_folder_steps_are_made_all_the_same(uri, monkeypatch):
    monkeypatch.setattr(objects, "Queue", lambda identity: _NoQueue())
    change_object_json(uri, [("set", ["a"], 1)])
    update_object_json(uri, workers.increment)
    assert read_object_json(uri) == {"a": 1, "count": 1}


def test_what_a_killed_process_had_claimed_is_made_once(rig, uri):
    """It may have died before its put or after it; both lie in the folder the same way."""
    change_object_json(uri, [("append", ["keys"], "first")])
    document = object_document.ObjectDocument(uri)
    queue = object_queue.Queue(document.identity)
    steps = [["append", ["keys"], "made"]], [["append", ["keys"], "not made"]]
    for step in steps:
        queue.publish(object_queue.new_id(), [*step], True)
    made, _ = queue.claim()
    state = document.read()
    payload = objects.encode(uri, {"keys": ["first", "made"]})
    document.write(payload, state.etag, [*state.ids, made.id])
    change_object_json(uri, [("append", ["keys"], "last")])
    keys = read_object_json(uri)["keys"]
    assert sorted(keys) == ["first", "last", "made", "not made"]


@pytest.mark.slow
def test_processes_that_are_killed_lose_no_update_of_others(rig, uri, hosts):
    """Whoever has the turn holds the updates of all; some of the killed had it."""
    environments = hosts(6, together=True)
    victims = 3
    workers.run("steps", uri, 25, environments, kill=victims)
    keys = read_object_json(uri)["keys"]
    assert len(keys) == len(set(keys))
    lasting = [key for key in keys if int(key.partition("-")[0]) >= victims]
    assert sorted(lasting) == sorted(f"{p}-{u}" for p in range(victims, 6) for u in range(25))
    assert len(keys) < 6 * 25  # some were killed in time
    before = time.monotonic()
    change_object_json(uri, [("set", ["after"], True)])
    assert time.monotonic() - before < 1


def test_a_time_out_says_that_nothing_was_written_and_nothing_is(rig, uri):
    write_object_json(uri, {"a": 1})
    queue = object_queue.Queue(object_document.ObjectDocument(uri).identity)
    with ThreadPoolExecutor(2) as pool, queue.turn(5):
        for timeout in (0, 0.2):
            before = time.monotonic()
            calls = [
                pool.submit(change_object_json, uri, [("set", ["a"], 2)], timeout),
                pool.submit(update_object_json, uri, workers.increment, timeout),
            ]
            for call in calls:
                with pytest.raises(FileLockTimeoutError):
                    call.result()
            assert time.monotonic() - before < timeout + 0.5
    assert read_object_json(uri) == {"a": 1}
    change_object_json(uri, [("set", ["b"], 2)])
    assert read_object_json(uri) == {"a": 1, "b": 2}


def test_a_store_that_ignores_conditions_is_refused(rig, uri):
    rig.server.ignore_conditions = True
    for call in (
        lambda: update_object_json(uri, workers.increment),
        lambda: change_object_json(uri, [("set", ["a"], 1)]),
        lambda: write_object_json(uri, {}),
    ):
        with pytest.raises(UnsupportedError, match="does not heed If-None-Match"):
            call()
    assert names(rig) == []


def test_a_store_that_wants_etags_without_quotes_is_served(rig, uri):
    rig.server.only_unquoted = True
    for number in range(3):
        assert update_object_json(uri, workers.increment) == {"count": number + 1}


def test_a_store_is_tried_once_by_all_processes_of_a_host(rig, uri, hosts):
    workers.run("steps", uri, 1, hosts(2, together=True))
    rig.server.reset()
    workers.run("steps", uri, 1, hosts(2, together=True))
    assert rig.server.requests["PUT"] <= 2


def test_only_uris_of_objects_are_for_this_module(tmp_path):
    assert is_object_uri("s3://bucket/key.json")
    assert is_object_uri("GS://bucket/key.json")
    for other in ("zarr+s3://b/p.zarr", "/data/a.json", "disk:///a", tmp_path, "s3:"):
        assert not is_object_uri(other)
    for wrong in ("disk:///a.json", "s3://bucket"):
        with pytest.raises(URIError):
            update_object_json(wrong, workers.increment)
