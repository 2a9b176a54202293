"""The metadata document of a plate, under the names that users of the older package know."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from polystore_flows.errors import CorruptMetadataError, NotFoundError, URIError
from polystore_flows.metadata import (
    AtomicMetadataWriter,
    FileLockTimeoutError,
    MetadataUpdateRequest,
    atomic_write_json,
    file_lock,
    get_metadata_path,
    read_json,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return get_metadata_path(tmp_path)


@pytest.fixture
def writer() -> AtomicMetadataWriter:
    return AtomicMetadataWriter(timeout=5)


def test_the_document_of_a_plate_has_the_name_that_openhcs_reads(tmp_path: Path) -> None:
    assert get_metadata_path(tmp_path) == tmp_path / "openhcs_metadata.json"
    assert get_metadata_path(str(tmp_path)) == tmp_path / "openhcs_metadata.json"
    assert get_metadata_path("s3://bucket/plate") == "s3://bucket/plate/openhcs_metadata.json"
    with pytest.raises(URIError):
        get_metadata_path("omero://host/plate/1")


def test_create_or_update_makes_the_document_and_its_folder(
    tmp_path: Path, writer: AtomicMetadataWriter
) -> None:
    path = get_metadata_path(tmp_path / "new/plate")
    writer.create_or_update_metadata(path, "images", {"main": True}, {"disk": True})
    writer.create_or_update_metadata(path, "labels", {"main": False})
    assert read_json(path) == {
        "subdirectories": {"images": {"main": True}, "labels": {"main": False}},
        "available_backends": {"disk": True},
    }


def test_an_entry_is_replaced_and_everything_else_stays(
    path: Path, writer: AtomicMetadataWriter
) -> None:
    atomic_write_json(
        path,
        {
            "subdirectories": {"a": {"x": 1, "y": 2}, "b": {"z": 3}},
            "available_backends": {"disk": True},
            "by_others": [1],
        },
    )
    writer.update_subdirectory_metadata(path, "a", {"x": 9})
    assert read_json(path) == {
        "subdirectories": {"a": {"x": 9}, "b": {"z": 3}},
        "available_backends": {"disk": True},
        "by_others": [1],
    }


def test_a_request_says_the_same_as_the_method(path: Path, writer: AtomicMetadataWriter) -> None:
    request = MetadataUpdateRequest(path, "a", {"x": 1}, available_backends={"zarr": True})
    writer.apply(request)
    expected = {"subdirectories": {"a": {"x": 1}}, "available_backends": {"zarr": True}}
    assert read_json(path) == expected
    assert pickle.loads(pickle.dumps(request)) == request
    assert MetadataUpdateRequest(path, "a", {}).available_backends is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.sub_dir = "b"  # type: ignore[misc]
    assert not hasattr(request, "__dict__")


def test_backends_are_replaced_where_there_is_a_document(
    path: Path, writer: AtomicMetadataWriter
) -> None:
    writer.create_or_update_metadata(path, "a", {"x": 1}, {"disk": True})
    writer.update_available_backends(path, {"zarr": True, "disk": False})
    assert read_json(path) == {
        "subdirectories": {"a": {"x": 1}},
        "available_backends": {"zarr": True, "disk": False},
    }


@pytest.mark.parametrize("where", ["openhcs_metadata.json", "no/such/openhcs_metadata.json"])
def test_backends_of_no_document_are_an_error_and_make_nothing(
    tmp_path: Path, writer: AtomicMetadataWriter, where: str
) -> None:
    with pytest.raises(NotFoundError, match="no document") as caught:
        writer.update_available_backends(tmp_path / where, {"zarr": True})
    assert isinstance(caught.value, FileNotFoundError)
    assert str(tmp_path / where) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_document_removed_while_waiting_is_not_made_again(
    path: Path, writer: AtomicMetadataWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is missing when it counts, which is under the lock."""
    atomic_write_json(path, {})
    real = AtomicMetadataWriter.update_available_backends.__globals__["apply_change"]
    lock = real.__globals__["hold_lock"]

    def remove_then_lock(*args: Any, **kwargs: Any) -> Any:
        path.unlink()
        return lock(*args, **kwargs)

    monkeypatch.setitem(real.__globals__, "hold_lock", remove_then_lock)
    with pytest.raises(NotFoundError):
        writer.update_available_backends(path, {"zarr": True})
    assert not path.exists()


