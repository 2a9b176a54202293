"""What one listing tells Snakemake, and what ``glob_wildcards`` finds."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from plugin_rig import make_object, make_plate
from snakemake.io import IOCache, flag, glob_wildcards
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_storage_plugin_polystore import inventory

import polystore_flows as ps


@pytest.fixture
def plate(tmp_path):
    """URI of a plate with the wells B/3 and B/4 of two fields."""
    return make_plate(tmp_path / "p.zarr", fields=2)


@pytest.fixture
def listings(monkeypatch):
    """Every plate or folder that is listed."""
    seen = []
    list_one = inventory._list

    def counting(query, parsed):
        seen.append(query)
        return list_one(query, parsed)

    monkeypatch.setattr(inventory, "_list", counting)
    return seen


def known(cache, part):
    """Whether the cache says that `part` exists; None if it has to be asked for."""
    if part.cache_key() in cache.exists_in_storage:
        return cache.exists_in_storage[part.cache_key()]
    return False if part.get_inventory_parent() in cache.exists_in_storage.has_inventory else None


def take(cache, *parts):
    for part in parts:
        asyncio.run(part.inventory(cache))


def test_one_listing_tells_of_all_wells_of_a_plate_in_both_spellings(tmp_path, plate, listings):
    cache = IOCache(10)
    parts = [make_object(tmp_path, f"{plate}/B/{c}") for c in ("3", "03", "4", "04", "5", "05")]
    take(cache, *parts)
    assert [known(cache, part) for part in parts] == [True] * 4 + [False] * 2
    assert len(listings) == 1
    for part in parts[:4]:
        assert cache.mtime[part.cache_key()].storage() == part.mtime()
        assert cache.size[part.cache_key()] == part.size()


def test_one_listing_tells_of_all_fields_of_a_plate(tmp_path, plate, listings):
    cache = IOCache(10)
    names = ("B/3/0", "B/03/1", "B/4/1", "B/4/2", "C/1/0")
    parts = [make_object(tmp_path, f"{plate}/{name}") for name in names]
    take(cache, *parts)
    assert [known(cache, part) for part in parts] == [True, True, True, False, False]
    assert len(listings) == 1


def test_a_listing_says_nothing_of_what_it_does_not_show(tmp_path, plate):
    """Labels, planes, tables and unusual spellings must not be taken for missing."""
    ps.open_plate(plate, "r+").write_label("B/3", 0, "nuclei", np.ones((8, 8), "uint16"))
    ps.save("text", f"{plate}/tables/a.txt")
    cache = IOCache(10)
    take(cache, make_object(tmp_path, f"{plate}/B/3"), make_object(tmp_path, f"{plate}/B/3/0"))
    for part in ("B/3/0/labels/nuclei", "B/3/0?c=DAPI", "tables/a.txt", "B/003", "b/3", "b/3/0"):
        unlisted = make_object(tmp_path, f"{plate}/{part}")
        assert unlisted.exists()
        assert known(cache, unlisted) is None
        take(cache, unlisted)
        assert known(cache, unlisted) in (None, True)


def test_a_plate_that_does_not_exist_has_no_wells(tmp_path):
    cache = IOCache(10)
    part = make_object(tmp_path, f"zarr://{tmp_path}/no.zarr/B/3")
    take(cache, part)
    assert known(cache, part) is False


def test_a_plate_that_cannot_be_read_is_one_line_that_names_it(tmp_path, plate):
    (tmp_path / "p.zarr/zarr.json").write_text("{")
    with pytest.raises(WorkflowError, match=r"p\.zarr") as caught:
        take(IOCache(10), make_object(tmp_path, f"{plate}/B/3"))
    assert "\n" not in str(caught.value)


def test_no_listing_is_taken_when_its_time_is_used_up(tmp_path, plate, listings):
    """Snakemake's spawned jobs have no time, or each would list the plate again."""
    cache = IOCache(0)
    take(cache, make_object(tmp_path, f"{plate}/B/3"), make_object(tmp_path, f"disk://{tmp_path}"))
    assert listings == []
    assert not cache.exists_in_storage


def test_one_listing_tells_of_all_files_of_a_folder(tmp_path, listings):
    folder = tmp_path / "raw"
    (folder / "below").mkdir(parents=True)
    (folder / "a.tif").write_bytes(b"abc")
    (folder / "broken.tif").symlink_to(folder / "nothing")
    cache = IOCache(10)
    names = ("a.tif", "below", "broken.tif", "no.tif")
    parts = [make_object(tmp_path, f"disk://{folder}/{name}") for name in names]
    take(cache, *parts)
    assert [known(cache, part) for part in parts] == [True, True, False, False]
    assert [part.exists() for part in parts] == [True, True, False, False]
    assert cache.mtime[parts[0].cache_key()].storage() == parts[0].mtime()
    assert cache.size[parts[0].cache_key()] == 3
    assert parts[1].cache_key() not in cache.mtime
    assert len(listings) == 1


