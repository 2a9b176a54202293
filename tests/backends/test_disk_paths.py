"""What is peculiar to the disk: names, links, listings, the system's errors, parts of plates."""

from __future__ import annotations

import errno
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from polystore_flows.backends import files
from polystore_flows.backends.disk import DiskBackend
from polystore_flows.backends.file_bytes import os_errors
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


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


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


def test_unfinished_files_are_in_no_listing(disk, tmp_path):
    for name in (f".polystore-{'0a' * 8}.tmp", f".a.json.host-12-{'0a' * 8}.tmp", "my-0a0a.tmp"):
        (tmp_path / name).touch()
    assert disk.list_dir(tmp_path) == ["my-0a0a.tmp"]
    assert disk.list_files(tmp_path, recursive=True) == [f"{tmp_path}/my-0a0a.tmp"]


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
    assert names(tmp_path) == ["a.txt", "folder"]


def test_a_pipe_or_device_is_no_file_and_is_never_replaced(disk, tmp_path):
    """``save(..., "/dev/null", overwrite=True)`` as root would be expensive."""
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(AlreadyExistsError):
        disk.save("x", tmp_path / "pipe.txt", overwrite=True)
    assert not disk.is_file(tmp_path / "pipe.txt")
    assert disk.list_files(tmp_path) == []


def test_many_threads_make_the_same_parents(disk, tmp_path):
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
