"""Rigs: what a contract suite needs to know of a backend, and the data it stores there."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Self

from ..backends.disk import DiskBackend
from ..backends.memory import MemoryBackend

SUFFIXES = (".json", ".csv", ".tsv", ".txt", ".tif", ".ome.tif", ".npy", ".png", ".bin", "")
"""Suffixes for which `sample` has data."""


class Rig:
    """One backend with a fresh place in it; a context manager that cleans up.

    Args:
        backend: of the class under test.
        root: identifier of the directory in which the suite may do what it likes. It need not
            exist before the first file is saved in it.
    """

    symlinks: bool = True
    """Whether it has links; without them ``create_symlink`` is an `UnsupportedError`."""
    directories: bool = True
    """Whether directories can be made, empty ones too, at any place below `root`."""
    times: bool = True
    """Whether ``touch`` can change times; without that it is an `UnsupportedError`."""
    suffixes: tuple[str, ...] = SUFFIXES
    """Suffixes of files that can be stored, of those that `sample` knows; at least one."""

    def __init__(self, backend: Any, root: str) -> None:
        self.backend = backend
        self.root = root
        self.context: dict[str, Any] = {}
        """Keyword arguments that a `VirtualBackend` asks of its methods."""

    def path(self, name: str) -> str:
        """The identifier of the file `name`, ``a.json`` or ``folder/a.json``, below `root`."""
        return f"{self.root}/{name}"

    def stored(self) -> dict[str, Any]:
        """Identifiers of all files directly in `root`, and what each holds; at least two.

        A rig of a backend that cannot be written puts them there by other means.
        """
        files = {}
        for i, suffix in enumerate((*self.suffixes, self.suffixes[0])):
            identifier = self.path(f"file{i}{suffix}")
            files[identifier] = sample(suffix, i)
            if not self.backend.exists(identifier):
                self.backend.save(files[identifier], identifier)
        return files

    def close(self) -> None:
        """Clean up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DiskRig(Rig):
    """The disk backend in a fresh folder.

    Args:
        folder: exists and is empty; pytest's ``tmp_path`` removes it.
        uris: whether identifiers are ``disk:`` URIs or plain paths.
    """

    def __init__(self, folder: Path, *, uris: bool = True) -> None:
        super().__init__(DiskBackend(), f"{'disk://' if uris else ''}{folder}/root")


class MemoryRig(Rig):
    """A memory backend of its own.

    Args:
        uris: whether identifiers are ``memory:`` URIs or plain paths.
    """

    def __init__(self, *, uris: bool = True) -> None:
        super().__init__(MemoryBackend(), f"{'memory:/' if uris else ''}/{uuid.uuid4().hex}/root")


def sample(suffix: str, number: int = 0) -> Any:
    """Data that a file with this suffix can hold; another `number` gives other data."""
    import numpy as np

    if suffix == ".json":
        return {"wells": ["B/03"], "number": number, "nested": {"µm": 0.65, "none": None}}
    if suffix in (".csv", ".tsv"):
        import pandas as pd

        wells = {"well": ["B/03", "B/04"], "column": ["03", "04"]}
        return pd.DataFrame(wells | {"count": [number, 12], "mean": [0.1, 1e-300]})
    if suffix == ".txt":
        return f"line {number}\nµm, with an end\n"
    if suffix in ("", ".bin"):
        return b"\x00\xff\r\n" + bytes([number])
    shape = {".ome.tif": (2, 1, 3, 8, 6), ".npy": (3,)}.get(suffix, (8, 6))
    pixels = np.arange(np.prod(shape)).reshape(shape) + number
    return pixels.astype(np.float32 if suffix == ".npy" else np.uint16)


def same(left: Any, right: Any) -> bool:
    """Whether two samples are equal in value, type and dtype."""
    if hasattr(left, "equals"):
        return type(left) is type(right) and bool(left.equals(right))
    if hasattr(left, "dtype"):
        alike = left.shape == right.shape and left.dtype == right.dtype
        return alike and bool((left == right).all())
    return type(left) is type(right) and bool(left == right)


def name_of(identifier: str) -> str:
    """The last part of an identifier."""
    return identifier.rstrip("/").rpartition("/")[2]
