"""The zarr v3 store through which zarr-python writes an array into a staging folder."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore


class StagedStore(LocalStore):
    """A folder that nobody else sees yet; `close` waits for what is being written.

    Where a chunk cannot be written, zarr-python raises at once and writes the others all the
    same: into a folder that its caller is removing, or has removed and which is made anew.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._writers = ThreadPoolExecutor(thread_name_prefix="zarr-write")

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file; not atomic."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writers, _write, self.root / key, value)

    def close(self) -> None:
        """Refuse further writes, and wait for those that have begun."""
        self._writers.shutdown(cancel_futures=True)
        super().close()


def _write(path: Path, value: Buffer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value.as_buffer_like())
