"""Plates of ours in folders, on disk and in memory: writing, listing, processes that die."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray

import polystore_flows as ps
from polystore_flows.backends import folder_plate, folder_writer
from polystore_flows.errors import (
    AlreadyExistsError,
    CorruptMetadataError,
    MismatchError,
    NotFoundError,
    ReadOnlyError,
    UnsupportedError,
    URIError,
)
from polystore_flows.hcs.address import parse_address
from polystore_flows.hcs.plate import Plate
from polystore_flows.hcs.spec import plate_spec

Array = NDArray[Any]
SHAPE = (24, 31)


def plane(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Array:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)


def fail_at(monkeypatch: pytest.MonkeyPatch, uri: str, ending: str) -> None:
    """Let the backend of `uri` fail to write files whose name ends so."""
    kind = type(backend_of(uri))
    write = kind.write_bytes

    def full(self: Any, data: bytes, identifier: str, *, overwrite: bool = False) -> None:
        if identifier.endswith(ending):
            raise OSError(28, "no space is left")
        write(self, data, identifier, overwrite=overwrite)

    monkeypatch.setattr(kind, "write_bytes", full)


def backend_of(uri: str) -> Any:
    return ps.get_backend(uri.partition(":")[0])


@pytest.fixture(params=["disk", "memory"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URI of a plate of ours that is not there yet."""
    if request.param == "disk":
        return f"disk://{tmp_path}/own"
    return f"memory://{uuid.uuid4().hex}/own"


@pytest.fixture
def new(own: str) -> Plate:
    """An empty plate of ours."""
    return ps.create_plate(own, 96, ["DAPI", "GFP"], (2.0, 0.65, 0.65))


def test_what_is_written_is_read_back(own: str, new: Plate) -> None:
    image, labels = plane(1, (2, 2, 3, *SHAPE)), plane(2, (2, 1, 3, *SHAPE))
    new.write_image("B/03", 1, image)
    new.write_label("B3", 1, "nuclei", labels)
    new.write_table("tables/counts.csv", pd.DataFrame({"n": [1, 2]}))
    assert new.wells == ("B/3",), "the handle knows what it wrote"
    plate = ps.open_plate(own)
    assert (plate.wells, plate.channels, plate.pixel_size) == (
        ("B/3",),
        ("DAPI", "GFP"),
        (2.0, 0.65, 0.65),
    )
    assert (plate.name, len(plate.rows), len(plate.columns)) == ("own", 8, 12)
    field = plate["B3"].image(1)
    assert (plate["B3"].fields, field.labels) == (("1",), ("nuclei",))
    np.testing.assert_array_equal(field.read(), image)
    np.testing.assert_array_equal(field.plane(1, "GFP", 2), image[1, 1, 2])
    label = field.label("nuclei")
    assert (label.shape, label.pixel_size) == ((2, 1, 3, *SHAPE), plate.pixel_size)
    np.testing.assert_array_equal(label.read(), labels)
    assert plate.read_table("tables/counts.csv")["n"].tolist() == [1, 2]
    with pytest.raises(NotFoundError, match="nuclei"):
        field.label("cells")


def test_parts_of_our_plate_have_uris(own: str, new: Plate) -> None:
    image = plane(1, (1, 2, 3, *SHAPE))
    ps.save(image, f"{own}/B/03/0")
    ps.save(image[:, :1], f"{own}/B/3/0/labels/nuclei")
    np.testing.assert_array_equal(ps.load(f"{own}/B/3/0?c=GFP&z=2&t=0"), image[0, 1, 2])
    np.testing.assert_array_equal(ps.load(f"{own}/B03_s001_w2_z003_t001.tif"), image[0, 1, 2])
    np.testing.assert_array_equal(ps.load(f"{own}/B/3/0/labels/nuclei"), image[:, :1])
    assert ps.exists(f"{own}/B/3/0/labels/nuclei")
    assert not ps.exists(f"{own}/B/3/1")
    assert ps.stat(f"{own}/B/3/0/labels/nuclei").kind == "label"
    backend = backend_of(own)
    address = parse_address("B/3/0", [("c", "0")])
    with pytest.raises(UnsupportedError, match="as a whole"):
        folder_plate.save_part(backend, own, address, image[0, 0], True)


