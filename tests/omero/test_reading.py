"""Reading plates of OMERO: what is there, at how many calls, and what goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import polystore_flows as ps
from polystore_flows.backends.omero import contents, planes
from polystore_flows.backends.omero.connection import shared
from polystore_flows.backends.omero.target import parse_target
from polystore_flows.errors import (
    AccessDeniedError,
    AddressError,
    CorruptDataError,
    NotFoundError,
    UnsupportedError,
    URIError,
)
from polystore_flows.hcs.layout import Layout
from polystore_flows.settings import get_settings
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.plates import add_plate, keep_as_zarr


def pixels(seed: int = 0, shape: tuple[int, ...] = (2, 2, 3, 5, 7), dtype: str = "uint16") -> Any:
    return (np.random.default_rng(seed).random(shape) * 100).astype(dtype)


@pytest.fixture
def plate(server: OmeroServer) -> str:
    """A plate with two fields in B/3, one in C/5, and B/4 without any."""
    wells = {"B/3": [pixels(0), pixels(1)], "B/4": [], "C/5": [pixels(2)]}
    return server.uri(f"plate/{add_plate(server, wells, channels=('DAPI', 'GFP'), name='a/ü')}")


def test_a_plate_is_opened_like_any_other(plate: str) -> None:
    opened = ps.open_plate(plate)
    assert (opened.name, opened.wells) == ("a/ü", ("B/3", "C/5"))
    assert opened.layout == Layout.of(96)
    assert opened.channels == ("DAPI", "GFP")
    assert opened.pixel_size == (1.0, 0.65, 0.65)
    image = opened["B/03"].image(1)
    assert (image.shape, image.dtype, image.channels) == (
        (2, 2, 3, 5, 7),
        np.uint16,
        ("DAPI", "GFP"),
    )
    np.testing.assert_array_equal(image.read(), pixels(1))


def test_a_sparse_plate_lists_only_wells_with_images(plate: str) -> None:
    assert not ps.exists(f"{plate}/B/4")
    with pytest.raises(NotFoundError, match="B/4"):
        ps.open_plate(plate)["B/4"]


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("t=1&c=GFP&z=2", np.s_[1, 1, 2]),
        ("c=0", np.s_[:, 0]),
        ("z=1", np.s_[:, :, 1]),
        ("t=0&c=DAPI", np.s_[0, 0]),
    ],
)
def test_planes_are_selected_by_index_and_name(plate: str, query: str, part: Any) -> None:
    np.testing.assert_array_equal(ps.load(f"{plate}/B/03/0?{query}"), pixels(0)[part])


def test_one_plane_costs_that_plane(server: OmeroServer, plate: str) -> None:
    image = ps.open_plate(plate)["B/3"].image(0)
    server.reset()
    image.plane(t=1, c="GFP", z=2)
    assert server.calls["RawPixelsStore.getPlane"] == 1
    assert server.bytes_sent == 5 * 7 * 2


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
)
def test_every_pixel_type_comes_in_native_order(server: OmeroServer, dtype: str) -> None:
    data = pixels(3, (1, 1, 1, 3, 5), dtype)
    uri = server.uri(f"plate/{add_plate(server, {'A/1': [data]})}/A/1/0")
    loaded = ps.load(uri)
    assert loaded.dtype == np.dtype(dtype)
    assert loaded.dtype.isnative
    np.testing.assert_array_equal(loaded, data)


def test_a_plane_too_large_for_one_message_comes_in_bands(
    server: OmeroServer, plate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planes, "MOST_BYTES", 2 * 7 * 2)  # two rows
    image = ps.open_plate(plate)["B/3"].image(0)
    server.reset()
    np.testing.assert_array_equal(image.plane(1, 1, 2), pixels(0)[1, 1, 2])
    assert server.calls["RawPixelsStore.getTile"] == 3
    assert server.calls["RawPixelsStore.getPlane"] == 0


def test_opening_and_listing_costs_six_calls_whatever_the_number_of_wells(
    server: OmeroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """384 wells of 4 fields: one query too many for each well would be seen here."""
    monkeypatch.setattr(contents, "FRESH", 600.0)
    monkeypatch.setattr(contents, "SHARE", 10_000)
    tiny: list[NDArray[Any]] = [pixels(i, (1, 2, 1, 2, 2)) for i in range(4)]
    grid = Layout.of(384)
    wells = {f"{r}/{c}": tiny for r in grid.rows for c in grid.columns}
    uri = server.uri(f"plate/{add_plate(server, wells, layout=384, channels=('DAPI', 'GFP'))}")
    shared(parse_target(uri).login).close()  # so that all services are asked for
    server.reset()
    opened = ps.open_plate(uri)
    assert (len(opened), len(opened["P/24"].fields), opened.channels) == (384, 4, ("DAPI", "GFP"))
    assert server.total_calls <= 6
    assert len(ps.list_files(uri, recursive=True)) == 1536
    assert ps.exists(f"{uri}/H/12/3")
    assert not ps.exists(f"{uri}/H/12/4")
    assert ps.stat(f"{uri}/A/1/0").size == 2 * 2 * 2 * 2
    assert server.total_calls <= 6
    assert opened["P/24"].image(3).channels == ("DAPI", "GFP")
    assert opened["A/7"].image(2).channels == ("DAPI", "GFP")
    assert server.total_calls <= 7  # names of the channels of all images


def test_a_batch_of_planes_of_one_image_costs_a_call_each(server: OmeroServer) -> None:
    data = pixels(5, (1, 1, 64, 4, 4))
    uri = server.uri(f"plate/{add_plate(server, {'A/1': [data]})}")
    ps.open_plate(uri).channels  # noqa: B018  # reads what is known of the image
    server.reset()
    wanted = [f"{uri}/A/1/0?t=0&c=0&z={z}" for z in reversed(range(64))]
    loaded = ps.load_batch([*wanted, wanted[0]])
    for z, plane in zip(reversed(range(64)), loaded, strict=False):
        np.testing.assert_array_equal(plane, data[0, 0, z])
    assert server.calls["RawPixelsStore.getPlane"] == 64
    assert server.total_calls <= 64 + 4
    loaded[0][:] = 0
    assert loaded[-1].any()


def test_images_of_different_sizes_are_each_what_they_are(server: OmeroServer) -> None:
    wells = {"A/1": [pixels(0, (1, 1, 1, 4, 4))], "A/2": [pixels(1, (1, 2, 3, 5, 6), "uint8")]}
    uri = server.uri(f"plate/{add_plate(server, wells, channels=('DAPI', 'GFP'))}")
    second = ps.open_plate(uri)["A/2"].image(0)
    assert (second.shape, second.dtype, second.channels) == (
        (1, 2, 3, 5, 6),
        np.uint8,
        ("DAPI", "GFP"),
    )
    np.testing.assert_array_equal(ps.load(f"{uri}/A/2/0?c=GFP&z=2"), wells["A/2"][0][:, 1, 2])


def test_a_plate_that_is_not_there_or_not_readable_is_told_in_one_line(
    server: OmeroServer,
) -> None:
    private = server.add_group("theirs", "rw----")
    server.add_user("theirs", "t", [private.id])
    hidden = add_plate(server, {"A/1": [pixels()]}, user="theirs")
    for number in (999_999, hidden):
        uri = server.uri(f"plate/{number}")
        with pytest.raises(NotFoundError, match=f"plate/{number}.*may not read it"):
            ps.open_plate(uri)
        assert not ps.exists(uri)


def test_addresses_outside_the_plate_are_told(plate: str) -> None:
    with pytest.raises(NotFoundError, match="H/12"):
        ps.load(f"{plate}/H/12/0")
    with pytest.raises(NotFoundError, match="field 7"):
        ps.load(f"{plate}/B/3/7")
    with pytest.raises(AddressError, match="z=9"):
        ps.load(f"{plate}/B/3/0?z=9")
    with pytest.raises(AddressError, match="Cy5"):
        ps.load(f"{plate}/B/3/0?c=Cy5")
    with pytest.raises(AddressError, match="level=1"):
        ps.load(f"{plate}/B/3/0?level=1")
    with pytest.raises(UnsupportedError, match="whole plate"):
        ps.load(plate)


@pytest.mark.parametrize("path", ["", "image/3", "plate", "plate/"])
def test_a_uri_that_names_no_plate_is_told(server: OmeroServer, path: str) -> None:
    with pytest.raises(URIError, match="plate/123"):
        ps.open_plate(server.uri(path))


def test_pixels_that_were_never_written_are_no_black_image(server: OmeroServer, plate: str) -> None:
    """An import that broke off leaves an image without pixels."""
    stored = ps.open_plate(plate)["B/3"].image(0).stored  # type: ignore[attr-defined]
    server.store.path("Pixels", stored.pixels_id).unlink()
    with pytest.raises(CorruptDataError, match="no pixels"):
        ps.load(f"{plate}/B/3/0")


def test_the_structure_is_read_anew_after_its_time_out(
    server: OmeroServer, plate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(ps.open_plate(plate)) == 2
    server.reset()
    ps.open_plate(plate)
    assert server.total_calls == 0
    monkeypatch.setenv("POLYSTORE_OMERO_CACHE", "0")
    get_settings.cache_clear()
    opened = ps.open_plate(plate)
    opened.contents.forget()  # type: ignore[attr-defined]
    server.reset()
    assert len(opened) == 2
    assert len(opened) == 2
    assert server.calls["Query.projection"] >= 2


def test_a_plate_is_copied_to_zarr_and_back(
    server: OmeroServer, plate: str, tmp_path: Path
) -> None:
    from ome_zarr_models import open_ome_zarr
    from zarr import open_group

    from polystore_flows.transfer import copy

    ps.save({"µ": 1}, f"{plate}/B/03/note.json")
    labels = np.zeros((2, 1, 3, 5, 7), np.uint16)
    labels[1, 0, 2, 1:3, 2:6] = 9
    ps.save(labels, f"{plate}/C/5/0/labels/nuclei")
    zarr, back = f"zarr://{tmp_path}/out.zarr", server.uri("plate/copied back")
    copy(plate, zarr)
    assert ps.get_backend("zarr").check_plate(zarr) == []
    hcs = open_ome_zarr(open_group(tmp_path / "out.zarr", mode="r"))
    assert (type(hcs).__name__, len(list(hcs.well_groups))) == ("HCS", 2)
    copy(zarr, back)
    source = ps.open_plate(plate)
    for uri in (zarr, back):
        plate_copy = ps.open_plate(uri)
        assert plate_copy.wells == source.wells
        assert (plate_copy.layout, plate_copy.channel_info, plate_copy.pixel_size) == (
            source.layout,
            source.channel_info,
            source.pixel_size,
        )
        for well in source.wells:
            assert plate_copy[well].fields == source[well].fields
            for field in source[well].fields:
                np.testing.assert_array_equal(
                    plate_copy[well].image(field).read(), source[well].image(field).read()
                )
        np.testing.assert_array_equal(ps.load(f"{uri}/C/5/0/labels/nuclei"), labels)
        assert ps.load(f"{uri}/B/3/note.json") == {"µ": 1}


def test_what_is_mounted_as_ome_zarr_is_read_without_the_server(
    server: OmeroServer, plate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server tells where; a folder that is not mounted, or holds another size, is not used."""
    ps.copy(plate, f"zarr://{tmp_path}/lab/p.zarr")
    keep_as_zarr(server, int(plate.rpartition("/")[2]), "/OMERO/lab/p.zarr")
    wanted = ps.open_plate(plate)["B/3"].image(1).plane(1, "GFP", 2)
    for mounts, calls in (({"/OMERO": str(tmp_path)}, 0), ({"/OMERO": "/none", "/O": "/"}, 1)):
        monkeypatch.setenv("POLYSTORE_OMERO_MOUNTS", json.dumps(mounts))
        get_settings.cache_clear()
        image = ps.open_plate(plate)["B/3"].image(1)
        server.reset()
        np.testing.assert_array_equal(image.plane(1, "GFP", 2), wanted)
        np.testing.assert_array_equal(ps.load(f"{plate}/B/3/1?t=1&c=GFP&z=2"), wanted)
        assert server.calls["RawPixelsStore.getPlane"] == 2 * calls
        assert server.calls["Query.projection"] <= 1  # where they all are
    monkeypatch.setenv("POLYSTORE_OMERO_MOUNTS", json.dumps({"/OMERO": str(tmp_path)}))
    get_settings.cache_clear()
    ps.delete(f"zarr://{tmp_path}/lab/p.zarr")
    other = ps.create_plate(f"zarr://{tmp_path}/lab/p.zarr", layout=96, channels=["DAPI", "GFP"])
    other.write_well("B/3", {f: np.zeros((2, 2, 1, 5, 7), np.uint16) for f in range(2)})
    np.testing.assert_array_equal(ps.load(f"{plate}/B/3/1?t=1&c=GFP&z=2"), wanted)


