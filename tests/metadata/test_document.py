"""Read-modify-write of one document by many: nothing lost, nothing torn, nothing left."""

from __future__ import annotations

import asyncio
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

from polystore_flows.errors import CorruptMetadataError, NotFoundError, URIError
from polystore_flows.metadata import (
    FileLockError,
    MetadataWriteError,
    atomic_update_json,
    atomic_write_json,
    read_json,
)

INCREMENT = """
import sys
from polystore_flows.metadata import atomic_update_json
def add(document):
    return document | {"n": document.get("n", 0) + 1, sys.argv[3]: True}
for _ in range(int(sys.argv[2])):
    atomic_update_json(sys.argv[1], add, timeout=60)
"""


def start(script: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def add_one(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "n": document.get("n", 0) + 1}


def state(path: Path) -> tuple[int, ...]:
    """What tells one state of a file from others; not when it was read."""
    status = path.stat()
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def open_files() -> int:
    table = Path("/proc/self/fd")
    return len(list(table.iterdir())) if table.exists() else 0


def test_eight_processes_lose_no_update_and_a_reader_sees_no_torn_document(tmp_path: Path) -> None:
    document = tmp_path / "a.json"
    atomic_write_json(document, {"n": 0, "ballast": list(range(2000))})
    processes = [start(INCREMENT, document, 50, f"p{index}") for index in range(8)]
    seen = [0]
    while any(process.poll() is None for process in processes):
        seen.append(read_json(document)["n"])  # raises if torn
        time.sleep(0.001)
    for process in processes:
        assert process.returncode == 0, process.communicate()[1]
        process.communicate()
    assert read_json(document)["n"] == 400
    assert {f"p{index}" for index in range(8)} <= set(read_json(document))
    assert seen == sorted(seen)
    assert len(set(seen)) > 5
    assert names(tmp_path) == ["a.json", "a.json.lock"]


def test_four_threads_lose_no_update(tmp_path: Path) -> None:
    document = tmp_path / "a.json"

    def work() -> None:
        for _ in range(50):
            atomic_update_json(document, add_one)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_json(document) == {"n": 200}


def test_asyncio_tasks_update_through_to_thread(tmp_path: Path) -> None:
    """A running event loop may call this: nothing in it starts one."""

    async def main() -> None:
        update = asyncio.to_thread(atomic_update_json, tmp_path / "a.json", add_one)
        more = [asyncio.to_thread(atomic_update_json, tmp_path / "a.json", add_one) for _ in "abcd"]
        await asyncio.gather(update, *more)

    asyncio.run(main())
    assert read_json(tmp_path / "a.json") == {"n": 5}


# What is replaced, and whether the update is in the document after a death at that point.
STEPS = {
    "os.write": False,
    "os.fdatasync": False,
    "os.fchmod": False,
    "os.replace": False,
    "os.fsync": True,
    "os.ftruncate": True,
}
DIE = """
import os, signal, sys
from polystore_flows.metadata import atomic_update_json
name = sys.argv[2].removeprefix("os.")
def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, name, die)
atomic_update_json(sys.argv[1], lambda document: {**document, "new": 1})
"""


@pytest.mark.parametrize(("step", "visible"), STEPS.items())
def test_a_writer_killed_at_any_step_blocks_nobody_and_leaves_one_file_for_the_next(
    tmp_path: Path, step: str, visible: bool
) -> None:
    document = tmp_path / "a.json"
    atomic_write_json(document, {"old": 1})
    process = start(DIE, document, step)
    assert process.wait(30) == -signal.SIGKILL
    process.communicate()
    assert read_json(document) == ({"old": 1, "new": 1} if visible else {"old": 1})
    assert len(names(tmp_path)) == (2 if visible else 3)
    began = time.monotonic()
    atomic_update_json(document, lambda data: {**data, "next": 1})
    assert time.monotonic() - began < 5
    assert "next" in read_json(document)
    assert names(tmp_path) == ["a.json", "a.json.lock"]


def test_temporary_files_of_other_documents_and_of_live_writers_stay(tmp_path: Path) -> None:
    """The sweep goes by this document's name, and b.json's lock is not ours."""
    document = tmp_path / "a.json"
    process = start(DIE, document, "os.write")
    assert process.wait(30) == -signal.SIGKILL
    process.communicate()
    (stray,) = (name for name in names(tmp_path) if name.endswith(".tmp"))
    others = [".a.json.b" + stray.removeprefix(".a.json"), "a.json.tmp", ".a.json.swp"]
    others += [stray.replace("a.json", "b.json"), stray.replace("a.json", "a.json.x")]
    for name in others:
        (tmp_path / name).touch()
    atomic_update_json(document, add_one)
    assert names(tmp_path) == sorted([*others, "a.json", "a.json.lock"])


def test_after_a_power_cut_that_took_the_signature_the_next_writer_sweeps(tmp_path: Path) -> None:
    """The lock file is never synced: an old one without a signature proves nothing."""
    document = tmp_path / "a.json"
    atomic_write_json(document, {})
    stray = tmp_path / ".a.json.host-1-0123456789abcdef.tmp"
    stray.touch()
    atomic_update_json(document, add_one)
    assert stray.exists()  # no sign of a crash: folders with 100,000 files are not listed
    os.utime(tmp_path / "a.json.lock", (1, 1))  # last used before this host started
    atomic_update_json(document, add_one)
    assert not stray.exists()


KILLS = """
import os, random, signal, sys, time
from polystore_flows.metadata import atomic_update_json, file_lock
import portalocker
path, rounds = sys.argv[1], int(sys.argv[2])
random.seed(7)
acknowledged = []
for round in range(rounds):
    read, write = os.pipe()
    children = []
    for writer in range(2):
        child = os.fork()
        if child == 0:
            for number in range(10**6):
                key = f"{round}-{writer}-{number}"
                atomic_update_json(path, lambda data: {**data, key: "x" * 50}, timeout=60)
                os.write(write, (key + chr(10)).encode())
        children.append(child)
    time.sleep(random.uniform(0.005, 0.03))
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(write)
    with open(read) as pipe:
        acknowledged += pipe.read().split()
print(*acknowledged)
"""


def test_a_hundred_and_twenty_kills_lose_no_acknowledged_update_and_leave_nothing(
    tmp_path: Path,
) -> None:
    document = tmp_path / "a.json"
    process = start(KILLS, document, 60)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    acknowledged = out.split()
    assert len(acknowledged) > 30
    assert set(acknowledged) <= set(read_json(document))
    atomic_update_json(document, add_one, timeout=5)
    assert names(tmp_path) == ["a.json", "a.json.lock"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" \n",
        b'{"a": 1',
        b'{"a": 1}}',
        b"null",
        b"[1, 2]",
        b'"text"',
        b'{"a": "\xff"}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"\0" * 64,
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_corrupt_document_raises_and_stays_byte_for_byte(tmp_path: Path, content: bytes) -> None:
    """The older package put its default in the place of such a document."""
    document = tmp_path / "a.json"
    document.write_bytes(content)
    inode = document.stat().st_ino
    for attempt in (
        lambda: read_json(document),
        lambda: atomic_update_json(document, add_one),
        lambda: atomic_update_json(document, add_one, default_data={"n": 7}),
    ):
        with pytest.raises(CorruptMetadataError) as caught:
            attempt()
        assert str(document) in str(caught.value)
    assert document.read_bytes() == content
    assert document.stat().st_ino == inode


def test_a_byte_order_mark_is_no_corruption(tmp_path: Path) -> None:
    """Windows editors write one."""
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"n": 1}')
    assert atomic_update_json(tmp_path / "a.json", add_one) == {"n": 2}


def test_errors_of_the_update_function_reach_the_caller_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    document = tmp_path / "a.json"
    atomic_write_json(document, {"n": 1})
    before = state(document)
    error = KeyError("mine")

    def fail(data: dict[str, Any]) -> dict[str, Any]:
        data["n"] = 99
        raise error

    with pytest.raises(KeyError) as caught:
        atomic_update_json(document, fail)
    assert caught.value is error
    assert state(document) == before
    assert atomic_update_json(document, add_one, timeout=0) == {"n": 2}


@pytest.mark.parametrize("returned", [None, [], "text", 1])
def test_an_update_function_that_returns_no_dict_is_a_type_error(
    tmp_path: Path, returned: Any
) -> None:
    """Most who return None have changed the dict in place and forgot the return."""
    atomic_write_json(tmp_path / "a.json", {"n": 1})
    with pytest.raises(TypeError, match="must return the new document"):
        atomic_update_json(tmp_path / "a.json", lambda data: returned)
    assert read_json(tmp_path / "a.json") == {"n": 1}


def test_an_unwritable_result_leaves_the_document(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {"n": 1})
    with pytest.raises(ValueError, match="/wells/A1/mean is nan"):
        atomic_update_json(
            tmp_path / "a.json", lambda data: {"wells": {"A1": {"mean": float("nan")}}}
        )
    assert read_json(tmp_path / "a.json") == {"n": 1}
    assert names(tmp_path) == ["a.json", "a.json.lock"]


def test_the_default_is_given_as_a_copy_and_only_where_nothing_is(tmp_path: Path) -> None:
    default: dict[str, Any] = {"wells": []}

    def append(data: dict[str, Any]) -> dict[str, Any]:
        data["wells"].append(len(data["wells"]))
        return data

    assert atomic_update_json(tmp_path / "a.json", append, default_data=default) == {"wells": [0]}
    assert atomic_update_json(tmp_path / "a.json", append, 5, default) == {"wells": [0, 1]}
    assert default == {"wells": []}
    with pytest.raises(TypeError, match="default_data"):
        atomic_update_json(tmp_path / "b.json", append, default_data=[])  # type: ignore[arg-type]
    assert not (tmp_path / "b.json").exists()


def test_without_a_default_the_update_function_gets_an_empty_dict(tmp_path: Path) -> None:
    got: list[dict[str, Any]] = []
    atomic_update_json(tmp_path / "a.json", lambda data: got.append(dict(data)) or {"n": 1})
    assert got == [{}]


def test_a_writer_that_takes_no_lock_is_noticed_and_the_update_made_again(tmp_path: Path) -> None:
    """An editor or an older program saves between our reading and our replacing."""
    document = tmp_path / "a.json"
    atomic_write_json(document, {"n": 1})
    calls: list[dict[str, Any]] = []

    def change(data: dict[str, Any]) -> dict[str, Any]:
        calls.append(dict(data))
        if len(calls) == 1:
            document.write_text('{"n": 10, "foreign": true}')
        return {**data, "n": data["n"] + 1}

    assert atomic_update_json(document, change) == {"n": 11, "foreign": True}
    assert calls == [{"n": 1}, {"n": 10, "foreign": True}]
    assert read_json(document) == {"n": 11, "foreign": True}
    assert names(tmp_path) == ["a.json", "a.json.lock"]


def test_a_document_made_or_removed_by_a_foreign_writer_is_noticed_too(tmp_path: Path) -> None:
    document = tmp_path / "a.json"
    calls: list[dict[str, Any]] = []

    def change(data: dict[str, Any]) -> dict[str, Any]:
        calls.append(dict(data))
        if len(calls) == 1:
            document.write_text('{"n": 5}')
        elif len(calls) == 2:
            document.unlink()
        return {**data, "mine": True}

    assert atomic_update_json(document, change) == {"mine": True}
    assert calls == [{}, {"n": 5}, {}]


def test_a_foreign_writer_without_end_is_an_error_and_is_not_overwritten(tmp_path: Path) -> None:
    document = tmp_path / "a.json"
    calls: list[int] = []

    def change(data: dict[str, Any]) -> dict[str, Any]:
        calls.append(1)
        document.write_text(json.dumps({"foreign": "x" * len(calls)}))
        return data

    with pytest.raises(MetadataWriteError, match="does not take its lock"):
        atomic_update_json(document, change)
    assert read_json(document) == {"foreign": "x" * len(calls)}
    assert 2 <= len(calls) <= 50


def test_a_foreign_writer_that_corrupts_the_document_is_told_and_not_repaired(
    tmp_path: Path,
) -> None:
    document = tmp_path / "a.json"
    atomic_write_json(document, {"n": 1})

    def change(data: dict[str, Any]) -> dict[str, Any]:
        document.write_text('{"half": ')
        return data

    with pytest.raises(CorruptMetadataError):
        atomic_update_json(document, change)
    assert document.read_text() == '{"half": '


def test_an_update_inside_an_update_of_the_same_document_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "a.json"
    for inner in (lambda: atomic_update_json(document, add_one), lambda: write(document)):
        with pytest.raises(FileLockError, match="this thread"):
            atomic_update_json(document, lambda data, inner=inner: inner())
    assert not document.exists()
    atomic_update_json(
        document, lambda data: {"other": atomic_update_json(tmp_path / "b.json", add_one)}
    )
    assert read_json(document) == {"other": {"n": 1}}


def write(document: Path) -> dict[str, Any]:
    atomic_write_json(document, {})
    return {}


def test_two_paths_to_one_document_update_one_document(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "link.json").symlink_to("folder/a.json")
    atomic_update_json(tmp_path / "real/a.json", add_one)
    atomic_update_json(tmp_path / "folder/a.json", add_one)
    atomic_update_json(tmp_path / "link.json", add_one)
    assert read_json(tmp_path / "real/a.json") == {"n": 3}
    assert (tmp_path / "link.json").is_symlink()
    assert names(tmp_path / "real") == ["a.json", "a.json.lock"]
    assert names(tmp_path) == ["folder", "link.json", "real"]


def test_in_a_zarr_hierarchy_nothing_but_the_document_is_ever_written(tmp_path: Path) -> None:
    document = tmp_path / "p.zarr/B/3/zarr.json"
    inside: list[list[str]] = []

    def look(data: dict[str, Any]) -> dict[str, Any]:
        inside.append(names(document.parent))
        return add_one(data)

    atomic_update_json(document, look)
    process = start(DIE, document, "os.fdatasync")
    assert process.wait(30) == -signal.SIGKILL
    process.communicate()
    assert names(document.parent) == ["zarr.json"]
    assert len(names(tmp_path)) == 3
    atomic_update_json(document, look)
    assert inside == [[], ["zarr.json"]]
    assert names(document.parent) == ["zarr.json"]
    assert names(tmp_path) == [".p.zarr.lock", "p.zarr"]


def test_reading_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("a.json", "no/a.json", "file/a.json", "loop", "dangling", "x" * 300, "."):
        with pytest.raises(NotFoundError) as caught:
            read_json(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
        assert isinstance(caught.value, FileNotFoundError)


def test_reading_leaves_no_trace_and_no_open_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"b": [1]}')
    (tmp_path / "folder").mkdir()
    before = open_files()
    assert read_json(str(tmp_path / "a.json")) == {"b": [1]}
    with pytest.raises(NotFoundError):
        read_json(tmp_path / "folder")
    assert open_files() == before
    assert names(tmp_path) == ["a.json", "folder"]


def test_a_document_that_cannot_be_read_is_not_taken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older package reported success on EIO and destroyed the content."""
    document = tmp_path / "a.json"
    atomic_write_json(document, {"n": 1})
    real = os.open

    def broken(path: str, flags: int, *args: int, **kwargs: int) -> int:
        if os.fspath(path) == str(document):
            raise OSError(5, "Input/output error", path)
        return real(path, flags, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", broken)
        with pytest.raises(MetadataWriteError, match="could not be read") as caught:
            atomic_update_json(document, add_one, default_data={"n": 50})
        assert str(document) in str(caught.value)
        with pytest.raises(OSError, match="Input/output"):
            read_json(document)
    assert read_json(document) == {"n": 1}


def test_other_uris_are_refused() -> None:
    for call in (read_json, lambda uri: atomic_update_json(uri, add_one)):
        with pytest.raises(URIError, match="a document is a local path"):
            call("omero://host/a.json")
