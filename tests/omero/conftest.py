"""What the tests of OMERO share: a loopback server, and who is let in."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

MISSING = find_spec("Ice") is None  # "omero" may be this folder


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without omero-py, one module says so and nothing else here can be imported."""
    others = collection_path.suffix == ".py" and collection_path.name != "test_installed.py"
    return True if MISSING and others else None


if not MISSING:
    from collections.abc import Iterator

    from polystore_flows.settings import get_settings
    from polystore_flows.testing.omero import OmeroServer

    @pytest.fixture(scope="session")
    def shared_server() -> Iterator[OmeroServer]:
        with OmeroServer() as server:
            yield server

    @pytest.fixture
    def server(
        shared_server: OmeroServer, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[OmeroServer]:
        """A server that this process and its children can log in to, counting from zero."""
        for name, value in shared_server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OMERO_SESSIONDIR", "/nonexistent")
        get_settings.cache_clear()
        shared_server.reset()
        yield shared_server
        shared_server.delay, shared_server.drop_every = 0.0, 0
        get_settings.cache_clear()
