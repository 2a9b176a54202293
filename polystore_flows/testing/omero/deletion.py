"""What goes with an object that is deleted, after OMERO's ``blitz-delete-rules.xml``.

Contained objects go; annotations go with the last object they were on, files and tags only if
they have its owner; the image of a field goes with the field and not without it.
"""

from __future__ import annotations

import omero

from .access import Access
from .schema import TO_MANY, is_link, root_of
from .store import Row

_OWNERS = ("FileAnnotation", "TagAnnotation")


def delete(targets: dict[str, list[int]], access: Access, *, cascade: bool = True) -> list[Row]:
    """Delete rows and, with `cascade`, what belongs to them; in the caller's transaction.

    Raises:
        omero.SecurityViolation: one may not be deleted; nothing is.
        omero.ValidationException: there is no such row, or something else refers to one.
    """
    rows: dict[tuple[str, int], Row] = {}
    for kind, numbers in targets.items():
        for number in numbers:
            row = access.store.find(kind, number)
            if row is None or not access.readable(row):
                raise omero.ValidationException(message=f"No row {kind}:{number}")
            _collect(row, access, rows, cascade)
    for row in rows.values():
        if not access.writable(row):
            raise omero.SecurityViolation(message=f"not permitted to delete {row.kind}:{row.id}")
    access.store.delete(rows.values())
    return list(rows.values())


def _collect(row: Row, access: Access, rows: dict[tuple[str, int], Row], cascade: bool) -> None:
    if row.ref in rows:
        return
    rows[row.ref] = row
    if not cascade:
        return
    store = access.store
    for attribute, (kind, back) in TO_MANY.get(row.kind, {}).items():
        if (row.kind, attribute) == ("Image", "wellSamples"):
            continue  # what still refers to the image makes its deletion fail
        for member in store.members(kind, back, row.id):
            _collect(member, access, rows, cascade)
            if is_link(kind) and attribute == "annotationLinks":
                _orphan(member, row, access, rows)
    if row.kind == "WellSample":
        image = store.find(*row.fields["image"])
        others = store.members("WellSample", "image", row.fields["image"].id)
        if image is not None and all(other.ref in rows for other in others):
            _collect(image, access, rows, cascade)
    if root_of(row.kind) == "Annotation":
        for link in list(store.referring(row.ref)):
            _collect(link, access, rows, cascade)
        if row.fields.get("file") is not None:
            file = store.find(*row.fields["file"])
            users = store.referring(row.fields["file"])
            if file is not None and all(user.ref in rows for user in users):
                rows[file.ref] = file
    if row.kind == "Channel":
        for name in ("logicalChannel", "statsInfo"):
            ref = row.fields.get(name)
            part = store.find(*ref) if ref is not None else None
            if part is not None:
                rows[part.ref] = part


def _orphan(link: Row, parent: Row, access: Access, rows: dict[tuple[str, int], Row]) -> None:
    """Delete an annotation that only what is deleted was linked to."""
    child = access.store.find(*link.fields["child"])
    if child is None or (child.kind in _OWNERS and child.owner != parent.owner):
        return
    if all(other.ref in rows for other in access.store.referring(child.ref)):
        _collect(child, access, rows, cascade=True)
