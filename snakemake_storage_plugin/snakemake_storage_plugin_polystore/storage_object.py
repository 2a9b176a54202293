"""One query as Snakemake sees it: does it exist, how old is it, fetch it, store it, remove it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_storage_plugins.common import Operation
from snakemake_interface_storage_plugins.exceptions import FileOrDirectoryNotFoundError
from snakemake_interface_storage_plugins.io import IOCacheStorageInterface
from snakemake_interface_storage_plugins.storage_object import (
    StorageObjectGlob,
    StorageObjectRead,
    StorageObjectTouch,
    StorageObjectWrite,
)

import polystore_flows as ps
from polystore_flows.errors import NotFoundError, PolystoreError, UnsupportedError

from . import inventory, local
from .query import Query, parse_query

if TYPE_CHECKING:
    from .provider import StorageProvider

_T = TypeVar("_T")


class NotStoredError(FileOrDirectoryNotFoundError):
    """Nothing is stored under a query; says why instead of where the local copy would be."""

    def __init__(self, local_path: Path, query: str, reason: str) -> None:
        super().__init__(local_path, query)
        self.args = (reason,)


class StorageObject(StorageObjectRead, StorageObjectWrite, StorageObjectGlob, StorageObjectTouch):
    """A plate, well, field, label, table, file or folder.

    Every error is a ``WorkflowError`` of one line that names the query.
    """

    provider: StorageProvider

    def local_suffix(self) -> str:
        """See ``local``; commutes with wildcards and never nests."""
        return local.local_suffix(self.query)

    # Asking

    def exists(self) -> bool:
        """Whether something complete is stored."""
        with self._one_line():
            return ps.exists(self.query)

    def mtime(self) -> float:
        """When it was committed; labels and wells that are added do not change it."""
        with self._one_line():
            return ps.stat(self.query).mtime

    def size(self) -> int:
        """Bytes as stored; 0 for plates and plain folders, which may be huge."""
        with self._one_line():
            query = parse_query(self.query)
            if query.kind == "plate" or (query.on_disk and Path(query.uri.path).is_dir()):
                if not ps.exists(self.query):
                    raise NotFoundError(f"{self.print_query} does not exist")
                return 0
            return ps.stat(self.query).size

    def local_footprint(self) -> int:
        """Bytes that retrieving takes."""
        with self._one_line():
            query = parse_query(self.query)
            if query.on_disk and self.provider.mode == "link":
                return 0
            return ps.stat(self.query).size

    async def inventory(self, cache: IOCacheStorageInterface) -> None:
        """Learn of all wells or fields of the plate, or of the folder, from one listing."""
        with self._one_line():
            inventory.take(self.query, cache, self.cache_key)

    def get_inventory_parent(self) -> str | None:
        """The key of that listing."""
        with self._one_line():
            listing = inventory.listing_of(self.query)
            return None if listing is None else self.cache_key(listing)

    def list_candidate_matches(self) -> list[str]:
        """Queries that ``glob_wildcards`` matches with this one."""
        with self._one_line():
            return inventory.candidates(self.query)

    # Retrieving

    def retrieve_object(self) -> None:
        """Link or copy to the local path.

        A source is never changed or removed by this, nor by removing the local path later.
        """
        with self._one_line():
            query = parse_query(self.query)
            source, target = self._source(query), self.local_path()
            committed = ps.stat(self.query).mtime
            if query.on_disk and self.provider.mode == "link":
                local.link(source, target)
            else:
                local.copy(source, target)
            # Else Snakemake takes a copy for outdated whose commit stamp is not its folder's time.
            os.utime(target, (committed, committed), follow_symlinks=False)

    def cleanup(self) -> None:
        """Nothing is left beside the local path, which Snakemake removes."""

    # Storing

    def store_object(self) -> None:
        """Put what lies at the local path into the store; may be done twice.

        Atomic, except that a plain folder on disk is away for a moment while it is replaced. A
        well or field is listed by its plate once it is complete.
        """
        with self._one_line():
            query, path = parse_query(self.query), self.local_path()
            self._refuse_planes(query)
            if not path.exists():
                raise NotFoundError(f"{self.print_query}: the job made nothing at {path}")
            if query.kind == "path":
                local.copy(path, Path(query.uri.path))
            elif query.uri.scheme != "zarr" or query.kind == "plate":
                raise UnsupportedError(
                    f"{self.print_query} cannot be stored from a local copy; use retrieve=False "
                    "and let the job write it"
                )
            elif query.kind == "file":
                target = self._zarr_path(query)
                ps.get_backend("zarr").ensure_directory(query.uri.at(_parent(query.uri.path)).text)
                local.copy(path, target)
            else:
                ps.get_backend("zarr").adopt(path, query.uri.text, overwrite=True)

    def remove(self) -> None:
        """Remove what is stored, if anything is; a plate stays, because others write its wells."""
        with self._one_line():
            if parse_query(self.query).kind == "plate":
                return
            with suppress(NotFoundError):
                ps.delete(self.query)
            if self.local_path().is_symlink():  # else a job would write through it
                local.clear(self.local_path())

    def touch(self) -> None:
        """Make it look committed now."""
        with self._one_line():
            query = parse_query(self.query)
            if query.on_disk:
                os.utime(self._source(query))
            else:
                ps.get_backend(query.uri.backend).touch(query.uri.text)

    # Snakemake calls these; retrievals run side by side, in threads.

    async def managed_exists(self) -> bool:
        """`exists`."""
        return await self._managed(Operation.EXISTS, self.exists)

    async def managed_mtime(self) -> float:
        """`mtime`."""
        return await self._managed(Operation.MTIME, self.mtime)

    async def managed_size(self) -> int:
        """`size`."""
        return await self._managed(Operation.SIZE, self.size)

    async def managed_local_footprint(self) -> int:
        """`local_footprint`."""
        return await self._managed(Operation.SIZE, self.local_footprint)

    async def managed_store(self) -> None:
        """`store_object`."""
        await self._managed(Operation.STORE, self.store_object)

    async def managed_remove(self) -> None:
        """`remove`."""
        await self._managed(Operation.REMOVE, self.remove)

    async def managed_touch(self) -> None:
        """`touch`."""
        await self._managed(Operation.TOUCH, self.touch)

    async def managed_retrieve(self) -> None:
        """`retrieve_object`, once there is room; a failure leaves no local copy."""
        try:
            await self.wait_for_free_space()
            await self._managed(Operation.RETRIEVE, self.retrieve_object, threaded=True)
        except WorkflowError:
            local.clear(self.local_path())
            raise

    async def _managed(
        self, operation: Operation, verb: Callable[[], _T], *, threaded: bool = False
    ) -> _T:
        async with self._rate_limiter(operation):
            return await asyncio.to_thread(verb) if threaded else verb()

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Errors of stores and of the operating system as one line that names the query."""
        try:
            yield
        except WorkflowError:
            raise
        except (PolystoreError, OSError) as error:
            reason = " ".join(str(error).splitlines())
            if self.print_query not in reason:
                reason = f"{self.print_query}: {reason}"
            if isinstance(error, NotFoundError):
                raise NotStoredError(self.local_path(), self.print_query, reason) from error
            raise WorkflowError(reason) from error

    def _source(self, query: Query) -> Path:
        """Where the store keeps it on this machine."""
        self._refuse_planes(query)
        if not query.on_disk:
            return self._zarr_path(query)
        path = Path(query.uri.path)
        if not path.exists():
            if query.kind == "path":
                raise NotFoundError(f"{self.print_query} does not exist")
            raise UnsupportedError(
                f"{self.print_query} is a {query.kind} in a folder of images and no file of its "
                "own; use retrieve=False and let the job open it"
            )
        return path

    def _zarr_path(self, query: Query) -> Path:
        if query.uri.scheme != "zarr":
            raise UnsupportedError(
                f"{self.print_query} has no local copy; use retrieve=False and let the job open it"
            )
        path: Path = ps.get_backend("zarr").local_path(query.uri.text)
        return path

    def _refuse_planes(self, query: Query) -> None:
        if query.address is not None and not query.address.planes.is_all:
            raise UnsupportedError(
                f"{self.print_query} names planes of an image; use retrieve=False and let the job "
                "open it"
            )


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
