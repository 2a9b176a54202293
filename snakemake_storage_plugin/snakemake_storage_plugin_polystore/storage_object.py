"""One query as Snakemake sees it: does it exist, how old is it, fetch it, store it, remove it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
from polystore_flows.registry import backend_for
from polystore_flows.uri import BackendURI, parse_uri

from . import globbing, inventory, local, stores
from .query import Query, parse_query, place_of

if TYPE_CHECKING:
    from .provider import StorageProvider

_T = TypeVar("_T")
_QUICK = (Operation.EXISTS, Operation.MTIME)
"""What is asked of the file system of this machine is not worth another thread."""


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

    def cache_key(self, local_suffix: str | None = None) -> str:
        """As it is inherited, without a ``Path`` for each of many thousand calls."""
        return f"{self.provider.local_start}{local_suffix or self.local_suffix()}"

    # Asking

    def exists(self) -> bool:
        """Whether something complete is stored."""
        with self._one_line():
            answers, place = self.provider.answers, place_of(self.query)
            if answers.outdated(place):
                with self.provider.refreshing:  # the first of many that ask at once is enough
                    if answers.outdated(place):
                        inventory.refresh(self.query, answers)
            if answers.exists(place):
                return True
            there = stores.is_complete(self.query)
            (answers.found if there else answers.missed)(place)
            return there

    def mtime(self) -> float:
        """When it was committed; labels and wells that are added do not change it."""
        with self._one_line():
            committed = ps.stat(self.query).mtime
            self._check_clocks(committed)
            return committed

    def size(self) -> int:
        """Bytes as stored, of a folder and a plate with all below."""
        with self._one_line():
            answers, place = self.provider.answers, place_of(self.query)
            known = answers.size(place)
            if known is None:
                known = ps.stat(self.query).size
                answers.sized(place, known)
            return known

    def checksum(self) -> str | None:
        """Of a file on this machine; None for what would have to be fetched or is an array."""
        with self._one_line():
            query = parse_query(self.query)
            if query.uri.is_local and not query.is_array:
                return local.checksum(Path(self._source(query).path))
            return None

    def local_footprint(self) -> int:
        """Bytes that retrieving takes."""
        with self._one_line():
            query = parse_query(self.query)
            if not query.uri.is_local:
                return self.size()
            return 0 if self._is_linked else local.size(Path(self._source(query).path))

    @property
    def _is_linked(self) -> bool:
        return parse_query(self.query).uri.is_local and self.provider.mode != "copy"

    async def inventory(self, cache: IOCacheStorageInterface) -> None:
        """Learn of all parts of the plate, or of the folder, from one listing."""
        with self._one_line():
            latest = time.time() + self.provider.settings.max_clock_skew
            inventory.take(self.query, cache, self._key, self.provider.answers, latest)

    def get_inventory_parent(self) -> str | None:
        """The name of that listing."""
        return inventory.listing_of(self.query)

    def _key(self, query: str) -> str:
        return self.cache_key(local.local_suffix(query))

    def list_candidate_matches(self) -> list[str]:
        """Queries that ``glob_wildcards`` matches with this one."""
        with self._one_line():
            return globbing.candidates(self.query)

    # Retrieving

    def retrieve_object(self) -> None:
        """Link, copy or download to the local path; atomic.

        A source is never changed or removed by this, nor by removing the local path later.
        """
        with self._one_line():
            query = parse_query(self.query)
            target, committed = self.local_path(), ps.stat(self.query).mtime
            source = self._source(query)
            if not source.is_local:
                stores.download(source.text, target)
            elif self._is_linked:
                local.link(Path(source.path), target)
            else:
                local.copy(Path(source.path), target)
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
            if not path.exists():
                raise NotFoundError(f"{self.print_query}: the job made nothing at {path}")
            if query.kind == "path":
                if query.uri.is_local:
                    local.copy(path, Path(query.uri.path))
                else:
                    stores.upload(path, self.query)
            else:
                stored = query.kind in ("well", "field", "file") and query.address.planes.is_all
                if query.uri.backend != "zarr" or not stored:
                    raise self._by_reference_only()
                backend_for(query.uri).adopt(path, query.uri.text, overwrite=True)
            self.provider.answers.forget(place_of(self.query))

    def remove(self) -> None:
        """Remove what is stored, if anything is.

        A plate stays, because others write its wells. What is removed is gone at once.
        """
        with self._one_line():
            query = parse_query(self.query)
            if query.kind == "plate" or stores.is_plate(query):
                return
            with suppress(NotFoundError):
                if query.kind != "path":
                    ps.delete(self.query)
                elif query.uri.is_local:
                    local.clear(Path(query.uri.path))
                else:
                    stores.remove(self.query)
            self.provider.answers.forget(place_of(self.query))
            self.provider.answers.missed(place_of(self.query))
            if self.local_path().is_symlink():  # else a job would write through it
                local.clear(self.local_path())

    def touch(self) -> None:
        """Make it look committed now."""
        with self._one_line():
            backend_for(self.query).touch(parse_query(self.query).uri.text)

    # Snakemake calls these. What a store is asked for or does runs in threads, side by side.

    async def managed_exists(self) -> bool:
        """`exists`; while Snakemake plans, the answer of a listing is enough."""
        with self._one_line():
            if self.provider.answers.exists(place_of(self.query)):
                return True
        cache = self._planning()
        if cache is not None:
            await self.inventory(cache)
            if self.get_inventory_parent() in cache.exists_in_storage.has_inventory:
                return cache.exists_in_storage.get(self.cache_key(), False)
        return await self._managed(Operation.EXISTS, self.exists)

    def _planning(self) -> Any:
        """Snakemake's cache while it plans, None while jobs run.

        Snakemake asks for an inventory of the inputs of its targets only.
        """
        cache = getattr(self.provider.workflow, "iocache", None)
        return cache if getattr(cache, "active", False) else None

    @property
    def _iofile(self) -> Any:
        """Snakemake's file of a pattern, which Snakemake sets: the way to its workflow."""
        return None

    @_iofile.setter
    def _iofile(self, file: Any) -> None:
        self.provider.workflow = getattr(file.rule, "workflow", None) or self.provider.workflow

    async def managed_mtime(self) -> float:
        """`mtime`."""
        return await self._managed(Operation.MTIME, self.mtime)

    async def managed_size(self) -> int:
        """`size`."""
        with self._one_line():
            known = self.provider.answers.size(place_of(self.query))
        return known if known is not None else await self._managed(Operation.SIZE, self.size)

    async def managed_checksum(self) -> str | None:
        """`checksum`."""
        return await self._managed(Operation.SIZE, self.checksum)

    async def managed_local_footprint(self) -> int:
        """`local_footprint`."""
        with self._one_line():
            if self._is_linked:
                return 0
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
            await self._managed(Operation.RETRIEVE, self.retrieve_object)
        except WorkflowError:
            local.clear(self.local_path())
            raise

    async def _managed(self, operation: Operation, verb: Callable[[], _T]) -> _T:
        async with self._rate_limiter(operation):
            if operation in _QUICK and parse_query(self.query).uri.is_local:
                return verb()
            return await asyncio.get_running_loop().run_in_executor(self.provider.threads, verb)

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

    def _check_clocks(self, committed: float) -> None:
        """Refuse a time that would have Snakemake make things again on every run."""
        most, query = self.provider.settings.max_clock_skew, parse_query(self.query)
        absent = self.provider.answers.absent_since(place_of(self.query))
        if committed > time.time() + most:
            what = "is in the future of this machine's clock"
        elif query.kind != "path" and absent is not None and committed < absent - most:
            what = "is before this machine's clock says that it was written"
        else:
            return
        raise WorkflowError(
            f"{self.print_query}: its time, {datetime.fromtimestamp(committed):%Y-%m-%d %H:%M:%S}, "
            f"{what}; set the clocks right, then give it the time of now with snakemake --touch"
        )

    def _source(self, query: Query) -> BackendURI:
        """The file or folder that holds what `query` names, as it is stored."""
        if query.address is not None and not query.address.planes.is_all:
            raise UnsupportedError(
                f"{self.print_query} names planes of an image; use it by reference "
                "(retrieve=False) and let the job open it"
            )
        if query.uri.backend == "zarr":
            return parse_uri(backend_for(query.uri).raw_uri(query.uri.text))
        real = query.uri.is_local and Path(query.uri.path).exists()
        if query.kind != "path" and not real:
            raise self._by_reference_only()
        if query.uri.is_local and not real:
            raise NotFoundError(f"{self.print_query} does not exist")
        return query.uri

    def _by_reference_only(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self.print_query} has no local copy; use it by reference (retrieve=False) and let "
            "the job open or write it"
        )
