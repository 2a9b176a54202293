"""What is peculiar to the disk: atomicity against kills and races, permissions, links, names."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from polystore_flows.backends import files
from polystore_flows.backends.disk import DiskBackend
from polystore_flows.backends.files import os_errors
from polystore_flows.contracts import Stat
from polystore_flows.errors import (
    AlreadyExistsError,
    MismatchError,
    NotFoundError,
    ReadOnlyError,
    UnsupportedError,
    URIError,
)


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


# Names, links, listings


@pytest.mark.parametrize(
    "name",
    ["a" * 251 + ".txt", "漢" * 83 + ".txt", "a b.txt", "#1.txt", "100%.txt", "%20.txt", "-rf.txt",
     "a\nb.txt", "ü.txt", "'q\".txt", "{well}.txt", "a:b.txt", ".hidden.txt", "a&b=c.txt"],
)  # fmt: skip
def test_any_name_the_file_system_takes_is_good(disk, tmp_path, name):
    """A name of full length too: the temporary's is not made from it."""
    uri = f"disk://{tmp_path}/{name}"
    disk.save("x", uri)
    disk.save("y", uri, overwrite=True)
    assert names(tmp_path) == [name]
    assert disk.list_files(f"disk://{tmp_path}") == [uri]
    assert disk.load(disk.list_files(f"disk://{tmp_path}")[0]) == "y"
    assert disk.load(tmp_path / name) == "y"


def test_a_name_that_is_too_long_is_told(disk, tmp_path):
    target = tmp_path / ("a" * 300 + ".txt")
    assert not disk.exists(target)
    with pytest.raises(OSError, match="aaa"):
        disk.save("x", target)
    assert names(tmp_path) == []


def test_listings_answer_in_the_form_of_the_question(disk, tmp_path, monkeypatch):
    disk.save("x", tmp_path / "d" / "a.txt")
    monkeypatch.chdir(tmp_path)
    assert disk.list_files(f"disk://{tmp_path}/d") == [f"disk://{tmp_path}/d/a.txt"]
    assert disk.list_files(f"file://{tmp_path}/d/") == [f"disk://{tmp_path}/d/a.txt"]
    assert disk.list_files("disk:d") == ["disk:d/a.txt"]
    assert disk.list_files(tmp_path / "d") == [f"{tmp_path}/d/a.txt"]
    assert disk.list_files("d/") == ["d/a.txt"]
    assert disk.ensure_directory("disk:d/e") == "disk:d/e"
    assert all(disk.load(found[0]) == "x" for found in map(disk.list_files, ["d", "disk:d"]))


@pytest.mark.parametrize(
    "wrong", ["", "a\0b", "memory://x/a", "s3://bucket/a", "disk:", "disk:/../a"]
)
def test_an_identifier_of_another_scheme_or_none_is_refused(disk, wrong):
    with pytest.raises(URIError):
        disk.exists(wrong)


def test_a_link_made_from_a_relative_path_resolves_from_anywhere(disk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    disk.save("x", "a.txt")
    disk.create_symlink("a.txt", "deep/link.txt")
    monkeypatch.chdir("/")
    assert disk.load(tmp_path / "deep" / "link.txt") == "x"


def test_saving_through_a_broken_link_makes_its_target(disk, tmp_path):
    (tmp_path / "link.txt").symlink_to(tmp_path / "new" / "a.txt")
    disk.save("x", tmp_path / "link.txt", overwrite=True)
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "new" / "a.txt").read_text() == "x"


def test_a_link_never_takes_the_place_of_a_directory(disk, tmp_path):
    disk.save("x", tmp_path / "a.txt")
    disk.ensure_directory(tmp_path / "folder")
    with pytest.raises(AlreadyExistsError, match="folder"):
        disk.create_symlink(tmp_path / "a.txt", tmp_path / "folder", overwrite=True)
    assert temporaries(tmp_path) == []


def test_a_pipe_or_device_is_no_file_and_is_never_replaced(disk, tmp_path):
    """``save(..., "/dev/null", overwrite=True)`` as root would be expensive."""
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(AlreadyExistsError):
        disk.save("x", tmp_path / "pipe.txt", overwrite=True)
    assert not disk.is_file(tmp_path / "pipe.txt")
    assert disk.list_files(tmp_path) == []


def test_many_threads_make_the_same_parents(disk, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: disk.save("x", tmp_path / f"a/b/c/{i}.txt"), range(16)))
    assert len(disk.list_files(tmp_path, recursive=True)) == 16


