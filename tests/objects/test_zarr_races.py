"""Many writers, readers, and deaths at one OME-Zarr plate on an object store and in memory."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from threading import Barrier, Event, Thread

import numpy as np
import pytest
import zarr
import zarr.storage
from zarr_plates import SHAPE, check, keys, new, noise

import polystore_flows as ps
from polystore_flows.backends.zarr import arrays, store_check
from polystore_flows.errors import (
    AlreadyExistsError,
    ConflictError,
    MismatchError,
)
from polystore_flows.uri import parse_uri


@pytest.fixture
def uri(store):
    return f"zarr+{store}/lab/p.zarr"


@pytest.fixture
def plate(uri):
    return new(uri)


def test_of_many_that_create_a_plate_one_does(uri):
    start = Barrier(8)

    def make(exist_ok):
        start.wait()
        try:
            new(uri, exist_ok=exist_ok)
        except AlreadyExistsError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, [False] * 8)) == 1
        assert sum(pool.map(make, [True] * 8)) == 8
    with pytest.raises(MismatchError):
        new(uri, layout=384, exist_ok=True)


def test_of_many_that_write_one_new_field_one_wins_and_the_others_are_told(plate):
    start = Barrier(4)

    def write(value):
        start.wait()
        with suppress(AlreadyExistsError):
            plate.write_image("B/2", 0, np.full(SHAPE, value, "uint16"))
            return value
        return None

    with ThreadPoolExecutor(4) as pool:
        won = [value for value in pool.map(write, range(1, 5)) if value]
    assert len(won) == 1
    np.testing.assert_array_equal(ps.load(f"{plate.uri}/B/2/0"), won[0])
    assert check(plate) == []
    arrays = {key.split("/")[3] for key in keys(plate) if key.startswith("B/2/0/")}
    assert len(arrays - {"zarr.json"}) == 2  # what the others uploaded is gone


def test_first_fields_that_are_unlike_are_refused_but_for_one(uri):
    plate, other = new(uri), ps.open_plate(uri, "r+")
    plate.write_image("A/1", 0, noise())
    with pytest.raises(MismatchError):
        other.write_image("A/2", 0, noise(shape=(1, 2, 1, 8, 8)))
    assert not any(key.startswith("A/2") for key in keys(plate))


def test_a_field_that_is_added_while_the_last_other_is_deleted_is_not_lost(uri):
    """The well is taken off the plate's list then, and must come back."""
    plate, tiny = new(uri, levels=1), noise(shape=(1, 2, 1, 8, 8))
    added = range(1, 9)

    def add():
        mine = ps.open_plate(uri, "r+")
        for field in added:
            mine.write_image("B/3", field, tiny)

    def delete():
        mine = ps.open_plate(uri, "r+")
        for _ in added:
            mine.write_image("B/3", 0, tiny, overwrite=True)
            ps.delete(f"{uri}/B/3/0")

    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(add), pool.submit(delete)]:
            job.result()
    assert set(map(str, added)) <= set(ps.open_plate(uri)["B/3"].fields)
    np.testing.assert_array_equal(ps.load(f"{uri}/B/3/8"), tiny)
    check(plate, repair=True)
    assert check(plate) == []


def test_labels_of_a_field_that_is_replaced_meanwhile_are_refused(plate, monkeypatch):
    plate.write_image("B/3", 0, noise())
    real = arrays.write_label

    def slow(*args, **options):
        plate.write_image("B/3", 0, noise(1), overwrite=True)
        real(*args, **options)

    monkeypatch.setattr(arrays, "write_label", slow)
    with pytest.raises(ConflictError, match="was replaced meanwhile"):
        plate.write_label("B/3", 0, "nuclei", noise()[:, :1])
    assert ps.open_plate(plate.uri)["B/3"].image(0).labels == ()
    assert not any("labels" in key for key in keys(plate))


def test_a_reader_never_sees_a_mixture_while_a_field_is_replaced(plate):
    """By the plate that a reader keeps open, by one opened anew, and by zarr-python."""
    uri, done = plate.uri, Event()
    plate.write_image("B/3", 0, np.full(SHAPE, 1, "uint16"))
    kept, seen, failed = ps.open_plate(uri)["B/3"].image(0), set(), []

    def through_zarr():
        group = zarr.open_group(ps.zarr_store(uri), path="B/3/0", mode="r")
        return group[group.attrs["ome"]["multiscales"][0]["datasets"][0]["path"]][:]

    def watch(read):
        while not done.is_set():
            try:
                values = set(np.unique(read()))
                seen.update(values)
                if len(values) != 1:
                    failed.append(values)
            except Exception as error:  # noqa: BLE001
                failed.append(error)

    readers = [kept.read, lambda: ps.load(f"{uri}/B/3/0")]
    threads = [Thread(target=watch, args=[read]) for read in readers]
    for thread in threads:
        thread.start()
    for value in range(2, 22):
        plate.write_image("B/3", 0, np.full(SHAPE, value, "uint16"), overwrite=True)
    done.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(seen) > 2
    assert set(np.unique(through_zarr())) == {21}


