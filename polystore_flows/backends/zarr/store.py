"""A zarr v3 store over any backend of the registry, so that zarr opens what that reaches."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from ...contracts import ByteStore
from ...errors import AlreadyExistsError, NotFoundError, UnsupportedError, URIError
from ...registry import backend_for, plate_store_for
from ...uri import BackendURI, parse_uri

_VALUE = "~value"
"""Suffix of a file whose key is a folder too. No zarr hierarchy has such keys, zarr allows them."""


class BackendStore(Store):
    """Keys below a URI of memory, disk or an object store.

    Writes are atomic for each key, and durable as the backend's are. The blocking verbs
    (``get_sync`` …) do the work; the others run them in threads. Pickles hold the URI only.

    Args:
        uri: ``disk:///data/x.zarr``, ``s3://bucket/x.zarr``, ``memory://name/x.zarr``. It need
            not exist.
        read_only: whether writing is refused.

    Raises:
        UnsupportedError: the backend of this scheme holds no files.
    """

    supports_writes: bool = True
    supports_deletes: bool = True
    supports_listing: bool = True

    def __init__(self, uri: str | BackendURI, *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only)
        self._uri = parse_uri(uri).at(parse_uri(uri).path)
        if not isinstance(self._backend, ByteStore):
            raise UnsupportedError(f"{self._uri}: this backend holds no files for a zarr store")

    @property
    def _backend(self) -> Any:
        return backend_for(self._uri)

    def with_read_only(self, read_only: bool = False) -> BackendStore:
        """The same store, writable or not."""
        return type(self)(self._uri, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, type(self))
            and (other._uri, other.read_only) == (self._uri, self.read_only)
        )  # fmt: skip

    def __str__(self) -> str:
        return str(self._uri)

    def __repr__(self) -> str:
        return f"BackendStore('{self}')"

    # Reading

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The value of `key` or a part of it; None where there is none."""
        start, end = span(byte_range)
        for place in self._places(key):
            with suppress(NotFoundError):
                found = self._backend.read_range(place, start, end)
                return (prototype or default_buffer_prototype()).buffer.from_bytes(found)
        return None

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """As `get_sync`."""
        await self._ensure_open()
        return await asyncio.to_thread(
            self.get_sync, key, prototype=prototype, byte_range=byte_range
        )

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> builtins.list[Buffer | None]:
        """`get` for each, in their order."""
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))

    async def exists(self, key: str) -> bool:
        """Whether `key` has a value."""
        return await asyncio.to_thread(self._stat, key) is not None

    async def getsize(self, key: str) -> int:
        """Bytes of a value, which is not read."""
        found = await asyncio.to_thread(self._stat, key)
        if found is None:
            raise FileNotFoundError(key)
        return int(found.size)

    async def getsize_prefix(self, prefix: str) -> int:
        """Bytes of all values below the folder `prefix`, from one listing."""
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        return sum((await asyncio.to_thread(self._sizes, below)).values())

    # Listing

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        for key in await asyncio.to_thread(self._sizes, ""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin with `prefix`."""
        for key in await asyncio.to_thread(self._sizes, prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The next part of all keys below the folder `prefix`."""
        files, folders = await asyncio.to_thread(self._backend.list_level, self._at(prefix))
        for name in {*map(self._key, files), *folders}:
            yield name

    async def is_empty(self, prefix: str) -> bool:
        """Whether there is no key below the folder `prefix`."""
        return not any(await asyncio.to_thread(self._backend.list_level, self._at(prefix)))

    # Writing

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write the value of `key`; atomic."""
        self._check_writable()
        self._put(key, _content(value), overwrite=True)

    async def set(self, key: str, value: Buffer) -> None:
        """As `set_sync`."""
        await self._ensure_open()
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write the value of `key` unless it has one; of many at once one wins."""
        self._check_writable()
        await self._ensure_open()
        with suppress(AlreadyExistsError):
            await asyncio.to_thread(self._put, key, _content(value), overwrite=False)

    def delete_sync(self, key: str) -> None:
        """Remove `key`, if it is there."""
        self._check_writable()
        self._backend.remove(self._places(key))

    async def delete(self, key: str) -> None:
        """As `delete_sync`."""
        await self._ensure_open()
        await asyncio.to_thread(self.delete_sync, key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove all keys below the folder `prefix`; not atomic."""
        self._check_writable()
        await asyncio.to_thread(self._backend.remove_tree, self._at(prefix))

    # Helpers

    def _at(self, key: str) -> str:
        if "?" in key:
            raise URIError(f"{self}: no key holds a '?', as {key!r} does")
        return self._uri.join(key).text

    def _places(self, key: str) -> builtins.list[str]:
        """Where the value of `key` may be."""
        if not self._backend.has_folders:
            return [self._at(key)]
        if key.endswith(_VALUE):
            raise URIError(f"{self}: no key ends in {_VALUE!r}, as {key!r} does")
        return [self._at(key), self._at(key + _VALUE)]

    def _key(self, path: str) -> str:
        """The key whose value is the file `path`."""
        return path.removesuffix(_VALUE) if self._backend.has_folders else path

    def _stat(self, key: str) -> Any:
        found = (self._backend.stat_file(place) for place in self._places(key))
        return next((stat for stat in found if stat is not None), None)

    def _sizes(self, prefix: str) -> dict[str, int]:
        folder = prefix.rpartition("/")[0]
        found = self._backend.stat_files(self._at(folder))
        start = f"{folder}/" if folder else ""
        keys = {self._key(f"{start}{path}"): stat.size for path, stat in found.items()}
        return {key: size for key, size in keys.items() if key.startswith(prefix)}

    def _put(self, key: str, data: bytes, *, overwrite: bool) -> None:
        plain, *beside = self._places(key)
        if beside and self._backend.stat_file(beside[0]) is not None:
            plain = beside[0]
        try:
            self._backend.put(data, plain, overwrite=overwrite)
            return
        except AlreadyExistsError:
            if not beside or self._backend.stat_file(plain) is not None:
                raise
        parts = key.split("/")
        for end in range(1, len(parts)):  # a value above gives way to a folder
            above, aside = self._places("/".join(parts[:end]))
            if self._backend.stat_file(above) is not None:
                self._backend.put(self._backend.read_range(above), aside, overwrite=True)
                self._backend.remove([above])
        try:
            self._backend.put(data, plain, overwrite=overwrite)
        except AlreadyExistsError:  # a folder
            self._backend.put(data, beside[0], overwrite=overwrite)


def zarr_store(
    uri: str | BackendURI, *, read_only: bool | None = None, as_plate: bool | None = None
) -> Store:
    """A zarr v3 store over what `uri` names, for ``zarr.open(store)``.

    Args:
        uri: a folder of a backend that holds files (``disk:``, ``memory:``, ``s3:``, ``gs:``,
            ``az:``) or an OME-Zarr plate (``zarr:``, ``zarr+s3:`` …), which need not exist; or a
            plate of any backend.
        read_only: whether writing is refused; by default only where nothing can be written.
        as_plate: whether a plate is shown as OME-Zarr, read-only, instead of the files in which
            it is kept; by default where there are no files.

    Raises:
        UnsupportedError: the backend of this scheme holds neither files nor plates.
        NotFoundError: there is no plate to be shown.
    """
    parsed = parse_uri(uri)
    if parsed.backend == "zarr" and not as_plate:
        parsed = parse_uri(f"{parsed.transport or 'disk'}{parsed.text[len(parsed.scheme) :]}")
    if as_plate or (as_plate is None and not isinstance(backend_for(parsed), ByteStore)):
        from .plate_view import PlateView

        plate_store_for(parsed).open_plate(parsed.text)  # zarr would hide why it cannot be
        return PlateView(parsed, read_only=read_only is not False)
    return BackendStore(parsed, read_only=bool(read_only))


def span(part: ByteRequest | None) -> tuple[int, int | None]:
    """What zarr asks for, as the bounds of a slice."""
    if part is None:
        return 0, None
    if isinstance(part, RangeByteRequest):
        return part.start, part.end
    if isinstance(part, OffsetByteRequest):
        return part.offset, None
    if isinstance(part, SuffixByteRequest):
        return (-part.suffix, None) if part.suffix else (0, 0)
    raise TypeError(f"Unexpected byte_range, got {part}")


def _content(value: Buffer) -> bytes:
    if not isinstance(value, Buffer):
        raise TypeError(f"a value is a zarr Buffer, not {type(value).__name__}")
    return value.to_bytes()
