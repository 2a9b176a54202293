"""The block that is a place in a store: for results, deployments, objects and plates."""

# Prefect declares these methods as async and calls them both ways.
# mypy: disable-error-code="override"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from prefect.blocks.abstract import ObjectStorageBlock
from prefect.filesystems import WritableDeploymentStorage, WritableFileSystem
from prefect.utilities.filesystem import filter_files

import polystore_flows as ps
from polystore_flows.credentials import keep
from polystore_flows.errors import NotFoundError, URIError
from polystore_flows.flows.blocks.credentials import DOCS, LOGO, VERSION
from polystore_flows.flows.blocks.dispatch import dispatched, with_async_forms
from polystore_flows.flows.blocks.located import Located
from polystore_flows.flows.documents import update_document
from polystore_flows.flows.files import read_bytes, stored_name, write_bytes
from polystore_flows.flows.stamps import stamp
from polystore_flows.hcs.plate import Mode, Plate
from polystore_flows.uri import parse_uri


@with_async_forms
class PolystoreStore(Located, WritableFileSystem, WritableDeploymentStorage, ObjectStorageBlock):
    """
    A place in any store of polystore-flows: results, deployments, objects and plates.

    Attributes:
        uri: Where paths start, such as s3://bucket/prefix or disk:///data.
        credentials: For the store of the URI.

    Example:
        Load a stored block and read a file:
        ```python
        from polystore_flows.flows.blocks import PolystoreStore

        store = PolystoreStore.load("BLOCK_NAME")
        store.read_path("notes/today.txt")
        ```
    """

    _block_type_name = "Polystore Store"
    _block_type_slug = "polystore-store"
    _block_schema_version = VERSION
    _documentation_url = DOCS
    _logo_url = LOGO

    def at(self, path: str = "") -> str:
        """The URI of `path`, which may hold dots, slashes, spaces and any letters.

        Raises:
            URIError: it leaves the store by ``..``, or holds a ``?``, which starts a query.
        """
        if "?" in path:
            raise URIError(f"{self.uri}: {path!r} holds a '?'; choose another name")
        return parse_uri(self.uri).join(path).text if path else self.uri

    # Files

    @dispatched
    def read_path(self, path: str) -> bytes:
        """The file at `path`. Raises `NotFoundError` where nothing is."""
        return self._read(path)

    @dispatched
    def write_path(self, path: str, content: bytes) -> str:
        """Store `content` at `path`, atomically, and over what is there; its URI."""
        return self._write(path, content)

    @dispatched
    def exists(self, path: str = "") -> bool:
        """Whether something complete is stored at `path`."""
        with self.access():
            return ps.exists(self.at(path)) or ps.exists(stored_name(self.at(path)))

    @dispatched
    def etag(self, path: str = "") -> str | None:
        """A text that changes whenever what is stored at `path` does; None where nothing is."""
        with self.access():
            return stamp(self.at(path)) or stamp(stored_name(self.at(path)))

    @dispatched
    def list_paths(self, path: str = "", recursive: bool = True) -> list[str]:
        """Paths of the files in the directory `path`, sorted, as `read_path` takes them."""
        return self._list(path, recursive=recursive)

    @dispatched
    def update_json(
        self,
        path: str,
        update_func: Callable[[dict[str, Any]], dict[str, Any]],
        timeout: float | None = None,
        default_data: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Read the JSON document at `path`, change it and write it back, as one step; the new one.

        No update of others is lost. See ``polystore_flows.metadata.atomic_update_json``.
        """
        with self.access():
            return update_document(self.at(path), update_func, timeout, default_data)

    # Plates

    @dispatched
    def open_plate(self, path: str = "", mode: Mode = "r") -> Plate:
        """Open the plate at `path`; reads metadata only.

        This process goes on using the block's credentials for the store.
        """
        for store, credentials in self.given_credentials().items():
            keep(store, credentials)
        return ps.open_plate(self.at(path), mode)

    # Deployment storage

    @dispatched
    def get_directory(self, from_path: str | None = None, local_path: str | None = None) -> None:
        """Copy the directory `from_path` (all by default) into `local_path` (here by default)."""
        self._download(from_path or "", Path(local_path or "."))

    @dispatched
    def put_directory(
        self,
        local_path: str | None = None,
        to_path: str | None = None,
        ignore_file: str | None = None,
    ) -> int:
        """Copy a local directory (this one by default) to `to_path`; how many files it had.

        Args:
            local_path: the directory.
            to_path: where it goes; the start of the store by default.
            ignore_file: names, like a ``.gitignore``, what is left out.
        """
        patterns = Path(ignore_file).read_text().splitlines() if ignore_file else None
        return self._upload(Path(local_path or "."), to_path or "", patterns)

    # Object storage

    @dispatched
    def download_object_to_path(self, from_path: str, to_path: str | Path) -> Path:
        """Copy the file at `from_path` to a local file, whose path is returned."""
        return self._save_to(from_path, Path(to_path))

    @dispatched
    def download_object_to_file_object(self, from_path: str, to_file_object: BinaryIO) -> BinaryIO:
        """Copy the file at `from_path` into an open file."""
        to_file_object.write(self._read(from_path))
        return to_file_object

    @dispatched
    def download_folder_to_path(self, from_folder: str, to_folder: str | Path) -> Path:
        """Copy all files below `from_folder` into a local folder, whose path is returned."""
        return self._download(from_folder, Path(to_folder))

    @dispatched
    def upload_from_path(self, from_path: str | Path, to_path: str) -> str:
        """Copy a local file to `to_path`, over what is there; its URI."""
        return self._write(to_path, Path(from_path).read_bytes())

    @dispatched
    def upload_from_file_object(self, from_file_object: BinaryIO, to_path: str) -> str:
        """Copy the rest of an open file to `to_path`, over what is there; its URI."""
        return self._write(to_path, from_file_object.read())

    @dispatched
    def upload_from_folder(self, from_folder: str | Path, to_folder: str) -> str:
        """Copy all files below a local folder to `to_folder`; its URI."""
        self._upload(Path(from_folder), to_folder, None)
        return self.at(to_folder)

    def _read(self, path: str) -> bytes:
        with self.access():
            return read_bytes(self.at(path))

    def _write(self, path: str, content: bytes) -> str:
        with self.access():
            write_bytes(self.at(path), content)
        return self.at(path)

    def _list(self, path: str, *, recursive: bool) -> list[str]:
        start = len(parse_uri(self.uri).path)
        with self.access():
            found = ps.list_files(self.at(path), recursive=recursive)
        paths = {parse_uri(uri).path[start:].lstrip("/") for uri in found}
        # The lock that stays beside a document on a file system is no file of the user's.
        return sorted(p for p in paths if p.removesuffix(".lock") not in paths - {p})

    def _save_to(self, path: str, target: Path) -> Path:
        content = self._read(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    def _download(self, path: str, folder: Path) -> Path:
        start = path.strip("/")
        for found in self._list(start, recursive=True):
            self._save_to(found, folder / found.removeprefix(start).lstrip("/"))
        return folder

    def _upload(self, folder: Path, to_path: str, ignored: list[str] | None) -> int:
        if not folder.is_dir():
            raise NotFoundError(f"{folder} is no folder, so there is nothing to upload")
        chosen = filter_files(str(folder), ignored, include_dirs=False) if ignored else None
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = [path.relative_to(folder).as_posix() for path in files]
        names = [name for name in names if chosen is None or name in chosen]
        for name in names:
            self._write(f"{to_path}/{name}".lstrip("/"), (folder / name).read_bytes())
        return len(names)
