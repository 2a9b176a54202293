"""JSON documents on an object store: nothing is lost, nothing is made twice."""

from __future__ import annotations

import json
import math
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
from polystore_flows.metadata import (
    AtomicMetadataWriter,
    atomic_update_json,
    atomic_write_json,
    file_lock,
    get_metadata_path,
    object_document,
    object_queue,
    objects,
    read_json,
)
from polystore_flows.metadata.changes import Change
from polystore_flows.metadata.document import apply_change
from polystore_flows.metadata.paths import is_object_uri


@pytest.fixture
def uri(rig):
    return f"{rig.root}/plate/doc.json"


def names(rig):
    listed = rig.backend.list_files(f"s3://{rig.bucket}", recursive=True)
    return [name.rpartition("/")[2] for name in listed]


def test_a_document_is_made_changed_read_and_replaced(rig, uri):
    assert atomic_update_json(uri, workers.increment) == {"count": 1}
    assert atomic_update_json(uri, workers.increment, default_data={"count": 7}) == {"count": 2}
    assert read_json(uri) == {"count": 2}
    atomic_write_json(uri, {"µ": 1})
    assert json.loads(rig.backend.read_bytes(uri)) == {"µ": 1}
    assert names(rig) == ["doc.json"]  # the scratch object of the probe is gone


def test_the_default_is_a_copy_and_only_for_a_document_that_is_not_there(uri):
    default = {"count": 7}
    assert atomic_update_json(uri, workers.increment, default_data=default) == {"count": 8}
    assert default == {"count": 7}


def test_steps_set_merge_and_append_where_things_are_missing(uri):
    change = Change().set("a", "b", value=1).append("list", value=3)
    apply_change(uri, change.merge("a", "c", value={"x": 1, "y": {"z": 2}}), 30)
    apply_change(uri, Change().merge("a", "c", value={"x": 5}).append("list", value=4), 30)
    document = {"a": {"b": 1, "c": {"x": 5, "y": {"z": 2}}}, "list": [3, 4]}
    assert read_json(uri) == document


def test_steps_are_made_together_or_not_at_all(uri):
    atomic_write_json(uri, {"list": [], "text": "x"})
    with pytest.raises(CorruptMetadataError, match="'text' is no JSON object"):
        apply_change(uri, Change().append("list", value=1).set("text", "key", value=2), 30)
    assert read_json(uri) == {"list": [], "text": "x"}


def test_without_create_a_document_that_is_not_there_is_an_error(rig, uri):
    with pytest.raises(NotFoundError, match=r"doc\.json; create it first"):
        apply_change(uri, Change(create=False).set("a", value=1), 30)
    with pytest.raises(NotFoundError, match=r"doc\.json"):
        read_json(uri)
    assert names(rig) == []


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[1]", b'{"a": NaN}', b"\xff"])
def test_a_corrupt_document_raises_and_stays_as_it_was(rig, uri, text):
    rig.backend.write_bytes(text, uri)
    for call in (
        lambda: read_json(uri),
        lambda: atomic_update_json(uri, workers.increment, default_data={}),
        lambda: apply_change(uri, Change().set("a", value=1), 30),
    ):
        with pytest.raises(CorruptMetadataError, match=r"doc\.json"):
            call()
    assert rig.backend.read_bytes(uri) == text
    atomic_write_json(uri, {"a": 1})  # says that it replaces whatever is there
    assert read_json(uri) == {"a": 1}


def test_what_an_update_raises_is_unchanged_and_nothing_is_written(rig, uri):
    class Mine(Exception):
        pass

    def fail(document):
        document["a"] = 2
        raise Mine

    atomic_write_json(uri, {"a": 1})
    before = rig.backend.read_bytes(uri)
    with pytest.raises(Mine):
        atomic_update_json(uri, fail)
    with pytest.raises(TypeError, match="returned None"):
        atomic_update_json(uri, lambda document: None)
    for wrong in (math.nan, math.inf, object(), {1, 2}):
        with pytest.raises(ValueError, match=r"doc\.json"):
            atomic_update_json(uri, lambda document, wrong=wrong: {"a": wrong})
        with pytest.raises(ValueError, match=r"doc\.json"):
            apply_change(uri, Change().set("a", value=wrong), 30)
    assert rig.backend.read_bytes(uri) == before


def test_an_update_that_changes_nothing_writes_nothing(rig, uri):
    atomic_write_json(uri, {"a": 1})
    rig.server.reset()
    atomic_update_json(uri, lambda document: document)
    assert rig.server.requests == {"GET": 1}


def test_one_update_is_one_get_and_one_put(rig, uri):
    atomic_update_json(uri, workers.increment)
    rig.server.reset()
    atomic_update_json(uri, workers.increment)
    apply_change(uri, Change().set("a", value=1), 30)
    assert rig.server.requests == {"GET": 2, "PUT": 2}


def test_the_same_text_never_has_the_same_etag(rig, uri):
    """Else a put whose answer was lost could come true after others wrote and wrote back."""
    etags = set()
    for value in (1, 2, 1, 2, 1):
        atomic_write_json(uri, {"a": value})
        etags.add(rig.backend.read_with_etag(uri)[1])
    assert len(etags) == 5


