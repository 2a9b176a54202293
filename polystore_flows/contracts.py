"""What a backend promises: contracts and mix-ins, and how a class registers itself.

A class with a ``_backend_type`` registers when it is defined::

    class MyBackend(StorageBackend):
        _backend_type = "mine"

An *identifier* is a URI of the backend's scheme or the path in it, as text or path-like.
Every error is one of ``polystore_flows.errors``.
"""

from __future__ import annotations

import fnmatch
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import UnsupportedError

if TYPE_CHECKING:
    from .hcs.plate import Mode, Plate
    from .hcs.spec import PlateSpec

Identifier = str | os.PathLike[str]

registered_classes: dict[str, type[BackendBase]] = {}
"""Backend name -> class, filled as classes are defined; ``registry`` reads it."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of a stored thing without reading it."""

    kind: str
    """``file``, ``directory``, or for a plate's parts ``plate``, ``well``, ``field``, ``label``."""
    size: int
    """Bytes as stored; for a directory of all files below it."""
    mtime: float
    """Seconds since 1970 when it was last written whole; parts written into it later (labels of
    an image, wells of a plate) do not change it."""
    etag: str | None = None
    """Differs from write to write; None where the backend cannot tell."""


class DataSink(ABC):
    """Somewhere to save to."""

    @abstractmethod
    def save(self, data: Any, identifier: Identifier, *, overwrite: bool = False) -> None:
        """Store `data`, whole or not at all.

        Raises:
            AlreadyExistsError: something is there and `overwrite` is false.
            MismatchError: the data cannot be stored under this identifier.
        """

    def save_batch(
        self,
        data_list: Sequence[Any],
        identifiers: Sequence[Identifier],
        *,
        overwrite: bool = False,
    ) -> None:
        """Store each of `data_list` under its identifier, in order.

        Raises:
            ValueError: the lengths differ; nothing was written.
            TypeError: an identifier is not path-like; nothing was written.
        """
        check_batch(data_list, identifiers)
        for data, identifier in zip(data_list, identifiers, strict=True):
            self.save(data, identifier, overwrite=overwrite)


