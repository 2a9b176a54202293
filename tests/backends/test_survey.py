"""One look at a plate tells what asking for each of its parts tells."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import tifffile

import polystore_flows as ps
from polystore_flows.errors import CorruptMetadataError, NotFoundError
from polystore_flows.registry import plate_store_for
from polystore_flows.testing.s3 import ObjectsRig, S3Server


def survey(uri, kind):
    return plate_store_for(uri).survey(uri, kind)


def asked(uri, paths):
    return {path: ps.stat(f"{uri}/{path}").mtime for path in paths}


@pytest.fixture
def filled(plate, pixels):
    """A plate of either version with labels, tables and a well without images."""
    for number, well in enumerate(("B/3", "B/4", "H/12")):
        images = {0: pixels(seed=number), 1: pixels(seed=number)}
        labels = {0: {"nuclei": np.ones((2, 1, 3, 45, 67), "uint16")}}
        plate.write_well(well, images, labels)
    for path in ("tables/a.csv", "tables/below/b.csv", "B/3/tables/c.csv", "C/7/tables/d.csv"):
        plate.write_table(path, [{"x": 1}])
    for seconds, file in enumerate(sorted(plate.root.rglob("*"))):
        os.utime(file, (1e9 + seconds, 1e9 + seconds))
    return plate


def test_a_zarr_plate_tells_of_wells_and_fields(filled):
    found = survey(filled.uri, "image")
    wells = ("B/3", "B/4", "H/12")
    assert list(found) == [p for w in wells for p in (w, f"{w}/0", f"{w}/1")]
    assert found == asked(filled.uri, found)


def test_a_zarr_plate_tells_of_label_images(filled):
    found = survey(filled.uri, "label")
    assert sorted(found) == [f"{w}/0/labels/nuclei" for w in ("B/3", "B/4", "H/12")]
    assert found == asked(filled.uri, found)


def test_a_zarr_plate_tells_of_tables_also_of_wells_without_images(filled):
    found = survey(filled.uri, "file")
    tables = {name for name in found if name.endswith(".csv") and "/table.csv" not in name}
    assert tables == {"tables/a.csv", "tables/below/b.csv", "B/3/tables/c.csv", "C/7/tables/d.csv"}
    assert asked(filled.uri, tables).items() <= found.items()


def test_a_well_that_is_there_but_not_listed_is_not_told_of(filled):
    """A killed writer may leave it; it is not complete."""
    (filled.root / "B/3").rename(filled.root / "B/7")
    assert "B/7" not in survey(filled.uri, "image")
    assert "B/3" not in survey(filled.uri, "image")


def test_an_empty_plate_has_no_parts(plate):
    assert survey(plate.uri, "image") == survey(plate.uri, "label") == {}


def test_what_is_no_plate_is_told(tmp_path, filled):
    with pytest.raises(NotFoundError, match=r"no\.zarr"):
        survey(f"zarr://{tmp_path}/no.zarr", "file")
    for damage in ("{", "[]", '{"attributes": {"ome": {"plate": {}}}, "plate": {}}'):
        filled.document_path.write_text(damage)
        with pytest.raises(CorruptMetadataError, match=r"p\.zarr"):
            survey(filled.uri, "image")


def raw_names():
    return [
        f"{well}_s{site}_w{w}.tif" for well in ("A01", "B12") for site in (1, 2) for w in (1, 2)
    ]


def test_a_folder_of_images_tells_of_wells_and_fields(tmp_path):
    for seconds, name in enumerate(raw_names()):
        tifffile.imwrite(tmp_path / name, np.zeros((8, 8), "uint16"))
        os.utime(tmp_path / name, (1e9 + seconds, 1e9 + seconds))
    uri = f"disk://{tmp_path}"
    found = survey(uri, "image")
    assert sorted(found) == ["A/1", "A/1/0", "A/1/1", "B/12", "B/12/0", "B/12/1"]
    assert found == asked(uri, found)
    assert survey(uri, "label") is None


def test_a_folder_plate_that_lost_a_file_does_not_tell_of_its_field(tmp_path):
    plate = ps.create_plate(f"disk://{tmp_path}/p", channels=["DAPI"])
    plate.write_well("A/1", {0: np.zeros((1, 1, 1, 8, 8), "uint16")})
    plate.write_well("A/2", {0: np.zeros((1, 1, 1, 8, 8), "uint16")})
    next((tmp_path / "p").glob("A02*.tif")).unlink()
    assert sorted(survey(plate.uri, "image")) == ["A/1", "A/1/0"]


def test_touching_a_part_of_a_folder_plate_makes_it_look_newer(tmp_path):
    plate = ps.create_plate(f"disk://{tmp_path}/p", channels=["DAPI"])
    plate.write_well("A/1", {0: np.zeros((1, 1, 1, 8, 8), "uint16")})
    for file in (tmp_path / "p").iterdir():
        os.utime(file, (1e9, 1e9))
    uri = f"{plate.uri}/A/1"
    assert ps.stat(uri).mtime == 1e9
    ps.get_backend("disk").touch(uri)
    assert ps.stat(uri).mtime == pytest.approx(time.time(), abs=60)


def test_a_plate_of_objects_is_told_of_without_asking_for_its_objects(tmp_path):
    with S3Server() as server, ObjectsRig(server) as rig:
        for name in raw_names():
            tifffile.imwrite(tmp_path / name, np.zeros((8, 8), "uint16"))
            rig.backend.upload(tmp_path / name, f"{rig.root}/{name}")
        server.reset()
        found = rig.backend.survey(rig.root, "image")
        assert server.requests["LIST"] <= 4
        assert sum(server.requests.values()) <= 8
        times = {path: rig.backend.stat(f"{rig.root}/{path}").mtime for path in found}
        assert len(found) == 6
        assert found == times