def test_a_file_open_for_reading_can_be_sought_and_not_written(disk, tmp_path):
    disk.save("hello", tmp_path / "a.txt")
    with disk.open_binary(tmp_path / "a.txt") as file:
        file.seek(1)
        assert file.read() == b"ello"
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")
    with pytest.raises(NotFoundError, match="directory"):
        disk.open_binary(tmp_path)


def test_a_query_selects_nothing_in_a_plain_file(disk, tmp_path):
    disk.save(np.zeros((3, 3)), tmp_path / "a.tif")
    with pytest.raises(URIError, match="query"):
        disk.load(f"disk://{tmp_path}/a.tif?c=0")


# Errors and plates


def test_every_error_of_the_system_names_the_uri_and_keeps_its_cause():
    known = {
        errno.ENOENT: (NotFoundError, NotFoundError),
        errno.ELOOP: (NotFoundError, NotFoundError),
        errno.ENOTDIR: (NotFoundError, AlreadyExistsError),
        errno.EISDIR: (NotFoundError, AlreadyExistsError),
        errno.EEXIST: (AlreadyExistsError, AlreadyExistsError),
        errno.ENOTEMPTY: (UnsupportedError, UnsupportedError),
        errno.EACCES: (PermissionError, ReadOnlyError),
        errno.EPERM: (PermissionError, ReadOnlyError),
        errno.EROFS: (OSError, ReadOnlyError),
    }
    for code in errno.errorcode:
        for writing in (False, True):
            cause = OSError(code, os.strerror(code))
            with pytest.raises(OSError) as caught, os_errors("disk:///x", writing=writing):
                raise cause
            expected = known.get(code, (OSError, OSError))[writing]
            assert isinstance(caught.value, expected), errno.errorcode[code]
            assert "disk:///x" in str(caught.value)
            assert caught.value.__cause__ is cause
            if code not in known:
                assert caught.value.errno == code


@pytest.fixture
def plates(monkeypatch):
    """Stands in for plates in folders: says what it was asked."""
    asked = []

    def answer(name, value):
        def function(backend, *args):
            asked.append((name, *args))
            return value

        return function

    module = SimpleNamespace(
        load_part=answer("load", "pixels"),
        save_part=answer("save", None),
        part_exists=answer("exists", True),
        stat_part=answer("stat", Stat("field", 7, 1.0)),
        delete_part=answer("delete", None),
        open_folder_plate=answer("open", "plate"),
        create_folder_plate=answer("create", "plate"),
    )
    monkeypatch.setattr(files, "folder_plate", lambda: module)
    return asked


def test_an_address_below_a_folder_is_asked_of_its_plate(disk, tmp_path, plates):
    root = f"disk://{tmp_path}"
    assert disk.load(f"{root}/B/03/0?c=DAPI") == "pixels"
    assert plates[0] == ("load", root, "B/03/0", (("c", "DAPI"),))
    assert disk.exists(f"{root}/B/03")
    assert disk.is_dir(f"{root}/B/03")
    assert disk.is_file(f"{root}/B/03/0")
    assert disk.stat(f"{root}/B/03/0").size == 7
    disk.save(np.zeros((2, 2)), f"{root}/B/03/0", overwrite=True)
    disk.delete_all(f"{root}/B/03/0")
    assert [a[0] for a in plates] == ["load", *["exists"] * 3, "stat", "save", "exists", "delete"]
    assert str(plates[5][2]) == "B/3/0"
    assert plates[5][4] is True
    assert disk.open_plate(root, "r+") == "plate"
    assert plates[-1] == ("open", root, "r+")


def test_plain_files_and_plain_paths_are_never_asked_of_a_plate(disk, tmp_path, plates):
    root = f"disk://{tmp_path}"
    disk.save(b"x", f"{root}/B/03/0")
    assert disk.load(f"{root}/B/03/0") == b"x"
    disk.save(b"y", f"{root}/B/03/0", overwrite=True)
    assert disk.exists(f"{root}/B/03")
    disk.save(np.zeros((2, 2)), f"{root}/B03_s001_w1_z001_t001.tif")
    assert not disk.exists(tmp_path / "B" / "04")
    assert not disk.exists(f"{root}/missing/B/03/0")
    assert not disk.exists(f"{root}/tables/a.csv")
    disk.delete_all(f"{root}/B/03")
    assert plates == []
    with pytest.raises(MismatchError):
        disk.save(np.zeros((2, 2)), str(tmp_path / "B/03/0"))
