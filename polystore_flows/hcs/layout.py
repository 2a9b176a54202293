"""Plate layouts of 6 to 1536 wells, the names of their rows and columns, batches of wells.

Rows are lettered ``A`` to ``Z``, then ``AA`` to ``AF``; columns are counted from 1, as in
ANSI/SLAS 4-2004 (microplates: well positions).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TypeVar

from ..errors import AddressError
from .address import WellAddress, parse_well

_T = TypeVar("_T")

SIZES = {6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}
"""Number of wells -> (rows, columns)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The physical grid of a plate: the names of all its rows and columns, even empty ones."""

    rows: tuple[str, ...]
    """Row names, ``A`` first."""
    columns: tuple[str, ...]
    """Column names, as they are stored (we write them unpadded)."""

    @classmethod
    def of(cls, wells: int) -> Layout:
        """The standard layout with this many wells.

        Raises:
            AddressError: there is no such plate.
        """
        if wells not in SIZES:
            raise AddressError(
                f"no plate has {wells} wells; choose from {', '.join(map(str, SIZES))}"
            )
        rows, columns = SIZES[wells]
        return cls(
            tuple(row_name(i) for i in range(rows)), tuple(str(i + 1) for i in range(columns))
        )

    @classmethod
    def around(cls, wells: Iterable[WellAddress]) -> Layout:
        """The smallest standard layout that holds all `wells`."""
        wells = list(wells)
        for size in SIZES:
            layout = cls.of(size)
            if all(layout.find(well) is not None for well in wells):
                return layout
        outside = next(well for well in wells if cls.of(1536).find(well) is None)
        raise AddressError(f"well {outside} lies outside every plate up to 1536 wells (A1 to AF48)")

    @property
    def size(self) -> int:
        """Number of wells of the grid."""
        return len(self.rows) * len(self.columns)

    def find(self, well: WellAddress) -> tuple[int, int] | None:
        """Zero-based row and column index of `well` in the grid, or None if it lies outside."""
        return next(iter(self.find_all(well)), None)

    def find_all(self, well: WellAddress) -> list[tuple[int, int]]:
        """All places that `well` may mean; more than one where columns are called 3 and 03."""
        rows, columns = _places(self)
        return list(product(rows.get(well.row, ()), columns.get(well.column, ())))

    def path(self, well: WellAddress) -> str:
        """``row/column`` of `well` with this grid's names.

        Raises:
            AddressError: the layout does not have it.
        """
        at = self.find(well)
        if at is None:
            raise AddressError(
                f"well {well} is not on this plate: rows {self.rows[0]} to {self.rows[-1]}, "
                f"columns {self.columns[0]} to {self.columns[-1]}"
            )
        return f"{self.rows[at[0]]}/{self.columns[at[1]]}"


@lru_cache(maxsize=16)
def _places(layout: Layout) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Rows and columns as a `WellAddress` calls them -> their indices."""
    rows: dict[str, list[int]] = {}
    columns: dict[str, list[int]] = {}
    for index, name in enumerate(layout.rows):
        rows.setdefault(parse_well(f"{name}/1").row, []).append(index)
    for index, name in enumerate(layout.columns):
        columns.setdefault(parse_well(f"A/{name}").column, []).append(index)
    return rows, columns


def row_name(index: int) -> str:
    """Letters of the zero-based row `index`: 0 is ``A``, 26 is ``AA``."""
    name = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        name = chr(ord("A") + letter) + name
    return name


def batches(items: Sequence[_T], size: int) -> list[tuple[_T, ...]]:
    """`items` in their order, in tuples of `size`; the last may be shorter."""
    if size < 1:
        raise ValueError(f"a batch needs at least one item, not {size}")
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]
