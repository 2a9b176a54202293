"""Plates that we make: created once, wells empty, images made with their data.

An image is complete on the server before a well lists it; linking the fields of a well is one
transaction, which the server refuses if another process changed the well meanwhile. A process
that is killed leaves at most images that no well lists.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import omero.model
from omero.model import LengthI
from omero.model.enums import UnitsLength
from omero.rtypes import rint, rstring, unwrap

from ...errors import (
    AlreadyExistsError,
    ConflictError,
    MismatchError,
    NotFoundError,
    PolystoreError,
    StoreUnavailableError,
    UnsupportedError,
)
from ...hcs.address import parse_well
from ...hcs.provenance import Provenance
from ...hcs.spec import PlateSpec
from . import claims
from .annotations import PROVENANCE, SPEC
from .connection import Connection, Live
from .labels import write_label
from .planes import pixels_type_of, write_planes
from .structure import OURS, image_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .plate import OmeroPlate

TRIES = 50
"""How often a well is linked anew after another process changed it."""

_BY_NAME = "select pl from Plate as pl where pl.name = :name and pl.externalIdentifier = :mark"
_BY_MARK = "select i.id from Image as i where i.description = :mark"
_WELL = """
    select w from Well as w left outer join fetch w.wellSamples as ws
      left outer join fetch ws.image as i
     where w.plate.id = :id and w.row = :row and w.column = :column
"""
_PIXELS = """
    select p from Pixels as p join fetch p.channels as c join fetch c.logicalChannel as lc
     where p.image.id = :id
