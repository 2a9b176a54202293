"""``demo``: the example, from raw images to results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import AsJson, print_facts, progress


def demo(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Folder that is made, or used again.")
    ] = Path("demo"),
    cores: Annotated[
        int | None, typer.Option(min=1, help="Jobs at a time; by default one a core.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the Snakemake example on real images: raw plate to OME-Zarr, tables and a report."""
    from ..demo import run_demo

    with progress("raw plate", "run the same command again to go on") as show:
        results = run_demo(directory, cores, show)
    print_facts(
        {
            "plate": results.plate,
            "table": results.table,
            "picture": str(results.picture),
            "report": str(results.report),
        },
        as_json,
    )
