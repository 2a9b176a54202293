"""Plates that pages are drawn from, and what is watched of a page."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import polystore_flows as ps

EVIL = "<img src=x onerror=alert(1)><script>alert(1)</script>\"'&"


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
