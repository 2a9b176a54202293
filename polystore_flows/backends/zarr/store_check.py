"""The check of a plate in a store, and its repair by compare-and-swap.

Nobody can tell whether the writer of arrays that no image names is dead or at work, so they are
left alone, and not spoken of, until they are an hour old.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ...errors import PolystoreError
from ...hcs import ngff
from ...threads import in_threads
from .check import Finding, fields_on_disk, most_fields, rules
from .commit import row_attributes, with_document
from .nodes import OURS, attributes_in, find_document, read_attributes, version_at
from .rebuild import document_of, lost_wells
from .store_path import StorePath
from .store_plate import StoredPlate, WritableStoredPlate
from .store_tables import list_table
from .uploads import IN_UPLOAD, change_labels, image_id, put_group, update

AGE = 3600.0
"""Seconds after which an upload that was not finished is taken for abandoned."""


def check(root: StorePath, uri: str) -> list[Finding]:
    """All findings about the plate in `root`; reads metadata only, changes nothing.

    Raises as ``check.check``.
    """
    listed = root.listed()
    lost = lost_wells(listed)
    if lost:
        return [Finding("plate-json", uri, f"it is gone, but {len(lost)} wells are there", True)]
    plate = StoredPlate(listed, uri)
    found = list(rules(plate))
    for number, finding in enumerate(found):
        if finding.rule == "unlisted-label" and not _belongs(root / _inner(finding, uri)):
            message = "is a label image of an image that was replaced"
            found[number] = replace(finding, rule="left-over", message=message)
    grid = (listed.joinpath(row, column) for row in plate.rows for column in plate.columns)
    for folders in in_threads(lambda well: list(_unnamed(well)), [w for w in grid if w.is_dir()]):
        for folder in folders:
            if max(stat.mtime for stat in folder.files().values()) < time.time() - AGE:
                where = f"{uri}/{folder.relative_to(listed)}"
                message = "belongs to no image: its writer was killed"
                found.append(Finding("left-over", where, message, repairable=True))
    return found


def repair(root: StorePath, uri: str) -> list[Finding]:
    """Mend what can be mended; the findings that were mended.

    Lists complete wells, fields and label images, takes those off the lists that are not there,
    sets ``field_count`` and removes what belongs to no image. Other writers may be at work. A
    failure leaves a valid plate; call it again.
    """
    found = [finding for finding in check(root, uri) if finding.repairable]
    lost = lost_wells(root) if found and found[0].rule == "plate-json" else {}
    if lost:
        put_group(root, document_of(root, uri, lost), version_at(root / next(iter(lost))))
        return found + repair(root, uri)
    plate = WritableStoredPlate(root, uri)
    for finding in sorted(found, key=lambda f: f.rule.endswith("-well")):  # wells after their parts
        _mend(plate, finding.rule, _inner(finding, uri))
    if found:
        _count_fields(plate)
    return found


def _mend(plate: WritableStoredPlate, rule: str, inner: str) -> None:
    well, parts = "/".join(inner.split("/")[:2]), inner.split("/")
    if rule == "missing-well":
        plate.unlist([well])
    elif rule == "unlisted-well":
        plate.relist(well)
    elif rule == "row-json":
        put_group(plate.folder / inner, row_attributes(plate), plate.version)
    elif rule == "well-json":
        plate.change_fields(well, lambda _: fields_on_disk(plate, well))
    elif rule == "missing-field":
        plate.change_fields(well, lambda names: [name for name in names if name != parts[2]])
    elif rule == "unlisted-field":
        plate.change_fields(well, lambda names: [*names, parts[2]])
    elif rule in ("missing-label", "unlisted-label"):
        labels, name = plate.folder.joinpath(*parts[:4]), parts[4]
        listed = {name} if rule == "unlisted-label" else set()
        change_labels(labels, plate.version, lambda names: {*names} - {name} | listed)
    elif rule == "table":
        list_table(plate, plate.root / inner)
    elif rule == "consolidated":
        plate.forget_consolidated()
    elif rule == "left-over":
        plate.folder.store.remove_tree((plate.folder / inner).uri.text)


def _count_fields(plate: WritableStoredPlate) -> None:
    """Set ``field_count``, and that of each acquisition, to the largest number in a well."""
    plate.refresh()
    listed = in_threads(plate._acquisitions_of, plate.wells)
    path: Any = plate.document_path

    def counted(content: dict[str, Any]) -> dict[str, Any]:
        attributes = attributes_in(path, content, plate.uri)
        if "plate" not in attributes.get("ome", attributes):
            return content
        count, counts = most_fields(plate, listed)
        now = ngff.read_plate(attributes, plate.uri)
        document = replace(now, field_count=count, acquisition_fields=counts)
        return with_document(plate, content, document, attributes.get(OURS) or {})

    if listed:
        update(path, counted)


def _unnamed(well: StorePath) -> Iterator[StorePath]:
    """Folders in a well whose arrays no image names."""
    for field in well.iterdir():
        if field.is_file() or field.name == "tables":
            continue
        masks = [entry for entry in (field / "labels").iterdir() if entry.is_dir()]
        for image in (field, *masks):
            if find_document(image) is None:
                yield image
                continue
            try:
                attributes = read_attributes(image, str(image))
                names = ngff.read_image(attributes, str(image)).paths
            except PolystoreError:  # which is a finding of its own
                continue
            folders = (entry for entry in image.iterdir() if entry.is_dir())
            yield from (f for f in folders if IN_UPLOAD.fullmatch(f.name) and f.name not in names)


def _belongs(label: StorePath) -> bool:
    """Whether a label image was made for the image that is there now."""
    image = label.parent.parent
    mine, its = (image_id(read_attributes(part, str(part))) for part in (label, image))
    return mine is None or its is None or mine == its


def _inner(finding: Finding, uri: str) -> str:
    return finding.where.removeprefix(uri).strip("/")
