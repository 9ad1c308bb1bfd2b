"""Make docs/report.png, the picture of the start page, from the report of the demo.

confide demo --out demo
python docs/_screenshot.py demo/report.html
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright


def main(report: Path) -> None:
    """Photograph the first screen of a report."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 760}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.wait_for_load_state("load")
        picture = page.screenshot()
        browser.close()
    few = Image.open(io.BytesIO(picture)).quantize(64)
    few.save(Path(__file__).with_name("report.png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
