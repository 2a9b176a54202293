"""What ``glob_wildcards`` finds."""

from __future__ import annotations

import numpy as np
import pytest
from plugin_rig import make_object, make_plate
from snakemake.io import flag, glob_wildcards

import polystore_flows as ps


@pytest.fixture
def plate(tmp_path):
    """URI of a plate with the wells B/3 and B/4 of two fields."""
    return make_plate(tmp_path / "p.zarr", fields=2)


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
