"""Tables and texts of a plate in a store, and the groups by which ngio finds the tables.

They are those of ``tables``. Each file is put whole; the copy for ngio follows it, and if two
writers of one table meet, it may be the other's: `check` finds that and mends it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from ...errors import AlreadyExistsError, UnsupportedError
from .. import codecs
from .commit import existing
from .nodes import document_path, group_content, translated
from .plate import ZarrPlate
from .store_path import StorePath
from .tables import check_name, is_known_to_ngio, is_ours, set_names, table_attributes
from .uploads import put_group, put_json


def write_file(plate: ZarrPlate, path: str, data: Any, *, overwrite: bool) -> None:
    """Write a table or text, or its bytes, beside the arrays; atomic. See ``Plate.write_table``."""
    where, file = f"{plate.uri}/{path}", plate.file_path(path)
    encoded = data if isinstance(data, bytes) else codecs.encode(data, file.name)
    stored = _stored(file)
    with translated(where):
        check_name(file, where)
        try:
            stored.store.put(encoded, stored.uri.text, overwrite=overwrite)
        except AlreadyExistsError as error:
            raise existing(where) from error
        if is_known_to_ngio(plate, file):
            list_table(plate, file)


def list_table(plate: ZarrPlate, file: Path) -> None:
    """Make ngio find a table that is there, as it is now."""
    group = _stored(file.with_suffix(""))
    copy, document = group / "table.csv", document_path(group, plate.version)
    content = group_content(table_attributes(plate, file), plate.version)
    group.store.put(file.read_bytes(), copy.uri.text, overwrite=True)
    if plate.version == "0.4":
        put_json(group / ".zgroup", {"zarr_format": 2})
    group.store.put(json.dumps(content, indent=2).encode(), document.uri.text, overwrite=True)
    make_folder(plate, file.parent)
    set_names(plate, file.parent, add=file.stem)


def remove_file(plate: ZarrPlate, file: Path) -> None:
    """Remove a table or text, and take it off the list of tables first."""
    stored, group = _stored(file), file.with_suffix("")
    if is_known_to_ngio(plate, file) and is_ours(group):
        set_names(plate, file.parent, remove=group.name)
        stored.store.remove_tree(_stored(group).uri.text)
    stored.store.remove([stored.uri.text])


def make_folder(plate: ZarrPlate, folder: Path) -> None:
    """Make the group in which ngio looks for tables; other folders need a file in them."""
    if not is_known_to_ngio(plate, folder / "any.csv"):
        raise UnsupportedError(f"{folder}: there are no empty folders here; write a file into it")
    put_group(_stored(folder), {"tables": []}, plate.version)


def _stored(path: Path) -> StorePath:
    return cast(StorePath, path)
