"""The lock of a well keeps out who writes that well, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.backends.zarr import locks
from polystore_flows.backends.zarr.locks import locked
from polystore_flows.backends.zarr.plate import ZarrPlate
from polystore_flows.errors import FileLockTimeoutError
from polystore_flows.settings import get_settings


@pytest.fixture(params=["bytes", "whole file"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With Linux' locks of bytes, and as on systems that have none."""
    if request.param == "whole file":
        monkeypatch.setattr(locks, "_SET", None)
    monkeypatch.setenv("POLYSTORE_LOCK_TIMEOUT", "0.2")
    get_settings.cache_clear()
    return str(request.param)


@pytest.fixture
def zarr_plate(tmp_path: Path) -> ZarrPlate:
    """An empty plate."""
    plate = ps.create_plate(f"zarr://{tmp_path}/p.zarr")
    assert isinstance(plate, ZarrPlate)
    return plate


@pytest.fixture(autouse=True)
def _settings_afterwards() -> Iterator[None]:
    yield
    get_settings.cache_clear()


def _is_free(plate: ZarrPlate, well: str | None) -> bool:
    message = ""
    try:
        with locked(plate, well):
            pass
    except FileLockTimeoutError as error:
        message = str(error)
    where = f"{plate.uri}/{well}" if well else plate.uri
    assert message == "" or message.startswith(f"{where} is being written by another process")
    return not message


@pytest.mark.usefixtures("kind")
def test_one_well_has_one_writer_at_a_time(zarr_plate: ZarrPlate) -> None:
    with locked(zarr_plate, "B/3"):
        assert not _is_free(zarr_plate, "B/3")
        assert not _is_free(zarr_plate, None)
    assert _is_free(zarr_plate, "B/3")
    assert _is_free(zarr_plate, None)


def test_different_wells_do_not_wait_for_each_other(zarr_plate: ZarrPlate, kind: str) -> None:
    with locked(zarr_plate, "B/3"):
        assert _is_free(zarr_plate, "B/4") == (kind == "bytes")
        assert _is_free(zarr_plate, "A/1") == (kind == "bytes")


@pytest.mark.usefixtures("kind")
def test_who_locks_all_wells_keeps_everybody_out(zarr_plate: ZarrPlate) -> None:
    with locked(zarr_plate):
        assert not _is_free(zarr_plate, "A/1")
        assert not _is_free(zarr_plate, "H/12")
    assert _is_free(zarr_plate, "H/12")


def test_who_waits_for_all_wells_is_not_overtaken_for_ever(zarr_plate: ZarrPlate) -> None:
    """Writers that come and go hold some well at every moment."""
    stop = threading.Event()

    def write(wells: list[str]) -> None:
        while not stop.is_set():
            for well in wells:
                with locked(zarr_plate, well):
                    time.sleep(0.005)

    writers = [threading.Thread(target=write, args=([f"{r}/1", f"{r}/2"],)) for r in "ABCDEF"]
    for writer in writers:
        writer.start()
    try:
        for _ in range(5):
            with locked(zarr_plate):
                pass
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.usefixtures("kind")
def test_the_lock_ends_with_its_holder_even_if_a_forked_child_lives_on(
    zarr_plate: ZarrPlate, tmp_path: Path
) -> None:
    script = """
import os, sys, time
import polystore_flows as ps
from polystore_flows.backends.zarr import locks
if sys.argv[2] == "whole file":
    locks._SET = None
plate = ps.open_plate(sys.argv[1])
with locks.locked(plate, "B/3"):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(600)
"""
    which = "bytes" if locks._SET is not None else "whole file"
    command = [sys.executable, "-c", script, zarr_plate.uri, which]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            assert not _is_free(zarr_plate, "B/3")
            holder.kill()
            holder.wait()
            _wait_for(lambda: _is_free(zarr_plate, "B/3"))
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.usefixtures("kind")
def test_the_lock_is_one_file_beside_the_plate_and_found_through_links(
    zarr_plate: ZarrPlate, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "links" / "q.zarr"
    elsewhere.parent.mkdir()
    elsewhere.symlink_to(tmp_path / "p.zarr")
    zarr_plate.write_image("A/1", 0, np.ones((4, 4), "uint8"))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".p.zarr.lock", ".p.zarr.wells.lock", "links", "p.zarr"]
    other = ps.open_plate(f"zarr://{elsewhere}")
    assert isinstance(other, ZarrPlate)
    with locked(zarr_plate, "A/1"):
        assert not _is_free(other, "A/1")
