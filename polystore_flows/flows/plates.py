"""The flows over a plate: process it, copy it, check it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.assets import materialize
from prefect.flows import Flow

import polystore_flows as ps
from polystore_flows.errors import (
    PolystoreError,
    StepError,
    StoredDataError,
    UnsupportedError,
    URIError,
)
from polystore_flows.flows import artifacts
from polystore_flows.flows.access import Place, blocks_of, granted, uri_of
from polystore_flows.flows.assets import absolute, announce_plate, asset_of
from polystore_flows.flows.chunk import failure, run_logger
from polystore_flows.flows.files import carries_secret
from polystore_flows.flows.finalize import PlateResult, finalize_plate, table_names
from polystore_flows.flows.outputs import canonical
from polystore_flows.flows.references import ReferenceSerializer
from polystore_flows.flows.runners import check_reach, run_all
from polystore_flows.flows.step import Step, StepLike, name_of, portable
from polystore_flows.flows.tasks import chunks_of, plan_chunks, process_chunk
from polystore_flows.registry import backend_for
from polystore_flows.uri import parse_uri, redact

P = ParamSpec("P")
R = TypeVar("R")


class PlateFlow(Flow[P, R]):
    """A flow whose parameters are looked at before anything keeps them.

    Prefect stores the parameters of a run before it validates them.
    """

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """As Prefect does, with functions by their names.

        Raises:
            URIError: a URI carries a secret; no run was made.
        """
        plain = {}
        for name, value in parameters.items():
            if carries_secret(value):
                raise URIError(
                    f"{name}: a URI carries a secret, which the run would keep; leave it out and "
                    "save it in a credentials block"
                )
            plain[name] = name_of(value) if name == "step" and callable(value) else value
        return super().serialize_parameters(plain)


def plate_flow(name: str) -> Callable[[Callable[P, R]], PlateFlow[P, R]]:
    """A decorator like Prefect's ``flow``; no run of it is made with a secret in a URI."""

    def make(function: Callable[P, R]) -> PlateFlow[P, R]:
        return PlateFlow(
            function, name=name, persist_result=True, result_serializer=ReferenceSerializer()
        )

    return make


@plate_flow("process-plate")
def process_plate(
    source: Place,
    target: Place | None = None,
    step: StepLike = "",
    params: dict[str, Any] | None = None,
    chunk_size: int | None = None,
    runner: str = "threads",
    output: str | None = None,
    wells: list[str] | None = None,
    overwrite: bool = False,
    report: str | None = None,
) -> PlateResult:
    """Apply a step to the fields of a plate that are not up to date.

    A step that fails on a well leaves the others to finish; the flow then fails and names it.
    Run it again for these: what is up to date (the same input, step and parameters, its outputs
    still there) is not made again.

    Args:
        source: The plate to read: its URI, or a block.
        target: The plate to write; made like the source where it is missing. By default the
            source, for labels and tables.
        step: "module:function" or "file.py:function" of a function that takes the image of a
            field (t, c, z, y, x) and returns an image, labels or a table; from Python also the
            function itself. It is told pixel_size and channels if it has such parameters.
        params: Keyword arguments of the step.
        chunk_size: Wells that one task works on; by default a row of the plate.
        runner: threads, processes or dask, each maybe with :N workers, or the address of a Dask
            scheduler, tcp://host:8786.
        output: Where the result goes: image, labels/NAME or tables/NAME.csv; by default what the
            step says (see polystore_flows.steps.makes), else image.
        wells: Those to process, such as B/3; all by default.
        overwrite: Whether wells that something else has made are replaced.
        report: Address of a report of the plate, to be linked to.

    Returns:
        What was done, see ``PlateResult``.

    Raises:
        StepError: some wells failed; the others are complete.
        AlreadyExistsError: something else has made wells that the step is to make.
    """
    goal = source if target is None else target
    credentials = blocks_of(source, goal)
    here, there = absolute(uri_of(source)).text, absolute(uri_of(goal)).text
    check_reach(runner, here, there)
    common: dict[str, Any] = {
        "step": portable(step),
        "params": params,
        "output": output,
        "overwrite": overwrite,
        "credentials": credentials,
    }
    plan = plan_chunks(here, there, wells=wells, chunk_size=chunk_size, **common)
    calls = [{"wells": chunk, "target": there, **common} for chunk in plan["chunks"]]
    processed, failed = _work_through(there, runner, process_chunk, calls, plan["up_to_date"])
    total = len(processed) + len(failed) + len(plan["up_to_date"])
    lacking = StepError(failure(failed, total, there), failed) if failed else None
    with granted(credentials):
        tables = table_names(there, Step.of(step, params, output))
    finalize: Any = materialize(
        asset_of(there),
        *(asset_of(f"{there}/tables/{name}") for name in tables),
        by="polystore-flows",
        asset_deps=[asset_of(here)],
        name=finalize_plate.name,
    )(finalize_plate.fn)
    try:
        result: PlateResult = finalize(
            here,
            there,
            processed=processed,
            up_to_date=plan["up_to_date"],
            failed=failed,
            report=report,
            **common,
        )
    except PolystoreError as error:
        if lacking:  # of both, the wells are what the user must know
            raise lacking from error
        raise
    artifacts.show_result(there, dict(result))
    if lacking:
        raise lacking
    return result


