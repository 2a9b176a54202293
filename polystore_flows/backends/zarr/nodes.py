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
from typing import Any, TypeVar

from ...errors import (
    AlreadyExistsError,
    CorruptDataError,
    CorruptMetadataError,
    NoSpaceError,
    NotFoundError,
    PolystoreError,
    ReadOnlyError,
)
from ...hcs.ngff import Attributes, Version
from .store_path import StorePath

Place = Path | StorePath
P = TypeVar("P", Path, StorePath, Path | StorePath)

DOCUMENTS = ("zarr.json", ".zattrs")
"""Names of attributes files."""
OURS = "polystore"
"""Key of our own attributes at a plate's root: what NGFF has no place for."""


def document_path(group: P, version: Version) -> P:
    """The file that holds the attributes of `group`."""
    return group / ("zarr.json" if version == "0.5" else ".zattrs")


def add_group(group: Path, attributes: Attributes, version: Version) -> None:
    """Make a group of a folder that others may see; needs the plate's lock."""
    from ...metadata import atomic_write_json

    if version == "0.4":
        atomic_write_json(group / ".zgroup", {"zarr_format": 2})
    atomic_write_json(document_path(group, version), group_content(attributes, version))


def version_at(group: Place) -> Version:
    """The version in which `group`, which is there, is written."""
    return "0.5" if (group / "zarr.json").is_file() else "0.4"


def find_document(group: P) -> P | None:
    """The attributes file of `group`, of either version; None where `group` is no zarr group."""
    for name in DOCUMENTS:
        if (group / name).is_file():
            return group / name
    return None


def read_attributes(group: Place, where: str) -> Attributes:
    """The attributes of `group`.

    Raises:
        NotFoundError: it is no zarr group.
        CorruptMetadataError: its JSON does not parse; ``where`` begins the message.
    """
    for name in DOCUMENTS:
        with contextlib.suppress(NotFoundError):
            return attributes_in(group / name, read_content(group / name, where), where)
    raise NotFoundError(f"{where} is not there; {group} is no zarr group")


def read_content(document: Place, where: str) -> dict[str, Any]:
    """The content of an attributes file."""
    from ...metadata import read_json

    try:
        return read_json(document)
    except CorruptMetadataError as error:
        raise CorruptMetadataError(f"{where}: {error}") from error


def attributes_in(document: Place, content: dict[str, Any], where: str) -> Attributes:
    """The attributes inside the parsed `content` of an attributes file."""
    attributes = content.get("attributes", {}) if document.name == "zarr.json" else content
    if not isinstance(attributes, dict):
        raise CorruptMetadataError(f"{where}: the attributes in {document} are no object")
    return attributes


def with_attributes(
    document: Place, content: dict[str, Any], attributes: Attributes
) -> dict[str, Any]:
    """The parsed `content` of an attributes file with these attributes; others in it stay."""
    merged = attributes_in(document, content, str(document)) | attributes
    return content | {"attributes": merged} if document.name == "zarr.json" else merged


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


def plate_name(root: Place) -> str:
    """What to call the plate in the folder `root`; JSON holds text, where a path may not be."""
    name = root.name.removesuffix(".zarr").removesuffix(".ome")
    return os.fsencode(name).decode(errors="replace")


def commit_time(group: P) -> float:
    """When an image was committed: the time of its attributes file.

    Labels and tables written into an image later do not touch that file, so they do not make
    the image look new to a workflow engine.
    """
    document = find_document(group)
    return document.stat().st_mtime if document else 0.0


def revision(group: Place) -> tuple[int | str, int] | None:
    """What tells a group from the one that it replaced; None where it is gone."""
    for name in DOCUMENTS:
        with contextlib.suppress(FileNotFoundError):
            status = (group / name).stat()
            return status.st_ino, status.st_mtime_ns
    return None


def folder_time(path: Place) -> float:
    """When a folder of files was changed; in a store, when the newest of its files was."""
    if isinstance(path, StorePath):
        return max((stat.mtime for stat in path.files().values()), default=0.0)
    return path.stat().st_mtime


def tree_size(path: Place, skip: tuple[str, ...] = ()) -> int:
    """Bytes of all files below `path`, without folders directly in it that `skip` names."""
    if isinstance(path, StorePath):
        found = path.files().items()
        return sum(stat.size for inner, stat in found if inner.split("/")[0] not in skip)
    total = 0
    for folder, folders, files in os.walk(path):
        if Path(folder) == path:
            folders[:] = [name for name in folders if name not in skip]
        total += sum((Path(folder) / name).lstat().st_size for name in files)
    return total


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Errors of zarr and of the operating system as errors of this package, naming `where`.

    Those of zarr are not named, or it would be imported: they are all ``ValueError`` and, where
    something is missing, ``FileNotFoundError`` too.
    """
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
    except FileNotFoundError as error:
        raise NotFoundError(f"{where} is incomplete: {error}") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise ReadOnlyError(
                f"{where} lies on a read-only file system; choose another target"
            ) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"{where}: no space is left; free some and try again, nothing was changed"
            raise NoSpaceError(error.errno, text) from error
        raise type(error)(error.errno, f"{where}: {error.strerror}", error.filename) from error
    except (ValueError, KeyError, RuntimeError, TypeError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CorruptDataError(f"{where} cannot be read: {reason}") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
