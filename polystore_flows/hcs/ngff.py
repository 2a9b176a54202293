"""The model of a plate as OME-NGFF JSON, 0.4 and 0.5, both ways.

Documents are made with the models of ome-zarr-models, the package in which ome-zarr keeps the
specification (https://ngff.openmicroscopy.org/0.4/ and …/0.5/), and images are read with them.
``ome_zarr.writer`` itself is not used, because it writes attributes straight into a store that
other processes read, and because every job would import it, which takes 2.1 s (it loads Dask and
scikit-image) where the models take 0.3 s beside zarr. Plates and wells are read by hand: workflow
engines ask about them without needing zarr, which takes a second to import. What the models do not
check, and readers need, is checked here: indices, the full physical grid, ``field_count``.

An *attributes* dictionary is what zarr calls the attributes of a group: in 0.5 all of NGFF lies
under its key ``ome``, in 0.4 at its top.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..errors import CorruptMetadataError
from .address import parse_well
from .image import AXES, Channel
from .layout import Layout
from .spec import Acquisition
from .zarr_config import Version as Version

Attributes = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9]+")
_AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
# UDUNITS-2 names that NGFF lists for lengths -> micrometres
_MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4,
                "meter": 1e6, "angstrom": 1e-4, "inch": 25400.0}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlateDocument:
    """The ``plate`` object of a plate's root group."""

    layout: Layout
    """All physical rows and columns, with the stored names."""
    wells: tuple[str, ...]
    """``row/column`` with the stored names, by row, then column."""
    name: str
    field_count: int
    """The largest number of fields in a well."""
    version: Version
    acquisitions: tuple[Acquisition, ...] = ()
    """The times at which the plate was imaged."""
    acquisition_fields: tuple[int, ...] = ()
    """The largest number of fields of a well in each of them; empty where that is not said."""

    def with_well(self, path: str, fields: int) -> PlateDocument:
        """This document with the well `path`, which has `fields` fields."""
        wells = self.wells if path in self.wells else (*self.wells, path)
        ordered = tuple(sorted(wells, key=self._place))
        return replace(self, wells=ordered, field_count=max(self.field_count, fields))

    def without_wells(self, paths: Collection[str]) -> PlateDocument:
        """This document without the wells `paths`; ``field_count`` stays an upper bound."""
        wells = tuple(well for well in self.wells if well not in paths)
        return replace(self, wells=wells)

    def _place(self, path: str) -> tuple[int, int]:
        row, _, column = path.partition("/")
        return self.layout.rows.index(row), self.layout.columns.index(column)


@dataclass(frozen=True, slots=True)
class ImageDocument:
    """The ``multiscales`` and ``omero`` objects of an image's group."""

    axes: tuple[str, ...]
    """As stored: 2 to 5 of t, c, z, y, x."""
    paths: tuple[str, ...]
    """Of the arrays, large to small."""
    pixel_size: tuple[float, float, float]
    """Micrometres ``(z, y, x)`` of the first level."""
    channels: tuple[Channel, ...]
    """Empty where the document names none."""


def version_of(attributes: Mapping[str, Any], where: str) -> Version:
    """The NGFF version of a group.

    Raises:
        CorruptMetadataError: it mixes versions or has one that is not read.
    """
    if "ome" in attributes:
        if "plate" in attributes or "multiscales" in attributes or "well" in attributes:
            raise CorruptMetadataError(
                f"{where} mixes NGFF 0.4 and 0.5 (keys beside 'ome'); remove one of them"
            )
        version = str(attributes["ome"].get("version", "0.5"))
    else:
        parts = [attributes.get("plate"), attributes.get("well"), attributes.get("image-label")]
        parts += list(attributes.get("multiscales") or [])[:1]
        version = next((str(p["version"]) for p in parts if p and "version" in p), "0.4")
    if version in ("0.4", "0.5"):
        return version  # type: ignore[return-value]  # narrowed by the line above
    raise CorruptMetadataError(f"{where} is NGFF {version}; 0.4 and 0.5 can be read")


