"""Taking what a job left on this machine into a plate: a zarr tree of a well or a field, a file."""

from __future__ import annotations

from pathlib import Path

from ...errors import UnsupportedError
from ...hcs import ngff
from .arrays import ZarrImage
from .nodes import read_attributes
from .plate import read_provenance
from .target import Target


def adopt(local: Path, target: Target, *, overwrite: bool) -> None:
    """Copy `local` to `target`, whose plate must exist.

    Images are read and written anew, so that what is listed is always complete and conformant; a
    file is copied byte for byte. Atomic, and overwrites, as ``ZarrBackend.save``.
    """
    address = target.address
    if address.file is not None:
        target.open("r+").write_table(address.file, local.read_bytes(), overwrite=overwrite)
        return
    if address.kind not in ("well", "field"):
        raise UnsupportedError(f"{target.uri}: only wells, fields and files can be adopted")
    where = f"zarr:{local}"
    parts, acquisitions = {str(address.field): local}, {}
    if address.field is None:
        acquisitions = ngff.read_well(read_attributes(local, where), where)
        parts = {field: local / field for field in acquisitions}
    images, labels, provenance = {}, {}, {}
    for field, part in parts.items():
        image = ZarrImage(part, where)
        images[field] = image.read()
        labels[field] = {name: image.label(name).read() for name in image.labels}
        provenance[field] = read_provenance(part, where)
    plate = target.open("r+")
    plate.write_well(
        str(address.well),
        images,
        labels,
        overwrite=overwrite,
        keep_others=address.kind == "field",
        acquisition=acquisitions if plate.acquisitions else None,
        provenance=provenance,
    )
