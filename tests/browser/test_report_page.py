"""The report in a real browser: what is drawn, hovered, chosen, opened and typed."""

import pytest
from browser_pages import EVIL, violations

pytestmark = pytest.mark.browser


def well(page, name):
    """The button of a well."""
    return page.locator(f'#plate button[aria-label^="{name}:"]')


def until(page, expression, arg=None):
    """Wait until `expression` holds; the page's own policy forbids `wait_for_function`."""
    for _ in range(200):
        if page.evaluate(expression, arg):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {expression}")


def colour(page, name):
    return well(page, name).evaluate("button => getComputedStyle(button).backgroundColor")


def test_the_heat_map_runs_from_the_least_to_the_largest_value(open_page, report):
    page = open_page(report)
    assert page.locator("#plate button").count() == 24
    assert colour(page, "A/1") == "rgb(68, 1, 84)"  # the ends of viridis
    assert colour(page, "B/3") == "rgb(253, 231, 37)"
    assert well(page, "A/2").inner_text() == "11"
    assert well(page, "C/1").get_attribute("data-state") == "missing"
    assert well(page, "B/2").get_attribute("data-state") == "partial"
    assert well(page, "D/6").get_attribute("data-state") == "empty"
    assert page.locator("#legend").inner_text().startswith("nuclei\n10")


def test_hovering_tells_value_and_conditions(open_page, report):
    page = open_page(report)
    tip = page.get_by_role("tooltip")
    assert tip.is_hidden()
    well(page, "A/2").hover()
    assert tip.inner_text().splitlines() == [
        "A/2",
        "nuclei: 11",
        "drug: drug 1",
        "control: positive",
    ]
    well(page, "C/1").hover()
    assert EVIL in tip.inner_text()
    assert "without images" in tip.inner_text()
    page.locator("h1").hover()
    assert tip.is_hidden()


def test_switching_the_measurement_recolours_plate_chart_and_controls(open_page, report):
    page = open_page(report)
    page.get_by_label("Colour by").select_option(label="area")
    assert colour(page, "A/1") == "rgb(253, 231, 37)"
    assert well(page, "A/3").get_attribute("data-value") == "none"
    assert "no value" in well(page, "A/3").get_attribute("aria-label")
    assert page.locator("#control-table").inner_text().startswith("area")
    until(page, "() => document.querySelector('#chart svg').textContent.includes('area')")
    page.get_by_label("Colour by").select_option(label="GFP mean")
    assert colour(page, "A/1") == "rgb(68, 1, 84)"
    page.get_by_label("Colour by").select_option(label="drug")
    assert page.locator("#legend .key").count() >= 3
    assert "A text has no distribution" in page.locator("#chart").inner_text()


def test_the_controls_are_compared_by_the_formula_that_is_cited(open_page, report):
    """nuclei: 10, 11, 14 against 19, 26, 35; worked out by hand."""
    page = open_page(report)
    figures = page.locator("#control-table .figures").inner_text().split("\n")
    z_prime = 1 - 3 * (2.0817 + 8.0208) / (26.6667 - 11.6667)
    assert float(figures[figures.index("Z′") + 1].replace("−", "-")) == pytest.approx(
        z_prime, abs=0.01
    )


def test_a_click_opens_the_wells_fields_with_outlines(open_page, report):
    page = open_page(report)
    well(page, "A/3").click()
    panel = page.get_by_role("region", name="Well A/3")
    pictures = panel.get_by_role("img")
    pictures.nth(1).wait_for()
    assert pictures.count() == 2
    assert "drug 0" in panel.inner_text()
    with_outline = pictures.first.evaluate("canvas => canvas.toDataURL()")
    panel.get_by_label("nuclei").uncheck()
    until(page, "old => document.querySelector('#fields canvas').toDataURL() !== old", with_outline)
    plain = panel.get_by_role("img").first.evaluate("canvas => canvas.toDataURL()")
    panel.get_by_label("GFP").uncheck()
    until(page, "old => document.querySelector('#fields canvas').toDataURL() !== old", plain)
    assert page.url.endswith("#A/3")


def test_an_outline_lies_on_the_border_of_its_object(open_page, report):
    """Yellow where the label image changes, at a corner of it, and not inside."""
    page = open_page(report)
    page.locator("#fields canvas").first.wait_for()
    pixels = page.evaluate("""() => {
        const canvas = document.querySelector('#fields canvas');
        const data = canvas.getContext('2d').getImageData(0, 0, 64, 64).data;
        const at = (x, y) => [...data.slice(4 * (64 * y + x), 4 * (64 * y + x) + 3)];
        return [at(12, 10), at(25, 10), at(25, 20)];
    }""")
    corner, border, inside = pixels
    assert corner == border == pytest.approx([255, 213, 74], abs=3)
    assert inside[0] < 60


