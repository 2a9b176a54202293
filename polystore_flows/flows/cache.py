"""The cache policy: a task need not run again on inputs whose content is the same."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prefect.cache_policies import TASK_SOURCE, CachePolicy
from prefect.context import TaskRunContext
from prefect.utilities.hashing import hash_objects

from polystore_flows.errors import URIError
from polystore_flows.flows.access import granted
from polystore_flows.flows.blocks.located import Located
from polystore_flows.flows.stamps import stamps
from polystore_flows.registry import storage_registry
from polystore_flows.uri import parse_uri


@dataclass
class ContentPolicy(CachePolicy):
    """A key from the content of a task's inputs, the task's source and its other parameters.

    Every parameter that is a URI, also in lists and dicts, counts with its stamp (ETag, or size
    and commit time; see ``stamps``); nothing is read. A function counts with its source.
    Together with `ReferenceSerializer` a result is used again only while the task's outputs are
    there, too.

    Attributes:
        outputs: Names of parameters that say where a task writes; what is there does not count.
    """

    outputs: tuple[str, ...] = ()

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The key; None for a task without parameters."""
        if not inputs:
            return None
        read = {name: value for name, value in inputs.items() if name not in self.outputs}
        blocks = inputs.get("credentials")
        with granted(blocks if isinstance(blocks, dict) else None):
            content = stamps(sorted(set(_uris(read))))
        source = TASK_SOURCE.compute_key(task_ctx, inputs, flow_parameters)
        described = {name: _described(value) for name, value in inputs.items()}
        return hash_objects(source, described, content, raise_on_failure=True)


def source_of(function: Any) -> str:
    """The source of a function's module, or of the function itself if that is a script's.

    A change of a helper in the same module changes it, too.
    """
    function = inspect.unwrap(function)
    module = inspect.getmodule(function)
    try:
        if module is None or module.__name__ in ("__main__", "__mp_main__"):
            return inspect.getsource(function)
        return inspect.getsource(module)
    except (OSError, TypeError):  # typed in, or made by another function
        code = getattr(function, "__code__", None)
        return f"{code.co_code.hex()} {code.co_names}" if code else function.__qualname__


def _uris(value: Any) -> Iterator[str]:
    if isinstance(value, Located):
        yield value.uri
    elif isinstance(value, str) and ":" in value:
        try:
            if parse_uri(value).backend in storage_registry:
                yield value
        except URIError:
            return
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _uris(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _uris(item)


def _described(value: Any) -> Any:
    """What Prefect can hash and is the same in every process."""
    if isinstance(value, Located):
        return value.uri
    if inspect.isroutine(value):
        return [getattr(value, "__qualname__", ""), source_of(value)]
    if isinstance(value, list | tuple):
        return [_described(item) for item in value]
    if isinstance(value, dict):
        return {key: _described(item) for key, item in value.items()}
    return value
