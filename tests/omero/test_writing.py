"""Writing to OMERO: whole or not at all, replaced and not doubled, deleted when deleted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pandas as pd
import pytest

import polystore_flows as ps
from polystore_flows.backends.omero import claims, derived
from polystore_flows.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    MismatchError,
    NotFoundError,
    StoreUnavailableError,
    UnsupportedError,
)
from polystore_flows.hcs.plate import Plate
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.plates import add_plate

SHAPE = (2, 2, 3, 5, 7)


def pixels(seed: int = 0, dtype: str = "uint16") -> Any:
    return (np.random.default_rng(seed).random(SHAPE) * 1000).astype(dtype)


def counts(server: OmeroServer) -> dict[str, int]:
    kinds = ("Plate", "Well", "WellSample", "Image", "Pixels", "Annotation", "OriginalFile", "Roi")
    return {kind: len(server.store.all(kind)) for kind in kinds}


@pytest.fixture
def target(server: OmeroServer, request: pytest.FixtureRequest) -> Plate:
    """An empty plate for results."""
    return ps.create_plate(
        server.uri(f"plate/{request.node.name}"),
        layout=96,
        channels=["DAPI", "GFP"],
        pixel_size=(2.0, 0.65, 0.65),
    )


def test_a_new_plate_is_empty_and_says_what_it_is_for(server: OmeroServer, target: Plate) -> None:
    assert target.wells == ()
    assert (target.channels, target.pixel_size, target.layout.size) == (
        ("DAPI", "GFP"),
        (2.0, 0.65, 0.65),
        96,
    )
    assert ps.open_plate(target.uri).channel_info == target.channel_info


def test_fields_written_in_any_order_keep_their_names(target: Plate) -> None:
    for field in (2, 0, 1):
        target.write_image("B/03", field, pixels(field))
    opened = ps.open_plate(target.uri)
    assert opened.wells == ("B/3",)
    assert opened["B/3"].fields == ("0", "1", "2")
    for field in range(3):
        np.testing.assert_array_equal(opened["B/3"].image(field).read(), pixels(field))
    image = opened["B/3"].image(2)
    assert (image.channels, image.pixel_size) == (("DAPI", "GFP"), (2.0, 0.65, 0.65))


def test_omeros_viewers_are_told_channels_and_ranges(server: OmeroServer, target: Plate) -> None:
    target.write_image("B/3", 0, pixels())
    channels = server.store.all("Channel")[-2:]
    infos = [server.store.find(*channel.fields["statsInfo"]) for channel in channels]
    assert [info.fields["globalMax"] for info in infos if info] == [
        pixels()[:, c].max() for c in range(2)
    ]
    assert [channel.fields["blue"] for channel in channels] == [255, 0]


def test_a_field_is_not_overwritten_unless_told(server: OmeroServer, target: Plate) -> None:
    target.write_image("B/3", 0, pixels(0))
    before = counts(server)
    with pytest.raises(AlreadyExistsError, match="overwrite=True"):
        target.write_image("B/3", 0, pixels(1))
    target.write_image("B/3", 0, pixels(2), overwrite=True)
    assert counts(server) == before
    np.testing.assert_array_equal(ps.load(f"{target.uri}/B/3/0"), pixels(2))


def test_a_well_is_written_whole_with_its_labels(target: Plate) -> None:
    labels = np.zeros((2, 1, *SHAPE[2:]), np.int32)
    labels[0, 0, 1, 1:4, 2:5], labels[1, 0, 2, 0, 6] = 3, 70_000
    target.write_well("C/5", {0: pixels(0), 1: pixels(1)}, {1: {"nuclei": labels}})
    well = ps.open_plate(target.uri)["C/5"]
    assert well.image(1).labels == ("nuclei",)
    loaded = well.image(1).label("nuclei").read()
    assert loaded.dtype == labels.dtype
    np.testing.assert_array_equal(loaded, labels)
    target.write_well("C/5", {0: pixels(4)}, overwrite=True)
    assert ps.open_plate(target.uri)["C/5"].fields == ("0",)


def test_a_label_is_replaced_and_its_masks_with_it(server: OmeroServer, target: Plate) -> None:
    target.write_image("B/3", 0, pixels())
    labels = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    labels = np.broadcast_to(labels, (2, 1, 3, 5, 7)).copy()
    before = counts(server)
    target.write_label("B/3", 0, "cells", labels)
    with pytest.raises(AlreadyExistsError):
        target.write_label("B/3", 0, "cells", labels)
    target.write_label("B/3", 0, "cells", labels // 8, overwrite=True)
    np.testing.assert_array_equal(ps.load(f"{target.uri}/B/3/0/labels/cells"), labels // 8)
    assert counts(server)["Roi"] == before["Roi"] + 4
    ps.delete(f"{target.uri}/B/3/0/labels/cells")
    assert counts(server) == before
    assert ps.open_plate(target.uri)["B/3"].image(0).labels == ()


def test_a_label_without_objects_is_there_too(target: Plate) -> None:
    target.write_image("B/3", 0, pixels())
    target.write_label("B/3", 0, "none", np.zeros((2, 1, *SHAPE[2:]), np.uint16))
    assert not ps.load(f"{target.uri}/B/3/0/labels/none").any()


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((1, 1, 1, 4, 4), np.uint16), "channels"),
        (np.zeros((1, 2, 1, 4, 4), np.uint16), "one shape"),
        (np.zeros(SHAPE, np.uint8), "one shape"),
        (np.zeros(SHAPE, np.int64), "int64"),
        (np.zeros(SHAPE, np.float16), "float16"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    server: OmeroServer, target: Plate, array: Any, why: str
) -> None:
    target.write_image("B/3", 0, pixels())
    before = counts(server)
    with pytest.raises(MismatchError, match=why):
        target.write_image("B/4", 0, array)
    assert counts(server) == before


def test_images_are_not_added_to_plates_of_others(server: OmeroServer) -> None:
    uri = server.uri(f"plate/{add_plate(server, {'A/1': [pixels()]}, channels=('a', 'b'))}")
    before = counts(server)
    with pytest.raises(UnsupportedError, match="create_plate"):
        ps.save(pixels(1), f"{uri}/A/2/0")
    assert counts(server) == before


def test_a_failure_in_the_middle_leaves_nothing(
    server: OmeroServer, target: Plate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second image of a well cannot be written: neither the first nor the well is there."""
    real, calls = derived.write_planes, []

    def broken(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise StoreUnavailableError("gone")
        real(*args)

    monkeypatch.setattr(derived, "write_planes", broken)
    before = counts(server)
    with pytest.raises(StoreUnavailableError):
        target.write_well("B/3", {0: pixels(0), 1: pixels(1)})
    assert counts(server) == before
    assert ps.open_plate(target.uri).wells == ()


def test_a_write_into_a_read_only_group_leaves_nothing(server: OmeroServer) -> None:
    closed = server.add_group("closed", "r-r---")
    server.demo.groups.append(closed.id)
    number = add_plate(server, {}, group=3)
    server.store.rows["Plate"][number].group = closed.id
    before = counts(server)
    uri = server.uri(f"plate/{number}")
    for data, path in (({"a": 1}, "a.json"), (pd.DataFrame({"n": [1]}), "n.csv")):
        with pytest.raises(AccessDeniedError, match="permissions"):
            ps.save(data, f"{uri}/{path}")
    assert counts(server) == before


def test_plates_are_found_by_name_with_slashes_and_unicode(server: OmeroServer) -> None:
    made = ps.create_plate(server.uri("plate/sub%2Fµ 日本"), layout=6)
    assert made.name == "sub/µ 日本"
    assert ps.open_plate(server.uri("plate/sub%2Fµ 日本")).name == made.name
    with pytest.raises(AlreadyExistsError):
        ps.create_plate(server.uri("plate/sub%2Fµ 日本"), layout=6)
    with pytest.raises(MismatchError, match="wells"):
        ps.create_plate(server.uri("plate/sub%2Fµ 日本"), layout=96, exist_ok=True)
    with pytest.raises(MismatchError, match="OMERO gives the numbers"):
        ps.create_plate(server.uri("plate/12345"))
    with pytest.raises(NotFoundError, match="create_plate"):
        ps.open_plate(server.uri("plate/no such plate"))


def test_of_many_that_create_one_plate_at_once_all_get_the_one(server: OmeroServer) -> None:
    """OMERO knows no unique names, so they agree among themselves."""
    start, uri = Barrier(6), server.uri("plate/contested")

    def create(_: int) -> int:
        start.wait(timeout=30)
        plate = ps.create_plate(uri, layout=6, channels=["a"], exist_ok=True)
        number: int = plate.contents.plate_id  # type: ignore[attr-defined]
        return number

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(create, range(6)))) == 1
    left = [row for row in server.store.all("Plate") if row.fields["name"] == "contested"]
    assert len(left) == 1


