"""``cp``: copy between any two stores."""

from __future__ import annotations

from typing import Annotated

import typer

from .output import progress
from .uris import complete


def cp(
    src: Annotated[
        str,
        typer.Argument(metavar="SRC", help="URI of what is copied.", autocompletion=complete),
    ],
    dst: Annotated[
        str, typer.Argument(metavar="DST", help="URI of the copy.", autocompletion=complete)
    ],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Wells at a time; by default one a core.")
    ] = None,
    well: Annotated[
        list[str] | None, typer.Option(help="A well of the plate, B/03; may be repeated.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Copy a plate, a well, a field, a label image or a file; run again to resume."""
    from ..transfer import copy

    with progress("wells", "run the same copy again to resume") as show:
        done = copy(src, dst, workers, well or None, overwrite, show)
    kind = {"plate": "well", "directory": "file"}.get(done.kind, done.kind)
    count = len(done.copied)
    line = f"copied {count} {kind}{'' if count == 1 else 's'} to {done.target}"
    there = len(done.skipped)
    typer.echo(line + (f"; {there} {'was' if there == 1 else 'were'} unchanged" if there else ""))
