"""The command ``polystore-flows``: look at stores, copy between them, run the demonstration.

Exit status 0: good; 1: the thing asked about is wrong; 2: wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .errors import AddressError, PolystoreError, UnknownBackendError, URIError
from .flows.cli import app as deploy_app
from .omero_cli import app as omero_app

if TYPE_CHECKING:
    from rich.console import Console

    from .hcs.address import PlaneSelection
    from .hcs.plate import Image, Plate
    from .uri import BackendURI

_INTERRUPTED = 130  # what shells and Typer take Ctrl-C for

app = typer.Typer(
    add_completion=False,
    help="Storage backends for high-content-screening plates.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(deploy_app, name="deploy")
app.add_typer(omero_app, name="omero")
# Typer bundles Click or imports it, depending on its version: find the base of usage errors.
_UsageError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)

_URI = Annotated[str, typer.Argument(metavar="URI", help="For example zarr:plate.zarr/B/03.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words or bool(os.environ.get("POLYSTORE_DEBUG"))
    try:
        status = app([w for w in words if w != "--debug"], standalone_mode=False)
    except _UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        _fail(f"{message} (see polystore-flows --help)", 2)
    except (PolystoreError, OSError) as error:
        if debug:
            raise
        malformed = isinstance(error, URIError | UnknownBackendError)
        _fail(str(error), 2 if malformed and not isinstance(error, AddressError) else 1)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if status == _INTERRUPTED:
        _fail("interrupted", _INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"polystore-flows {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole trace of an error.")
    ] = False,
) -> None:
    """Storage backends for high-content-screening plates."""


@app.command()
def backends(as_json: _Json = False) -> None:
    """List the backends and whether what they need is installed."""
    from .contracts import PlateStore
    from .errors import MissingDependencyError
    from .registry import storage_registry

    rows = []
    for name in storage_registry:
        try:
            backend = storage_registry[name]
            row = {"scheme": f"{name}:", "plates": isinstance(backend, PlateStore), "note": ""}
        except MissingDependencyError as error:
            row = {"scheme": f"{name}:", "plates": None, "note": str(error)}
        rows.append(row)
    _print_rows(rows, as_json)


@app.command()
def info(uri: _URI, as_json: _Json = False) -> None:
    """Show what is stored at a URI, without reading pixels."""
    _print_facts(_facts(uri), as_json)


@app.command("ls")
def list_(uri: _URI, as_json: _Json = False) -> None:
    """List the wells of a plate, the fields of a well, or the files of a folder."""
    from . import api
    from .transfer import plate_at, plate_of

    parsed = _parse(uri)
    plate = plate_at(parsed)
    if plate is not None:
        rows = [{"well": well, "fields": len(plate[well].fields)} for well in plate.wells]
    elif (kind := api.stat(parsed).kind) == "well":
        plate, address = plate_of(parsed)
        well = plate[str(address.well)]
        rows = [{"field": field, **_image_facts(well.image(field))} for field in well.fields]
    elif kind == "directory":
        from .registry import backend_for

        rows = [{"name": name} for name in backend_for(parsed).list_dir(parsed.text)]
    else:
        rows = [_facts(uri)]
    _print_rows(rows, as_json)


@app.command()
def cp(
    src: Annotated[str, typer.Argument(metavar="SRC", help="URI of what is copied.")],
    dst: Annotated[str, typer.Argument(metavar="DST", help="URI of the copy.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Wells at a time; by default one a core.")
    ] = None,
    well: Annotated[
        list[str] | None, typer.Option(help="A well of the plate, B/03; may be repeated.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Copy a plate, a well, a field, a label image or a file; run again to resume."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from .transfer import copy

    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task("wells", total=None)

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        try:
            report = copy(src, dst, workers, well or None, overwrite, show)
        except KeyboardInterrupt as error:
            bar.stop()
            _fail(f"interrupted; {error}" if str(error) else "interrupted", _INTERRUPTED)
    kind = {"plate": "well", "directory": "file"}.get(report.kind, report.kind)
    count = len(report.copied)
    line = f"copied {count} {kind}{'' if count == 1 else 's'} to {report.target}"
    there = len(report.skipped)
    typer.echo(line + (f"; {there} {'was' if there == 1 else 'were'} unchanged" if there else ""))


@app.command()
def check(
    uri: Annotated[str, typer.Argument(metavar="URI", help="URI of an OME-Zarr plate.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended; images are never removed.")
    ] = False,
    as_json: _Json = False,
) -> int:
    """Check a plate against the rules of OME-NGFF and more; status 1 if one is broken."""
    from .errors import UnsupportedError
    from .registry import backend_for

    backend, parsed = backend_for(uri), _parse(uri)
    if not hasattr(backend, "check_plate"):
        raise UnsupportedError(f"{parsed}: only OME-Zarr plates are checked; give a zarr: URI")
    mended = backend.check_plate(parsed.text, repair=True) if repair else []
    found = backend.check_plate(parsed.text)
    rows = [{"state": "repaired", **_finding(f)} for f in mended if f not in found]
    rows += [{"state": "repairable" if f.repairable else "wrong", **_finding(f)} for f in found]
    if rows or as_json:
        _print_rows(rows, as_json)
    else:
        typer.echo(f"{parsed}: no rule is broken")
    return 1 if found else 0


def _finding(finding: Any) -> dict[str, Any]:
    return {"rule": finding.rule, "where": finding.where, "message": finding.message}


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Folder that is made, or used again.")
    ] = Path("demo"),
    cores: Annotated[
        int | None, typer.Option(min=1, help="Jobs at a time; by default one a core.")
    ] = None,
) -> None:
    """Run the Snakemake example on real images: raw plate to OME-Zarr, table and heat map."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    from .demo import run_demo

    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task("raw plate", total=None)

        def show(done: int, total: int, step: str) -> None:
            bar.update(task, completed=done, total=total, description=step)

        results = run_demo(directory, cores, show)
    _print_facts(
        {"plate": results.plate, "table": results.table, "picture": str(results.picture)}, False
    )


