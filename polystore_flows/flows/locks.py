"""The lock manager: Prefect's transactions on the inter-process lock of ``metadata``."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio.to_thread
from prefect.locking.protocol import LockManager
from prefect.settings import get_current_settings

from polystore_flows.errors import FileLockTimeoutError
from polystore_flows.metadata.lock import Hold

_SLICE = 1.0  # seconds after which a coroutine that waits can be cancelled

_holds: dict[Path, tuple[str, Hold]] = {}
"""Lock files that this process holds, with Prefect's names for who holds them."""
_mutex = threading.Lock()


@dataclass(frozen=True)
class FlowLocks(LockManager):
    """Locks of transactions, exclusive between threads, processes and, on NFS, hosts.

    A lock is released by its holder or by the death of its holder's process, and never for its
    age. What file systems promise is said in ``polystore_flows.metadata.lock``. Instances hold
    nothing: they can be compared, copied and pickled.

    Args:
        folder: where the lock files lie, one for each key; ``polystore-locks`` in Prefect's home
            by default. All who are to exclude each other must name the same one. It can be
            removed when nothing runs.
    """

    folder: str | None = None

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the lock of `key`, or have it already; False after `acquire_timeout` seconds.

        Raises:
            FileLockError: the folder offers no locks.
        """
        if self.is_lock_holder(key, holder):
            return True
        path = self._path(key)
        hold = self._take(path, math.inf if acquire_timeout is None else acquire_timeout)
        if hold is None:
            return False
        with _mutex:
            _holds[path] = (holder, hold)
        if hold_timeout is not None:
            timer = threading.Timer(hold_timeout, self._drop, (path, holder))
            timer.daemon = True
            timer.start()
        return True

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """`acquire_lock` without keeping the event loop waiting."""
        deadline = time.monotonic() + (math.inf if acquire_timeout is None else acquire_timeout)
        while True:
            left = max(0.0, deadline - time.monotonic())
            take = partial(self.acquire_lock, key, holder, min(left, _SLICE), hold_timeout)
            if await anyio.to_thread.run_sync(take):
                return True
            if left <= _SLICE:
                return False

    def release_lock(self, key: str, holder: str) -> None:
        """Let go. Raises ``ValueError`` if `holder` does not hold it in this process."""
        if not self._drop(self._path(key), holder):
            raise ValueError(f"{holder} does not hold the lock of {key!r} in this process")

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds it now."""
        path = self._path(key)
        if self._holder(path) is not None:
            return True
        if not path.exists():
            return False
        hold = self._take(path, 0)
        if hold is not None:
            hold.release()
        return hold is None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether `holder` holds it, in this process."""
        return self._holder(self._path(key)) == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds it; False after `timeout` seconds."""
        hold = self._take(self._path(key), math.inf if timeout is None else timeout)
        if hold is not None:
            hold.release()
        return hold is not None

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """`wait_for_lock` without keeping the event loop waiting."""
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        while True:
            left = max(0.0, deadline - time.monotonic())
            if await anyio.to_thread.run_sync(self.wait_for_lock, key, min(left, _SLICE)):
                return True
            if left <= _SLICE:
                return False

    def _path(self, key: str) -> Path:
        # A hash, since keys that differ in their suffix or case must not share a lock.
        folder = self.folder or get_current_settings().home / "polystore-locks"
        return Path(folder).absolute() / f"{hashlib.sha256(key.encode()).hexdigest()}.lock"

    def _take(self, path: Path, timeout: float) -> Hold | None:
        # An owner of its own: transactions move between threads, and two of one thread wait.
        hold = Hold(path, lends=False, owner=object())
        try:
            hold.acquire(timeout, borrow=False)
        except FileLockTimeoutError:
            hold.release()
            return None
        except BaseException:
            hold.release()
            raise
        return hold

    def _holder(self, path: Path) -> str | None:
        with _mutex:
            holder, hold = _holds.get(path, (None, None))
        return holder if hold is not None and hold.held else None  # a forked child holds nothing

    def _drop(self, path: Path, holder: str) -> bool:
        with _mutex:
            name, hold = _holds.get(path, (None, None))
            if name != holder or hold is None or not hold.held:
                return False
            del _holds[path]
        hold.release()
        return True
