"""The metadata document of a plate folder, and the updates that are made to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polystore_flows.metadata.changes import Change
from polystore_flows.metadata.document import apply_change
from polystore_flows.metadata.lock import DEFAULT_TIMEOUT
from polystore_flows.metadata.paths import is_object_uri, local_path

METADATA_FILENAME = "openhcs_metadata.json"
SUBDIRECTORIES = "subdirectories"
AVAILABLE_BACKENDS = "available_backends"


def get_metadata_path(plate_root: str | os.PathLike[str]) -> Path | str:
    """Return the metadata document of the plate in the folder or below the URI `plate_root`."""
    if is_object_uri(plate_root):
        return f"{os.fspath(plate_root).rstrip('/')}/{METADATA_FILENAME}"
    return local_path(plate_root) / METADATA_FILENAME


@dataclass(frozen=True, slots=True)
class MetadataUpdateRequest:
    """One update of a plate's metadata document.

    Attributes:
        metadata_path: The document.
        sub_dir: The subdirectory of the plate that `metadata` is about; ``.`` is the plate.
        metadata: What the document shall say about it.
        available_backends: Which backends hold the plate (name to yes or no); None leaves that.
    """

    metadata_path: str | os.PathLike[str]
    sub_dir: str
    metadata: Mapping[str, Any]
    available_backends: Mapping[str, bool] | None = None


class AtomicMetadataWriter:
    """Writes a plate's metadata document while others write it too.

    Every method is atomic, durable, and loses no other update. It overwrites what its own text
    names and nothing else, and a failure leaves the document as it was. Updates of one document
    that wait at the same time are committed together (`apply_change`). Instances hold no lock
    and no open file, and can be pickled and shared by threads.

    Args:
        timeout: Seconds that each update waits for the document's lock; 0 tries once.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.timeout = timeout

    def update_subdirectory_metadata(
        self, metadata_path: str | os.PathLike[str], sub_dir: str, metadata: Mapping[str, Any]
    ) -> None:
        """Set the entry of one subdirectory, overwriting that entry; makes the document."""
        self.apply(MetadataUpdateRequest(metadata_path, sub_dir, metadata))

    def create_or_update_metadata(
        self,
        metadata_path: str | os.PathLike[str],
        sub_dir: str,
        metadata: Mapping[str, Any],
        available_backends: Mapping[str, bool] | None = None,
    ) -> None:
        """Set one subdirectory's entry and, if given, the plate's backends; makes the document.

        Both are overwritten together: a reader never sees one without the other.
        """
        self.apply(MetadataUpdateRequest(metadata_path, sub_dir, metadata, available_backends))

    def apply(self, request: MetadataUpdateRequest) -> None:
        """Do what `request` says; the same as `create_or_update_metadata`."""
        _check(request.sub_dir, request.metadata)
        change = Change().set(SUBDIRECTORIES, request.sub_dir, value=dict(request.metadata))
        if request.available_backends is not None:
            change.set(AVAILABLE_BACKENDS, value=dict(request.available_backends))
        apply_change(request.metadata_path, change, self.timeout)

    def update_available_backends(
        self, metadata_path: str | os.PathLike[str], available_backends: Mapping[str, bool]
    ) -> None:
        """Set which backends hold the plate, overwriting that list.

        Raises:
            NotFoundError: There is no document; nothing is made.
        """
        change = Change(create=False).set(AVAILABLE_BACKENDS, value=dict(available_backends))
        apply_change(metadata_path, change, self.timeout)

    def merge_subdirectory_metadata(
        self,
        metadata_path: str | os.PathLike[str],
        subdirectory_updates: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Merge keys into the entries of several subdirectories; makes document and entries.

        Keys that are named are overwritten and others stay, except that ``available_backends``
        of an entry is itself merged: a backend that it does not name stays.
        """
        change = Change()
        if not subdirectory_updates:
            change.merge(SUBDIRECTORIES, value={})
        for sub_dir, metadata in subdirectory_updates.items():
            _check(sub_dir, metadata)
            entry = (SUBDIRECTORIES, sub_dir)
            if not isinstance(metadata.get(AVAILABLE_BACKENDS), Mapping):
                change.merge(*entry, value=metadata)
                continue
            for key, value in metadata.items():  # one by one, which keeps their order
                if key == AVAILABLE_BACKENDS:
                    change.merge(*entry, key, value=value)
                else:
                    change.set(*entry, key, value=value)
        apply_change(metadata_path, change, self.timeout)


def _check(sub_dir: str, metadata: Mapping[str, Any]) -> None:
    if not isinstance(sub_dir, str):
        raise TypeError(f"a subdirectory is named by a str, not {type(sub_dir).__name__}")
    if not isinstance(metadata, Mapping):
        raise TypeError(
            f"the metadata of {sub_dir!r} must be a mapping, not {type(metadata).__name__}"
        )