def test_a_writer_that_is_stopped_anywhere_leaves_the_old_field_or_the_new(store, monkeypatch):
    """Every put (on S3 every sixth) is once the last that is made; nothing is cleaned up."""
    monkeypatch.setattr(store_check, "AGE", -1.0)
    kind = type(ps.get_backend(parse_uri(store).scheme))
    old, new_ones = (np.full((1, 2, 1, 8, 8), value, "uint16") for value in (1, 2))
    puts, last = 0, None

    class Stopped(BaseException):
        pass

    def counted(name):
        real = getattr(kind, name)

        def put(self, *args, **options):
            nonlocal puts
            puts += 1
            if last is not None and puts > last:
                raise Stopped
            return real(self, *args, **options)

        return put

    for name in ("put", "write_if", "remove", "remove_tree"):
        monkeypatch.setattr(kind, name, counted(name))
    outcomes = set()
    for stop in range(0, 200, 1 if store.startswith("memory") else 6):
        puts, last = 0, None
        plate = new(f"zarr+{store}/{stop}.zarr", levels=1)
        plate.write_well("B/3", {0: old, 1: old}, {0: {"nuclei": old[:, :1]}})
        plate.write_image("C/4", 0, old)
        puts, last = 0, stop
        with suppress(Stopped):
            labels = {0: {"nuclei": new_ones[:, :1]}}
            plate.write_image("A/1", 0, new_ones)
            plate.write_well("B/3", {0: new_ones, 1: new_ones}, labels, overwrite=True)
        finished, last = puts <= stop, None
        again = ps.open_plate(plate.uri)
        for well in again.wells:
            for field in again[well].fields:
                image = again[well].image(field)
                (value,) = np.unique(image.read())
                outcomes.add((well, field, int(value), image.labels))
                for label in image.labels:
                    np.testing.assert_array_equal(image.label(label).read(), value)
        assert "B/3" in again
        assert "C/4" in again
        check(plate, repair=True)
        assert check(plate) == []
        if finished:
            assert again.wells == ("A/1", "B/3", "C/4")
            break
    assert finished
    assert {(2, ("nuclei",)), (1, ("nuclei",))} <= {
        o[2:] for o in outcomes if o[:2] == ("B/3", "0")
    }
    assert stop > 15


def test_a_repair_removes_old_uploads_and_lists_what_is_complete(plate, monkeypatch):
    array = noise()
    plate.write_well("B/3", {0: array, 1: array}, {0: {"nuclei": array[:, :1]}})
    plate.write_image("C/4", 0, array)
    clean = set(keys(plate))
    root = plate.uri.removeprefix("zarr+")
    backend = ps.get_backend(parse_uri(root).scheme)
    for key in ("B/3/0/0-0123abcd/c/0", "B/3/7/0/zarr.json", "B/3/0/labels/nuclei/1-0123abcd/c/0"):
        backend.put(b"{}", f"{root}/{key}")
    assert check(plate) == []  # somebody may be uploading them
    monkeypatch.setattr(store_check, "AGE", -1.0)
    assert [finding.rule for finding in check(plate)] == ["left-over"] * 3
    assert len(check(plate, repair=True)) == 3
    assert set(keys(plate)) == clean
    plate.unlist(["B/3"])
    plate.change_fields("B/3", lambda names: ["0"])
    rules = {finding.rule for finding in check(plate)}
    assert rules == {"unlisted-well", "unlisted-field"}
    check(plate, repair=True)
    assert check(plate) == []
    assert ps.open_plate(plate.uri)["B/3"].fields == ("0", "1")
    backend.remove_tree(f"{root}/B/3/1")
    backend.remove_tree(f"{root}/C/4/0")
    assert {finding.rule for finding in check(plate)} >= {"missing-well", "missing-field"}
    check(plate, repair=True)
    assert check(plate) == []
    assert ps.open_plate(plate.uri).wells == ("B/3",)


@pytest.mark.slow
def test_400_wells_of_8_processes_are_all_listed(rig, hosts):
    """Each well is a compare-and-swap of the plate's JSON; half of the processes share a host."""
    from plate_workers import field, run

    plate = ps.create_plate(f"zarr+s3://{rig.bucket}/p.zarr", layout=1536, levels=1)
    rig.server.reset()
    run("wells", plate.uri, 50, hosts(4) + hosts(4, together=True))
    again = ps.open_plate(plate.uri)
    assert len(again.wells) == 400
    for number, well in list(enumerate(again.wells))[::37]:
        np.testing.assert_array_equal(again[well].image(0).read(), field(number))
    assert check(again) == []


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_each_field_old_or_new(rig, hosts, monkeypatch):
    from plate_workers import field, start

    plate = ps.create_plate(f"zarr+s3://{rig.bucket}/p.zarr", levels=1)
    plate.write_well("B/2", {0: field(7), 1: field(7)}, {0: {"nuclei": field(7)}})
    clean = len(keys(plate))
    chance = random.Random(7)
    for _ in range(8):
        with ExitStack() as stack:
            (process,) = start(stack, "replace", plate.uri, 1000, hosts(1))
            assert process.stdout.readline()
            time.sleep(chance.uniform(0, 0.3))
            process.kill()
            process.wait()
        well = ps.open_plate(plate.uri)["B/2"]
        assert well.fields == ("0", "1")
        for name in well.fields:
            image = well.image(name)
            (value,) = np.unique(image.read())
            for label in image.labels:
                assert set(np.unique(image.label(label).read())) == {value}
    monkeypatch.setattr(store_check, "AGE", -1.0)
    check(plate, repair=True)
    assert check(plate) == []
    plate.write_well("B/2", {0: field(9), 1: field(9)}, {0: {"nuclei": field(9)}}, overwrite=True)
    assert len(keys(plate)) == clean


@pytest.mark.slow
def test_fields_of_one_well_from_many_hosts_are_all_listed(rig, hosts):
    from plate_workers import run

    plate = ps.create_plate(f"zarr+s3://{rig.bucket}/p.zarr", levels=1)
    run("fields", plate.uri, 5, hosts(4))
    assert len(ps.open_plate(plate.uri)["A/1"].fields) == 20
    assert check(plate) == []
