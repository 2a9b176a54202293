"""What is peculiar to the disk: atomicity against kills and races, permissions, links, names."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from polystore_flows.backends.disk import DiskBackend


@pytest.fixture
def disk():
    return DiskBackend()


@pytest.fixture
def open_folder():
    """A folder that other users can reach, which pytest's is not."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def temporaries(folder):
    return [name for name in names(folder) if name.endswith(".tmp")]


def run(code, *args, **options):
    """Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


AS_NOBODY = """
import os, sys, io, json
from polystore_flows.backends.disk import DiskBackend
from polystore_flows.backends import codecs
from polystore_flows import errors
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
disk, target = DiskBackend(), sys.argv[1]
"""


# Kills, races, failures

KILLED_WRITER = """
import sys
from polystore_flows.backends.disk import DiskBackend
disk, target = DiskBackend(), sys.argv[1]
print("ready", flush=True)
while True:
    for letter in b"AB":
        disk.write_bytes(bytes([letter]) * 3_000_000, target, overwrite=True)
"""


def test_a_killed_writer_leaves_a_whole_file_and_at_most_one_hidden_temporary(disk, tmp_path):
    target = tmp_path / "a.bin"
    disk.write_bytes(b"A" * 3_000_000, target)
    kills = 8
    for i in range(kills):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED_WRITER, str(target)], stdout=subprocess.PIPE
        )
        with writer:
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(random.Random(i).uniform(0.005, 0.06))
            writer.send_signal(signal.SIGKILL)
        data = target.read_bytes()
        assert data in (b"A" * 3_000_000, b"B" * 3_000_000)
    assert len(temporaries(tmp_path)) <= kills
    assert disk.list_dir(tmp_path) == ["a.bin"]
    assert disk.list_files(tmp_path, recursive=True) == [str(target)]


RACING_WRITER = """
import errno, os, sys
from polystore_flows.backends.disk import DiskBackend
from polystore_flows.errors import AlreadyExistsError
folder, me, links = sys.argv[1:]
if links == "no":
    def link(*args, **kwargs):
        raise OSError(errno.EPERM, "no hard links here")
    os.link = link
print("ready", flush=True)
sys.stdin.readline()
for i in range(40):
    try:
        DiskBackend().write_bytes(me.encode() * 1000, f"disk://{folder}/{i}.bin")
        print(i)
    except AlreadyExistsError:
        pass
"""


@pytest.mark.parametrize("links", ["yes", "no"])
def test_of_processes_that_write_one_name_without_overwriting_exactly_one_wins(tmp_path, links):
    """Also on file systems without hard links."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", RACING_WRITER, str(tmp_path), str(me), links],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for me in range(4)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    won = {}
    for me, writer in enumerate(writers):
        for line in writer.communicate(timeout=60)[0].split():
            assert line not in won
            won[line] = me
    assert len(won) == 40
    for i, me in won.items():
        assert (tmp_path / f"{i}.bin").read_bytes() == str(me).encode() * 1000
    assert temporaries(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_write_keeps_the_old_file_and_names_the_uri(disk, tmp_path, monkeypatch, code):
    target = f"disk://{tmp_path}/a.txt"
    disk.save("old", target)

    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError) as caught:
        disk.save("new", target, overwrite=True)
    assert caught.value.errno == code
    assert target in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert disk.load(target) == "old"
    assert temporaries(tmp_path) == []
    if code != errno.EIO:
        assert "no space" in str(caught.value)


def test_written_data_and_its_name_are_on_the_medium_before_save_returns(
    disk, tmp_path, monkeypatch
):
    """The file before it gets its name, then the directory that holds the name."""
    events, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (events.append(str(Path(f"/proc/self/fd/{fd}").readlink())), fsync(fd))[1],
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b))[1])
    disk.write_bytes(b"x", tmp_path / "new" / "a.bin", overwrite=True)
    folder = str(tmp_path / "new")
    assert events[0] == str(tmp_path)  # the name of the new folder
    assert events[1].startswith(f"{folder}/.polystore-")
    assert events[2:] == ["replace", folder]


