"""Loading one plane reads its chunk and the metadata on its path, however large the plate is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.hcs import ngff
from polystore_flows.metadata import atomic_write_json, read_json

SHAPE = (2, 3, 4, 128, 128)

LOAD = """
import json, os, sys
import polystore_flows as ps
other, root, address = sys.argv[1:]
ps.load(other + address)  # imports all that is needed
opened, listed, read = [], [], []
def watch(event, arguments):
    if event == "open" and str(arguments[0]).startswith(root):
        opened.append(str(arguments[0]))
    elif event in ("os.listdir", "os.scandir") and str(arguments[0]).startswith(root):
        listed.append(str(arguments[0]))
pread = os.pread
def counted(file, length, offset):
    read.append(length)
    return pread(file, length, offset)
os.pread = counted
sys.addaudithook(watch)
found = []
for _ in range(2):
    plane = ps.load("zarr://" + root + address)
    found.append({"opened": sorted(opened), "listed": listed[:], "read": read[:]})
    opened.clear(), listed.clear(), read.clear()
print(json.dumps([int(plane.sum()), found]))
"""


class Cost(NamedTuple):
    opened: list[str]
    """Paths below the plate, of files that were opened."""
    listed: list[str]
    read: list[int]
    """Bytes of each read of a part of a file."""


def _plate(root: Path, version: str, wells: int) -> Any:
    """A plate of 1536 with a field in its last well, which lists so many `wells`."""
    options: Any = {"ngff_version": version, "levels": 1}
    plate = ps.create_plate(root, 1536, ["a", "b", "c"], **options)
    plate.write_image("AF/48", 0, np.random.default_rng(0).integers(0, 4000, SHAPE).astype("u2"))
    if wells > 1:
        names = tuple(f"{row}/{column}" for row in plate.rows for column in plate.columns)
        listed = ngff.PlateDocument(plate.layout, names, plate.name, 1, plate.version)
        document = root / ("zarr.json" if version == "0.5" else ".zattrs")
        content = read_json(document)
        content.get("attributes", content).update(ngff.plate_attributes(listed))
        atomic_write_json(document, content)
    assert len(ps.open_plate(root).wells) == wells
    return plate


def _costs(folder: Path, version: str, wells: int, address: str) -> list[Cost]:
    """What the first and the second load of one process cost."""
    root, other = folder / f"p{wells}.zarr", folder / f"other{wells}.zarr"
    plate = _plate(root, version, wells)
    _plate(other, version, 1)
    command = [sys.executable, "-c", LOAD, f"zarr://{other}", str(root), address]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    total, found = json.loads(done.stdout)
    assert total == int(plate["AF/48"].image(0).plane(1, 2, 3).sum())
    return [
        Cost([p.removeprefix(f"{root}/") for p in cost["opened"]], cost["listed"], cost["read"])
        for cost in found
    ]


@pytest.mark.parametrize(
    ("version", "address"),
    [("0.4", "/AF48_s001_w3_z004_t002.tif"), ("0.5", "/AF/48/0?t=1&c=c&z=3")],
)
def test_a_plane_costs_its_chunk_and_the_metadata_on_its_path(
    tmp_path: Path, version: str, address: str
) -> None:
    """And no more with 1536 wells than with one; only the list of wells is longer."""
    one, many = (_costs(tmp_path, version, wells, address) for wells in (1, 1536))
    assert many == one
    first, second = many
    group, array = ("zarr.json",) * 2 if version == "0.5" else (".zattrs", ".zarray")
    chunk = "0/0/c/0/0/0/0/0" if version == "0.5" else "0/0/1/2/3/0/0"
    path = {group, f"AF/48/{group}", f"AF/48/0/{group}", f"AF/48/0/0/{array}", f"AF/48/{chunk}"}
    looked_for = {f"AF/48{inner}/zarr.json" for inner in ("", "/0", "/0/0")}
    looked_for = looked_for | {"AF/48/0/0/.zattrs"} if version == "0.4" else set()
    assert first.opened == sorted(path | looked_for)
    assert first.listed == second.listed == []
    assert group not in second.opened  # the plate's JSON is parsed once
    if version == "0.5":
        planes = SHAPE[0] * SHAPE[1] * SHAPE[2]
        shard = (tmp_path / "p1.zarr/AF/48" / chunk).stat().st_size
        assert len(first.read) == 2
        assert first.read[0] == 16 * planes + 4
        assert first.read[1] < 1.2 * shard / planes
