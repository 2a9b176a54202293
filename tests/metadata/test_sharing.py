"""Sharing a document with old kernels, other users and programs that know less of locks."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import portalocker
import pytest
from crowds import crowd, outputs, start

from polystore_flows.metadata import (
    FileLockError,
    atomic_update_json,
    atomic_write_json,
    file_lock,
    flock,
    notes,
    read_json,
)


def test_a_lock_that_does_not_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some FUSE file systems say yes to everybody."""
    monkeypatch.setattr(portalocker, "lock", lambda fd, flags: None)
    monkeypatch.setattr("polystore_flows.metadata.lock._proven", set())
    began = time.monotonic()
    with pytest.raises(FileLockError, match="do not exclude"), file_lock(tmp_path / "a.json"):
        pass
    assert time.monotonic() - began < 0.1
    with pytest.raises(FileLockError, match="do not exclude"):
        atomic_write_json(tmp_path / "a.json", {})
    assert not (tmp_path / "a.json").exists()


def test_locks_are_proven_once_for_a_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polystore_flows.metadata.lock._proven", set())
    calls: list[int] = []
    real = flock.lock

    def counted(fd: int) -> bool:
        calls.append(fd)
        return real(fd)

    monkeypatch.setattr(flock, "lock", counted)
    for name in "abc":
        with file_lock(tmp_path / name):
            pass
    assert len(calls) == 4


def test_an_old_state_of_the_document_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of NFS may see the replaced file until it asks its server."""
    document = tmp_path / "a.json"
    atomic_write_json(document, {"n": 1})
    stale, status = document.read_bytes(), document.stat()
    time.sleep(0.02)
    atomic_update_json(document, lambda data: {"n": 2})
    fresh = document.read_bytes()
    document.write_bytes(stale)
    os.utime(document, ns=(status.st_mtime_ns, status.st_mtime_ns))
    looks: list[int] = []

    def look(hold: object) -> None:
        looks.append(1)
        if len(looks) == 2:
            document.write_bytes(fresh)

    monkeypatch.setattr("polystore_flows.metadata.document.look_again", look)
    assert atomic_update_json(document, lambda data: {"n": data["n"] + 1}) == {"n": 3}


def test_a_copy_that_was_restored_is_accepted_in_the_end(tmp_path: Path) -> None:
    """Its time is old too, but it is what there is."""
    document = tmp_path / "a.json"
    atomic_write_json(document, {"n": 1})
    document.write_text('{"n": 5}')
    os.utime(document, (1, 1))
    assert atomic_update_json(document, lambda data: {"n": data["n"] + 1}) == {"n": 6}


def test_the_lock_file_is_readable_and_says_nothing_false_after_a_commit(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {"n": 1})
    record = (tmp_path / "a.json.lock").read_bytes()
    said = notes.parse(record)
    assert said is not None
    assert said[0] is None  # nobody holds it
    assert said[1].batch is None
    content = (tmp_path / "a.json").read_bytes()
    assert said[1].seen["a.json"][:2] == notes.checksum(content)
    assert len(record) < 300


AS_USER = """
import os, sys
from polystore_flows.metadata import AtomicMetadataWriter, atomic_update_json
user, mask, path, name = int(sys.argv[1]), int(sys.argv[2], 8), sys.argv[3], sys.argv[4]
os.umask(mask)
os.setgroups([5000]); os.setgid(user); os.setuid(user)
for number in range(20):
    AtomicMetadataWriter(30).merge_subdirectory_metadata(path, {f"{name}{number}": {"n": 1}})
    atomic_update_json(path, lambda data: {**data, name: data.get(name, 0) + 1}, 30)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mask", ["002", "022"])
def test_two_users_share_a_document_in_a_setgid_folder(mask: str) -> None:
    """A lock file made under umask 022 must be of use to the other member of the group too."""
    with TemporaryDirectory() as place:  # pytest's own folders are closed to others
        Path(place).chmod(0o755)
        folder = Path(place, "shared")
        folder.mkdir()
        os.chown(folder, 0, 5000)
        folder.chmod(0o2775)
        document = folder / "a.json"
        atomic_write_json(document, {})
        os.chown(document, 60001, 5000)
        document.chmod(0o664)
        Path(f"{document}.lock").unlink()
        processes = [start(AS_USER, user, mask, document, f"user{user}") for user in (60001, 60002)]
        outputs(processes)
        data = read_json(document)
        assert len(data["subdirectories"]) == 40
        assert (data["user60001"], data["user60002"]) == (20, 20)
        status = document.stat()
        assert status.st_gid == 5000
        assert status.st_mode & 0o777 == 0o664
        lock = Path(f"{document}.lock").stat()
        assert lock.st_gid == 5000
        assert lock.st_mode & 0o060 == 0o060
        assert sorted(path.name for path in folder.iterdir()) == ["a.json", "a.json.lock"]


def test_a_program_with_its_own_flock_on_the_lock_file_loses_nothing(tmp_path: Path) -> None:
    """So polystore 0.6.3 does: flock, read, write beside, replace; no notes, no queue."""
    script = """
import fcntl, json, os, sys
path = sys.argv[1]
for number in range(100):
    fd = os.open(path + ".lock", os.O_CREAT | os.O_WRONLY, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with open(path) as file:
        data = json.load(file)
    data["theirs"] = data.get("theirs", 0) + 1
    with open(path + ".own", "w") as file:
        json.dump(data, file)
    os.replace(path + ".own", path)
    os.close(fd)
"""
    document = tmp_path / "a.json"
    atomic_write_json(document, {})
    foreign = start(script, document)
    ours = crowd(document, 3, 40)
    outputs([foreign, *ours])
    data = read_json(document)
    assert data["theirs"] == 100
    assert len(data["log"]) == len(set(data["log"])) == 120


@pytest.mark.slow
@pytest.mark.skipif("POLYSTORE_PEER" not in os.environ, reason="no Python with polystore 0.6.3")
def test_polystore_itself_and_we_lose_none_of_each_others_updates(tmp_path: Path) -> None:
    """``POLYSTORE_PEER`` names a Python that has it; it is no dependency of ours."""
    script = """
import sys
from polystore.metadata_writer import AtomicMetadataWriter
for number in range(100):
    AtomicMetadataWriter(60).merge_subdirectory_metadata(sys.argv[1], {f"t{number}": {"n": 1}})
"""
    document = tmp_path / "a.json"
    atomic_write_json(document, {})
    command = [os.environ["POLYSTORE_PEER"], "-c", script, str(document)]
    peers = [subprocess.Popen(command) for _ in range(2)]
    ours = crowd(document, 3, 60)
    outputs(ours)
    assert [peer.wait(120) for peer in peers] == [0, 0]
    data = read_json(document)
    assert set(data["subdirectories"]) == {f"t{number}" for number in range(100)}
    assert len(data["log"]) == len(set(data["log"])) == 180
