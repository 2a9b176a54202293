"""Contracts and registry: who is registered, when, and what a third party may rely on."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows import registry
from polystore_flows.backends.memory import MemoryBackend
from polystore_flows.contracts import (
    BackendBase,
    DataSink,
    DataSource,
    PlateStore,
    ReadOnlyBackend,
    StorageBackend,
    VirtualBackend,
    registered_classes,
)
from polystore_flows.errors import MismatchError, UnknownBackendError, UnsupportedError
from polystore_flows.hcs.image import to_numpy
from polystore_flows.registry import (
    StorageRegistry,
    backend_for,
    ensure_storage_registry,
    get_backend,
    plate_store_for,
    reset_memory_backend,
    storage_registry,
)


@pytest.fixture
def forget():
    """Registers nothing for longer than the test."""
    known = dict(registered_classes)
    yield
    registered_classes.clear()
    registered_classes.update(known)


def python(code, cwd=None):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Registration


def test_a_class_registers_by_its_backend_type_when_it_is_defined(forget):
    class Mine(MemoryBackend):
        _backend_type = "Mine"

    assert registered_classes["mine"] is Mine
    assert isinstance(StorageRegistry()["MINE"], Mine)


def test_a_class_without_a_name_of_its_own_is_not_registered(forget):
    """A subclass of a backend must not take its parent's name."""
    before = dict(registered_classes)

    class Derived(MemoryBackend):
        pass

    class Nameless(MemoryBackend):
        _backend_type = None

    assert registered_classes == before
    assert registered_classes["memory"] is MemoryBackend


def test_who_promises_what():
    assert issubclass(StorageBackend, (BackendBase, DataSource, DataSink)) is True
    for both in (StorageBackend,):
        assert issubclass(both, BackendBase)
        assert issubclass(both, DataSource)
        assert issubclass(both, DataSink)
    for source in (ReadOnlyBackend, VirtualBackend):
        assert issubclass(source, BackendBase)
        assert issubclass(source, DataSource)
        assert not issubclass(source, DataSink)


class Sink(DataSink):
    def __init__(self):
        self.saved = []

    def save(self, data, identifier, *, overwrite=False):
        self.saved.append((data, identifier, overwrite))


def test_a_batch_is_saved_in_order():
    sink = Sink()
    sink.save_batch([1, 2], ["a", "b"], overwrite=True)
    assert sink.saved == [(1, "a", True), (2, "b", True)]


def test_a_batch_of_unequal_lengths_is_a_value_error_before_anything_is_written():
    sink = Sink()
    for data, identifiers in (([1], ["a", "b"]), ([1, 2], ["a"]), ([], ["a"])):
        with pytest.raises(ValueError, match=f"{len(data)} items"):
            sink.save_batch(data, identifiers)
    assert sink.saved == []


@pytest.mark.parametrize("wrong", [7, None, b"bytes", ["a"], object()])
def test_a_batch_to_what_is_no_path_is_a_type_error_before_anything_is_written(wrong):
    sink = Sink()
    with pytest.raises(TypeError):
        sink.save_batch([1, 2], ["a", wrong])
    assert sink.saved == []


# Virtual and read-only backends


class Listed(VirtualBackend):
    """Lists what its metadata says; needs to be told the plate."""

    def load(self, identifier, *, plate_id):
        return plate_id

    def list_files(self, directory, pattern=None, extensions=None, recursive=False, *, plate_id):
        return [f"{plate_id}/A01.tif"]

    def list_dir(self, path, *, plate_id):
        return ["A01.tif"]

    def exists(self, path, *, plate_id):
        return True

    is_file = exists
    is_dir = exists


def test_a_virtual_backend_is_a_backend_without_paths_of_the_operating_system():
    backend = Listed()
    assert isinstance(backend, BackendBase)
    assert backend.requires_filesystem_validation is False
    assert backend.list_files("", plate_id=3) == ["3/A01.tif"]


def test_a_missing_context_argument_is_a_type_error():
    with pytest.raises(TypeError, match="plate_id"):
        Listed().load("A01.tif")
    with pytest.raises(TypeError, match="plate_id"):
        Listed().list_files("")


