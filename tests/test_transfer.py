"""Copies between any two stores: complete, resumable, and never over other data."""

import time
from itertools import product
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import tifffile

import polystore_flows as ps
from polystore_flows.errors import (
    AlreadyExistsError,
    MismatchError,
    NotFoundError,
    TransferError,
)
from polystore_flows.hcs.plate import Plate
from polystore_flows.registry import reset_memory_backend

WELLS = ("A/1", "B/3", "D/6")
STORES = ("disk", "zarr", "memory")


@pytest.fixture
def place(tmp_path, request):
    """A function that gives the URI of a place in a store, its own for each test."""

    def at(store, name):
        if store == "memory":
            return f"memory://{request.node.name.replace('/', '-')}/{name}"
        return f"{store}:{tmp_path / name}{'.zarr' if store == 'zarr' else ''}"

    yield at
    reset_memory_backend()


def field(well, number):
    """Pixels that differ from field to field; ``(t, c, z, y, x)``."""
    seed = [WELLS.index(well), number]
    return np.random.default_rng(seed).integers(0, 60000, (2, 2, 2, 33, 40), dtype=np.uint16)


def make_plate(uri, wells=WELLS):
    plate = ps.create_plate(uri, layout=24, channels=["DAPI", "GFP"], pixel_size=(2, 0.325, 0.65))
    for well in wells:
        images = {number: field(well, number) for number in (0, 1)}
        labels = {0: {"nuclei": (images[0][:, :1] > 30000).astype(np.uint32)}}
        plate.write_well(well, images, labels)
    plate.write_table("tables/counts.csv", [{"well": "A/1", "n": 0.1 + 0.2}])
    plate.write_table("B/3/tables/cells.csv", [{"cell": "007", "area": 1e-9}])
    return plate


def assert_same(plate, wells=WELLS):
    assert plate.wells == wells
    assert (plate.channels, plate.pixel_size) == (("DAPI", "GFP"), (2, 0.325, 0.65))
    assert (len(plate.rows), len(plate.columns)) == (4, 6)
    for well, number in product(wells, (0, 1)):
        image = plate[well].image(number)
        np.testing.assert_array_equal(image.read(), field(well, number))
        assert image.labels == (() if number else ("nuclei",))
    mask = plate["B/3"].image(0).label("nuclei")
    np.testing.assert_array_equal(mask.read(), field("B/3", 0)[:, :1] > 30000)
    assert mask.dtype == np.uint32


@pytest.mark.parametrize(("source", "target"), list(product(STORES, STORES)))
def test_a_plate_arrives_whole_in_any_store(place, source, target):
    """Pixels, labels, tables, channels and pixel size, between each two stores."""
    report = ps.copy(make_plate(place(source, "a")).uri, place(target, "b"), workers=2)
    assert (report.kind, report.copied, report.skipped) == ("plate", WELLS, ())
    copied = ps.open_plate(place(target, "b"))
    assert_same(copied)
    assert copied.read_table("tables/counts.csv").to_dict("list") == {
        "well": ["A/1"],
        "n": [0.1 + 0.2],
    }
    cells = copied.read_table("B/3/tables/cells.csv")
    assert cells.to_dict("list") == {"cell": ["007"], "area": [1e-9]}


@pytest.mark.parametrize("target", STORES)
def test_a_second_copy_finds_nothing_to_do(place, target):
    """So that a copy that was interrupted is resumed by the same call."""
    source = make_plate(place("zarr", "a")).uri
    ps.copy(source, place(target, "b"))
    before = ps.stat(f"{place(target, 'b')}/B/3").mtime
    report = ps.copy(source, place(target, "b"))
    assert (report.copied, report.skipped) == ((), WELLS)
    assert ps.stat(f"{place(target, 'b')}/B/3").mtime == before


def test_a_copy_of_some_wells_is_completed_by_a_copy_of_all(place):
    source = make_plate(place("zarr", "a")).uri
    first = ps.copy(source, place("disk", "b"), wells=["B03", "B/3"])
    assert first.copied == ("B/3",)
    assert not ps.exists(f"{place('disk', 'b')}/tables/counts.csv")
    assert ps.exists(f"{place('disk', 'b')}/B/3/tables/cells.csv")
    second = ps.copy(source, place("disk", "b"))
    assert (second.copied, second.skipped) == (("A/1", "D/6"), ("B/3",))
    assert_same(ps.open_plate(place("disk", "b")))