def test_a_wrong_password_is_told_in_one_line_without_it(
    server: OmeroServer, monkeypatch: pytest.MonkeyPatch, plate: str
) -> None:
    opened = ps.open_plate(plate)
    shared(parse_target(plate).login).close()
    opened.contents.forget()  # type: ignore[attr-defined]
    monkeypatch.setenv("OMERO_PASSWORD", "hunter2")
    with pytest.raises(AccessDeniedError, match="omero login") as caught:
        ps.load(f"{plate}/B/3/0")
    assert "hunter2" not in repr(caught.value.__cause__) + str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_another_process_wrote_is_found_soon(server: OmeroServer, plate: str) -> None:
    """A workflow engine asks for an output before its job runs, and again after it."""
    path = f"{plate}/B/03/made.json"
    assert not ps.exists(path)
    code = f"import polystore_flows as ps; ps.save({{'a': 1}}, {path!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert ps.exists(path)
    assert ps.stat(path).size == 13


def test_many_questions_about_a_named_plate_are_answered_from_what_is_known(
    server: OmeroServer,
) -> None:
    made = ps.create_plate(server.uri("plate/asked often"), layout=6)
    ps.save({"a": 1}, f"{made.uri}/a.json")
    assert ps.exists(f"{made.uri}/a.json")
    server.reset()
    assert all(ps.exists(f"{made.uri}/a.json") for _ in range(50))
    assert server.total_calls <= 1
