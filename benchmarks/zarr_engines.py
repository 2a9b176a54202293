"""What each engine does in `zarr_vs_peers.py`; one of them in a process of its own.

``python zarr_engines.py pixels ENGINE FOLDER FIELDS`` writes and reads wells, ``… wells ENGINE
FOLDER COUNT`` adds wells to a plate that holds almost COUNT; both print seconds as JSON. No engine
imports more than it needs, so each runs in an environment of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np

CHANNELS = ["DAPI", "GFP", "Cy5"]
PIXEL_SIZE = (1.0, 0.65, 0.65)
TWELVE = [f"B/{column}" for column in range(1, 13)]
ROWS = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *(f"A{letter}" for letter in "ABCDEF")]
GRID = [(row, str(column)) for row in ROWS for column in range(1, 49)]
"""All wells of a plate of 1536."""
ADDED = 5

Array = Any
Plane = tuple[int, int]
"""Channel and z."""


class Engine:
    """How one engine writes and reads wells; fields are ``(t, c, z, y, x)``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sizes: tuple[int, ...] = (1, 1)
        """Channels and z of a field."""

    def create(self, channels: Sequence[str]) -> None:
        """Make an empty plate of 1536 wells."""

    def open(self) -> None:
        """Open the plate again for writing."""

    def path(self, row: str, column: str) -> str:
        """Where a well is in the plate."""
        return f"{row}/{column}"

    def write(self, well: str, fields: Sequence[Array]) -> None:
        raise NotImplementedError

    def handle(self, well: str) -> Any:
        """The first field of a well, open."""
        raise NotImplementedError

    def plane(self, handle: Any, plane: Plane) -> Array:
        raise NotImplementedError

    def field(self, well: str, number: int) -> Array:
        raise NotImplementedError

    def load(self, well: str, plane: Plane) -> Array:
        """One plane, opening included."""
        return self.plane(self.handle(well), plane)

    def planes(self, wells: Sequence[str], plane: Plane) -> list[Array]:
        return [self.load(well, plane) for well in wells]


class Ours(Engine):
    def __init__(self, root: Path) -> None:
        import polystore_flows as ps

        super().__init__(root.with_suffix(".zarr"))
        self.ps = ps
        self.uri = f"zarr://{self.root}"

    def create(self, channels: Sequence[str]) -> None:
        self.plate = self.ps.create_plate(self.uri, 1536, list(channels), PIXEL_SIZE, levels=1)

    def open(self) -> None:
        self.plate = self.ps.open_plate(self.uri, "r+")

    def write(self, well: str, fields: Sequence[Array]) -> None:
        self.plate.write_well(well, dict(enumerate(fields)))

    def handle(self, well: str) -> Any:
        return self.ps.open_plate(self.uri)[well].image(0)

    def plane(self, handle: Any, plane: Plane) -> Array:
        return handle.plane(0, *plane)

    def field(self, well: str, number: int) -> Array:
        return self.ps.open_plate(self.uri)[well].image(number).read()

    def load(self, well: str, plane: Plane) -> Array:
        return self.ps.load(f"{self.uri}/{well}/0?t=0&c={plane[0]}&z={plane[1]}")

    def planes(self, wells: Sequence[str], plane: Plane) -> list[Array]:
        uris = [f"{self.uri}/{well}/0?t=0&c={plane[0]}&z={plane[1]}" for well in wells]
        return self.ps.load_batch(uris)


class Polystore(Engine):
    """Saves all planes of a well in one batch; a plane has the name of its file."""

    def __init__(self, root: Path) -> None:
        from polystore.zarr import ZarrStorageBackend

        super().__init__(root.with_suffix(".zarr"))
        self.backend = ZarrStorageBackend()

    def _path(self, well: str, field: int, c: int, z: int) -> str:
        return str(self.root / f"{well.replace('/', '')}_s{field}_w{c}_z{z}.tif")

    def write(self, well: str, fields: Sequence[Array]) -> None:
        from polystore.zarr_batch import ZarrBatchAxis, ZarrBatchAxisRole, ZarrBatchLayout

        sizes = (len(fields), *fields[0].shape[1:3])
        roles = (ZarrBatchAxisRole.HCS_IMAGE, *[ZarrBatchAxisRole.ARRAY] * 2)
        names = [tuple(map(str, range(size))) for size in sizes]
        axes = tuple(map(ZarrBatchAxis, ("field", "c", "z"), names, roles))
        places = tuple(np.ndindex(*sizes))
        row, column = well.split("/")
        self.backend.save_batch(
            [fields[f][0, c, z] for f, c, z in places],
            [self._path(well, *place) for place in places],
            chunk_name=well,
            batch_layout=ZarrBatchLayout(axes, places),
            row=row,
            col=column,
        )

    def handle(self, well: str) -> Any:
        return well

    def plane(self, handle: Any, plane: Plane) -> Array:
        return self.backend.load_batch([self._path(handle, 0, *plane)])[0]

    def field(self, well: str, number: int) -> Array:
        paths = [self._path(well, number, c, z) for c, z in np.ndindex(*self.sizes)]
        return self.backend.load_batch(paths)

    def planes(self, wells: Sequence[str], plane: Plane) -> list[Array]:
        return self.backend.load_batch([self._path(well, 0, *plane) for well in wells])


