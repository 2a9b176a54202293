"""What runs in the kernel whose power is cut: look at the document, then update it until dark."""

from __future__ import annotations

import os
import random
import stat
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from guest import DISK, Channel, mount
from updates import HOW, NAME, append, entries

from polystore_flows.metadata import read_json

FOLDER = DISK / "plate"
DOCUMENT = FOLDER / NAME
WRITERS = 6


def run(channel: Channel, boot: str, options: str, mutant: str) -> None:
    """Say what the last cut left, then let writers work until the next one."""
    mount("/dev/ubda", DISK, "ext4", "" if options == "-" else options)
    MUTANTS[mutant]()
    FOLDER.mkdir(exist_ok=True)
    os.sync()
    channel.report(**_found(boot))
    pause = 0.1 * (int(boot) % 2)  # in every other boot the disk is at rest most of the time
    for writer in range(WRITERS):
        if os.fork() == 0:
            _write(channel, f"{boot}-{writer}", HOW[writer % len(HOW)], pause)
    time.sleep(600)


def _found(boot: str) -> dict[str, Any]:
    found: dict[str, Any] = {"left": sorted(os.listdir(FOLDER))}  # noqa: PTH208
    try:
        found["log"] = entries(read_json(DOCUMENT)) if DOCUMENT.name in found["left"] else []
        began = time.monotonic()
        append(DOCUMENT, f"{boot}-first-0", 5)
        found["took"] = time.monotonic() - began
    except Exception as error:  # noqa: BLE001 - the host judges
        found["error"] = repr(error)
    found["kept"] = sorted(os.listdir(FOLDER))  # noqa: PTH208
    return found


def _write(channel: Channel, name: str, update: Callable[[Path, str], None], pause: float) -> None:
    for number in count():
        update(DOCUMENT, f"{name}-{number}")
        channel.say(f"+ {name}-{number}")
        time.sleep(random.uniform(pause, 5 * pause))


_fsync, _fdatasync = os.fsync, os.fdatasync


def _skip_folders(fd: int) -> None:
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        _fsync(fd)


def _skip_files(fd: int) -> None:
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        _fsync(fd)


def no_folder_sync() -> None:
    os.fsync = _skip_folders


def no_data_sync() -> None:
    os.fsync = os.fdatasync = _skip_files


def no_sync() -> None:
    os.fsync = os.fdatasync = lambda fd: None


MUTANTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "no-folder-sync": no_folder_sync,
    "no-data-sync": no_data_sync,
    "no-sync": no_sync,
}
"""What is broken in our code, or rather in what it is given by the system."""
