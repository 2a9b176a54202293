"""Groups of a zarr hierarchy on a file system: where their attributes lie, reading, making.

Zarr v3 keeps attributes in ``zarr.json``, v2 in ``.zattrs`` beside ``.zgroup``. NGFF 0.5 is
written on v3 and 0.4 on v2.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import (
    AlreadyExistsError,
    CorruptDataError,
    CorruptMetadataError,
    NotFoundError,
    PolystoreError,
    ReadOnlyError,
)
from ...hcs.ngff import Attributes, Version
from ...metadata import read_json

OURS = "polystore"
"""Key of our own attributes at a plate's root: what NGFF has no place for."""


def document_path(group: Path, version: Version) -> Path:
    """The file that holds the attributes of `group`."""
    return group / ("zarr.json" if version == "0.5" else ".zattrs")


def find_document(group: Path) -> Path | None:
    """The attributes file of `group`, of either version; None where `group` is no zarr group."""
    for name in ("zarr.json", ".zattrs"):
        if (group / name).is_file():
            return group / name
    return None


def read_attributes(group: Path, where: str) -> Attributes:
    """The attributes of `group`.

    Raises:
        NotFoundError: it is no zarr group.
        CorruptMetadataError: its JSON does not parse; ``where`` begins the message.
    """
    document = find_document(group)
    if document is None:
        raise NotFoundError(f"{where} is not there; {group} is no zarr group")
    return attributes_in(document, read_content(document, where), where)


def read_content(document: Path, where: str) -> dict[str, Any]:
    """The content of an attributes file."""
    try:
        return read_json(document)
    except CorruptMetadataError as error:
        raise CorruptMetadataError(f"{where}: {error}") from error


def attributes_in(document: Path, content: dict[str, Any], where: str) -> Attributes:
    """The attributes inside the parsed `content` of an attributes file."""
    attributes = content.get("attributes", {}) if document.name == "zarr.json" else content
    if not isinstance(attributes, dict):
        raise CorruptMetadataError(f"{where}: the attributes in {document} are no object")
    return attributes


def group_content(attributes: Attributes, version: Version) -> dict[str, Any]:
    """What the attributes file of a new group holds."""
    if version == "0.5":
        return {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return attributes


def make_group(group: Path, attributes: Attributes, version: Version) -> None:
    """Make a group in a folder that nobody else sees yet; not atomic."""
    group.mkdir(parents=True, exist_ok=True)
    if version == "0.4":
        _write(group / ".zgroup", {"zarr_format": 2})
    _write(document_path(group, version), group_content(attributes, version))


def commit_time(group: Path) -> float:
    """When an image was committed: the time of its attributes file.

    Labels and tables written into an image later do not touch that file, so they do not make
    the image look new to a workflow engine.
    """
    document = find_document(group)
    return document.stat().st_mtime if document else 0.0


def tree_size(path: Path, skip: tuple[str, ...] = ()) -> int:
    """Bytes of all files below `path`, without folders directly in it that `skip` names."""
    total = 0
    for folder, folders, files in os.walk(path):
        if Path(folder) == path:
            folders[:] = [name for name in folders if name not in skip]
        total += sum((Path(folder) / name).lstat().st_size for name in files)
    return total


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Errors of zarr and of the operating system as errors of this package, naming `where`."""
    import zarr.errors

    try:
        yield
    except PolystoreError:
        raise
    except PermissionError as error:
        raise ReadOnlyError(
            f"{where} cannot be written ({error.strerror}: {error.filename}); "
            "choose another target or ask for write permission"
        ) from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        what = f"{error.strerror}: {error.filename2 or error.filename}"
        raise AlreadyExistsError(f"{where}: something is in the way ({what})") from error
    except (FileNotFoundError, zarr.errors.NodeNotFoundError) as error:
        raise NotFoundError(f"{where} is incomplete: {error}") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise ReadOnlyError(
                f"{where} lies on a read-only file system; choose another target"
            ) from error
        raise type(error)(error.errno, f"{where}: {error.strerror}", error.filename) from error
    except (
        ValueError,
        KeyError,
        RuntimeError,
        TypeError,
        zlib.error,
        zarr.errors.BaseZarrError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CorruptDataError(f"{where} cannot be read: {reason}") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
