"""Processes that update one document at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from polystore_flows.metadata import queue

APPEND = """
import os, sys
from polystore_flows.metadata.changes import Change
from polystore_flows.metadata.document import apply_change
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
commits, replace = [], os.replace
def counted(*args):
    commits.append(1)
    replace(*args)
os.replace = counted
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    apply_change(path, Change().append("log", value=f"{name}-{number}"), timeout=60)
print(len(commits))
"""


def start(script: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def crowd(document: Path, size: int, updates: int) -> list[subprocess.Popen[str]]:
    """Start processes that append at the same moment."""
    processes = [start(APPEND, document, f"p{index}", updates) for index in range(size)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return processes


def outputs(processes: list[subprocess.Popen[str]]) -> list[str]:
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), results
    return [out.strip() for out, _ in results]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def waiters(document: Path) -> list[str]:
    status = Path(f"{document}.lock").stat()
    return queue.Queue.of((status.st_dev, status.st_ino)).names()
