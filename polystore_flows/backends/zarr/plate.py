"""An OME-Zarr plate as an object: its documents and images; `writing` has the one to write to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import CorruptMetadataError, MismatchError, NotFoundError
from ...hcs import ngff
from ...hcs.address import check_file_path, parse_well
from ...hcs.image import Channel
from ...hcs.layout import Layout
from ...hcs.plate import Image, Mode, Plate
from ...hcs.provenance import Provenance
from ...hcs.spec import Acquisition, PlateSpec
from ...hcs.zarr_config import ZarrConfig, default_config
from .. import codecs
from .arrays import ZarrImage
from .nodes import (
    OURS,
    attributes_in,
    find_document,
    read_attributes,
    read_content,
    revision,
    translated,
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A plate's JSON, as it was at one time; shared by all that have the plate open."""

    ours: dict[str, Any]
    document: ngff.PlateDocument | None
    is_consolidated: bool
    """Whether zarr keeps a copy of all metadata in it."""


@lru_cache(maxsize=16)
def _snapshot(document: Path, uri: str, identity: tuple[int | str, ...]) -> Snapshot:
    """The plate's JSON in `document`, whose file has this `identity`; each is parsed once."""
    content = read_content(document, uri)
    attributes = attributes_in(document, content, uri)
    ours = attributes.get(OURS) or {}
    is_plate = "plate" in attributes.get("ome", attributes)
    plate = ngff.read_plate(attributes, uri) if is_plate else None
    if plate is None and "rows" not in ours:
        raise CorruptMetadataError(f"{uri} is no plate: {document} has no 'plate' metadata")
    return Snapshot(ours, plate, bool(content.get("consolidated_metadata")))


