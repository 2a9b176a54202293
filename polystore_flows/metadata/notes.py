"""What a lock file says: who holds it, and what its last committer wrote.

The first line names the holder, and is blank where the lock was released in good order. The
second is JSON: size, CRC and time of the documents that were committed last, by which the next
holder notices that it reads an old state (NFS shows one for a while); and which updates the last
commit was made for, by which an update whose leader died is neither lost nor applied twice.
Nothing of this is synced: a loss of power ends everybody who would ask.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polystore_flows.metadata.paths import HOST

Identity = tuple[int, int, int]
"""Size, CRC and time (ns) of a document."""

SIZE = 64
"""Bytes of the first line; fixed, so that one write replaces an older name whole."""

_HOLDER = re.compile(rb"(\d+) (\S+) *\n")
_BLANK = b" " * (SIZE - 1) + b"\n"
_DOCUMENTS = 8  # how many documents under one lock are remembered
_CRASHES, _KEPT_FOR = 8, 4096  # how many crashed commits, and for how many commits after


@dataclass(slots=True)
class Notes:
    """The second line of a lock file.

    Attributes:
        seen: Document name to the size, CRC and time (ns) that it was last committed with.
        batch: Document name, identity and update ids of a commit that was not yet acknowledged.
        settled: Ids that are in their document although their leader died before it could say
            so, with the number of commits for which they are kept.
    """

    seen: dict[str, Identity] = field(default_factory=dict)
    batch: tuple[str, Identity, list[str]] | None = None
    settled: list[tuple[int, list[str]]] = field(default_factory=list)

    def announce(self, name: str, identity: Identity, ids: list[str]) -> None:
        """Say what is about to be committed."""
        self.batch = (name, identity, ids)
        self.settled = [(left - 1, done) for left, done in self.settled if left > 1]

    def acknowledge(self, unaware: Sequence[str] = ()) -> None:
        """Say that it was, and that whoever it was made for knows, but for the `unaware`."""
        if self.batch is not None:
            (name, identity, _), self.batch = self.batch, None
            self.seen.pop(name, None)
            self.seen[name] = identity
            while len(self.seen) > _DOCUMENTS:
                del self.seen[next(iter(self.seen))]
        if unaware:
            self.settled = [*self.settled, (_KEPT_FOR, list(unaware))][-_CRASHES:]

    def settle(self, folder: Path) -> Path | None:
        """Find out whether the commit that a crash interrupted is in its document.

        Returns:
            That document, if it is.
        """
        if self.batch is None:
            return None
        name, identity, ids = self.batch
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            content = b""
        if identity[:2] != checksum(content):
            self.batch = None
            return None
        self.acknowledge(ids)
        return folder / name

    def is_settled(self, update: str) -> bool:
        """Whether `update` is in its document although nobody has said so."""
        return any(update in ids for _, ids in self.settled)


def checksum(content: bytes) -> tuple[int, int]:
    """Size and CRC of a document."""
    return len(content), zlib.crc32(content)


def parse(record: bytes) -> tuple[tuple[int, str] | None, Notes] | None:
    """Read a lock file: its holder (pid, host), if any, and its notes.

    Returns:
        None where it holds what is not ours.
    """
    first, rest = record[:SIZE], record[SIZE:]
    holder = holder_in(first)
    if holder is None and not is_blank(first):
        return None
    notes = Notes()
    try:
        said = json.loads(rest.split(b"\n", 1)[0])  # what an earlier one left may follow
        notes.seen = {name: (size, crc, at) for name, (size, crc, at) in said["seen"].items()}
        if said["batch"]:
            name, (size, crc, at), ids = said["batch"]
            notes.batch = (name, (size, crc, at), ids)
        notes.settled = [(left, ids) for left, ids in said["settled"]]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        notes = Notes()  # cut short by a power cut or a full disk: nobody is left who would ask
    return holder, notes


def is_blank(text: bytes) -> bool:
    """Whether nothing is said; after a power cut, zeros stand where our text was."""
    return not text.strip(b" \n\0")


def holder_in(first: bytes) -> tuple[int, str] | None:
    """The process and the host that the first line of a lock file names."""
    match = _HOLDER.fullmatch(first) if len(first) == SIZE else None
    return (int(match[1]), match[2].decode(errors="replace")) if match else None


def signature() -> bytes:
    """The first line while this process holds the lock."""
    return f"{os.getpid()} {HOST}".ljust(SIZE - 1).encode() + b"\n"


def render(notes: Notes, first: bytes = _BLANK) -> bytes:
    """The whole lock file; empty where there is nothing to say."""
    if not (notes.seen or notes.batch or notes.settled):
        return b"" if first is _BLANK else first
    said = {"seen": notes.seen, "batch": notes.batch, "settled": notes.settled}
    return first + json.dumps(said).encode() + b"\n"


def is_alive(pid: int) -> bool:
    """Whether a process of this host has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def boot_time() -> float:
    """When this host was started."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.time() - time.clock_gettime(clock)
