"""``check``: what is wrong with a plate, and mending it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .output import AsJson, print_rows
from .uris import PlateURI, parse


def check(
    uri: PlateURI,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended; images are never removed.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Check a plate against the rules of OME-NGFF and more; status 1 if one is broken."""
    from ..errors import UnsupportedError
    from ..registry import backend_for

    backend, parsed = backend_for(uri), parse(uri)
    if not hasattr(backend, "check_plate"):
        raise UnsupportedError(f"{parsed}: only OME-Zarr plates are checked; give a zarr: URI")
    mended = backend.check_plate(parsed.text, repair=True) if repair else []
    found = backend.check_plate(parsed.text)
    rows = [{"state": "repaired", **_finding(f)} for f in mended if f not in found]
    rows += [{"state": "repairable" if f.repairable else "wrong", **_finding(f)} for f in found]
    if rows or as_json:
        print_rows(rows, as_json)
    else:
        typer.echo(f"{parsed}: no rule is broken")
    return 1 if found else 0


def _finding(finding: Any) -> dict[str, Any]:
    return {"rule": finding.rule, "where": finding.where, "message": finding.message}
