"""Draw ``images/report-demo.png``; its argument is the folder of ``polystore-flows demo``."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main(demo: Path) -> None:
    """Open the report of `demo`, choose a well, and save what is seen."""
    target = Path(__file__).parent / "images" / "report-demo.png"
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1010}, color_scheme="light")
        page.goto((demo / "report.html").resolve().as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        page.locator('#plate button[aria-label^="C/4:"]').click()
        page.locator("#fields canvas").nth(1).wait_for()
        page.locator("h1").hover()
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