@pytest.mark.parametrize(
    "contract", [DataSource, DataSink, ReadOnlyBackend, StorageBackend, VirtualBackend, PlateStore]
)
def test_a_contract_itself_cannot_be_made(contract):
    with pytest.raises(TypeError, match="abstract"):
        contract()


def test_only_backends_of_real_paths_ask_for_validation():
    assert ps.get_backend("disk").requires_filesystem_validation is True
    assert ReadOnlyBackend.requires_filesystem_validation.fget(object()) is False


# The registry


def test_names_are_case_blind():
    assert get_backend("MEMORY") is get_backend("memory") is storage_registry["Memory"]
    assert "DISK" in storage_registry
    assert 7 not in storage_registry


def test_an_unknown_name_is_a_key_error_that_lists_what_there_is():
    with pytest.raises(KeyError) as caught:
        get_backend("nosuch")
    assert isinstance(caught.value, UnknownBackendError)
    for name in ("nosuch", "disk", "memory", "zarr"):
        assert name in str(caught.value)


def test_an_unknown_scheme_is_told_with_the_uri_and_without_secrets():
    with pytest.raises(UnknownBackendError, match="nosuch://x/a") as caught:
        backend_for("nosuch://x/a?token=hunter2")
    assert "hunter2" not in str(caught.value)


def test_importing_the_package_makes_and_imports_nothing():
    python(
        """
        import sys
        import polystore_flows as ps
        from polystore_flows.registry import storage_registry
        heavy = {"numpy", "zarr", "pandas", "tifffile", "prefect", "snakemake", "omero", "obstore"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        ps.storage_registry.names()
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        assert "polystore_flows.backends.disk" not in sys.modules
        assert storage_registry._made == {}
        ps.get_backend("memory")
        assert list(storage_registry._made) == ["memory"]
        assert "polystore_flows.backends.disk" not in sys.modules
        """
    )


def test_a_backend_assigned_before_the_first_use_is_kept():
    python(
        """
        from polystore_flows.registry import storage_registry, get_backend
        mine = object()
        storage_registry["Memory"] = mine
        storage_registry["omero_local"] = mine
        assert get_backend("memory") is mine
        assert get_backend("OMERO_LOCAL") is mine
        assert "omero_local" in storage_registry
        assert set(storage_registry) >= {"disk", "memory", "zarr", "omero_local"}
        """
    )


def test_a_backend_can_be_replaced_and_taken_out():
    mine = StorageRegistry()
    first = mine["memory"]
    mine["memory"] = "other"
    assert mine["MEMORY"] == "other"
    del mine["Memory"]
    assert mine["memory"] is not first
    assert isinstance(mine["memory"], MemoryBackend)
    with pytest.raises(KeyError):
        del mine["nosuch"]


def test_threads_that_ask_first_all_get_the_one_backend(forget):
    """Two memory backends would be two stores."""
    made = []

    class Slow(MemoryBackend):
        _backend_type = "slow"

        def __init__(self):
            super().__init__()
            made.append(self)

    for _ in range(20):
        made.clear()
        fresh, start = StorageRegistry(), Barrier(8)

        def ask(_, fresh=fresh, start=start):
            start.wait(timeout=30)
            return fresh["slow"]

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, range(8))) == set(made)
        assert len(made) == 1


def test_ensuring_the_registry_reads_it_and_gives_it_back():
    assert ensure_storage_registry() is storage_registry
    assert storage_registry._targets is not None


def test_a_third_party_is_found_by_its_entry_point(tmp_path):
    """As a distribution on ``sys.path``; it cannot shadow a backend of ours."""
    (tmp_path / "third.py").write_text(
        textwrap.dedent(
            """
            from polystore_flows.backends.memory import MemoryBackend

            class Third(MemoryBackend):
                _backend_type = "third"
            """
        )
    )
    info = tmp_path / "third-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[polystore_flows.backends]\nThird = third:Third\ndisk = third:Third\n"
        "gone = no_such_module:Gone\n"
    )
    out = python(
        """
        import sys
        sys.path.insert(0, ".")
        import polystore_flows as ps
        assert "third" in ps.storage_registry
        assert "third" not in sys.modules
        print(type(ps.get_backend("THIRD")).__name__, type(ps.get_backend("disk")).__name__)
        assert ps.storage_registry["third"] is not ps.storage_registry["memory"]
        try:
            ps.get_backend("gone")
        except ImportError as error:
            assert "pip install no_such_module" in str(error), error
            print(type(error).__name__)
        """,
        cwd=tmp_path,
    )
    assert out.split() == ["Third", "DiskBackend", "MissingDependencyError"]


