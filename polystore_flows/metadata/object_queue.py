"""Where processes of one host meet before they change a document on an object store.

Each document has a private folder on this host: the lock of whose turn it is, and updates that
wait. Whoever has the turn claims what waits, writes it all in one put, and answers::

    turn.lock          whose turn it is (see ``lock``)
    <time>-<id>.update    an update that waits; its process may still withdraw it
    <time>-<id>.claimed   one that the holder of the turn is writing, or was when it died
    <id>.answer           what became of it
    crowd                 how many shared the last put

The folder only saves requests. Without it, or with another one per container, updates are as
exact, by the conditions of the store alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from polystore_flows import errors
from polystore_flows.errors import FileLockError, FileLockTimeoutError, PolystoreError
from polystore_flows.metadata.lock import file_lock

MOST = 64
"""Updates that one put may hold."""

_here = threading.RLock()
"""The turn of all documents that only this process reaches."""
_STALE = 3600.0  # seconds after which the answer to a process that died is removed
_GATHERING, _STEP = 0.06, 0.01  # seconds that a crowd is given to come together, and a look


def new_id() -> str:
    """A fresh id of an update: eight letters of a URL, 48 random bits."""
    return secrets.token_urlsafe(6)


def private_folder() -> Path | None:
    """This user's folder on this host; None where none can be had safely."""
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()):
        if not parent:
            continue
        folder = Path(parent) / f"polystore-flows-objects-{os.getuid()}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            held = folder.lstat()
            if (
                stat.S_ISDIR(held.st_mode)
                and held.st_uid == os.getuid()
                and not held.st_mode & 0o77
            ):
                return folder
    return None


@dataclass(frozen=True, slots=True)
class Waiting:
    """An update that was claimed."""

    id: str
    path: Path
    change: bytes
    """What `Change.encode` gave."""


class Queue:
    """The meeting place for one document.

    Args:
        identity: of the document: equal in processes that mean the same one; None if only this
            process reaches it.
    """

    _turn: threading.RLock | None = None

    def __init__(self, identity: str | None) -> None:
        if identity is None:
            self._turn = _here
        root = private_folder() if identity is not None else None
        name = hashlib.sha256((identity or "").encode()).hexdigest()[:32]
        self._folder = None if root is None else root / name
        if self._folder is not None:
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
            except OSError:
                self._folder = None

    @property
    def is_shared(self) -> bool:
        """Whether there is a folder; without one everybody writes for itself."""
        return self._folder is not None

    @contextlib.contextmanager
    def turn(self, timeout: float) -> Iterator[None]:
        """Have the turn. Raises as `file_lock` does, but for a folder that has no locks."""
        if self._turn is not None:
            if not self._turn.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
                raise FileLockTimeoutError(f"another thread kept its turn for {timeout:g} s")
            try:
                yield
            finally:
                self._turn.release()
        elif self._folder is None:
            yield
        else:
            with file_lock(self._folder / "turn.lock", timeout):
                yield

    def publish(self, identity: str, change: bytes) -> Path:
        """Let others make an encoded change; the file that says so."""
        assert self._folder is not None
        path = self._folder / f"{time.time_ns():020}-{identity}.update"
        beside = path.with_suffix(".tmp")
        beside.write_bytes(change)
        beside.rename(path)
        return path

    def withdraw(self, path: Path) -> bool:
        """Take an update back; False if somebody has claimed it."""
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def gather(self) -> None:
        """Wait a moment for as many as shared the last put, and for more; alone, not at all."""
        assert self._folder is not None
        try:
            crowd = int((self._folder / "crowd").read_text())
        except (FileNotFoundError, ValueError):
            crowd = 1
        end, before, now = time.monotonic() + _GATHERING, 1, len(self._names(".update"))
        while (now > before or now < crowd) and time.monotonic() < end:
            before = now
            time.sleep(_STEP)
            now = len(self._names(".update"))
        if now != crowd:
            (self._folder / "crowd").write_text(str(min(now, MOST)))

    def claim(self) -> list[Waiting]:
        """Claim what waits, the oldest first, with what a holder that died had claimed."""
        found = []
        for name in sorted(self._names(".update", ".claimed"))[:MOST]:
            assert self._folder is not None
            path = self._folder / name
            claimed = path.with_suffix(".claimed")
            with contextlib.suppress(FileNotFoundError):  # withdrawn
                if path != claimed:
                    path.rename(claimed)
                identity = claimed.stem.partition("-")[2]
                found.append(Waiting(identity, claimed, claimed.read_bytes()))
        return found

    def release(self, waiting: list[Waiting]) -> None:
        """Give claims back that nothing was done about."""
        for update in waiting:
            with contextlib.suppress(FileNotFoundError):
                update.path.rename(update.path.with_suffix(".update"))

    def answer(self, update: Waiting, error: PolystoreError | None) -> None:
        """Tell the process that waits for `update` what became of it."""
        assert self._folder is not None
        said = None if error is None else [type(error).__name__, str(error)]
        beside = self._folder / f"{update.id}.tmp"
        beside.write_text(json.dumps(said))
        beside.rename(self._folder / f"{update.id}.answer")
        update.path.unlink(missing_ok=True)

    def answered(self, identity: str) -> bool:
        """Whether an update was made, which is told once.

        Raises:
            PolystoreError: it was refused, and why.
        """
        assert self._folder is not None
        path = self._folder / f"{identity}.answer"
        try:
            said = json.loads(path.read_text())
        except FileNotFoundError:
            return False
        path.unlink()
        if said is not None:
            cls = getattr(errors, said[0], errors.MetadataWriteError)
            raise cls(said[1])
        return True

    def sweep(self) -> None:
        """Remove what processes that died have left; for the holder of the turn."""
        assert self._folder is not None
        now = time.time()
        for name in self._names(".answer", ".tmp"):
            path = self._folder / name
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime > _STALE:
                    path.unlink()

    def _names(self, *suffixes: str) -> list[str]:
        if self._folder is None:
            return []
        return [name for name in os.listdir(self._folder) if name.endswith(suffixes)]  # noqa: PTH208


def try_turn(queue: Queue) -> contextlib.ExitStack | None:
    """The turn, to be closed, if nobody has it.

    Raises:
        FileLockError: it cannot be taken at all.
    """
    stack = contextlib.ExitStack()
    try:
        stack.enter_context(queue.turn(0))
    except FileLockTimeoutError:
        return None
    except FileLockError:
        raise
    return stack
