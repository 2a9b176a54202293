"""Read a plate and write its page."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .. import api
from ..errors import AlreadyExistsError, UnsupportedError
from ..registry import backend_for
from ..settings import get_settings
from ..uri import parse_uri
from .columns import Column, TableReader
from .origin import runs_of
from .page import PlateFacts, render
from .wells import STATISTICS, WellTiles, read_wells

Progress = Callable[[int, int, str], object]

FIELDS = 4
"""Fields of each well that are read, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class ReportResult:
    """What was written."""

    file: str
    """Its URI, as it may be shown."""
    size: int
    """Bytes."""
    wells: int
    """With images."""
    problems: tuple[str, ...]
    """What could not be read; the page lists them too."""


def write_report(
    uri: api.URI,
    file: api.URI,
    *,
    fields: int = FIELDS,
    measure: Sequence[str] = (),
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ReportResult:
    """Write one HTML page that shows a plate and needs nothing else, also offline.

    What cannot be read is listed in the page and does not stop it. The page is written whole or
    not at all.

    Args:
        uri: of a plate on any backend.
        file: path or URI of the page.
        fields: read of each well, the first ones.
        measure: patterns of the measurements that are shown (``area*``); all without.
        workers: wells at a time; ``POLYSTORE_WORKERS`` or the number of cores by default.
        overwrite: whether an existing file is replaced.
        progress: called as ``progress(done, total, well)``.

    Raises:
        NotFoundError: there is no plate.
        AlreadyExistsError: the file exists and `overwrite` is false; nothing was read.
        MissingDependencyError: the extra ``report`` is not installed.
    """
    source, target = parse_uri(uri), parse_uri(file)
    backend = backend_for(target)
    if not hasattr(backend, "write_bytes"):
        raise UnsupportedError(f"{target}: a page cannot be written there; name a file, r.html")
    if not overwrite and backend.exists(target.text):
        raise AlreadyExistsError(f"{target} exists; pass overwrite=True (--overwrite) or delete it")
    plate = api.open_plate(source)
    count = workers or get_settings().workers or os.cpu_count() or 1
    reader = TableReader(plate, source)
    with ThreadPoolExecutor(count) as pool:
        columns = reader.read(pool, measure)
    wells = read_wells(plate, fields, count, progress)
    problems = [*reader.problems, *(p for well in wells for p in well.problems)]
    after = api.open_plate(source).wells
    if set(after) != {well.path for well in wells}:
        problems.append("The plate changed while it was read: its list of wells is another now")
    facts = PlateFacts(
        plate=plate,
        uri=str(source),
        wells=wells,
        columns=[*columns, *_of_images(wells, plate.channels)],
        runs=runs_of((well.path, well.provenance) for well in wells),
        problems=problems,
        options={"fields read": f"the first {fields} of each well"}
        | ({"measurements": ", ".join(measure)} if measure else {}),
    )
    page = render(facts).encode()
    backend.write_bytes(page, target.text, overwrite=overwrite)
    return ReportResult(str(target), len(page), len(wells), tuple(problems))


def _of_images(wells: Sequence[WellTiles], channels: Sequence[str]) -> list[Column]:
    """The statistics of channels, and the number of fields, as columns."""
    columns = []
    for c, channel in enumerate(channels):
        for place, name in enumerate(STATISTICS):
            found = {w.path: w.statistics[c][place] for w in wells if c < len(w.statistics)}
            values = {well: value for well, value in found.items() if math.isfinite(value)}
            columns.append(Column(f"{channel} {name}", channel, values, statistic=name))
    fields = {well.path: well.listed for well in wells if well.listed}
    return [*columns, Column("fields of the well", "Plate", fields)]
