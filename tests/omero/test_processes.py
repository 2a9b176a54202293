"""Many processes write one new plate: nothing is twice, nothing is missing, nothing is black."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time

import pytest

import polystore_flows as ps
from polystore_flows.errors import PolystoreError
from polystore_flows.testing.omero import OmeroServer

PROCESSES = 8
WELLS, FIELDS = ("A/1", "A/2", "B/1"), 4

_WORKER = """
    import sys, numpy as np, polystore_flows as ps
    uri, me, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ps.get_backend("omero")  # imported before they start together
    print("ready", flush=True)
    sys.stdin.readline()
    plate = ps.create_plate(uri, layout=6, channels=["a", "b"], exist_ok=True)
    done = 0
    for number, (well, field) in enumerate((w, f) for f in range({fields}) for w in {wells}):
        if number % processes not in (me, (me + 1) % processes):
            continue  # every field is written by two of them, and one is told
        pixels = np.full((1, 2, 2, 8, 8), number + 1, np.uint16)
        try:
            plate.write_image(well, field, pixels)
            done += 1
        except FileExistsError:
            pass
    print(done, flush=True)
"""


def workers(uri: str, count: int) -> list[subprocess.Popen[str]]:
    code = textwrap.dedent(_WORKER).format(fields=FIELDS, wells=WELLS)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, uri, str(me), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for me in range(count)
    ]
    for worker in started:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    return started


@pytest.mark.slow
def test_eight_processes_that_write_one_new_plate_make_each_thing_once(
    server: OmeroServer,
) -> None:
    uri = server.uri("plate/crowd")
    crowd = workers(uri, PROCESSES)
    for worker in crowd:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    wrote = []
    for worker in crowd:
        out, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0
        wrote.append(int(out))
    assert sum(wrote) == len(WELLS) * FIELDS
    plates = [row for row in server.store.all("Plate") if row.fields["name"] == "crowd"]
    assert len(plates) == 1
    wells = server.store.members("Well", "plate", plates[0].id)
    assert len(wells) == len(WELLS)
    assert [len(server.store.members("WellSample", "well", w.id)) for w in wells] == [FIELDS] * 3
    plate = ps.open_plate(uri)
    assert plate.wells == WELLS
    order = [(w, f) for f in range(FIELDS) for w in WELLS]
    for number, (well, field) in enumerate(order):
        assert (plate[well].image(field).read() == number + 1).all(), (well, field)
    images = [row for row in server.store.all("Image") if row.fields["name"].startswith("crowd [")]
    assert len(images) == len(order)


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_no_black_image(server: OmeroServer) -> None:
    """Killed at any moment: what the plate lists is complete, and the next writer goes on."""
    uri = server.uri("plate/killed")
    for pause in (0.05, 0.3):
        (worker,) = workers(uri, 1)
        assert worker.stdin is not None
        with server.slow(0.01):
            worker.stdin.write("go\n")
            worker.stdin.flush()
            time.sleep(pause)
            worker.send_signal(signal.SIGKILL)
            worker.wait(60)
        worker.communicate()
        _check_complete(uri)
    (worker,) = workers(uri, 1)
    worker.communicate("go\n", timeout=300)
    assert worker.returncode == 0
    assert _check_complete(uri) == len(WELLS) * FIELDS


def _check_complete(uri: str) -> int:
    """Number of fields that are listed; each must hold what one writer wrote."""
    try:
        plate = ps.open_plate(uri)
    except PolystoreError:
        return 0
    plate.contents.forget()  # type: ignore[attr-defined]
    found = 0
    for well in plate.wells:
        for field in plate[well].fields:
            pixels = plate[well].image(field).read()
            assert pixels.min() == pixels.max() > 0, (well, field)
            found += 1
    return found
