"""Files in a ZIP archive, read-only: ``zip:///data/run7.zip/tables/counts.csv``."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from polystore_flows.backends.codecs import decode
from polystore_flows.contracts import Identifier, ReadOnlyBackend, name_matches
from polystore_flows.errors import CorruptDataError, NotFoundError, URIError
from polystore_flows.uri import BackendURI, parse_uri


class ZipBackend(ReadOnlyBackend):
    """Members of ZIP archives; holds nothing open, so it can be shared and pickled."""

    _backend_type = "zip"

    def load(self, identifier: Identifier) -> Any:
        """What a member holds, by its suffix."""
        uri, archive, member = _split(identifier)
        with _opened(uri, archive) as opened:
            if member not in opened.namelist():
                raise NotFoundError(f"{uri}: the archive has no such member")
            try:
                data = opened.read(member)
            except (zipfile.BadZipFile, EOFError) as error:
                raise CorruptDataError(f"{uri}: {error}") from error
        return decode(data, member, where=str(uri))

    def list_files(
        self,
        directory: Identifier,
        pattern: str | None = None,
        extensions: Collection[str] | None = None,
        recursive: bool = False,
    ) -> list[str]:
        """Members in `directory`, sorted; see the contract."""
        uri, _, _ = _split(directory)
        return [
            uri.join(inner).text
            for inner in self._below(directory)
            if (recursive or "/" not in inner)
            and name_matches(inner.rpartition("/")[2], pattern, extensions)
        ]

    def list_dir(self, path: Identifier) -> list[str]:
        """Names of what lies directly in the directory `path`, sorted."""
        return sorted({inner.partition("/")[0] for inner in self._below(path)})

    def exists(self, path: Identifier) -> bool:
        """Whether `path` is a member or a directory of the archive."""
        return self.is_file(path) or self.is_dir(path)

    def is_file(self, path: Identifier) -> bool:
        """Whether `path` is a member."""
        _, _, member = _split(path)
        return member in self._members(path)

    def is_dir(self, path: Identifier) -> bool:
        """Whether there are members below `path`."""
        _, _, folder = _split(path)
        return any(name.startswith(f"{folder}/" if folder else "") for name in self._members(path))

    def _below(self, directory: Identifier) -> list[str]:
        """Paths of all members below a directory, relative to it."""
        uri, _, folder = _split(directory)
        start = f"{folder}/" if folder else ""
        found = [n.removeprefix(start) for n in self._members(directory) if n.startswith(start)]
        if not found:
            raise NotFoundError(f"{uri}: the archive has no such directory")
        return sorted(found)

    def _members(self, identifier: Identifier) -> list[str]:
        uri, archive, _ = _split(identifier)
        try:
            with _opened(uri, archive) as opened:
                return [name for name in opened.namelist() if not name.endswith("/")]
        except NotFoundError:
            return []


def _split(identifier: Identifier) -> tuple[BackendURI, str, str]:
    """The URI, the archive's path, and the member's path in it."""
    uri = parse_uri(identifier)
    head, dot, member = uri.path.partition(".zip")
    if not dot or (member and not member.startswith("/")):
        raise URIError(f"{uri} names no archive; write zip:///data/archive.zip/path")
    return uri, f"{head}.zip", member.strip("/")


@contextmanager
def _opened(uri: BackendURI, archive: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except FileNotFoundError as error:
        raise NotFoundError(f"{uri}: there is no archive {archive}") from error
    except zipfile.BadZipFile as error:
        raise CorruptDataError(f"{uri}: {archive} is no ZIP archive") from error
