"""The commands ``polystore-flows omero``: a server to try things on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import MissingDependencyError

if TYPE_CHECKING:
    from .backends.omero.instance import OMEROInstanceManager

app = typer.Typer(help="OMERO servers to try things on.", rich_markup_mode=None)

_Port = Annotated[int, typer.Option(help="Port of the server.")]


@app.command("dev-server")
def dev_server(
    folder: Annotated[
        Path | None, typer.Option(help="Folder to keep data in; by default it is forgotten.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.")] = 4064,
) -> None:
    """Run an OMERO server on the loopback interface with a demo plate, until Ctrl-C."""
    try:
        from .testing.omero import OmeroServer
        from .testing.omero.demo import add_demo_plate
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    with OmeroServer(folder, port, password="demo") as server:
        plate = server.uri(f"plate/{add_demo_plate(server)}")
        typer.echo(f"OMERO on {server.host}:{server.port}; in another shell:\n")
        for name, value in server.environment.items():
            typer.echo(f"export {name}={value}")
        typer.echo(f"polystore-flows info {plate}\n\nCtrl-C ends it.")
        threading.Event().wait()


@app.command()
def start(port: _Port = 4064) -> None:
    """Start a real server with docker compose, with OMERO_ROOT_PASSWORD for root."""
    _manager(port).start_via_docker_compose()
    typer.echo(f"starting; 'polystore-flows omero status --port {port}' tells when it is up")


@app.command()
def status(port: _Port = 4064) -> int:
    """Tell whether a server runs on this machine; status 1 if none does."""
    running = _manager(port).is_running()
    typer.echo(f"omero://localhost:{port}: {'running' if running else 'not running'}")
    return 0 if running else 1


@app.command()
def stop(port: _Port = 4064) -> None:
    """Stop the server that 'start' started; its data stays."""
    _manager(port).stop()


def _manager(port: int) -> OMEROInstanceManager:
    try:
        from .backends.omero.instance import OMEROInstanceManager
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return OMEROInstanceManager(port=port)


def _missing(error: ModuleNotFoundError) -> MissingDependencyError:
    return MissingDependencyError(
        f"OMERO needs the module {error.name!r}, which is not installed; run "
        "pip install 'polystore-flows[omero]'"
    )
