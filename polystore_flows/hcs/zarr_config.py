"""How the arrays of a new OME-Zarr plate are cut into chunks, compressed and kept in files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Literal, TypeVar

from ..errors import MismatchError

Version = Literal["0.4", "0.5"]
"""Of the OME-NGFF specification."""


class ZarrChunkStrategy(Enum):
    """What is read and decompressed at once."""

    WELL = "well"
    """As much of a field as fits: best for who always reads whole fields."""
    FIELD = "well"
    """The same: NGFF keeps each field of a well in arrays of its own."""
    FILE = "file"
    """One plane, as in a microscope's image file: best for who reads planes."""
    PLANE = "file"
    """The same."""


class ZarrCompressor(Enum):
    """Codec of the chunks; Blosc ones shuffle bits first, which microscope images gain from."""

    BLOSC_LZ4 = "blosc-lz4"
    BLOSC_LZ4HC = "blosc-lz4hc"
    BLOSC_ZSTD = "blosc-zstd"
    BLOSC_ZLIB = "blosc-zlib"
    ZLIB = "zlib"
    """Deflate without shuffling; in NGFF 0.5 the codec ``gzip``, which zarr v3 has for it."""
    NONE = "none"
    BLOSC = "blosc-lz4"
    """The same as `BLOSC_LZ4`."""


_LEVELS = {
    ZarrCompressor.BLOSC_LZ4: 5,
    ZarrCompressor.BLOSC_LZ4HC: 3,
    ZarrCompressor.BLOSC_ZSTD: 1,
    ZarrCompressor.BLOSC_ZLIB: 1,
    ZarrCompressor.ZLIB: 1,
    ZarrCompressor.NONE: 0,
}
_E = TypeVar("_E", bound=Enum)


@dataclass(frozen=True, slots=True)
class ZarrConfig:
    """How the arrays of a new OME-Zarr plate are written; all combinations are valid NGFF.

    The defaults are those of ``benchmarks/zarr_codecs.py``, whose figures stand in
    docs/ome-zarr.md: LZ4 costs next to nothing to write and read, Zstd saves another tenth of the
    disk at half the speed, and shards make one file of what would be a file for every plane.

    Enums may be given by their values, ``ZarrConfig(compressor="blosc-zstd")``.
    """

    compressor: ZarrCompressor = ZarrCompressor.BLOSC_LZ4
    """Codec of the chunks."""
    compression_level: int | None = None
    """0 to 9; None is the one after which files hardly get smaller."""
    chunk_strategy: ZarrChunkStrategy = ZarrChunkStrategy.FILE
    """What is read at once."""
    sharding: bool | None = None
    """Many chunks in one file; None is yes where that is possible: chunks are planes, NGFF 0.5."""
    ngff_version: Version = "0.5"
    """0.5 is written on zarr v3, 0.4 (for OMERO and older readers) on zarr v2."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "compressor", _member(ZarrCompressor, self.compressor))
        object.__setattr__(self, "chunk_strategy", _member(ZarrChunkStrategy, self.chunk_strategy))
        level = self.compression_level
        if level is not None and (type(level) is not int or not 0 <= level <= 9):
            raise MismatchError(f"a compression level is a number from 0 to 9, not {level!r}")
        if self.ngff_version not in ("0.4", "0.5"):
            raise MismatchError(f"OME-NGFF 0.4 or 0.5 can be written, not {self.ngff_version!r}")
        if self.sharding not in (None, True, False):
            raise MismatchError(f"sharding is True, False or None, not {self.sharding!r}")
        if self.sharding and self.ngff_version == "0.4":
            raise MismatchError("OME-NGFF 0.4 knows no shards; ask for 0.5 or for sharding=False")

    @property
    def level(self) -> int:
        """The compression level that is used."""
        if self.compression_level is None:
            return _LEVELS[self.compressor]
        return self.compression_level

    @property
    def shards(self) -> bool:
        """Whether shards are used."""
        if self.sharding is None:
            return self.ngff_version == "0.5" and self.chunk_strategy is ZarrChunkStrategy.FILE
        return self.sharding

    def as_json(self) -> dict[str, Any]:
        """What `ZarrConfig` takes to be made again, as JSON."""
        return {k: v.value if isinstance(v, Enum) else v for k, v in asdict(self).items()}


def default_config() -> ZarrConfig:
    """The `ZarrConfig` of plates for which none is given: that of the setting ``POLYSTORE_ZARR``.

    Raises:
        MismatchError: the setting is wrong.
    """
    from ..settings import get_settings

    chosen = get_settings().zarr
    try:
        return ZarrConfig(**chosen)
    except (TypeError, MismatchError) as error:
        known = ", ".join(ZarrConfig.__slots__)
        raise MismatchError(f"POLYSTORE_ZARR: {error}; it may set {known}") from error


def _member(kind: type[_E], value: Any) -> _E:
    try:
        return kind(value)
    except ValueError:
        what = "compressor" if kind is ZarrCompressor else "chunk strategy"
        known = ", ".join(str(member.value) for member in kind)
        raise MismatchError(f"no {what} is called {value!r}; choose from {known}") from None
