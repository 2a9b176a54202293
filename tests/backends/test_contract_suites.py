"""The shipped suites, over disk and memory, by URI and by path; and that they can fail."""

from __future__ import annotations

import pytest

from polystore_flows.backends.memory import MemoryBackend
from polystore_flows.contracts import ReadOnlyBackend, VirtualBackend
from polystore_flows.testing.contract_suites import (
    ByteStoreSuite,
    DataSourceSuite,
    ReadOnlySuite,
    StorageBackendSuite,
    VirtualSuite,
)
from polystore_flows.testing.rigs import DiskRig, MemoryRig, Rig


class TestDiskByUri(StorageBackendSuite, ByteStoreSuite):
    @pytest.fixture
    def rig(self, tmp_path):
        with DiskRig(tmp_path) as rig:
            yield rig


class TestDiskByPath(StorageBackendSuite):
    @pytest.fixture
    def rig(self, tmp_path):
        with DiskRig(tmp_path, uris=False) as rig:
            yield rig


class TestMemoryByUri(StorageBackendSuite, ByteStoreSuite):
    @pytest.fixture
    def rig(self):
        with MemoryRig() as rig:
            yield rig


class TestMemoryByPath(StorageBackendSuite):
    @pytest.fixture
    def rig(self):
        with MemoryRig(uris=False) as rig:
            yield rig


class TestASuiteOfABackendThatCanDoLess(StorageBackendSuite):
    """The rig's switches must be enough for a backend of tables beside arrays."""

    @pytest.fixture
    def rig(self):
        with MemoryRig() as rig:
            rig.suffixes, rig.directories, rig.symlinks = (".csv", ".txt"), False, False

            def refuse(*_args, **_kwargs):
                from polystore_flows.errors import UnsupportedError

                raise UnsupportedError("no links")

            rig.backend.create_symlink = refuse
            yield rig


class _Delegating:
    """Every question goes to a memory backend."""

    def __init__(self, memory):
        self.memory = memory

    def load(self, identifier):
        return self.memory.load(identifier)

    def list_files(self, directory, pattern=None, extensions=None, recursive=False):
        return self.memory.list_files(directory, pattern, extensions, recursive)

    def list_dir(self, path):
        return self.memory.list_dir(path)

    def exists(self, path):
        return self.memory.exists(path)

    def is_file(self, path):
        return self.memory.is_file(path)

    def is_dir(self, path):
        return self.memory.is_dir(path)


class Archive(_Delegating, ReadOnlyBackend):
    """As a third party would write one."""


class ArchiveRig(Rig):
    def __init__(self, backend_class):
        memory = MemoryRig()
        super().__init__(backend_class(memory.backend), memory.root)
        self.stored = memory.stored


class TestReadOnly(ReadOnlySuite):
    @pytest.fixture
    def rig(self):
        with ArchiveRig(Archive) as rig:
            yield rig


def _with_plate(name):
    def method(self, *args, plate_id, **kwargs):
        assert plate_id == 7
        return getattr(self.memory, name)(*args, **kwargs)

    return method


class Generated(VirtualBackend):
    """Every method needs the id of a plate."""

    def __init__(self, memory):
        self.memory = memory

    load = _with_plate("load")
    load_batch = _with_plate("load_batch")
    list_files = _with_plate("list_files")
    list_dir = _with_plate("list_dir")
    exists = _with_plate("exists")
    is_file = _with_plate("is_file")
    is_dir = _with_plate("is_dir")


class TestVirtual(VirtualSuite):
    @pytest.fixture
    def rig(self):
        with ArchiveRig(Generated) as rig:
            rig.context = {"plate_id": 7}
            yield rig


class _Careless(MemoryBackend):
    """The faults of earlier systems, one after the other."""

    _backend_type = None

    def exists(self, path):
        return True

    def list_files(self, directory, pattern=None, extensions=None, recursive=False):
        try:
            return super().list_files(directory)
        except FileNotFoundError:
            return []

    def delete(self, path):
        pass

    def _write(self, data, place, overwrite):
        super()._write(data, place, True)


@pytest.mark.parametrize(
    "test",
    [
        "test_what_is_not_there_is_nothing",
        "test_list_files_keeps_to_its_pattern",
        "test_list_files_keeps_to_its_extensions_in_any_case",
        "test_listing_what_is_not_there_is_a_file_not_found_error",
        "test_delete_removes_and_says_so_when_there_is_nothing",
        "test_save_does_not_overwrite_unless_told_to",
        "test_of_many_that_save_at_once_one_wins_and_the_others_are_told",
    ],
)
def test_the_suite_finds_the_faults_of_a_careless_backend(test):
    rig = MemoryRig()
    rig.backend = _Careless()
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(StorageBackendSuite(), test)(rig)


def test_a_suite_alone_collects_nothing():
    """Importing the suites into a test module must not run them without a rig."""
    for suite in (DataSourceSuite, ReadOnlySuite, StorageBackendSuite, VirtualSuite):
        assert not suite.__name__.startswith("Test")
