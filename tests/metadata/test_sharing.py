"""Sharing a document with old kernels, other users and programs that know less of locks."""

from __future__ import annotations

import errno
import fcntl
import os
import runpy
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import portalocker
import pytest
from crowds import crowd, outputs, start

from polystore_flows.metadata import (
    FileLockError,
    FileLockTimeoutError,
    atomic_update_json,
    atomic_write_json,
    file_lock,
    flock,
    mounts,
    notes,
    read_json,
)
from polystore_flows.metadata.changes import Change
from polystore_flows.metadata.document import apply_change


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of the locks of file systems."""
    monkeypatch.setattr("polystore_flows.metadata.lock._shared", set())
    monkeypatch.setattr("polystore_flows.metadata.lock._proven", set())


def test_a_lock_that_does_not_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some FUSE file systems say yes to everybody."""
    monkeypatch.setattr(portalocker, "lock", lambda fd, flags: None)
    took = []
    for _ in range(4):  # the machine may be busy with something else now and then
        _forget(monkeypatch)
        began = time.monotonic()
        with pytest.raises(FileLockError, match="do not exclude"), file_lock(tmp_path / "a.json"):
            pass
        took.append(time.monotonic() - began)
    assert min(took) < 0.1
    with pytest.raises(FileLockError, match="do not exclude"):
        atomic_write_json(tmp_path / "a.json", {})
    assert not (tmp_path / "a.json").exists()


def test_locks_are_proven_once_for_a_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget(monkeypatch)
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


def mounted(path: Path, *options: str) -> str:
    """What Linux says of mounts, with these options for the file system of `path`."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    own = ",".join(["rw", *options])
    return (
        "21 1 0:999 / /other rw,relatime shared:1 - nfs server:/other rw,nolock,local_lock=all\n"
        f"22 1 {number} / /plates rw,relatime shared:2 master:3 - nfs4 server:/plates {own}\n"
    )


@pytest.mark.parametrize(
    "options",
    [("nolock", "local_lock=all"), ("local_lock=flock",), ("nobrl",), ("localflock",)],
    ids=lambda options: options[0],
)
def test_a_mount_whose_locks_stay_within_one_host_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """The locks exclude within this host, so that trying them would tell nothing."""
    document, said = tmp_path / "a.json", tmp_path / "mountinfo"
    atomic_write_json(document, {"n": 1})
    said.write_text(mounted(tmp_path, "vers=3", *options))
    monkeypatch.setattr(mounts, "MOUNTS", said)
    _forget(monkeypatch)

    def lock() -> None:
        with file_lock(document):
            pass

    with open(f"{document}.lock", "rb") as other:  # noqa: PTH123
        fcntl.flock(other, fcntl.LOCK_EX)  # who waits for it would get a time-out
        for call in (
            lock,
            lambda: atomic_write_json(document, {}),
            lambda: atomic_update_json(document, lambda data: {}),
            lambda: apply_change(document, Change().set("n", value=2), 30),
        ):
            with pytest.raises(FileLockError, match="/plates is mounted with ") as caught:
                call()
            assert not isinstance(caught.value, FileLockTimeoutError)
            assert all(option in str(caught.value) for option in options)
            assert "mount it without" in str(caught.value)
    assert read_json(document) == {"n": 1}


@pytest.mark.parametrize("options", [(), ("local_lock=none",), ("local_lock=posix",)])
def test_other_mounts_are_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """Not even beside one that would be, or where nothing is known of mounts."""
    said = tmp_path / "mountinfo"
    said.write_text(mounted(tmp_path, "vers=4.2", *options))
    for where in (said, tmp_path / "missing"):
        monkeypatch.setattr(mounts, "MOUNTS", where)
        _forget(monkeypatch)
        with file_lock(tmp_path / "a.json"):
            pass


@pytest.mark.parametrize("call", ["fstat", "read"])
def test_a_document_that_another_host_replaces_while_it_is_open_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """NFS opens the removed file again and again, until somebody asks for its name's status."""
    document = tmp_path / "a.json"
    atomic_write_json(document, {"n": 1})
    real, real_stat = getattr(os, call), Path.stat
    stale: list[bool] = [True]
    tries: list[int] = []

    def gone(fd: int, *args: int) -> object:
        tries.append(fd)
        if stale[0]:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(fd, *args)

    def ask(path: Path, **options: bool) -> os.stat_result:
        stale[0] = False
        return real_stat(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, gone)
        with patch.context() as inner:
            inner.setattr(Path, "stat", ask)
            assert read_json(document) == {"n": 1}
        stale[0] = True
        tries.clear()
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):  # for ever, that is
            read_json(document)
        assert 2 <= len(tries) <= 50


def test_a_lock_file_that_a_power_cut_filled_with_zeros_is_used_again(tmp_path: Path) -> None:
    """The file system may give a file that was never synced its length but not its text."""
    document, lock = tmp_path / "a.json", tmp_path / "a.json.lock"
    atomic_write_json(document, {"n": 1})
    lock.write_bytes(bytes(lock.stat().st_size))
    (tmp_path / ".a.json.host-1-0123456789abcdef.tmp").touch()
    atomic_update_json(document, lambda data: {"n": data["n"] + 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.json.lock"]
    said = notes.parse(lock.read_bytes())
    assert said is not None
    assert said[1].seen["a.json"][:2] == notes.checksum(document.read_bytes())


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


@pytest.mark.skipif(os.getuid() != 0, reason="NOT RUN: only root can become somebody else")
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


AS_STRANGER = """
import os, sys, time
from polystore_flows.metadata import atomic_update_json
os.setgroups([]); os.setgid(65534); os.setuid(65534)
began = time.monotonic()
try:
    atomic_update_json(sys.argv[1], dict, 30)
except OSError as error:
    print(type(error).__name__, "at once:" if time.monotonic() - began < 5 else "late:", error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="NOT RUN: only root can become somebody else")
def test_no_permission_on_the_lock_file_is_said_at_once_and_is_no_timeout() -> None:
    """The older package waited for it until its time-out, and named no reason."""
    with TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        document = Path(place, "a.json")
        atomic_write_json(document, {"n": 1})
        Path(f"{document}.lock").chmod(0o600)
        (said,) = outputs([start(AS_STRANGER, document)])
        assert said.startswith(f"FileLockError at once: {document}.lock cannot be locked: no perm")
        assert read_json(document) == {"n": 1}


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


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has polystore 0.6.3, which is no dependency of ours."""
    benchmark = Path(__file__).parents[2] / "benchmarks" / "metadata.py"
    try:
        python: str = runpy.run_path(str(benchmark))["peer"](tmp_path_factory.mktemp("peer"))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"NOT RUN: polystore 0.6.3 cannot be installed here: {error}")
    return python


@pytest.mark.slow
def test_polystore_itself_and_we_lose_none_of_each_others_updates(
    tmp_path: Path, peer: str
) -> None:
    script = """
import sys
from polystore.metadata_writer import AtomicMetadataWriter
for number in range(100):
    name = f"{sys.argv[2]}-{number}"
    AtomicMetadataWriter(60).merge_subdirectory_metadata(sys.argv[1], {name: {"n": 1}})
"""
    document = tmp_path / "a.json"
    atomic_write_json(document, {})
    peers = [
        subprocess.Popen([peer, "-c", script, str(document), name]) for name in ("first", "second")
    ]
    ours = crowd(document, 3, 60)
    outputs(ours)
    assert [process.wait(120) for process in peers] == [0, 0]
    data = read_json(document)
    assert len(data["subdirectories"]) == 200
    assert len(data["log"]) == len(set(data["log"])) == 180
