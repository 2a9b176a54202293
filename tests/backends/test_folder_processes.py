"""Plate folders of ours under many processes, some of which are killed."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import polystore_flows as ps
from polystore_flows.backends.disk import DiskBackend
from polystore_flows.errors import MismatchError

SHAPE = (24, 31)


def plane(seed: int, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)


def killed_at_plane(uri: str, number: int) -> None:
    """Write field B/3/0 and be killed before its plane `number`."""
    written = itertools.count()
    write = DiskBackend.write_bytes

    def count(self: Any, data: bytes, identifier: Any, *, overwrite: bool = False) -> None:
        if str(identifier).endswith(".tif") and next(written) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, data, identifier, overwrite=overwrite)

    DiskBackend.write_bytes = count  # type: ignore[method-assign]
    plate = ps.open_plate(uri, "r+")
    plate.write_image("B3", 0, plane(0, (1, 2, 2, *SHAPE)))
    plate.write_label("B3", 0, "nuclei", plane(0, (1, 1, 2, *SHAPE)))


@pytest.mark.parametrize(("number", "visible"), [(0, []), (3, []), (4, [()]), (5, [()])])
def test_a_killed_writer_leaves_nothing_half_visible(
    tmp_path: Path, number: int, visible: list[tuple[str, ...]]
) -> None:
    """Planes 0 to 3 are the field, 4 and 5 its label image."""
    uri = f"disk://{tmp_path}/own"
    ps.create_plate(uri, channels=["DAPI", "GFP"])
    process = processes().Process(target=killed_at_plane, args=(uri, number))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    plate = ps.open_plate(uri, "r+")
    assert [plate[well].image(0).labels for well in plate.wells] == visible
    if not visible:
        plate.write_image("B3", 0, plane(0, (1, 2, 2, *SHAPE)))
    plate.write_label("B3", 0, "nuclei", plane(0, (1, 1, 2, *SHAPE)))
    assert ps.open_plate(uri)["B3"].image(0).labels == ("nuclei",)


def processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    modules = ["polystore_flows.backends.folder_plate", "polystore_flows.backends.disk"]
    modules += ["polystore_flows.metadata", "pandas", "pytest", "tifffile"]
    context.set_forkserver_preload(modules)
    return context


def write_one(job: tuple[str, int]) -> None:
    uri, number = job
    plate = ps.create_plate(uri, 96, ["DAPI"], exist_ok=True)
    well = f"{'ABCDEFGH'[number // 12]}/{number % 12 + 1}"
    plate.write_image(well, 0, plane(number, (1, 1, 1, *SHAPE)))


def test_32_processes_that_write_32_wells_are_all_listed(tmp_path: Path) -> None:
    """Each creates the plate, or finds it, and lists its own well."""
    uri = f"disk://{tmp_path}/own"
    with processes().Pool(32, maxtasksperchild=1) as pool:
        pool.map(write_one, [(uri, number) for number in range(32)], chunksize=1)
    plate = ps.open_plate(uri)
    assert len(plate.wells) == 32
    for number, well in enumerate(plate.wells):
        np.testing.assert_array_equal(plate[well].image(0).read(), plane(number, (1, 1, 1, *SHAPE)))


def claim(job: tuple[str, int]) -> str:
    uri, number = job
    try:
        ps.open_plate(uri, "r+").write_image("A1", number, plane(0, (1, 1, 1, 8, 8 + number % 2)))
    except MismatchError:
        return "refused"
    return "written"


def test_of_two_shapes_written_first_at_once_one_wins(tmp_path: Path) -> None:
    uri = f"disk://{tmp_path}/own"
    ps.create_plate(uri, 96, ["DAPI"])
    with processes().Pool(8, maxtasksperchild=1) as pool:
        outcomes = pool.map(claim, [(uri, number) for number in range(8)], chunksize=1)
    assert sorted(outcomes) == ["refused"] * 4 + ["written"] * 4
    well = ps.open_plate(uri)["A1"]
    assert len({well.image(field).read().shape for field in well.fields}) == 1
    assert len(list((tmp_path / "own").glob("*.tif"))) == 4, "nothing of the refused was written"