def test_progress_counts_every_well_once(place):
    source = make_plate(place("zarr", "a")).uri
    ps.copy(source, place("zarr", "b"), wells=["D/6"])
    seen = []
    ps.copy(source, place("zarr", "b"), progress=lambda *said: seen.append(said))
    assert [(done, total) for done, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert {well for _, _, well in seen} == set(WELLS)


def test_a_well_that_the_source_changed_is_only_replaced_on_demand(place):
    plate = make_plate(place("zarr", "a"))
    ps.copy(plate.uri, place("zarr", "b"))
    time.sleep(0.02)
    changed = field("B/3", 0) + 1
    plate.write_well("B/3", {0: changed, 1: changed}, overwrite=True)
    with pytest.raises(AlreadyExistsError, match=r"other data in B/3 .*overwrite=True"):
        ps.copy(plate.uri, place("zarr", "b"))
    report = ps.copy(plate.uri, place("zarr", "b"), wells=["B/3"], overwrite=True)
    assert report.copied == ("B/3",)
    copied = ps.open_plate(place("zarr", "b"))["B/3"].image(1).read()
    np.testing.assert_array_equal(copied, changed)


def test_overwrite_copies_all_wells_again(place):
    source = make_plate(place("zarr", "a")).uri
    ps.copy(source, place("memory", "b"))
    report = ps.copy(source, place("memory", "b"), overwrite=True)
    assert (report.copied, report.skipped) == (WELLS, ())


def test_a_plate_of_the_same_kind_with_other_pixels_is_refused_before_anything_is_written(place):
    """Two plates of one assay have one shape, and the target may well be the newer one."""
    source = make_plate(place("zarr", "a")).uri
    other = ps.create_plate(place("zarr", "b"), like=ps.open_plate(source))
    other.write_well("D/6", {0: field("A/1", 0), 1: field("A/1", 1)}, {0: {"nuclei": np.ones(
        (2, 1, 2, 33, 40), np.uint32)}})  # fmt: skip
    with pytest.raises(AlreadyExistsError, match="D/6"):
        ps.copy(source, other.uri)
    assert other.wells == ("D/6",)


@pytest.mark.parametrize("target", STORES)
def test_a_plate_of_another_kind_is_refused(place, target):
    source = make_plate(place("zarr", "a")).uri
    ps.create_plate(place(target, "b"), layout=96, channels=["DAPI", "GFP"], pixel_size=(1, 1, 1))
    with pytest.raises(MismatchError):
        ps.copy(source, place(target, "b"))


def test_source_and_target_must_differ_however_they_are_written(place, tmp_path, monkeypatch):
    source = make_plate(place("zarr", "a")).uri
    monkeypatch.chdir(tmp_path)
    Path("link.zarr").symlink_to("a.zarr")
    for target in (source, "zarr:a.zarr", "zarr:./link.zarr", f"{tmp_path}/a.zarr"):
        with pytest.raises(MismatchError, match="onto itself"):
            ps.copy(source, target)
    with pytest.raises(MismatchError, match="lies inside"):
        ps.copy(source, f"{source}/B/3")


def test_a_failing_well_does_not_stop_the_others(place, monkeypatch):
    """And each is named with its cause; the same call then copies the rest."""
    source = make_plate(place("zarr", "a")).uri
    write = Plate.write_well

    def refuse(plate, well, *args, **kwargs):
        if well == "B/3":
            raise OSError(28, "No space left on device")
        write(plate, well, *args, **kwargs)

    monkeypatch.setattr(Plate, "write_well", refuse)
    with pytest.raises(TransferError, match=r"B/3 \(.*No space left on device\)") as failure:
        ps.copy(source, place("disk", "b"))
    assert isinstance(failure.value.__cause__, ExceptionGroup)
    assert ps.open_plate(place("disk", "b")).wells == ("A/1", "D/6")
    monkeypatch.undo()
    report = ps.copy(source, place("disk", "b"))
    assert (report.copied, report.skipped) == (("B/3",), ("A/1", "D/6"))


def test_an_interrupt_leaves_whole_wells_and_says_how_to_resume(place):
    source = make_plate(place("zarr", "a")).uri

    def interrupt(done, total, well):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"of 3 wells are complete.*same copy again"):
        ps.copy(source, place("zarr", "b"), workers=1, progress=interrupt)
    there = ps.open_plate(place("zarr", "b")).wells
    assert 1 <= len(there) < 3
    assert ps.copy(source, place("zarr", "b")).skipped == there
    assert_same(ps.open_plate(place("zarr", "b")))


def test_no_more_wells_are_in_memory_than_there_are_workers(place, monkeypatch):
    source = make_plate(place("zarr", "a")).uri
    from polystore_flows import transfer

    held, most = [], []
    copy_fields = transfer._write_fields

    def watched(plate, well, *args):
        held.append(well)
        most.append(len(held))
        time.sleep(0.02)
        copy_fields(plate, well, *args)
        held.remove(well)

    monkeypatch.setattr(transfer, "_write_fields", watched)
    ps.copy(source, place("memory", "b"), workers=2)
    assert max(most) == 2


def test_a_well_goes_to_the_same_address_or_another(place):
    source = make_plate(place("disk", "a")).uri
    ps.copy(f"{source}/B/03", place("zarr", "b"))
    ps.copy(f"{source}/B/03", f"{place('zarr', 'b')}/C/1")
    plate = ps.open_plate(place("zarr", "b"))
    assert plate.wells == ("B/3", "C/1")
    for well, number in product(plate.wells, (0, 1)):
        np.testing.assert_array_equal(plate[well].image(number).read(), field("B/3", number))
    with pytest.raises(AlreadyExistsError):
        ps.copy(f"{source}/A/1", f"{place('zarr', 'b')}/C/1")


