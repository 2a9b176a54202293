"""The document lock: who is kept out, who is told what, and who is never waited for."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import portalocker
import pytest

from polystore_flows.errors import URIError
from polystore_flows.metadata import (
    FileLockError,
    FileLockTimeoutError,
    atomic_update_json,
    atomic_write_json,
    file_lock,
    read_json,
    sidecar,
)

HOLD = """
import sys, time
from polystore_flows.metadata import file_lock
with file_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def running(script: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """Run a script in its own process until the block ends."""
    command = [sys.executable, "-W", "error", "-c", script, *map(str, args)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def run(script: str, *args: object) -> str:
    """Run a script in its own process and return what it printed."""
    command = [sys.executable, "-W", "error", "-c", script, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_lock_file_has_the_name_of_the_older_package_and_stays(tmp_path: Path) -> None:
    """A removed lock file lets two holders lock two different files."""
    document = tmp_path / "plate.json"
    with file_lock(document):
        inode = (tmp_path / "plate.json.lock").stat().st_ino
    with file_lock(document):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["plate.json.lock"]
    assert (tmp_path / "plate.json.lock").stat().st_ino == inode


def test_a_program_that_uses_plain_flock_on_that_name_is_excluded_both_ways(
    tmp_path: Path,
) -> None:
    """Users run the older package and this one on the same plate."""
    document = tmp_path / "plate.json"
    foreign = os.open(tmp_path / "plate.json.lock", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        fcntl.flock(foreign, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(FileLockTimeoutError, match="left no name"), file_lock(document, 0):
            pass
        fcntl.flock(foreign, fcntl.LOCK_UN)
        with file_lock(document), pytest.raises(BlockingIOError):
            fcntl.flock(foreign, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(foreign)


def test_a_dead_process_is_not_named_as_the_holder(tmp_path: Path) -> None:
    """One of ours crashed, then the older package, which signs nothing, took the lock."""
    document = tmp_path / "a.json"
    with running(HOLD, document) as holder:
        assert line(holder) == "held"
    with open(tmp_path / "a.json.lock", "rb") as foreign:  # noqa: PTH123 - not ours
        assert foreign.read().startswith(f"{holder.pid} ".encode())
        fcntl.flock(foreign, fcntl.LOCK_EX)
        with pytest.raises(FileLockTimeoutError, match="left no name"), file_lock(document, 0):
            pass


def test_a_path_that_is_a_lock_file_is_that_lock(tmp_path: Path) -> None:
    """The older package's file_lock took the lock file's path."""
    with file_lock(tmp_path / "a.json.lock"):
        assert [path.name for path in tmp_path.iterdir()] == ["a.json.lock"]
        with pytest.raises(FileLockError), file_lock(tmp_path / "a.json"):
            pass


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    """With lockf all threads of a process would be let in."""
    inside: list[int] = []
    most: list[int] = []

    def enter() -> None:
        for _ in range(20):
            with file_lock(tmp_path / "a.json"):
                inside.append(1)
                time.sleep(0.0005)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert max(most) == 1


def test_a_timeout_of_zero_tries_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def taken(*_: object) -> None:
        tries.append(1)
        raise portalocker.AlreadyLocked("taken")

    monkeypatch.setattr(portalocker, "lock", taken)
    with pytest.raises(FileLockTimeoutError), file_lock(tmp_path / "a.json", timeout=0):
        pass
    assert len(tries) == 1


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_is_no_time_is_refused(tmp_path: Path, timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"), file_lock(tmp_path / "a.json", timeout):
        pass
    assert not list(tmp_path.iterdir())


def test_a_stopped_holder_is_named_and_its_lock_is_not_stolen(tmp_path: Path) -> None:
    """A holder that hangs for hours may go on at any time: age proves nothing."""
    document = tmp_path / "a.json"
    with running(HOLD, document) as holder:
        assert line(holder) == "held"
        holder.send_signal(signal.SIGSTOP)
        os.utime(tmp_path / "a.json.lock", (0, 0))
        start = time.monotonic()
        with pytest.raises(FileLockTimeoutError) as caught:
            atomic_update_json(document, dict, timeout=0.3)
        assert time.monotonic() - start >= 0.3
        text = str(caught.value)
        assert f"process {holder.pid} on " in text
        assert socket.gethostname()[:8].replace(".", "_") in text
        assert str(tmp_path / "a.json.lock") in text
        assert "\n" not in text
        assert isinstance(caught.value, TimeoutError)
        holder.send_signal(signal.SIGCONT)
        holder.kill()
    with file_lock(document, timeout=5):
        assert not document.exists()  # what timed out is not applied later either


def test_death_releases_the_lock(tmp_path: Path) -> None:
    with running(HOLD, tmp_path / "a.json") as holder:
        assert line(holder) == "held"
        holder.kill()
        holder.wait()
        with file_lock(tmp_path / "a.json", timeout=5):
            pass


def test_the_same_thread_is_refused_and_another_one_waits(tmp_path: Path) -> None:
    """Waiting for oneself would be a deadlock until the time-out."""
    document = tmp_path / "a.json"
    (tmp_path / "alias.json").symlink_to(document)
    errors: list[type[BaseException]] = []

    def other() -> None:
        try:
            with file_lock(tmp_path / "alias.json", timeout=0):
                pass
        except FileLockError as error:
            errors.append(type(error))

    with file_lock(document):
        for path in (document, tmp_path / "alias.json"):
            with pytest.raises(FileLockError, match="this thread") as caught, file_lock(path):
                pass
            assert not isinstance(caught.value, FileLockTimeoutError)
        with pytest.raises(FileLockError, match="this thread"):
            atomic_update_json(document, dict)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert errors == [FileLockTimeoutError]
    with file_lock(document, timeout=0):
        pass


def test_atomic_write_json_works_under_the_lock_of_its_thread(tmp_path: Path) -> None:
    """Read, decide, write under one lock is the use that file_lock is for."""
    document = tmp_path / "a.json"
    with file_lock(document):
        atomic_write_json(document, {"n": 1}, timeout=0)
        atomic_write_json(document, {"n": read_json(document)["n"] + 1}, timeout=0)
        with running(HOLD, document) as waiter:
            time.sleep(0.3)
            assert waiter.poll() is None  # still held after the writes
    assert read_json(document) == {"n": 2}


def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    """flock lives as long as any copy of the open file, and a fork copies it."""
    script = """
import os, sys, time
from polystore_flows.metadata import file_lock
with file_lock(sys.argv[1]):
    child = os.fork()
    if child == 0:
        time.sleep(600)
    time.sleep(0.2)
    print(child, flush=True)
    time.sleep(600)
"""
    with running(script, tmp_path / "a.json") as parent:
        child = int(line(parent))
        try:
            with pytest.raises(FileLockTimeoutError), file_lock(tmp_path / "a.json", timeout=0):
                pass
            parent.kill()
            parent.wait()
            with file_lock(tmp_path / "a.json", timeout=5):
                os.kill(child, 0)  # the child is alive, so this was not its death
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_neither_believes_in_the_lock_nor_releases_it(tmp_path: Path) -> None:
    """A child that comes back from update_func would write without the lock."""
    script = """
import os, sys
from polystore_flows.metadata import FileLockError, FileLockTimeoutError
from polystore_flows.metadata import atomic_update_json, file_lock
path = sys.argv[1]
def fork(document):
    global child
    child = os.fork()
    if child:
        print("parent sees", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return {"by": "parent" if child else "child"}
try:
    atomic_update_json(path, fork)
except FileLockError as error:
    assert child == 0 and "forked child" in str(error), error
    try:
        with file_lock(path, timeout=0):
            os._exit(3)  # the parent's lock was released
    except FileLockTimeoutError:
        os._exit(7)
"""
    assert run(script, tmp_path / "a.json") == "parent sees 7"
    assert read_json(tmp_path / "a.json") == {"by": "parent"}


def test_a_program_started_while_locked_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Descriptors that cross exec would hold the lock as long as the child runs."""
    script = """
import subprocess, sys, time
from polystore_flows.metadata import file_lock
with file_lock(sys.argv[1]):
    print(subprocess.Popen(["sleep", "600"], close_fds=False).pid, flush=True)
    time.sleep(600)
"""
    with running(script, tmp_path / "a.json") as parent:
        child = int(line(parent))
        try:
            parent.kill()
            parent.wait()
            with file_lock(tmp_path / "a.json", timeout=5):
                os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


def test_forks_of_a_process_with_busy_threads_can_lock(tmp_path: Path) -> None:
    """A fork in the middle of another thread's locking must leave no mutex locked."""
    script = """
import os, sys, threading, warnings
from polystore_flows.metadata import file_lock
warnings.simplefilter("ignore", DeprecationWarning)
stop = threading.Event()
def busy(name):
    while not stop.is_set():
        with file_lock(f"{sys.argv[1]}/{name}"):
            pass
threads = [threading.Thread(target=busy, args=(name,)) for name in "aabb"]
for thread in threads:
    thread.start()
codes = []
for _ in range(40):
    child = os.fork()
    if child == 0:
        with file_lock(f"{sys.argv[1]}/a", timeout=20):
            os._exit(0)
    codes.append(os.waitpid(child, 0)[1])
stop.set()
for thread in threads:
    thread.join()
print(set(codes))
"""
    assert run(script, tmp_path) == "{0}"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_a_fork_never_falls_between_the_opening_and_the_table(tmp_path: Path) -> None:
    """A child would keep a lock file open that nobody knows of, and its lock with it."""
    script = """
import os, sys, threading, time, warnings
from polystore_flows.metadata import file_lock
warnings.simplefilter("ignore", DeprecationWarning)
opened, real = threading.Event(), os.open
def slow_open(path, *args):
    fd = real(path, *args)
    if os.fspath(path).endswith(".lock"):
        opened.set()
        time.sleep(0.3)
    return fd
os.open = slow_open
def hold():
    with file_lock(sys.argv[1]):
        time.sleep(0.3)
thread = threading.Thread(target=hold)
thread.start()
opened.wait()
child = os.fork()
if child == 0:
    names = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    os._exit(any(name.endswith(".lock") for name in names))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
thread.join()
"""
    assert run(script, tmp_path / "a.json") == "0"


def fail_open(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Let opening lock files fail with an errno; return a list that counts the tries."""
    tries: list[int] = []
    real = os.open

    def opened(path: str, flags: int, *args: int, **kwargs: int) -> int:
        if os.fspath(path).endswith(".lock"):
            tries.append(1)
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", opened)
    return tries


@pytest.mark.parametrize(
    ("number", "word", "most"),
    [
        (errno.EACCES, "permission", 2),  # read-write, then read-only
        (errno.EPERM, "permission", 1),
        (errno.EROFS, "read-only", 1),
        (errno.EMFILE, "open files", 1),
        (errno.ELOOP, "symbolic link", 1),
    ],
)
def test_a_lock_file_that_cannot_be_opened_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str, most: int
) -> None:
    """The older package polled such errors until its time-out."""
    tries = fail_open(monkeypatch, number)
    with pytest.raises(FileLockError, match=word) as caught, file_lock(tmp_path / "a.json"):
        pass
    assert not isinstance(caught.value, FileLockTimeoutError)
    assert str(tmp_path / "a.json.lock") in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert len(tries) <= most


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tries: list[int] = []

    def no_locks(*_: object) -> None:
        tries.append(1)
        raise OSError(number, os.strerror(number))

    # Below portalocker, so that its own translation of errors is part of the test.
    monkeypatch.setattr(portalocker.portalocker, "LOCKER", no_locks)
    with pytest.raises(FileLockError, match="offers no locks"), file_lock(tmp_path / "a.json"):
        pass
    assert len(tries) == 1


def test_what_stands_in_the_place_of_a_lock_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.json.lock").mkdir()
    (tmp_path / "link.json.lock").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    for name, word in (
        ("folder.json", "a folder is in its place"),
        ("link.json", "symbolic link"),
        ("file/a.json", "a file is in the place of its folder"),
        ("n" * 255, "too long"),
    ):
        with pytest.raises(FileLockError, match=word), file_lock(tmp_path / name):
            pass


def test_a_lock_file_replaced_by_others_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cleaners and older programs unlink lock files; two inodes would mean two holders."""
    lock = tmp_path / "a.json.lock"
    real = portalocker.lock
    replaced: list[int] = []

    def unlink_first(fd: int, flags: portalocker.LockFlags) -> None:
        real(fd, flags)
        if not replaced:
            replaced.append(lock.stat().st_ino)
            (tmp_path / "new").touch()
            (tmp_path / "new").replace(lock)

    monkeypatch.setattr(portalocker, "lock", unlink_first)
    with file_lock(tmp_path / "a.json", timeout=0):
        fd = os.open(lock, os.O_RDWR)
        assert os.fstat(fd).st_ino != replaced[0]
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)


def test_what_others_keep_in_the_lock_file_is_left_alone(tmp_path: Path) -> None:
    """`conda.json.lock` may be somebody's document."""
    (tmp_path / "a.json.lock").write_text("important\n")
    atomic_write_json(tmp_path / "a.json", {})
    assert (tmp_path / "a.json.lock").read_text() == "important\n"


def test_a_released_lock_file_is_empty_so_that_a_signature_means_a_crash(tmp_path: Path) -> None:
    with file_lock(tmp_path / "a.json"):
        assert (tmp_path / "a.json.lock").read_text().startswith(f"{os.getpid()} ")
    assert (tmp_path / "a.json.lock").read_text() == ""


def test_errors_in_the_block_release_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), file_lock(tmp_path / "a.json"):
        raise KeyboardInterrupt
    with file_lock(tmp_path / "a.json", timeout=0):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="NOT RUN: only root can become somebody else")
def test_users_who_may_not_write_each_others_lock_file_share_the_lock() -> None:
    """A lock file made under umask 022 must not shut out the rest of the group."""
    script = """
import os, sys
from polystore_flows.metadata import FileLockError, FileLockTimeoutError, file_lock
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        with file_lock(path, timeout=0):
            print("taken", end=" ")
    except FileLockTimeoutError:
        print("busy", end=" ")
    except FileLockError as error:
        print("refused" if "permission" in str(error) else error, end=" ")
"""
    with TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o755)
        with file_lock(f"{folder}/a.json"):
            assert run(script, f"{folder}/a.json") == "busy"
        # The last one is new, in a folder that is read-only to that user.
        assert run(script, f"{folder}/a.json", f"{folder}/new.json") == "taken refused"


def test_inside_a_zarr_hierarchy_the_lock_stands_beside_its_root(tmp_path: Path) -> None:
    """zarr warns of foreign files in a group."""
    assert sidecar(tmp_path / "p.zarr/zarr.json") == tmp_path / ".p.zarr"
    assert sidecar(tmp_path / "p.zarr/B/3/x.zarr/.zattrs") == tmp_path / ".p.zarr"
    assert sidecar(tmp_path / "p.zarr") == tmp_path / "p.zarr"
    assert sidecar(str(tmp_path / "plate.json")) == tmp_path / "plate.json"
    (tmp_path / "p.zarr").mkdir()
    with file_lock(tmp_path / "p.zarr/zarr.json"):
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".p.zarr.lock",
            "p.zarr",
        ]
        assert not list((tmp_path / "p.zarr").iterdir())


@pytest.mark.parametrize("scheme", ["s3", "omero", "file"])
def test_a_uri_is_refused_without_repeating_its_secrets(scheme: str) -> None:
    with (
        pytest.raises(URIError) as caught,
        file_lock(f"{scheme}://user:hunter2@bucket/a.json"),
    ):
        pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(URIError), file_lock(path):
        pass


def test_bytes_are_refused() -> None:
    with pytest.raises(TypeError, match="bytes"), file_lock(b"a.json"):  # type: ignore[arg-type]
        pass


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"numpy", "zarr", "pydantic", "pandas"}
    assert run(f"import sys, polystore_flows.metadata as m; print({heavy} & set(sys.modules))") == (
        "set()"
    )
