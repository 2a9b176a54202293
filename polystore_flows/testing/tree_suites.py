"""What directories and links of a backend must do; parts of ``StorageBackendSuite``."""

from __future__ import annotations

import pytest

from ..errors import AlreadyExistsError, NotFoundError, UnsupportedError
from .rigs import Rig, name_of, same, sample


class DirectorySuite:
    """Directories of their own; skipped where the rig has none."""

    def test_ensure_directory_makes_what_is_missing_and_is_content_with_what_is_there(
        self, rig: Rig
    ) -> None:
        _needs_directories(rig)
        folder = rig.path("one/two")
        assert rig.backend.ensure_directory(folder) == folder
        assert rig.backend.ensure_directory(folder) == folder
        assert rig.backend.is_dir(folder)
        assert rig.backend.list_files(folder) == []
        assert rig.backend.list_dir(folder) == []

    def test_a_file_in_the_way_of_a_directory_is_told(self, rig: Rig) -> None:
        _needs_directories(rig)
        path = _file(rig)
        for wrong in (path, f"{path}/below"):
            with pytest.raises(AlreadyExistsError, match=name_of(path)):
                rig.backend.ensure_directory(wrong)
        assert same(rig.backend.load(path), sample(rig.suffixes[0]))

    def test_save_never_replaces_a_directory(self, rig: Rig) -> None:
        _needs_directories(rig)
        suffix = rig.suffixes[0]
        folder = rig.path(f"folder{suffix}")
        rig.backend.ensure_directory(folder)
        for overwrite in (False, True):
            with pytest.raises(AlreadyExistsError, match="folder"):
                rig.backend.save(sample(suffix), folder, overwrite=overwrite)
        assert rig.backend.is_dir(folder)

    def test_a_directory_cannot_be_loaded(self, rig: Rig) -> None:
        _needs_directories(rig)
        folder = rig.path(f"folder{rig.suffixes[0]}")
        rig.backend.ensure_directory(folder)
        with pytest.raises(NotFoundError, match="directory"):
            rig.backend.load(folder)

    def test_delete_takes_empty_directories_only(self, rig: Rig) -> None:
        _needs_directories(rig)
        rig.backend.ensure_directory(rig.path("folder"))  # others may end with their last file
        path = _file(rig, "folder/a")
        with pytest.raises(UnsupportedError, match="delete_all"):
            rig.backend.delete(rig.path("folder"))
        rig.backend.delete(path)
        rig.backend.delete(rig.path("folder"))
        assert not rig.backend.exists(rig.path("folder"))

    def test_delete_all_takes_everything_below(self, rig: Rig) -> None:
        _needs_directories(rig)
        deep, other = _file(rig, "folder/deep/a"), _file(rig, "other/a")
        rig.backend.delete_all(rig.path("folder"))
        assert not rig.backend.exists(deep)
        assert not rig.backend.exists(rig.path("folder"))
        assert rig.backend.exists(other)

    def test_the_size_of_a_directory_is_that_of_its_files(self, rig: Rig) -> None:
        _needs_directories(rig)
        files = [_file(rig, "folder/a"), _file(rig, "folder/deep/b")]
        found = rig.backend.stat(rig.path("folder"))
        assert found.kind == "directory"
        assert found.size == sum(rig.backend.stat(path).size for path in files)

    def test_copy_and_move_take_a_directory_with_all_below(self, rig: Rig) -> None:
        _needs_directories(rig)
        suffix = rig.suffixes[0]
        _file(rig, "folder/deep/a")
        rig.backend.copy(rig.path("folder"), rig.path("copied"))
        rig.backend.move(rig.path("folder"), rig.path("above/moved"))
        assert not rig.backend.exists(rig.path("folder"))
        for folder in ("copied", "above/moved"):
            assert same(rig.backend.load(rig.path(f"{folder}/deep/a{suffix}")), sample(suffix))

    def test_copy_and_move_of_a_directory_never_merge_into_another(self, rig: Rig) -> None:
        _needs_directories(rig)
        path, kept = _file(rig, "folder/a"), _file(rig, "target/b")
        for verb in (rig.backend.copy, rig.backend.move):
            with pytest.raises(AlreadyExistsError, match="target"):
                verb(rig.path("folder"), rig.path("target"))
        assert rig.backend.list_files(rig.path("target")) == [kept]
        assert rig.backend.exists(path)

    def test_a_directory_cannot_go_into_itself(self, rig: Rig) -> None:
        """A copy would never end, a move would lose it."""
        _needs_directories(rig)
        path = _file(rig, "folder/a")
        for verb in (rig.backend.copy, rig.backend.move):
            with pytest.raises(UnsupportedError, match="itself"):
                verb(rig.path("folder"), rig.path("folder/below"))
        assert rig.backend.list_files(rig.path("folder"), recursive=True) == [path]


