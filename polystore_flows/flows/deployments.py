"""Deployments of the flows over plates: on a schedule, on an event, on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from prefect import serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType

from polystore_flows.errors import MismatchError
from polystore_flows.flows.assets import PLATE_COMPLETE
from polystore_flows.flows.plates import PlateFlow, check_plate, copy_plate, process_plate

FLOWS: tuple[PlateFlow[..., Any], ...] = (process_plate, copy_plate, check_plate)


def planned(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    cron: str | None = None,
    on_complete: bool = False,
    target: str | None = None,
    limit: int | None = None,
) -> list[RunnerDeployment]:
    """The deployments of all flows under one name.

    Args:
        name: ``process-plate/NAME`` and so on.
        parameters: of ``process_plate``; of the others those that they have.
        cron: when ``process_plate`` starts by itself, ``0 2 * * *`` for every night at two.
        on_complete: whether it starts on every plate that is announced as complete (see
            ``announce_plate``), with that plate as its source.
        target: where it writes then; ``{name}`` in it stands for the plate's.
        limit: runs of one deployment at a time.

    Raises:
        MismatchError: a schedule without a plate, or nothing to do to it.
        URIError: a URI carries a secret.
    """
    given = dict(parameters or {})
    if cron is not None and "source" not in given:
        raise MismatchError("a schedule needs the plate it is for; give a source")
    if (cron is not None or on_complete) and not given.get("step"):
        raise MismatchError("a run that starts by itself needs a step; give module:function")
    made = []
    for flow in FLOWS:
        known = {key: value for key, value in given.items() if key in flow.parameters.properties}
        flow.serialize_parameters(known)
        starts = flow is process_plate
        deployment = flow.to_deployment(
            name,
            parameters=known,
            cron=cron if starts else None,
            triggers=[_trigger(given, target)] if on_complete and starts else [],
            concurrency_limit=limit,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        made.append(cast(RunnerDeployment, deployment))
    return made


def serve_flows(deployments: Sequence[RunnerDeployment], limit: int | None = None) -> None:
    """Run what is due in processes of this host until interrupted; needs no worker."""
    serve(*deployments, limit=limit)


def register(deployments: Sequence[RunnerDeployment], pool: str) -> list[str]:
    """Register deployments for the workers of a work pool, which is made where it is missing.

    Returns:
        Names as ``run_near_data`` takes them.
    """
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    for deployment in deployments:
        deployment.apply(work_pool_name=pool)
    return [f"{deployment.flow_name}/{deployment.name}" for deployment in deployments]


def _trigger(parameters: Mapping[str, Any], target: str | None) -> DeploymentEventTrigger:
    values = {k: v for k, v in parameters.items() if k not in ("source", "target")}
    values["source"] = {"__prefect_kind": "jinja", "template": "{{ event.payload.uri }}"}
    if target is not None:
        name = "{{ event.resource.name | replace('.zarr', '') }}"
        values["target"] = {"__prefect_kind": "jinja", "template": target.replace("{name}", name)}
    return DeploymentEventTrigger(
        name="process complete plates",
        expect={PLATE_COMPLETE},
        match_related={},
        parameters=values,
        posture="Reactive",
        threshold=1,
    )
