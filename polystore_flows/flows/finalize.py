"""The last task of a plate: its tables, what is shown of it, the event that it is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from prefect import task

import polystore_flows as ps
from polystore_flows.flows import artifacts, record
from polystore_flows.flows.access import granted
from polystore_flows.flows.assets import PLATE_INCOMPLETE, PLATE_PROCESSED, announce_plate
from polystore_flows.flows.outputs import canonical
from polystore_flows.flows.step import Step, StepLike
from polystore_flows.flows.summary import heat_map, summarise
from polystore_flows.hcs.plate import Plate
from polystore_flows.uri import parse_uri


class PlateResult(TypedDict):
    """What a flow did to a plate; plain JSON."""

    target: str
    """URI of the plate."""
    processed: list[str]
    """Wells that were made."""
    up_to_date: list[str]
    """Wells that need not be made."""
    failed: dict[str, str]
    """Well -> what went wrong there."""
    tables: list[str]
    """URIs of the plate's tables, which sum up those of its wells."""


@task
def finalize_plate(
    source: str,
    target: str,
    step: StepLike,
    params: Mapping[str, Any] | None = None,
    output: str | None = None,
    processed: list[str] | None = None,
    up_to_date: list[str] | None = None,
    failed: dict[str, str] | None = None,
    report: str | None = None,
    overwrite: bool = False,
    credentials: dict[str, str] | None = None,
) -> PlateResult:
    """Sum up the tables of all wells in tables of the plate, show them, and tell that it is done.

    Args:
        source: URI of the plate that was read.
        target: URI of the plate that was written.
        step, params, output, overwrite, credentials: as in ``plan_chunks``.
        processed, up_to_date, failed: the wells.
        report: address of the plate's report, to be linked to.

    Raises:
        AlreadyExistsError: the plate has a table of that name that something else made.
    """
    failed = failed or {}
    with granted(credentials):
        found = Step.of(step, params, output)
        plate = ps.open_plate(target, "r+")
        done = set(map(canonical, [*(processed or []), *(up_to_date or [])]))
        wells = [well for well in ps.open_plate(source).wells if canonical(well) in done]
        names = table_names(target, found)
        held = record.tables(target, found)
        tables, values = {}, {}
        for name in names:
            stored = [plate.layout_path(well) for well in wells]
            rows = summarise(plate, name, stored, _fields(source, plate, wells))
            plate.write_table(f"tables/{name}", rows, overwrite=overwrite or name in held)
            tables[name] = rows
        if tables:
            record.add_tables(target, found, list(tables))
        for rows in list(tables.values())[:1]:
            column = names[0].removesuffix(".csv")
            values = {row["well"]: float(row[column]) for row in rows}
    shown = _rows(tables, wells, failed)
    artifacts.show_wells(target, shown)
    what = names[0].removesuffix(".csv") if names else "wells that are done"
    picture = heat_map(
        plate.layout, values or dict.fromkeys(map(canonical, wells), 1.0), list(failed)
    )
    artifacts.show_picture(target, picture, f"{what} of {parse_uri(target)}")
    if report:
        artifacts.show_link(target, report)
    result: PlateResult = {
        "target": target,
        "processed": list(processed or []),
        "up_to_date": list(up_to_date or []),
        "failed": failed,
        "tables": [f"{target}/tables/{name}" for name in tables],
    }
    event = PLATE_INCOMPLETE if failed else PLATE_PROCESSED
    announce_plate(target, event, source=str(parse_uri(source)), step=found.name, wells=len(wells))
    return result


def table_names(target: str, step: Step) -> list[str]:
    """Names of the tables that the step made, of any well."""
    paths = (p for entry in record.entries(target, step).values() for p in entry["outputs"])
    names = (path.rpartition("/")[2] for path in paths if "/tables/" in path)
    return list(dict.fromkeys(names))


def _fields(source: str, plate: Plate, wells: list[str]) -> dict[str, int]:
    """Number of fields by stored well, of the target where it has images, else of the source."""
    raw = ps.open_plate(source)
    return {
        plate.layout_path(well): len((plate if plate.find(well) else raw)[well].fields)
        for well in wells
    }


def _rows(
    tables: Mapping[str, list[dict[str, Any]]], wells: list[str], failed: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row a well with the first table's columns and what became of the well."""
    first = next(iter(tables.values()), [{"well": well} for well in wells])
    good = [{**row, "state": "complete", "error": ""} for row in first]
    columns = good[0] if good else {"well": "", "state": "", "error": ""}
    empty = dict.fromkeys(columns)
    bad = [{**empty, "well": w, "state": "failed", "error": why} for w, why in failed.items()]
    return bad + good
