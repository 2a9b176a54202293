"""The storage provider: which queries it takes, how they are printed, what its objects share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Lock
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_storage_plugins.common import Operation
from snakemake_interface_storage_plugins.storage_provider import (
    ExampleQuery,
    QueryType,
    StorageProviderBase,
    StorageQueryValidationResult,
)

from polystore_flows.uri import redact

from .answers import Answers
from .query import by_reference, refusal
from .settings import MODES, StorageProviderSettings
from .storage_object import StorageObject  # Snakemake looks for it in this module

__all__ = ["StorageObject", "StorageProvider"]

_AT_ONCE = 16
"""Calls of stores at a time; they wait for disks and servers more than they compute."""

_EXAMPLES = (
    ("zarr:///data/p.zarr/B/03", "A well of an OME-Zarr plate"),
    ("zarr:///data/{plate}.zarr/{well}/0", "A field of every well, by wildcards"),
    ("zarr:///data/p.zarr/B/03/0?c=DAPI&z=3", "A plane of a field, which a job opens by itself"),
    ("zarr:///data/p.zarr/B/03/0/labels/nuclei", "A label image"),
    ("zarr:///data/p.zarr/tables/counts.csv", "A table of a plate"),
    ("zarr+s3://bucket/p.zarr/B/03", "A well of an OME-Zarr plate on an object store"),
    ("disk:///raw/plate1/B/03/0", "A field in a folder of microscope TIFFs"),
    ("disk:results/summary.html", "A file or folder, here below the working directory"),
    ("omero://omero.example.org/plate/12/B/03/0", "A field of a plate on an OMERO server"),
)


class StorageProvider(StorageProviderBase):
    """Plates, wells, fields, labels and tables, and plain files and folders."""

    settings: StorageProviderSettings

    def __post_init__(self) -> None:
        self.settings = self.settings or StorageProviderSettings()
        self.mode = self.settings.mode
        if self.mode not in MODES:
            raise WorkflowError(
                f"storage polystore: mode={self.mode!r} is unknown; use {', '.join(MODES)}"
            )
        self.answers = Answers(self.settings.cache_seconds)
        self.refreshing = Lock()
        self.workflow: Any = None
        # Objects are ours where the user named this provider, but not where Snakemake infers one.
        self.is_valid_query = self._is_valid_here  # type: ignore[method-assign]

    @cached_property
    def threads(self) -> ThreadPoolExecutor:
        """Where stores are called; Snakemake's own pool counts cores."""
        return ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="polystore")

    @cached_property
    def local_start(self) -> str:
        """What all local paths begin with, as text."""
        return f"{self.local_prefix}/"

    def __str__(self) -> str:
        return "polystore"  # Snakemake makes a link of it when it refuses a query

    @classmethod
    def example_queries(cls) -> list[ExampleQuery]:
        """One query of each kind."""
        return [ExampleQuery(query, text, QueryType.ANY) for query, text in _EXAMPLES]

    @classmethod
    def is_valid_query(cls, query: str) -> StorageQueryValidationResult:
        """Whether `query`, which may hold wildcards, is ours and well formed, or why not."""
        return _result(query, refusal(query))

    def _is_valid_here(self, query: str) -> StorageQueryValidationResult:
        return _result(query, refusal(query, named=True))

    def object(
        self,
        query: str,
        keep_local: bool | None = None,
        retrieve: bool | None = None,
        static: bool = False,
    ) -> StorageObject:
        """The object of `query`; an array is by reference unless mode or `retrieve` says no."""
        if retrieve is None and self.mode == "ref" and by_reference(query):
            retrieve = False
        made: StorageObject = super().object(query, keep_local, retrieve, static)
        return made

    def safe_print(self, query: str) -> str:
        """`query` with secrets masked."""
        return _shown(query)

    def use_rate_limiter(self) -> bool:
        """Only where ``max_requests_per_second`` is set: most stores need none."""
        return self.settings.max_requests_per_second is not None

    def default_max_requests_per_second(self) -> float:
        """Not used, see `use_rate_limiter`."""
        return 100.0

    def rate_limiter_key(self, query: str, operation: Operation) -> Any:
        """The host or bucket that is asked."""
        return query.partition("//")[2].partition("/")[0]


def _result(query: str, reason: str | None) -> StorageQueryValidationResult:
    if reason is None:
        return StorageQueryValidationResult(query=query, valid=True)
    return StorageQueryValidationResult(query=_shown(query), valid=False, reason=reason)


def _shown(query: str) -> str:
    return redact(query) if "@" in query or "?" in query else query