def test_an_update_inside_an_update_is_refused_and_not_waited_for(uri):
    def nested(document):
        atomic_update_json(uri, workers.increment, timeout=5)
        return document

    before = time.monotonic()
    with pytest.raises(FileLockError, match="held by this thread already"):
        atomic_update_json(uri, nested)
    assert time.monotonic() - before < 2


def test_threads_lose_nothing(uri):
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(atomic_update_json, uri, workers.increment) for _ in range(24)]
        futures += [
            pool.submit(apply_change, uri, Change().set(f"k{i}", value=i), 30) for i in range(24)
        ]
        for future in futures:
            future.result()
    document = read_json(uri)
    assert document.pop("count") == 24
    assert document == {f"k{i}": i for i in range(24)}


def test_eight_processes_on_eight_hosts_lose_nothing(rig, uri, hosts):
    """Without a queue in common: compare-and-swap alone, 8 × 50 updates."""
    workers.run("closures", uri, 50, hosts(8))
    document = read_json(uri)
    assert document["count"] == 400
    assert sorted(document["keys"]) == workers.expected(8, 50)
    assert names(rig) == ["doc.json"]


def test_when_every_tenth_answer_is_lost_each_update_is_made_once(rig, uri, hosts):
    rig.server.lose_every = 10
    workers.run("closures", uri, 15, hosts(8))
    document = read_json(uri)
    assert document["count"] == 120
    assert sorted(document["keys"]) == workers.expected(8, 15)


def test_when_answers_to_shared_puts_are_lost_each_update_is_made_once(rig, uri, hosts):
    rig.server.lose_every = 3
    workers.run("steps", uri, 12, [*hosts(4, together=True), *hosts(2)])
    assert sorted(read_json(uri)["keys"]) == workers.expected(6, 12)


@pytest.mark.slow
def test_thirty_two_processes_share_puts(rig, uri, hosts):
    rig.server.reset()
    workers.run("steps", uri, 12, hosts(32, together=True))
    puts = rig.server.requests["PUT"]
    assert sorted(read_json(uri)["keys"]) == workers.expected(32, 12)
    assert puts <= 40, puts


def test_the_answer_to_the_only_put_may_be_lost(rig, uri):
    atomic_write_json(uri, {"count": 0})
    rig.server.reset()
    rig.server.lose_every = 1

    def recover(document):
        return workers.increment(document)

    assert atomic_update_json(uri, recover) == {"count": 1}
    rig.server.lose_every = 0
    assert read_json(uri) == {"count": 1}


def test_an_update_that_cannot_be_told_from_lost_is_an_error_not_a_guess(rig, uri, monkeypatch):
    """More updates of others than a document remembers came between a put and the look."""
    monkeypatch.setattr(object_document, "KEPT", 3)
    atomic_write_json(uri, {"count": 0})
    write = object_document.ObjectDocument.write

    def lost(self, payload, etag, ids):
        monkeypatch.setattr(object_document.ObjectDocument, "write", write)
        write(self, payload, etag, ids)
        for i in range(4):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(objects, "Queue", lambda identity: _NoQueue())
                atomic_update_json(uri, lambda document, i=i: {**document, "other": i})
        raise object_document.StoreUnavailableError("lost")

    monkeypatch.setattr(object_document.ObjectDocument, "write", lost)
    with pytest.raises(MetadataWriteError, match="may have been applied"):
        atomic_update_json(uri, workers.increment)
    assert read_json(uri) == {"count": 1, "other": 3}


class _NoQueue(object_queue.Queue):
    def __init__(self):
        self._turn = self._folder = None


def test_without_a_private_folder_steps_are_made_all_the_same(uri, monkeypatch):
    monkeypatch.setattr(objects, "Queue", lambda identity: _NoQueue())
    apply_change(uri, Change().set("a", value=1), 30)
    atomic_update_json(uri, workers.increment)
    assert read_json(uri) == {"a": 1, "count": 1}


def test_what_a_killed_process_had_claimed_is_made_once(rig, uri):
    """It may have died before its put or after it; both lie in the folder the same way."""
    apply_change(uri, Change().append("keys", value="first"), 30)
    document = object_document.ObjectDocument(uri)
    queue = object_queue.Queue(document.identity)
    for key in ("made", "not made"):
        queue.publish(object_queue.new_id(), Change().append("keys", value=key).encode(uri))
    made, _ = queue.claim()
    state = document.read()
    payload = objects.encode(uri, {"keys": ["first", "made"]})
    document.write(payload, state.etag, [*state.ids, made.id])
    apply_change(uri, Change().append("keys", value="last"), 30)
    keys = read_json(uri)["keys"]
    assert sorted(keys) == ["first", "last", "made", "not made"]


