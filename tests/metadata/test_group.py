"""Updates that wait together are committed together, each exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from crowds import crowd, outputs, start, wait_until, waiters

from polystore_flows.errors import CorruptMetadataError
from polystore_flows.metadata import (
    AtomicMetadataWriter,
    FileLockTimeoutError,
    MetadataWriteError,
    atomic_update_json,
    atomic_write_json,
    file_lock,
    notes,
    queue,
    read_json,
)
from polystore_flows.metadata.changes import Change
from polystore_flows.metadata.document import apply_change
from polystore_flows.metadata.layout import Draft


def test_1600_updates_of_32_processes_need_at_most_160_commits(tmp_path: Path) -> None:
    document = tmp_path / "a.json"
    wells = {f"well{index}": {"done": False} for index in range(1536)}
    atomic_write_json(document, {"subdirectories": wells})
    commits = sum(map(int, outputs(crowd(document, 32, 50))))
    log = read_json(document)["log"]
    assert sorted(log) == sorted(
        f"p{index}-{number}" for index in range(32) for number in range(50)
    )
    for index in range(32):  # each process's own updates in the order in which it made them
        own = [entry for entry in log if entry.startswith(f"p{index}-")]
        assert own == sorted(own, key=lambda entry: int(entry.split("-")[1]))
    assert commits <= 160
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.json.lock"]
    assert waiters(document) == []


def test_a_holder_takes_along_what_waits_and_readers_see_all_of_it_or_nothing(
    tmp_path: Path,
) -> None:
    document = tmp_path / "a.json"
    atomic_write_json(document, {})
    processes = []

    def slow(data: dict[str, Any]) -> dict[str, Any]:
        processes.extend(crowd(document, 3, 1))
        wait_until(lambda: sum(name.endswith(".json") for name in waiters(document)) == 3)
        assert read_json(document) == {}
        return data | {"mine": True}

    assert atomic_update_json(document, slow) == {"mine": True}  # theirs is not in my dict
    assert outputs(processes) == ["0", "0", "0"]
    assert sorted(read_json(document)["log"]) == ["p0-0", "p1-0", "p2-0"]


def test_threads_are_taken_along_too(tmp_path: Path) -> None:
    document = tmp_path / "a.json"

    def work(name: int) -> None:
        for number in range(20):
            if name % 2:
                key = f"c{name}-{number}"
                atomic_update_json(document, lambda data, key=key: data | {key: 1})
            else:
                apply_change(document, Change().append("log", value=f"{name}-{number}"), 30)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = read_json(document)
    assert len(data.pop("log")) == 60
    assert len(data) == 60


def test_an_update_that_fails_for_its_own_reasons_fails_alone(tmp_path: Path) -> None:
    """Its neighbours in the same commit must not hear of it."""
    document = tmp_path / "a.json"
    atomic_write_json(document, {"log": [], "bad": 1})
    errors: list[BaseException] = []

    def wrong() -> None:
        try:
            apply_change(document, Change().append("bad", value=1), 30)
        except CorruptMetadataError as error:
            errors.append(error)

    threads = [threading.Thread(target=wrong)]
    threads += [
        threading.Thread(target=apply_change, args=(document, Change().append("log", value=n), 30))
        for n in range(3)
    ]

    def gather(data: dict[str, Any]) -> dict[str, Any]:
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(name.endswith(".json") for name in waiters(document)) >= 4)
        return data

    atomic_update_json(document, gather)
    for thread in threads:
        thread.join()
    assert "'bad' is no JSON array" in str(errors[0])
    assert sorted(read_json(document)["log"]) == [0, 1, 2]
    assert read_json(document)["bad"] == 1


STOP = """
import os, sys, time
from polystore_flows.metadata import atomic_update_json
def hold(*args):
    print("claimed", flush=True)
    time.sleep(600)
def change(document):
    print("locked", flush=True)
    sys.stdin.readline()
    os.fdatasync = hold
    return document
