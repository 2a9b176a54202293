"""One durable replacement: the order of its steps, and what each failure leaves behind."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from polystore_flows.errors import MetadataWriteError, PolystoreError, URIError
from polystore_flows.metadata import (
    FileLockError,
    atomic_update_json,
    atomic_write_json,
    read_json,
)

ONLY_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A document in a folder of its own."""
    (tmp_path / "plate").mkdir()
    path = tmp_path / "plate" / "a.json"
    atomic_write_json(path, {"old": 1})
    return path


def state(path: Path) -> tuple[int, ...]:
    """What tells one state of a file from others; not when it was read."""
    status = path.stat()
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(script: str, *args: object) -> str:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def record(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Log syncs and replacements with the file or folder that they are about."""
    log: list[tuple[str, str]] = []

    def name(fd: int) -> str:
        path = Path(f"/proc/self/fd/{fd}").resolve()
        return "temporary" if path.suffix == ".tmp" else path.name

    def logging_sync(real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(fd: int) -> None:
            log.append(("sync", name(fd)))
            real(fd)

        return sync

    replace = os.replace

    def logging_replace(source: Path, target: Path) -> None:
        log.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", logging_sync(os.fsync))
    monkeypatch.setattr(os, "fdatasync", logging_sync(os.fdatasync))
    monkeypatch.setattr(os, "replace", logging_replace)
    return log


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")


@needs_proc
def test_data_is_synced_before_the_replacement_and_the_folder_after_it(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the second sync, power cuts took back 20 of 28 acknowledged updates."""
    log = record(monkeypatch)
    atomic_write_json(old, {"new": 1})
    assert log == [("sync", "temporary"), ("replace", "a.json"), ("sync", "plate")]


@needs_proc
def test_new_folders_are_synced_into_their_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document in a folder that a power cut takes back is lost as well."""
    log = record(monkeypatch)
    atomic_write_json(tmp_path / "b/c/a.json", {})
    assert log == [
        ("sync", tmp_path.name),
        ("sync", "b"),
        ("sync", "temporary"),
        ("replace", "a.json"),
        ("sync", "c"),
    ]


@needs_proc
def test_in_a_zarr_hierarchy_the_folder_of_the_document_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file comes from another folder; the name that counts is in this one."""
    (tmp_path / "p.zarr/B").mkdir(parents=True)
    log = record(monkeypatch)
    atomic_write_json(tmp_path / "p.zarr/B/zarr.json", {})
    assert log[-2:] == [("replace", "zarr.json"), ("sync", "B")]


def test_the_text_is_readable_utf8_in_the_order_given(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    data: dict[Any, Any] = {"z": "µm – 日本", "a": [1, 2.5, None, True], 3: {}, "e": {"x": {}}}
    atomic_write_json(path, data | {"long": [{"name": "n" * 60}] * 2})
    line = '    {"name": "' + "n" * 60 + '"}'
    assert path.read_text("utf-8") == (
        '{\n  "z": "µm – 日本",\n  "a": [1, 2.5, null, true],\n  "3": {},\n'
        f'  "e": {{\n    "x": {{}}\n  }},\n  "long": [\n{line},\n{line}\n  ]\n}}\n'
    )


def test_half_a_surrogate_pair_survives(tmp_path: Path) -> None:
    """JSON can say it only as an escape, and a document that holds one must stay updatable."""
    path = tmp_path / "a.json"
    path.write_text('{"name": "\\ud83d", "unit": "µm"}')
    atomic_update_json(path, lambda data: {**data, "n": 1})
    assert read_json(path) == {"name": "\ud83d", "unit": "µm", "n": 1}


def circular() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["self"] = data
    return data


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"a": {"b": [0, float("nan")]}}, "/a/b/1 is nan"),
        ({"a": float("inf")}, "/a is inf"),
        ({"a": -float("inf")}, "/a is -inf"),
        ({"a": {1, 2}}, "/a is a builtins.set"),
        ({"a": Path()}, "/a is a pathlib"),
        ({"a": b"x"}, "/a is a builtins.bytes"),
        ({"a": {(1, 2): 3}}, r"key \(1, 2\) of /a is no string"),
        (circular(), "contains itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_json_is_refused_before_anything_is_touched(
    old: Path, data: dict[str, Any], word: str
) -> None:
    before = state(old)
    with pytest.raises(ValueError, match=word) as caught:
        atomic_write_json(old, data)
    assert str(old) in str(caught.value)
    assert state(old) == before
    with pytest.raises(ValueError):
        atomic_write_json(old.parent / "new/b.json", data)
    assert names(old.parent) == ["a.json", "a.json.lock"]


