"""One JSON document on an object store: its text, its ids of updates, and whether to trust it.

The text ends in a line of blanks that no two writes share: an ETag may be a checksum of the text,
and must not come back when the document does.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from polystore_flows.errors import (
    ConflictError,
    PolystoreError,
    StoreUnavailableError,
    UnsupportedError,
    URIError,
)
from polystore_flows.metadata.lock import file_lock
from polystore_flows.metadata.object_queue import new_id, private_folder
from polystore_flows.metadata.paths import OBJECT_SCHEMES
from polystore_flows.registry import backend_for
from polystore_flows.uri import parse_uri

KEPT = 192
"""Ids of updates that a document remembers; S3 allows 2 KB of user metadata."""

_IDS = "polystorecommits"  # no dash or underscore: Azure and some proxies refuse those
_BLANKS = str.maketrans("01", " \t")
_TRIES = 3

_styles: dict[str, str] = {}
"""Identity of a bucket -> how it wants ETags: ``quoted`` or ``unquoted``."""


@dataclass(slots=True)
class State:
    """What was read of a document; ETag and content are None where there is none."""

    content: bytes | None = None
    etag: str | None = None
    ids: list[str] = field(default_factory=list)
    """Ids of the last updates, the oldest first."""

    def remembers(self, earlier: State) -> bool:
        """Whether this lists every update that was made since `earlier`."""
        if earlier.ids:
            return earlier.ids[-1] in self.ids
        return len(self.ids) < KEPT


class ObjectDocument:
    """A document on a store that heeds conditions.

    Raises:
        UnsupportedError: the store does not heed them.
        URIError: `uri` names no object.
    """

    def __init__(self, uri: str) -> None:
        parsed = parse_uri(uri)
        if parsed.scheme not in OBJECT_SCHEMES or not parsed.path.strip("/"):
            raise URIError(f"{parsed} names no object; write for example s3://bucket/key.json")
        self.uri = str(parsed)
        self._text = parsed.text
        self._backend = backend_for(parsed)
        bucket = self._backend.identity(parsed.text)
        self.identity = None if bucket is None else f"{bucket}\n{parsed.text}"
        """Equal in processes that reach the same document by the same credentials."""
        self._unquoted = bucket is not None and self._style(bucket) == "unquoted"

    def read(self) -> State:
        """What is there now; one request."""
        found = self._backend.read_with_etag(self._text)
        if found is None:
            return State()
        content, etag, attributes = found
        ids = attributes.get(_IDS, "")
        return State(content, etag, [ids[i : i + 8] for i in range(0, len(ids), 8)])

    def write(self, payload: bytes, etag: str | None, ids: list[str]) -> str:
        """Write it if it still has this ETag, with the last of `ids`; one request.

        Returns:
            Its new ETag.

        Raises:
            ConflictError: it has another one; nothing was written.
            StoreUnavailableError: the answer was lost; it may have been written.
        """
        line = f"{secrets.randbits(32):032b}".translate(_BLANKS)
        data = payload + f"\n{line}\n".encode()
        said = {_IDS: "".join(ids[-KEPT:])}
        written: str = self._backend.write_if(data, self._text, self._said(etag), said)
        return written

    def _said(self, etag: str | None) -> str | None:
        return etag.strip('"') if etag is not None and self._unquoted else etag

    def _style(self, bucket: str) -> str:
        """How the bucket wants ETags; tried once on this host."""
        if bucket not in _styles:
            root = private_folder()
            if root is None:
                _styles[bucket] = self._tried()
            else:
                note = root / f"{hashlib.sha256(bucket.encode()).hexdigest()[:32]}.conditions"
                _styles[bucket] = _noted(note) or self._note(note)
        return _styles[bucket]

    def _note(self, note: Path) -> str:
        with file_lock(note.with_suffix(".lock")):
            style = _noted(note)
            if style is None:
                style = self._tried()
                beside = note.with_suffix(".tmp")
                beside.write_text(style)
                beside.rename(note)
        return style

    def _tried(self) -> str:
        for left in reversed(range(_TRIES)):
            scratch = f"{self._text}.{new_id()}.tmp"
            try:
                return self._heeds(scratch)
            except StoreUnavailableError:  # an answer was lost: try anew
                if not left:
                    raise
            finally:
                with contextlib.suppress(PolystoreError):
                    self._backend.delete(scratch)
        raise AssertionError

    def _heeds(self, scratch: str) -> str:
        """What the store does with conditions, on an object of its own."""
        first = self._wrote(b"1", scratch, None)
        if first is None or self._wrote(b"2", scratch, None) is not None:
            raise self._refused("If-None-Match")
        for style in ("quoted", "unquoted"):
            first = first.strip('"') if style == "unquoted" else first
            if self._wrote(f"by {style}".encode(), scratch, first) is None:
                continue
            if self._wrote(b"3", scratch, first) is None:
                return style
            break
        raise self._refused("If-Match")

    def _wrote(self, data: bytes, scratch: str, etag: str | None) -> str | None:
        """The new ETag, or None where the condition was heeded and nothing written."""
        try:
            written: str = self._backend.write_if(data, scratch, etag)
            return written
        except ConflictError:  # maybe with ourselves, if an answer was lost and it tried again
            found = self._backend.read_with_etag(scratch)
            return found[1] if found is not None and found[0] == data else None

    def _refused(self, header: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self.uri}: this store does not heed {header}, so that updates of others could be "
            "lost; keep the document on a store that does, or on a file system"
        )


def _noted(note: Path) -> str | None:
    try:
        return note.read_text()
    except FileNotFoundError:
        return None
