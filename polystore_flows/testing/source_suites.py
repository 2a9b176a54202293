"""What every source of data must do: load, list and find, as a suite for pytest."""

from __future__ import annotations

import pytest

from ..contracts import (
    BackendBase,
    DataSink,
    ReadOnlyBackend,
    VirtualBackend,
    registered_classes,
)
from ..errors import NotFoundError
from .rigs import Rig, name_of, same


class DataSourceSuite:
    """Reading and listing. The rig's `stored()` says what there is to read."""

    def test_load_gives_what_is_stored(self, rig: Rig) -> None:
        for identifier, data in rig.stored().items():
            assert same(rig.backend.load(identifier, **rig.context), data), identifier

    def test_load_batch_keeps_the_order_of_its_argument(self, rig: Rig) -> None:
        stored = rig.stored()
        wanted = [*reversed(stored), *stored]  # also with one identifier twice
        for got, identifier in zip(
            rig.backend.load_batch(wanted, **rig.context), wanted, strict=True
        ):
            assert same(got, stored[identifier]), identifier

    def test_load_batch_of_nothing_is_empty(self, rig: Rig) -> None:
        assert rig.backend.load_batch([], **rig.context) == []

    def test_load_batch_refuses_what_is_no_path(self, rig: Rig) -> None:
        with pytest.raises(TypeError):
            rig.backend.load_batch([*rig.stored(), 7], **rig.context)

    def test_load_of_what_is_not_there_is_a_file_not_found_error(self, rig: Rig) -> None:
        rig.stored()
        missing = rig.path(f"missing{rig.suffixes[0]}")
        with pytest.raises(NotFoundError, match="missing"):
            rig.backend.load(missing, **rig.context)

    def test_stored_files_exist_and_are_files(self, rig: Rig) -> None:
        for identifier in rig.stored():
            assert rig.backend.exists(identifier, **rig.context)
            assert rig.backend.is_file(identifier, **rig.context)
            assert not rig.backend.is_dir(identifier, **rig.context)

    def test_what_is_not_there_is_nothing(self, rig: Rig) -> None:
        """A path that parses is not for that reason one that exists."""
        stored = next(iter(rig.stored()))
        for missing in (rig.path(f"missing{rig.suffixes[0]}"), f"{stored}x"):
            assert not rig.backend.exists(missing, **rig.context)
            assert not rig.backend.is_file(missing, **rig.context)
            assert not rig.backend.is_dir(missing, **rig.context)

    def test_the_directory_of_the_files_is_a_directory(self, rig: Rig) -> None:
        rig.stored()
        assert rig.backend.exists(rig.root, **rig.context)
        assert rig.backend.is_dir(rig.root, **rig.context)
        assert not rig.backend.is_file(rig.root, **rig.context)

    def test_list_files_gives_the_files_sorted_and_each_can_be_loaded(self, rig: Rig) -> None:
        stored = rig.stored()
        listed = rig.backend.list_files(rig.root, **rig.context)
        assert listed == sorted(stored)
        for identifier in listed:
            assert same(rig.backend.load(identifier, **rig.context), stored[identifier])

    def test_list_files_keeps_to_its_pattern(self, rig: Rig) -> None:
        stored = rig.stored()
        name = name_of(next(iter(stored)))
        wanted = [i for i in sorted(stored) if name_of(i) == name]
        assert rig.backend.list_files(rig.root, pattern=name, **rig.context) == wanted
        assert rig.backend.list_files(rig.root, pattern=f"?{name[1:-1]}*", **rig.context) == wanted
        assert rig.backend.list_files(rig.root, pattern="no*such", **rig.context) == []

    def test_list_files_keeps_to_its_extensions_in_any_case(self, rig: Rig) -> None:
        stored, suffix = rig.stored(), rig.suffixes[0]
        wanted = [i for i in sorted(stored) if i.endswith(suffix)]
        for extensions in ({suffix}, [suffix.upper()], (suffix, ".nothing")):
            listed = rig.backend.list_files(rig.root, extensions=extensions, **rig.context)
            assert listed == wanted
        assert rig.backend.list_files(rig.root, extensions={".nothing"}, **rig.context) == []

    def test_list_files_applies_pattern_and_extensions_together(self, rig: Rig) -> None:
        suffix = rig.suffixes[0]
        stored = rig.stored()
        name = next(name_of(i) for i in stored if i.endswith(suffix))
        listed = rig.backend.list_files(rig.root, name, {suffix}, **rig.context)
        assert [name_of(i) for i in listed] == [name]
        assert rig.backend.list_files(rig.root, name, {".nothing"}, **rig.context) == []

    def test_list_dir_gives_names_sorted(self, rig: Rig) -> None:
        names = sorted(map(name_of, rig.stored()))
        assert rig.backend.list_dir(rig.root, **rig.context) == names

    def test_listing_what_is_not_there_is_a_file_not_found_error(self, rig: Rig) -> None:
        """An empty list would hide a mistyped path."""
        stored = next(iter(rig.stored()))
        for wrong in (f"{rig.root}/missing", stored):
            with pytest.raises(NotFoundError):
                rig.backend.list_files(wrong, **rig.context)
            with pytest.raises(NotFoundError):
                rig.backend.list_dir(wrong, **rig.context)

    def test_the_backend_is_registered_under_its_name(self, rig: Rig) -> None:
        assert isinstance(rig.backend, BackendBase)
        name = type(rig.backend)._backend_type
        if name is not None:
            assert registered_classes[name.lower()] is type(rig.backend)


class ReadOnlySuite(DataSourceSuite):
    """A source that cannot be written."""

    def test_it_has_no_verb_that_writes(self, rig: Rig) -> None:
        assert isinstance(rig.backend, ReadOnlyBackend)
        assert not isinstance(rig.backend, DataSink)

    def test_its_paths_are_not_the_operating_systems(self, rig: Rig) -> None:
        assert rig.backend.requires_filesystem_validation is False


class VirtualSuite(DataSourceSuite):
    """A backend that makes its listings from metadata; the rig's `context` is what it needs."""

    def test_it_is_a_backend_whose_paths_are_not_the_operating_systems(self, rig: Rig) -> None:
        assert isinstance(rig.backend, VirtualBackend)
        assert rig.backend.requires_filesystem_validation is False

    def test_a_missing_context_argument_is_a_type_error(self, rig: Rig) -> None:
        stored = next(iter(rig.stored()))
        if not rig.context:
            pytest.skip("this backend needs no context")
        for left_out in rig.context:
            given = {k: v for k, v in rig.context.items() if k != left_out}
            with pytest.raises(TypeError, match=left_out):
                rig.backend.load(stored, **given)
            with pytest.raises(TypeError, match=left_out):
                rig.backend.list_files(rig.root, **given)
