"""A folder of image files as a plate, over any backend of files.

The folder is a microscope's (see ``hcs.vendors``) or one of our own (see ``folder_writer``).
Opening a microscope's folder costs one listing and the header of one file, opening our own
reads its document. A microscope's channels are named by its ``openhcs_metadata.json``,
``Index.xml`` (Harmony) or ``.HTD`` file (ImageXpress), else by their ids: ``w1``, ``ch1``,
``A01_C01``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from ..contracts import Stat
from ..errors import (
    AddressError,
    AlreadyExistsError,
    MismatchError,
    NotFoundError,
    UnknownLayoutError,
    UnsupportedError,
    URIError,
)
from ..hcs.address import Address, PlaneSelection, parse_address, parse_well, plane_file_name
from ..hcs.image import Channel, ImageInfo, check_index
from ..hcs.plate import Image, Mode, Plate
from ..hcs.spec import PlateSpec
from ..threads import in_threads
from ..uri import parse_uri
from . import folder_writer as writer
from .codecs import open_image, read_image_header
from .folder_contents import Contents, look, look_again, own_contents
from .folder_writer import LABELS, Folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

Where = Callable[[int, int, int], str]
"""``(t, c, z)`` -> path of the file that holds the plane, below the plate folder."""

At = tuple[int, int, int]


class FolderPlate(Plate):
    """A plate in a folder; knows what was there when it was opened, and what it wrote itself."""

    def __init__(self, folder: Folder, contents: Contents, mode: Mode) -> None:
        self.folder, self.mode = folder, mode
        self.uri, self.name = str(folder.root), contents.spec.name
        self.layout = contents.spec.layout
        self._contents = contents

    @property
    def wells(self) -> tuple[str, ...]:
        return tuple(self._contents.fields)

    @property
    def channel_info(self) -> tuple[Channel, ...]:
        return self._contents.spec.channels

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        return self._contents.spec.pixel_size

    @property
    def ignored(self) -> tuple[str, ...]:
        """Image files in the folder that are no plane of the plate, such as overviews."""
        return self._contents.ignored

    def _fields(self, well: str) -> tuple[str, ...]:
        return self._contents.fields[well]

    def _image(self, well: str, field: str) -> FieldImage:
        import numpy as np

        held = self._contents
        assert held.shape is not None  # there are fields
        info = ImageInfo(held.shape, np.dtype(held.dtype), self.channel_info, self.pixel_size)
        return FieldImage(self.uri, self.folder, held, well, field, info)

    def field_image(self, well: str, field: str) -> FieldImage:
        """As ``plate[well].image(field)``."""
        image = self[well].image(field)
        assert isinstance(image, FieldImage)
        return image

    @property
    def is_own(self) -> bool:
        """Whether this is a plate of ours, not a microscope's folder."""
        return self._contents.pattern is None

    def read_table(self, path: str) -> Any:
        """The table or text at `path` below the plate, decoded by its suffix."""
        return self.folder.backend.load(self.folder.at(path))

    # Writing

    def _write_well(
        self,
        well: str,
        images: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Mapping[str, NDArray[Any]]],
        overwrite: bool,
        keep_others: bool,
    ) -> None:
        """A new field is atomic, a replaced one plane by plane; see ``folder_writer``."""
        if not self.is_own:
            raise UnsupportedError(
                f"{self.uri} holds a microscope's files, which are not changed; write images to "
                "a plate made with create_plate (labels and tables can be added here)"
            )
        written = writer.write_well(self.folder, well, images, labels, overwrite, keep_others)
        self._contents = own_contents(written)

    def _write_label(
        self, well: str, field: str, name: str, array: NDArray[Any], overwrite: bool
    ) -> None:
        """A new label image is atomic, a replaced one plane by plane; see ``folder_writer``."""
        image = self._image(well, field)
        if name in image.labels and not overwrite:
            raise AlreadyExistsError(
                f"{image.uri}/labels/{name} exists; write with overwrite=True to replace it"
            )
        writer.write_label(self.folder, well, field, name, array)

    def _write_file(self, path: str, data: Any, overwrite: bool) -> None:
        """Atomic; overwrites only with `overwrite`, and the plate's document never."""
        if path == writer.DOCUMENT or parse_address(path).kind != "file":
            raise URIError(f"{self.uri}/{path} is no table; write for example tables/counts.csv")
        self.folder.backend.save(data, self.folder.at(path), overwrite=overwrite)