def test_a_candidate_whose_maker_died_does_not_bar_the_name(
    server: OmeroServer, target: Plate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "PATIENCE", 0.2)
    row = server.store.find("Plate", target.contents.plate_id)  # type: ignore[attr-defined]
    assert row is not None
    row.fields["status"] = claims.CANDIDATE
    ps.get_backend("omero")._numbers.clear()  # what this process knows, another would not
    with pytest.raises(NotFoundError):
        ps.open_plate(target.uri)
    other = ps.create_plate(target.uri, layout=6)
    assert ps.open_plate(target.uri).contents.plate_id == other.contents.plate_id  # type: ignore[attr-defined]


def test_tables_come_back_as_from_csv(server: OmeroServer, target: Plate) -> None:
    table = pd.DataFrame(
        {
            "well": ["B/03", None, 'ü, "x"'],
            "column": ["03", "04", "1e5"],
            "count": [1, -2, 2**62],
            "mean": [0.1, np.nan, 1e-300],
            "good": [True, False, True],
        }
    )
    target.write_table("tables/t.csv", table)
    ps.save(table, "memory://m/t.csv", overwrite=True)
    loaded = ps.load(f"{target.uri}/tables/t.csv")
    pd.testing.assert_frame_equal(loaded, ps.load("memory://m/t.csv"))
    file = server.store.all("OriginalFile")[-1]
    assert file.fields["mimetype"] == "OMERO.tables"


