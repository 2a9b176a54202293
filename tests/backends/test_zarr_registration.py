"""A written well is listed once, with others that wait, and at a cost that stays flat."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.backends.zarr import commit, staging
from polystore_flows.backends.zarr.plate import ZarrPlate
from polystore_flows.errors import AlreadyExistsError, MismatchError, PolystoreError
from polystore_flows.hcs import ngff
from polystore_flows.hcs.layout import Layout
from polystore_flows.hcs.plate import Plate
from polystore_flows.metadata import file_lock, queue

Pixels = Callable[..., Any]
SMALL = np.ones((1, 2, 1, 8, 8), "uint16")


def _document(plate: Plate) -> Path:
    assert isinstance(plate, ZarrPlate)
    return plate.document_path


def _body(plate: Plate) -> dict[str, Any]:
    content = json.loads(_document(plate).read_text())
    body: dict[str, Any] = content["attributes"]["ome"] if "attributes" in content else content
    return body["plate"]


class _Rewrites:
    """Counts how often a plate's JSON is replaced."""

    def __init__(self, plate: Plate, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        document, replace = str(_document(plate)), os.replace

        def counted(source: Any, target: Any, **options: Any) -> None:
            if os.fspath(target) == document:
                self.sizes.append(Path(source).stat().st_size)
            replace(source, target, **options)

        monkeypatch.setattr(os, "replace", counted)

    def take(self) -> int:
        """How many since this was asked last."""
        count = len(self.sizes)
        self.sizes.clear()
        return count


def test_only_a_new_well_or_a_larger_one_rewrites_the_plates_json(
    plate: Plate, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrites = _Rewrites(plate, monkeypatch)
    plate.write_well("B/3", {0: SMALL, 1: SMALL})
    assert rewrites.take() == 1
    plate.write_image("B/4", 0, SMALL)
    assert rewrites.take() == 1
    plate.write_image("B/4", 1, SMALL)
    plate.write_image("B/4", 1, SMALL, overwrite=True)
    plate.write_well("B/3", {0: SMALL}, overwrite=True)
    plate.write_label("B/3", 0, "nuclei", np.ones((8, 8), "uint8"))
    assert rewrites.take() == 0
    plate.write_image("B/4", 2, SMALL)
    assert rewrites.take() == 1
    assert _body(plate)["field_count"] == 3


def test_a_writer_does_not_read_the_plates_json_for_every_well(
    plate: Plate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others change it all the time, and reading it costs more the more wells there are."""
    plate.write_image("A/1", 0, SMALL)
    plate.write_image("A/2", 0, SMALL)
    reads: list[int] = []
    read = ngff.read_plate
    monkeypatch.setattr(ngff, "read_plate", lambda *args: reads.append(1) or read(*args))
    for column in range(3, 10):
        plate.write_image(f"A/{column}", 0, SMALL)
    assert reads == []
    assert len(plate.wells) == 9


def test_wells_that_wait_are_listed_by_one_rewrite(
    plate: Plate, monkeypatch: pytest.MonkeyPatch
) -> None:
    wells = [f"{row}/{column}" for row in "AH" for column in (12, 1, 7, 2)]
    plate.write_image("D/4", 0, SMALL)
    rewrites = _Rewrites(plate, monkeypatch)
    opened = [ps.open_plate(plate.uri, "r+") for _ in wells]
    writers = [
        threading.Thread(target=one.write_image, args=(well, 0, SMALL))
        for one, well in zip(opened, wells, strict=True)
    ]
    with file_lock(_document(plate)):
        for writer in writers:
            writer.start()
        _until(lambda: _waiting(plate) == len(wells))
    for writer in writers:
        writer.join()
    assert rewrites.take() <= 2
    expected = ["A/1", "A/2", "A/7", "A/12", "D/4", "H/1", "H/2", "H/7", "H/12"]
    assert [well["path"] for well in _body(plate)["wells"]] == expected
    assert plate.wells == tuple(expected)


def _waiting(plate: Plate) -> int:
    root = _document(plate).parent
    status = (root.parent / f".{root.name}.lock").stat()
    names = queue.Queue.of((status.st_dev, status.st_ino)).names()
    return sum(name.endswith(".json") for name in names)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def _at_once(*acts: Callable[[], None]) -> list[Exception]:
    """What `acts` raise when they all begin at the same moment."""
    failed: list[Exception] = []
    start = threading.Barrier(len(acts))

    def run(act: Callable[[], None]) -> None:
        start.wait()
        try:
            act()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            failed.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_of_writers_of_one_new_well_exactly_one_wins_and_its_pixels_are_there(
    plate: Plate,
) -> None:
    for column in range(1, 9):
        well = f"C/{column}"
        done: list[int] = []

        def write(value: int, well: str = well, done: list[int] = done) -> None:
            ps.open_plate(plate.uri, "r+").write_well(well, {0: SMALL * value})
            done.append(value)

        failed = _at_once(*(partial(write, value) for value in (1, 2, 3)))
        assert [type(error) for error in failed] == [AlreadyExistsError] * 2
        assert np.unique(plate[well].image(0).read()).tolist() == done


def test_fields_that_are_written_into_one_new_well_at_once_are_all_there(plate: Plate) -> None:
    for column in range(1, 5):
        well = f"C/{column}"
        opened = [ps.open_plate(plate.uri, "r+") for _ in range(4)]
        writes = (partial(o.write_image, well, f, SMALL * f) for f, o in enumerate(opened))
        failed = _at_once(*writes)
        assert failed == []
        assert plate[well].fields == ("0", "1", "2", "3")


def test_of_two_first_fields_that_differ_one_is_refused_and_leaves_nothing(
    plate: Plate, tmp_path: Path
) -> None:
    """Both writers saw an empty plate; the second to be listed learns that it is not like it."""
    other = np.ones((1, 2, 1, 8, 9), "uint16")
    late = ps.open_plate(plate.uri, "r+")
    with file_lock(_document(plate)):
        failed: list[Exception] = []
        waits = threading.Thread(
            target=lambda: failed.extend(_at_once(lambda: late.write_image("A/1", 0, other)))
        )
        waits.start()
        _until(lambda: _waiting(plate) == 1)
        commit.atomic_write_json(_document(plate), _with_field(plate))
    waits.join()
    assert len(failed) == 1
    assert isinstance(failed[0], MismatchError)
    assert "A/1/0: the array is (1, 2, 1, 8, 9) uint16, but fields" in str(failed[0])
    assert not (tmp_path / "p.zarr" / "A" / "1").exists()
    assert not list(tmp_path.glob(".*.staging"))


def _with_field(plate: Plate) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_document(plate).read_text())
    ours = content.get("attributes", content)["polystore"]
    ours["field"] = {"shape": list(SMALL.shape), "dtype": "uint16"}
    return content


def test_a_plate_that_was_emptied_takes_other_fields_from_a_handle_that_is_still_open(
    plate: Plate,
) -> None:
    plate.write_image("A/1", 0, SMALL)
    ps.delete(f"{plate.uri}/A/1")
    plate.write_image("A/2", 0, np.ones((1, 2, 1, 9, 9), "uint8"))
    assert plate.wells == ("A/2",)


def test_a_well_whose_writer_died_before_it_was_listed_is_replaced_not_mixed(
    plate: Plate,
) -> None:
    """It was never acknowledged: the next writer's fields are all that is there."""
    script = """
import os, signal, sys
import numpy as np
import polystore_flows as ps
from polystore_flows.backends.zarr import commit, staging
commit.list_well = lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL)
plate = ps.open_plate(sys.argv[1], "r+")
plate.write_well("B/3", {f: np.full((1, 2, 1, 8, 8), 7, "uint16") for f in range(3)})
"""
    died = subprocess.run([sys.executable, "-c", script, plate.uri], check=False)
    assert died.returncode == -signal.SIGKILL
    assert _document(plate).with_name("B").joinpath("3").is_dir()
    assert plate.wells == ()
    plate.write_image("B/3", 1, SMALL)
    assert plate["B/3"].fields == ("1",)
    assert np.unique(ps.load(f"{plate.uri}/B/3/1")).tolist() == [1]


CROWD = """
import os, sys
import numpy as np
import polystore_flows as ps
uri, number, of = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
plate = ps.open_plate(uri, "r+")
rewrites, replace = [], os.replace
def counted(source, target, **options):
    if os.fspath(target).endswith(("p.zarr/zarr.json", "p.zarr/.zattrs")):
        rewrites.append(os.stat(source).st_size)
    replace(source, target, **options)
os.replace = counted
print("ready", flush=True)
sys.stdin.readline()
wells = [f"{row}/{column}" for row in plate.rows for column in plate.columns]
for well in wells[number::of]:
    plate.write_image(well, 0, np.ones((1, 1, 1, 8, 8), "uint16"))
print(len(rewrites), sum(rewrites))
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_384_wells_of_8_processes_are_all_listed_and_the_json_is_valid_all_along(
    tmp_path: Path, version: ngff.Version
) -> None:
    uri = f"zarr://{tmp_path}/p.zarr"
    plate = ps.create_plate(uri, 384, ["DAPI"], ngff_version=version)
    layout = Layout.of(384)
    command = [sys.executable, "-c", CROWD, uri]
    pipe = subprocess.PIPE
    crowd = [
        subprocess.Popen([*command, str(n), "8"], stdin=pipe, stdout=pipe, text=True)
        for n in range(8)
    ]
    for one in crowd:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in crowd:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    seen: set[str] = set()
    looks = 0
    while any(one.poll() is None for one in crowd):
        attributes = json.loads(_document(plate).read_text())
        attributes = attributes.get("attributes", attributes)
        if "plate" in attributes.get("ome", attributes):
            now = ngff.read_plate(attributes, uri)
            assert now.layout == layout
            listed = [w["path"] for w in attributes.get("ome", attributes)["plate"]["wells"]]
            assert list(now.wells) == listed  # in plate order as they stand
            assert seen <= set(listed)
            seen = set(listed)
            looks += 1
    printed = [one.communicate()[0].split() for one in crowd]
    assert [one.returncode for one in crowd] == [0] * 8
    assert looks > 10
    assert len(ps.open_plate(uri).wells) == 384
    rewrites = sum(int(count) for count, _ in printed)
    assert rewrites <= 384  # never more than one for a well, whoever waits
    assert sum(int(size) for _, size in printed) <= 384 * _document(plate).stat().st_size
    assert ps.get_backend("zarr").check_plate(uri) == []


def test_a_staging_folder_that_others_make_and_remove_meanwhile_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``mkdir`` sees it, and then it is gone: the last writer before this one has ended."""
    mkdir, met = Path.mkdir, []

    def racing(path: Path, *args: Any, **options: Any) -> None:
        if path.name.endswith(".staging") and len(met) < 3:
            met.append(path)
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        mkdir(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", racing)
    with staging.staged(tmp_path / "p.zarr") as folder:
        assert folder.is_dir()
    assert len(met) == 3


def test_what_is_in_the_place_of_a_staging_folder_is_told(tmp_path: Path) -> None:
    plate = ps.create_plate(tmp_path / "p.zarr", channels=["DAPI", "GFP"])
    place = tmp_path / ".p.zarr.staging"
    place.write_text("mine")
    with pytest.raises(PolystoreError, match=re.escape(str(place))):
        plate.write_well("A/1", {0: SMALL})
    assert place.read_text() == "mine"
    assert ps.open_plate(plate.uri).wells == ()
