"""Images on their way into a store, where nothing can be renamed and nothing is locked.

The arrays of an image go to keys that hold nothing yet; the image's own JSON names them and is
put last. So whoever reads that JSON finds complete arrays of one revision, old or new, and one
put replaces the image. A new image has the usual names, ``0``, ``1`` …, if its writer is the one
to make ``0/zarr.json``; else, and where it replaces another, ``0-1f6b07c2`` …, which NGFF allows.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import AlreadyExistsError, NotFoundError, PolystoreError
from ...hcs import ngff
from ...metadata import atomic_update_json, read_json
from ...settings import get_settings
from ...threads import in_threads
from .nodes import (
    OURS,
    attributes_in,
    document_path,
    find_document,
    group_content,
    with_attributes,
)
from .store_path import StorePath

_ARRAY = {"0.5": "zarr.json", "0.4": ".zarray"}
"""Name of an array's metadata."""
_METADATA = {*_ARRAY.values(), ".zattrs"}


_LARGE = 32 * 2**20
"""Larger files are read and sent one after the other, to spare memory."""
IN_UPLOAD = re.compile(r"\d+(-[0-9a-f]{8})?")
"""Names of arrays that may be on their way."""


@dataclass(slots=True)
class Upload:
    """An image whose arrays are stored and that nobody sees yet."""

    group: StorePath
    version: ngff.Version
    content: dict[str, Any]
    """The JSON that will name the arrays."""
    before: dict[str, Any]
    """The JSON that was there when the upload began; empty where none was."""
    _replaced: dict[str, Any] = field(default_factory=dict)
    _may_be_seen: bool = False

    @property
    def image(self) -> str | None:
        """Id of the image, which its label images carry too."""
        return image_id(self.content.get("attributes", self.content))

    def commit(self, where: str, *, overwrite: bool) -> None:
        """Make the arrays those of the image; atomic.

        Raises:
            AlreadyExistsError: another writer made or changed the image since the upload began,
                and `overwrite` is false.
        """

        def switch(now: dict[str, Any]) -> dict[str, Any]:
            if now != self.before and not overwrite:
                raise AlreadyExistsError(f"{where} was made by another writer meanwhile")
            self._replaced = now
            return self.content

        if self.version == "0.4":
            put_json(self.group / ".zgroup", {"zarr_format": 2})
        self._may_be_seen = True
        try:
            update(document_path(self.group, self.version), switch)
        except AlreadyExistsError:
            self._may_be_seen = False
            raise

    def remove_replaced(self) -> None:
        """Remove the arrays that the image had until it was committed."""
        remove_arrays(self.group, array_names(self._replaced))

    def withdraw(self) -> None:
        """Remove the arrays, if nobody can see them, and as far as that succeeds."""
        if not self._may_be_seen:
            with suppress(PolystoreError):
                remove_arrays(self.group, array_names(self.content))


def upload(
    staged: Path, group: StorePath, version: ngff.Version, image: str | None = None
) -> Upload:
    """Store the arrays of the image in the folder `staged`, but not its labels.

    A failure leaves nothing, unless the store fails again: then arrays that nobody sees.

    Args:
        staged: a complete image.
        group: where it shall be.
        version: of NGFF.
        image: id of the image that it is a label image of, or some planes of which are new; by
            default it is an image of its own.
    """
    content = read_json(document_path(staged, version))
    try:
        before = read_json(document_path(group, version))
    except NotFoundError:
        before = {}
    names = array_names(content)
    first = f"{names[0]}/{_ARRAY[version]}"
    revision = uuid.uuid4().hex[:8]
    claimed = not before and put_new(group / first, (staged / first).read_bytes())
    attributes = content["attributes"] if version == "0.5" else content
    attributes[OURS] = (attributes.get(OURS) or {}) | {"image": image or revision}
    if not claimed:
        for dataset in _datasets(content):
            dataset["path"] = f"{dataset['path']}-{revision}"
    made = Upload(group, version, content, before)
    stored = dict(zip(names, array_names(content), strict=True))

    def put(file: Path) -> None:
        array, _, inner = file.relative_to(staged).as_posix().partition("/")
        target = group / stored[array] / inner
        target.store.put(file.read_bytes(), target.uri.text, overwrite=True)

    try:
        files = [f for name in names for f in (staged / name).rglob("*") if f.is_file()]
        large = [f for f in files if f.stat().st_size > _LARGE]  # which obstore sends in parts
        done = {*large, staged / first} if claimed else {*large}
        in_threads(put, [f for f in files if f not in done])
        for file in large:
            put(file)
    except BaseException:
        made.withdraw()
        raise
    return made