def test_a_table_without_rows_is_kept(target: Plate) -> None:
    target.write_table("tables/empty.csv", pd.DataFrame({"a": [], "b": []}))
    assert list(ps.load(f"{target.uri}/tables/empty.csv").columns) == ["a", "b"]


def test_files_are_attached_to_what_their_address_names(server: OmeroServer, target: Plate) -> None:
    target.write_image("B/3", 0, pixels())
    for path in ("a.json", "B/03/a.json", "B/03/0/a.json", "tables/deep/a.txt"):
        ps.save({"path": path} if path.endswith("json") else path, f"{target.uri}/{path}")
    links = ("PlateAnnotationLink", "WellAnnotationLink", "ImageAnnotationLink")
    owned = [
        len([r for r in server.store.all(kind) if r.fields["parent"].id in _numbers(target, kind)])
        for kind in links
    ]
    assert owned == [3, 1, 1]  # with what the plate was made from
    assert ps.load(f"{target.uri}/B/3/0/a.json") == {"path": "B/03/0/a.json"}
    listed = ps.list_files(target.uri, recursive=True)
    start = target.uri + "/"
    assert [uri.removeprefix(start) for uri in listed] == [
        "B/3/0", "B/3/0/a.json", "B/3/a.json", "a.json", "tables/deep/a.txt",
    ]  # fmt: skip