def test_the_folder_holds_names_that_openhcs_reads(tmp_path: Path) -> None:
    uri = f"disk://{tmp_path}/own"
    plate = ps.create_plate(uri, 384, ["DAPI"], (1, 0.65, 0.65))
    plate.write_image("P/24", 2, plane())
    plate.write_label("P24", 2, "nuclei", plane())
    names = sorted(p.relative_to(tmp_path / "own").as_posix() for p in tmp_path.rglob("*.tif"))
    assert names == ["P24_s003_w1_z001_t001.tif", "labels/nuclei/P24_s003_w1_z001_t001.tif"]
    document = json.loads((tmp_path / "own" / "openhcs_metadata.json").read_text())
    part = document["subdirectories"]["."]
    assert document["available_backends"] == {"disk": True}
    assert (part["channels"], part["pixel_size"]) == ({"1": "DAPI"}, 0.65)
    assert part["wells"] == {"P24": None}
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "own" / names[0]), plane())


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
def test_other_numbers_are_kept(own: str, new: Plate, dtype: str) -> None:
    image = plane(1, (1, 2, 1, *SHAPE)).astype(dtype)
    new.write_image("A1", 0, image)
    found = ps.open_plate(own)["A1"].image(0).read()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)


def test_a_plate_without_channel_names_takes_numbers(own: str) -> None:
    ps.create_plate(own).write_image("A1", 0, plane(1, (1, 3, 1, *SHAPE)))
    assert ps.open_plate(own).channels == ("0", "1", "2")


def test_existing_fields_are_replaced_only_on_demand(own: str, new: Plate) -> None:
    old, image = (plane(i, (1, 2, 2, *SHAPE)) for i in (1, 2))
    new.write_image("B3", 0, old)
    new.write_label("B3", 0, "nuclei", plane(3, (1, 1, 2, *SHAPE)))
    with pytest.raises(AlreadyExistsError, match="overwrite"):
        new.write_image("B3", 0, image)
    with pytest.raises(AlreadyExistsError, match="overwrite"):
        new.write_label("B3", 0, "nuclei", plane(3, (1, 1, 2, *SHAPE)))
    np.testing.assert_array_equal(ps.load(f"{own}/B/3/0"), old)
    new.write_image("B3", 0, image, overwrite=True)
    np.testing.assert_array_equal(ps.load(f"{own}/B/3/0"), image)
    assert new["B3"].image(0).labels == (), "labels of the old pixels"


def test_a_well_is_written_with_its_labels_and_without_its_old_fields(own: str, new: Plate) -> None:
    images = {i: plane(i, (1, 2, 1, *SHAPE)) for i in range(3)}
    new.write_well("B3", {0: images[0], 1: images[1]})
    with pytest.raises(AlreadyExistsError):
        new.write_well("B3", {2: images[2]})
    new.write_well("B3", {2: images[2]}, {2: {"cells": images[2][:, :1]}}, overwrite=True)
    plate = ps.open_plate(own)
    assert (plate["B3"].fields, plate["B3"].image(2).labels) == (("2",), ("cells",))
    left = [f for f in ps.list_files(own, recursive=True) if f.endswith(".tif")]
    assert len(left) == 3


@pytest.mark.parametrize("wrong", [plane(0, (1, 2, 1, 9, 9)), plane(0, (1, 2, 1, *SHAPE)) * 1.0])
def test_a_field_unlike_the_others_is_refused_before_anything_is_written(
    own: str, new: Plate, wrong: Array
) -> None:
    new.write_image("B3", 0, plane(0, (1, 2, 1, *SHAPE)))
    before = ps.list_files(own, recursive=True)
    with pytest.raises(MismatchError, match="all fields of this plate"):
        new.write_image("B4", 0, wrong)
    with pytest.raises(MismatchError, match="another field"):
        new.write_well("B4", {0: plane(0, (1, 2, 1, *SHAPE)), 1: wrong})
    with pytest.raises(MismatchError, match="numbers its fields"):
        new.write_image("B4", "a", plane(0, (1, 2, 1, *SHAPE)))
    assert ps.list_files(own, recursive=True) == before


