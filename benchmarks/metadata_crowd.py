"""One run of the metadata benchmark: processes that update one document as fast as they can.

Started by ``metadata.py`` with the interpreter that has the package that is measured. Every
update says that an image folder of the plate was written, and is durable when it returns.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Update = Callable[[str, dict[str, Any]], None]


def ours(path: Path) -> Update:
    from polystore_flows.metadata import AtomicMetadataWriter

    writer = AtomicMetadataWriter(timeout=120)
    return lambda name, entry: writer.merge_subdirectory_metadata(path, {name: entry})


def polystore(path: Path) -> Update:
    from polystore.metadata_writer import AtomicMetadataWriter

    writer = AtomicMetadataWriter(timeout=120)
    return lambda name, entry: writer.merge_subdirectory_metadata(path, {name: entry})


def flock(path: Path) -> Update:
    """What one writes in ten lines: lock, read, change, write, sync, replace, sync."""
    temporary = path.with_suffix(".new")

    def update(name: str, entry: dict[str, Any]) -> None:
        with Path(f"{path}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            data = json.loads(path.read_text())
            data["subdirectories"].setdefault(name, {}).update(entry)
            with temporary.open("w") as file:
                file.write(json.dumps(data))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    return update


def sqlite(path: Path) -> Update:
    database = sqlite3.connect(path.with_suffix(".db"), timeout=120, isolation_level=None)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=full")

    def update(name: str, entry: dict[str, Any]) -> None:
        database.execute("insert or replace into wells values (?, ?)", (name, json.dumps(entry)))

    return update


KINDS = {"polystore": polystore, "flock": flock, "sqlite": sqlite, "ours": ours}


def prepare(kind: str, path: Path, entries: int) -> None:
    """Make a document of `entries` entries."""
    wells = {f"well{number}": _entry(number) for number in range(entries)}
    if kind == "sqlite":
        database = sqlite3.connect(path.with_suffix(".db"), isolation_level=None)
        database.execute("pragma journal_mode=wal")
        database.execute("create table wells (name text primary key, entry text)")
        rows = [(name, json.dumps(entry)) for name, entry in wells.items()]
        database.executemany("insert into wells values (?, ?)", rows)
        database.close()
    else:
        path.write_text(json.dumps({"subdirectories": wells}))


def _entry(number: int) -> dict[str, Any]:
    return {"main": True, "path": f"images/well{number}", "fields": 4, "mean": number * 1.25}


def worker(update: Update, number: int, entries: int, updates: int) -> dict[str, Any]:
    """Make a number of updates, one after the other; returns what was measured."""
    commits = 0
    replace = os.replace

    def counted(*args: Any) -> None:
        nonlocal commits
        commits += 1
        replace(*args)

    os.replace = counted  # type: ignore[assignment]
    waits: list[float] = []
    while len(waits) < updates:
        name = f"well{(number * 97 + len(waits)) % entries}"
        began = time.perf_counter()
        update(name, _entry(len(waits)))
        waits.append(time.perf_counter() - began)
    return {"waits": waits, "commits": commits, "end": time.monotonic()}


def main() -> None:
    kind, where, processes, entries, updates = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir=where) as folder:
        path = Path(folder) / "metadata.json"
        prepare(kind, path, int(entries))
        KINDS[kind](path)  # what it imports, all children then have
        go_read, go_write = os.pipe()
        children = []
        for number in range(int(processes)):
            child = os.fork()
            if child == 0:
                update = KINDS[kind](path)
                os.read(go_read, 1)
                result = worker(update, number, int(entries), int(updates))
                Path(folder, f"result{number}").write_text(json.dumps(result))
                os._exit(0)
            children.append(child)
        time.sleep(0.2)
        began = time.monotonic()
        os.write(go_write, b"g" * len(children))
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
        results = [
            json.loads(Path(folder, f"result{number}").read_text())
            for number in range(len(children))
        ]
        waits = sorted(wait for result in results for wait in result["waits"])
        took = max(result["end"] for result in results) - began
        print(
            json.dumps(
                {
                    "rate": len(waits) / took,
                    "p50": 1000 * waits[len(waits) // 2],
                    "p99": 1000 * waits[len(waits) * 99 // 100],
                    "updates": len(waits),
                    "commits": sum(result["commits"] for result in results),
                }
            )
        )


if __name__ == "__main__":
    main()
