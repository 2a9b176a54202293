"""The page itself: what was read, as JSON and HTML; everything it needs is in it.

Text of a plate enters the page through Jinja's escaping, as JSON that holds no ``<``, or as a
text node that the page's scripts make; a content security policy lets only our own scripts run
and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from typing import Any

from .._version import __version__
from ..errors import MissingDependencyError
from ..hcs.address import parse_well
from ..hcs.plate import Plate
from .columns import Column, Value
from .controls import ROLE_COLUMNS, role_of, separation
from .origin import Run
from .pictures import HIGH, LOW, Fields, Limits, contrast, draw_fields, draw_sheets
from .wells import WellTiles

MOST_BYTES = 9_500_000
"""Of a page; what other parts leave is room for the fields' pictures."""
LEAST_ROOM = 1_000_000
"""For the fields' pictures, whatever else there is."""

_SCRIPTS = ("dom", "scale", "plate", "pictures", "well", "charts", "main")


@dataclass(frozen=True, slots=True)
class PlateFacts:
    """All that the page shows."""

    plate: Plate
    uri: str
    wells: Sequence[WellTiles]
    columns: Sequence[Column]
    runs: Sequence[Run]
    problems: Sequence[str]
    options: Mapping[str, str]
    """How the page was asked for."""


def render(facts: PlateFacts) -> str:
    """The page.

    Raises:
        MissingDependencyError: the extra ``report`` is not installed.
    """
    jinja2, vega = _module("jinja2"), _vega()
    plate, wells = facts.plate, facts.wells
    listed = _listed(facts)
    limits = contrast(wells, len(plate.channels))
    data = _data(facts, listed)
    own = "{\n" + "\n".join(_asset(f"{name}.js") for name in _SCRIPTS) + "\n}"
    scripts = [own, vega]
    sheets = draw_sheets(wells, plate.layout, limits)
    used = len(json.dumps(data)) + sum(map(len, scripts)) + sum(map(len, sheets.data))
    fields = draw_fields(wells, limits, max(MOST_BYTES - used, LEAST_ROOM))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_asset("report.html.j2"))
    page: str = template.render(
        plate={
            "name": plate.name or facts.uri,
            "uri": facts.uri,
            "rows": plate.rows,
            "columns": plate.columns,
        },
        size=next((s for s in (96, 384) if plate.layout.size <= s), 1536),
        facts=_summary(facts),
        problems=facts.problems,
        missing=[well["path"] for well in listed if well["state"] == "missing"],
        controls=bool(data["controls"]),
        runs=facts.runs,
        made=_made(facts, limits, fields),
        data=data,
        pictures={"sheets": sheets.data, "fields": fields.data},
        style=_asset("style.css"),
        scripts=scripts,
        script_hashes=[_hash(script) for script in scripts],
    )
    return page


def _listed(facts: PlateFacts) -> list[dict[str, Any]]:
    """The wells that the plate or a table names and the grid has."""
    plate = facts.plate
    read = {well.path: well for well in facts.wells}
    origins = {well: run.facts + own for run in facts.runs for well, own in run.wells.items()}
    named = dict.fromkeys([*read, *(well for column in facts.columns for well in column.values)])
    listed = []
    for path in named:
        place = plate.layout.find(parse_well(path))
        if place is None:
            continue
        well = read.get(path)
        listed.append(
            {
                "path": path,
                "place": place[0] * len(plate.columns) + place[1],
                "state": _state(well),
                "fields": well.listed if well else 0,
                "problems": well.problems if well else [],
                "origin": origins.get(path, []),
            }
        )
    return listed


def _state(well: WellTiles | None) -> str:
    if well is None:
        return "missing"
    if not well.fields:
        return "failed"
    return "partial" if well.problems else "ok"