def test_a_merge_overwrites_named_keys_and_merges_the_backends_of_entries(
    path: Path, writer: AtomicMetadataWriter
) -> None:
    writer.update_subdirectory_metadata(
        path, "t1", {"available_backends": {"disk": True}, "main": True, "grid": [2, 2]}
    )
    writer.merge_subdirectory_metadata(
        path,
        {
            "t1": {"available_backends": {"zarr": True}, "main": False},
            "t2": {"available_backends": {"omero": True}},
        },
    )
    assert read_json(path) == {
        "subdirectories": {
            "t1": {
                "available_backends": {"disk": True, "zarr": True},
                "main": False,
                "grid": [2, 2],
            },
            "t2": {"available_backends": {"omero": True}},
        }
    }


def test_a_merge_makes_the_document_and_leaves_its_arguments(
    path: Path, writer: AtomicMetadataWriter
) -> None:
    updates: dict[str, dict[str, Any]] = {"a": {"available_backends": {"disk": True}}}
    writer.merge_subdirectory_metadata(path, updates)
    writer.merge_subdirectory_metadata(path, {"a": {"available_backends": {"zarr": True}}})
    assert updates == {"a": {"available_backends": {"disk": True}}}
    assert read_json(path)["subdirectories"]["a"]["available_backends"] == {
        "disk": True,
        "zarr": True,
    }


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"subdirectories": []}', '{"subdirectories": {"a": 1}}'],
)
def test_a_document_that_is_wrong_raises_and_stays(
    path: Path, writer: AtomicMetadataWriter, content: str
) -> None:
    path.write_text(content)
    with pytest.raises(CorruptMetadataError) as caught:
        writer.merge_subdirectory_metadata(path, {"a": {"x": 1}})
    assert str(path) in str(caught.value)
    assert path.read_text() == content


def test_wrong_arguments_are_told_apart_from_wrong_documents(
    path: Path, writer: AtomicMetadataWriter
) -> None:
    with pytest.raises(TypeError, match="named by a str"):
        writer.update_subdirectory_metadata(path, Path("a"), {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a mapping"):
        writer.merge_subdirectory_metadata(path, {"a": [1]})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="/subdirectories/a/mean is nan"):
        writer.update_subdirectory_metadata(path, "a", {"mean": float("nan")})
    assert not path.exists()


def test_the_timeout_of_the_writer_counts(path: Path) -> None:
    script = """
import sys
from polystore_flows.metadata import AtomicMetadataWriter, FileLockTimeoutError
writer = AtomicMetadataWriter(timeout=0.1)
try:
    writer.update_subdirectory_metadata(sys.argv[1], "a", {})
except FileLockTimeoutError as error:
    print(error)
"""
    with file_lock(path):
        command = [sys.executable, "-c", script, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "within 0.1 s" in done.stdout
    assert issubclass(FileLockTimeoutError, TimeoutError)


def test_wells_registered_by_eight_processes_are_all_there(path: Path) -> None:
    """One plate, 8 workers, 384 wells: what this package is for."""
    script = """
import sys
from polystore_flows.metadata import AtomicMetadataWriter
writer = AtomicMetadataWriter(timeout=60)
for well in range(int(sys.argv[2]), 384, 8):
    writer.merge_subdirectory_metadata(sys.argv[1], {f"well{well}": {"done": True}})
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(path), str(first)])
        for first in range(8)
    ]
    assert [process.wait(120) for process in processes] == [0] * 8
    assert set(read_json(path)["subdirectories"]) == {f"well{well}" for well in range(384)}


def test_a_writer_can_be_sent_to_other_processes(writer: AtomicMetadataWriter) -> None:
    assert pickle.loads(pickle.dumps(writer)).timeout == 5
