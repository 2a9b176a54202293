"""What is wrong is told in one line, and nothing half-made is left on the server."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import polystore_flows as ps
from polystore_flows.backends.omero import connection as connections
from polystore_flows.cli import main
from polystore_flows.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    StoreUnavailableError,
    TransferError,
)
from polystore_flows.settings import get_settings
from polystore_flows.testing.omero import OmeroServer
from polystore_flows.testing.omero.plates import add_plate
from polystore_flows.testing.omero.server import SECRET

SHAPE = (1, 2, 3, 5, 7)


def pixels(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Any:
    return (np.random.default_rng(seed).random(shape) * 1000 + 1).astype(np.uint16)


def command(*args: str) -> object:
    """The exit status of the command line."""
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


def left(server: OmeroServer) -> dict[str, int]:
    kinds = ("Plate", "Well", "WellSample", "Image", "Pixels", "Annotation", "OriginalFile", "Roi")
    return {kind: len(server.store.all(kind)) for kind in kinds}


@pytest.fixture
def closed_plate(server: OmeroServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A plate of ours with one field, in a group that was closed meanwhile."""
    group = server.add_group(f"closed {server.number()}", "rwr---")
    server.demo.groups.append(group.id)
    monkeypatch.setenv("POLYSTORE_OMERO_GROUP", group.name)
    get_settings.cache_clear()
    plate = ps.create_plate(server.uri(f"plate/{group.name}"), layout=6, channels=["a", "b"])
    plate.write_image("A/1", 0, pixels())
    group.permissions = "r-r---"
    return str(plate.uri)


def test_nothing_is_written_into_a_read_only_group(server: OmeroServer, closed_plate: str) -> None:
    before = left(server)
    for path, data in (
        ("A/2/0", pixels()),
        ("A/1/0/labels/nuclei", np.ones((1, 1, *SHAPE[2:]), np.uint8)),
        ("A/1/a.json", {"a": 1}),
        ("tables/n.csv", pd.DataFrame({"n": [1]})),
    ):
        with pytest.raises(AccessDeniedError, match="permissions") as caught:
            ps.save(data, f"{closed_plate}/{path}")
        assert "\n" not in str(caught.value)
        assert left(server) == before, path
    with pytest.raises(AccessDeniedError, match="permissions"):
        ps.create_plate(f"{closed_plate} too", layout=6)
    with pytest.raises(AccessDeniedError):
        ps.delete(closed_plate)
    assert left(server) == before
    np.testing.assert_array_equal(ps.load(f"{closed_plate}/A/1/0"), pixels())


@pytest.mark.parametrize("every", [5, 8, 13, 21])
def test_writes_over_a_failing_connection_are_whole_or_not_there(
    server: OmeroServer, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """A reader never sees zeros; writing again, when the network is well, ends the work."""
    monkeypatch.setattr(connections, "PAUSE", 0.01)
    plate = ps.create_plate(server.uri(f"plate/dropped {every}"), layout=6, channels=["a", "b"])
    wells = ("A/1", "A/2", "B/3")
    server.reset()
    server.drop_every = every
    for seed, well in enumerate(wells):
        with suppress(StoreUnavailableError, AlreadyExistsError):
            plate.write_well(well, {0: pixels(seed), 1: pixels(seed + 10)})
        with suppress(StoreUnavailableError, AlreadyExistsError):
            ps.save("text " * 1000, f"{plate.uri}/{well.replace('/', '')}.txt")
    server.drop_every = 0
    for seed, well in enumerate(wells):
        plate.contents.forget()  # type: ignore[attr-defined]
        text = f"{plate.uri}/{well.replace('/', '')}.txt"
        if well in plate.wells:
            assert plate[well].fields == ("0", "1")
            np.testing.assert_array_equal(plate[well].image(1).read(), pixels(seed + 10))
        if ps.exists(text):
            assert ps.load(text) == "text " * 1000
        plate.write_well(well, {0: pixels(seed), 1: pixels(seed + 10)}, overwrite=True)
        ps.save("text " * 1000, text, overwrite=True)
    for seed, well in enumerate(wells):
        np.testing.assert_array_equal(plate[well].image(0).read(), pixels(seed))
    assert len(ps.list_files(plate.uri, extensions=[".txt"], recursive=True)) == len(wells)


def test_an_image_whose_number_got_lost_on_the_way_is_found_and_used(
    server: OmeroServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PAUSE", 0.01)
    plate = ps.create_plate(server.uri("plate/unanswered"), layout=6, channels=["a", "b"])
    before = left(server)["Image"]
    server.unanswered = ["createImage", "createImage"]
    plate.write_well("A/1", {0: pixels(1), 1: pixels(2)})
    assert server.unanswered == []
    assert left(server)["Image"] == before + 2
    for field in (0, 1):
        np.testing.assert_array_equal(plate["A/1"].image(field).read(), pixels(field + 1))


def test_a_plate_of_unlike_images_is_not_half_copied(server: OmeroServer, tmp_path: Path) -> None:
    """OME-Zarr plates hold one shape: what does not fit is named, the rest is complete."""
    wells = {"A/1": [pixels()], "A/2": [pixels(1, (1, 2, 1, 9, 9))], "A/3": []}
    uri = server.uri(f"plate/{add_plate(server, wells, channels=('a', 'b'))}")
    target = f"zarr://{tmp_path}/copy.zarr"
    with pytest.raises(TransferError, match="A/2"):
        ps.copy(uri, target, workers=1)
    assert ps.open_plate(target).wells == ("A/1",)
    assert ps.get_backend("zarr").check_plate(target) == []


def test_names_with_unicode_and_spaces_come_back(server: OmeroServer) -> None:
    plate = ps.create_plate(server.uri("plate/né %2F 板"), layout=6, channels=["α", "b/c"])
    plate.write_image("A/1", 0, pixels())
    plate.write_label("A/1", 0, "nuclei 2", np.ones((1, 1, *SHAPE[2:]), np.uint8))
    ps.save({"ü": "µ"}, f"{plate.uri}/tables/Größe (µm).json")
    opened = ps.open_plate(plate.uri)
    assert (opened.name, opened.channels) == ("né / 板", ("α", "b/c"))
    assert opened["A/1"].image(0).labels == ("nuclei 2",)
    assert ps.load(f"{plate.uri}/tables/Größe (µm).json") == {"ü": "µ"}
    assert ps.load(f"{plate.uri}/A01_s001_w2_z003_t001.tif").shape == SHAPE[3:]


def test_the_command_line_copies_and_lists(
    server: OmeroServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = server.uri(f"plate/{add_plate(server, {'B/3': [pixels()]}, channels=('a', 'b'))}")
    target = f"zarr:{tmp_path}/copy.zarr"
    assert command("cp", uri, target) == 0
    np.testing.assert_array_equal(ps.load(f"{target}/B/3/0"), pixels())
    capsys.readouterr()
    assert command("info", uri, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["wells"], told["shape"]) == (1, list(SHAPE))
    assert SECRET not in str(told)


@pytest.mark.parametrize("path", ["plate/987654", "plate/no such", "plate/987654/B/3/0"])
def test_the_command_line_tells_in_one_line_what_is_not_there(
    server: OmeroServer, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    assert command("info", server.uri(path)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert server.uri("plate/") in error