def test_a_plane_that_our_plate_lost_is_named_and_does_not_exist(own: str, new: Plate) -> None:
    new.write_image("B3", 0, plane(0, (1, 2, 1, *SHAPE)))
    new.write_image("B3", 1, plane(0, (1, 2, 1, *SHAPE)))
    lost = f"{own}/B03_s001_w2_z001_t001.tif"
    backend_of(own).delete(lost)
    image = ps.open_plate(own)["B3"].image(0)
    assert not ps.exists(lost)
    assert not ps.exists(f"{own}/B/3/0?c=1&z=0&t=0")
    for ask in (
        image.read,
        lambda: ps.load(lost),
        lambda: ps.stat(f"{own}/B/3"),
        lambda: ps.stat(lost),
    ):
        with pytest.raises(NotFoundError, match="B03_s001_w2_z001_t001"):
            ask()


def test_a_plate_that_was_emptied_takes_another_shape(own: str, new: Plate) -> None:
    backend = backend_of(own)
    new.write_well("B3", {0: plane(0, (1, 2, 1, *SHAPE)), 1: plane(1, (1, 2, 1, *SHAPE))})
    new.write_label("B3", 0, "nuclei", plane())
    folder_plate.delete_part(backend, own, parse_address("B/3/1"))
    assert ps.open_plate(own)["B3"].fields == ("0",)
    folder_plate.delete_part(backend, own, parse_address("B/3"))
    assert [f for f in ps.list_files(own, recursive=True) if f.endswith(".tif")] == []
    ps.open_plate(own, "r+").write_image("B3", 0, plane(0, (1, 2, 1, 9, 9)))
    assert ps.open_plate(own)["B3"].image(0).shape == (1, 2, 1, 9, 9)


def test_a_label_image_is_deleted_alone(own: str, new: Plate) -> None:
    backend = backend_of(own)
    new.write_image("B3", 0, plane(0, (1, 2, 2, *SHAPE)))
    new.write_label("B3", 0, "nuclei", plane(0, (1, 1, 2, *SHAPE)))
    folder_plate.delete_part(backend, own, parse_address("B/3/0/labels/nuclei"))
    assert new["B3"].image(0).labels == ()
    assert len([f for f in ps.list_files(own, recursive=True) if f.endswith(".tif")]) == 4
    with pytest.raises(NotFoundError, match="nuclei"):
        folder_plate.delete_part(backend, own, parse_address("B/3/0/labels/nuclei"))


def test_a_plate_is_made_once(own: str, new: Plate) -> None:
    new.write_image("B3", 0, plane(0, (1, 2, 1, *SHAPE)))
    with pytest.raises(AlreadyExistsError):
        ps.create_plate(own, 96, ["DAPI", "GFP"], (2.0, 0.65, 0.65))
    again = ps.create_plate(own, 96, ["DAPI", "GFP"], (2.0, 0.65, 0.65), exist_ok=True)
    assert again.wells == ("B/3",)
    for other in (
        plate_spec(384, ["DAPI", "GFP"], (2.0, 0.65, 0.65)),
        plate_spec(96, ["DAPI"], (2.0, 0.65, 0.65)),
        plate_spec(96, ["DAPI", "GFP"], (2.0, 0.5, 0.5)),
    ):
        with pytest.raises(
            MismatchError, match=r"exists with (wells 96, not 384|channels|pixel size)"
        ):
            backend_of(own).create_plate(own, other, exist_ok=True)


def test_no_plate_is_made_among_other_files(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "Images").mkdir(parents=True)
    before = sorted(raw.rglob("*"))
    for exist_ok in (False, True):
        with pytest.raises(AlreadyExistsError, match="Images"):
            ps.create_plate(f"disk://{raw}", exist_ok=exist_ok)
    assert sorted(raw.rglob("*")) == before, "not even a lock file"


def test_a_handle_for_reading_does_not_write(own: str, new: Plate) -> None:
    with pytest.raises(ReadOnlyError, match="r\\+"):
        ps.open_plate(own).write_image("B3", 0, plane())


@pytest.mark.parametrize("text", ["{", "[]", '{"subdirectories": {".": {"polystore": {}}}}'])
def test_a_damaged_document_is_an_error_and_stays(tmp_path: Path, text: str) -> None:
    """Taking it for a microscope's folder would show planes that were never finished."""
    plate = ps.create_plate(f"disk://{tmp_path}/own")
    plate.write_image("A1", 0, plane())
    document = tmp_path / "own" / "openhcs_metadata.json"
    document.write_text(text)
    with pytest.raises(CorruptMetadataError, match=r"openhcs_metadata\.json"):
        ps.open_plate(f"disk://{tmp_path}/own")
    with pytest.raises(CorruptMetadataError):
        plate.write_image("A2", 0, plane())
    assert document.read_text() == text


