"""Compression of single chunks, and what the metadata of zarr v2 and v3 call it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numcodecs.blosc import Blosc
from numpy.typing import NDArray

from ...hcs.zarr_config import ZarrCompressor, ZarrConfig

_GZIP = 31  # window bits of zlib for a stream with the header of gzip


@dataclass(frozen=True, slots=True)
class ChunkCodec:
    """One codec and its level."""

    compressor: ZarrCompressor = ZarrConfig().compressor
    level: int = ZarrConfig().level

    @classmethod
    def named(cls, names: Sequence[str]) -> ChunkCodec:
        """What decodes chunks whose codecs have these names in zarr v3.

        Raises:
            ValueError: nothing here does.
        """
        known = {"blosc": ZarrCompressor.BLOSC, "gzip": ZarrCompressor.ZLIB}
        compressors = [name for name in names if name not in ("bytes", "crc32c")]
        if not compressors:
            return cls(ZarrCompressor.NONE)
        if len(compressors) > 1 or compressors[0] not in known:
            raise ValueError(f"other codecs: {', '.join(compressors)}")
        return cls(known[compressors[0]])

    @property
    def blosc_name(self) -> str | None:
        """What Blosc calls the compressor; None without Blosc."""
        kind, _, name = self.compressor.value.partition("-")
        return name if kind == "blosc" else None

    def encode(self, chunk: NDArray[Any]) -> bytes:
        """Compress a C-contiguous array."""
        if self.blosc_name:
            return bytes(Blosc(self.blosc_name, self.level, Blosc.BITSHUFFLE).encode(chunk))
        if self.compressor is ZarrCompressor.ZLIB:
            stream = zlib.compressobj(self.level, wbits=_GZIP)
            return stream.compress(chunk.data) + stream.flush()
        return chunk.tobytes()

    def decode(self, stored: bytes, out: NDArray[Any]) -> None:
        """Decompress into an array of the right size.

        Raises:
            ValueError, RuntimeError, zlib.error: it is damaged or of another size.
        """
        if self.blosc_name:
            Blosc().decode(stored, out=out)
            return
        if self.compressor is ZarrCompressor.ZLIB:
            stored = zlib.decompress(stored, wbits=_GZIP, bufsize=out.nbytes)
        np.copyto(out, np.frombuffer(stored, out.dtype).reshape(out.shape))

    def metadata(self, itemsize: int) -> list[dict[str, Any]]:
        """The codecs in the metadata of zarr v3 after ``bytes``; none or one."""
        if self.blosc_name:
            configuration = {
                "typesize": itemsize,
                "cname": self.blosc_name,
                "clevel": self.level,
                "shuffle": "bitshuffle",
                "blocksize": 0,
            }
            return [{"name": "blosc", "configuration": configuration}]
        if self.compressor is ZarrCompressor.ZLIB:
            return [{"name": "gzip", "configuration": {"level": self.level}}]
        return []

    def for_zarr_python(self, itemsize: int, *, v2: bool) -> list[Any]:
        """The codecs as ``zarr.create_array(compressors=)`` takes them."""
        if v2:
            import numcodecs

            if self.blosc_name:
                return [numcodecs.Blosc(self.blosc_name, self.level, Blosc.BITSHUFFLE)]
            is_zlib = self.compressor is ZarrCompressor.ZLIB
            return [numcodecs.Zlib(self.level)] if is_zlib else []
        return [*self.metadata(itemsize), {"name": "crc32c"}]