def test_a_copy_that_fails_half_way_is_never_seen(disk, tmp_path, monkeypatch):
    for i in range(3):
        disk.save(str(i), tmp_path / "source" / f"{i}.txt")
    copied, copy2 = [], shutil.copy2

    def fail(source, target, **options):
        assert not (tmp_path / "target").exists()
        if copied:
            raise OSError(errno.EIO, "broken")
        copied.append(source)
        return copy2(source, target, **options)

    monkeypatch.setattr(
        shutil,
        "copytree",
        lambda *a, _real=shutil.copytree, **k: _real(*a, copy_function=fail, **k),
    )
    with pytest.raises(OSError, match="target"):
        disk.copy(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert temporaries(tmp_path) == []


def test_a_copy_keeps_times_modes_and_links(disk, tmp_path):
    """Snakemake compares times of modification."""
    source = tmp_path / "source"
    disk.save("x", source / "deep" / "a.txt")
    (source / "deep" / "a.txt").chmod(0o640)
    (source / "relative").symlink_to("deep/a.txt")
    for path in (source / "deep" / "a.txt", source / "deep", source):
        os.utime(path, (1e9, 1e9))
    disk.copy(source, tmp_path / "target")
    copied = tmp_path / "target" / "deep" / "a.txt"
    assert copied.stat().st_mtime == (tmp_path / "target").stat().st_mtime == 1e9
    assert copied.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "target" / "relative").readlink() == Path("deep/a.txt")
    disk.copy(copied, tmp_path / "single.txt")
    assert disk.stat(tmp_path / "single.txt").mtime == 1e9


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
@pytest.mark.parametrize("name", ["file.txt", "folder"])
def test_a_move_between_file_systems_keeps_everything(disk, tmp_path, name):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if Path(other).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("needs a second file system")
        disk.save("x", tmp_path / "folder" / "file.txt")
        disk.save("x", tmp_path / "file.txt")
        disk.move(tmp_path / name, f"{other}/{name}")
        assert not (tmp_path / name).exists()
        moved = Path(other, name)
        assert (moved if name == "file.txt" else moved / "file.txt").read_text() == "x"
        assert temporaries(other) == []


# Permissions and modes


def test_overwriting_keeps_the_mode_and_a_new_file_follows_the_umask(disk, tmp_path):
    target = tmp_path / "a.txt"
    old = os.umask(0o027)
    try:
        disk.save("x", target)
    finally:
        os.umask(old)
    assert target.stat().st_mode & 0o777 == 0o640
    target.chmod(0o664)
    disk.save("y", target, overwrite=True)
    assert target.stat().st_mode & 0o777 == 0o664


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_overwriting_as_root_keeps_the_owner(disk, tmp_path):
    target = tmp_path / "a.txt"
    disk.save("x", target)
    os.chown(target, 1234, 1235)
    disk.save("y", target, overwrite=True)
    assert (target.stat().st_uid, target.stat().st_gid) == (1234, 1235)


@pytest.mark.parametrize(
    "verb",
    [
        "disk.save('x', target + '/new.txt')",
        "disk.save('x', target + '/a.txt', overwrite=True)",
        "disk.save('x', target + '/deep/new.txt')",
        "disk.ensure_directory(target + '/deep')",
        "disk.delete(target + '/a.txt')",
        "disk.delete_all(target + '/a.txt')",
        "disk.copy(target + '/a.txt', target + '/b.txt')",
        "disk.move(target + '/a.txt', target + '/b.txt')",
        "disk.create_symlink(target + '/a.txt', target + '/b.txt')",
    ],
)
def test_a_read_only_directory_is_told_with_its_uri(disk, open_folder, verb):
    folder = open_folder / "locked"
    disk.save("kept", folder / "a.txt")
    (folder / "a.txt").chmod(0o644)
    folder.chmod(0o555)
    code = f"""{AS_NOBODY}
try:
    {verb}
except errors.ReadOnlyError as error:
    assert isinstance(error, PermissionError)
    assert f"{{target}}/" in str(error) and "permissions" in str(error), str(error)
else:
    sys.exit("nothing was raised")
"""
    done = run(code, f"disk://{folder}")
    folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert disk.list_dir(folder) == ["a.txt"]
    assert disk.load(folder / "a.txt") == "kept"


def test_a_write_protected_file_is_not_replaced(disk, open_folder):
    """``rename`` would do it; but who protects a file (as Snakemake does) means it."""
    target = open_folder / "a.txt"
    disk.save("kept", target)
    target.chmod(0o444)
    code = f"""{AS_NOBODY}
try:
    disk.save("lost", target, overwrite=True)
except errors.ReadOnlyError as error:
    assert target in str(error)
else:
    sys.exit("nothing was raised")
"""
    done = run(code, f"disk://{target}")
    assert done.returncode == 0, done.stderr
    assert target.read_text() == "kept"


def test_what_may_not_be_seen_is_not_said_to_be_missing(disk, open_folder):
    """A workflow would make it again."""
    disk.save("x", open_folder / "locked" / "a.txt")
    (open_folder / "locked").chmod(0o000)
    code = f"""{AS_NOBODY}
for verb in (disk.exists, disk.is_file, disk.stat, disk.load):
    try:
        verb(target)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        assert target in str(error), str(error)
    else:
        sys.exit(f"{{verb}} raised nothing")
"""
    done = run(code, f"disk://{open_folder}/locked/a.txt")
    (open_folder / "locked").chmod(0o755)
    assert done.returncode == 0, done.stderr
