"""What storing, retrieving, touching and removing do to stores and local copies."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from plugin_rig import make_object, tree
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_storage_plugins.exceptions import FileOrDirectoryNotFoundError

import polystore_flows as ps


def folder_of_images(folder: Path) -> str:
    """A folder of TIFFs that is a plate with the wells A/1 and A/2."""
    import tifffile

    folder.mkdir()
    for well in ("A01", "A02"):
        tifffile.imwrite(folder / f"{well}_s1_w1.tif", np.zeros((8, 8), "uint16"))
    return f"disk://{folder}"


# Asking


@pytest.mark.parametrize("part", ["", "/B/3", "/B/03", "/B/3/0", "/B/03/0?c=DAPI"])
def test_parts_of_a_zarr_plate_exist_with_their_time_and_size(tmp_path, plate, part):
    part = make_object(tmp_path, plate + part)
    assert part.exists()
    assert part.mtime() == pytest.approx(time.time(), abs=60)
    assert part.size() >= 0


@pytest.mark.parametrize("part", ["/B/5", "/B/3/1", "/B/3/0/labels/no", "/tables/no.csv"])
def test_parts_that_a_plate_does_not_have_do_not_exist(tmp_path, plate, part):
    part = make_object(tmp_path, plate + part)
    assert not part.exists()
    with pytest.raises(FileOrDirectoryNotFoundError, match=r"/B/5|/B/3|no"):
        part.mtime()


def test_a_label_written_into_a_field_does_not_make_it_look_new(tmp_path, plate):
    """Else Snakemake would make everything again after each segmentation."""
    parts = [make_object(tmp_path, plate + part) for part in ("", "/B/3", "/B/3/0")]
    for file in (tmp_path / "p.zarr").rglob("*"):
        os.utime(file, (1e9, 1e9))
    before = [part.mtime() for part in parts]
    opened = ps.open_plate(plate, "r+")
    opened.write_label("B/3", 0, "nuclei", np.ones((8, 8), "uint16"))
    opened.write_well("C/5", {0: np.ones((1, 1, 1, 8, 8), "uint16")})
    assert [part.mtime() for part in parts] == before


def test_fields_in_a_folder_of_images_are_answered_and_used_by_reference(tmp_path):
    uri = folder_of_images(tmp_path / "raw")
    field = make_object(tmp_path, f"{uri}/A/01/0", retrieve=False)
    assert field.exists()
    assert field.mtime() == pytest.approx(time.time(), abs=60)
    assert field.size() > 0
    assert not make_object(tmp_path, f"{uri}/A/03/0").exists()
    with pytest.raises(WorkflowError, match="use it by reference"):
        field.retrieve_object()


# Retrieving


def test_a_file_is_linked_or_copied_as_the_mode_says(tmp_path, raw):
    query = f"disk://{raw}/a.tif"
    linked, copied = (make_object(tmp_path / mode, query, mode) for mode in ("link", "copy"))
    linked.retrieve_object()
    copied.retrieve_object()
    assert linked.local_path().is_symlink()
    assert not copied.local_path().is_symlink()
    assert linked.local_path().name == copied.local_path().name == "a.tif"
    assert linked.local_path().read_bytes() == copied.local_path().read_bytes() == b"A" * 1000


def test_a_job_may_change_its_copy_of_a_well_in_place(tmp_path, plate):
    before = tree(tmp_path / "p.zarr")
    well = make_object(tmp_path, f"{plate}/B/3", "copy")
    well.retrieve_object()
    assert tree(well.local_path()) == tree(tmp_path / "p.zarr" / "B" / "3")
    for file in well.local_path().rglob("*"):
        if file.is_file():
            with file.open("r+b") as opened:
                opened.write(b"changed")
    assert tree(tmp_path / "p.zarr") == before


@pytest.mark.parametrize("part", ["", "/B/03", "/B/3/0"])
def test_a_retrieved_part_of_a_plate_opens_as_zarr(tmp_path, plate, part):
    retrieved = make_object(tmp_path, plate + part)
    retrieved.retrieve_object()
    group = zarr.open_group(retrieved.local_path(), mode="r")
    field = {"": "B/3/0/0", "/B/03": "0/0", "/B/3/0": "0"}[part]
    assert group[field].shape[-2:] == (8, 8)


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_a_local_copy_is_not_older_than_the_store_so_that_it_is_not_fetched_again(
    tmp_path, plate, raw, mode
):
    later = time.time() + 30  # a commit stamp is later than the time of its folder
    for path in (tmp_path / "p.zarr/B/3/0/zarr.json", raw, raw / "a.tif"):
        os.utime(path, (later, later))
    for query in (f"{plate}/B/3", f"{plate}/B/3/0", f"disk://{raw}", f"disk://{raw}/a.tif"):
        part = make_object(tmp_path, query, mode)
        part.retrieve_object()
        assert part.mtime() == pytest.approx(later)
        assert part.local_path().lstat().st_mtime >= part.mtime()


def test_retrieving_again_replaces_an_outdated_local_copy(tmp_path, raw, plate):
    for query, mode in ((f"disk://{raw}", "link"), (f"disk://{raw}", "copy"), (f"{plate}/B/3", "")):
        part = make_object(tmp_path / mode, query, mode or "link")
        part.retrieve_object()
        part.retrieve_object()
        assert part.local_path().is_dir()
    field = make_object(tmp_path, f"{plate}/B/3/0")
    field.retrieve_object()
    image = np.full((1, 1, 1, 8, 8), 77, "uint16")
    ps.open_plate(plate, "r+").write_image("B/3", 0, image, overwrite=True)
    field.retrieve_object()
    assert np.all(zarr.open_group(field.local_path(), mode="r")["0"][:] == 77)


def test_a_folder_that_holds_the_local_prefix_is_not_copied_into_itself(tmp_path, raw):
    part = make_object(raw, f"disk://{raw}", "copy")
    with pytest.raises(WorkflowError, match="into itself"):
        part.retrieve_object()


def test_a_folder_with_a_link_to_itself_is_not_copied_for_ever(tmp_path, raw):
    (raw / "self").symlink_to(raw)
    part = make_object(tmp_path, f"disk://{raw}", "copy")
    with pytest.raises(WorkflowError, match="link to a folder that holds it"):
        part.retrieve_object()
    assert not list(part.local_path().parent.iterdir())


def test_planes_are_used_by_reference_only(tmp_path, plate):
    with pytest.raises(WorkflowError, match="names planes of an image; use it by reference"):
        make_object(tmp_path, f"{plate}/B/3/0?c=DAPI").retrieve_object()


def test_a_failed_retrieval_is_one_line_that_names_the_query_and_leaves_nothing(tmp_path, plate):
    for query in (f"{plate}/B/9", f"disk://{tmp_path}/no.tif", f"zarr://{tmp_path}/no.zarr/B/3"):
        part = make_object(tmp_path, query)
        part.local_path().parent.mkdir(parents=True)
        part.local_path().write_text("outdated")
        with pytest.raises(FileOrDirectoryNotFoundError) as caught:
            asyncio.run(part.managed_retrieve())
        assert query in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not part.local_path().exists()


# Storing


@pytest.mark.parametrize("mode", ["link", "copy"])
def test_storing_a_file_or_folder_twice_keeps_its_content(tmp_path, mode):
    for query in ("out/a.bin", "out/folder"):
        part = make_object(tmp_path, f"disk://{tmp_path}/{query}", mode)
        path, target = part.local_path(), tmp_path / query
        path.parent.mkdir(parents=True)
        if target.suffix:
            path.write_bytes(b"content")
        else:
            (path / "below").mkdir(parents=True)
            (path / "below" / "b.txt").write_text("b")
            (path / ".snakemake_timestamp").touch()
        for _ in range(2):
            part.store_object()
            assert part.exists()
        if target.suffix:
            assert target.read_bytes() == b"content"
        else:
            assert tree(target) == {"below/b.txt": b"b"}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.bin", "folder"]


def test_a_stored_file_does_not_change_with_its_local_copy(tmp_path):
    part = make_object(tmp_path, f"disk://{tmp_path}/out.txt")
    part.local_path().parent.mkdir(parents=True)
    part.local_path().write_text("stored")
    part.store_object()
    with part.local_path().open("r+") as file:
        file.write("edited")
    assert (tmp_path / "out.txt").read_text() == "stored"


def test_storing_what_is_a_link_to_the_store_itself_changes_nothing(tmp_path, raw):
    inodes = [path.stat().st_ino for path in (raw, raw / "a.tif")]
    for query in (f"disk://{raw}/a.tif", f"disk://{raw}"):
        part = make_object(tmp_path, query)
        part.retrieve_object()
        part.store_object()
    assert tree(raw) == {"a.tif": b"A" * 1000, "b.tif": b"B" * 10}
    assert [path.lstat().st_ino for path in (raw, raw / "a.tif")] == inodes


@pytest.mark.parametrize("part", ["B/3", "B/3/0"])
def test_a_well_or_field_that_is_stored_is_listed_with_equal_pixels(tmp_path, plate, part):
    retrieved = make_object(tmp_path, f"{plate}/{part}")
    retrieved.retrieve_object()
    other = f"zarr://{tmp_path}/q.zarr"
    ps.create_plate(other, channels=["DAPI"])
    stored = make_object(tmp_path, f"{other}/{part}")
    stored.local_path().parent.mkdir(parents=True)
    shutil.copytree(retrieved.local_path(), stored.local_path())
    for _ in range(2):
        stored.store_object()
    assert stored.exists()
    assert stored.local_path().is_dir()  # Snakemake touches it next
    assert ps.open_plate(other).wells == ("B/3",)
    assert np.array_equal(ps.load(f"{other}/B/3/0"), ps.load(f"{plate}/B/3/0"))


def test_a_table_is_stored_byte_for_byte_and_twice(tmp_path, plate):
    part = make_object(tmp_path, f"{plate}/tables/counts.csv")
    part.local_path().parent.mkdir(parents=True)
    part.local_path().write_bytes(b"well,count\r\nB/3,1.50\r\n")
    for _ in range(2):
        part.store_object()
    assert (tmp_path / "p.zarr/tables/counts.csv").read_bytes() == b"well,count\r\nB/3,1.50\r\n"
    assert ps.load(f"{plate}/tables/counts.csv")["count"].tolist() == [1.5]


def test_storing_into_a_plate_that_does_not_exist_says_what_to_do(tmp_path, plate):
    for part in ("B/3", "tables/a.csv"):
        stored = make_object(tmp_path, f"zarr://{tmp_path}/no.zarr/{part}")
        stored.local_path().parent.mkdir(parents=True)
        if part == "B/3":
            shutil.copytree(tmp_path / "p.zarr/B/3", stored.local_path())
        else:
            stored.local_path().write_text("a\n")
        with pytest.raises(WorkflowError, match="create_plate") as caught:
            asyncio.run(stored.managed_store())
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "no.zarr").exists()


def test_a_whole_plate_is_not_stored_from_a_local_copy(tmp_path, plate):
    part = make_object(tmp_path, plate)
    part.retrieve_object()
    with pytest.raises(WorkflowError, match="use it by reference"):
        part.store_object()


# Touching


@pytest.mark.parametrize("part", ["/B/3", "/B/3/0", "/tables/a.txt"])
def test_touching_makes_a_part_look_committed_now(tmp_path, plate, part):
    ps.save("text", f"{plate}/tables/a.txt")
    for file in (tmp_path / "p.zarr").rglob("*"):
        os.utime(file, (1e9, 1e9))
    touched = make_object(tmp_path, plate + part)
    assert touched.mtime() == 1e9
    touched.touch()
    assert touched.mtime() == pytest.approx(time.time(), abs=60)
    assert make_object(tmp_path, f"{plate}/B/4").mtime() == 1e9


def test_touching_a_file_is_seen_by_its_time(tmp_path, raw):
    os.utime(raw / "a.tif", (1e9, 1e9))
    part = make_object(tmp_path, f"disk://{raw}/a.tif")
    part.touch()
    assert part.mtime() == pytest.approx(time.time(), abs=60)


# Printing and settings


def test_secrets_are_not_printed(tmp_path):
    part = make_object(tmp_path, "omero://host/plate/1?session_key=abc")
    assert "abc" not in part.print_query


def test_an_unknown_mode_is_refused_in_one_line(tmp_path):
    with pytest.raises(WorkflowError, match="mode='move' is unknown; use ref, link, copy"):
        make_object(tmp_path, "disk:a", "move")


def test_a_backend_that_is_not_there_is_told_in_one_line(tmp_path):
    part = make_object(tmp_path, "omero://127.0.0.1:1/plate/1/B/3", retrieve=False)
    with pytest.raises(WorkflowError, match=r"omero://127\.0\.0\.1:1/plate/1") as caught:
        asyncio.run(part.managed_exists())
    assert "\n" not in str(caught.value)
