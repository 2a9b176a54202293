"""The part of OMERO's data model that the loopback server keeps: kinds, relations, uniqueness.

Names and relations are those of OMERO's model (`EveryObject
<https://omero.readthedocs.io/en/stable/developers/Model/EveryObject.html>`_); the classes of
``omero.model`` supply the scalar fields.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import omero.gateway  # loads all of omero.model
import omero.model

_ANNOTATIONS = {
    f"{name}Annotation"
    for name in ("Boolean", "Comment", "Double", "File", "Long", "Map", "Tag", "Timestamp", "Xml")
}
_SHAPES = {"Ellipse", "Label", "Line", "Mask", "Point", "Polygon", "Polyline", "Rectangle"}
_ANNOTATED = {"Dataset", "Image", "OriginalFile", "Plate", "PlateAcquisition", "Roi", "Screen"}
_ANNOTATED |= {"Well"}

ENUMERATIONS = {
    "ChecksumAlgorithm": ("SHA1-160", "MD5-128", "Murmur3-128", "Adler-32", "CRC-32"),
    "DimensionOrder": ("XYZCT", "XYZTC", "XYCTZ", "XYCZT", "XYTCZ", "XYTZC"),
    "Format": ("OMERO", "OME-TIFF", "TIFF", "Companion/OME-TIFF"),
    "PhotometricInterpretation": ("Monochrome", "RGB"),
    "PixelsType": (
        "bit", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float", "double",
        "complex", "double-complex",
    ),
    "EventType": ("Bootstrap", "Internal", "User", "Sessions"),
}  # fmt: skip
"""Kind -> values; the server's own, readable by everybody."""

TO_ONE: dict[str, dict[str, str]] = {
    "Screen": {},
    "Plate": {},
    "ScreenPlateLink": {"parent": "Screen", "child": "Plate"},
    "PlateAcquisition": {"plate": "Plate"},
    "Well": {"plate": "Plate"},
    "WellSample": {"well": "Well", "image": "Image", "plateAcquisition": "PlateAcquisition"},
    "Project": {},
    "Dataset": {},
    "ProjectDatasetLink": {"parent": "Project", "child": "Dataset"},
    "DatasetImageLink": {"parent": "Dataset", "child": "Image"},
    "Image": {"format": "Format"},
    "Pixels": {
        "image": "Image",
        "relatedTo": "Pixels",
        "pixelsType": "PixelsType",
        "dimensionOrder": "DimensionOrder",
    },
    "Channel": {"pixels": "Pixels", "logicalChannel": "LogicalChannel", "statsInfo": "StatsInfo"},
    "LogicalChannel": {"photometricInterpretation": "PhotometricInterpretation"},
    "StatsInfo": {},
    "OriginalFile": {"hasher": "ChecksumAlgorithm"},
    "Roi": {"image": "Image"},
    "Annotation": {},
    "Shape": {"roi": "Roi"},
    "Experimenter": {},
    "ExperimenterGroup": {},
    "GroupExperimenterMap": {"parent": "ExperimenterGroup", "child": "Experimenter"},
    "Event": {"experimenter": "Experimenter", "type": "EventType"},
    "ExternalInfo": {},
}
"""Kind -> attribute -> kind that it refers to."""

TO_MANY: dict[str, dict[str, tuple[str, str]]] = {
    "Screen": {"plateLinks": ("ScreenPlateLink", "parent")},
    "Plate": {
        "wells": ("Well", "plate"),
        "plateAcquisitions": ("PlateAcquisition", "plate"),
        "screenLinks": ("ScreenPlateLink", "child"),
    },
    "PlateAcquisition": {"wellSample": ("WellSample", "plateAcquisition")},
    "Well": {"wellSamples": ("WellSample", "well")},
    "Project": {"datasetLinks": ("ProjectDatasetLink", "parent")},
    "Dataset": {
        "imageLinks": ("DatasetImageLink", "parent"),
        "projectLinks": ("ProjectDatasetLink", "child"),
    },
    "Image": {
        "pixels": ("Pixels", "image"),
        "wellSamples": ("WellSample", "image"),
        "rois": ("Roi", "image"),
        "datasetLinks": ("DatasetImageLink", "child"),
    },
    "Pixels": {"channels": ("Channel", "pixels")},
    "LogicalChannel": {"channels": ("Channel", "logicalChannel")},
    "Roi": {"shapes": ("Shape", "roi")},
    "ExperimenterGroup": {"groupExperimenterMap": ("GroupExperimenterMap", "parent")},
    "Experimenter": {"groupExperimenterMap": ("GroupExperimenterMap", "child")},
}
"""Kind -> collection -> kind of its members and their attribute that refers back."""

ORDERED = {("Well", "wellSamples"), ("Pixels", "channels"), ("Roi", "shapes"), ("Image", "pixels")}
"""Collections of which HQL may ask ``index(member)``; ``ordered="true"`` in the model."""

UNIQUE: dict[str, tuple[str, ...]] = {
    # psql-footer.vm of omero-model: create unique index well_col_row
    "Well": ("plate", "column", "row"),
}
"""Kind -> attributes of which no two rows agree in all; links are unique with their owner."""

for _kind in _ANNOTATED:
    TO_ONE[f"{_kind}AnnotationLink"] = {"parent": _kind, "child": "Annotation"}
    TO_MANY.setdefault(_kind, {})["annotationLinks"] = (f"{_kind}AnnotationLink", "parent")
for _kind in _ANNOTATIONS:
    TO_ONE[_kind] = {"file": "OriginalFile"} if _kind == "FileAnnotation" else {}
for _kind in _SHAPES:
    TO_ONE[_kind] = {"roi": "Roi"}
for _kind in ENUMERATIONS:
    TO_ONE[_kind] = {}

DETAILS = {
    "owner": "Experimenter",
    "group": "ExperimenterGroup",
    "creationEvent": "Event",
    "updateEvent": "Event",
    "externalInfo": "ExternalInfo",
}
"""Attributes of every object's ``details``."""


def root_of(kind: str) -> str:
    """The kind that shares its numbers with `kind`: ``Annotation`` of ``MapAnnotation``."""
    if kind in _ANNOTATIONS:
        return "Annotation"
    return "Shape" if kind in _SHAPES else kind


def is_a(kind: str, wanted: str) -> bool:
    """Whether `kind` is `wanted` or derived from it."""
    return kind == wanted or root_of(kind) == wanted


def is_link(kind: str) -> bool:
    """Whether rows of `kind` link a parent to a child."""
    return kind.endswith("Link")


def kind_of(obj: Any) -> str:
    """``Plate`` of a ``PlateI``."""
    return type(obj).__name__.removesuffix("I")


@cache
def scalars(kind: str) -> dict[str, bool]:
    """Names of the fields of `kind` that are neither relation nor collection -> may be null."""
    if kind == "Annotation":
        return dict.fromkeys(("ns", "name", "description"), True)
    if kind == "Shape":
        return dict.fromkeys(("theZ", "theT", "theC"), True)
    if kind in ENUMERATIONS:
        return {"value": False}
    obj = getattr(omero.model, f"{kind}I")()
    infos = obj._field_info._asdict()
    return {
        name: info.nullable
        for name, info in infos.items()
        if name != "details" and hasattr(obj, f"_{name}") and name not in TO_ONE[kind]
    }


def required(kind: str) -> set[str]:
    """Fields of `kind` that must be set."""
    infos = getattr(omero.model, f"{kind}I")()._field_info._asdict()
    known = {**scalars(kind), **TO_ONE[kind]}
    return {name for name in known if name in infos and not infos[name].nullable}