def plate_attributes(plate: PlateDocument) -> Attributes:
    """The attributes of a plate with at least one well (the schema wants one)."""
    rows, columns = plate.layout.rows, plate.layout.columns
    body: Attributes = {
        "name": plate.name,
        "version": plate.version,
        "field_count": plate.field_count,
        "rows": [{"name": name} for name in rows],
        "columns": [{"name": name} for name in columns],
        "wells": [well_entry(plate.layout, path) for path in plate.wells],
    }
    if plate.acquisitions:
        most = plate.acquisition_fields or (1,) * len(plate.acquisitions)
        body["acquisitions"] = [
            {"id": a.id, "name": a.name, "maximumfieldcount": n}
            for a, n in zip(plate.acquisitions, most, strict=True)
        ]
    return _made("hcs", "HCSAttrs", plate.version, {"plate": body})


def well_entry(layout: Layout, path: str) -> Attributes:
    """What a plate's list of wells says of the well at `path`."""
    row, _, column = path.partition("/")
    return {
        "path": path,
        "rowIndex": layout.rows.index(row),
        "columnIndex": layout.columns.index(column),
    }


def read_plate(attributes: Mapping[str, Any], where: str) -> PlateDocument:
    """The plate that `attributes` describe; `where` begins every error.

    Raises:
        CorruptMetadataError: they describe none, or contradict themselves.
    """
    version = version_of(attributes, where)
    plate = (attributes["ome"] if version == "0.5" else attributes).get("plate")
    start = f"{where} is not valid NGFF {version}: plate"
    if not isinstance(plate, dict):
        raise CorruptMetadataError(f"{start} is no object")
    layout = Layout(*(_names(plate.get(key), f"{start}.{key}") for key in ("rows", "columns")))
    name, count = plate.get("name") or "", plate.get("field_count", 1)
    if not isinstance(name, str) or not isinstance(count, int) or count < 1:
        raise CorruptMetadataError(f"{start}: its name is no text or its field_count no number")
    try:
        imaged = list(plate.get("acquisitions") or ())
        times = tuple(Acquisition(int(a["id"]), str(a.get("name") or a["id"])) for a in imaged)
        most = tuple(a.get("maximumfieldcount") for a in imaged)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptMetadataError(f"{start}.acquisitions: each needs an id") from error
    wells = _wells(layout, plate.get("wells") or (), where)
    return PlateDocument(layout, wells, name, count, version, times, () if None in most else most)


def _names(listed: Any, where: str) -> tuple[str, ...]:
    """Names of the `listed` rows or columns."""
    try:
        names = tuple(entry["name"] for entry in listed)
    except (KeyError, TypeError):
        names = ()
    if not names or len(set(names)) != len(names) or not all(map(_is_name, names)):
        raise CorruptMetadataError(f"{where} lists no names of letters and digits, each once")
    return names


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _wells(layout: Layout, listed: Sequence[Any], where: str) -> tuple[str, ...]:
    """Paths of the `listed` wells by row, then column."""
    places = {
        f"{row}/{column}": (i, j)
        for i, row in enumerate(layout.rows)
        for j, column in enumerate(layout.columns)
    }
    paths = {}
    for well in listed:
        try:
            path, at = well["path"], (well["rowIndex"], well["columnIndex"])
            place = places[path]
        except (KeyError, TypeError):
            raise CorruptMetadataError(
                f"{where} lists {well!r} as a well; it needs a path row/column of the plate's rows "
                "and columns, a rowIndex and a columnIndex"
            ) from None
        if at != place:
            raise CorruptMetadataError(
                f"{where}: well {path} has row and column index {at[0]}, {at[1]}, which is "
                "another well's place in the lists"
            )
        paths[at] = path
    if len(paths) != len(listed) or _has_twins(layout, paths.values()):
        raise CorruptMetadataError(f"{where} lists a well twice")
    return tuple(paths[at] for at in sorted(paths))


