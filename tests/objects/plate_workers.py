"""Processes that write wells into one plate; run by path, they start together when told to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

import numpy as np

import polystore_flows as ps

SHAPE = (1, 1, 2, 16, 16)


def field(value: int) -> np.ndarray:
    """A field that holds one value everywhere, so that a mixture shows."""
    return np.full(SHAPE, value, "uint16")


def main(kind: str, uri: str, number: int, count: int) -> None:
    plate = ps.open_plate(uri, "r+")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    if kind == "wells":
        rows, columns = plate.rows, plate.columns
        for i in range(number * count, (number + 1) * count):
            plate.write_image(f"{rows[i // len(columns)]}/{columns[i % len(columns)]}", 0, field(i))
    elif kind == "fields":
        for i in range(number * count, (number + 1) * count):
            plate.write_image("A/1", i, field(i))
    else:
        for value in range(1, count + 1):
            fields = {name: field(value) for name in range(2)}
            labels = {0: {"nuclei": field(value)}}
            plate.write_well("B/2", fields, labels, overwrite=True)
            sys.stdout.write(f"{value}\n")
            sys.stdout.flush()


def start(
    stack: ExitStack, kind: str, uri: str, count: int, environments: Iterable[Mapping[str, str]]
) -> list[subprocess.Popen[str]]:
    """A process in each of the environments, all at work."""
    processes = []
    for number, environment in enumerate(environments):
        process = subprocess.Popen(
            [sys.executable, __file__, kind, uri, str(number), str(count)],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(stack.enter_context(process))
        stack.callback(process.kill)
    for process in processes:
        if process.stdout.readline() != "ready\n":
            raise AssertionError(process.communicate()[1])
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def run(kind: str, uri: str, count: int, environments: Iterable[Mapping[str, str]]) -> None:
    """Run a process in each of the environments; raises where one failed."""
    with ExitStack() as stack:
        for process in start(stack, kind, uri, count, environments):
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