def test_a_field_whose_planes_are_not_all_written_is_not_there(
    own: str, new: Plate, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, own, "_w2_z002_t001.tif")
    with pytest.raises(OSError, match="no space"):
        new.write_image("B3", 0, plane(0, (1, 2, 2, *SHAPE)))
    monkeypatch.undo()
    assert ps.open_plate(own).wells == ()
    new.write_image("B3", 0, plane(5, (1, 2, 2, *SHAPE)))
    np.testing.assert_array_equal(ps.load(f"{own}/B/3/0"), plane(5, (1, 2, 2, *SHAPE)))


def test_labels_of_a_writer_that_died_do_not_join_the_next_ones_field(
    own: str, new: Plate, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = plane(0, (1, 2, 1, *SHAPE))
    new.write_image("A1", 0, image)

    def fail(*_: object) -> None:
        raise OSError("killed before the field was listed")

    monkeypatch.setattr(folder_writer, "update_document", fail)
    with pytest.raises(OSError, match="killed"):
        new.write_well("B3", {0: image}, {0: {"nuclei": image[:, :1]}})
    monkeypatch.undo()
    new.write_image("B3", 0, image)
    assert ps.open_plate(own)["B3"].image(0).labels == ()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "*"])
def test_names_that_no_address_has_are_refused(own: str, new: Plate, name: str) -> None:
    image = plane(0, (1, 2, 1, *SHAPE))
    new.write_image("A1", 0, image)
    before = ps.list_files(own, recursive=True)
    with pytest.raises(URIError):
        new.write_label("A1", 0, name, image[:, :1])
    with pytest.raises(URIError):
        new.write_well("A2", {0: image}, {0: {name: image[:, :1]}})
    for path in ("openhcs_metadata.json", "A/1/0", f"{name}/x", f"../{name}.csv"):
        with pytest.raises(URIError):
            new.write_table(path, {"a": [1]})
    assert ps.list_files(own, recursive=True) == before


def test_a_label_image_whose_replacement_fails_is_gone(
    own: str, new: Plate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else old and new planes would stand side by side as one label image."""
    image = plane(0, (1, 2, 3, *SHAPE))
    new.write_image("A1", 0, image)
    new.write_label("A1", 0, "nuclei", image[:, :1])
    fail_at(monkeypatch, own, "A01_s001_w1_z002_t001.tif")
    with pytest.raises(OSError, match="no space"):
        new.write_label("A1", 0, "nuclei", image[:, 1:], overwrite=True)
    monkeypatch.undo()
    assert ps.open_plate(own)["A1"].image(0).labels == ()


def test_the_first_field_sets_the_shape_before_its_planes_are_written(
    own: str, new: Plate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two first writers would both write, and one of them for nothing."""
    write, seen = folder_writer._write_planes, []

    def meanwhile(*args: Any) -> None:
        if not seen:
            seen.append(ps.open_plate(own, "r+"))
            with pytest.raises(MismatchError, match="all fields of this plate"):
                seen[0].write_image("A2", 0, plane(0, (1, 2, 1, 9, 9)))
        write(*args)

    monkeypatch.setattr(folder_writer, "_write_planes", meanwhile)
    new.write_image("A1", 0, plane(0, (1, 2, 1, *SHAPE)))
    assert len(seen) == 1
    assert ps.open_plate(own).wells == ("A/1",)


def test_a_plain_path_is_as_good_as_a_uri_for_a_backend(tmp_path: Path) -> None:
    spec = plate_spec(96, ["DAPI"])
    memory, disk = ps.get_backend("memory"), ps.get_backend("disk")
    name = uuid.uuid4().hex
    for backend, path in ((memory, f"/{name}/p"), (disk, f"{tmp_path}/odd.zarr/p")):
        backend.create_plate(path, spec).write_image("A1", 0, plane())
        assert backend.open_plate(path).wells == ("A/1",)
    assert ps.open_plate(f"memory://{name}/p").wells == ("A/1",)
    assert (tmp_path / "odd.zarr/p/A01_s001_w1_z001_t001.tif").is_file()