def _numbers(plate: Plate, link: str) -> set[int]:
    structure = plate.contents.structure  # type: ignore[attr-defined]
    if link.startswith("Plate"):
        return {structure.plate_id}
    wells = structure.wells.values()
    if link.startswith("Well"):
        return {well.well_id for well in wells}
    return {image.image_id for well in wells for image in well.images.values()}


def test_what_others_attached_is_read_by_its_file_name(server: OmeroServer, target: Plate) -> None:
    target.write_table("theirs.json", {"by": "hand"})
    row = server.store.all("FileAnnotation")[-1]
    row.fields["ns"], row.fields["description"] = None, None
    target.contents.forget()  # type: ignore[attr-defined]
    assert ps.load(f"{target.uri}/theirs.json") == {"by": "hand"}


@pytest.mark.slow
def test_an_annotation_of_50_megabytes_is_written_and_read(target: Plate) -> None:
    text = "0123456789abcde\n" * (50 * 2**16)
    ps.save(text, f"{target.uri}/big.txt")
    assert ps.load(f"{target.uri}/big.txt") == text


def test_deleting_leaves_nothing(server: OmeroServer, target: Plate) -> None:
    empty = counts(server)
    for well in ("B/3", "B/4"):
        target.write_well(well, {0: pixels(0), 1: pixels(1)})
    ps.save({"a": 1}, f"{target.uri}/B/3/a.json")
    ps.delete(f"{target.uri}/B/3/1")
    assert ps.open_plate(target.uri)["B/3"].fields == ("0",)
    ps.delete(f"{target.uri}/B/3/a.json")
    assert not ps.exists(f"{target.uri}/B/3/a.json")
    ps.delete(f"{target.uri}/B/3/0")
    ps.delete(f"{target.uri}/B/4")
    assert ps.open_plate(target.uri).wells == ()
    assert counts(server) == empty
    ps.delete(target.uri)
    assert not ps.exists(target.uri)
    with pytest.raises(NotFoundError):
        ps.delete(target.uri)


def test_provenance_is_kept_as_key_value_pairs(server: OmeroServer, target: Plate) -> None:
    made_by = ps.provenance("threshold", "1.2", parameters={"level": 3, "token": "hunter2"})
    target.write_image("B/3", 0, pixels(), provenance=made_by)
    assert ps.open_plate(target.uri)["B/3"].provenance(0) == made_by
    row = server.store.all("MapAnnotation")[-1]
    assert ("tool", "threshold") in row.fields["mapValue"]
    assert ("parameter level", "3") in row.fields["mapValue"]
    assert "hunter2" not in str(row.fields)
    ps.get_backend("omero").copy(f"{target.uri}/B/3/0", f"{target.uri}/B/4/0")
    assert ps.open_plate(target.uri)["B/4"].provenance(0) == made_by


def test_a_plate_is_made_in_the_group_that_the_settings_name(
    server: OmeroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polystore_flows.settings import get_settings

    other = server.add_group("other lab", "rwrw--")
    server.demo.groups.append(other.id)
    for name, works in (("other lab", True), ("no such group", False)):
        monkeypatch.setenv("POLYSTORE_OMERO_GROUP", name)
        get_settings.cache_clear()
        if not works:
            with pytest.raises(NotFoundError, match="no such group"):
                ps.create_plate(server.uri("plate/elsewhere too"), layout=6)
            continue
        plate = ps.create_plate(server.uri("plate/elsewhere"), layout=6, channels=["a", "b"])
        plate.write_image("A/1", 0, pixels())
        ps.save({"a": 1}, f"{plate.uri}/A/1/a.json")
    assert {row.group for row in server.store.all("Image")[-1:]} == {other.id}
    assert server.store.all("FileAnnotation")[-1].group == other.id