def _data(facts: PlateFacts, listed: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page's scripts work on."""
    plate = facts.plate
    paths = [well["path"] for well in listed]
    roles = _roles(facts.columns, paths)
    counts = Counter(column.name for column in facts.columns)
    columns = [
        {
            "name": column.name,
            "title": _title(column, counts[column.name] > 1),
            "group": "Plate map" if column.is_condition else column.source,
            "number": column.is_number,
            "condition": column.is_condition,
            "statistic": column.statistic,
            "values": [_short(column.values.get(path)) for path in paths],
        }
        for column in facts.columns
    ]
    return {
        "plate": {
            "rows": plate.rows,
            "columns": plate.columns,
            "channels": [{"name": c.name, "color": c.color} for c in plate.channel_info],
        },
        "wells": listed,
        "columns": columns,
        "start": _start(facts.columns),
        "roles": roles,
        "controls": _controls(facts.columns, paths, roles),
        "distribution": json.loads(_asset("distribution.vl.json")),
    }


def _title(column: Column, ambiguous: bool) -> str:
    title = f"{column.name} ({column.source})" if ambiguous else column.name
    return f"{title}, {column.note}" if column.note else title


def _short(value: Value | None) -> Value | None:
    """A number with six digits: a page is for reading, a table for counting on."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _start(columns: Sequence[Column]) -> int:
    """The column that is shown first: a measurement that differs between wells."""
    telling = (
        place
        for place, column in enumerate(columns)
        if not column.is_condition and column.is_number and len(set(column.values.values())) > 1
    )
    return next(telling, len(columns) - 1)


def _roles(columns: Sequence[Column], paths: list[str]) -> list[str | None]:
    """``positive`` or ``negative`` for the wells that the plate map names as controls."""
    for name in ROLE_COLUMNS:
        for column in columns:
            if column.is_condition and column.name.lower() == name:
                roles = [role_of(column.values.get(path)) for path in paths]
                if any(roles):
                    return roles
    return [None] * len(paths)


def _controls(
    columns: Sequence[Column], paths: list[str], roles: list[str | None]
) -> dict[str, Any]:
    """What separates the controls, by the place of the column."""
    found = {}
    for place, column in enumerate(columns):
        if column.is_number and not column.is_condition:
            values: dict[str, list[float]] = {"positive": [], "negative": []}
            for path, role in zip(paths, roles, strict=True):
                if role is not None and path in column.values:
                    values[role].append(float(column.values[path]))
            told = separation(values["positive"], values["negative"])
            if told is not None:
                found[str(place)] = told.as_json()
    return found


def _summary(facts: PlateFacts) -> list[tuple[str, str]]:
    plate = facts.plate
    fields = Counter(well.listed for well in facts.wells)
    most = max(fields, default=0)
    _, y, x = plate.pixel_size
    size = f"{y:g} µm" if y == x else f"{y:g} × {x:g} µm (y, x)"
    return [
        ("Plate", f"{plate.layout.size} wells, {len(plate.rows)} × {len(plate.columns)}"),
        ("With images", str(sum(bool(well.fields) for well in facts.wells))),
        ("Fields a well", str(most) if len(fields) <= 1 else f"up to {most}"),
        ("Channels", ", ".join(plate.channels) or "none"),
        ("Pixel size", size),
        ("Problems", str(len(facts.problems))),
    ]


def _made(facts: PlateFacts, limits: Limits, fields: Fields) -> dict[str, Any]:
    binning = max((well.binning for well in facts.wells), default=1)
    now = datetime.now(UTC).astimezone()
    told = {
        "report made": now.isoformat(sep=" ", timespec="minutes"),
        "pixels": "middle z plane, first time point"
        + (f", {binning} × {binning} binned" if binning > 1 else ""),
        "contrast": ", ".join(
            f"{name} {low:.4g} to {high:.4g}"
            for name, (low, high) in zip(facts.plate.channels, limits, strict=True)
        )
        + f" (percentiles {LOW:g} and {HIGH:g} of the whole plate)",
        "pictures": f"up to {fields.shown} fields of a well, at most {fields.side} pixels wide",
        **facts.options,
    }
    return {"version": __version__, "facts": list(told.items())}


@lru_cache(maxsize=1)
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    bundle: str = _module("vl_convert").javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _asset(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text("utf-8")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the report needs the module {error.name!r}, which is not installed; "
            "run pip install 'polystore-flows[report]'"
        ) from error