class FolderImage(Image):
    """Planes in files, one or several to a file."""

    def __init__(self, uri: str, info: ImageInfo, folder: Folder, where: Where) -> None:
        super().__init__(uri, info)
        self._folder, self._where = folder, where

    def files(self, planes: PlaneSelection) -> list[str]:
        """The files that hold the selected planes, without looking whether they are there.

        Raises:
            AddressError: the image has no such plane or channel.
            NotFoundError: the folder had no such file when it was listed.
        """
        check_index("level", planes.level, self.levels)
        t = None if planes.t is None else check_index("t", planes.t, self.shape[0])
        c = None if planes.c is None else self.info.channel_index(planes.c)
        z = None if planes.z is None else check_index("z", planes.z, self.shape[2])
        return list(self._by_file(t, c, z))

    def _by_file(self, t: int | None, c: int | None, z: int | None) -> dict[str, list[At]]:
        """File -> the selected planes that it holds, in their order."""
        found: dict[str, list[At]] = {}
        axes = zip((t, c, z), self.shape, strict=False)
        ts, cs, zs = (range(n) if i is None else (i,) for i, n in axes)
        for at in product(ts, cs, zs):
            try:
                found.setdefault(self._where(*at), []).append(at)
            except NotFoundError as error:
                raise NotFoundError(f"{self._folder.root}/{error}") from None
        return found

    def _read(self, level: int, t: int | None, c: int | None, z: int | None) -> NDArray[Any]:
        import numpy as np

        shape = [n if i is None else 1 for i, n in zip((t, c, z), self.shape[:3], strict=True)]
        start = (t or 0, c or 0, z or 0)
        out = np.empty((*shape, *self.shape[3:]), self.dtype)
        files = self._by_file(t, c, z)

        def read(path: str) -> None:
            planes = self._planes(path, files[path])
            for at, plane in zip(files[path], planes, strict=True):
                out[tuple(i - s for i, s in zip(at, start, strict=True))] = plane

        in_threads(read, list(files))
        dropped = tuple(axis for axis, i in enumerate((t, c, z)) if i is not None)
        return out.squeeze(dropped)

    def _planes(self, path: str, places: Iterable[At]) -> Iterator[NDArray[Any]]:
        """Planes out of one file; along axes that the file itself has, one of several."""
        identifier = self._folder.at(path)
        with (
            self._folder.backend.open_binary(identifier) as file,
            open_image(file, path, where=identifier) as image,
        ):
            held, dtype = image.header.tczyx, image.dtype.newbyteorder("=")
            fits = all(n in (1, m) for n, m in zip(held[:3], self.shape[:3], strict=True))
            if not fits or held[3:] != self.shape[3:] or dtype != self.dtype:
                raise MismatchError(
                    f"{identifier}: {dtype} of shape {held}, but the images of its plate are "
                    f"{self.dtype} of shape {self.shape} (t, c, z, y, x)"
                )
            for at in places:
                t, c, z = (i if n > 1 else 0 for i, n in zip(at, held[:3], strict=True))
                yield image.plane(t, c, z)


