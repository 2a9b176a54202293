"""A well of an opened plate, and reading all of it from one revision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import CorruptDataError, NotFoundError, StoredDataError
from .field import Image
from .provenance import Provenance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .plate import Plate

MOST_READS = 100
"""What is replaced while it is read is read again so many times at most."""


class Well:
    """A well of an opened plate."""

    def __init__(self, plate: Plate, path: str) -> None:
        self.plate = plate
        self.path = path
        """As stored: ``B/03``."""

    @property
    def uri(self) -> str:
        """The well's URI."""
        return f"{self.plate.uri}/{self.path}"

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths of the well's fields, ``("0", "1", …)``."""
        return self.plate._fields(self.path)

    def image(self, field: int | str = 0) -> Image:
        """A field by its path; reads metadata only.

        Raises:
            NotFoundError: the well does not have it.
        """
        if str(field) not in self.fields:
            known = ", ".join(self.fields) or "none"
            raise NotFoundError(f"{self.uri} has no field {field}; it has {known}")
        return self.plate._image(self.path, str(field))

    @property
    def acquisitions(self) -> dict[str, int | None]:
        """Field -> id of the acquisition that it belongs to; None where none is said."""
        return self.plate._acquisitions_of(self.path)

    def provenance(self, field: int | str = 0) -> Provenance | None:
        """What made a field, if its writer said so."""
        return self.plate._provenance(self.path, str(field))

    def notes(self, names: Mapping[str, str], target: Plate) -> dict[str, Any]:
        """What is said of fields here, as arguments of ``write_well`` of `target`.

        Args:
            names: field -> what it is called there.
            target: keeps acquisitions only if it has some.
        """
        acquisitions = self.acquisitions if target.acquisitions else {}
        return {
            "acquisition": {new: acquisitions.get(old) for old, new in names.items()},
            "provenance": {new: self.provenance(old) for old, new in names.items()},
        }

    def read(
        self, fields: Iterable[str] | None = None, *, labels: bool = True
    ) -> tuple[dict[str, NDArray[Any]], dict[str, dict[str, NDArray[Any]]]]:
        """Images and label images of `fields` (of all), as `Plate.write_well` takes them.

        All of one revision of the well, where the backend can tell: if the well is replaced
        meanwhile, it is read again.
        """
        chosen = None if fields is None else tuple(fields)
        for _ in range(MOST_READS):
            before = self.plate._revision(self.path)
            try:
                read = self._read(chosen, labels)
            except (NotFoundError, StoredDataError):
                if self.plate._revision(self.path) == before:
                    raise
            else:
                if self.plate._revision(self.path) == before:
                    return read
        raise CorruptDataError(f"{self.uri} is replaced faster than it can be read; try again")

    def _read(
        self, fields: tuple[str, ...] | None, with_labels: bool
    ) -> tuple[dict[str, NDArray[Any]], dict[str, dict[str, NDArray[Any]]]]:
        images, labels = {}, {}
        for field in self.fields if fields is None else fields:
            image = self.image(field)
            images[field] = image.read()
            names = image.labels if with_labels else ()
            labels[field] = {name: image.label(name).read() for name in names}
        return images, labels

    def __repr__(self) -> str:
        return f"<Well {self.uri}>"
