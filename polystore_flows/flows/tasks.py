"""The tasks of a plate: plan the chunks, process one, put the plate in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from prefect import task
from prefect.context import TaskRunContext
from prefect.transactions import Transaction, get_transaction
from prefect.utilities.hashing import hash_objects

import polystore_flows as ps
from polystore_flows.errors import MismatchError, StepError, StoreUnavailableError
from polystore_flows.flows import record
from polystore_flows.flows.access import granted
from polystore_flows.flows.assets import same_place
from polystore_flows.flows.blocks.located import store_of
from polystore_flows.flows.cache import ContentPolicy
from polystore_flows.flows.chunk import Chunk, failure, open_target, refuse_others
from polystore_flows.flows.locks import FlowLocks
from polystore_flows.flows.outputs import canonical, discard
from polystore_flows.flows.references import Reference, ReferenceSerializer
from polystore_flows.flows.stamps import well_stamps
from polystore_flows.flows.step import IMAGE, Step, StepLike
from polystore_flows.hcs.layout import batches
from polystore_flows.uri import parse_uri

Params = Mapping[str, Any]


class Plan(TypedDict):
    """What is to be done, and what need not."""

    chunks: list[list[str]]
    """URIs of the wells that one task each is to process."""
    up_to_date: list[str]
    """Wells whose outputs are there and were made from the present input by the present step."""


class ChunkResult(TypedDict):
    """What one task has done."""

    wells: list[str]
    """Those it processed."""
    outputs: list[Reference]
    """What it wrote."""


@dataclass
class StepPolicy(ContentPolicy):
    """A `ContentPolicy` that knows the source of the step a task is told to take."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The key; None for a step that is not found, which the task itself will say."""
        try:
            step = Step.of(inputs["step"], inputs.get("params"), inputs.get("output"))
        except MismatchError:
            return None
        return hash_objects(super().compute_key(task_ctx, inputs, {}), step.fingerprint)


@task
def plan_chunks(
    source: str,
    target: str,
    step: StepLike,
    params: Params | None = None,
    output: str | None = None,
    wells: list[str] | None = None,
    chunk_size: int | None = None,
    overwrite: bool = False,
    credentials: dict[str, str] | None = None,
) -> Plan:
    """Divide the wells of a plate that are not up to date into chunks.

    Args:
        source: URI of the plate to read.
        target: URI of the plate to write; made like the source if the step makes images of it.
        step, params, output: see ``process_plate``.
        wells: those to look at; all by default.
        chunk_size: wells in a chunk; by default a row of the plate.
        overwrite: whether what something else has made may be replaced.
        credentials: see ``access.granted``.

    Raises:
        NotFoundError: no such plate, or it lacks one of `wells`.
        AlreadyExistsError: something else made wells that the step is to make. Nothing is done.
        MismatchError: no such step; or a target that does not fit it.
    """
    with granted(credentials):
        found = Step.of(step, params, output)
        plate = ps.open_plate(source)
        chosen = [plate[well].path for well in (plate.wells if wells is None else wells)]
        in_place = same_place(source, target)
        if in_place and found.output == IMAGE:
            raise MismatchError(
                f"{parse_uri(target)} is the source, too; a step that makes images needs another "
                "target"
            )
        goal = ps.open_plate(target) if in_place else open_target(target, plate)
        now = well_stamps(source, chosen)
        keys = {
            canonical(well): record.key_of(found, f"{source}/{well}", now.get(well))
            for well in chosen
        }
        done = set(record.up_to_date(target, keys, found))
        todo = [well for well in chosen if canonical(well) not in done]
        if not overwrite:
            refuse_others(goal, todo, found)
    return {
        "chunks": [[f"{source}/{well}" for well in part] for part in chunks_of(todo, chunk_size)],
        "up_to_date": [well for well in chosen if canonical(well) in done],
    }


def chunks_of(wells: Sequence[str], size: int | None) -> list[list[str]]:
    """`wells`, in plate order, in chunks of `size`.

    By default a chunk is a row: 8 of a 96-well plate, 16 of 384 and 32 of 1536, so that a task
    lasts seconds and there are enough of them.

    Raises:
        MismatchError: `size` is less than 1.
    """
    if size is None:
        rows: dict[str, list[str]] = {}
        for well in wells:
            rows.setdefault(well.partition("/")[0], []).append(well)
        return list(rows.values())
    if size < 1:
        raise MismatchError(f"a chunk has one well or more, not {size}")
    return [list(part) for part in batches(wells, size)]


def _store_failed(_task: Any, _run: Any, state: Any) -> bool:
    return isinstance(state.data, StoreUnavailableError)


@task(
    task_run_name="process {wells[0]} …",
    persist_result=True,
    result_serializer=ReferenceSerializer(),
    cache_policy=StepPolicy(outputs=("target",)).configure(
        isolation_level="SERIALIZABLE", lock_manager=FlowLocks()
    ),
    retries=2,
    retry_delay_seconds=[2, 10],
    retry_condition_fn=_store_failed,
)
def process_chunk(
    wells: list[str],
    target: str,
    step: StepLike,
    params: Params | None = None,
    output: str | None = None,
    overwrite: bool = False,
    credentials: dict[str, str] | None = None,
) -> ChunkResult:
    """Read wells, apply a step, write what it makes of them, and enter them in the record.

    Each well is written whole or not at all. A well on which the step fails is named in the
    error, and the others finish; a store that fails ends the task at once. In a transaction that
    is rolled back, what is new is deleted.

    Args:
        wells: URIs of wells.
        target: URI of the plate to write.
        step, params, output, overwrite, credentials: as in `plan_chunks`.

    Raises:
        StepError: the step failed on some wells; the others are complete.
        AlreadyExistsError: something else made what the step is to make; nothing is done.
        StoreUnavailableError: a server does not answer; tried again twice.
    """
    with granted(credentials):
        chunk = Chunk(wells, target, Step.of(step, params, output), overwrite)
        try:
            chunk.run()
        finally:
            chunk.enter()
            transaction = get_transaction()
            if transaction is not None:
                transaction.set("undo", {**chunk.undo, "credentials": credentials})
        if chunk.failed:
            raise StepError(failure(chunk.failed, len(wells), target), chunk.failed)
        block = (credentials or {}).get(store_of(target) or "")
        return {
            "wells": list(chunk.wells),
            "outputs": [
                Reference(f"{target}/{path}", stamp, block)
                for entry in chunk.complete.values()
                for path, stamp in entry["outputs"].items()
            ],
        }


@process_chunk.on_rollback
def _roll_back(transaction: Transaction) -> None:
    """Take back what a chunk wrote: what is new is deleted, and all of it made again next time."""
    undo = transaction.get("undo", None)
    if undo:
        with granted(undo["credentials"]):
            record.remove(undo["target"], undo["title"], undo["wells"])
            discard(undo["target"], undo["new"])
