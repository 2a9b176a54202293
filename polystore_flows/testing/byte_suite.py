"""What a backend that holds bytes must do, as zarr stores and plates need it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from ..contracts import ByteStore, DocumentStore
from ..errors import AlreadyExistsError, ConflictError, NotFoundError
from .rigs import Rig

_DATA = bytes(range(100))


class ByteStoreSuite:
    """Ranges, creation, removal and listings; see ``contracts.ByteStore``."""

    def test_it_holds_bytes(self, rig: Rig) -> None:
        assert isinstance(rig.backend, ByteStore)

    @pytest.mark.parametrize("start", [0, 1, 40, 99, 100, 200, -1, -100, -200])
    @pytest.mark.parametrize("end", [None, 0, 1, 40, 99, 100, 200])
    def test_a_range_is_the_slice(self, rig: Rig, start: int, end: int | None) -> None:
        rig.backend.put(_DATA, rig.path("a.bin"))
        assert rig.backend.read_range(rig.path("a.bin"), start, end) == _DATA[start:end]

    def test_an_empty_file_has_ranges(self, rig: Rig) -> None:
        rig.backend.put(b"", rig.path("empty"))
        for start, end in ((0, None), (0, 5), (3, None), (-4, None)):
            assert rig.backend.read_range(rig.path("empty"), start, end) == b""

    def test_what_is_not_there_has_no_range(self, rig: Rig) -> None:
        rig.backend.put(_DATA, rig.path("folder/a"))
        for name in ("none", "folder", "folder/a/below"):
            for start, end in ((0, None), (0, 5), (-5, None), (7, 7)):
                with pytest.raises(NotFoundError):
                    rig.backend.read_range(rig.path(name), start, end)

    def test_a_file_is_replaced_only_if_that_is_asked_for(self, rig: Rig) -> None:
        path = rig.path("folder/a.bin")
        rig.backend.put(b"old", path)
        with pytest.raises(AlreadyExistsError):
            rig.backend.put(b"new", path)
        assert rig.backend.read_range(path) == b"old"
        rig.backend.put(b"new", path, overwrite=True)
        assert rig.backend.read_range(path) == b"new"

    def test_of_many_that_create_a_file_one_wins(self, rig: Rig) -> None:
        start = Barrier(8)

        def create(number: int) -> bytes | None:
            start.wait()
            try:
                rig.backend.put(data := b"%d" % number, rig.path("one"))
            except AlreadyExistsError:
                return None
            return data

        with ThreadPoolExecutor(8) as pool:
            won = [data for data in pool.map(create, range(8)) if data is not None]
        assert won == [rig.backend.read_range(rig.path("one"))]

    def test_files_are_listed_with_their_sizes_at_any_depth(self, rig: Rig) -> None:
        assert rig.backend.stat_files(rig.root) == {}
        assert rig.backend.list_level(rig.root) == ([], [])
        for name, size in (("a", 1), ("ab", 0), ("b/c", 2), ("b/d/e", 3), ("b.d/f", 4)):
            rig.backend.put(_DATA[:size], rig.path(name))
        found = rig.backend.stat_files(rig.root)
        sizes = {name: stat.size for name, stat in found.items()}
        assert sizes == {"a": 1, "ab": 0, "b/c": 2, "b/d/e": 3, "b.d/f": 4}
        assert {stat.kind for stat in found.values()} == {"file"}
        assert set(rig.backend.stat_files(rig.path("b"))) == {"c", "d/e"}
        files, folders = rig.backend.list_level(rig.root)
        assert (sorted(files), sorted(folders)) == (["a", "ab"], ["b", "b.d"])
        for name, stat in found.items():
            assert rig.backend.stat_file(rig.path(name)) == stat

    def test_what_is_no_file_has_no_stat_and_no_level(self, rig: Rig) -> None:
        rig.backend.put(_DATA, rig.path("folder/a"))
        for name in ("folder", "none", "folder/a/below"):
            assert rig.backend.stat_file(rig.path(name)) is None
        for name in ("none", "folder/a"):
            assert rig.backend.list_level(rig.path(name)) == ([], [])
            assert rig.backend.stat_files(rig.path(name)) == {}

    def test_a_folder_ends_with_its_last_file(self, rig: Rig) -> None:
        rig.backend.put(_DATA, rig.path("b/c/d"))
        rig.backend.remove([rig.path("b/c/d"), rig.path("b/none"), rig.path("b")])
        assert rig.backend.list_level(rig.root) == ([], [])
        assert rig.backend.stat_files(rig.root) == {}

    def test_a_tree_is_removed_and_nothing_beside_it(self, rig: Rig) -> None:
        for name in ("b/c", "b/d/e", "b.d/f", "ba", "a/b/c"):
            rig.backend.put(_DATA, rig.path(name))
        rig.backend.remove_tree(rig.path("b"))
        rig.backend.remove_tree(rig.path("none"))
        assert set(rig.backend.stat_files(rig.root)) == {"b.d/f", "ba", "a/b/c"}

    def test_a_document_is_replaced_on_condition_only(self, rig: Rig) -> None:
        if not isinstance(rig.backend, DocumentStore):
            pytest.skip("this backend does not replace on condition")
        path = rig.path("doc.json")
        assert rig.backend.read_with_etag(path) is None
        first = rig.backend.write_if(b"1", path, None, {"who": "me"})
        data, etag, attributes = rig.backend.read_with_etag(path) or (b"", "", {})
        assert (data, etag, attributes.get("who")) == (b"1", first, "me")
        with pytest.raises(ConflictError):
            rig.backend.write_if(b"2", path, None)
        second = rig.backend.write_if(b"2", path, first)
        with pytest.raises(ConflictError):
            rig.backend.write_if(b"3", path, first)
        assert (rig.backend.read_with_etag(path) or ())[:2] == (b"2", second)
        before = rig.backend.stat_file(path)
        rig.backend.put(b"4", path, overwrite=True)
        after = rig.backend.stat_file(path)
        assert before is not None
        assert after is not None
        assert before.etag != after.etag
        with pytest.raises(ConflictError):
            rig.backend.write_if(b"5", path, second)
        rig.backend.remove([path])
        with pytest.raises(ConflictError):
            rig.backend.write_if(b"6", path, second)
