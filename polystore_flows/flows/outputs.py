"""Writing what a step made of a well, so that no half-made well is ever seen."""

from __future__ import annotations

import polystore_flows as ps
from polystore_flows.errors import NotFoundError, StepError
from polystore_flows.flows.step import IMAGE, Made, Step
from polystore_flows.hcs.address import parse_well
from polystore_flows.hcs.plate import Plate
from polystore_flows.hcs.well import Well


def taken(plate: Plate, well: str, step: Step) -> str | None:
    """What lies already where the result of `step` for `well` is to go, or None."""
    kind, _, name = step.output.partition("/")
    if kind == "tables":
        where = f"{plate.uri}/{plate.layout_path(well)}/{step.output}"
        return where if ps.exists(where) else None
    stored = plate.find(well)
    if stored is None:
        return None
    if step.output == IMAGE:
        return f"{plate.uri}/{stored}"
    with_label = (f for f in plate[stored].fields if name in plate[stored].image(f).labels)
    field = next(with_label, None)
    return None if field is None else f"{plate.uri}/{stored}/{field}/{step.output}"


def write(plate: Plate, source: Well, made: Made, *, overwrite: bool) -> list[str]:
    """Write what was made of the well `source` into `plate`; the paths of it all.

    Tables come first and images last, so that a well is listed once all of it is there. Labels
    without images go to the images of that well, and with those of the source where the plate
    does not have it. A failure takes back what was new.

    Raises:
        AlreadyExistsError: something is there and `overwrite` is false.
        MismatchError: an array does not fit the plate.
        StepError: nothing was made, or images are to replace their own source.
    """
    well = plate.layout_path(source.path)
    if plate.uri == source.plate.uri and made.images:
        raise StepError(f"{source.uri}: a step that makes images needs another plate to write to")
    if not (made.images or made.labels or made.tables):
        raise StepError(f"{source.uri}: the step made nothing of it")
    tables = {f"{well}/tables/{name}": rows for name, rows in made.tables.items()}
    new = [path for path in tables if not ps.exists(f"{plate.uri}/{path}")]
    paths = list(tables)
    try:
        for path, rows in tables.items():
            plate.write_table(path, rows, overwrite=overwrite)
        paths += _write_arrays(plate, well, source, made, overwrite)
    except BaseException:
        discard(plate.uri, new)
        raise
    return paths


def discard(plate_uri: str, paths: list[str]) -> None:
    """Delete what is at `paths` below the plate; what is not there counts as deleted."""
    for path in paths:
        try:
            ps.delete(f"{plate_uri}/{path}")
        except NotFoundError:
            continue


def canonical(well: str) -> str:
    """``B/3`` for every spelling of it."""
    return str(parse_well(well))


def _write_arrays(plate: Plate, well: str, source: Well, made: Made, overwrite: bool) -> list[str]:
    labels = [
        f"{well}/{field}/labels/{name}" for field, names in made.labels.items() for name in names
    ]
    if made.images:
        plate.write_well(well, made.images, made.labels, overwrite=overwrite)
        return [*labels, well]
    if not made.labels:
        return []
    if plate.find(well) is None:
        images, _ = source.read(made.labels)
        plate.write_well(well, images, made.labels, overwrite=overwrite)
        return labels
    for field, names in made.labels.items():
        for name, mask in names.items():
            plate.write_label(well, field, name, mask, overwrite=overwrite)
    return labels
