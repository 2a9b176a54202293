"""Every way to write arrays comes back, is valid, and is read by zarr-python too."""

from __future__ import annotations

import errno
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import polystore_flows as ps
from polystore_flows.backends.zarr import array_layout, staged_store
from polystore_flows.backends.zarr.shards import open_sharded
from polystore_flows.errors import CorruptDataError, MismatchError
from polystore_flows.hcs.zarr_config import ZarrChunkStrategy, ZarrCompressor, ZarrConfig
from polystore_flows.settings import get_settings

Pixels = Callable[..., Any]
CONFIGS = [
    ZarrConfig(compressor, None, strategy, sharding, version)
    for compressor in ZarrCompressor
    for strategy in ZarrChunkStrategy
    for version, sharding in (("0.4", False), ("0.5", False), ("0.5", True))
]


@pytest.fixture(autouse=True)
def _settings_afterwards() -> Iterator[None]:
    yield
    get_settings.cache_clear()


def _name(config: ZarrConfig) -> str:
    kind = "sharded" if config.shards else "unsharded"
    return f"{config.ngff_version}-{kind}-{config.chunk_strategy.value}-{config.compressor.value}"


@pytest.mark.parametrize("config", CONFIGS, ids=_name)
def test_every_combination_comes_back_and_zarr_python_reads_it(
    tmp_path: Path, pixels: Pixels, config: ZarrConfig
) -> None:
    array = pixels()
    array[0, 1] = 0
    plate = ps.create_plate(tmp_path / "p.zarr", channels=["a", "b"], config=config, levels=2)
    plate.write_well("B/3", {0: array}, {0: {"nuclei": pixels((2, 1, 3, 45, 67), "int32")}})
    again = ps.open_plate(tmp_path / "p.zarr")
    assert again.spec.config == config
    image = again["B/3"].image(0)
    np.testing.assert_array_equal(image.read(), array)
    np.testing.assert_array_equal(image.plane(1, "b", 2), array[1, 1, 2])
    level = tmp_path / "p.zarr" / "B" / "3" / "0" / "0"
    stored = zarr.open_array(level, mode="r")
    np.testing.assert_array_equal(stored[...], array)
    assert stored.metadata.zarr_format == (2 if config.ngff_version == "0.4" else 3)
    assert stored.shards == (array.shape if config.shards else None)
    whole = config.chunk_strategy is ZarrChunkStrategy.WELL
    assert stored.chunks == (array.shape if whole else (1, 1, 1, 45, 67))
    label = zarr.open_array(level.parent / "labels" / "nuclei" / "1", mode="r")
    np.testing.assert_array_equal(label[...][:, None], image.label("nuclei").read(level=1))
    assert ps.get_backend("zarr").check_plate(f"zarr:{tmp_path}/p.zarr") == []


def test_shards_of_planes_are_read_directly_whatever_compressed_them(
    tmp_path: Path, pixels: Pixels
) -> None:
    """The fast way is the usual way; what it cannot read would silently be slow."""
    array = pixels()
    for compressor in ZarrCompressor:
        path = tmp_path / compressor.value
        array_layout.write_array(path, array, tuple("tczyx"), ZarrConfig(compressor))
        opened = open_sharded(path)
        assert opened is not None, compressor
        np.testing.assert_array_equal(opened[(slice(None),) * 5], array)
        zarrs = tmp_path / f"{compressor.value}-of-zarr-python"
        metadata = json.loads((path / "zarr.json").read_text())
        codecs = metadata["codecs"][0]["configuration"]["codecs"][1:]
        zarr.create_array(
            zarrs,
            shape=array.shape,
            dtype=array.dtype,
            chunks=(1, 1, 1, 45, 67),
            shards=array.shape,
            compressors=codecs,
            fill_value=0,
        )[...] = array
        opened = open_sharded(zarrs)
        assert opened is not None, compressor
        np.testing.assert_array_equal(opened[(slice(None),) * 5], array)


@pytest.mark.parametrize(
    "config",
    [ZarrConfig(c, None, "file", s) for c in ("zlib", "none", "blosc-zstd") for s in (True, False)],
    ids=_name,
)
def test_a_damaged_chunk_of_ngff_05_is_noticed_however_it_was_compressed(
    tmp_path: Path, pixels: Pixels, config: ZarrConfig
) -> None:
    plate = ps.create_plate(tmp_path / "p.zarr", config=config)
    plate.write_image("B/3", 0, pixels())
    chunks = (p for p in (tmp_path / "p.zarr/B/3/0/0/c").rglob("*") if p.is_file())
    chunk = next(chunks)
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"/B/3/0 cannot be read"):
        plate["B/3"].image(0).read()


