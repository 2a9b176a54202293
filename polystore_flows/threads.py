"""The same work on many items in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")

WAITING = 8
"""Threads for work that mostly waits for a disk or a server."""


def in_threads(act: Callable[[_T], _R], items: Sequence[_T], workers: int = WAITING) -> list[_R]:
    """`act` on each of `items`; results in their order.

    The first error is raised when all threads have stopped, so that nothing goes on behind the
    caller's back; items that were not begun are left out.

    Args:
        act: called in another thread if there is more than one item.
        items: as many as there are.
        workers: 1 for this thread alone; else how many, unless the setting ``workers`` says so.
    """
    from .settings import get_settings  # pydantic-settings takes longer than a listing

    count = min(get_settings().workers or workers, len(items)) if workers > 1 else 1
    if count < 2:
        return [act(item) for item in items]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(act, items))
