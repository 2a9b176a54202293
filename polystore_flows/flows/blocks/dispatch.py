"""Methods that can be called from sync and async code, as those of Prefect's own collections."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import anyio.to_thread
from prefect._internal.compatibility.async_dispatch import async_dispatch

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


def dispatched(method: Callable[P, R]) -> Callable[P, R]:
    """`method`, which in async code gives a coroutine that does its work in a thread.

    Prefect calls blocks as ``method(…, _sync=True)`` or ``await amethod(…)``. A plain ``def`` or
    ``async def`` fails there with an error that is only logged, and results are lost.
    """

    @functools.wraps(method)
    async def in_thread(*args: P.args, **kwargs: P.kwargs) -> R:
        call = functools.partial(method, *args, **kwargs)
        return await anyio.to_thread.run_sync(call)

    return cast("Callable[P, R]", async_dispatch(in_thread)(method))


def with_async_forms(cls: type[C]) -> type[C]:
    """Give a class ``aname``, to be awaited, for each of its `dispatched` methods ``name``."""
    forms = {f"a{name}": method.aio for name, method in vars(cls).items() if hasattr(method, "aio")}
    for name, form in forms.items():
        setattr(cls, name, form)
    return cls