class LinkSuite:
    """Symbolic links; where the rig has none, that they are refused."""

    def test_a_backend_without_links_says_so(self, rig: Rig) -> None:
        if rig.symlinks:
            pytest.skip("this backend has links")
        path = _file(rig)
        with pytest.raises(UnsupportedError):
            rig.backend.create_symlink(path, rig.path(f"link{rig.suffixes[0]}"))
        assert not rig.backend.is_symlink(path)

    def test_a_link_leads_to_its_source(self, rig: Rig) -> None:
        _needs_links(rig)
        suffix = rig.suffixes[0]
        path, link = _file(rig), rig.path(f"links/link{suffix}")
        rig.backend.create_symlink(path, link)
        assert rig.backend.is_symlink(link)
        assert not rig.backend.is_symlink(path)
        assert rig.backend.exists(link)
        assert rig.backend.is_file(link)
        assert same(rig.backend.load(link), sample(suffix))
        assert rig.backend.stat(link) == rig.backend.stat(path)
        assert rig.backend.list_files(rig.path("links")) == [link]

    def test_a_link_needs_a_source_and_a_free_name(self, rig: Rig) -> None:
        _needs_links(rig)
        suffix = rig.suffixes[0]
        path, taken = _file(rig), _file(rig, "taken")
        with pytest.raises(NotFoundError, match="missing"):
            rig.backend.create_symlink(rig.path(f"missing{suffix}"), rig.path("link"))
        with pytest.raises(AlreadyExistsError, match="taken"):
            rig.backend.create_symlink(path, taken)
        assert not rig.backend.is_symlink(taken)
        rig.backend.create_symlink(path, taken, overwrite=True)
        assert rig.backend.is_symlink(taken)

    def test_a_link_to_itself_would_lose_the_file_and_is_refused(self, rig: Rig) -> None:
        _needs_links(rig)
        path = _file(rig)
        with pytest.raises(AlreadyExistsError):
            rig.backend.create_symlink(path, path, overwrite=True)
        assert same(rig.backend.load(path), sample(rig.suffixes[0]))

    def test_a_broken_link_is_a_link_that_does_not_exist(self, rig: Rig) -> None:
        _needs_links(rig)
        path, link = _file(rig), rig.path(f"link{rig.suffixes[0]}")
        rig.backend.create_symlink(path, link)
        rig.backend.delete(path)
        assert rig.backend.is_symlink(link)
        assert not rig.backend.exists(link)
        assert not rig.backend.is_file(link)
        assert rig.backend.list_files(rig.root) == []
        with pytest.raises(NotFoundError):
            rig.backend.load(link)
        with pytest.raises(AlreadyExistsError):
            rig.backend.save(sample(rig.suffixes[0]), link)
        rig.backend.delete(link)
        assert not rig.backend.is_symlink(link)

    def test_links_in_a_circle_end(self, rig: Rig) -> None:
        _needs_links(rig)
        suffix = rig.suffixes[0]
        path, link = _file(rig), rig.path(f"link{suffix}")
        rig.backend.create_symlink(path, link)
        rig.backend.delete(path)
        rig.backend.move(link, path)  # it leads to itself now
        assert rig.backend.is_symlink(path)
        assert not rig.backend.exists(path)
        assert rig.backend.list_files(rig.root) == []
        with pytest.raises(NotFoundError):
            rig.backend.load(path)
        with pytest.raises(OSError):
            rig.backend.save(sample(suffix), path, overwrite=True)
        rig.backend.delete_all(path)
        assert not rig.backend.is_symlink(path)

    def test_saving_over_a_link_writes_its_target(self, rig: Rig) -> None:
        _needs_links(rig)
        suffix = rig.suffixes[0]
        path, link = _file(rig), rig.path(f"link{suffix}")
        rig.backend.create_symlink(path, link)
        with pytest.raises(AlreadyExistsError):
            rig.backend.save(sample(suffix, 1), link)
        rig.backend.save(sample(suffix, 2), link, overwrite=True)
        assert rig.backend.is_symlink(link)
        assert same(rig.backend.load(path), sample(suffix, 2))

    def test_deleting_a_link_leaves_its_target(self, rig: Rig) -> None:
        _needs_links(rig)
        path = _file(rig)
        link = rig.path(f"link{rig.suffixes[0]}")
        for delete in (rig.backend.delete, rig.backend.delete_all):
            rig.backend.create_symlink(path, link)
            delete(link)
            assert not rig.backend.is_symlink(link)
            assert rig.backend.exists(path)

    def test_delete_all_does_not_follow_links(self, rig: Rig) -> None:
        _needs_links(rig)
        _needs_directories(rig)
        path = _file(rig, "kept/a")
        rig.backend.ensure_directory(rig.path("folder"))
        rig.backend.create_symlink(rig.path("kept"), rig.path("folder/link"))
        assert rig.backend.is_dir(rig.path("folder/link"))
        assert rig.backend.list_files(rig.path("folder/link")) == [
            rig.path(f"folder/link/a{rig.suffixes[0]}")
        ]
        assert rig.backend.list_files(rig.path("folder"), recursive=True) == []
        rig.backend.delete_all(rig.path("folder"))
        assert rig.backend.exists(path)

    def test_the_copy_of_a_directory_keeps_links_as_links(self, rig: Rig) -> None:
        _needs_links(rig)
        _needs_directories(rig)
        path = _file(rig)
        rig.backend.create_symlink(path, rig.path("folder/link"))
        rig.backend.copy(rig.path("folder"), rig.path("copied"))
        assert rig.backend.is_symlink(rig.path("copied/link"))
        assert rig.backend.is_file(rig.path("copied/link"))


def _needs_directories(rig: Rig) -> None:
    if not rig.directories:
        pytest.skip("this backend makes no directories of their own")


def _needs_links(rig: Rig) -> None:
    if not rig.symlinks:
        pytest.skip("this backend has no links")


def _file(rig: Rig, name: str = "a") -> str:
    path = rig.path(name + rig.suffixes[0])
    rig.backend.save(sample(rig.suffixes[0]), path)
    return path
