"""Running a flow on the host that owns the data: addresses go there, results come back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from polystore_flows.errors import (
    MismatchError,
    NotFoundError,
    StepError,
    StoreUnavailableError,
)
from polystore_flows.flows.access import Place, uri_of
from polystore_flows.flows.artifacts import RESULT
from polystore_flows.flows.blocks.located import Located
from polystore_flows.flows.finalize import PlateResult
from polystore_flows.flows.step import StepLike, portable
from polystore_flows.uri import parse_uri

Told = Callable[[str, float], object]
"""Called with the state of the run and how many per cent are done."""


def run_near_data(
    deployment: str,
    source: Place,
    target: Place | None = None,
    step: StepLike = "",
    params: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = None,
    progress: Told | None = None,
    poll: float = 1.0,
    **options: Any,
) -> PlateResult:
    """Submit ``process_plate`` to the host that owns the plate, and wait for it.

    Only addresses and parameters travel: the worker there opens the URIs, looks up credentials
    in its own profiles and blocks, and no pixel leaves it. What comes back is how far it is, and
    the result.

    Args:
        deployment: ``process-plate/NAME``, served by a worker of that host.
        source, target: URIs as that host knows them, or saved blocks.
        step: ``module:function`` that can be imported there.
        params: keyword arguments of the step, plain JSON.
        timeout: seconds to wait; by default as long as it takes.
        progress: called as ``progress(state, percent)`` after each look.
        poll: seconds between two looks.
        options: further parameters of ``process_plate``.

    Raises:
        StepError: some wells failed there, or all; the others are complete.
        NotFoundError: no such deployment.
        MismatchError: something that cannot travel: an array, a function without a name, a path
            relative to this machine, a block that was not saved.
        StoreUnavailableError: it did not end within `timeout`; it goes on.
    """
    parameters = {
        "source": _sent(source),
        "step": _named(step),
        "params": dict(params or {}),
        **options,
    }
    if target is not None:
        parameters["target"] = _sent(target)
    try:
        json.dumps(parameters, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MismatchError(
            f"only URIs and plain JSON are sent to where the data is: {error}; write arrays to a "
            "store and send their URI"
        ) from error
    try:
        run = cast(FlowRun, run_deployment(deployment, parameters=parameters, timeout=0))
    except ObjectNotFound as error:
        raise NotFoundError(
            f"no deployment {deployment!r} on this Prefect server; see prefect deployment ls"
        ) from error
    with get_client(sync_client=True) as client:
        ended = _wait(client, run.id, deployment, timeout, progress, poll)
        return _result(client, ended, deployment)


def _sent(place: Place) -> Any:
    uri = parse_uri(uri_of(place))
    if uri.is_local and not uri.path.startswith("/"):
        raise MismatchError(f"{uri} is relative to this machine; write the path from the root")
    if "memory" in (uri.backend, uri.transport):
        raise MismatchError(f"{uri} lies in the memory of this process and cannot be reached there")
    if not isinstance(place, Located) or place.credentials is None:
        return uri.text
    if place._block_document_id is None:
        raise MismatchError(f"{uri}: a block travels by its name; save it first")
    return {"$ref": {"block_document_id": str(place._block_document_id)}}


def _named(step: StepLike) -> str:
    name = portable(step)
    if not isinstance(name, str):
        raise MismatchError(
            f"the step {step!r} has no name by which another host can import it; put it into a "
            "module that is installed there and give module:function"
        )
    return name


def _wait(
    client: SyncPrefectClient,
    run_id: UUID,
    deployment: str,
    timeout: float | None,
    progress: Told | None,
    poll: float,
) -> FlowRun:
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        run: FlowRun = client.read_flow_run(run_id)
        state = run.state
        if progress is not None:
            progress(state.name or "" if state else "", _percent(client, run_id))
        if state is not None and state.is_final():
            return run
        if end is not None and time.monotonic() >= end:
            raise StoreUnavailableError(
                f"{deployment}: the run {run.name} is {state.name if state else 'unknown'} after "
                f"{timeout:g} s and goes on; is a worker running for its work pool?"
            )
        time.sleep(poll)


def _percent(client: SyncPrefectClient, run_id: UUID) -> float:
    found = [a.data for a in _artifacts(client, run_id, "progress")]
    return float(cast(float, found[0])) if found else 0.0


def _result(client: SyncPrefectClient, run: FlowRun, deployment: str) -> PlateResult:
    state = run.state
    assert state is not None
    found = _artifacts(client, run.id, RESULT)
    result = cast(PlateResult, json.loads(cast(str, found[0].data))) if found else None
    if not state.is_completed() or result is None:
        failed = dict(result["failed"]) if result else {}
        raise StepError(
            f"{deployment}: the run {run.name} is {state.name}: {state.message}", failed
        )
    return result


def _artifacts(client: SyncPrefectClient, run_id: UUID, kind: str) -> list[Any]:
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    return [a for a in client.read_artifacts(artifact_filter=chosen) if a.type == kind]