atomic_update_json(sys.argv[1], change)
"""


def test_a_timeout_says_whether_the_update_may_still_be_applied(tmp_path: Path) -> None:
    document = tmp_path / "a.json"
    atomic_write_json(document, {})
    holder = start(STOP, document)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "locked\n"
    writer = AtomicMetadataWriter(timeout=0.5)
    took = []
    for _ in range(4):  # the machine may be busy with something else now and then
        began = time.monotonic()
        with pytest.raises(FileLockTimeoutError, match="nothing was written") as caught:
            writer.update_subdirectory_metadata(document, "before", {})
        took.append(time.monotonic() - began)
    assert 0.5 <= min(took) < 0.7
    assert f"process {holder.pid} on {notes.HOST}" in str(caught.value)
    texts: list[str] = []

    def late() -> None:
        try:
            AtomicMetadataWriter(timeout=3).update_subdirectory_metadata(document, "taken", {})
        except FileLockTimeoutError as error:
            texts.append(str(error))

    thread = threading.Thread(target=late)
    thread.start()
    wait_until(lambda: any(name.endswith(".json") for name in waiters(document)))
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "claimed\n"
    thread.join()
    assert "may still be applied" in texts[0]
    holder.kill()
    holder.communicate()
    atomic_update_json(document, lambda data: data | {"next": 1}, timeout=1)
    assert read_json(document) == {"next": 1}  # what was withdrawn is never applied
    assert waiters(document) == []


def test_a_waiter_that_is_killed_is_forgotten(tmp_path: Path) -> None:
    """Its update must not turn up in a commit of next week."""
    document = tmp_path / "a.json"
    atomic_write_json(document, {})
    with file_lock(document):
        processes = crowd(document, 2, 1)
        wait_until(lambda: len(waiters(document)) == 4)
        processes[0].send_signal(signal.SIGKILL)
        processes[0].communicate()
    outputs(processes[1:])
    assert read_json(document) == {"log": ["p1-0"]}
    assert waiters(document) == []


def test_a_waiter_that_is_stopped_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """It is the first in line, but calls to it would not be heard."""
    document = tmp_path / "a.json"
    with file_lock(document):
        (stopped,) = crowd(document, 1, 1)
        wait_until(lambda: len(waiters(document)) == 2)
        stopped.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    outputs(crowd(document, 8, 40))
    assert time.monotonic() - began < 10
    stopped.send_signal(signal.SIGCONT)
    outputs([stopped])
    assert len(set(read_json(document)["log"])) == 320  # p0-0 is in there twice: two processes
    assert len(read_json(document)["log"]) == 321


def test_what_killed_waiters_of_vanished_documents_left_is_removed(tmp_path: Path) -> None:
    """As they leave it behind in a place of its own: other processes here tidy theirs as well."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder, living = tmp_path / "fe00-1", tmp_path / "fe00-2"
    for made in (folder, living):
        made.mkdir()
        for name in (f"1-{dead.pid}-a.update", f"2-{dead.pid}-b.turn", "3-c.update", "other"):
            os.mkfifo(made / name)
        (made / f"1-{dead.pid}-a.json").write_bytes(b"{}")
    waiter = os.open(living / f"2-{dead.pid}-b.turn", os.O_RDWR | os.O_NONBLOCK)
    os.mkfifo(living / f"4-{os.getpid()}-d.update")  # which that process has yet to open
    queue._tidy(str(tmp_path))
    assert not folder.exists()
    left = [f"2-{dead.pid}-b.turn", f"4-{os.getpid()}-d.update"]
    assert queue.Queue(str(living)).names() == left
    assert queue.Queue(str(living)).is_contended(left)
    assert not queue.Queue(str(living)).is_contended(left[1:])
    os.close(waiter)


