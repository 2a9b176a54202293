"""What is peculiar to memory: one store per process, threads, resetting."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.backends.memory import MemoryBackend
from polystore_flows.errors import AlreadyExistsError, NotFoundError, UnsupportedError, URIError
from polystore_flows.registry import reset_memory_backend


@pytest.fixture
def memory():
    return MemoryBackend()


def test_a_uri_and_its_plain_path_are_the_same(memory):
    memory.save("x", "memory://name/a.txt")
    assert memory.load("/name/a.txt") == memory.load("name//./a.txt") == "x"
    assert memory.list_files("memory://name") == ["memory://name/a.txt"]
    assert memory.list_files("/name") == ["/name/a.txt"]
    assert memory.list_dir("/") == ["name"]


@pytest.mark.parametrize("wrong", ["", "/a/../b", "disk:///a", "memory://", "memory://x/../y"])
def test_what_is_no_path_in_memory_is_refused(memory, wrong):
    with pytest.raises(URIError):
        memory.exists(wrong)


def test_arrays_are_isolated_from_their_callers_in_both_directions(memory):
    array = np.zeros((3, 3), "uint16")
    memory.save(array, "memory://x/a.tif")
    array[:] = 7
    loaded = memory.load("memory://x/a.tif")
    loaded[:] = 9
    assert memory.load("memory://x/a.tif").max() == 0


def test_two_backends_share_nothing(memory):
    memory.save("x", "memory://name/a.txt")
    assert not MemoryBackend().exists("memory://name/a.txt")


def test_reset_forgets_files_and_links_and_keeps_directories():
    ps.save("x", "memory://reset/deep/a.txt")
    memory = ps.get_backend("memory")
    memory.create_symlink("memory://reset/deep", "memory://reset/link")
    reset_memory_backend()
    assert ps.get_backend("memory") is memory
    assert memory.is_dir("memory://reset/deep")
    assert not ps.exists("memory://reset/deep/a.txt")
    assert not memory.is_symlink("memory://reset/link")
    assert ps.list_files("memory://reset", recursive=True) == []


def test_its_paths_are_not_the_operating_systems(memory):
    assert memory.requires_filesystem_validation is False


def test_threads_that_write_move_and_list_never_see_a_half_file(memory):
    memory.ensure_directory("memory://t/in")
    memory.ensure_directory("memory://t/out")

    def work(number):
        source, target = f"memory://t/in/{number}.npy", f"memory://t/out/{number}.npy"
        for round_ in range(20):
            memory.save(np.full(1000, round_), source)
            memory.move(source, target)
            for listed in memory.list_files("memory://t", recursive=True):
                try:
                    array = memory.load(listed)
                except NotFoundError:  # moved since
                    continue
                assert array.min() == array.max()
            memory.delete(target)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert memory.list_files("memory://t", recursive=True) == []


def test_threads_that_overwrite_one_file_leave_one_of_theirs(memory):
    def work(number):
        for _ in range(50):
            memory.save(str(number) * 100, "memory://t/a.txt", overwrite=True)
            assert len(set(memory.load("memory://t/a.txt"))) == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_a_copied_directory_is_independent_of_its_source_and_keeps_its_times(memory):
    memory.save("x", "memory://c/source/a.txt")
    memory.copy("memory://c/source", "memory://c/target")
    assert memory.stat("memory://c/target/a.txt") == memory.stat("memory://c/source/a.txt")
    memory.save("y", "memory://c/target/a.txt", overwrite=True)
    memory.save("z", "memory://c/target/b.txt")
    assert memory.load("memory://c/source/a.txt") == "x"
    assert memory.list_dir("memory://c/source") == ["a.txt"]


def test_a_directory_cannot_go_into_itself_by_way_of_a_link(memory):
    memory.save("x", "memory://c/folder/a.txt")
    memory.create_symlink("memory://c/folder", "memory://c/link")
    with pytest.raises(UnsupportedError, match="itself"):
        memory.move("memory://c/folder", "memory://c/link/below")
    assert memory.load("memory://c/folder/a.txt") == "x"


def test_links_in_the_middle_of_a_path_are_followed(memory):
    memory.ensure_directory("memory://l/folder")
    memory.create_symlink("memory://l/folder", "memory://l/link")
    memory.save("x", "memory://l/link/deep/a.txt")
    assert memory.load("memory://l/folder/deep/a.txt") == "x"


def test_a_file_open_for_reading_can_be_sought_and_not_written(memory):
    memory.save("hello", "memory://o/a.txt")
    with memory.open_binary("memory://o/a.txt") as file:
        assert file.seekable()
        file.seek(1)
        assert file.read() == b"ello"
        assert not file.writable()
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")
    assert memory.load("memory://o/a.txt") == "hello"


def test_the_root_of_all_stores_stays(memory):
    memory.save("x", "memory://o/a.txt")
    for verb in (memory.delete_all, lambda path: memory.move(path, "memory://p")):
        with pytest.raises((UnsupportedError, NotFoundError)):
            verb("/")
    with pytest.raises((UnsupportedError, AlreadyExistsError)):
        memory.save(b"x", "/")
    assert memory.load("memory://o/a.txt") == "x"