def _has_twins(layout: Layout, paths: Collection[str]) -> bool:
    """Whether a well is there under two names, ``B/3`` and ``B/03``."""
    if all(len(layout.find_all(parse_well(f"{layout.rows[0]}/{c}"))) == 1 for c in layout.columns):
        return False
    return len({parse_well(path) for path in paths}) != len(paths)


def well_attributes(fields: Mapping[str, int | None], version: Version) -> Attributes:
    """The attributes of a well with these fields, at least one: path -> id of its acquisition."""
    images = [
        {"path": field} | ({} if acquisition is None else {"acquisition": acquisition})
        for field, acquisition in fields.items()
    ]
    return _made("well", "WellAttrs", version, {"well": {"version": version, "images": images}})


def read_well(attributes: Mapping[str, Any], where: str) -> dict[str, int | None]:
    """Paths of the fields of a well, in the stored order, with the ids of their acquisitions."""
    version = version_of(attributes, where)
    well: Any = (attributes["ome"] if version == "0.5" else attributes).get("well")
    try:
        fields = {image["path"]: image.get("acquisition") for image in well["images"]}
        whole = len(fields) == len(well["images"]) > 0
    except (KeyError, TypeError, AttributeError):
        fields, whole = {}, False
    numbered = all(isinstance(number, int | None) for number in fields.values())
    if not whole or not numbered or not all(map(_is_name, fields)):
        raise CorruptMetadataError(
            f"{where} is not valid NGFF {version}: well.images needs a path of letters and digits "
            "for each field, and no acquisition or its id"
        )
    return fields


def image_attributes(
    name: str,
    levels: int,
    pixel_size: tuple[float, float, float],
    channels: Sequence[tuple[Channel, tuple[float, float], tuple[float, float]]],
    version: Version,
) -> Attributes:
    """The attributes of a field with arrays ``0`` to ``levels - 1``, each half as wide.

    Args:
        name: shown to people.
        levels: number of arrays.
        pixel_size: micrometres ``(z, y, x)``.
        channels: of each the channel, (min, max) of the dtype and (start, end) to display.
        version: of NGFF.
    """
    omero = {
        "version": version,
        "channels": [
            {
                "label": channel.name,
                "color": channel.color,
                "active": True,
                "window": {"min": low, "max": high, "start": start, "end": end},
            }
            for channel, (low, high), (start, end) in channels
        ],
    }
    body = {"multiscales": [_multiscale(name, AXES, levels, pixel_size, version)], "omero": omero}
    return _made("image", "ImageAttrs", version, body)


def label_attributes(
    name: str, levels: int, pixel_size: tuple[float, float, float], version: Version
) -> Attributes:
    """The attributes of a label image, whose arrays have the axes ``(t, z, y, x)``."""
    axes = tuple(axis for axis in AXES if axis != "c")
    body = {
        "multiscales": [_multiscale(name, axes, levels, pixel_size, version)],
        "image-label": {"version": version, "source": {"image": "../../"}},
    }
    return _made("image_label", "ImageLabelAttrs", version, body)


def read_image(attributes: Mapping[str, Any], where: str) -> ImageDocument:
    """The field or label image that `attributes` describe."""
    version = version_of(attributes, where)
    body = dict(attributes["ome"] if version == "0.5" else attributes)
    scales: Any = body.get("multiscales")
    if isinstance(scales, list):  # apart from their names, all fields of a plate say the same
        body["multiscales"] = [s | {"name": ""} if isinstance(s, dict) else s for s in scales]
    try:
        return _image_document(json.dumps(body), version)
    except CorruptMetadataError as error:
        raise CorruptMetadataError(f"{where} {str(error).strip()}") from error.__cause__


