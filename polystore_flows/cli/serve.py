"""``serve``: a plate over HTTP on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from .output import AsJson, print_facts
from .uris import PlateURI

_VIEWERS = {
    "vizarr": "https://hms-dbmi.github.io/vizarr/?source={}",
    "validator": "https://ome.github.io/ome-ngff-validator/?source={}",
    "napari": "napari --plugin napari-ome-zarr {}",
}


def serve(
    uri: PlateURI,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")
    ] = 0,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Serve without a secret part in the path.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a plate on this machine, read-only, for vizarr, the NGFF validator or napari."""
    from ..serve import PlateServer

    with PlateServer(uri, port, "" if no_token else None) as server:
        viewers = {name: how.format(server.url) for name, how in _VIEWERS.items()}
        print_facts({"plate": server.url, **viewers}, as_json)
        try:
            typer.echo("Ctrl-C ends it", err=True)
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("ended", err=True)
