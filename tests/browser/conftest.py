"""A real headless Chromium; without one the tests are skipped, and say so."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.report import write_report

EVIL = "<img src=x onerror=alert(1)><script>alert(1)</script>\"'&"
_QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The machine's Chromium, driven by Playwright."""
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("NOT RUN: no Chromium on this machine; apt-get install chromium")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=_QUIET.split())
        yield started
        started.close()


@dataclass
class Watched:
    """A page, and all that it should not have done."""

    page: Any
    trouble: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note errors of the console, dialogs, and requests to anywhere."""
        self.page.on("console", lambda said: self._said(said.type, said.text))
        self.page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.trouble.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self._asked(request.url))

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.trouble.append(f"{kind}: {text}")

    def _asked(self, url: str) -> None:
        if not url.startswith(("data:", "blob:", "file:")):
            self.trouble.append(f"request: {url}")


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
    if not script.exists():
        if shutil.which("npm") is None:
            pytest.skip("NOT RUN: no npm on this machine, so no axe-core")
        fetch = ["npm", "install", "--prefix", str(folder), "--no-save", "axe-core@4"]
        done = subprocess.run(fetch, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"NOT RUN: npm cannot fetch axe-core: {done.stderr.strip()[-200:]}")
    return script.read_text("utf-8")


def violations(page: Any, axe: str) -> list[str]:
    """What axe-core finds wrong with the page, of any weight."""
    page.evaluate(axe)  # not a script element, which the page's policy would refuse
    found = page.evaluate("axe.run()")["violations"]
    return [f"{v['impact']}: {v['id']} {json.dumps(v['nodes'][0]['target'])}" for v in found]


def small_plate(folder: Path) -> ps.hcs.plate.Plate:
    """Six wells of a 24-well plate, two fields, two channels, labels, tables and a plate map."""
    plate = ps.create_plate(f"zarr:{folder}/p.zarr", 24, ["DAPI", "GFP"], name=f"Plate {EVIL}")
    labels = np.zeros((64, 64), np.uint16)
    labels[10:30, 12:40] = 1
    counts, conditions = [], []
    for number, well in enumerate(("A/1", "A/2", "A/3", "B/1", "B/2", "B/3")):
        image = np.random.default_rng(number).normal(100, 5, (1, 2, 1, 64, 64))
        image[:, 0, :, 10:30, 12:40] += 1000
        image[:, 1, :, 30:50, 12:40] += 200 * number
        image = image.astype(np.uint16)
        plate.write_well(well, {0: image, 1: image}, {0: {"nuclei": labels}})
        counts.append({"well": well, "nuclei": 10 + number**2, "area": 50.5 - number})
        role = "positive" if well[0] == "A" else "negative"
        conditions.append({"well": well, "drug": f"drug {number % 2}", "control": role})
    counts[2]["area"] = float("nan")
    conditions.append({"well": "C/1", "drug": EVIL, "control": "none"})
    plate.write_table("tables/counts.csv", counts)
    plate.write_table("tables/plate_map.csv", conditions)
    (plate.root / "B" / "2" / "0" / "zarr.json").unlink()
    return plate


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the small plate."""
    folder = tmp_path_factory.mktemp("report")
    write_report(small_plate(folder).uri, folder / "r.html")
    return folder / "r.html"
