"""The commands ``polystore-flows deploy``: flows on a schedule, on an event, on another host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polystore_flows.errors import MissingDependencyError

if TYPE_CHECKING:
    from polystore_flows.flows.finalize import PlateResult

app = typer.Typer(
    help="Run flows on a schedule, on an event or on another host, with Prefect.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Name = Annotated[str, typer.Option(help="What the deployments are called.")]
_Source = Annotated[str | None, typer.Option(help="URI of the plate to read.")]
_Target = Annotated[str | None, typer.Option(help="URI of the plate to write.")]
_Step = Annotated[str | None, typer.Option(help="The step: module:function or file.py:function.")]
_Params = Annotated[str, typer.Option(help="Parameters of the step, as JSON.")]
_Output = Annotated[str | None, typer.Option(help="image, labels/NAME or tables/NAME.csv.")]
_Runner = Annotated[str, typer.Option(help="threads, processes, dask or tcp://scheduler:8786.")]
_Cron = Annotated[str | None, typer.Option(help="When to process the source: '0 2 * * *'.")]
_OnComplete = Annotated[
    bool, typer.Option("--on-complete", help="Process every plate that is announced.")
]
_EventTarget = Annotated[
    str | None,
    typer.Option(help="Where announced plates go, zarr:///out/{name}.zarr; by default in place."),
]
_Limit = Annotated[int | None, typer.Option(min=1, help="Runs of a deployment at a time.")]


@app.command()
def serve(
    name: _Name = "polystore",
    source: _Source = None,
    target: _Target = None,
    step: _Step = None,
    params: _Params = "{}",
    output: _Output = None,
    runner: _Runner = "processes",
    cron: _Cron = None,
    on_complete: _OnComplete = False,
    event_target: _EventTarget = None,
    limit: _Limit = None,
) -> None:
    """Run what is due in processes of this host, until interrupted; needs no worker."""
    _check_installed()
    from polystore_flows.flows.deployments import planned, serve_flows

    given = _parameters(source, target, step, params, output, runner)
    made = planned(
        name, given, cron=cron, on_complete=on_complete, target=event_target, limit=limit
    )
    serve_flows(made, limit)


@app.command()
def register(
    pool: Annotated[str, typer.Option(help="Work pool; made, for processes, if missing.")],
    name: _Name = "polystore",
    source: _Source = None,
    target: _Target = None,
    step: _Step = None,
    params: _Params = "{}",
    output: _Output = None,
    runner: _Runner = "processes",
    cron: _Cron = None,
    on_complete: _OnComplete = False,
    event_target: _EventTarget = None,
    limit: _Limit = None,
) -> None:
    """Register the flows for the workers of a work pool (prefect worker start --pool …)."""
    _check_installed()
    from polystore_flows.flows.deployments import planned
    from polystore_flows.flows.deployments import register as registered

    given = _parameters(source, target, step, params, output, runner)
    made = planned(
        name, given, cron=cron, on_complete=on_complete, target=event_target, limit=limit
    )
    for deployment in registered(made, pool):
        typer.echo(deployment)


@app.command()
def run(
    deployment: Annotated[str, typer.Argument(help="process-plate/NAME.")],
    source: Annotated[str, typer.Option(help="URI of the plate, as the worker's host knows it.")],
    step: Annotated[str, typer.Option(help="module:function that the worker's host can import.")],
    target: _Target = None,
    params: _Params = "{}",
    output: _Output = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds to wait.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Process a plate where a worker is, near its data; wait, and print the result."""
    _check_installed()
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from polystore_flows.flows.near_data import run_near_data

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task("Scheduled", total=100)

        def show(state: str, percent: float) -> None:
            bar.update(task, completed=percent, description=state)

        result = run_near_data(
            deployment,
            source,
            target,
            step,
            _json(params),
            output=output,
            timeout=timeout,
            progress=show,
        )
    typer.echo(json.dumps(result, indent=2) if as_json else _line(result))


@app.command()
def announce(
    uri: Annotated[str, typer.Argument(metavar="URI", help="URI of the plate.")],
) -> None:
    """Tell Prefect that a plate is complete, so that what waits for it starts."""
    _check_installed()
    import polystore_flows as ps
    from polystore_flows.flows.assets import announce_plate
    from polystore_flows.flows.files import checked

    wells = len(ps.open_plate(checked(uri)))
    announce_plate(uri, wells=wells)
    typer.echo(f"announced {checked(uri)} with {wells} wells")


def _parameters(
    source: str | None,
    target: str | None,
    step: str | None,
    params: str,
    output: str | None,
    runner: str,
) -> dict[str, Any]:
    given = {"source": source, "target": target, "step": step, "output": output}
    found: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return {**found, "params": _json(params), "runner": runner}


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"--params is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter('--params is no JSON object; write for example {"diameter": 11}')
    return found


def _line(result: PlateResult) -> str:
    done, skipped = len(result["processed"]), len(result["up_to_date"])
    line = f"processed {done} well{'' if done == 1 else 's'} of {result['target']}"
    return line + (f"; {skipped} {'was' if skipped == 1 else 'were'} up to date" if skipped else "")


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("prefect") is None:
        raise MissingDependencyError(
            "deploy: needs the module 'prefect', which is not installed; "
            "run pip install 'polystore-flows[prefect]'"
        )
