"""Files, tables and labels on a plate, its wells and images: annotations of OMERO.

Ours have the namespace ``polystore-flows`` and their path below the object as description. What
was attached by others is found by the name of its file.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import omero.model
from omero.rtypes import rlong, rstring

from ...errors import AlreadyExistsError, CorruptDataError, PolystoreError
from ...hcs.address import TEXT_SUFFIXES
from . import claims
from .connection import Connection, Live
from .structure import OURS

LABEL = f"{OURS}/label/"
"""Start of the namespace of annotations that stand for label images; their name follows."""
SPEC = f"{OURS}/plate"
"""Namespace of the annotation that holds what a plate was made from."""
PROVENANCE = f"{OURS}/provenance"
"""Namespace of the key-value pairs that say what made an image."""
TABLE_TYPE = "OMERO.tables"
"""Mimetype of the file of an OMERO table."""

_BLOCK = 2**20
_EVERYWHERE = {"omero.group": "-1"}
_TYPES = {".json": "application/json", ".csv": "text/csv", ".tsv": "text/tab-separated-values"}
_SELECT = """
    select o.id, a.id, a.ns, a.name, a.description, f.id, f.name, f.size, f.mimetype, event.time
      from {kind}AnnotationLink as l join l.parent as o join l.child as a
      join a.details.creationEvent as event left outer join a.file as f {joins}
     where {plate} = :id order by a.id
"""
_WAYS = {
    "Plate": ("", "o.id"),
    "Well": ("", "o.plate.id"),
    "Image": ("join o.wellSamples as ws join ws.well as w", "w.plate.id"),
}


class OMEROFileFormatRegistry:
    """Which files are kept as annotations."""

    @staticmethod
    def is_text_format(name: str) -> bool:
        """Whether a file of this name is a table or text: .json, .csv, .tsv, .txt."""
        return str(name).lower().endswith(TEXT_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Owner:
    """What an annotation is on."""

    kind: str
    """``Plate``, ``Well`` or ``Image``."""
    id: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """One annotation and its file."""

    owner: Owner
    id: int
    ns: str
    description: str
    file_id: int | None
    name: str
    """The path below its owner: ``tables/counts.csv``; empty for labels and the like."""
    size: int
    mimetype: str
    created: float


def read_attachments(connection: Connection, plate_id: int, where: str) -> list[Attachment]:
    """All that is on a plate, its wells and images; three calls, whatever their number."""
    found = []
    for kind, (joins, plate) in _WAYS.items():
        query = _SELECT.format(kind=kind, joins=joins, plate=plate)
        for owner, number, ns, state, text, file, name, size, mime, time in connection.rows(
            query, where, id=plate_id
        ):
            if not claims.is_decided(state):
                continue
            path = (text if ns == OURS else name) if file is not None else ""
            found.append(
                Attachment(
                    Owner(kind, owner),
                    number,
                    ns or "",
                    text or "",
                    file,
                    path or "",
                    size or 0,
                    mime or "",
                    time / 1000,
                )
            )
    return found


def attach(
    connection: Connection,
    owner: Owner,
    annotation: Any,
    group: int,
    where: str,
    *,
    overwrite: bool,
) -> None:
    """Link a new annotation in place of older ones of its ns (files: and description).

    Without `overwrite` one of several processes succeeds.

    Raises:
        AlreadyExistsError: there is one already, and `overwrite` is false; ours is gone again.
    """
    link = getattr(omero.model, f"{owner.kind}AnnotationLinkI")()
    link.setParent(getattr(omero.model, f"{owner.kind}I")(owner.id, False))
    if not overwrite:
        annotation.setName(rstring(claims.CANDIDATE))
    link.setChild(annotation)
    ns, text = annotation.getNs().getValue(), annotation.getDescription().getValue()
    told = {"text": text} if ns == OURS else {}
    number = connection.save([link], group, where)[0].getChild().getId().getValue()

    def rivals() -> list[Any]:
        links = connection.objects(
            f"select l from {owner.kind}AnnotationLink as l join fetch l.child as a "
            "join l.parent as o where o.id = :id and a.ns = :ns"
            + (" and a.description = :text" if told else ""),
            where,
            id=owner.id,
            ns=ns,
            **told,
        )
        return [link.getChild() for link in links]

    kind = type(annotation).__name__.removesuffix("I")
    if overwrite:
        others = [other.getId().getValue() for other in rivals()]
        newest = max([*others, number])
        connection.delete({kind: [n for n in others if n != newest]}, where, group=group)
    elif not claims.settle(connection, number, rivals, "name", group, where):
        with suppress(PolystoreError):
            connection.delete({kind: [number]}, where, group=group)
        raise AlreadyExistsError(f"{where} exists; pass overwrite=True to replace it")


def write_file(
    connection: Connection,
    owner: Owner,
    path: str,
    data: bytes,
    group: int,
    where: str,
    *,
    overwrite: bool,
) -> None:
    """Attach a file; when this fails nothing of it is left."""
    folder, _, name = path.rpartition("/")
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    file = omero.model.OriginalFileI()
    file.setName(rstring(name))
    file.setPath(rstring(f"{folder}/"))
    file.setSize(rlong(len(data)))
    file.setMimetype(rstring(_TYPES.get(suffix, "text/plain")))
    number = connection.save([file], group, where)[0].getId().getValue()

    def fill() -> None:
        _upload(connection, number, data, group, where)

    attach_file(connection, owner, path, number, fill, group, where, overwrite=overwrite)


def attach_file(
    connection: Connection,
    owner: Owner,
    path: str,
    file_id: int,
    fill: Callable[[], None],
    group: int,
    where: str,
    *,
    overwrite: bool,
) -> None:
    """Write a file's content by `fill`, then attach it; delete it where either fails."""
    annotation = omero.model.FileAnnotationI()
    annotation.setNs(rstring(OURS))
    annotation.setDescription(rstring(path))
    annotation.setFile(omero.model.OriginalFileI(file_id, False))
    try:
        fill()
        attach(connection, owner, annotation, group, where, overwrite=overwrite)
    except AlreadyExistsError:
        raise  # which took the file with the annotation
    except BaseException:
        with suppress(PolystoreError):
            connection.delete({"OriginalFile": [file_id]}, where, group=group)
        raise


def read_file(connection: Connection, file_id: int, size: int, where: str) -> bytes:
    """The content of a file.

    Raises:
        CorruptDataError: it is shorter than the server says.
    """

    def act(live: Live) -> bytes:
        store = live.factory.createRawFileStore()
        try:
            store.setFileId(file_id, _EVERYWHERE)
            parts = []
            for start in range(0, size, _BLOCK):
                parts.append(store.read(start, min(_BLOCK, size - start), _EVERYWHERE))
            return b"".join(parts)
        finally:
            store.close()

    data = connection.run(act, where)
    if len(data) != size:
        raise CorruptDataError(f"{where}: the server sent {len(data)} bytes of {size}")
    return data


def _upload(connection: Connection, file_id: int, data: bytes, group: int, where: str) -> None:
    def act(live: Live) -> None:
        context = {"omero.group": str(group)}
        store = live.factory.createRawFileStore(context)
        try:
            store.setFileId(file_id, context)
            for start in range(0, len(data), _BLOCK):
                block = data[start : start + _BLOCK]
                store.write(block, start, len(block), context)
            store.truncate(len(data), context)
            store.save(context)
        finally:
            store.close()

    connection.run(act, where)
