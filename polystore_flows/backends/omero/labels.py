"""Label images as masks: one ROI for each value, as OMERO's viewers and omero-rois have them.

An annotation on the image names the label and says which ROIs are its own; linking it is what
makes the label be there, so that a reader meets the old label or the new one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import omero.model
from omero.rtypes import rdouble, rint, rstring

from ...errors import CorruptDataError, PolystoreError
from .annotations import LABEL, Attachment, Owner, attach
from .connection import Connection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH = 500
"""ROIs that are written at a time."""
_ROIS = """
    select r from Roi as r join fetch r.shapes as s
     where r.image.id = :id and r.description = :mark
"""


def label_name(attachment: Attachment) -> str | None:
    """The label's name, if the annotation stands for one of ours."""
    return attachment.ns.removeprefix(LABEL) if attachment.ns.startswith(LABEL) else None


def write_label(
    connection: Connection,
    image_id: int,
    name: str,
    array: NDArray[Any],
    group: int,
    where: str,
    *,
    old: Attachment | None,
    overwrite: bool,
) -> None:
    """Write a label image ``(t, 1, z, y, x)``; `old` is the one that it replaces."""
    mark = f"polystore-flows:{uuid.uuid4()}"
    made: list[int] = []
    try:
        rois = list(_rois(image_id, name, mark, array))
        for start in range(0, len(rois), _BATCH):
            saved = connection.save(rois[start : start + _BATCH], group, where)
            made += [roi.getId().getValue() for roi in saved]
        annotation = omero.model.MapAnnotationI()
        annotation.setNs(rstring(LABEL + name))
        kept = {"dtype": str(array.dtype), "rois": mark}
        annotation.setDescription(rstring(json.dumps(kept, sort_keys=True)))
        annotation.setMapValue([omero.model.NamedValue("label", name)])
        attach(connection, Owner("Image", image_id), annotation, group, where, overwrite=overwrite)
    except BaseException:
        if made:
            with suppress(PolystoreError):
                connection.delete({"Roi": made}, where, group=group)
        raise
    if old is not None:
        _delete_rois(connection, old, group, where)


def read_label(
    connection: Connection,
    attachment: Attachment,
    shape: tuple[int, int, int, int, int],
    where: str,
) -> NDArray[Any]:
    """The label image of an annotation, ``(t, 1, z, y, x)``."""
    import numpy as np

    kept = json.loads(attachment.description)
    array = np.zeros((shape[0], 1, *shape[2:]), np.dtype(kept["dtype"]))
    for roi in connection.objects(_ROIS, where, id=attachment.owner.id, mark=kept["rois"]):
        for mask in roi.copyShapes():
            value = array.dtype.type(int(mask.getTextValue().getValue()))
            _paint(array, mask, value, where)
    return array


def delete_label(connection: Connection, attachment: Attachment, group: int, where: str) -> None:
    """Delete a label: its annotation first, then its ROIs."""
    connection.delete({"MapAnnotation": [attachment.id]}, where, group=group)
    _delete_rois(connection, attachment, group, where)


def _delete_rois(connection: Connection, attachment: Attachment, group: int, where: str) -> None:
    mark = json.loads(attachment.description)["rois"]
    rois = connection.rows(
        "select r.id from Roi as r where r.image.id = :id and r.description = :mark",
        where,
        id=attachment.owner.id,
        mark=mark,
    )
    if rois:
        connection.delete({"Roi": [row[0] for row in rois]}, where, group=group)


def _rois(image_id: int, name: str, mark: str, array: NDArray[Any]) -> Iterator[Any]:
    """An unsaved ROI for each value but 0, with a mask for each plane that has it."""
    import numpy as np

    made: dict[int, Any] = {}
    for t in range(array.shape[0]):
        for z in range(array.shape[2]):
            plane = array[t, 0, z]
            for value, rows, columns in _boxes(plane):
                roi = made.get(value)
                if roi is None:
                    roi = made[value] = omero.model.RoiI()
                    roi.setImage(omero.model.ImageI(image_id, False))
                    roi.setName(rstring(f"{name} {value}"))
                    roi.setDescription(rstring(mark))
                mask = omero.model.MaskI()
                bits = plane[rows, columns] == value
                mask.setBytes(np.packbits(bits).tobytes())
                mask.setTextValue(rstring(str(value)))
                mask.setTheT(rint(t))
                mask.setTheZ(rint(z))
                mask.setX(rdouble(columns.start))
                mask.setY(rdouble(rows.start))
                mask.setWidth(rdouble(bits.shape[1]))
                mask.setHeight(rdouble(bits.shape[0]))
                roi.addShape(mask)
    yield from made.values()


def _boxes(plane: NDArray[Any]) -> Iterator[tuple[int, slice, slice]]:
    """Each value of a plane but 0, with the rows and columns that it is in."""
    import numpy as np

    y, x = np.nonzero(plane)
    if not len(y):
        return
    values, inverse = np.unique(plane[y, x], return_inverse=True)
    low_y, low_x = np.full(len(values), plane.shape[0]), np.full(len(values), plane.shape[1])
    high_y, high_x = np.zeros(len(values), int), np.zeros(len(values), int)
    np.minimum.at(low_y, inverse, y)
    np.minimum.at(low_x, inverse, x)
    np.maximum.at(high_y, inverse, y)
    np.maximum.at(high_x, inverse, x)
    for i, value in enumerate(values):
        yield (
            int(value),
            slice(int(low_y[i]), int(high_y[i]) + 1),
            slice(int(low_x[i]), int(high_x[i]) + 1),
        )


def _paint(array: NDArray[Any], mask: Any, value: np.generic, where: str) -> None:
    import numpy as np

    x, y, width, height = (
        int(getattr(mask, f"get{name}")().getValue()) for name in ("X", "Y", "Width", "Height")
    )
    bits = np.unpackbits(np.frombuffer(mask.getBytes(), np.uint8))
    if len(bits) < width * height:
        raise CorruptDataError(f"{where}: a mask is cut off")
    inside = bits[: width * height].reshape(height, width).astype(bool)
    t, z = mask.getTheT().getValue(), mask.getTheZ().getValue()
    array[t, 0, z, y : y + height, x : x + width][inside] = value