def test_a_well_that_failed_in_part_says_why(open_page, report):
    page = open_page(report)
    well(page, "B/2").click()
    panel = page.get_by_role("region", name="Well B/2")
    assert "B/2/0" in panel.locator(".warning").inner_text()
    well(page, "C/1").click()
    missing = page.get_by_role("region", name="Well C/1")
    assert "no images of it" in missing.locator(".warning").inner_text()


def test_images_of_all_wells_are_shown_in_their_places(open_page, report):
    page = open_page(report)
    page.get_by_text("Images", exact=True).click()
    until(page, "() => document.querySelector('#plate').style.getPropertyValue('--sheet')")
    style = "button => getComputedStyle(button).backgroundImage"
    assert well(page, "A/1").evaluate(style).startswith('url("blob:')
    assert "gradient" in well(page, "C/1").evaluate(style)
    page.locator("#sheet-channels").get_by_label("GFP").uncheck()
    assert not page.locator("#channels").get_by_label("GFP").is_checked()


def test_everything_is_done_by_keyboard_alone(open_page, report):
    page = open_page(report)
    well(page, "A/1").focus()
    press = page.keyboard.press
    for key, there in [
        ("ArrowRight", "A/2"),
        ("ArrowDown", "B/2"),
        ("End", "B/6"),
        ("ArrowRight", "B/6"),
        ("Home", "B/1"),
        ("PageDown", "D/1"),
        ("Control+Home", "A/1"),
        ("ArrowLeft", "A/1"),
        ("ArrowUp", "A/1"),
        ("Control+End", "D/6"),
        ("PageUp", "A/6"),
        ("Home", "A/1"),
        ("ArrowRight", "A/2"),
    ]:
        press(key)
        focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert focused.startswith(f"{there}:"), key
    assert page.get_by_role("tooltip").inner_text().startswith("A/2")
    press("Enter")
    assert page.evaluate("document.activeElement.id") == "well"
    assert page.get_by_role("region", name="Well A/2").is_visible()
    press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("A/2:")
    press("Shift+Tab")
    assert (
        page.evaluate("document.activeElement.closest('table')") is None
    )  # one stop for all wells


def test_previous_and_next_go_round(open_page, report):
    page = open_page(report)
    title = page.locator("#well-title")
    page.get_by_role("button", name="Previous well").click()
    assert title.inner_text() == "Well C/1"
    page.get_by_role("button", name="Next well").click()
    page.get_by_role("button", name="Next well").click()
    assert title.inner_text() == "Well A/2"


def test_an_address_opens_a_well(open_page, report):
    page = open_page(f"{report.as_uri()}#B/3")
    assert page.locator("#well-title").inner_text() == "Well B/3"


def test_a_point_of_the_chart_opens_its_well(open_page, report):
    page = open_page(report)
    page.get_by_label("by", exact=True).select_option(label="row")
    until(page, "() => document.querySelector('#chart svg').textContent.includes('row')")
    page.locator("#chart .mark-symbol path").first.click(force=True)
    assert page.url.split("#")[1] in ("A/1", "A/2", "A/3", "B/1", "B/2", "B/3")


def test_what_a_plate_says_is_shown_and_never_run(open_page, report):
    """The fixture fails at a dialog, an error, or a request."""
    page = open_page(report)
    assert page.locator("h1").inner_text() == f"Plate {EVIL}"
    page.get_by_label("by", exact=True).select_option(label="drug")
    well(page, "C/1").click()
    assert EVIL in page.locator("#well-text").inner_text()
    page.get_by_text("The same in numbers").click()
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong(open_page, report, axe, scheme):
    """Contrast, names, roles and keyboard access, in both colour schemes and both views."""
    page = open_page(report, color_scheme=scheme)
    page.get_by_text("The same in numbers").click()
    assert violations(page, axe) == []
    page.get_by_text("Images", exact=True).click()
    assert violations(page, axe) == []


def test_colours_follow_the_system_and_can_be_chosen(open_page, report):
    page = open_page(report, color_scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Colour scheme").click()
    light = page.evaluate(ground)
    assert dark == "rgb(15, 18, 22)"
    assert light == "rgb(246, 247, 249)"


def test_the_page_needs_no_network(browser, report):
    """Opened offline, from a file."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    page.locator("#chart svg").wait_for()
    context.close()


def test_a_narrow_screen_scrolls_nothing_sideways(open_page, report):
    page = open_page(report, viewport={"width": 390, "height": 800})
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= 390
