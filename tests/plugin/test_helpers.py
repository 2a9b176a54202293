"""Helpers for Snakefiles and scripts: batches of wells, planes of inputs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from plugin_rig import make_hollow_plate, make_object, make_plate

import polystore_flows as ps
from polystore_flows.errors import AddressError, NotFoundError, UnsupportedError
from polystore_flows.snakemake import open_plane, wells


@pytest.fixture
def pixels():
    """``(t, c, z, y, x)``, of which each plane is another."""
    return np.arange(2 * 2 * 3 * 8 * 8, dtype="uint16").reshape(2, 2, 3, 8, 8)


@pytest.fixture
def plate(tmp_path, pixels):
    """A plate of three wells with two fields and a label image."""
    plate = ps.create_plate(f"zarr://{tmp_path}/p.zarr", channels=["DAPI", "GFP"])
    for well in ("B/3", "B/10", "C/1"):
        masks = {0: {"nuclei": pixels[:, :1] % 7}}
        plate.write_well(well, {0: pixels, 1: pixels + 1000}, masks)
    return plate


def test_wells_come_in_batches_with_names_for_wildcards(plate):
    assert wells(plate.uri, group=2) == {"B3_B10": ("B/3", "B/10"), "C1": ("C/1",)}
    assert wells(plate.uri, group=1) == {"B3": ("B/3",), "B10": ("B/10",), "C1": ("C/1",)}
    assert list(wells(plate.uri).values()) == [plate.wells]
    with pytest.raises(ValueError, match="at least one"):
        wells(plate.uri, group=0)


def test_wells_of_a_folder_of_images_come_in_batches_too(tmp_path):
    for well in ("A01", "A02", "H12"):
        tifffile.imwrite(tmp_path / f"{well}_s1_w1.tif", np.zeros((8, 8), "uint16"))
    assert list(wells(f"disk://{tmp_path}", group=2)) == ["A1_A2", "H12"]


def test_a_missing_plate_is_told(tmp_path):
    with pytest.raises(NotFoundError, match=r"no\.zarr"):
        wells(f"zarr://{tmp_path}/no.zarr")


def test_asking_for_wells_does_not_load_zarr(tmp_path):
    """A Snakefile is read again by every job that Snakemake starts in a process of its own."""
    uri = make_hollow_plate(tmp_path / "p.zarr", ["A/1", "AF/48"])
    code = (
        "import sys; from polystore_flows.snakemake import wells\n"
        f"print(list(wells({uri!r})), 'zarr' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['A1_AF48'] False\n"


@pytest.mark.parametrize(
    ("inner", "selected", "same"),
    [
        ("B/3/0", {}, (0, 0, 0)),
        ("B/03/0", {"t": 1, "c": "GFP", "z": 2}, (1, 1, 2)),
        ("B/3/0?c=GFP&z=1", {"t": 1, "z": 2}, (1, 1, 1)),
        ("B/3", {"z": 2}, (0, 0, 2)),
    ],
)
def test_a_plane_is_opened_by_reference(plate, pixels, inner, selected, same):
    assert np.array_equal(open_plane(f"{plate.uri}/{inner}", **selected), pixels[same])


def test_a_plane_of_another_field_and_of_a_label_image(plate, pixels):
    assert np.array_equal(open_plane(f"{plate.uri}/B/3", field=1), pixels[0, 0, 0] + 1000)
    labels = open_plane(f"{plate.uri}/B/3/0/labels/nuclei", z=1)
    assert np.array_equal(labels, pixels[0, 0, 1] % 7)


@pytest.mark.parametrize("mode", ["link", "copy"])
@pytest.mark.parametrize("inner", ["B/3", "B/03/0"])
def test_a_plane_is_opened_from_a_local_copy_too(tmp_path, plate, pixels, mode, inner):
    part = make_object(tmp_path, f"{plate.uri}/{inner}", mode)
    part.retrieve_object()
    assert np.array_equal(open_plane(part.local_path(), c="GFP", z=1), pixels[0, 1, 1])


def test_a_plane_of_a_local_file(tmp_path, pixels):
    path = tmp_path / "a.ome.tif"
    ps.save(pixels, path)
    assert np.array_equal(open_plane(str(path), t=1, c=1, z=2), pixels[1, 1, 2])
    with pytest.raises(NotFoundError, match="names no channels"):
        open_plane(path, c="DAPI")


def test_what_is_no_plane_is_told(tmp_path, plate):
    with pytest.raises(UnsupportedError, match="is a plate"):
        open_plane(plate.uri)
    with pytest.raises(UnsupportedError, match="is a plate"):
        open_plane(tmp_path / "p.zarr")
    with pytest.raises(AddressError):
        open_plane(f"{plate.uri}/B/3", z=99)
    with pytest.raises(NotFoundError):
        open_plane(f"{plate.uri}/D/1")
    make_plate(tmp_path / "q.zarr")
