"""One self-contained HTML page that shows a plate: its values, images, controls and origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .write import ReportResult, write_report

__all__ = ["ReportResult", "write_report"]


def __getattr__(name: str) -> Any:  # PEP 562: what draws the page is imported when it is asked for
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import write

    return getattr(write, name)
