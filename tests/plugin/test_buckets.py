"""Objects and folders of objects, on a provider that the user named."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from plugin_rig import make_object, make_provider, tree
from snakemake.io import IOCache, flag, glob_wildcards
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_storage_plugins.exceptions import FileOrDirectoryNotFoundError
from snakemake_storage_plugin_polystore import StorageProvider, stores

import polystore_flows as ps


def write(part, content):
    """What a job leaves at the local path: a file, or a folder of files."""
    path = part.local_path()
    if isinstance(content, bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return
    path.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    (path / ".snakemake_timestamp").touch()


FOLDER = {"a.txt": b"a", "below/b.txt": b"b", "below/again/c.txt": b"c"}


def test_objects_are_taken_by_a_named_provider_only(tmp_path):
    """Where Snakemake infers a provider, they are the s3 plugin's."""
    for scheme in ("s3", "gs", "az"):
        assert not StorageProvider.is_valid_query(f"{scheme}://bucket/{{key}}.tif")
        assert make_provider(tmp_path).is_valid_query(f"{scheme}://bucket/{{key}}.tif")
    assert "whole bucket" in str(make_provider(tmp_path).is_valid_query("s3://bucket"))


@pytest.mark.parametrize("content", [b"x" * 100, FOLDER], ids=["file", "folder"])
def test_what_is_stored_twice_comes_back_as_it_was(tmp_path, bucket, content):
    stored = make_object(tmp_path / "one", f"{bucket}/out")
    write(stored, content)
    for _ in range(2):
        stored.store_object()
        assert stored.exists()
    fetched = make_object(tmp_path / "two", f"{bucket}/out")
    assert fetched.size() == fetched.local_footprint() == (100 if content != FOLDER else 3)
    fetched.retrieve_object()
    path = fetched.local_path()
    assert (path.read_bytes() if path.is_file() else tree(path)) == content
    assert path.lstat().st_mtime == fetched.mtime()
    assert [p.name for p in path.parent.iterdir()] == ["out"]


def test_a_folder_that_is_stored_again_loses_what_it_no_longer_has(tmp_path, bucket):
    for content in (FOLDER, {"other.txt": b"o"}):
        part = make_object(tmp_path / f"{len(content)}", f"{bucket}/out")
        write(part, content)
        part.store_object()
    assert [uri.rpartition("/")[2] for uri in ps.list_files(f"{bucket}/out", recursive=True)] == [
        "other.txt"
    ]


def test_an_empty_folder_exists(tmp_path, bucket):
    part = make_object(tmp_path, f"{bucket}/empty")
    write(part, {})
    part.store_object()
    assert part.exists()
    assert part.size() == 0


@pytest.mark.parametrize("stop_at", [0, 1, 2])
def test_a_folder_of_which_a_part_is_stored_does_not_exist_and_a_rerun_completes_it(
    tmp_path, bucket, monkeypatch, stop_at
):
    """The writer is killed between two objects; another working directory looks."""
    part = make_object(tmp_path / "one", f"{bucket}/out")
    write(part, FOLDER)
    backend, done = ps.get_backend("s3"), []

    def dies(path, identifier):
        if len(done) == stop_at:
            raise SystemExit("killed")
        done.append(identifier)
        type(backend).upload(backend, path, identifier)

    monkeypatch.setattr(stores, "in_threads", lambda act, items: [act(item) for item in items])
    monkeypatch.setattr(backend, "upload", dies)
    with pytest.raises(SystemExit):
        part.store_object()
    monkeypatch.undo()
    other = make_object(tmp_path / "two", f"{bucket}/out")
    assert not other.exists()
    cache = IOCache(10)
    asyncio.run(other.inventory(cache))
    assert not cache.exists_in_storage.get(other.cache_key(), False)
    write(other, FOLDER)
    other.store_object()
    assert other.exists()
    assert len(ps.list_files(f"{bucket}/out", recursive=True)) == 3


def test_a_folder_of_which_a_part_is_removed_does_not_exist(tmp_path, bucket, monkeypatch):
    part = make_object(tmp_path, f"{bucket}/out")
    write(part, FOLDER)
    part.store_object()
    backend = ps.get_backend("s3")

    def dies(identifier):
        raise SystemExit("killed")

    monkeypatch.setattr(backend, "delete", dies)
    with pytest.raises(SystemExit):
        part.remove()
    monkeypatch.undo()
    assert not make_object(tmp_path, f"{bucket}/out").exists()
    part.remove()
    part.remove()
    assert not ps.exists(f"{bucket}/out")