class Ngio(Engine):
    sharded = True

    def __init__(self, root: Path) -> None:
        import ngio

        super().__init__(root.with_suffix(".zarr"))
        self.ngio = ngio

    def create(self, channels: Sequence[str]) -> None:
        self.channels = list(channels)
        options = {"name": "p", "ngff_version": "0.5"}
        self.plate = self.ngio.create_empty_plate(self.root, **options)

    def open(self) -> None:
        self.plate = self.ngio.open_ome_zarr_plate(self.root)

    def path(self, row: str, column: str) -> str:
        return f"{row}/{column:0>2}"

    def write(self, well: str, fields: Sequence[Array]) -> None:
        from zarr.codecs import BloscCodec

        row, column = well.split("/")
        for number, field in enumerate(fields):
            stack = field[0]
            self.plate.add_image(row, column, str(number))
            self.ngio.create_ome_zarr_from_array(
                self.plate.get_image_store(row, column, str(number)),
                stack,
                pixelsize=PIXEL_SIZE[1],
                z_spacing=PIXEL_SIZE[0],
                levels=1,
                axes_names=list("czyx"),
                channels_meta=self.channels,
                ngff_version="0.5",
                chunks=(1, 1, *stack.shape[-2:]),
                shards=stack.shape if self.sharded else None,
                compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
                overwrite=True,
            )

    def handle(self, well: str) -> Any:
        return self._image(well, 0)

    def _image(self, well: str, number: int) -> Any:
        plate = self.ngio.open_ome_zarr_plate(self.root, mode="r")
        return plate.get_image(*well.split("/"), str(number)).get_image()

    def plane(self, handle: Any, plane: Plane) -> Array:
        return handle.get_as_numpy(c=plane[0], z=plane[1], axes_order=["y", "x"])

    def field(self, well: str, number: int) -> Array:
        return self._image(well, number).get_as_numpy()


class Iohub(Engine):
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, root: Path) -> None:
        from iohub.ngff import open_ome_zarr

        super().__init__(root.with_suffix(".zarr"))
        self._open = open_ome_zarr

    def create(self, channels: Sequence[str]) -> None:
        options = {"layout": "hcs", "channel_names": list(channels), "version": "0.5"}
        self.plate = self._open(self.root, mode="a", **options, **self.options)

    def open(self) -> None:
        self.plate = self._open(self.root, mode="r+", **self.options)

    def write(self, well: str, fields: Sequence[Array]) -> None:
        row, column = well.split("/")
        for number, field in enumerate(fields):
            position = self.plate.create_position(row, column, str(number))
            position.create_image("0", field, chunks=(1, 1, 1, *field.shape[-2:]))

    def _image(self, well: str, number: int) -> Any:
        plate = self._open(self.root, mode="r", **self.options)
        return plate[f"{well}/{number}"]["0"]

    def handle(self, well: str) -> Any:
        return self._image(well, 0)

    def plane(self, handle: Any, plane: Plane) -> Array:
        return np.asarray(handle[0, plane[0], plane[1]])

    def field(self, well: str, number: int) -> Array:
        return np.asarray(self._image(well, number)[:])


class IohubTensorstore(Iohub):
    options: ClassVar[dict[str, Any]] = {"implementation": "tensorstore"}