def test_a_damaged_chunk_of_zlib_in_ngff_04_raises_too(tmp_path: Path, pixels: Pixels) -> None:
    config = ZarrConfig("zlib", ngff_version="0.4")
    plate = ps.create_plate(tmp_path / "p.zarr", config=config)
    plate.write_image("B/3", 0, pixels())
    chunk = next(p for p in (tmp_path / "p.zarr/B/3/0/0/0").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(CorruptDataError, match=r"/B/3/0 cannot be read"):
        plate["B/3"].image(0).read()


def test_a_plane_too_large_for_one_chunk_is_cut(
    tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blosc refuses 2 GiB, which a stitched well reaches."""
    monkeypatch.setattr(array_layout, "CHUNK_BYTES", 20 * 67 * 2)
    for version in ("0.4", "0.5"):
        plate = ps.create_plate(tmp_path / f"{version}.zarr", ngff_version=version)
        plate.write_image("B/3", 0, pixels())
        stored = zarr.open_array(tmp_path / f"{version}.zarr/B/3/0/0", mode="r")
        assert stored.chunks == (1, 1, 1, 20, 67)
        np.testing.assert_array_equal(plate["B/3"].image(0).read(), pixels())


def test_chunks_of_several_planes_stay_below_a_size(
    tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_layout, "SHARD_BYTES", 2 * 3 * 45 * 67 * 2)
    config = ZarrConfig(chunk_strategy=ZarrChunkStrategy.WELL)
    plate = ps.create_plate(tmp_path / "p.zarr", config=config)
    plate.write_image("B/3", 0, pixels())
    assert zarr.open_array(tmp_path / "p.zarr/B/3/0/0", mode="r").chunks == (1, 2, 3, 45, 67)
    np.testing.assert_array_equal(plate["B/3"].image(0).read(), pixels())


def test_names_and_aliases_of_strategies_and_compressors() -> None:
    """As polystore calls them; a field is what its WELL comes to in NGFF, a plane its FILE."""
    assert ZarrChunkStrategy.FIELD is ZarrChunkStrategy.WELL
    assert ZarrChunkStrategy.PLANE is ZarrChunkStrategy.FILE
    assert ZarrCompressor.BLOSC is ZarrCompressor.BLOSC_LZ4
    assert ZarrConfig("zlib", 3, "well") == ZarrConfig(
        ZarrCompressor.ZLIB, 3, ZarrChunkStrategy.WELL
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compressor": "lzma"}, "no compressor is called 'lzma'; choose from blosc-lz4, "),
        (
            {"chunk_strategy": "plate"},
            "no chunk strategy is called 'plate'; choose from well",
        ),
        ({"compression_level": 10}, "from 0 to 9, not 10"),
        ({"compression_level": "3"}, "from 0 to 9, not '3'"),
        ({"ngff_version": "0.3"}, "0.4 or 0.5 can be written, not '0.3'"),
        ({"sharding": "yes"}, "sharding is True, False or None, not 'yes'"),
        ({"sharding": True, "ngff_version": "0.4"}, "0.4 knows no shards"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        ZarrConfig(**options)


def test_the_setting_is_the_default_and_arguments_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYSTORE_ZARR", '{"compressor": "blosc-zstd", "ngff_version": "0.4"}')
    get_settings.cache_clear()
    made = ps.create_plate(tmp_path / "a.zarr").spec.config
    assert made == ZarrConfig(ZarrCompressor.BLOSC_ZSTD, ngff_version="0.4")
    made = ps.create_plate(tmp_path / "b.zarr", ngff_version="0.5").spec.config
    assert made == ZarrConfig(ZarrCompressor.BLOSC_ZSTD)
    made = ps.create_plate(tmp_path / "c.zarr", config=ZarrConfig()).spec.config
    assert made == ZarrConfig()


@pytest.mark.parametrize("wrong", ['{"codec": "zstd"}', '{"compressor": "lzma"}'])
def test_a_wrong_setting_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("POLYSTORE_ZARR", wrong)
    get_settings.cache_clear()
    with pytest.raises(MismatchError, match=r"^POLYSTORE_ZARR: .*it may set compressor, "):
        ps.create_plate(tmp_path / "p.zarr")


def test_writers_of_other_processes_follow_the_plate_not_their_settings(
    tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    ps.create_plate(tmp_path / "p.zarr", config=ZarrConfig("none"))
    monkeypatch.setenv("POLYSTORE_ZARR", '{"compressor": "zlib"}')
    get_settings.cache_clear()
    plate = ps.create_plate(tmp_path / "p.zarr", exist_ok=True)
    plate.write_image("A/1", 0, pixels())
    codecs = json.loads((tmp_path / "p.zarr/A/1/0/0/zarr.json").read_text())["codecs"]
    names = [codec["name"] for codec in codecs[0]["configuration"]["codecs"]]
    assert names == ["bytes", "crc32c"]


def test_a_plate_whose_stored_config_is_wrong_says_so(tmp_path: Path, pixels: Pixels) -> None:
    plate = ps.create_plate(tmp_path / "p.zarr")
    document = tmp_path / "p.zarr" / "zarr.json"
    document.write_text(document.read_text().replace("blosc-lz4", "lzma"))
    with pytest.raises(ValueError, match=r"p.zarr: its 'config' is wrong: no compressor"):
        plate.write_image("A/1", 0, pixels())


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_nothing_is_written_behind_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: Any
) -> None:
    """The other chunks would make a folder anew that the writer of the well has removed."""
    write = staged_store._write
    fails = threading.Event()

    def slow(path: Path, value: Any) -> None:
        if path.name in (".zarray", "zarr.json"):
            write(path, value)
        elif not fails.is_set():
            fails.set()
            raise OSError(errno.ENOSPC, "no space is left")
        else:
            time.sleep(0.1)
            write(path, value)

    monkeypatch.setattr(staged_store, "_write", slow)
    path = tmp_path / "0"
    config = ZarrConfig(ngff_version=version, sharding=False)
    array = np.arange(1, 3 * 40 * 4 + 1, dtype="u2").reshape(1, 3, 40, 2, 2)
    with pytest.raises(OSError, match="no space"):
        array_layout.write_array(path, array, tuple("tczyx"), config)
    shutil.rmtree(path)
    time.sleep(0.3)
    assert not path.exists()
