"""What one listing tells Snakemake."""

from __future__ import annotations

import asyncio
import os
import time

import numpy as np
import pytest
import tifffile
from plugin_rig import make_object, make_plate, make_provider
from snakemake.io import IOCache
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_storage_plugin_polystore import inventory
from snakemake_storage_plugin_polystore.query import place_of

import polystore_flows as ps


@pytest.fixture
def plate(tmp_path):
    """URI of a plate with the wells B/3 and B/4 of two fields."""
    return make_plate(tmp_path / "p.zarr", fields=2)


def known(cache, part):
    """Whether the cache says that `part` exists; None if it has to be asked for."""
    if part.cache_key() in cache.exists_in_storage:
        return cache.exists_in_storage[part.cache_key()]
    return False if part.get_inventory_parent() in cache.exists_in_storage.has_inventory else None


def take(cache, *parts):
    for part in parts:
        asyncio.run(part.inventory(cache))


def test_one_listing_tells_of_all_wells_of_a_plate_in_both_spellings(tmp_path, plate, counting):
    cache = IOCache(10)
    parts = [make_object(tmp_path, f"{plate}/B/{c}") for c in ("3", "03", "4", "04", "5", "05")]
    take(cache, *parts)
    assert [known(cache, part) for part in parts] == [True] * 4 + [False] * 2
    assert len(counting.listings) == 1
    for part in parts[:4]:
        assert cache.mtime[part.cache_key()].storage() == part.mtime()


def test_one_listing_tells_of_all_fields_of_a_plate(tmp_path, plate, counting):
    cache = IOCache(10)
    names = ("B/3/0", "B/03/1", "B/4/1", "B/4/2", "C/1/0")
    parts = [make_object(tmp_path, f"{plate}/{name}") for name in names]
    take(cache, *parts)
    assert [known(cache, part) for part in parts] == [True, True, True, False, False]
    assert len(counting.listings) == 1


def test_wells_and_fields_share_a_listing_until_something_is_written(tmp_path, plate, counting):
    cache, provider = IOCache(10), make_provider(tmp_path)
    parts = [provider.object(f"{plate}/{name}") for name in ("B/3", "B/3/1", "C/1/0", "C/1")]
    take(cache, *parts)
    assert [known(cache, part) for part in parts] == [True, True, False, False]
    assert len(counting.listings) == 1
    provider.object(f"{plate}/B/3/1").remove()
    counting.calls.clear()
    take(later := IOCache(10), *parts)
    assert [known(later, part) for part in parts] == [True, False, False, False]
    assert len(counting.listings) == 1


def test_a_shared_listing_is_believed_no_longer_than_one_of_its_own(tmp_path, plate, monkeypatch):
    provider, now = make_provider(tmp_path), time.monotonic()
    seconds = provider.settings.cache_seconds
    well, field = (provider.object(f"{plate}/{name}") for name in ("B/3", "B/3/1"))
    monkeypatch.setattr(time, "monotonic", lambda: now)
    inventory.refresh(well.query, provider.answers)
    now += seconds - 1
    inventory.refresh(field.query, provider.answers)
    assert provider.answers.exists(place_of(field.query))
    now += 2
    assert provider.answers.outdated(place_of(field.query))


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


def test_label_images_and_tables_have_a_listing_each(tmp_path, plate, counting):
    opened = ps.open_plate(plate, "r+")
    opened.write_label("B/3", 0, "nuclei", np.ones((8, 8), "uint16"))
    for table in ("tables/a.csv", "B/3/tables/b.csv"):
        opened.write_table(table, [{"x": 1}])
    counting.calls.clear()
    cache = IOCache(10)
    there = ("B/03/0/labels/nuclei", "B/3/0/labels/nuclei", "tables/a.csv", "B/03/tables/b.csv")
    missing = ("B/3/0/labels/cells", "B/4/tables/b.csv", "tables/b.csv", "a.csv", "B/3/b.csv")
    parts = [make_object(tmp_path, f"{plate}/{path}") for path in (*there, *missing)]
    take(cache, *parts)
    assert [known(cache, part) for part in parts] == [True] * 4 + [False] * 5
    assert len(counting.calls) == 2
    assert [part.exists() for part in parts] == [True] * 4 + [False] * 5
    assert all(cache.mtime[p.cache_key()].storage() == p.mtime() for p in parts[:4])


def test_a_text_where_no_listing_looks_is_asked_for(tmp_path, plate):
    ps.save("text", f"{plate}/B/3/0/notes.txt")
    cache = IOCache(10)
    part = make_object(tmp_path, f"{plate}/B/3/0/notes.txt")
    take(cache, part)
    assert part.exists()
    assert known(cache, part) is not False


def test_one_look_at_a_folder_of_images_tells_of_its_wells_and_fields(tmp_path, counting):
    for well in ("A01", "A02"):
        tifffile.imwrite(tmp_path / f"{well}_s1_w1.tif", np.zeros((8, 8), "uint16"))
    cache = IOCache(10)
    names, provider = ("A/1", "A/01/0", "A/2/0", "A/3"), make_provider(tmp_path)
    parts = [provider.object(f"disk://{tmp_path}/{name}") for name in names]
    take(cache, *parts)
    assert [known(cache, part) for part in parts] == [True, True, True, None]
    assert counting.calls == [("survey", f"disk://{tmp_path}")]


def test_what_a_listing_tells_is_not_asked_for_again_when_jobs_run(tmp_path, plate, counting):
    """Snakemake's cache is off then."""
    provider = make_provider(tmp_path)
    part = provider.object(f"{plate}/B/03")
    take(IOCache(10), part)
    counting.calls.clear()
    assert provider.object(f"{plate}/B/3").exists()
    assert asyncio.run(part.managed_exists())
    assert counting.calls == []


def test_a_time_in_the_future_is_left_for_snakemake_to_ask_for(tmp_path, plate):
    """So that what is ancient(), or not used, does not end the run."""
    later = time.time() + 3600
    os.utime(tmp_path / "p.zarr/B/3/0/zarr.json", (later, later))
    cache = IOCache(10)
    parts = [make_object(tmp_path, f"{plate}/{name}") for name in ("B/3/0", "B/4/0")]
    take(cache, *parts)
    assert [part.cache_key() in cache.mtime for part in parts] == [False, True]
    assert [known(cache, part) for part in parts] == [True, True]


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


def test_no_listing_is_taken_when_its_time_is_used_up(tmp_path, plate, counting):
    """Snakemake's spawned jobs have no time, or each would list the plate again."""
    cache = IOCache(0)
    take(cache, make_object(tmp_path, f"{plate}/B/3"), make_object(tmp_path, f"disk://{tmp_path}"))
    assert counting.calls == []
    assert not cache.exists_in_storage


def test_one_listing_tells_of_all_files_of_a_folder(tmp_path, counting):
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
    assert len(counting.listings) == 1


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