@pytest.mark.parametrize("data", [None, [], "text"])
def test_a_document_is_a_dict(old: Path, data: Any) -> None:
    with pytest.raises(TypeError, match="a document is a dict"):
        atomic_write_json(old, data)
    assert read_json(old) == {"old": 1}


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_a_new_document_follows_the_umask(tmp_path: Path, umask: int) -> None:
    """The older package made it private, which shut out the group."""
    before = os.umask(umask)
    try:
        atomic_write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444, 0o2660])
def test_an_existing_document_keeps_its_mode(old: Path, mode: int) -> None:
    old.chmod(mode)
    inode = old.stat().st_ino
    atomic_update_json(old, lambda data: {**data, "new": 1})
    assert old.stat().st_ino != inode
    assert stat.S_IMODE(old.stat().st_mode) == mode


@ONLY_ROOT
def test_an_existing_document_keeps_its_owner_and_group(old: Path) -> None:
    os.chown(old, 1234, 4321)
    old.chmod(0o640)
    atomic_write_json(old, {"new": 1})
    assert (old.stat().st_uid, old.stat().st_gid) == (1234, 4321)
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users reach; pytest's own ones are closed to them."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


AS_OTHER = """
import os, sys
from polystore_flows.metadata import atomic_write_json
os.setgroups([5000]); os.setgid(65534); os.setuid(65534)
try:
    atomic_write_json(sys.argv[1], {"new": 1})
except OSError as error:
    print(type(error).__name__, error)
"""


@ONLY_ROOT
@pytest.mark.parametrize(("group", "mode", "expected"), [(5000, 0o664, 0o664), (1, 0o664, 0o644)])
def test_the_group_is_kept_where_allowed_and_its_rights_go_to_no_other(
    public: Path, group: int, mode: int, expected: int
) -> None:
    """Mode 664 under the writer's own group would let strangers write."""
    path = public / "a.json"
    path.write_text("{}")
    os.chown(path, 0, group)
    path.chmod(mode)
    assert run(AS_OTHER, path) == ""
    assert read_json(path) == {"new": 1}
    assert path.stat().st_gid == (5000 if group == 5000 else 65534)
    assert stat.S_IMODE(path.stat().st_mode) == expected


@ONLY_ROOT
def test_a_folder_without_write_permission_is_one_clear_error(public: Path) -> None:
    """Here the lock file is there already, so that it is the document that fails."""
    path = public / "a.json"
    atomic_write_json(path, {"old": 1})
    public.chmod(0o555)
    text = run(AS_OTHER, path)
    assert text.startswith(f"MetadataWriteError {path} could not be written, and is as it was")
    assert "ask for the right" in text
    text = run(AS_OTHER, public / "new.json")
    assert text.startswith(f"FileLockError {public}/new.json.lock cannot be locked: no permission")
    assert read_json(path) == {"old": 1}


def test_a_linked_document_stays_a_link(old: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to("plate/a.json")
    atomic_write_json(link, {"new": 1})
    assert link.is_symlink()
    assert read_json(old) == {"new": 1}
    assert names(tmp_path) == ["link.json", "plate"]


def test_what_cannot_be_a_document_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    for name, error, word in (
        ("folder", MetadataWriteError, "is a folder"),
        ("dangling", MetadataWriteError, "is a link to .*nowhere, which does not exist"),
        ("loop", MetadataWriteError, "links point at each other"),
        ("pipe", MetadataWriteError, "no regular file"),
        ("file/a.json", MetadataWriteError, "a file is in the place of its folder"),
        ("n" * 255, FileLockError, "too long"),
        ("é" * 128, (MetadataWriteError, FileLockError), "choose a shorter name|too long"),
    ):
        for call in (
            lambda path: atomic_write_json(path, {}),
            lambda path: atomic_update_json(path, dict),
        ):
            with pytest.raises(error, match=word) as caught:
                call(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)
            assert "\n" not in str(caught.value)
            assert isinstance(caught.value, PolystoreError)
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["n" * 250, "é" * 125, "日本 µ\n.json", ".hidden", "a.json.tmp", "-"]
)
def test_any_name_that_leaves_room_for_the_lock_is_fine(tmp_path: Path, name: str) -> None:
    atomic_write_json(tmp_path / name, {"n": 0})
    atomic_update_json(tmp_path / name, lambda data: {"n": data["n"] + 1})
    assert read_json(tmp_path / name) == {"n": 1}
    assert names(tmp_path) == sorted([name, f"{name}.lock"])


