"""URIs on the command line: parsed with their planes, and completed by the shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..uri import BackendURI


def parse(text: str) -> BackendURI:
    """`text` as a URI whose selection of planes is well formed too."""
    from ..hcs.address import parse_address, split_plate_path
    from ..uri import parse_uri

    uri = parse_uri(text)
    planes = [pair for pair in uri.query if pair[0] != "pattern"]
    if planes:
        parse_address(split_plate_path(uri.path)[1], planes)
    return uri


def complete(incomplete: str) -> Iterator[str]:
    """Schemes, and local paths after ``disk:``, ``zarr:`` or without a scheme."""
    from ..registry import storage_registry

    scheme, colon, path = incomplete.rpartition(":")
    if not colon:
        yield from (f"{name}:" for name in storage_registry.names() if name.startswith(incomplete))
    elif scheme not in ("disk", "zarr", "file"):
        return
    slashes = "//" if colon and path.startswith("//") else ""
    folder, _, start = path.removeprefix(slashes).rpartition("/")
    place = Path(f"{folder}/" if "/" in path.removeprefix(slashes) else ".")
    for entry in sorted(place.iterdir()) if place.is_dir() else ():
        if entry.name.startswith(start) and not entry.name.startswith("."):
            inner = f"{place}/{entry.name}" if str(place) != "." else entry.name
            yield f"{scheme}{colon}{slashes}{inner}"


PlateOrPart = Annotated[
    str,
    typer.Argument(
        metavar="URI", help="For example zarr:plate.zarr/B/03.", autocompletion=complete
    ),
]
PlateURI = Annotated[
    str, typer.Argument(metavar="URI", help="URI of a plate.", autocompletion=complete)
]
