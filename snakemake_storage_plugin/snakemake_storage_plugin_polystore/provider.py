"""The storage provider: which queries it takes, and how they are printed."""

from __future__ import annotations

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

from .query import refusal
from .settings import MODES, StorageProviderSettings
from .storage_object import StorageObject  # Snakemake looks for it in this module

__all__ = ["StorageObject", "StorageProvider"]

_EXAMPLES = (
    ("zarr:///data/p.zarr/B/03", "A well of an OME-Zarr plate"),
    ("zarr:///data/{plate}.zarr/{well}/0", "A field of every well, by wildcards"),
    ("zarr:///data/p.zarr/B/03/0/labels/nuclei", "A label image"),
    ("zarr:///data/p.zarr/tables/counts.csv", "A table of a plate"),
    ("disk:///raw/plate1/B/03/0", "A field in a folder of microscope TIFFs (retrieve=False)"),
    ("disk:results/summary.html", "A file or folder, here below the working directory"),
)


class StorageProvider(StorageProviderBase):
    """Plates, wells, fields, labels and tables, and plain files and folders."""

    def __post_init__(self) -> None:
        settings = self.settings or StorageProviderSettings()
        self.mode: str = settings.mode
        if self.mode not in MODES:
            raise WorkflowError(
                f"storage polystore: mode={self.mode!r} is unknown; use {' or '.join(MODES)}"
            )

    def __str__(self) -> str:
        return "polystore"  # Snakemake makes a link of it when it refuses a query

    @classmethod
    def example_queries(cls) -> list[ExampleQuery]:
        """One query of each kind."""
        return [ExampleQuery(query, text, QueryType.ANY) for query, text in _EXAMPLES]

    @classmethod
    def is_valid_query(cls, query: str) -> StorageQueryValidationResult:
        """Whether `query`, which may hold wildcards, is ours and well formed, or why not."""
        reason = refusal(query)
        if reason is None:
            return StorageQueryValidationResult(query=query, valid=True)
        return StorageQueryValidationResult(query=_shown(query), valid=False, reason=reason)

    def safe_print(self, query: str) -> str:
        """`query` with secrets masked."""
        return _shown(query)

    def use_rate_limiter(self) -> bool:
        """Stores of this machine need none."""
        return False

    def default_max_requests_per_second(self) -> float:
        """Not used, see `use_rate_limiter`."""
        return 100.0

    def rate_limiter_key(self, query: str, operation: Operation) -> Any:
        """Not used, see `use_rate_limiter`."""
        return None


def _shown(query: str) -> str:
    return redact(query) if "@" in query or "?" in query else query