class ZarrPlate(Plate):
    """An OME-Zarr plate on a file system; its documents are read anew when they change."""

    mode: Mode = "r"

    def __init__(self, root: Path, uri: str) -> None:
        """Open the plate in the folder `root`.

        Raises:
            NotFoundError: there is no plate.
            CorruptMetadataError: its JSON is not valid.
        """
        self.root = root
        self.uri = uri
        document = find_document(root)
        if document is None:
            raise NotFoundError(
                f"{uri} is no OME-Zarr plate: {root} "
                + ("holds no zarr group" if root.is_dir() else "does not exist")
                + "; create it with create_plate() or correct the path"
            )
        self.document_path = document
        self._first: tuple[Snapshot, Image] | None = None
        self._read_document()

    @property
    def ours(self) -> dict[str, Any]:
        """What we keep at the root beside NGFF: grid, channels, pixel size, like of the fields."""
        return self._facts().ours

    @property
    def document(self) -> ngff.PlateDocument | None:
        """The plate's NGFF document; None while there is no well."""
        return self._read_document().document

    @property
    def name(self) -> str:  # type: ignore[override]
        """As the plate's JSON says."""
        now = self._facts()
        return now.document.name if now.document else now.ours.get("name", "")

    @property
    def layout(self) -> Layout:  # type: ignore[override]
        """The physical grid with the stored names."""
        now = self._facts()
        if now.document:
            return now.document.layout
        return Layout(tuple(now.ours["rows"]), tuple(now.ours["columns"]))

    @property
    def wells(self) -> tuple[str, ...]:
        """Stored paths of the wells, by row, then column."""
        document = self.document
        return document.wells if document else ()

    @property
    def version(self) -> ngff.Version:
        """The NGFF version of all of the plate."""
        return "0.5" if self.document_path.name == "zarr.json" else "0.4"

    @property
    def config(self) -> ZarrConfig:
        """How arrays of this plate are written; of plates that others made, the default."""
        stored = self.ours.get("config")
        if stored is None:
            return replace(default_config(), sharding=None, ngff_version=self.version)
        try:
            return ZarrConfig(**stored)
        except (TypeError, MismatchError) as error:
            raise CorruptMetadataError(f"{self.uri}: its 'config' is wrong: {error}") from error

    @property
    def is_consolidated(self) -> bool:
        """Whether zarr v3 keeps a copy of all metadata at the root."""
        return self._facts().is_consolidated

    @property
    def channel_info(self) -> tuple[Channel, ...]:
        """The plate's channels, as it was created or as its first image names them."""
        ours = self._own_channels()
        if ours or self.first_image is None:
            return ours
        return self.first_image.info.channels

    @property
    def acquisitions(self) -> tuple[Acquisition, ...]:
        """The times at which the plate was imaged; none where it does not say."""
        now = self._facts()
        if now.document:
            return now.document.acquisitions
        return tuple(Acquisition(**entry) for entry in now.ours.get("acquisitions", ()))

    @property
    def pixel_size(self) -> tuple[float, float, float]:
        """Micrometres ``(z, y, x)``."""
        if "pixel_size" in self.ours:
            z, y, x = self.ours["pixel_size"]
            return z, y, x
        return self.first_image.pixel_size if self.first_image else (1.0, 1.0, 1.0)

    @property
    def created(self) -> float:
        """Seconds since 1970 when the plate was made; wells written later do not change it."""
        return float(self.ours.get("created", self.document_path.stat().st_mtime))

    @property
    def spec(self) -> PlateSpec:
        """What a plate like this one is made from."""
        return PlateSpec(
            self.layout,
            self.channel_info,
            self.pixel_size,
            self.name,
            self.config,
            self.ours.get("levels"),
            self.acquisitions,
        )

    def group(self, well: str, field: str | None = None) -> Path:
        """The folder of a stored well or of a field of it."""
        return self.root / well / field if field is not None else self.root / well

    def read_table(self, path: str) -> Any:
        """The table or text at `path` below the plate, decoded by its suffix."""
        file = self.file_path(path)
        where = f"{self.uri}/{path}"
        with translated(where):
            if not file.is_file():
                raise NotFoundError(f"{where} does not exist")
            return codecs.decode(file.read_bytes(), file.name, where=where)

    def present(self, well: str) -> tuple[str, ...]:
        """Fields of `well`; none where it is not listed, whatever lies there."""
        if find_document(self.group(well)) is None:  # spares a writer to read the plate's JSON
            return ()
        return self._fields(well) if well in self.wells else ()

    def file_path(self, path: str) -> Path:
        """Where the file at `path` lies; a well's columns are found padded or not."""
        check_file_path(path)
        row, _, rest = path.strip("/").partition("/")
        column, _, below = rest.partition("/")
        if row.isalpha() and column.isdecimal():
            return self.root / self.layout_path(f"{row}/{column}") / below
        return self.root / path.strip("/")

    # Reading

    def layout_path(self, well: str) -> str:
        """``row/column`` of `well` as this plate stores it, whether it holds data or not."""
        layout = self.layout
        places = layout.find_all(parse_well(well))
        if len(places) != 1:  # none, or columns that are called 3 and 03
            return super().layout_path(well)
        return f"{layout.rows[places[0][0]]}/{layout.columns[places[0][1]]}"

    def find(self, well: str) -> str | None:
        """Stored path of `well` (``B/3``, ``B/03`` or ``B03``), or None if it holds no data."""
        document, address = self.document, parse_well(well)
        if document is None:
            return None
        rows, columns = document.layout.rows, document.layout.columns
        paths = (f"{rows[i]}/{columns[j]}" for i, j in document.layout.find_all(address))
        return next((path for path in paths if path in document.wells), None)

    def _fields(self, well: str) -> tuple[str, ...]:
        return tuple(self._acquisitions_of(well))

    def _acquisitions_of(self, well: str) -> dict[str, int | None]:
        where = f"{self.uri}/{well}"
        return ngff.read_well(read_attributes(self.group(well), where), where)

    def _provenance(self, well: str, field: str) -> Provenance | None:
        return read_provenance(self.group(well, field), f"{self.uri}/{well}/{field}")

    def _revision(self, well: str) -> object:
        group = self.group(well)
        known = revision(group)
        return known, [revision(group / field) for field in (self._fields(well) if known else ())]

    def _image(self, well: str, field: str) -> Image:
        where = f"{self.uri}/{well}/{field}"
        return ZarrImage(self.group(well, field), where, self._own_channels())

    def _own_channels(self) -> tuple[Channel, ...]:
        """As the plate was created, which wins over what its images say."""
        return tuple(
            Channel(c["name"], c["color"], tuple(c["window"]) if "window" in c else None)
            for c in self.ours.get("channels", ())
        )

    @property
    def first_image(self) -> Image | None:
        """The first field of the first well; None while there is none."""
        now = self._read_document()
        if now.document is None:
            return None
        if self._first is None or self._first[0] is not now:
            well = self[now.document.wells[0]]
            self._first = now, well.image(well.fields[0])
        return self._first[1]

    def refresh(self) -> None:
        """Say what the plate's JSON says now; a plate that is only read always does."""

    def _facts(self) -> Snapshot:
        """The plate's JSON for what does not change while wells come and go."""
        return self._read_document()

    def _read_document(self) -> Snapshot:
        """The plate's JSON, read anew if it was replaced since."""
        try:
            status = self.document_path.stat()
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{self.uri} is gone: {self.document_path} does not exist"
            ) from error
        identity = (status.st_ino, status.st_size, status.st_mtime_ns)
        return _snapshot(self.document_path, self.uri, identity)


def read_provenance(group: Path, where: str) -> Provenance | None:
    """What made the field in the folder `group`, if it says so."""
    stored = (read_attributes(group, where).get(OURS) or {}).get("provenance")
    return None if stored is None else Provenance.from_json(stored, where)