def test_removing_leaves_neighbours_whose_names_begin_alike(tmp_path, bucket):
    for name in ("out", "out.txt", "out2/a"):
        ps.save(b"x", f"{bucket}/{name}/data.bin")
    make_object(tmp_path, f"{bucket}/out").remove()
    assert ps.get_backend("s3").list_dir(bucket) == ["out.txt", "out2"]


def test_one_listing_tells_of_all_objects_and_folders(tmp_path, bucket, server):
    for name in ("a.bin", "b.bin", "folder/c.bin"):
        ps.save(b"abc", f"{bucket}/{name}")
    provider, cache = make_provider(tmp_path), IOCache(10)
    parts = [provider.object(f"{bucket}/{name}") for name in ("a.bin", "b.bin", "folder", "no.bin")]
    server.reset()
    for part in parts:
        asyncio.run(part.inventory(cache))
    assert server.requests["LIST"] <= 2  # and whether the folder is complete
    keys = [part.cache_key() for part in parts]
    assert [cache.exists_in_storage.get(key, False) for key in keys] == [True] * 3 + [False]
    assert cache.size[keys[0]] == 3
    assert cache.mtime[keys[0]].storage() == parts[0].mtime()
    assert parts[3].get_inventory_parent() in cache.exists_in_storage.has_inventory


def test_objects_are_found_by_wildcards(tmp_path, bucket):
    """Another plugin raises for each pattern of objects."""
    for name in ("raw/s1.bin", "raw/s2.bin", "raw/other.bin", "raw/below/s3.bin"):
        ps.save(b"x", f"{bucket}/{name}")
    part = make_object(tmp_path, f"{bucket}/raw/s{{n}}.bin")
    found = glob_wildcards(flag(part.query, "storage_object", part))
    assert sorted(found.n) == ["1", "2"]


def test_touching_an_object_or_folder_makes_it_look_newer(tmp_path, bucket):
    ps.save(b"x", f"{bucket}/folder/a.bin")
    parts = [make_object(tmp_path, f"{bucket}/{name}") for name in ("folder/a.bin", "folder")]
    before = [part.mtime() for part in parts]
    time.sleep(1.1)  # objects have whole seconds
    for part in parts:
        part.touch()
    assert all(part.mtime() > old for part, old in zip(parts, before, strict=True))
    assert ps.load(f"{bucket}/folder/a.bin") == b"x"


def test_a_missing_object_and_bucket_are_told_in_one_line(tmp_path, bucket):
    for query in (f"{bucket}/no.bin", "s3://no-such-bucket-here/a.bin"):
        part = make_object(tmp_path, query)
        with pytest.raises(WorkflowError) as caught:
            asyncio.run(part.managed_retrieve())
        assert query in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileOrDirectoryNotFoundError):
        make_object(tmp_path, f"{bucket}/no.bin").mtime()


def test_a_server_that_refuses_is_told_in_one_line(tmp_path, bucket, server):
    part = make_object(tmp_path, f"{bucket}/a.bin")
    write(part, b"x")
    server.refuse = True
    try:
        for verb in (part.managed_exists, part.managed_store, part.managed_remove):
            with pytest.raises(WorkflowError) as caught:
                asyncio.run(verb())
            assert f"{bucket}/a.bin" in str(caught.value)
            assert "\n" not in str(caught.value)
            assert "canary" not in str(caught.value)
    finally:
        server.refuse = False


def test_readers_in_threads_see_an_object_whole(tmp_path, bucket):
    """A replaced object is the old one or the new one."""
    part = make_object(tmp_path / "writer", f"{bucket}/a.bin")
    write(part, b"0" * 100_000)
    part.store_object()
    wrong, stop = [], threading.Event()

    def read(number):
        reader = make_object(tmp_path / f"{number}", f"{bucket}/a.bin")
        while not stop.is_set():
            reader.retrieve_object()
            found = set(reader.local_path().read_bytes())
            if len(found) != 1:
                wrong.append(found)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for digit in b"12345":
        write(part, bytes([digit]) * 100_000)
        part.store_object()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
