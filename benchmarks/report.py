"""How large the report of a generated plate is, how long it takes to write and to open.

    python benchmarks/report.py [WELLS ...]

By default plates of 96, 384 and 1536 wells with two fields, three channels and label images.
Opening is measured in Chromium, from the start of navigation until the plate is drawn and until
the chart is drawn too; the median of five.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

import polystore_flows as ps
from polystore_flows.report import write_report

SIDE, FIELDS, CHANNELS = 256, 2, ("DAPI", "GFP", "Cy5")
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update"


def field(rng: np.random.Generator, nuclei: int) -> tuple[np.ndarray, np.ndarray]:
    """An image ``(t, c, z, y, x)`` of blurred discs with noise, and its label image."""
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for number in range(1, nuclei + 1):
        cy, cx, r = *rng.uniform(0, SIDE, 2), rng.uniform(6, 11)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = number
    image = np.empty((1, len(CHANNELS), 1, SIDE, SIDE), np.uint16)
    for c in range(len(CHANNELS)):
        light = ndimage.gaussian_filter((labels > 0) * rng.uniform(800, 4000), 1 + 2 * c)
        image[0, c, 0] = 200 + light + rng.normal(0, 20, light.shape)
    return image, labels


def make_plate(folder: Path, size: int) -> ps.hcs.plate.Plate:
    """A full plate with a table of ten measurements and a plate map."""
    rng = np.random.default_rng(size)
    some = [field(rng, nuclei) for nuclei in range(5, 65, 3)]
    plate = ps.create_plate(f"zarr:{folder}/p{size}.zarr", size, list(CHANNELS))
    counts, conditions = [], []
    for row in plate.rows:
        for number, column in enumerate(plate.columns):
            chosen = [some[rng.integers(len(some))] for _ in range(FIELDS)]
            images = {f: image for f, (image, _) in enumerate(chosen)}
            labels = {f: {"nuclei": mask} for f, (_, mask) in enumerate(chosen)}
            plate.write_well(f"{row}/{column}", images, labels)
            well = {"well": f"{row}/{column}"}
            counts.append(well | {f"feature {i}": rng.normal(number, 1) for i in range(10)})
            role = {0: "negative", len(plate.columns) - 1: "positive"}.get(number, "")
            conditions.append(well | {"compound": f"C{number % 8}", "control": role})
    plate.write_table("tables/features.csv", counts)
    plate.write_table("tables/conditions.csv", conditions)
    return plate


def opening_times(file: Path) -> tuple[float, float]:
    """Seconds until the plate and until all of the page is drawn."""
    from playwright.sync_api import sync_playwright

    plate, whole = [], []
    with sync_playwright() as playwright:
        chromium: Any = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(file.as_uri())
            page.wait_for_selector("html[data-ready]", state="attached")
            now = "performance.now() / 1000"
            whole.append(page.evaluate(now))
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
            plate.append(page.evaluate(paint))
            page.close()
        browser.close()
    return statistics.median(plate), statistics.median(whole)


def main() -> None:
    """Print one line a plate."""
    print("| wells | page, MB | written in, s | plate drawn, s | all drawn, s |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in [int(word) for word in sys.argv[1:]] or [96, 384, 1536]:
            plate = make_plate(folder, size)
            start = time.perf_counter()
            made = write_report(plate.uri, folder / f"{size}.html")
            written = time.perf_counter() - start
            drawn, whole = opening_times(folder / f"{size}.html")
            print(f"| {size} | {made.size / 1e6:.1f} | {written:.1f} | {drawn:.2f} | {whole:.2f} |")


if __name__ == "__main__":
    main()