@task(task_run_name="copy {wells[0]} …")
def copy_chunk(
    wells: list[str],
    source: str,
    target: str,
    overwrite: bool = False,
    credentials: dict[str, str] | None = None,
) -> list[str]:
    """Copy wells of a plate; those that are there, unchanged, are skipped. See ``ps.copy``."""
    with granted(credentials):
        return list(ps.copy(source, target, 1, wells, overwrite).copied)


@plate_flow("copy-plate")
def copy_plate(
    source: Place,
    target: Place,
    chunk_size: int | None = None,
    runner: str = "threads",
    overwrite: bool = False,
) -> PlateResult:
    """Copy a plate from any store to any other, and announce it as complete.

    Wells that are there already, unchanged, are skipped. See ``polystore_flows.copy``.

    Args:
        source: The plate to read: its URI, or a block.
        target: The plate to write.
        chunk_size: Wells that one task works on; by default a row of the plate.
        runner: As for process_plate.
        overwrite: Whether what is there already is replaced.

    Raises:
        StepError: some wells could not be copied; the others are complete.
        AlreadyExistsError: other data are there.
    """
    credentials = blocks_of(source, target)
    here, there = absolute(uri_of(source)).text, absolute(uri_of(target)).text
    check_reach(runner, here, there)
    with granted(credentials):
        plate = ps.open_plate(here)
        ps.create_plate(there, like=plate, exist_ok=True)
    common = {"source": here, "target": there, "overwrite": overwrite, "credentials": credentials}
    calls = [{"wells": chunk, **common} for chunk in chunks_of(plate.wells, chunk_size)]
    processed, failed = _work_through(there, runner, copy_chunk, calls, [])
    result: PlateResult = {
        "target": there,
        "processed": processed,
        "up_to_date": [],
        "failed": failed,
        "tables": [],
    }
    artifacts.show_result(there, dict(result))
    if failed:
        raise StepError(failure(failed, len(plate.wells), there), failed)
    finish: Any = materialize(
        asset_of(there), by="polystore-flows", asset_deps=[asset_of(here)], name="finish_copy"
    )(_finish_copy)
    finish(here, there, overwrite, credentials)
    announce_plate(there, wells=len(plate.wells), source=str(parse_uri(here)))
    return result


def _finish_copy(source: str, target: str, overwrite: bool, credentials: dict[str, str]) -> None:
    """Copy the plate's tables and texts, and look at all wells again."""
    with granted(credentials):
        if overwrite and ps.exists(f"{source}/tables"):
            ps.copy(f"{source}/tables", f"{target}/tables", overwrite=True)
        ps.copy(source, target)


@plate_flow("check-plate")
def check_plate(plate: Place, repair: bool = False, announce: bool = False) -> list[dict[str, Any]]:
    """Check an OME-Zarr plate; the flow fails if a rule is broken.

    Args:
        plate: Its URI, or a block.
        repair: Whether what can be mended is mended first; images are never removed.
        announce: Whether a plate without fault is announced as complete, for automations.

    Returns:
        What was mended, one dict for each.

    Raises:
        StoredDataError: a rule is broken.
        UnsupportedError: it is no OME-Zarr plate.
    """
    uri = absolute(uri_of(plate)).text
    with granted(blocks_of(plate)):
        backend = backend_for(uri)
        if not hasattr(backend, "check_plate"):
            raise UnsupportedError(f"{parse_uri(uri)}: only OME-Zarr plates are checked")
        mended = backend.check_plate(uri, repair=True) if repair else []
        found = backend.check_plate(uri)
        wells = len(ps.open_plate(uri))
    rows = [{"state": "repaired", **_finding(f)} for f in mended if f not in found]
    broken = [{"state": "wrong", **_finding(f)} for f in found]
    artifacts.show_wells(uri, rows + broken)
    if broken:
        first = f"{broken[0]['where']}: {broken[0]['message']}"
        raise StoredDataError(f"{parse_uri(uri)} breaks {len(broken)} rules, first {first}")
    if announce:
        announce_plate(uri, wells=wells)
    return rows


def _finding(finding: Any) -> dict[str, Any]:
    return {"rule": finding.rule, "where": finding.where, "message": finding.message}


def _work_through(
    target: str,
    runner: str,
    work: Task[..., Any],
    calls: Sequence[Mapping[str, Any]],
    up_to_date: Sequence[str],
) -> tuple[list[str], dict[str, str]]:
    """Run `work` on chunks and show how far it is; the wells that are done, and that failed."""
    logger = run_logger()
    order = {_well(well): rank for rank, well in enumerate(w for c in calls for w in c["wells"])}
    progress = artifacts.Progress(target, len(order) + len(up_to_date))
    progress.add(len(up_to_date))
    done: dict[int, list[str]] = {}
    failed: dict[str, str] = {}
    for number, outcome in run_all(runner, work, calls):
        wells = [_well(well) for well in calls[number]["wells"]]
        if isinstance(outcome, StepError) and outcome.failed:
            failed |= outcome.failed
        elif isinstance(outcome, BaseException):
            reason = redact(" ".join(f"{type(outcome).__name__}: {outcome}".split()))
            logger.error("%s to %s failed: %s", wells[0], wells[-1], reason)
            failed |= dict.fromkeys(wells, reason)
        done[number] = [well for well in wells if well not in failed]
        progress.add(len(wells))
    in_order = {well: failed[well] for well in sorted(failed, key=order.__getitem__)}
    return [well for _, wells in sorted(done.items()) for well in wells], in_order


def _well(uri: str) -> str:
    """``B/3`` of the URI of a well."""
    return canonical("/".join(uri.rsplit("/", 2)[-2:]))