class FieldImage(FolderImage):
    """A field of a folder plate, with its label images."""

    def __init__(
        self, plate: str, folder: Folder, held: Contents, well: str, field: str, info: ImageInfo
    ) -> None:
        super().__init__(f"{plate}/{well}/{field}", info, folder, partial(held.path, well, field))
        self._held, self._well, self._field = held, well, field

    def all_files(self) -> list[str]:
        """Paths of the field's image files, below the plate folder."""
        return self._held.paths(self._well, self._field)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label images that are complete: the last plane of one is written last."""
        names = writer.label_names(self._folder)
        return tuple(n for n in names if self._folder.has(self._label_paths(n)[-1]))

    def label(self, name: str) -> FolderImage:
        """A label image; reads the header of its first plane."""
        if name not in self.labels:
            super().label(name)  # raises
        first = self._label_paths(name)[0]
        identifier = self._folder.at(first)
        with self._folder.backend.open_binary(identifier) as file:
            header = read_image_header(file, first, where=identifier)
        shape = (self.shape[0], 1, *self.shape[2:])
        dtype = header.dtype.newbyteorder("=")
        info = replace(self.info, shape=shape, dtype=dtype, channels=(Channel(name),))
        prefix, address = f"{LABELS}/{name}/", parse_well(self._well)
        return FolderImage(
            f"{self.uri}/labels/{name}",
            info,
            self._folder,
            lambda t, c, z: prefix + plane_file_name(address, int(self._field), c, z, t),
        )

    def _label_paths(self, name: str) -> list[str]:
        shape = (self.shape[0], 1, *self.shape[2:])
        return writer.plane_names(f"{LABELS}/{name}/", self._well, self._field, shape)


def open_folder_plate(backend: Any, uri_text: str, mode: Mode = "r") -> FolderPlate:
    """Open the folder at `uri_text` as a plate; reads metadata only.

    Args:
        backend: of files.
        uri_text: of the folder; ``?pattern=`` names a microscope or gives a regular expression.
        mode: ``r+`` to write.

    Raises:
        NotFoundError, StoredDataError, MismatchError: see ``folder_contents.look``.
        URIError: another key than ``pattern``, or a pattern that is none.
    """
    folder, pattern = _folder(backend, uri_text)
    return FolderPlate(folder, look(folder, pattern), mode)


def create_folder_plate(
    backend: Any, uri_text: str, spec: PlateSpec, exist_ok: bool = False
) -> FolderPlate:
    """Make a plate without wells and open it for writing; atomic, see ``folder_writer.create``."""
    folder, _ = _folder(backend, uri_text)
    writer.create(folder, spec, exist_ok)
    return open_folder_plate(backend, uri_text, "r+")


def load_part(
    backend: Any, root_uri: str, inner: str, query: Iterable[tuple[str, str]] = ()
) -> Any:
    """The array of a field, label or plane, or the table or text, at `inner` below a plate."""
    query = tuple(query)
    address = parse_address(inner, [(k, v) for k, v in query if k != "pattern"])
    plate = _at_hand(backend, root_uri, query)
    if address.file is not None:
        return plate.read_table(address.file)
    if address.field is None:
        raise UnsupportedError(f"{plate.uri}/{address}: load a field or a label, such as B/3/0")
    return _image(plate, address).select(address.planes)


def save_part(
    backend: Any, root_uri: str, address: Address, data: Any, overwrite: bool = False
) -> None:
    """Write a field, a label image or a table of an existing plate.

    Atomic and overwriting as `FolderPlate` writes them. Single planes are refused: a field is
    written whole.
    """
    plate = open_folder_plate(backend, root_uri, "r+")
    if address.file is not None:
        plate.write_table(address.file, data, overwrite=overwrite)
    elif address.field is None or not address.planes.is_all:
        raise UnsupportedError(f"{plate.uri}/{address}: write a field as a whole, such as B/3/0")
    elif address.label is None:
        plate.write_image(str(address.well), address.field, data, overwrite=overwrite)
    else:
        at = str(address.well), address.field, address.label
        plate.write_label(*at, data, overwrite=overwrite)


def part_exists(backend: Any, root_uri: str, address: Address) -> bool:
    """Whether the plate lists this well, field or label image, and has the files of its planes."""
    try:
        plate = _at_hand(backend, root_uri)
        files = _files(plate, address)
    except (NotFoundError, UnknownLayoutError, AddressError):
        return False
    return address.planes.is_all or all(map(plate.folder.has, files))


def stat_part(backend: Any, root_uri: str, address: Address) -> Stat:
    """Kind, size and time of a part: the sum and the newest of its image files."""
    return stat_part_of(_at_hand(backend, root_uri), address)


def stat_part_of(plate: FolderPlate, address: Address) -> Stat:
    """As `stat_part`, for who has opened the plate."""

    def stat(path: str) -> Stat:
        identifier = plate.folder.at(path)
        if not plate.folder.has(path):  # else the backend would ask here again
            raise NotFoundError(f"{identifier} is missing, a plane of {plate.uri}/{address}")
        found: Stat = plate.folder.backend.stat(identifier)
        return found

    stats = in_threads(stat, _files(plate, address))
    newest = max((stat.mtime for stat in stats), default=0.0)
    return Stat(address.kind, sum(stat.size for stat in stats), newest)


def delete_part(backend: Any, root_uri: str, address: Address) -> None:
    """Remove a well, a field with its labels, a label image or a file.

    Fields of our own plate are unlisted first, so that a failure leaves files that no reader
    sees. In a microscope's folder the microscope's own files are removed.
    """
    plate = open_folder_plate(backend, root_uri, "r+")
    if address.kind == "plate" or not address.planes.is_all:
        raise UnsupportedError(f"{plate.uri}/{address}: delete a well, field, label image or file")
    files = _files(plate, address)
    if address.kind in ("well", "field"):
        well = plate[str(address.well)]
        fields = well.fields if address.field is None else (address.field,)
        if plate.is_own:
            writer.unlist(plate.folder, well.path, fields)
        writer.delete_labels(plate.folder, well.path, fields, well.image(fields[0]).shape)
    plate.folder.delete(files[::-1])


def touch_part(backend: Any, root_uri: str, address: Address) -> None:
    """Make a part look written now: it is as new as the newest of its files."""
    plate = _at_hand(backend, root_uri)
    backend.touch(plate.folder.at(_files(plate, address)[-1]))


def survey_images(backend: Any, root_uri: str, times: Mapping[str, float]) -> dict[str, float]:
    """Wells and fields -> the newest of the `times` of their files, of which none is missing."""
    plate = _at_hand(backend, root_uri)
    found: dict[str, float] = {}
    for well in plate.wells:
        for field in plate[well].fields:
            files = plate.field_image(well, field).all_files()
            if all(file in times for file in files):
                found[f"{well}/{field}"] = newest = max(map(times.__getitem__, files))
                found[well] = max(found.get(well, 0.0), newest)
    return found


def _folder(backend: Any, uri_text: str) -> tuple[Folder, str | None]:
    uri = parse_uri(uri_text)
    if uri.scheme != backend._backend_type:  # a path without a scheme
        memory = backend._backend_type == "memory"
        path = uri.path.lstrip("/")
        uri = parse_uri(f"memory://{path}") if memory else replace(uri, scheme="disk")
    for key, _ in uri.query:
        if key != "pattern":
            raise URIError(f"{uri}: '{key}=' selects nothing of a plate; only pattern= does")
    return Folder(backend, uri.at(uri.path)), dict(uri.query).get("pattern")


def _at_hand(backend: Any, root_uri: str, query: Iterable[tuple[str, str]] = ()) -> FolderPlate:
    """The plate for one call; a microscope's folder may have been listed a moment ago."""
    folder, pattern = _folder(backend, root_uri)
    return FolderPlate(folder, look_again(folder, dict(query).get("pattern", pattern)), "r")


def _image(plate: FolderPlate, address: Address) -> FolderImage:
    field = plate.field_image(str(address.well), address.field or "0")
    return field if address.label is None else field.label(address.label)


def _files(plate: FolderPlate, address: Address) -> list[str]:
    """Paths below the plate folder of the files of a part that the plate has."""
    if address.file is not None:
        plate.folder.backend.stat(plate.folder.at(address.file))  # raises where it is not there
        return [address.file]
    if address.label is not None or not address.planes.is_all:
        return _image(plate, address).files(address.planes)
    wells = plate.wells if address.well is None else [plate[str(address.well)].path]
    found = []
    for well in wells:
        fields = plate[well].fields if address.field is None else [address.field]
        for field in fields:
            found += plate.field_image(well, field).all_files()
    return found