class DataSource(ABC):
    """Somewhere to load from."""

    @abstractmethod
    def load(self, identifier: Identifier) -> Any:
        """What is stored under `identifier`, decoded.

        Raises:
            NotFoundError: nothing is.
            CorruptDataError: it cannot be decoded.
        """

    def load_batch(self, identifiers: Sequence[Identifier]) -> list[Any]:
        """`load` for each, in the order of `identifiers`."""
        check_identifiers(identifiers)
        return [self.load(identifier) for identifier in identifiers]

    @abstractmethod
    def list_files(
        self,
        directory: Identifier,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[str]:
        """Identifiers of the files in `directory`, sorted.

        Args:
            directory: must exist.
            pattern: shell pattern that a file's name must match, ``*_w1.tif``.
            extensions: suffixes of which a name must end in one, ``{".tif"}``; any case.
            recursive: whether files in folders below count.

        Raises:
            NotFoundError: there is no such directory.
        """

    @abstractmethod
    def list_dir(self, path: Identifier) -> list[str]:
        """Names of what lies directly in the directory `path`, sorted.

        Raises:
            NotFoundError: there is no such directory.
        """

    @abstractmethod
    def exists(self, path: Identifier) -> bool:
        """Whether `path` is a file, a directory, or a link that resolves."""

    @abstractmethod
    def is_file(self, path: Identifier) -> bool:
        """Whether `path` is a file, or a link to one."""

    @abstractmethod
    def is_dir(self, path: Identifier) -> bool:
        """Whether `path` is a directory, or a link to one."""


class BackendBase:
    """A named backend; a subclass with a ``_backend_type`` of its own is registered."""

    _backend_type: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name = cls.__dict__.get("_backend_type")
        if name is not None:
            registered_classes[name.lower()] = cls

    @property
    def requires_filesystem_validation(self) -> bool:
        """Whether paths are real ones that can be checked with the operating system."""
        return True


class ReadOnlyBackend(BackendBase, DataSource):
    """A source that cannot be written and has no file system of its own."""

    @property
    def requires_filesystem_validation(self) -> bool:
        """Always False."""
        return False


class StorageBackend(BackendBase, DataSource, DataSink):
    """A source and sink with directories, deletion, copies and links."""

    @abstractmethod
    def delete(self, path: Identifier) -> None:
        """Remove a file, a link (never its target) or an empty directory.

        Raises:
            NotFoundError: nothing is there.
            UnsupportedError: a directory that is not empty; see `delete_all`.
        """

    @abstractmethod
    def delete_all(self, path: Identifier) -> None:
        """Remove a file or a directory with all below it; links in it are removed, not followed.

        Raises:
            NotFoundError: nothing is there.
        """

    @abstractmethod
    def copy(self, source: Identifier, target: Identifier) -> None:
        """Copy a file, or a directory with all below it; never overwrites.

        Raises:
            NotFoundError: no such source.
            AlreadyExistsError: the target exists.
        """

    @abstractmethod
    def move(self, source: Identifier, target: Identifier) -> None:
        """Rename a file or directory; never overwrites. Raises as `copy`."""

    @abstractmethod
    def stat(self, path: Identifier) -> Stat:
        """Size and time of what is stored.

        Raises:
            NotFoundError: nothing is.
        """

    @abstractmethod
    def ensure_directory(self, directory: Identifier) -> str:
        """Make `directory` and its parents where they are missing; its identifier.

        Raises:
            AlreadyExistsError: a file is in the way.
        """

    @abstractmethod
    def create_symlink(
        self, source: Identifier, link_name: Identifier, *, overwrite: bool = False
    ) -> None:
        """Make `link_name` a link to `source`, which must exist.

        Raises:
            NotFoundError: no such source.
            AlreadyExistsError: the link's name is taken and `overwrite` is false.
            UnsupportedError: this store has no links.
        """

    @abstractmethod
    def is_symlink(self, path: Identifier) -> bool:
        """Whether `path` is a link, resolving or not."""

    def touch(self, path: Identifier) -> None:
        """Make what `path` names look written now, for workflow engines.

        Raises:
            NotFoundError: nothing is there.
            UnsupportedError: this store cannot do that.
        """
        raise UnsupportedError(f"{os.fspath(path)}: this backend cannot change times")


class VirtualBackend(BackendBase, DataSource):
    """A backend without a real file system: listings are generated from metadata.

    A method that needs context (a plate's id, a connection) takes it as a keyword-only
    argument and raises ``TypeError`` where it is missing.
    """

    @property
    def requires_filesystem_validation(self) -> bool:
        """Always False."""
        return False


class PlateStore(ABC):
    """A mix-in for backends that hold plates."""

    @abstractmethod
    def open_plate(self, uri: Identifier, mode: Mode = "r") -> Plate:
        """Open the plate at `uri`; reads metadata only.

        Raises:
            NotFoundError: there is no plate.
            StoredDataError: what is there is not a valid plate.
        """

    @abstractmethod
    def create_plate(self, uri: Identifier, spec: PlateSpec, *, exist_ok: bool = False) -> Plate:
        """Make a plate without wells and open it for writing.

        Args:
            uri: of the plate.
            spec: layout, channels, pixel size.
            exist_ok: open an existing plate of the same layout and channels instead.

        Raises:
            AlreadyExistsError: something is there.
            MismatchError: with `exist_ok`, it has another layout, other channels or pixel size.
        """

    def survey(self, uri: Identifier, kind: str) -> dict[str, float] | None:
        """Paths of all parts of a kind below a plate -> when each was written, as `stat` says.

        From a listing or two, for callers who would otherwise ask for every well.

        Args:
            uri: of the plate.
            kind: ``image`` (wells and fields), ``label`` or ``file`` (tables and texts).

        Returns:
            None where this store can only be asked part by part.

        Raises:
            NotFoundError: there is no plate.
            StoredDataError: what is there is not a valid plate.
        """
        return None


class ByteStore(ABC):
    """A mix-in for backends of files: bytes by identifier, with no meaning read into names.

    Plates and zarr hierarchies are kept on these. A folder is there as long as a file is below.
    """

    has_folders: ClassVar[bool] = True
    """Whether a file and a folder of one name exclude each other."""

    @abstractmethod
    def read_range(self, identifier: Identifier, start: int = 0, end: int | None = None) -> bytes:
        """``data[start:end]`` of a file; a negative `start` counts from its end.

        No more than that is fetched.

        Raises:
            NotFoundError: there is no such file.
        """

    @abstractmethod
    def put(self, data: bytes, identifier: Identifier, *, overwrite: bool = False) -> None:
        """Write a file whole or not at all, and the folders above it; atomic.

        Raises:
            AlreadyExistsError: a file is there and `overwrite` is false, or a folder is in the
                way; of many who write at once without `overwrite`, one wins.
        """

    @abstractmethod
    def remove(self, identifiers: Sequence[Identifier]) -> None:
        """Remove files; those that are not there are passed over. Not atomic."""

    @abstractmethod
    def remove_tree(self, directory: Identifier) -> None:
        """Remove all files below a folder, which may not be there. Not atomic."""

    @abstractmethod
    def stat_file(self, identifier: Identifier) -> Stat | None:
        """Size, time and ETag of a file; None where there is none."""

    @abstractmethod
    def stat_files(self, directory: Identifier) -> dict[str, Stat]:
        """Of each file at any depth below a folder, by its path there; empty without a folder."""

    @abstractmethod
    def list_level(self, directory: Identifier) -> tuple[list[str], list[str]]:
        """Names of the files and of the folders directly in a folder; empty without a folder."""


class DocumentStore(ByteStore):
    """A mix-in for backends on which a file can be replaced on condition: JSON documents.

    ``metadata`` changes documents on them by compare-and-swap.
    """

    @abstractmethod
    def identity(self, identifier: Identifier) -> str | None:
        """Equal in the processes that reach the same store; None for a store of this process."""

    @abstractmethod
    def read_with_etag(self, identifier: Identifier) -> tuple[bytes, str, dict[str, str]] | None:
        """The file, what `write_if` takes to replace just this one, and its user metadata.

        None where there is none.
        """

    @abstractmethod
    def write_if(
        self,
        data: bytes,
        identifier: Identifier,
        etag: str | None,
        attributes: Mapping[str, str] | None = None,
    ) -> str:
        """Write a file only if it is still the one of `etag`; with None, if there is none.

        Atomic. Returns the new ETag.

        Args:
            data: the new content.
            identifier: of the file.
            etag: what `read_with_etag` or `write_if` gave.
            attributes: user metadata that the new file carries.

        Raises:
            ConflictError: somebody else wrote or removed it; nothing was written.
            StoreUnavailableError: the answer was lost; it may have been written.
        """


def check_identifiers(identifiers: Sequence[Identifier]) -> None:
    """Raise ``TypeError`` unless every identifier is text or path-like."""
    for identifier in identifiers:
        if not isinstance(identifier, str | os.PathLike):
            raise TypeError(f"{identifier!r} is no path or URI but a {type(identifier).__name__}")


def check_batch(data_list: Sequence[Any], identifiers: Sequence[Identifier]) -> None:
    """Raise ``ValueError`` where the lengths differ, ``TypeError`` as `check_identifiers`."""
    if len(data_list) != len(identifiers):
        raise ValueError(f"{len(data_list)} items cannot go to {len(identifiers)} identifiers")
    check_identifiers(identifiers)


def name_matches(name: str, pattern: str | None, extensions: Collection[str] | None) -> bool:
    """Whether a file's `name` passes the filters of `DataSource.list_files`."""
    if pattern is not None and not fnmatch.fnmatchcase(name, pattern):
        return False
    if extensions is None:
        return True
    listed = {extensions} if isinstance(extensions, str) else extensions
    return name.lower().endswith(tuple(f".{e.lstrip('.').lower()}" for e in listed))