def test_reset_clears_files_and_keeps_directories():
    ps.save("x", "memory://contracts/d/a.txt")
    reset_memory_backend()
    assert ps.exists("memory://contracts/d")
    assert not ps.exists("memory://contracts/d/a.txt")


def test_a_backend_without_plates_says_so(forget, monkeypatch):
    class Archive(ReadOnlyBackend):
        load = list_files = list_dir = exists = is_file = is_dir = lambda *_: None

    monkeypatch.setattr(registry, "storage_registry", StorageRegistry())
    registry.storage_registry["archive"] = Archive()
    with pytest.raises(UnsupportedError, match="archive://x/p"):
        plate_store_for("archive://x/p")


# The verbs of the package


def test_batches_over_several_backends_keep_their_order(tmp_path):
    uris = [f"disk://{tmp_path}/a.txt", "memory://api/b.txt", f"disk://{tmp_path}/c.txt"]
    ps.save_batch(["a", "b", "c"], uris, overwrite=True)
    assert ps.load_batch([*uris[::-1], uris[0]]) == ["c", "b", "a", "a"]
    with pytest.raises(ValueError):
        ps.save_batch(["a"], uris)
    with pytest.raises(TypeError):
        ps.save_batch(["a", "b"], [uris[0], 7])
    reset_memory_backend()


def test_verbs_take_paths_and_parsed_uris_too(tmp_path):
    ps.save("x", tmp_path / "a.txt")
    with pytest.raises(FileExistsError):
        ps.save("y", ps.parse_uri(tmp_path / "a.txt"))
    assert ps.exists(str(tmp_path / "a.txt"))
    assert ps.stat(tmp_path / "a.txt").size == 1
    assert ps.list_files(tmp_path, pattern="*.txt") == [f"disk://{tmp_path}/a.txt"]
    ps.delete(tmp_path / "a.txt")
    assert not ps.exists(tmp_path / "a.txt")


# Arrays that are not NumPy's


class CuPyLike:
    """Refuses the implicit way, as CuPy does."""

    def __init__(self, array):
        self._array, self.dtype = array, array.dtype

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def get(self):
        return self._array


class TorchLike:
    """On the device and in the graph, where ``__array__`` raises."""

    def __init__(self, array, device="cuda", graph=True):
        self._array, self.device, self.graph = array, device, graph

    def detach(self):
        return TorchLike(self._array, self.device, graph=False)

    def cpu(self):
        return TorchLike(self._array, "cpu", self.graph)

    def __array__(self, dtype=None, copy=None):
        if self.device != "cpu" or self.graph:
            raise TypeError("can't convert cuda device type tensor to numpy")
        return self._array


class ArrayLike:
    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array


class DLPackOnly:
    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


@pytest.mark.parametrize("wrap", [CuPyLike, TorchLike, ArrayLike, DLPackOnly, np.ndarray.tolist])
@pytest.mark.parametrize("suffix", ["tif", "ome.tif", "npy", "png"])
def test_arrays_of_other_libraries_are_stored_as_numpy_ones(wrap, suffix):
    array = np.arange(12, dtype="uint8").reshape(3, 4)
    if suffix in ("png", "ome.tif") and wrap is np.ndarray.tolist:
        pytest.skip("a list is int64, which these formats do not hold")
    uri = f"memory://gpu/{wrap.__name__}.{suffix}"
    ps.save(wrap(array), uri, overwrite=True)
    assert (ps.load(uri) == array).all()


def test_a_dictionary_has_get_but_is_no_array():
    with pytest.raises(MismatchError):
        to_numpy({"a": 1})
