"""What must never happen: a source removed or changed, wells lost, halves taken for wholes."""

from __future__ import annotations

import asyncio
import os
import shutil

import numpy as np
import pytest
from plugin_rig import make_object, make_plate, tree
from snakemake.io import IOCache
from snakemake_interface_common.exceptions import WorkflowError

import polystore_flows as ps

# The lethal case


@pytest.mark.parametrize("mode", ["link", "copy"])
@pytest.mark.parametrize("whole", ["disk://{}/p.zarr", "zarr://{}/p.zarr"])
def test_removing_local_copies_of_a_plate_and_its_wells_leaves_the_source(
    tmp_path, plate, mode, whole
):
    """Another plugin links the plate, finds the well's local copy inside, and removes the well."""
    before = tree(tmp_path / "p.zarr")
    queries = [whole.format(tmp_path), f"{plate}/B/3", f"{plate}/B/3/0", f"{plate}/B/03/0"]
    queries += [f"disk://{tmp_path}/p.zarr/B", f"disk://{tmp_path}/p.zarr/B/3"]
    parts = [make_object(tmp_path, query, mode) for query in queries]
    for part in parts:
        part.retrieve_object()
    for part in reversed(parts):  # as Snakemake removes local copies
        path = part.local_path()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        part.cleanup()
    assert tree(tmp_path / "p.zarr") == before
    assert ps.open_plate(plate).wells == ("B/3", "B/4")


def test_removing_an_object_removes_a_local_link_through_which_a_job_would_write(tmp_path, raw):
    part = make_object(tmp_path, f"disk://{raw}/a.tif")
    part.retrieve_object()
    part.remove()
    assert not part.local_path().is_symlink()
    assert (raw / "b.tif").exists()


# Removing


def test_removing_twice_is_no_error(tmp_path, plate, raw):
    for query in (f"{plate}/B/3/0", f"{plate}/B/4", f"disk://{raw}/a.tif", f"disk://{raw}"):
        part = make_object(tmp_path, query)
        part.remove()
        assert not part.exists()
        part.remove()
    assert ps.open_plate(plate).wells == ()


def test_removing_a_plate_keeps_its_wells(tmp_path, plate):
    """Snakemake removes an output before its job; the wells are outputs of other jobs."""
    before = tree(tmp_path / "p.zarr")
    make_object(tmp_path, plate).remove()
    assert tree(tmp_path / "p.zarr") == before


def test_removing_one_well_leaves_the_others(tmp_path, plate):
    make_object(tmp_path, f"{plate}/B/03").remove()
    assert ps.open_plate(plate).wells == ("B/4",)


@pytest.mark.parametrize("scheme", ["disk", "zarr"])
def test_removing_the_folder_of_a_plate_keeps_its_wells_whatever_it_is_called(tmp_path, scheme):
    make_plate(tmp_path / "p.zarr")
    own = ps.create_plate(f"disk://{tmp_path}/own", channels=["DAPI"])
    own.write_image("A/1", 0, np.zeros((8, 8), "uint16"))
    for name in ("p.zarr", "own") if scheme == "disk" else ("p.zarr",):
        before = tree(tmp_path / name)
        for _ in range(2):
            make_object(tmp_path, f"{scheme}://{tmp_path}/{name}").remove()
        assert tree(tmp_path / name) == before


def test_a_folder_of_results_is_removed_also_where_images_lie_in_it(tmp_path, raw):
    """It was an output of the job that is to make it again."""
    (raw / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    make_object(tmp_path, f"disk://{raw}").remove()
    assert not raw.exists()


def test_removing_what_is_a_link_leaves_what_it_leads_to(tmp_path, raw):
    (tmp_path / "link").symlink_to(raw)
    make_object(tmp_path, f"disk://{tmp_path}/link").remove()
    assert not (tmp_path / "link").is_symlink()
    assert (raw / "a.tif").exists()


@pytest.mark.parametrize("mode", ["ref", "link"])
def test_snakemake_touches_and_protects_links_and_not_their_sources(tmp_path, plate, raw, mode):
    """What its ``touch`` and ``protected`` do to a local path."""
    from snakemake.io import IOFile, flag

    def states():  # reading may change a time of its own
        found = {path: path.stat() for path in [*raw.rglob("*"), *(tmp_path / "p.zarr").rglob("*")]}
        return {path: (*s[:7], s.st_mtime_ns, s.st_ctime_ns) for path, s in found.items()}

    before = states()
    for query in (f"disk://{raw}/a.tif", f"disk://{raw}", f"{plate}/B/3", plate):
        part = make_object(tmp_path, query, mode, retrieve=True)
        part.retrieve_object()
        assert part.local_path().is_symlink()
        file = IOFile(flag(str(part.local_path()), "storage_object", part))
        file.touch()
        asyncio.run(file.remove(only_local=True, remove_non_empty_dir=True))
    assert states() == before


# Halves


def test_a_well_that_is_written_but_not_listed_does_not_exist_anywhere(tmp_path, plate):
    """A writer that was killed before it listed the well may leave it."""
    shutil.copytree(tmp_path / "p.zarr/B/4", tmp_path / "p.zarr/C/7")
    for folder in ("one", "another working directory"):
        for path in ("C/7", "C/7/0", "C/07/0"):
            part = make_object(tmp_path / folder, f"{plate}/{path}")
            assert not part.exists()
            cache = IOCache(10)
            asyncio.run(part.inventory(cache))
            assert not cache.exists_in_storage.get(part.cache_key(), False)


@pytest.mark.parametrize("query", ["disk://{}/out.bin", "disk://{}/out", "zarr://{}/p.zarr/a.txt"])
def test_what_is_stored_appears_at_once(tmp_path, plate, monkeypatch, query):
    """A writer that dies in the middle leaves the old state, which others see."""
    part = make_object(tmp_path, query.format(tmp_path))
    path = part.local_path()
    path.parent.mkdir(parents=True)
    if path.suffix:
        path.write_bytes(b"content")
    else:
        path.mkdir()
        (path / "a.txt").write_text("a")

    def dies(*_args, **_options):
        raise SystemExit("killed")

    for module, name in ((os, "utime"), (os, "link"), (os, "replace"), (os, "rename")):
        monkeypatch.setattr(module, name, dies)
    with pytest.raises(SystemExit):
        part.store_object()
    monkeypatch.undo()
    assert not make_object(tmp_path / "elsewhere", part.query).exists()
    part.store_object()
    assert make_object(tmp_path / "elsewhere", part.query).exists()


def test_a_store_that_fails_leaves_the_old_well(tmp_path, plate):
    part = make_object(tmp_path, f"{plate}/B/4", "copy")
    part.retrieve_object()
    before = tree(tmp_path / "p.zarr")
    for chunk in part.local_path().rglob("*"):
        if chunk.is_file() and chunk.name != "zarr.json":
            chunk.write_bytes(b"damaged")
    with pytest.raises(WorkflowError, match="B/4"):
        part.store_object()
    assert tree(tmp_path / "p.zarr") == before
    assert ps.open_plate(plate).wells == ("B/3", "B/4")


def test_removing_a_well_leaves_the_plate_as_if_it_had_never_been(tmp_path):
    plate = make_plate(tmp_path / "p.zarr", wells=["B/3", "C/5"])
    before = tree(tmp_path / "p.zarr")
    image = np.zeros((1, 1, 1, 8, 8), "uint16")
    ps.open_plate(plate, "r+").write_image("B/4", 0, image)
    make_object(tmp_path, f"{plate}/B/4").remove()
    assert tree(tmp_path / "p.zarr") == before
