"""Tables and texts beside the arrays, and the groups by which ngio finds the tables.

``tables/counts.csv`` is a plain file, and what is read and written here. ngio reads groups
``tables/<name>`` (its table specification, version 1, backend ``csv``), so beside the file lies a
group ``counts`` with the same file as ``table.csv``, by a hard link where that can be, and the
group ``tables`` lists it. That is done for tables of the plate and of its fields; a well's folder
of tables is no group, because iohub takes every group in a well for a field.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from ...errors import AlreadyExistsError, URIError
from ...hcs.address import parse_well
from ...hcs.ngff import Attributes
from ...hcs.plate_map import PLATE_MAP
from ...metadata import atomic_update_json
from ...metadata.paths import sync_folder
from ...settings import get_settings
from .. import codecs
from .commit import existing, forget_consolidated
from .locks import TABLES, locked
from .nodes import (
    OURS,
    add_group,
    attributes_in,
    document_path,
    find_document,
    group_content,
    make_group,
    read_attributes,
    translated,
)
from .plate import ZarrPlate
from .staging import put, staged, sync_tree


def write_file(plate: ZarrPlate, path: str, data: Any, *, overwrite: bool) -> None:
    """Write a table or text, or its bytes, beside the arrays; atomic. See ``Plate.write_table``."""
    where = f"{plate.uri}/{path}"
    target = plate.file_path(path)
    encoded = data if isinstance(data, bytes) else codecs.encode(data, target.name)
    with translated(where), staged(plate.root) as stage:
        part = stage / "file"
        part.write_bytes(encoded)
        sync_tree(stage)
        with locked(plate, _part(plate, target)):
            forget_consolidated(plate)
            check_name(target, where)
            make_folder(plate, target.parent)
            try:
                (os.replace if overwrite else os.link)(part, target)
            except FileExistsError as error:
                raise existing(where) from error
            sync_folder(target.parent)
            if is_known_to_ngio(plate, target):
                _list(plate, target, stage)


def remove_file(plate: ZarrPlate, file: Path, stage: Path) -> None:
    """Remove a table or text, and take it off the list of tables first; `stage` gets the rest."""
    with locked(plate, _part(plate, file)):
        group = file.with_suffix("")
        if is_known_to_ngio(plate, file) and is_ours(group):
            set_names(plate, file.parent, remove=group.name)
            group.rename(stage / "table")
        file.unlink()


def make_folder(plate: ZarrPlate, folder: Path) -> None:
    """`folder` and its parents; a group, where ngio looks for tables."""
    folder.mkdir(parents=True, exist_ok=True)
    if find_document(folder) is None and is_known_to_ngio(plate, folder / "any.csv"):
        add_group(folder, {"tables": []}, plate.version)


def is_known_to_ngio(plate: ZarrPlate, file: Path) -> bool:
    """Whether ngio looks for this table: one of the plate or of a field."""
    inner = file.relative_to(plate.root).parts
    return file.suffix == ".csv" and inner[-2:-1] == ("tables",) and len(inner) in (2, 5)


def unlisted_tables(plate: ZarrPlate, folder: Path) -> list[Path]:
    """Tables in `folder` that ngio does not find, or not as they are now."""
    found = (file for file in folder.glob("*.csv") if is_known_to_ngio(plate, file))
    files = sorted(found, key=str)
    if not files or find_document(folder) is None:
        return files
    names = read_attributes(folder, plate.uri).get("tables") or ()
    return [file for file in files if file.stem not in names or not _has_copy(file)]


def list_table(plate: ZarrPlate, file: Path) -> None:
    """Make ngio find a table that is there, as it is now."""
    with staged(plate.root) as stage, locked(plate, _part(plate, file)):
        check_name(file, str(file))
        make_folder(plate, file.parent)
        _list(plate, file, stage)


def _has_copy(file: Path) -> bool:
    copy = file.with_suffix("") / "table.csv"
    return copy.is_file() and (copy.samefile(file) or copy.read_bytes() == file.read_bytes())


def table_attributes(plate: ZarrPlate, file: Path) -> Attributes:
    """What ngio reads of the table in `file`."""
    is_map = file.relative_to(plate.root).as_posix() == PLATE_MAP
    return {
        "type": "condition_table" if is_map else "generic_table",
        "table_version": "1",
        "backend": "csv",
        OURS: {"file": file.name},
    }


def _list(plate: ZarrPlate, file: Path, stage: Path) -> None:
    made = stage / "table"
    make_group(made, table_attributes(plate, file), plate.version)
    try:
        os.link(file, made / "table.csv")
    except OSError:  # a file system without hard links
        shutil.copyfile(file, made / "table.csv")
    sync_tree(made)
    put(made, file.with_suffix(""), plate.root)
    set_names(plate, file.parent, add=file.stem)


def set_names(plate: ZarrPlate, folder: Path, *, add: str = "", remove: str = "") -> None:
    """Add a table to those that the group `folder` lists, or take one off; atomic."""
    document = document_path(folder, plate.version)

    def change(content: dict[str, Any]) -> dict[str, Any]:
        attributes = attributes_in(document, content, str(document))
        names = {*(attributes.get("tables") or ()), add} - {remove, ""}
        attributes["tables"] = sorted(names)
        return content | ({"attributes": attributes} if plate.version == "0.5" else {})

    default = group_content({}, plate.version)
    atomic_update_json(document, change, get_settings().lock_timeout, default)


def is_ours(group: Path) -> bool:
    """Whether a group is one that this module made beside a table."""
    return find_document(group) is not None and OURS in read_attributes(group, str(group))


def check_name(file: Path, where: str) -> None:
    """Refuse to hide a table that another program keeps in a group of this name."""
    group = file.with_suffix("")
    if file.suffix == ".csv" and group.exists() and not is_ours(group):
        raise AlreadyExistsError(
            f"{where}: another program keeps a table {group.name!r} there; choose another name, or "
            "remove that table with ngio"
        )


def _part(plate: ZarrPlate, file: Path) -> str:
    """What is locked while `file` is written: its well, which may be replaced, or the tables."""
    parts = file.relative_to(plate.root).parts
    with contextlib.suppress(URIError):
        well = parse_well("/".join(parts[:2]))
        if plate.layout.find(well) is not None:
            return str(well)
    return TABLES
