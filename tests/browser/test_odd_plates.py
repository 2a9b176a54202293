"""Plates with little or nothing to show: the page is drawn, says so, and does not fail."""

from math import nan

import numpy as np
import pytest
from browser_pages import violations

import polystore_flows as ps
from polystore_flows.report import write_report

pytestmark = pytest.mark.browser
IMAGE = np.arange(32 * 32, dtype=np.uint16).reshape(1, 1, 1, 32, 32)


@pytest.fixture
def show(open_page, tmp_path):
    """Draw a plate of these wells and rows of a table, and open its page; some wells are broken."""

    def call(wells, rows=(), image=IMAGE, broken=()):
        plate = ps.create_plate(f"zarr:{tmp_path}/p.zarr", 24, ["DAPI"])
        for well in wells:
            plate.write_well(well, {0: image})
        for well in broken:
            (plate.root / well / "zarr.json").unlink()
        if rows:
            plate.write_table("tables/t.csv", list(rows))
        write_report(plate.uri, tmp_path / "r.html")
        return open_page(tmp_path / "r.html")

    return call


def measurements(page):
    return page.get_by_label("Colour by").locator("option").all_inner_texts()


def test_a_plate_without_wells_is_an_empty_grid(show):
    page = show([])
    assert page.locator('#plate button[data-state="empty"]').count() == 24
    assert page.get_by_role("tooltip").is_hidden()


def test_one_well_without_a_table_is_coloured_by_its_pixels(show):
    """One value has no range; the well still has a colour that is not that of a missing one."""
    page = show(["B/3"])
    assert "DAPI mean" in measurements(page)
    page.get_by_label("Colour by").select_option(label="DAPI mean")
    only = page.locator('#plate button[aria-label^="B/3:"]')
    assert float(only.inner_text()) == pytest.approx(511.5, abs=1)
    only.click()
    page.get_by_role("region", name="Well B/3").get_by_role("img").first.wait_for()


def test_a_measurement_of_nan_alone_is_left_out_and_one_with_a_hole_says_no_value(show):
    rows = [
        {"well": "A/1", "nothing": nan, "hole": 5.0, "endless": float("inf")},
        {"well": "A/2", "nothing": nan, "hole": nan, "endless": 1.0},
    ]
    page = show(["A/1", "A/2"], rows)
    assert "nothing" not in measurements(page)
    page.get_by_label("Colour by").select_option(label="hole")
    assert page.locator('#plate button[aria-label^="A/2:"]').get_attribute("data-value") == "none"
    page.get_by_label("Colour by").select_option(label="endless")
    assert page.locator('#plate button[aria-label^="A/1:"]').get_attribute("data-value") == "none"
    assert "NaN" not in page.locator("body").inner_text()


def test_a_measurement_that_is_text_is_shown_by_a_colour_for_each_word(show):
    rows = [
        {"well": "A/1", "phenotype": "round"},
        {"well": "A/2", "phenotype": "flat"},
        {"well": "A/3", "phenotype": "round"},
    ]
    page = show(["A/1", "A/2", "A/3"], rows)
    page.get_by_label("Colour by").select_option(label="phenotype")
    colour = "button => getComputedStyle(button).backgroundColor"
    first, second, third = (
        page.locator(f'#plate button[aria-label^="A/{n}:"]').evaluate(colour) for n in (1, 2, 3)
    )
    assert first == third != second
    assert page.locator("#legend .key").all_inner_texts() == ["flat", "round"]


def test_black_images_and_images_of_nan_are_drawn(show):
    """Neither has a range that a contrast could be made from."""
    page = show(["A/1"], image=np.full((1, 1, 1, 32, 32), nan, np.float32))
    page.get_by_text("Images", exact=True).click()
    page.locator("#plate[data-view=images]").wait_for()
    page.locator('#plate button[aria-label^="A/1:"]').click()
    page.get_by_role("region", name="Well A/1").get_by_role("img").first.wait_for()
    assert "NaN" not in page.locator("body").inner_text()


def test_a_well_that_cannot_be_read_is_named_with_the_value_that_a_table_has(show, axe):
    """What is heard of a well holds what is seen of it (axe: label-content-name-mismatch)."""
    rows = [{"well": "A/1", "n": 41}, {"well": "A/2", "n": 42}, {"well": "A/3", "n": 43}]
    page = show(["A/1", "A/2"], rows, broken=["A/2"])
    names = page.locator("#plate tr").nth(1).locator("button")
    assert [names.nth(n).get_attribute("aria-label") for n in range(4)] == [
        "A/1: 41",
        "A/2: 42, could not be read",
        "A/3: 43, in a table, but without images",
        "A/4: no images",
    ]
    assert violations(page, axe) == []
