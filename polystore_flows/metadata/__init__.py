"""Shared JSON documents on file systems and object stores, changed safely by many at once."""

from polystore_flows.errors import FileLockError, FileLockTimeoutError, MetadataWriteError
from polystore_flows.metadata.atomic import atomic_write_json
from polystore_flows.metadata.document import atomic_update_json, read_json
from polystore_flows.metadata.lock import DEFAULT_TIMEOUT, file_lock
from polystore_flows.metadata.paths import sidecar
from polystore_flows.metadata.plate_writer import (
    AtomicMetadataWriter,
    MetadataUpdateRequest,
    get_metadata_path,
)

__all__ = [
    "DEFAULT_TIMEOUT",
    "AtomicMetadataWriter",
    "FileLockError",
    "FileLockTimeoutError",
    "MetadataUpdateRequest",
    "MetadataWriteError",
    "atomic_update_json",
    "atomic_write_json",
    "file_lock",
    "get_metadata_path",
    "read_json",
    "sidecar",
]
