"""A real headless Chromium; without one the tests are skipped, and say so."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_pages import Watched, small_plate

from polystore_flows.metadata import file_lock
from polystore_flows.report import write_report

_QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's Chromium, driven by Playwright.

    Not for longer than a module: as long as Playwright is there, so is its event loop, in which
    no test of another module could start one of its own.
    """
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("NOT RUN: no Chromium on this machine; apt-get install chromium")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=_QUIET.split())
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """A function that opens a report; at the end nothing went wrong in any of them."""
    opened: list[Watched] = []

    def open_(file: Path, **options: Any) -> Any:
        page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
        page.set_default_timeout(30_000)
        watched = Watched(page)
        watched.watch()
        opened.append(watched)
        page.goto(file.as_uri() if isinstance(file, Path) else file)
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_
    for watched in opened:
        watched.page.close()
    assert [trouble for watched in opened for trouble in watched.trouble] == []


@pytest.fixture(scope="session")
def axe(pytestconfig: pytest.Config) -> str:
    """The source of axe-core, fetched by npm once and kept in pytest's cache."""
    folder = Path(pytestconfig.cache.mkdir("axe"))
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    with file_lock(folder / "axe", timeout=300):  # xdist's workers share the cache
        if not script.exists():
            if shutil.which("npm") is None:
                pytest.skip("NOT RUN: no npm on this machine, so no axe-core")
            fetch = ["npm", "install", "--prefix", str(folder), "--no-save", "axe-core@4"]
            done = subprocess.run(fetch, capture_output=True, text=True, timeout=300)
            if done.returncode:
                said = done.stderr.strip()[-200:]
                pytest.skip(f"NOT RUN: npm cannot fetch axe-core: {said}")
    return script.read_text("utf-8")


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the small plate."""
    folder = tmp_path_factory.mktemp("report")
    write_report(small_plate(folder).uri, folder / "r.html")
    return folder / "r.html"
