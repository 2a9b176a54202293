"""Processes that update one document; run by path, they start together when told to."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from polystore_flows.metadata import atomic_update_json
from polystore_flows.metadata.changes import Change
from polystore_flows.metadata.document import apply_change
from polystore_flows.registry import backend_for


def increment(document: dict) -> dict:
    document["count"] = document.get("count", 0) + 1
    return document


def main(kind: str, uri: str, name: str, updates: int) -> None:
    backend_for(uri).identity(uri)  # imports, and opens the store without a request
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for number in range(updates):
        if kind == "closures":

            def change(document: dict, key: str = f"{name}-{number}") -> dict:
                document.setdefault("keys", []).append(key)
                return increment(document)

            atomic_update_json(uri, change, timeout=60)
        else:
            apply_change(uri, Change().append("keys", value=f"{name}-{number}"), 60)


def run(
    kind: str,
    uri: str,
    updates: int,
    environments: Iterable[Mapping[str, str]],
    *,
    kill: int = 0,
) -> None:
    """Run a process in each of the environments; raises where one failed.

    The first `kill` of them are killed after a moment, one after the other.
    """
    with ExitStack() as stack:
        processes = []
        for number, environment in enumerate(environments):
            process = subprocess.Popen(
                [sys.executable, __file__, kind, uri, str(number), str(updates)],
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
        for process in processes[:kill]:
            time.sleep(random.uniform(0.05, 0.25))
            process.kill()
        for process in processes[kill:]:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors


def expected(processes: int, updates: int) -> list[str]:
    """The keys that all updates together leave, sorted."""
    return sorted(f"{p}-{u}" for p in range(processes) for u in range(updates))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
