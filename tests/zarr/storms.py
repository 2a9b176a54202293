"""Processes that write one plate at once, are killed, or read while others write.

``python storms.py NAME FOLDER [ARGUMENT…]`` prints as JSON all that was wrong; each runs in a
process of its own, because what forks must have one thread.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import polystore_flows as ps
from polystore_flows.backends.zarr import staging
from polystore_flows.testing.faults.world import fork, wait

STILL = ("A/1", "A/2", "H/12")
"""Wells that nobody writes."""
ABSENT = 0
"""Stands for a well that is not there; no pixel has this value."""
MOST_FAULTS = 20


def filled(value: int) -> Any:
    return np.full((1, 1, 2, 40, 41), value, "uint16")


def fields(value: int) -> dict[int, Any]:
    return {0: filled(value), 1: filled(value)}


def values(loaded: Any) -> set[int]:
    """All values of the pixels of a plane, a field or a well: one, or it is a mixture."""
    arrays = loaded.values() if isinstance(loaded, dict) else [loaded]
    return {int(value) for array in arrays for value in np.unique(array)}


def create(folder: Path, version: str, name: str = "p.zarr") -> Any:
    uri = f"zarr://{folder}/{name}"
    options: Any = {"ngff_version": version, "levels": 2, "exist_ok": True}
    return ps.create_plate(uri, channels=["DAPI"], **options)


def strays(folder: Path) -> list[str]:
    """What lies beside the plates but for their locks, and temporary files in them."""
    beside = [p for p in folder.iterdir() if p.suffix not in (".zarr", ".lock")]
    return [f"stray: {p.name}" for p in [*beside, *folder.rglob("*.tmp")]]


def first_writers(folder: Path, version: str, repeats: str) -> list[str]:
    """Sixteen processes, each the first to touch a new plate, write a well each."""
    faults = []
    wells = [f"{row}/{column}" for row in "ABCD" for column in (1, 2, 11, 12)]

    def write(name: str, gate: int, value: int) -> None:
        os.read(gate, 1)
        create(folder, version, name).write_image(wells[value], 0, filled(value + 1))

    create(folder, version, "warm.zarr").write_image("A/1", 0, filled(1))  # imports all of it

    def start(name: str, gate: int, value: int) -> int:
        return fork(lambda: write(name, gate, value))

    for number in range(int(repeats)):
        name = f"p{number}.zarr"
        gate, opener = os.pipe()
        writers = [start(name, gate, value) for value in range(16)]
        os.write(opener, b"!" * 16)
        faults += [f"a writer ended with {status}" for pid in writers if (status := wait(pid, 60))]
        os.close(gate)
        os.close(opener)
        plate = ps.open_plate(folder / name)
        faults += [f"lost: {well}" for well in wells if well not in plate.wells]
        for value, well in enumerate(wells):
            if well in plate.wells and (found := values(ps.load(f"{plate.uri}/{well}"))) != {
                value + 1
            }:
                faults.append(f"{well} holds {found}")
    return faults + strays(folder)


def plane_by_plane(folder: Path, version: str) -> list[str]:
    """Eight processes save planes of one field, which two writers of a shard would lose."""
    plate = create(folder, version)
    plate.write_image("B/3", 0, np.zeros((1, 1, 24, 40, 41), "uint16"))

    def save(number: int) -> None:
        for z in range(number, 24, 8):
            address = f"B/03/0?t=0&c=DAPI&z={z}" if z % 2 else f"B03_s001_w1_z{z + 1:03d}.tif"
            plane = np.full((40, 41), z + 1, "uint16")
            ps.save(plane, f"{plate.uri}/{address}", overwrite=True)

    def start(number: int) -> int:
        return fork(lambda: save(number))

    writers = [start(number) for number in range(8)]
    faults = [f"a writer ended with {status}" for pid in writers if (status := wait(pid, 120))]
    found = [values(plane) for plane in plate["B/3"].image(0).read()[0, 0]]
    if found != [{z + 1} for z in range(24)]:
        faults.append(f"the planes hold {found}")
    return faults + strays(folder)


class Storm:
    """A plate whose writer is killed again and again.

    Attributes:
        holds: part of the plate -> the value that it has, or the two of which it may have one.
    """

    def __init__(self, folder: Path, version: str) -> None:
        self.folder = folder / "plates"
        self.folder.mkdir()
        self._log = os.open(folder / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        plate = create(self.folder, version)
        self.uri = plate.uri
        for well in (*STILL, "B/3", "C/4", "H/1"):
            plate.write_well(well, fields(1))
        self.holds = {part: {1} for part in (*STILL, "B/3", "C/4/0", "C/4/1")}

    def write(self, start: int) -> None:
        """Write, replace and delete wells and fields for ever; say so before and after each."""
        plate = ps.open_plate(self.uri, "r+")
        for value in range(start, 60000):
            self._cycle(plate, value)

    def _cycle(self, plate: Any, value: int) -> None:
        def well(path: str) -> None:
            plate.write_well(path, fields(value), overwrite=True)

        def field(path: str) -> None:
            plate.write_image("C/4", path[-1], filled(value), overwrite=True)

        def remove(path: str) -> None:
            ps.delete(f"{self.uri}/{path}")

        self._step("B/3", value, well)
        self._step("C/4/0", value, field)
        self._step("C/4/1", value, field)
        self._step(f"D/{value % 12 + 1}", value, well)
        old = f"D/{(value + 6) % 12 + 1}"
        if old in plate.wells:
            self._step(old, ABSENT, remove)

    def _step(self, part: str, value: int, act: Callable[[str], None]) -> None:
        os.write(self._log, f"begun {part} {value}\n".encode())
        act(part)
        os.write(self._log, f"done {part} {value}\n".encode())

    def write_on(self) -> None:
        """Replace another well for ever: what the killed leave must not disturb it."""
        plate = ps.open_plate(self.uri, "r+")
        for value in range(1, 10**9):
            plate.write_well("H/1", fields(value % 60000 + 1), overwrite=True)

    def read_log(self) -> int:
        """Note what each part holds, or may hold where its writer was killed; the last value."""
        lines = os.pread(self._log, 1 << 24, 0).decode().splitlines()
        os.ftruncate(self._log, 0)
        last = 0
        for line in lines:
            word, part, value = line.split()
            old = self.holds.get(part, {ABSENT})
            self.holds[part] = {int(value)} if word == "done" else old | {int(value)}
            last = max(last, int(value))
        return last

    def check(self) -> list[str]:
        """Load all that was ever written; what is wrong with it."""
        faults = []
        listed = ps.open_plate(self.uri).wells
        for part, allowed in self.holds.items():
            well = "/".join(part.split("/")[:2])
            loaded = ps.load(f"{self.uri}/{part}") if well in listed else {}
            found = values(loaded) or {ABSENT}
            if len(found) > 1 or not found <= allowed:
                faults.append(f"{part} holds {found}, not one of {allowed}")
            if isinstance(loaded, dict) and len(loaded) not in (0, 2):
                faults.append(f"{part} has the fields {list(loaded)}")
        return faults


def kills(folder: Path, version: str, count: str, seed: str, exchange: str = "yes") -> list[str]:
    """A writer is killed at `count` random moments, while another one goes on."""
    if exchange == "no":  # as on NFS
        staging._exchange = lambda one, other: False
    chance, backend = random.Random(int(seed)), ps.get_backend("zarr")
    storm, last = Storm(folder, version), 1
    faults: list[str] = []
    mended = 0
    # Where wells cannot be exchanged, there are moments without one, which `check` would report.
    others = [fork(storm.write_on)] if exchange == "yes" else []
    for _ in range(int(count)):
        writer = _start(storm, last + 1)
        time.sleep(chance.uniform(0, 0.12))
        _kill(writer, faults)
        last = max(last, storm.read_log())
        if exchange == "yes":  # else a replaced well may be gone until it is mended
            faults += storm.check()
        mended += len(backend.check_plate(storm.uri, repair=True))
        faults += [f"not mended: {finding}" for finding in backend.check_plate(storm.uri)]
        faults += storm.check()
        if len(faults) > MOST_FAULTS:
            break
    for other in others:
        _kill(other, faults)
    backend.check_plate(storm.uri, repair=True)
    if not mended and int(count) >= 100:  # a few may all miss
        faults.append("no writer was killed where it mattered")
    return faults + storm.check() + strays(storm.folder)


def _start(storm: Storm, value: int) -> int:
    return fork(lambda: storm.write(value))


def _kill(pid: int, faults: list[str]) -> None:
    os.kill(pid, signal.SIGKILL)
    if (status := wait(pid)) != -signal.SIGKILL:  # it should have written for ever
        faults.append(f"a writer ended by itself with {status}")


def replaced_under_a_reader(folder: Path, version: str, count: str) -> list[str]:
    """A well of two fields is replaced while another process reads it, and a plane of it."""
    plate = create(folder, version)
    plate.write_well("B/3", fields(1))
    writer = fork(lambda: _replace(plate, int(count)))
    faults: list[str] = []
    latest, seen = 1, set()
    while os.waitpid(writer, os.WNOHANG) == (0, 0) and len(faults) < MOST_FAULTS:
        for what in ("B/3", "B/3/1", "B/3/0?z=1&t=0&c=0"):
            found = values(ps.load(f"{plate.uri}/{what}"))
            if len(found) > 1:
                faults.append(f"{what} was a mixture of {found}")
            if min(found) < latest:
                faults.append(f"{what} was {found} after {latest}")
            latest = max(found)
            seen.add(latest)
    if values(ps.load(f"{plate.uri}/B/3")) != {int(count) + 1}:
        faults.append("the writer failed")
    if len(seen) < min(10, int(count) // 3):
        faults.append(f"the reader met only {len(seen)} revisions")
    return faults + strays(folder)


def _replace(plate: Any, count: int) -> None:
    for value in range(2, count + 2):
        plate.write_well("B/3", fields(value), overwrite=True)


if __name__ == "__main__":
    what, place, *arguments = sys.argv[1:]
    print(json.dumps(globals()[what](Path(place), *arguments)))
