"""What backends of files share: codecs, filters, and parts of plates in folders."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from ..contracts import Identifier, PlateStore, Stat, name_matches
from ..errors import NotFoundError, URIError
from ..hcs.address import Address, parse_address, split_plate_path
from ..hcs.plate import Mode, Plate
from ..hcs.spec import PlateSpec
from .codecs import decode, encode, suffix_of
from .file_bytes import ByteFiles, Place, os_errors


@dataclass(frozen=True, slots=True)
class _Part:
    """An address below a folder that is a plate."""

    root: str
    """URI of the folder, with the ``pattern=`` that names its microscope, if any."""
    inner: str
    address: Address
    query: tuple[tuple[str, str], ...]


class FileBackend(ByteFiles, PlateStore):
    """A backend of files and folders, whose folders may be plates.

    Derived classes implement what is abstract here, and the contract's listing of names,
    deletion, copies and links.
    """

    def load(self, identifier: Identifier) -> Any:
        """What the file holds, by its suffix (see ``codecs``), or a part of a plate in a folder.

        Raises:
            NotFoundError: there is no such file.
            CorruptDataError: it cannot be decoded.
        """
        place = self._place(identifier)
        part = self._part(place, unless=self._known(place) == "file")
        if part is not None:
            return folder_plate().load_part(self, part.root, part.inner, part.query)
        if place.uri is not None and place.uri.query:
            raise URIError(f"{place}: only an image of a plate has planes; leave the query out")
        return decode(self.read_bytes(identifier), place.path, where=str(place))

    def save(self, data: Any, identifier: Identifier, *, overwrite: bool = False) -> None:
        """Store `data` as its suffix says (see ``codecs``), or as a part of a plate in a folder.

        Atomic, and overwrites, as `write_bytes`.

        Raises:
            AlreadyExistsError: something is there and `overwrite` is false.
            MismatchError: a file of this suffix cannot hold `data`; nothing was written.
        """
        place = self._place(identifier)
        raw = isinstance(data, bytes | bytearray | memoryview)
        plain = raw or bool(suffix_of(place.path)) or self._known(place) == "file"
        part = self._part(place, unless=plain)
        if part is not None:
            folder_plate().save_part(self, part.root, part.address, data, overwrite)
        else:
            encoded = encode(data, place.path, where=str(place))
            self.write_bytes(encoded, identifier, overwrite=overwrite)

    def list_files(
        self,
        directory: Identifier,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[str]:
        """Files in `directory`, sorted: URIs if it was given as one, else paths.

        Links to files count, broken links do not; links to directories are not followed.
        Arguments and errors as in the contract.
        """
        place = self._place(directory)
        found = []
        with os_errors(place):
            if self._known(place) == "file":
                raise NotADirectoryError(errno.ENOTDIR, "is a file")
            for inner in self._files_below(place, recursive):
                if name_matches(inner.rpartition("/")[2], pattern, extensions):
                    found.append(place.below(inner))
        return sorted(found)

    def exists(self, path: Identifier) -> bool:
        """Whether `path` is a file, a directory, a link that resolves, or a part of a plate."""
        place = self._place(path)
        return self._known(place) is not None or self._has_part(place)

    def is_file(self, path: Identifier) -> bool:
        """Whether `path` is a file, a link to one, or a field or label of a plate."""
        place = self._place(path)
        kind = self._known(place)
        return kind == "file" or (kind is None and self._has_part(place, "field", "label"))

    def is_dir(self, path: Identifier) -> bool:
        """Whether `path` is a directory, a link to one, or a well of a plate."""
        place = self._place(path)
        kind = self._known(place)
        return kind == "directory" or (kind is None and self._has_part(place, "well"))

    def stat(self, path: Identifier) -> Stat:
        """Kind, size and time of a file, a directory or a part of a plate; links are followed.

        Raises:
            NotFoundError: nothing is stored there.
        """
        place = self._place(path)
        with os_errors(place):
            found = self._stat(place)
        if found is not None:
            return found
        part = self._part(place)
        if part is None:
            raise NotFoundError(f"{place}: nothing is stored there")
        stat: Stat = folder_plate().stat_part(self, part.root, part.address)
        return stat

    def delete_all(self, path: Identifier) -> None:
        """Remove a file or a directory with all below it; links in it are removed, not followed.

        Not atomic for a directory or a part of a plate: a failure leaves some of its files.

        Raises:
            NotFoundError: nothing is there.
        """
        place = self._place(path)
        part = self._part(place, unless=self._known(place) is not None or self.is_symlink(path))
        if part is not None and self._has_part(place):
            folder_plate().delete_part(self, part.root, part.address)
            return
        with os_errors(place, writing=True):
            self._delete_all(place)

    def touch(self, path: Identifier) -> None:
        """Make a file, a directory or a part of a plate look written now; links are followed.

        Of a part the last file is touched: it is as new as the newest of them.
        """
        place = self._place(path)
        part = self._part(place, unless=self._known(place) is not None)
        if part is not None and self._has_part(place):
            folder_plate().touch_part(self, part.root, part.address)
            return
        with os_errors(place, writing=True):
            if self._kind(place) is None:
                raise FileNotFoundError(errno.ENOENT, "is not there")
            self._touch(place)

    def survey(self, uri: Identifier, kind: str) -> dict[str, float] | None:
        """Wells and fields of a plate in a folder with their times, from two listings."""
        if kind != "image":
            return None
        text = self._plate_text(uri)
        times = {path: stat.mtime for path, stat in self.stat_files(text).items()}
        found: dict[str, float] = folder_plate().survey_images(self, text, times)
        return found

    def open_plate(self, uri: Identifier, mode: Mode = "r") -> Plate:
        """Open a folder of images as a plate; see the contract."""
        plate: Plate = folder_plate().open_folder_plate(self, self._plate_text(uri), mode)
        return plate

    def create_plate(self, uri: Identifier, spec: PlateSpec, *, exist_ok: bool = False) -> Plate:
        """Make a folder for a plate; see the contract."""
        text = self._plate_text(uri)
        plate: Plate = folder_plate().create_folder_plate(self, text, spec, exist_ok)
        return plate

    def _known(self, place: Place) -> str | None:
        with os_errors(place):
            return self._kind(place)

    def _plate_text(self, uri: Identifier) -> str:
        place = self._place(uri)
        return place.uri.text if place.uri else place.given

    def _part(self, place: Place, unless: bool = False) -> _Part | None:
        """The part of an existing folder that a URI names, where it can be one."""
        if unless or place.uri is None:
            return None
        root, inner = split_plate_path(place.uri.path)
        if not inner or not (root or place.uri.authority):
            return None
        query = tuple((k, v) for k, v in place.uri.query if k != "pattern")
        try:
            address = parse_address(inner, query)
        except URIError:
            return None
        folder = place.uri.at(root)
        if address.kind == "file" or self._known(self._place(folder.text)) != "directory":
            return None
        pattern = tuple((k, v) for k, v in place.uri.query if k == "pattern")
        return _Part(replace(folder, query=pattern).text, inner, address, query)

    def _has_part(self, place: Place, *kinds: str) -> bool:
        part = self._part(place)
        if part is None or (kinds and part.address.kind not in kinds):
            return False
        return bool(folder_plate().part_exists(self, part.root, part.address))


def folder_plate() -> Any:
    """The module of plates in folders, which imports more than files need."""
    return importlib.import_module("polystore_flows.backends.folder_plate")