def test_a_field_and_a_label_image_are_copied_alone(place):
    source = make_plate(place("zarr", "a")).uri
    target = place("zarr", "b")
    ps.copy(f"{source}/A/1/0", f"{target}/B/2/7")
    ps.copy(f"{source}/B/3/1", f"{target}/B/2/0")
    ps.copy(f"{source}/A/1/0/labels/nuclei", f"{target}/B/2/7/labels/cells")
    well = ps.open_plate(target)["B/2"]
    assert (well.fields, well.image(7).labels) == (("0", "7"), ("cells", "nuclei"))
    np.testing.assert_array_equal(well.image(7).read(), field("A/1", 0))
    np.testing.assert_array_equal(well.image(0).read(), field("B/3", 1))


def test_a_field_or_a_plane_becomes_a_file(place, tmp_path):
    source = make_plate(place("zarr", "a")).uri
    ps.copy(f"{source}/A/1/0", f"disk:{tmp_path / 'field.npy'}")
    np.testing.assert_array_equal(np.load(tmp_path / "field.npy"), field("A/1", 0))
    ps.copy(f"{source}/A/1/0?t=1&c=GFP&z=0", f"disk:{tmp_path / 'plane.tif'}")
    plane = ps.load(f"disk:{tmp_path / 'plane.tif'}")
    np.testing.assert_array_equal(plane, field("A/1", 0)[1, 1, 0])


def test_kinds_that_do_not_fit_are_told_apart(place):
    source = make_plate(place("zarr", "a")).uri
    with pytest.raises(MismatchError, match=r"is a well, but .* names a field"):
        ps.copy(f"{source}/A/1", f"{place('zarr', 'b')}/A/1/0")
    with pytest.raises(MismatchError, match="no plate"):
        ps.copy(f"{source}/A/1", place("zarr", "b"), wells=["A/1"])
    with pytest.raises(NotFoundError):
        ps.copy(f"{source}/C/1", place("zarr", "b"))
    with pytest.raises(NotFoundError):
        ps.copy(source, place("zarr", "b"), wells=["C/1"])
    with pytest.raises(NotFoundError):
        ps.copy(place("disk", "nothing"), place("zarr", "b"))
    assert not ps.exists(place("zarr", "b"))


def test_a_file_is_copied_byte_for_byte_and_never_over_another(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"well,n\r\nB03,007\r\n")
    report = ps.copy(f"disk:{tmp_path}/a.csv", "memory://files/a.csv")
    assert report.copied == ("a.csv",)
    ps.copy("memory://files/a.csv", f"disk:{tmp_path}/b.csv")
    assert (tmp_path / "b.csv").read_bytes() == b"well,n\r\nB03,007\r\n"
    assert ps.copy("memory://files/a.csv", f"disk:{tmp_path}/b.csv").skipped == ("b.csv",)
    (tmp_path / "b.csv").write_text("other\n")
    with pytest.raises(AlreadyExistsError):
        ps.copy("memory://files/a.csv", f"disk:{tmp_path}/b.csv")
    ps.copy("memory://files/a.csv", f"disk:{tmp_path}/b.csv", overwrite=True)
    assert (tmp_path / "b.csv").read_bytes() == b"well,n\r\nB03,007\r\n"
    reset_memory_backend()


def test_a_folder_of_other_files_is_copied_with_all_below(tmp_path):
    (tmp_path / "notes/deep").mkdir(parents=True)
    (tmp_path / "notes/deep/x.bin").write_bytes(b"\0\1")
    (tmp_path / "notes/a.txt").write_text("a")
    report = ps.copy(f"disk:{tmp_path}/notes", f"disk:{tmp_path}/copy")
    assert (report.kind, report.copied) == ("directory", ("a.txt", "deep/x.bin"))
    assert (tmp_path / "copy/deep/x.bin").read_bytes() == b"\0\1"
    (tmp_path / "notes/b.txt").write_text("b")
    again = ps.copy(f"disk:{tmp_path}/notes", f"disk:{tmp_path}/copy")
    assert (again.copied, again.skipped) == (("b.txt",), ("a.txt", "deep/x.bin"))


def test_a_folder_whose_file_names_are_given_by_a_pattern_is_copied_and_resumed(tmp_path):
    """The pattern stands in the source's URI and has to go along with every well."""
    (tmp_path / "raw").mkdir()
    for well, number in product(("B3", "D6"), (1, 2)):
        tifffile.imwrite(tmp_path / f"raw/shot-{well}-at-{number}.tif", field("B/3", 0)[0, 0, 0])
    pattern = quote(r"shot-(?P<well>[A-Z][0-9])-at-(?P<field>[0-9])\.tif")
    source = f"disk:{tmp_path}/raw?pattern={pattern}"
    target = f"zarr:{tmp_path}/a.zarr"
    assert ps.copy(source, target).copied == ("B/3", "D/6")
    assert ps.copy(source, target).skipped == ("B/3", "D/6")
    assert ps.open_plate(target)["D/6"].fields == ps.open_plate(source)["D/6"].fields
    part = f"disk:{tmp_path}/raw/B/3?pattern={pattern}"
    assert ps.copy(part, f"{target}/A/1").kind == "well"