def _parse(text: str) -> BackendURI:
    """`text` as a URI whose selection of planes is well formed too."""
    from .hcs.address import parse_address, split_plate_path
    from .uri import parse_uri

    uri = parse_uri(text)
    planes = [pair for pair in uri.query if pair[0] != "pattern"]
    if planes:
        parse_address(split_plate_path(uri.path)[1], planes)
    return uri


def _facts(text: str) -> dict[str, Any]:
    from . import api
    from .transfer import plate_at, plate_of

    uri = _parse(text)
    plate = plate_at(uri)
    if plate is not None:
        return {"uri": str(uri), "kind": "plate", **_plate_facts(plate)}
    stat = api.stat(uri)
    facts: dict[str, Any] = {"uri": str(uri), "kind": stat.kind, "bytes": stat.size}
    facts["modified"] = _time(stat.mtime)
    if stat.kind in ("well", "field", "label"):
        plate, address = plate_of(uri)
        well = plate[str(address.well)]
        if address.field is None:
            facts["fields"] = list(well.fields)
        image = well.image(address.field or well.fields[0])
        image = image.label(address.label) if address.label else image
        facts |= _image_facts(image)
        facts["shape"] = _selected(uri, image, address.planes)
        facts["pixel_size_um"] = list(image.pixel_size)
        provenance = well.provenance(address.field or well.fields[0])
        if provenance is not None:
            facts["provenance"] = provenance.as_json()
    return facts


def _plate_facts(plate: Plate) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": plate.name,
        "layout": f"{len(plate.rows)} × {len(plate.columns)}",
        "wells": len(plate),
        "channels": list(plate.channels),
        "pixel_size_um": list(plate.pixel_size),
    }
    if plate.acquisitions:
        facts["acquisitions"] = [a.name or str(a.id) for a in plate.acquisitions]
    if plate.wells:
        first = plate[plate.wells[0]]
        facts["fields"] = len(first.fields)
        facts |= _image_facts(first.image(first.fields[0]))
    return facts


def _image_facts(image: Any) -> dict[str, Any]:
    return {
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "levels": image.levels,
        "labels": list(image.labels),
    }


def _selected(uri: BackendURI, image: Image, planes: PlaneSelection) -> list[int]:
    """The shape of the selected planes; raises where the image does not have them."""
    from .hcs.image import check_index

    length = dict(zip("tczyx", image.shape, strict=True))
    try:
        c = None if planes.c is None else image.info.channel_index(planes.c)
        for axis, index in (("t", planes.t), ("c", c), ("z", planes.z)):
            if index is not None:
                check_index(axis, index, length.pop(axis))
        check_index("level", planes.level, image.levels)
    except AddressError as error:
        raise AddressError(f"{uri}: {error}") from error
    return [n // 2**planes.level if axis in "yx" else n for axis, n in length.items()]


def _time(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))
    console = Console(stderr=stderr, color_system=None if plain else "auto", highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # whoever reads a pipe wants whole lines
    return console


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    return str(value)


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(_text(value)) for value in row.values()))
    _console().print(table)


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        table.add_row(Text(name.replace("_um", " (µm)").replace("_", " ")), Text(_text(value)))
    _console().print(table)


def _fail(message: str, status: int) -> NoReturn:
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(status)
