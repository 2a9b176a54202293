"""The report where it is largest, and that of the demonstration."""

import subprocess
import sys
from itertools import product

import numpy as np
import pytest

import polystore_flows as ps
from polystore_flows.report import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("size", [384, 1536])
def test_a_large_plate_is_small_and_answers(open_page, tmp_path, size):
    """Times are printed by ``benchmarks/report.py``; here size and function."""
    plate = ps.create_plate(f"zarr:{tmp_path}/p.zarr", size, ["DAPI", "GFP"])
    rng = np.random.default_rng(0)
    image = rng.integers(0, 4000, (1, 2, 1, 32, 32), "uint16")
    wells = [f"{row}/{column}" for row, column in product(plate.rows, plate.columns)]
    for well in wells:
        plate.write_well(well, {0: image})
    rows = [{"well": well, **{f"m{i}": n + i for i in range(50)}} for n, well in enumerate(wells)]
    plate.write_table("tables/t.csv", rows)
    result = write_report(plate.uri, tmp_path / "r.html")
    assert result.size < 10_000_000
    page = open_page(tmp_path / "r.html")
    assert page.locator("#plate button").count() == size
    last = page.locator("#plate button").last
    last.hover()
    assert f"m0: {size - 1}" in page.get_by_role("tooltip").inner_text()
    page.get_by_label("Colour by").select_option(label="m49")
    assert page.locator("#legend").inner_text().split() == ["m49", "49", str(size + 48)]
    last.click()
    assert page.locator("#well-title").inner_text() == f"Well {wells[-1]}"
    page.get_by_text("Images", exact=True).click()
    page.locator("#plate[data-view=images]").wait_for()


def test_the_report_of_the_demonstration_shows_its_nuclei(open_page, tmp_path):
    """Twelve wells; column 2 has lost no nuclei, column 5 three quarters of them."""
    demo = [sys.executable, "-m", "polystore_flows", "demo", str(tmp_path / "demo"), "--cores", "2"]
    subprocess.run(demo, check=True, capture_output=True)
    page = open_page(tmp_path / "demo" / "report.html")
    counts = [
        int(page.locator(f'#plate button[aria-label^="C/{column}:"]').inner_text())
        for column in (2, 3, 4, 5)
    ]
    assert counts == sorted(counts, reverse=True)
    page.locator('#plate button[aria-label^="C/4:"]').click()
    panel = page.get_by_role("region", name="Well C/4")
    panel.get_by_role("img").nth(1).wait_for()
    assert "analyse_well.py" in panel.inner_text()
    assert "nuclei" in page.locator("#outlines").inner_text()
    assert 0 < float(page.locator("#control-table dd").first.inner_text()) <= 1
