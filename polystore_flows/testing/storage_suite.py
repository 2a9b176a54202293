"""What every backend that stores must do, as a suite for pytest."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from ..contracts import DataSink, DataSource
from ..errors import AlreadyExistsError, MismatchError, NotFoundError, UnsupportedError
from .rigs import Rig, name_of, same, sample
from .source_suites import DataSourceSuite
from .tree_suites import DirectorySuite, LinkSuite


class OnDevice:
    """An array that must be fetched with ``get()``, as CuPy's."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.dtype = array.dtype

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("implicit conversion is not allowed; use get()")

    def get(self) -> Any:
        """The array in main memory."""
        return self._array


class StorageBackendSuite(DirectorySuite, LinkSuite, DataSourceSuite):
    """Saving, deleting, copying, moving, directories and links."""

    def test_it_is_a_source_and_a_sink(self, rig: Rig) -> None:
        assert isinstance(rig.backend, DataSource)
        assert isinstance(rig.backend, DataSink)

    def test_what_is_saved_can_be_loaded_whatever_its_suffix(self, rig: Rig) -> None:
        for i, suffix in enumerate(rig.suffixes):
            identifier = rig.path(f"f{i}{suffix.upper()}")  # suffixes are case-blind
            rig.backend.save(sample(suffix), identifier)
            assert same(rig.backend.load(identifier), sample(suffix)), identifier

    def test_save_makes_the_directories_above(self, rig: Rig) -> None:
        suffix = rig.suffixes[0]
        deep = rig.path(f"one/two/a{suffix}")
        rig.backend.save(sample(suffix), deep)
        assert same(rig.backend.load(deep), sample(suffix))
        assert rig.backend.is_dir(rig.path("one/two"))

    def test_save_does_not_overwrite_unless_told_to(self, rig: Rig) -> None:
        path, suffix = _file(rig)
        with pytest.raises(AlreadyExistsError, match=name_of(path)):
            rig.backend.save(sample(suffix, 2), path)
        assert same(rig.backend.load(path), sample(suffix))
        rig.backend.save(sample(suffix, 2), path, overwrite=True)
        assert same(rig.backend.load(path), sample(suffix, 2))

    def test_of_many_that_save_at_once_one_wins_and_the_others_are_told(self, rig: Rig) -> None:
        """A check before the write would let two of them through."""
        suffix, start = rig.suffixes[0], Barrier(8)
        path = rig.path(f"raced{suffix}")

        def save(number: int) -> int | None:
            start.wait(timeout=30)
            try:
                rig.backend.save(sample(suffix, number), path)
            except AlreadyExistsError:
                return None
            return number

        with ThreadPoolExecutor(8) as pool:
            winners = [n for n in pool.map(save, range(8)) if n is not None]
        assert len(winners) == 1
        assert same(rig.backend.load(path), sample(suffix, winners[0]))

    def test_data_that_does_not_fit_its_suffix_changes_nothing(self, rig: Rig) -> None:
        path, suffix = _file(rig)
        for target in (path, rig.path(f"new{suffix}")):
            with pytest.raises(MismatchError, match=name_of(target)):
                rig.backend.save(object(), target, overwrite=True)
        assert same(rig.backend.load(path), sample(suffix))
        assert not rig.backend.exists(rig.path(f"new{suffix}"))

    def test_what_was_saved_does_not_change_with_the_callers_object(self, rig: Rig) -> None:
        for suffix in {".json", ".npy", ".csv"} & set(rig.suffixes):
            path, data = rig.path(f"kept{suffix}"), sample(suffix)
            rig.backend.save(data, path)
            _change(data)
            assert same(rig.backend.load(path), sample(suffix)), suffix
            _change(rig.backend.load(path))
            assert same(rig.backend.load(path), sample(suffix)), suffix

    def test_arrays_on_a_gpu_are_brought_to_numpy(self, rig: Rig) -> None:
        if ".npy" not in rig.suffixes:
            pytest.skip("no arrays as free files")
        rig.backend.save(OnDevice(sample(".npy")), rig.path("gpu.npy"))
        assert same(rig.backend.load(rig.path("gpu.npy")), sample(".npy"))

    def test_save_batch_stores_each_under_its_identifier(self, rig: Rig) -> None:
        suffix = rig.suffixes[0]
        paths = [rig.path(f"b{i}{suffix}") for i in range(4)]
        rig.backend.save_batch([sample(suffix, i) for i in range(4)], paths)
        loaded = rig.backend.load_batch(paths[::-1])
        assert all(same(data, sample(suffix, 3 - i)) for i, data in enumerate(loaded))

    def test_save_batch_of_unequal_lengths_is_a_value_error_and_writes_nothing(
        self, rig: Rig
    ) -> None:
        suffix = rig.suffixes[0]
        path = rig.path(f"lonely{suffix}")
        with pytest.raises(ValueError):
            rig.backend.save_batch([sample(suffix), sample(suffix)], [path])
        assert not rig.backend.exists(path)

    def test_save_batch_to_what_is_no_path_is_a_type_error_and_writes_nothing(
        self, rig: Rig
    ) -> None:
        suffix = rig.suffixes[0]
        path = rig.path(f"lonely{suffix}")
        with pytest.raises(TypeError):
            rig.backend.save_batch([sample(suffix), sample(suffix)], [path, 7])
        assert not rig.backend.exists(path)

    def test_names_hold_spaces_hashes_percents_and_letters_of_all_alphabets(self, rig: Rig) -> None:
        suffix = rig.suffixes[0]
        path = rig.path(f"plate #1 100% µ_æ_漢{suffix}")
        rig.backend.save(sample(suffix), path)
        assert rig.backend.list_files(rig.root) == [path]
        assert same(rig.backend.load(path), sample(suffix))

    def test_nothing_leads_out_of_the_root(self, rig: Rig) -> None:
        if "://" not in rig.root:
            pytest.skip("plain paths are the operating system's")
        path = rig.path(f"../../../../x{rig.suffixes[0]}")
        with pytest.raises(ValueError, match=r"\.\."):
            rig.backend.save(sample(rig.suffixes[0]), path)

    def test_stat_tells_kind_size_and_time(self, rig: Rig) -> None:
        before = time.time()
        path, _ = _file(rig)
        found = rig.backend.stat(path)
        assert found.kind == "file"
        assert found.size > 0
        assert before - 2 <= found.mtime <= time.time() + 2

    def test_stat_of_what_is_not_there_is_a_file_not_found_error(self, rig: Rig) -> None:
        with pytest.raises(NotFoundError, match="missing"):
            rig.backend.stat(rig.path(f"missing{rig.suffixes[0]}"))

    def test_touch_makes_a_file_look_newer_and_keeps_what_it_holds(self, rig: Rig) -> None:
        name, data = next(iter(rig.stored().items()))
        if not rig.times:
            with pytest.raises(UnsupportedError):
                rig.backend.touch(name)
            return
        before, deadline = rig.backend.stat(name), time.monotonic() + 10
        while rig.backend.stat(name).mtime <= before.mtime and time.monotonic() < deadline:
            time.sleep(0.05)  # an object store counts whole seconds
            rig.backend.touch(name)
        assert rig.backend.stat(name).mtime > before.mtime
        assert same(rig.backend.load(name), data)
        with pytest.raises(FileNotFoundError):
            rig.backend.touch(rig.path("missing" + rig.suffixes[0]))

    def test_delete_removes_and_says_so_when_there_is_nothing(self, rig: Rig) -> None:
        for delete in (rig.backend.delete, rig.backend.delete_all):
            path, _ = _file(rig)
            delete(path)
            assert not rig.backend.exists(path)
            with pytest.raises(NotFoundError, match=name_of(path)):
                delete(path)

    def test_copy_leaves_the_source_and_never_overwrites(self, rig: Rig) -> None:
        path, suffix = _file(rig)
        target = rig.path(f"folder/copied{suffix}")
        rig.backend.copy(path, target)
        rig.backend.save(sample(suffix, 5), path, overwrite=True)
        assert same(rig.backend.load(target), sample(suffix))
        with pytest.raises(AlreadyExistsError):
            rig.backend.copy(path, target)
        assert same(rig.backend.load(target), sample(suffix))

    def test_move_renames_and_never_overwrites(self, rig: Rig) -> None:
        path, suffix = _file(rig)
        target = rig.path(f"moved{suffix}")
        rig.backend.move(path, target)
        assert not rig.backend.exists(path)
        assert same(rig.backend.load(target), sample(suffix))
        _file(rig)
        with pytest.raises(AlreadyExistsError):
            rig.backend.move(path, target)
        assert same(rig.backend.load(target), sample(suffix))
        assert rig.backend.exists(path)

    def test_a_copy_or_move_of_nothing_is_a_file_not_found_error(self, rig: Rig) -> None:
        suffix = rig.suffixes[0]
        for verb in (rig.backend.copy, rig.backend.move):
            with pytest.raises(NotFoundError, match="missing"):
                verb(rig.path(f"missing{suffix}"), rig.path(f"target{suffix}"))
            assert not rig.backend.exists(rig.path(f"target{suffix}"))

    def test_list_files_goes_into_folders_only_when_told_to(self, rig: Rig) -> None:
        suffix = rig.suffixes[0]
        names = [f"a{suffix}", f"sub/b{suffix}", f"sub/deep/c{suffix}"]
        for name in names:
            rig.backend.save(sample(suffix), rig.path(name))
        assert rig.backend.list_files(rig.root) == [rig.path(names[0])]
        everything = rig.backend.list_files(rig.root, recursive=True)
        assert everything == sorted(map(rig.path, names))
        assert rig.backend.list_files(rig.root, pattern="c*", recursive=True) == everything[2:]
        assert rig.backend.list_dir(rig.root) == [f"a{suffix}", "sub"]


def _file(rig: Rig) -> tuple[str, str]:
    """A stored file and its suffix."""
    suffix = rig.suffixes[0]
    path = rig.path(f"a{suffix}")
    rig.backend.save(sample(suffix), path)
    return path, suffix


def _change(data: Any) -> None:
    """Change a sample in place."""
    if isinstance(data, dict):
        data["nested"]["µm"] = -1
    elif hasattr(data, "columns"):
        data.loc[0, "count"] = -1
    else:
        data[...] = 0
