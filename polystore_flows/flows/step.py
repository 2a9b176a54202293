"""A user's step: finding the function, calling it on a well, sorting what it returns."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polystore_flows.errors import MismatchError, StepError
from polystore_flows.flows.cache import source_of
from polystore_flows.hcs.address import check_label_name
from polystore_flows.hcs.image import to_numpy
from polystore_flows.hcs.well import Well

StepLike = str | Callable[..., Any]
"""``module:function``, ``path/to/file.py:function``, or the function itself."""

IMAGE = "image"
_WANTED = "an array (t, c, z, y, x), a table, or a dict of them"
_FROM_THE_PLATE = ("pixel_size", "channels")  # what a step is told if it asks by these names


@dataclass(slots=True)
class Made:
    """What a step made of one well."""

    images: dict[str, Any] = field(default_factory=dict)
    """Field -> ``(t, c, z, y, x)``."""
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Field -> name -> ``(t, 1, z, y, x)``."""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    """``NAME.csv`` -> its rows, with the field in the first column."""


@dataclass(frozen=True, slots=True)
class Step:
    """A function with its parameters.

    Attributes:
        name: ``module:function``, to be shown.
        function: Takes ``(t, c, z, y, x)``, or all of a well's images by their fields.
        params: Keyword arguments.
        output: Where a plain result goes: ``image``, ``labels/NAME`` or ``tables/NAME.csv``.
        of_well: Whether `function` takes a whole well.
    """

    name: str
    function: Callable[..., Any]
    params: Mapping[str, Any]
    output: str
    of_well: bool

    @classmethod
    def of(cls, step: StepLike, params: Mapping[str, Any] | None, output: str | None) -> Step:
        """The step that `step` names.

        Raises:
            MismatchError: there is no such function, or it does not take `params`.
        """
        function = _found(step) if isinstance(step, str) else step
        if not callable(function):
            raise MismatchError(f"{step!r} is no function; name a step as module:function")
        name = step if isinstance(step, str) else name_of(function)
        params = dict(params or {})
        try:
            inspect.signature(function).bind(None, **_asked_for(function, params), **params)
        except TypeError as error:
            raise MismatchError(f"{name} does not take these parameters: {error}") from error
        except ValueError:  # written in C, without a signature
            pass
        made: str = output if output else getattr(function, "output", IMAGE)
        check_output(made)
        return cls(name, function, params, made, getattr(function, "of", "field") == "well")

    @property
    def fingerprint(self) -> str:
        """Changes with the function's source, its parameters and where its result goes."""
        parts = [source_of(self.function), self.name, sorted(self.params.items()), self.output]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """What the step is called in the plate's record."""
        return f"{self.name} -> {self.output}"

    def run(self, well: Well) -> Made:
        """Read the fields of `well` and make what the step makes of them.

        Raises:
            StepError: it returned what is neither image, labels nor table.
            Exception: whatever the function raised.
        """
        made = Made()
        images = {name: well.image(name) for name in well.fields}
        told = self._told(next(iter(images.values()))) if images else {}
        if self.of_well:
            pixels = {name: image.read() for name, image in images.items()}
            self._sort(self.function(pixels, **told, **self.params), None, made)
        else:
            for name, image in images.items():
                result = self.function(image.read(), **told, **self.params)
                self._sort(result, name, made)
        return made

    def _told(self, image: Any) -> dict[str, Any]:
        return {name: getattr(image, name) for name in _asked_for(self.function, self.params)}

    def _sort(self, result: Any, field: str | None, made: Made) -> None:
        plain = not isinstance(result, Mapping) or (field is None and self._is_by_field(result))
        for where, value in ({self.output: result} if plain else result).items():
            output = str(where)
            check_output(output)
            if isinstance(value, pd.DataFrame) and output == IMAGE == self.output:
                output = f"tables/{self.name.rpartition(':')[2].rpartition('.')[2]}.csv"
            if output.startswith("tables/"):
                self._add_table(output.removeprefix("tables/"), value, field, made)
                continue
            by_field = {field: value} if field is not None else value
            if not isinstance(by_field, Mapping):
                raise self._wrong(by_field, "a dict of field -> array")
            for name, array in by_field.items():
                self._add_array(output, str(name), array, made)

    def _is_by_field(self, result: Mapping[Any, Any]) -> bool:
        return not any(str(key) == IMAGE or "/" in str(key) for key in result)

    def _add_array(self, output: str, field: str, value: Any, made: Made) -> None:
        try:
            array = to_numpy(value)
        except (MismatchError, TypeError, ValueError) as error:
            raise self._wrong(value, _WANTED) from error
        if array.dtype.kind not in "biuf" or array.ndim < 2:
            raise self._wrong(value, _WANTED)
        if output == IMAGE:
            made.images[field] = array
        else:
            made.labels.setdefault(field, {})[output.removeprefix("labels/")] = array

    def _add_table(self, name: str, value: Any, field: str | None, made: Made) -> None:
        if isinstance(value, list) and all(isinstance(row, Mapping) for row in value):
            value = pd.DataFrame(value)
        if not isinstance(value, pd.DataFrame):
            raise self._wrong(value, f"a data frame or a list of rows for {name}")
        rows = value.copy()
        if field is not None:
            rows.insert(0, "field", field)
        held = made.tables.get(name)
        made.tables[name] = rows if held is None else pd.concat([held, rows], ignore_index=True)

    def _wrong(self, value: Any, wanted: str) -> StepError:
        what = type(value).__name__
        if isinstance(value, np.ndarray):
            what = f"an array of {value.dtype} and shape {value.shape}"
        return StepError(f"{self.name} returned {what} instead of {wanted}")


def _asked_for(function: Callable[..., Any], params: Mapping[str, Any]) -> dict[str, None]:
    """What the function wants to be told and `params` does not say."""
    try:
        accepted = inspect.signature(function).parameters
    except ValueError:
        return {}
    return {name: None for name in _FROM_THE_PLATE if name in accepted and name not in params}


def check_output(output: str) -> None:
    """Raise `MismatchError` unless `output` says where a result can go."""
    kind, _, name = str(output).partition("/")
    if kind == "labels" and name:
        check_label_name(name)
    elif not (output == IMAGE or (kind == "tables" and name.endswith(".csv") and "/" not in name)):
        raise MismatchError(
            f"{output!r} is no output of a step; there are image, labels/NAME and tables/NAME.csv"
        )


def portable(step: StepLike) -> StepLike:
    """`step` by its name, where another process finds it by that; else as it is."""
    if isinstance(step, str):
        return step
    name = name_of(step)
    module = sys.modules.get(step.__module__)
    found = module and getattr(module, getattr(step, "__qualname__", ""), None)
    return name if found is step and step.__module__ not in ("__main__", "__mp_main__") else step


def name_of(function: Callable[..., Any]) -> str:
    """``module:function``."""
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{getattr(function, '__module__', '')}:{name}"


def _found(step: str) -> Any:
    home, _, name = step.rpartition(":")
    try:
        if not home or not name:
            raise AttributeError("write module:function or file.py:function")
        module = _module_at(Path(home)) if home.endswith(".py") else importlib.import_module(home)
        return getattr(module, name)
    except (ImportError, AttributeError, OSError, SyntaxError) as error:
        raise MismatchError(f"the step {step!r} is not found: {error}") from error


def _module_at(path: Path) -> Any:
    """The module in a file, which is imported again when the file has changed."""
    path = path.resolve()
    version = f"{path} {path.stat().st_mtime_ns}"
    name = f"_polystore_step_{hashlib.sha256(version.encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