@dataclass(slots=True)
class FieldUpload:
    """A field with its label images whose arrays are stored."""

    image: Upload
    labels: dict[str, Upload]
    _dropped: list[str]
    """Label images that it no more has."""

    @classmethod
    def upload(cls, staged: Path, group: StorePath, version: ngff.Version) -> FieldUpload:
        """Store the arrays of the field in the folder `staged`; see `upload`."""
        made = cls(upload(staged, group, version), {}, [])
        try:
            for folder in sorted(p for p in staged.glob("labels/*") if p.is_dir()):
                target = group / "labels" / folder.name
                made.labels[folder.name] = upload(folder, target, version, made.image.image)
        except BaseException:
            made.withdraw()
            raise
        return made

    def commit(self, where: str, *, overwrite: bool) -> None:
        """Make it the field. Labels of the old image are never seen with the new one."""
        labels = self.image.group / "labels"
        if self.image.before and find_document(labels) is not None:
            names = change_labels(labels, self.image.version, lambda _: ())
            self._dropped = [name for name in names if name not in self.labels]
        self.image.commit(where, overwrite=overwrite)
        for name, mask in self.labels.items():
            mask.commit(f"{where}/labels/{name}", overwrite=True)
        if self.labels:
            change_labels(labels, self.image.version, lambda _: self.labels)

    def remove_replaced(self) -> None:
        """Remove what the field had until it was committed."""
        for part in (self.image, *self.labels.values()):
            part.remove_replaced()
        for name in self._dropped:
            remove_image(self.image.group / "labels" / name, self.image.version)

    def withdraw(self) -> None:
        """Remove what nobody can see, as far as that succeeds."""
        for part in (self.image, *self.labels.values()):
            part.withdraw()


def change_labels(
    labels: StorePath, version: ngff.Version, change: Callable[[list[str]], Iterable[str]]
) -> list[str]:
    """Change which label images a ``labels`` group lists, by compare-and-swap; what it listed."""
    path = document_path(labels, version)
    before: list[str] = []

    def edit(content: dict[str, Any]) -> dict[str, Any]:
        before[:] = ngff.read_labels(attributes_in(path, content, str(path)), str(path))
        made = ngff.labels_attributes(sorted(set(change(before))), version)
        return with_attributes(path, content, made)

    if version == "0.4":
        put_group(labels, {}, version)
    update(path, edit, group_content({}, version))
    return before


def image_id(attributes: ngff.Attributes) -> str | None:
    """Id of an image, or of that of a label image; None where it was written by others."""
    found: str | None = (attributes.get(OURS) or {}).get("image")
    return found


def _datasets(content: dict[str, Any]) -> list[dict[str, Any]]:
    attributes = content.get("attributes", content)
    scales = attributes.get("ome", attributes).get("multiscales") or [{}]
    found: list[dict[str, Any]] = scales[0].get("datasets", [])
    return found


def array_names(content: dict[str, Any]) -> list[str]:
    """Names of the arrays that an image's JSON lists; none where it is no image's."""
    return [dataset["path"] for dataset in _datasets(content)]


def remove_arrays(group: StorePath, names: Sequence[str]) -> None:
    """Remove arrays of an image that its JSON does not name (any more)."""
    if names:
        _remove(group, [p for p in group.files() if p.partition("/")[0] in names])


def remove_image(group: StorePath, version: ngff.Version) -> None:
    """Remove an image that is not listed (any more), with its label images.

    What another writer may be uploading to the same place stays.
    """
    try:
        names = array_names(read_json(document_path(group, version)))
    except NotFoundError:
        names = []
    heads = {path: path.partition("/")[0] for path in group.files()}
    mine = [p for p, head in heads.items() if head in names or not IN_UPLOAD.fullmatch(head)]
    group.store.remove([(group / path).uri.text for path in mine if "/" not in path])
    _remove(group, [path for path in mine if "/" in path])


def _remove(group: StorePath, paths: Sequence[str]) -> None:
    # As long as the metadata of an array is there, no writer takes its keys: it goes last.
    last = [path for path in paths if path.rpartition("/")[2] in _METADATA]
    first = [path for path in paths if path not in set(last)]
    for part in (first, last):
        if part:
            group.store.remove([(group / path).uri.text for path in part])


def update(
    document: StorePath,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    new: dict[str, Any] | None = None,
) -> None:
    """Change a JSON document, which is `new` where there is none; see ``atomic_update_json``."""
    atomic_update_json(document, change, get_settings().lock_timeout, new)


def put_new(path: StorePath, data: bytes) -> bool:
    """Write a file that is not there yet; False if it is. Atomic."""
    try:
        path.store.put(data, path.uri.text)
    except AlreadyExistsError:
        return False
    return True


def put_json(path: StorePath, content: dict[str, Any]) -> bool:
    """Write a document that is not there yet; False if it is. Atomic."""
    return put_new(path, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def put_group(group: StorePath, attributes: ngff.Attributes, version: ngff.Version) -> bool:
    """Make a zarr group; False if it is there. Atomic."""
    if version == "0.4":
        put_json(group / ".zgroup", {"zarr_format": 2})
    return put_json(document_path(group, version), group_content(attributes, version))