"""


def find_by_name(connection: Connection, name: str, where: str) -> int:
    """Number of the plate of this name that we made.

    Raises:
        NotFoundError: there is none.
        ConflictError: there are several, in different groups or of different people.
    """
    found = [
        obj.getId().getValue()
        for obj in connection.objects(_BY_NAME, where, name=name, mark=OURS)
        if claims.is_decided(unwrap(obj.getStatus()))
    ]
    if not found:
        raise NotFoundError(
            f"{where} does not exist; create it with create_plate(), or give the plate's number"
        )
    if len(found) > 1:
        numbers = ", ".join(map(str, sorted(found)))
        raise ConflictError(f"{where}: plates {numbers} have this name; give the number of one")
    return int(found[0])


def create(connection: Connection, name: str, spec: PlateSpec, where: str) -> int:
    """Make a plate without wells; its number. One of several processes succeeds.

    Raises:
        AlreadyExistsError: there is one of this name.
    """
    group = _group(connection, where)

    def rivals() -> list[Any]:
        return connection.objects(_BY_NAME, where, group=group, name=name, mark=OURS)

    if any(claims.is_decided(unwrap(obj.getStatus())) for obj in rivals()):
        raise AlreadyExistsError(f"{where} exists; choose another name or pass exist_ok=True")
    plate = _plate(name, spec)
    number = connection.save([plate], group, where)[0].getId().getValue()
    try:
        won = claims.settle(connection, number, rivals, "status", group, where)
    except BaseException:
        with suppress(PolystoreError):
            connection.delete({"Plate": [number]}, where, group=group)
        raise
    if not won:
        with suppress(PolystoreError):
            connection.delete({"Plate": [number]}, where, group=group)
        raise AlreadyExistsError(f"{where} exists; another process made it just now")
    return int(number)


def _group(connection: Connection, where: str) -> int:
    """Number of the group that new plates are made in."""
    name = connection.login.group
    if name is None:
        context = connection.run(lambda live: live.service("getAdminService").getEventContext())
        return int(context.groupId)
    found = connection.rows(
        "select g.id from ExperimenterGroup as g where g.name = :name", where, name=name
    )
    if not found:
        raise NotFoundError(f"{where}: there is no group {name!r}; see POLYSTORE_OMERO_GROUP")
    return int(found[0][0])


def _plate(name: str, spec: PlateSpec) -> Any:
    """An unsaved plate that is a candidate, with its spec as an annotation."""
    plate = omero.model.PlateI()
    plate.setName(rstring(name))
    plate.setStatus(rstring(claims.CANDIDATE))
    plate.setExternalIdentifier(rstring(OURS))
    plate.setRows(rint(len(spec.layout.rows)))
    plate.setColumns(rint(len(spec.layout.columns)))
    for axis, names in (("Row", spec.layout.rows), ("Column", spec.layout.columns)):
        rule = "number" if names[0].isdecimal() else "letter"
        getattr(plate, f"set{axis}NamingConvention")(rstring(rule))
    annotation = omero.model.MapAnnotationI()
    annotation.setNs(rstring(SPEC))
    kept: dict[str, Any] = {
        "channels": [{"name": c.name, "color": c.color} for c in spec.channels],
        "pixel_size": list(spec.pixel_size),
    }
    annotation.setDescription(rstring(json.dumps(kept)))
    pairs = {"channels": ", ".join(c.name for c in spec.channels)}
    pairs["pixel size z, y, x (µm)"] = ", ".join(f"{s:g}" for s in spec.pixel_size)
    annotation.setMapValue([omero.model.NamedValue(*pair) for pair in pairs.items()])
    plate.linkAnnotation(annotation)
    return plate


def write_well(
    plate: OmeroPlate,
    well: str,
    images: Mapping[str, NDArray[Any]],
    labels: Mapping[str, Mapping[str, NDArray[Any]]],
    provenance: Mapping[str, Provenance | None],
    *,
    overwrite: bool,
    keep_others: bool,
) -> None:
    """Make images, complete with labels and provenance, then list them in the well at once.

    Raises:
        AlreadyExistsError: the well, or a field of it, exists and `overwrite` is false.
        MismatchError: an array does not fit the plate.
        UnsupportedError: the plate was imported, not made by us.
    """
    contents, where = plate.contents, f"{plate.uri}/{well}"
    if not contents.structure.ours:
        raise UnsupportedError(
            f"{plate.uri} was not made by polystore-flows, so no images are added to it; make a "
            "plate for results with create_plate(…, like=plate)"
        )
    _check(plate, well, images, overwrite=overwrite, keep_others=keep_others)
    connection, group = contents.connection, contents.structure.group_id
    made: dict[str, int] = {}
    try:
        for field, array in images.items():
            place = f"{where}/{field}"
            made[field] = _image(plate, image_name(plate.name, well, field), array, group, place)
            number = _describe(plate, made[field], group, place)
            write_planes(connection, number, array, group, place)
            _tell_ranges(connection, number, array, group, place)
            for name, mask in labels.get(field, {}).items():
                write_label(
                    connection,
                    made[field],
                    name,
                    mask,
                    group,
                    f"{place}/labels/{name}",
                    old=None,
                    overwrite=True,
                )
            made_by = provenance.get(field)
            if made_by is not None:
                connection.save([_noted(made[field], made_by)], group, place)
        gone = _link(plate, well, made, overwrite=overwrite, keep_others=keep_others)
    except BaseException:
        if made:
            with suppress(PolystoreError):
                connection.delete({"Image": list(made.values())}, where, group=group)
        raise
    for kind, numbers in gone.items():
        if numbers:
            connection.delete({kind: numbers}, where, group=group)


def _check(
    plate: OmeroPlate,
    well: str,
    images: Mapping[str, NDArray[Any]],
    *,
    overwrite: bool,
    keep_others: bool,
) -> None:
    structure = plate.contents.structure
    known = structure.wells[well].images if well in structure.wells else {}
    there = [field for field in images if field in known] if keep_others else list(known)
    if there and not overwrite:
        raise AlreadyExistsError(
            f"{plate.uri}/{well} holds field {', '.join(there)}; pass overwrite=True to replace"
        )
    shapes = {(array.shape, str(array.dtype)) for array in images.values()}
    others = {
        (image.shape, image.pixels_type)
        for path, stored in structure.wells.items()
        for field, image in stored.images.items()
        if not (path == well and overwrite and (field in images or not keep_others))
    }
    wanted = {
        (array.shape, pixels_type_of(array.dtype, f"{plate.uri}/{well}"))
        for array in images.values()
    }
    if len(shapes) > 1 or (others and not wanted <= others):
        shape, kind = next(iter(others or wanted))
        raise MismatchError(
            f"{plate.uri}/{well}: all fields of a plate have one shape and dtype; the plate's are "
            f"{shape} {kind}, these {', '.join(f'{s} {k}' for s, k in sorted(wanted))}"
        )


def _image(plate: OmeroPlate, name: str, array: NDArray[Any], group: int, where: str) -> int:
    """Make an image that no well lists yet; its number."""
    connection, kind = plate.contents.connection, pixels_type_of(array.dtype, where)
    t, c, z, y, x = array.shape
    mark, context = f"Made by polystore-flows, {uuid.uuid4().hex}", {"omero.group": str(group)}
    (pixels_type,) = connection.objects(
        "select p from PixelsType as p where p.value = :value", where, value=kind
    )

    def act(live: Live) -> int:
        made = live.service("getPixelsService").createImage(
            x, y, z, t, list(range(c)), pixels_type, name, mark, context
        )
        return int(made.getValue())

    try:
        return connection.run(act, where, repeat=False)
    except StoreUnavailableError:
        # Only the answer may be lost. An image that nobody knows of would stay for ever.
        found = connection.rows(_BY_MARK, where, group=group, mark=mark)
        if not found:
            raise
        return int(found[0][0])


def _describe(plate: OmeroPlate, image_id: int, group: int, where: str) -> int:
    """Set an image's channels and pixel size; number of its pixels."""
    (pixels,) = plate.contents.connection.objects(_PIXELS, where, id=image_id)
    channels = plate.channel_info
    for i, channel in enumerate(pixels.copyChannels()):
        name = channels[i].name if channels else str(i)
        channel.getLogicalChannel().setName(rstring(name))
        if channels:
            color = bytes.fromhex(channels[i].color)
            for part, value in zip(("Red", "Green", "Blue"), color, strict=True):
                getattr(channel, f"set{part}")(rint(value))
            channel.setAlpha(rint(255))
    for axis, size in zip("ZYX", plate.pixel_size, strict=True):
        getattr(pixels, f"setPhysicalSize{axis}")(LengthI(size, UnitsLength.MICROMETER))
    plate.contents.connection.save([pixels], group, where)
    return int(pixels.getId().getValue())