def test_a_corrupt_document_may_be_overwritten_on_purpose(old: Path) -> None:
    """This is how one is repaired; only updates refuse it."""
    old.write_text("{")
    atomic_write_json(old, {"new": 1})
    assert read_json(old) == {"new": 1}


def failing(number: int, calls: list[int]) -> Callable[..., None]:
    def fail(fd: int, *_: object) -> None:
        calls.append(fd)
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("function", "number", "word"),
    [
        ("write", errno.ENOSPC, "free some space"),
        ("write", errno.EDQUOT, "quota"),
        ("fdatasync", errno.EIO, "check the disk"),
        ("fchmod", errno.EPERM, "ask for the right"),
        ("replace", errno.EROFS, "read-only"),
        ("replace", errno.EXDEV, "file system of its parent"),
    ],
)
def test_a_failure_leaves_the_old_document_and_no_temporary_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, function: str, number: int, word: str
) -> None:
    before = state(old)
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing(number, calls))
        with pytest.raises(MetadataWriteError, match=word) as caught:
            atomic_update_json(old, lambda data: {**data, "new": 1})
    assert str(old) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert len(calls) == 1  # a failed sync above all is never tried again
    assert state(old) == before
    assert names(old.parent) == ["a.json", "a.json.lock"]
    atomic_update_json(old, lambda data: {**data, "new": 1})
    assert read_json(old) == {"old": 1, "new": 1}


def test_a_folder_that_cannot_be_synced_is_told_apart_from_a_failed_write(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new document is there already: 'not written' would be a lie."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EIO, []))
        with pytest.raises(MetadataWriteError, match=r"is visible, but .* unknown"):
            atomic_write_json(old, {"new": 1})
    assert read_json(old) == {"new": 1}


def test_a_file_system_that_cannot_sync_folders_is_accepted(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems say EINVAL, and nothing could be done about it."""
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL, []))
    atomic_write_json(old, {"new": 1})
    assert read_json(old) == {"new": 1}


def test_short_writes_are_continued(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))
    atomic_write_json(old, {"text": "x" * 100})
    assert read_json(old) == {"text": "x" * 100}


def test_a_real_limit_on_the_size_of_files_leaves_the_old_document(old: Path) -> None:
    """The kernel writes as much as fits and refuses the rest, as a full disk does."""
    script = """
import resource, sys
from polystore_flows.metadata import MetadataWriteError, atomic_write_json
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic_write_json(sys.argv[1], {"text": "x" * 5000})
except MetadataWriteError as error:
    print(error)
"""
    assert "File too large" in run(script, old)
    assert read_json(old) == {"old": 1}
    assert names(old.parent) == ["a.json", "a.json.lock"]


def test_an_interrupt_leaves_the_old_document_and_no_temporary_file(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            atomic_write_json(old, {"new": 1})
    assert names(old.parent) == ["a.json", "a.json.lock"]
    atomic_write_json(old, {"new": 1}, timeout=0)


def test_a_temporary_file_that_others_sweep_is_written_again(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks do not work, somebody else may believe that this writer is dead."""
    real = os.fdatasync
    swept: list[Path] = []

    def sync(fd: int) -> None:
        real(fd)
        if not swept:
            (stray,) = old.parent.glob(".*.tmp")
            swept.append(stray)
            stray.unlink()

    monkeypatch.setattr(os, "fdatasync", sync)
    atomic_write_json(old, {"new": 1})
    assert swept
    assert read_json(old) == {"new": 1}


@pytest.mark.parametrize(
    "uri", ["omero://host/plate/1/a.json", "zarr+memory://a/p.zarr", "zarr:///p.zarr"]
)
def test_the_uri_of_what_holds_no_document_is_refused(uri: str) -> None:
    with pytest.raises(URIError, match="a document is a local path or the URI of an object"):
        atomic_write_json(uri, {})


@pytest.mark.parametrize("scheme", ["disk", "file"])
def test_the_uri_of_a_local_path_is_that_path(tmp_path: Path, scheme: str) -> None:
    atomic_write_json(f"{scheme}://{tmp_path}/a.json", {"a": 1})
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_the_temporary_file_is_private_until_it_has_its_mode(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its group is right, group rights would let strangers in."""
    modes: list[int] = []
    real = os.fchmod

    def fchmod(fd: int, mode: int) -> None:
        status = os.fstat(fd)
        modes.append(stat.S_IMODE(status.st_mode))
        assert status.st_size == 0
        real(fd, mode)

    monkeypatch.setattr(os, "fchmod", fchmod)
    atomic_write_json(old, {"new": 1})
    assert modes == [0o600]
