"""Power cuts and NFS, with kernels that run as plain processes of this host."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the helpers stand beside the tests, not in the package


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from kernel import missing

    reason = missing()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("power")
            item.add_marker("slow")
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=f"NOT RUN: {reason}"))