class ZarrPython(Engine):
    """Arrays alone, without a plate."""

    def write(self, well: str, fields: Sequence[Array]) -> None:
        import zarr
        from zarr.codecs import BloscCodec

        for number, field in enumerate(fields):
            array = zarr.create_array(
                self.root / well / str(number),
                shape=field.shape,
                dtype=field.dtype,
                chunks=(1, 1, 1, *field.shape[-2:]),
                shards=field.shape,
                compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
            )
            array[...] = field

    def _array(self, well: str, number: int) -> Any:
        import zarr

        return zarr.open_array(self.root / well / str(number), mode="r")

    def handle(self, well: str) -> Any:
        return self._array(well, 0)

    def plane(self, handle: Any, plane: Plane) -> Array:
        return handle[0, plane[0], plane[1]]

    def field(self, well: str, number: int) -> Array:
        return self._array(well, number)[...]


class Tensorstore(Engine):
    """Arrays alone, without a plate."""

    def _spec(self, well: str, number: int) -> dict[str, Any]:
        path = f"{self.root}/{well}/{number}/"
        return {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}

    def write(self, well: str, fields: Sequence[Array]) -> None:
        import tensorstore

        for number, field in enumerate(fields):
            blosc = {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "typesize": 2}
            inner = [{"name": "bytes"}, {"name": "blosc", "configuration": blosc}]
            sharding = {"chunk_shape": [1, 1, 1, *field.shape[-2:]], "codecs": inner}
            metadata = {
                "shape": field.shape,
                "data_type": field.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": field.shape}},
                "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            }
            spec = self._spec(well, number) | {"metadata": metadata}
            tensorstore.open(spec, create=True).result().write(field).result()

    def _array(self, well: str, number: int) -> Any:
        import tensorstore

        return tensorstore.open(self._spec(well, number), open=True).result()

    def handle(self, well: str) -> Any:
        return self._array(well, 0)

    def plane(self, handle: Any, plane: Plane) -> Array:
        return handle[0, plane[0], plane[1]].read().result()

    def field(self, well: str, number: int) -> Array:
        return self._array(well, number).read().result()


class Tifffile(Engine):
    """One uncompressed TIFF for each plane."""

    def _path(self, well: str, field: int, c: int, z: int) -> Path:
        return self.root / well / f"s{field}_w{c}_z{z}.tif"

    def write(self, well: str, fields: Sequence[Array]) -> None:
        import tifffile

        (self.root / well).mkdir(parents=True)
        for number, field in enumerate(fields):
            for c, z in np.ndindex(field.shape[1:3]):
                tifffile.imwrite(self._path(well, number, c, z), field[0, c, z])

    def handle(self, well: str) -> Any:
        return well

    def plane(self, handle: Any, plane: Plane) -> Array:
        import tifffile

        return tifffile.imread(self._path(handle, 0, *plane))

    def field(self, well: str, number: int) -> Array:
        import tifffile

        paths = [self._path(well, number, c, z) for c, z in np.ndindex(*self.sizes)]
        return np.stack([tifffile.imread(path) for path in paths])


class NumpySave(Engine):
    """One uncompressed file for each field."""

    def _path(self, well: str, number: int) -> Path:
        return self.root / well / f"{number}.npy"

    def write(self, well: str, fields: Sequence[Array]) -> None:
        (self.root / well).mkdir(parents=True)
        for number, field in enumerate(fields):
            np.save(self._path(well, number), field)

    def handle(self, well: str) -> Any:
        return np.load(self._path(well, 0), mmap_mode="r")

    def plane(self, handle: Any, plane: Plane) -> Array:
        return np.array(handle[0, plane[0], plane[1]])

    def field(self, well: str, number: int) -> Array:
        return np.load(self._path(well, number))


ENGINES: dict[str, type[Engine]] = {
    "ours": Ours,
    "polystore": Polystore,
    "ngio": Ngio,
    "iohub": Iohub,
    "iohub-tensorstore": IohubTensorstore,
    "zarr-python": ZarrPython,
    "tensorstore": Tensorstore,
    "tifffile": Tifffile,
    "numpy": NumpySave,
}


def timed(act: Callable[..., Any], *arguments: Any) -> float:
    began = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - began


def middle(act: Callable[..., Any], times: int, *arguments: Any) -> float:
    """Median of `times`, or of as many as fit into three seconds."""
    act(*arguments)  # imports, and what is read comes from memory
    took: list[float] = []
    while len(took) < times and sum(took) < 3:
        took.append(timed(act, *arguments))
    return median(took)


def size_of(folder: Path) -> tuple[int, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


def pixels(name: str, folder: Path, fields: Array) -> dict[str, float]:
    """Write and read wells; every number that comes back is compared."""
    warm = ENGINES[name](folder / "warm")
    warm.create(CHANNELS)
    warm.write("A/1", [np.ascontiguousarray(fields[0][..., :64, :64])])
    engine = ENGINES[name](folder / "plate")
    engine.sizes = fields[0].shape[1:3]
    engine.create(CHANNELS)
    figures = {"write": median(timed(engine.write, well, fields) for well in ("A/1", "A/2", "A/3"))}
    files, size = size_of(engine.root / engine.path("A", "1"))
    for number, well in enumerate(TWELVE):
        engine.write(well, [fields[number % len(fields)]])
    plane = (1, 2)
    np.testing.assert_array_equal(engine.load("A/2", plane), fields[0][0, 1, 2])
    for number, field in enumerate(fields):
        stored = np.asarray(engine.field("A/2", number)).reshape(field.shape)
        np.testing.assert_array_equal(stored, field)
    for number, stored in enumerate(engine.planes(TWELVE, plane)):
        np.testing.assert_array_equal(stored, fields[number % len(fields)][0, 1, 2])
    turns = cycle(TWELVE)
    handle = engine.handle("A/2")
    planes = cycle(np.ndindex(fields[0].shape[1:3]))
    figures["plane"] = middle(lambda: engine.load(next(turns), plane), 36)
    figures["open plane"] = middle(lambda: engine.plane(handle, next(planes)), 30)
    figures["well"] = middle(lambda: [engine.field("A/2", n) for n in range(len(fields))], 5)
    figures["twelve"] = middle(engine.planes, 5, TWELVE, plane)
    return figures | {"files": files, "size": size}


def wells(name: str, folder: Path, count: int) -> dict[str, float]:
    """Add wells of one small field to a plate, the last of `count`; then load a plane of one."""
    engine = ENGINES[name](folder / "plate")
    engine.create(CHANNELS[:1])
    field = np.arange(256, dtype="uint16").reshape(1, 1, 1, 16, 16)
    engine.write("A/1", [field])
    figures = {}
    if count > 1:
        copy_well(engine, count - ADDED)
        engine.open()
        added = ["/".join(well) for well in GRID[count - ADDED : count]]
        figures["add"] = median(timed(engine.write, well, [field]) for well in added)
    last = "/".join(GRID[count - 1])
    np.testing.assert_array_equal(np.asarray(engine.load(last, (0, 0))), field[0, 0, 0])
    return figures | {"plane": middle(engine.load, 30, last, (0, 0))}


def copy_well(engine: Engine, count: int) -> None:
    """Make a plate whose first well is there one of `count`: copy that, and list the copies."""
    root, wells = engine.root, [engine.path(*well) for well in GRID[:count]]
    for well in wells[1:]:
        row = root / well.split("/")[0]
        if not row.exists():
            row.mkdir()
            for name in ("zarr.json", ".zgroup", ".zattrs"):
                if (root / "A" / name).is_file():
                    shutil.copy(root / "A" / name, row / name)
        shutil.copytree(root / wells[0], root / well, copy_function=shutil.copyfile)
    for name in ("zarr.json", ".zattrs"):
        if (root / name).is_file():
            content = json.loads((root / name).read_text())
            attributes = content.get("attributes", content)
            plate = attributes.get("ome", attributes).get("plate")
            if plate:
                _list(plate, wells)
                (root / name).write_text(json.dumps(content))


def _list(plate: dict[str, Any], wells: Sequence[str]) -> None:
    """List wells in a plate's metadata, in the grid that it has or, if it has less, in a larger."""
    for place, key in enumerate(("rows", "columns")):
        used = list(dict.fromkeys(well.split("/")[place] for well in wells))
        if not {*used} <= {entry["name"] for entry in plate[key]}:
            plate[key] = [{"name": name} for name in used]
    rows, columns = ([entry["name"] for entry in plate[key]] for key in ("rows", "columns"))
    plate["wells"] = [
        {"path": well, "rowIndex": rows.index(row), "columnIndex": columns.index(column)}
        for well in wells
        for row, column in [well.split("/")]
    ]


def main() -> None:
    what, name, place, argument = sys.argv[1:]
    if what == "pixels":
        figures = pixels(name, Path(place), np.load(argument))
    else:
        figures = wells(name, Path(place), int(argument))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