def test_relative_files_have_an_inventory_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    cache = IOCache(10)
    parts = [make_object(tmp_path, f"disk:{name}") for name in ("a.txt", "b.txt")]
    take(cache, *parts)
    assert [known(cache, part) for part in parts] == [True, False]


def test_a_real_folder_named_like_a_well_is_not_taken_for_missing(tmp_path):
    """In disk:///results/B/03 a result may lie that is no image of a plate."""
    (tmp_path / "results/B/03").mkdir(parents=True)
    cache = IOCache(10)
    part = make_object(tmp_path, f"disk://{tmp_path}/results/B/03")
    take(cache, part)
    assert part.exists()
    assert known(cache, part) in (None, True)


# glob_wildcards


def glob(folder, pattern):
    """What Snakemake's own function makes of our candidates, sorted."""
    part = make_object(folder, pattern)
    found = glob_wildcards(flag(part.query, "storage_object", part))
    return sorted(zip(*found, strict=True))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/{well}", [("B/3",), ("B/4",)]),
        ("/{row}/{column}", [("B", "3"), ("B", "4")]),
        ("/{well}/0", [("B/3",), ("B/4",)]),
        ("/{well}/{field}", [("B/3", "0"), ("B/3", "1"), ("B/4", "0"), ("B/4", "1")]),
        ("/{row}/3/{field}", [("B", "0"), ("B", "1")]),
        ("/{any}/1", [("B/3",), ("B/4",)]),
        ("/{well}/{field,1}", [("B/3", "1"), ("B/4", "1")]),
        ("/{well}/0/labels/{name}", [("B/3", "nuclei")]),
        ("/tables/{table}.csv", [("counts",)]),
        ("/{well}/9", []),
    ],
)
def test_wildcards_in_a_plate_are_found_from_its_metadata(tmp_path, plate, pattern, found):
    opened = ps.open_plate(plate, "r+")
    opened.write_label("B/3", 0, "nuclei", np.ones((8, 8), "uint16"))
    (tmp_path / "p.zarr/tables").mkdir(exist_ok=True)
    (tmp_path / "p.zarr/tables/counts.csv").write_text("a\n1\n")
    assert glob(tmp_path, plate + pattern) == found


def test_plates_are_found_by_wildcards_too(tmp_path, plate):
    make_plate(tmp_path / "below" / "q.zarr", wells=["C/1"])
    where = f"zarr://{tmp_path}"
    assert glob(tmp_path, f"{where}/{{plate}}.zarr") == [("below/q",), ("p",)]
    assert glob(tmp_path, f"{where}/{{plate}}.zarr/{{well}}/1") == [("p", "B/3"), ("p", "B/4")]
    assert glob(tmp_path, f"{where}/{{plate}}.zarr/C/1") == [("below/q",)]
    assert glob(tmp_path, f"{where}/no/{{plate}}.zarr/{{well}}") == []


def test_files_are_found_with_a_constant_start_that_ends_within_a_name(tmp_path, monkeypatch):
    """Partial names are where another plugin raises a TypeError."""
    for name in ("raw/s1.tif", "raw/s2.tif", "raw/other.tif", "raw/below/s3.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert glob(tmp_path, f"disk://{tmp_path}/raw/s{{n}}.tif") == [("1",), ("2",)]
    monkeypatch.chdir(tmp_path)
    assert glob(tmp_path, "disk:raw/s{n}.tif") == [("1",), ("2",)]
    assert glob(tmp_path, "disk:r{x}/{y}/s3.tif") == [("aw", "below")]
    (tmp_path / "raw/below/again").symlink_to(tmp_path / "raw")  # not followed for ever
    assert glob(tmp_path, "disk:raw/s{n}.tif") == [("1",), ("2",)]


def test_wells_of_a_folder_of_images_are_found(tmp_path):
    import tifffile

    (tmp_path / "raw").mkdir()
    for well in ("A01", "B02"):
        path = tmp_path / f"raw/{well}_s1_w1.tif"
        tifffile.imwrite(path, np.zeros((8, 8), "uint16"))
    found = glob(tmp_path, f"disk://{tmp_path}/raw/{{row}}/{{column}}/0")
    assert [(row, column.lstrip("0")) for row, column in found] == [("A", "1"), ("B", "2")]