@pytest.mark.slow
def test_processes_that_are_killed_lose_no_update_of_others(rig, uri, hosts):
    """Whoever has the turn holds the updates of all; some of the killed had it."""
    environments = hosts(6, together=True)
    victims = 3
    workers.run("steps", uri, 25, environments, kill=victims)
    keys = read_json(uri)["keys"]
    assert len(keys) == len(set(keys))
    lasting = [key for key in keys if int(key.partition("-")[0]) >= victims]
    assert sorted(lasting) == sorted(f"{p}-{u}" for p in range(victims, 6) for u in range(25))
    assert len(keys) < 6 * 25  # some were killed in time
    before = time.monotonic()
    apply_change(uri, Change().set("after", value=True), 30)
    assert time.monotonic() - before < 1


def test_a_time_out_says_that_nothing_was_written_and_nothing_is(rig, uri):
    atomic_write_json(uri, {"a": 1})
    queue = object_queue.Queue(object_document.ObjectDocument(uri).identity)
    with ThreadPoolExecutor(2) as pool, queue.turn(5):
        for timeout in (0, 0.2):
            before = time.monotonic()
            calls = [
                pool.submit(apply_change, uri, Change().set("a", value=2), timeout),
                pool.submit(atomic_update_json, uri, workers.increment, timeout),
            ]
            for call in calls:
                with pytest.raises(FileLockTimeoutError):
                    call.result()
            assert time.monotonic() - before < timeout + 0.5
    assert read_json(uri) == {"a": 1}
    apply_change(uri, Change().set("b", value=2), 30)
    assert read_json(uri) == {"a": 1, "b": 2}


def test_a_store_that_ignores_conditions_is_refused(rig, uri):
    rig.server.ignore_conditions = True
    for call in (
        lambda: atomic_update_json(uri, workers.increment),
        lambda: apply_change(uri, Change().set("a", value=1), 30),
        lambda: atomic_write_json(uri, {}),
    ):
        with pytest.raises(UnsupportedError, match="does not heed If-None-Match"):
            call()
    assert names(rig) == []


def test_a_store_that_wants_etags_without_quotes_is_served(rig, uri):
    rig.server.only_unquoted = True
    for number in range(3):
        assert atomic_update_json(uri, workers.increment) == {"count": number + 1}


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
    for wrong in ("omero://host/plate/1", "s3://bucket"):
        with pytest.raises(URIError):
            atomic_update_json(wrong, workers.increment)


def test_the_writer_of_plates_takes_uris(rig):
    path = get_metadata_path(f"{rig.root}/plate/")
    assert path == f"{rig.root}/plate/openhcs_metadata.json"
    writer = AtomicMetadataWriter()
    with pytest.raises(NotFoundError):
        writer.update_available_backends(path, {"disk": True})
    writer.create_or_update_metadata(path, "images", {"main": True}, {"disk": True})
    writer.update_subdirectory_metadata(path, "results", {"main": False})
    writer.merge_subdirectory_metadata(path, {"images": {"wells": 96}})
    writer.update_available_backends(path, {"s3": True})
    assert read_json(path) == {
        "subdirectories": {"images": {"main": True, "wells": 96}, "results": {"main": False}},
        "available_backends": {"s3": True},
    }


def test_an_update_function_gets_back_its_own_change_only(uri):
    """What others asked for is in the put, not in the dict that the function may keep."""
    mine = {"mine": 1}
    queue = object_queue.Queue(object_document.ObjectDocument(uri).identity)
    queue.publish(object_queue.new_id(), Change().set("theirs", value=2).encode(uri))
    assert atomic_update_json(uri, lambda document: mine) == {"mine": 1}
    assert mine == {"mine": 1}
    assert read_json(uri) == {"mine": 1, "theirs": 2}


def test_a_lock_makes_other_writers_of_the_host_wait(uri):
    atomic_write_json(uri, {"count": 1})
    with ThreadPoolExecutor(1) as pool:
        with file_lock(uri):
            document = read_json(uri)
            other = pool.submit(atomic_update_json, uri, workers.increment)
            atomic_write_json(uri, {**document, "a": 1})
            atomic_write_json(uri, {**document, "a": 2})
        assert other.result() == {"count": 2, "a": 2}
    with file_lock(uri, 0), pytest.raises(FileLockError, match="this thread already"):
        atomic_update_json(uri, workers.increment)


def test_what_another_host_wrote_under_a_lock_is_not_overwritten(uri, monkeypatch):
    atomic_write_json(uri, {"count": 1})
    with file_lock(uri):
        with pytest.MonkeyPatch.context() as elsewhere:
            elsewhere.setattr(objects, "Queue", lambda identity: _NoQueue())
            atomic_update_json(uri, workers.increment)
        with pytest.raises(MetadataWriteError, match="another host changed it"):
            atomic_write_json(uri, {"count": 7})
    assert read_json(uri) == {"count": 2}


def test_under_a_lock_a_write_whose_answer_is_lost_is_known_to_be_done(rig, uri):
    atomic_write_json(uri, {"count": 1})
    with file_lock(uri):
        rig.server.reset()
        rig.server.lose_every = 1
        atomic_write_json(uri, {"count": 2})
        rig.server.lose_every = 0
        atomic_write_json(uri, {"count": 3})
    assert read_json(uri) == {"count": 3}