def test_closures_wait_in_line_and_are_not_overtaken_for_long(tmp_path: Path) -> None:
    """A crowd that is always there must not starve one who needs the lock itself."""
    document = tmp_path / "a.json"
    processes = crowd(document, 8, 60)
    waits, overtaken = [], []
    for _ in range(10):
        before = len(read_json(document).get("log", ())) if document.exists() else 0
        began = time.monotonic()
        atomic_update_json(document, lambda data: data | {"n": data.get("n", 0) + 1})
        waits.append(time.monotonic() - began)
        overtaken.append(len(read_json(document).get("log", ())) - before)
    outputs(processes)
    assert max(waits) < 1
    assert max(overtaken) < 120, overtaken  # of 480
    assert read_json(document)["n"] == 10
    assert len(read_json(document)["log"]) == 480


@pytest.mark.parametrize("broken", ["none", "full"])
def test_without_a_queue_updates_are_committed_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The private folder may be missing, forbidden or full: the lock alone excludes."""
    document = tmp_path / "a.json"
    if broken == "none":
        monkeypatch.setattr(queue, "_root", lambda user: None)
    else:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "mkfifo", full)

    def work(name: int) -> None:
        for number in range(10):
            apply_change(document, Change().append("log", value=[name, number]), 30)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_json(document)["log"]) == 40


def test_a_queue_that_others_can_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody could put updates there."""
    monkeypatch.setattr(queue.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(queue, "_SHARED_MEMORY", str(tmp_path / "missing"))
    user = os.geteuid()
    folder = tmp_path / f"polystore-flows-{user}"
    root = queue._root.__wrapped__
    assert root(user) == str(folder)
    folder.chmod(0o770)
    assert root(user) is None
    folder.rmdir()
    folder.symlink_to(tmp_path)
    assert root(user) is None


def test_an_unsynced_folder_is_told_to_everybody_in_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "a.json"
    atomic_write_json(document, {})
    texts: list[str] = []

    def follow() -> None:
        try:
            apply_change(document, Change().append("log", value=1), 30)
        except MetadataWriteError as error:
            texts.append(str(error))

    thread = threading.Thread(target=follow)

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    def gather(data: dict[str, Any]) -> dict[str, Any]:
        thread.start()
        wait_until(lambda: any(name.endswith(".json") for name in waiters(document)))
        monkeypatch.setattr(os, "fsync", fail)
        return data

    with pytest.raises(MetadataWriteError, match="is visible"):
        atomic_update_json(document, gather)
    thread.join()
    assert "is visible" in texts[0]
    assert read_json(document) == {"log": [1]}


VALUES: list[Any] = [
    {"a": {"x": 1, "y": {"z": [1]}}, "b": [], "c": 3},
    {
        "a": {"long": {"n" * 50: "v" * 50, "list": [["w" * 90], {}]}, "x": "{"},
        "b": ["x" * 99],
        "c": "[",
    },
    {"b": {}, "a": {"x": None, "q": "\n  }\u2028"}, "c": [{"k": "é" * 90}, [["[" * 90]]]},
    {"a": {"x": "half \ud83d"}, "b": [1], "c": 1e22},
]


@pytest.mark.parametrize("data", VALUES)
@pytest.mark.parametrize("adopted", [False, True])
def test_the_text_after_many_changes_is_that_of_the_whole_document(
    data: dict[str, Any], adopted: bool
) -> None:
    """The text of untouched entries is kept; it must never be stale."""
    draft = Draft(json.loads(json.dumps(data)))
    changes = [(["a", "x"], 2), (["a", "new"], "é"), (["b"], {"k": {}}), (["c"], 1.5)]
    for path, value in changes:
        content = draft.render()
        assert json.loads(content) == draft.data
        if adopted:
            lazy = Draft.of(content)
            assert lazy is not None
            draft = lazy
            assert json.loads(draft.render()) == json.loads(content)
            for name in draft.data:
                draft.load([name])
        draft.touch(path)
        inside = draft.data
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = value
        assert draft.render() == Draft(draft.data).render()