@lru_cache(maxsize=64)
def _image_document(text: str, version: Version) -> ImageDocument:
    """The image that the NGFF object `text` describes; the model takes 0.3 ms for each."""
    body = json.loads(text)
    image = _read("image", "ImageAttrs", version, body, "")
    scale_of = image.multiscales[0]
    axes = tuple(axis.name for axis in scale_of.axes)
    if not set(axes) <= set(AXES) or list(axes) != [a for a in AXES if a in axes]:
        raise CorruptMetadataError(f"has the axes {', '.join(axes)}; t, c, z, y, x are read")
    size = {"z": 1.0, "y": 1.0, "x": 1.0}
    for axis, name in zip(scale_of.axes, axes, strict=True):
        if name in size:
            size[name] = _MICROMETRES.get(str(axis.unit), 1.0)
    for transforms in (
        scale_of.datasets[0].coordinateTransformations,
        scale_of.coordinateTransformations or (),
    ):
        for transform in transforms:
            if transform.type == "scale" and isinstance(transform.scale, list | tuple):
                for name, factor in zip(axes, transform.scale, strict=True):
                    if name in size:
                        size[name] *= factor
    channels = tuple(
        Channel(str(entry.get("label", i)), _color(entry))
        for i, entry in enumerate((body.get("omero") or {}).get("channels") or ())
    )
    paths = tuple(_inside(dataset.path, "") for dataset in scale_of.datasets)
    return ImageDocument(axes, paths, (size["z"], size["y"], size["x"]), channels)


def _color(channel: Mapping[str, Any]) -> str:
    """Six hex digits; others write ``#`` before them, or no colour at all."""
    color = str(channel.get("color", "")).lstrip("#")
    return color if re.fullmatch(r"[0-9A-Fa-f]{6}", color) else "FFFFFF"


def labels_attributes(names: Sequence[str], version: Version) -> Attributes:
    """The attributes of a ``labels`` group that lists these label images."""
    return _made("labels", "LabelsAttrs", version, {"labels": list(names)})


def read_labels(attributes: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Names of the label images that a ``labels`` group lists."""
    names = (attributes.get("ome") or attributes).get("labels") or ()
    return tuple(_inside(name, where) for name in names)


def _inside(path: Any, where: str) -> str:
    """`path`, which is to be looked up in a group.

    Raises:
        CorruptMetadataError: it leads out of the group.
    """
    if not isinstance(path, str) or not path or path[0] == "/" or {"..", "."} & {*path.split("/")}:
        raise CorruptMetadataError(f"{where} lists the path {path!r}, which is none inside of it")
    return path


def _multiscale(
    name: str,
    axes: Sequence[str],
    levels: int,
    pixel_size: tuple[float, float, float],
    version: Version,
) -> Attributes:
    size = dict(zip("zyx", pixel_size, strict=True))
    datasets = []
    for level in range(levels):
        factor = {"y": 2**level, "x": 2**level}
        scale = [size.get(axis, 1.0) * factor.get(axis, 1) for axis in axes]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
        )
    listed = [
        {"name": a, "type": _AXIS_TYPES[a]} | ({"unit": "micrometer"} if a in size else {})
        for a in axes
    ]
    body: Attributes = {"name": name, "axes": listed, "datasets": datasets}
    return body | ({"version": "0.4"} if version == "0.4" else {})


def _model(module: str, name: str, version: Version) -> Any:
    from importlib import import_module

    package = {"0.4": "v04", "0.5": "v05"}[version]
    return getattr(import_module(f"ome_zarr_models.{package}.{module}"), name)


def _made(module: str, name: str, version: Version, body: Attributes) -> Attributes:
    """`body` as attributes, checked by the model of the specification."""
    if version == "0.5":
        body = {"version": "0.5", **body}
    checked = _model(module, name, version).model_validate(body)
    dumped: Attributes = checked.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"ome": dumped} if version == "0.5" else dumped


def _read(module: str, name: str, version: Version, body: Mapping[str, Any], where: str) -> Any:
    from pydantic import ValidationError

    try:
        return _model(module, name, version).model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "document"
        raise CorruptMetadataError(
            f"{where} is not valid NGFF {version}: {place}: {' '.join(first['msg'].split())}"
        ) from error
