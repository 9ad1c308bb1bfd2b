"""Reports of real runs in a real browser: whole, usable by keyboard, legible, silent."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
import codes_inputs
import real_pages
from test_browser import CHROMIUM, QUIET

from confide.reports.codes import render_codes

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}"),
]

AUDITS = ("embedded", "phantom", "diabetes130", "nih_cxr64")
OTHERS = ("released", "attack", "codes", "compare")
WIDTHS = (375, 768, 1440)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield chromium
        chromium.close()


def report(name, request):
    """Where the page of a run lies."""
    if name == "codes":
        path = request.getfixturevalue("tmp_path_factory").mktemp("codes") / "report.html"
        page = render_codes(*codes_inputs.make(), title="Two sites", method=codes_inputs.METHOD)
        path.write_text(page, encoding="utf-8")
        return path
    return real_pages.folder(name, request) / "report.html"


@pytest.fixture
def visit(browser):
    """Open a page; whatever it says, asks or fetches lands in `seen`, but for its own pictures."""
    opened = []

    def _visit(path, **context):
        page = browser.new_context(accept_downloads=True, **context).new_page()
        opened.append(page)
        seen = []
        page.on("dialog", lambda dialog: (seen.append("dialog"), dialog.dismiss()))
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url))
        page.goto(path.as_uri())
        page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
        seen.remove(path.as_uri())
        return page, [what for what in seen if not what.startswith("data:image/png")]

    yield _visit
    for page in opened:
        page.context.close()


@pytest.mark.parametrize("name", [*AUDITS, *OTHERS])
def test_a_page_is_whole_and_silent_at_every_width(name, request, visit, tmp_path):
    page, seen = visit(report(name, request))
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        file = tmp_path / f"{name}-{width}.png"
        page.screenshot(path=str(file))
        pixels = np.asarray(Image.open(file).convert("L"))
        assert pixels.shape == (900, width)
        ink = float((pixels < 128).mean())
        assert 0.01 < ink < 0.4  # text on paper, neither blank nor filled
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=str(tmp_path / f"{name}-dark.png"))
    pixels = np.asarray(Image.open(tmp_path / f"{name}-dark.png").convert("L"))
    assert np.median(pixels) < 60
    page.emulate_media(media="print", color_scheme="light")
    assert len(page.pdf(format="A4")) > 20_000
    assert seen == []


def faults(page):
    """Serious and critical violations that axe-core finds."""
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).parent / "axe.min.js"
    page.evaluate(script.read_text(encoding="utf-8"))
    # The figures of the drawing library are pictures with a label each.
    found = page.evaluate(
        "axe.run({exclude: [['.plot .main-svg']]}, {resultTypes: ['violations']})"
    )
    return [
        (one["id"], one["impact"], [node["target"] for node in one["nodes"]][:3])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", ["embedded", "diabetes130", "nih_cxr64", *OTHERS])
@pytest.mark.parametrize(("scheme", "width"), [("light", 375), ("dark", 1440)])
def test_no_serious_fault_of_accessibility(name, scheme, width, request, visit):
    pytest.importorskip("axe_playwright_python")
    size = {"width": width, "height": 900}
    page, _ = visit(report(name, request), bypass_csp=True, color_scheme=scheme, viewport=size)
    assert faults(page) == []


def test_axe_sees_a_fault(request, visit):
    pytest.importorskip("axe_playwright_python")
    page, _ = visit(report("released", request), bypass_csp=True)
    page.evaluate("document.querySelector('main').innerHTML += '<img src=\"data:,\">'")
    assert [one[0] for one in faults(page)] == ["image-alt"]


def test_the_slider_by_keyboard(request, visit):
    page, seen = visit(report("diabetes130", request))
    slider = page.get_by_role("slider")
    slider.focus()
    said = page.locator(".slider output")
    before = said.inner_text()
    page.keyboard.press("ArrowLeft")
    assert said.inner_text() != before
    page.keyboard.press("Home")
    assert "0.500" in said.inner_text()
    page.keyboard.press("End")
    assert "1.000" in said.inner_text()
    assert seen == []


def column(page, table, number):
    cells = page.locator(f"{table} tbody tr:not(.detail) > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def downloaded(page, table):
    """The rows of the file that a table gives."""
    box = page.locator(f".scroll:has({table}) + .tools button.download")
    with page.expect_download() as waiting:
        box.click()
    text = Path(waiting.value.path()).read_text(encoding="utf-8-sig")
    return waiting.value.suggested_filename, list(csv.reader(io.StringIO(text)))


def test_a_table_is_sorted_filtered_and_downloaded(request, visit):
    page, seen = visit(report("diabetes130", request))
    table = 'table[data-table="patients-at-risk"]'
    head = page.locator(f"{table} thead th").nth(1)
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    rising = [int(n.split()[0]) for n in column(page, table, 2)]
    assert rising == sorted(rising)
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    falling = [int(n.split()[0]) for n in column(page, table, 2)]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] >= rising[-1]
    page.get_by_label("Filter patients").fill("P101")
    assert [name.split()[-1] for name in column(page, table, 1)] == ["P101"]
    file, lines = downloaded(page, table)
    assert file == "patients-at-risk.csv"
    assert len(lines) == 2
    page.get_by_label("Filter patients").fill("")
    assert len(downloaded(page, table)[1]) > 100
    assert seen == []


@pytest.mark.parametrize(
    ("name", "table", "number"),
    [("attack", "attacks", 1), ("released", "claims_about_patients", 2), ("codes", "figures", 7)],
)
def test_other_pages_sort_and_download(name, table, number, request, visit):
    page, seen = visit(report(name, request))
    where = f'table[data-table="{table}"]'
    shown = len(column(page, where, number))
    head = page.locator(f"{where} thead tr").last.locator("th").nth(number - 1)
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    first = column(page, where, number)[0]
    page.keyboard.press("Enter")
    assert column(page, where, number)[0] != first
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert column(page, where, number)[0] == first
    assert head.get_attribute("aria-sort") == "ascending"
    file, lines = downloaded(page, where)
    assert file == f"{table}.csv"
    n_rows = 138 if name == "codes" else shown  # of codes, 100 of them on the first page
    assert len(lines) == n_rows + 1
    assert seen == []


def test_names_with_markup_stay_text(request, visit):
    page, seen = visit(report("scores", request))
    assert page.evaluate("document.querySelectorAll('img, iframe, object, embed').length") == 0
    texts = page.locator("main").inner_text()
    for name in real_pages.NAMES[:2]:  # columns of the table are groups
        assert name in texts
    assert "49" not in [text.strip() for text in page.locator("bdi").all_inner_texts()]
    for table in ("groups", "patients-at-risk"):
        buttons = page.locator(f'.scroll:has(table[data-table^="{table[:5]}"]) + .tools button')
        with page.expect_download() as waiting:
            buttons.locator("visible=true").last.click()
        lines = list(csv.reader(io.StringIO(Path(waiting.value.path()).read_text("utf-8-sig"))))
        assert len(lines) > 1
        for cell in (cell for line in lines for cell in line):
            assert not cell.startswith(("=", "@", "+", "\t"))
    assert page.locator("script").count() <= 6
    assert seen == []


def test_everything_is_there_without_scripts(request, browser):
    for name in ("diabetes130", "attack", "released"):
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(report(name, request).as_uri())
        assert page.locator("table[data-table]").count() > 1
        assert page.locator("table[data-table] tbody tr").count() > 3
        context.close()
