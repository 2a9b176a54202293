"""Counts what backends are asked; as a program, it is Snakemake with that count at its end."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter
from typing import Any

from polystore_flows.registry import get_backend

LISTINGS = ("survey", "scan", "list_files", "list_dir", "open_plate")
SINGLE = ("exists", "is_file", "is_dir", "stat", "touch", "delete_all", "delete", "adopt")


class Counting:
    """Counts the calls of a backend from outside, not those it makes of itself."""

    def __init__(self, *names: str) -> None:
        self.calls: list[tuple[str, str]] = []
        self._inside = threading.local()
        self._wrapped: list[tuple[Any, str]] = []
        for backend in map(get_backend, names):
            for verb in (*LISTINGS, *SINGLE):
                if hasattr(backend, verb):
                    setattr(backend, verb, self._counted(getattr(backend, verb), verb))
                    self._wrapped.append((backend, verb))

    def _counted(self, method: Any, verb: str) -> Any:
        def counted(identifier: Any, *args: Any, **options: Any) -> Any:
            if getattr(self._inside, "depth", 0) == 0:
                self.calls.append((verb, os.fspath(identifier)))
            self._inside.depth = getattr(self._inside, "depth", 0) + 1
            try:
                return method(identifier, *args, **options)
            finally:
                self._inside.depth -= 1

        return counted

    def of(self, *verbs: str) -> list[str]:
        """What the `verbs` were asked for, in order."""
        return [uri for verb, uri in self.calls if verb in verbs]

    @property
    def listings(self) -> list[str]:
        """What was listed."""
        return self.of(*LISTINGS)

    @property
    def single(self) -> list[str]:
        """What was asked for by itself."""
        return self.of(*SINGLE)

    def stop(self) -> None:
        """Let the backends be."""
        for backend, verb in self._wrapped:
            delattr(backend, verb)


if __name__ == "__main__":
    from snakemake.cli import main

    counting = Counting("zarr", "disk")
    try:
        main(sys.argv[1:])
    finally:
        asked = Counter(f"{verb} {uri}" for verb, uri in counting.calls)
        print("COUNTED", json.dumps(asked), flush=True)