def _noted(image_id: int, provenance: Provenance) -> Any:
    """An unsaved annotation of an image: key-value pairs for people, JSON for us."""
    kept = provenance.as_json()
    annotation = omero.model.MapAnnotationI()
    annotation.setNs(rstring(PROVENANCE))
    annotation.setDescription(rstring(json.dumps(kept)))
    pairs = {"tool": provenance.tool, "version": provenance.version, "created": provenance.created}
    pairs |= {f"parameter {k}": json.dumps(v) for k, v in provenance.parameters.items()}
    pairs |= {f"input {i}": entry.uri for i, entry in enumerate(provenance.inputs, 1)}
    annotation.setMapValue([omero.model.NamedValue(k, v) for k, v in pairs.items() if v])
    link = omero.model.ImageAnnotationLinkI()
    link.setParent(omero.model.ImageI(image_id, False))
    link.setChild(annotation)
    return link


def _tell_ranges(
    connection: Connection, pixels_id: int, array: NDArray[Any], group: int, where: str
) -> None:
    """Tell the server each channel's smallest and largest value, for its viewers."""
    context = {"omero.group": str(group)}
    for c in range(array.shape[1]):
        low, high = float(array[:, c].min()), float(array[:, c].max())

        def act(live: Live, c: int = c, low: float = low, high: float = high) -> None:
            live.service("getPixelsService").setChannelGlobalMinMax(
                pixels_id, c, low, high, context
            )

        connection.run(act, where)


def _link(
    plate: OmeroPlate,
    well: str,
    made: Mapping[str, int],
    *,
    overwrite: bool,
    keep_others: bool,
) -> dict[str, list[int]]:
    """List images in a well in one transaction; what is to be deleted then, by kind."""
    contents, where = plate.contents, f"{plate.uri}/{well}"
    connection, group = contents.connection, contents.structure.group_id
    place = plate.layout.find(parse_well(well))
    assert place is not None
    for _ in range(TRIES):
        found = connection.objects(
            _WELL, where, group=group, id=contents.plate_id, row=place[0], column=place[1]
        )
        stored = found[0] if found else _new_well(contents.plate_id, place)
        samples = {_field_of(sample): sample for sample in stored.copyWellSamples()}
        there = [field for field in made if field in samples] if keep_others else list(samples)
        if there and not overwrite:
            raise AlreadyExistsError(f"{where} holds field {', '.join(there)} by now")
        old = [samples[f].getImage().getId().getValue() for f in made if f in samples]
        for field, number in made.items():
            sample = samples.get(field)
            if sample is None:
                sample = omero.model.WellSampleI()
                stored.addWellSample(sample)
            sample.setImage(omero.model.ImageI(number, False))
        gone = [] if keep_others else [s for f, s in samples.items() if f not in made]
        listed = sorted({*samples, *made} if keep_others else made)
        # Changing the well itself makes the server refuse the slower of two processes.
        stored.setExternalDescription(rstring(f"fields {', '.join(listed)}; {max(made.values())}"))
        try:
            connection.save([stored], group, where)
        except (ConflictError, MismatchError) as error:
            last = error
            time.sleep(random.uniform(0.01, 0.1))
            continue
        return {"Image": old, "WellSample": [s.getId().getValue() for s in gone]}
    raise StoreUnavailableError(f"{where} is changed by others all the time; try again") from last


def _new_well(plate_id: int, place: tuple[int, int]) -> Any:
    well = omero.model.WellI()
    well.setPlate(omero.model.PlateI(plate_id, False))
    well.setRow(rint(place[0]))
    well.setColumn(rint(place[1]))
    return well


def _field_of(sample: Any) -> str:
    """The field that an image of a plate of ours is named after."""
    name = sample.getImage().getName().getValue()
    return str(name.rpartition("/")[2].removesuffix("]"))
