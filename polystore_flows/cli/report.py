"""``report``: one HTML page that shows a plate."""

from __future__ import annotations

from typing import Annotated

import typer

from .output import AsJson, print_facts, progress
from .uris import PlateURI


def report(
    uri: PlateURI,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Path or URI of the page.")
    ],
    fields: Annotated[int, typer.Option(min=1, help="Fields of each well that are read.")] = 4,
    measure: Annotated[
        list[str] | None,
        typer.Option(help="A measurement that is shown, or a pattern, 'area*'; may be repeated."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Wells at a time; by default one a core.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw a plate as one HTML page: values, images, controls, what failed, where it comes from."""
    from ..report import write_report

    with progress("wells", "nothing was written; run the same command again") as show:
        made = write_report(
            uri,
            output,
            fields=fields,
            measure=measure or (),
            workers=workers,
            overwrite=overwrite,
            progress=show,
        )
    facts = {"report": made.file, "bytes": made.size, "wells": made.wells}
    print_facts(facts | {"problems": list(made.problems)}, as_json)
