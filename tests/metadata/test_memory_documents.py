"""Documents in memory are changed as those on object stores, by threads of this process only."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from polystore_flows.errors import FileLockTimeoutError
from polystore_flows.metadata import atomic_update_json, atomic_write_json, file_lock, read_json
from polystore_flows.metadata.changes import Change
from polystore_flows.metadata.document import apply_change


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return f"memory://{uuid.uuid4().hex}/doc.json"


def add_one(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "count": document.get("count", 0) + 1}


def test_no_update_of_any_thread_is_lost_and_nothing_is_written_on_disk(
    uri: str, tmp_path: Path
) -> None:
    def work(number: int) -> None:
        for i in range(25):
            atomic_update_json(uri, add_one)
            change = Change().append("names", value=f"{number}-{i}")
            apply_change(uri, change, 30)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    document = read_json(uri)
    assert document["count"] == 200
    assert len(set(document["names"])) == 200
    assert list(tmp_path.iterdir()) == []


def test_a_lock_keeps_other_threads_out(uri: str) -> None:
    atomic_write_json(uri, {})
    entered, leave = Event(), Event()

    def hold() -> None:
        with file_lock(uri):
            entered.set()
            leave.wait(30)
            atomic_write_json(uri, {"held": True})

    thread = Thread(target=hold)
    thread.start()
    entered.wait(30)
    with pytest.raises(FileLockTimeoutError):
        atomic_update_json(uri, add_one, timeout=0)
    leave.set()
    thread.join()
    assert atomic_update_json(uri, add_one) == {"held": True, "count": 1}
