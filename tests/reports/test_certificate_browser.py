"""The certificate in a real browser: whole, legible, silent on the network."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from confide.reports.certificate import render_certificate

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
import certificates
from certificates import challenge, make
from test_browser import CHROMIUM, QUIET

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def visit(browser, tmp_path_factory):
    """Open a page; whatever it says, asks or fetches lands in `seen`, but for its own pictures."""

    def _visit(certificate, pictures):
        path = tmp_path_factory.mktemp("page") / "report.html"
        path.write_text(render_certificate(certificate, pictures), encoding="utf-8")
        page = browser.new_page()
        seen = []
        page.on("dialog", lambda dialog: (seen.append("dialog"), dialog.dismiss()))
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url))
        page.goto(path.as_uri())
        seen.remove(path.as_uri())
        return page, [what for what in seen if not what.startswith("data:image/png")]

    return _visit


@pytest.fixture(scope="module")
def report(visit):
    page, seen = visit(make(most=0.05), certificates.pictures("unpaired-alignment"))
    assert seen == []
    return page


def test_hostile_names_do_nothing_and_nothing_is_fetched(visit, hostile):
    page, seen = visit(certificates.hostile(hostile), certificates.pictures(hostile[0]))
    assert seen == []
    assert page.evaluate("document.querySelectorAll('iframe, object').length") == 0
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 12
    assert page.locator("h1").inner_text() == f"Release {hostile[1]}"
    for width in (1440, 375):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1440, 375])
def test_nothing_is_cut_off(report, visit, width):
    other, _ = visit(challenge(), {})
    for page in (report, other):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Texts of axes stay where they belong, and do not touch each other.
    crowded = report.evaluate(
        """() => [...document.querySelectorAll('th.mark, svg.curve')].filter(part => {
            const box = part.getBoundingClientRect();
            const texts = [...part.querySelectorAll('text')].map(t => t.getBoundingClientRect())
                .filter(b => b.width);
            const outside = t => t.left < box.left - 8 || t.right > box.right + 8
                || t.top < box.top - 8 || t.bottom > box.bottom + 8;
            const touch = (a, b) => a.left < b.right + 2 && b.left < a.right + 2
                && a.top < b.bottom && b.top < a.bottom;
            return texts.some((t, i) => outside(t) || texts.slice(i + 1).some(u => touch(t, u)));
        }).map(part => part.textContent)"""
    )
    assert report.locator("th.mark").count() == 2
    assert report.locator("svg.curve").count() == 2
    assert crowded == []


def test_on_a_phone_outcomes_and_scores_are_seen_without_scrolling(report):
    report.set_viewport_size({"width": 375, "height": 900})
    for cells in (".summary td:nth-child(3)", ".tracks td.num", ".blocks td:nth-child(2)"):
        right = report.evaluate(
            """cells => Math.max(...[...document.querySelectorAll(cells)]
                .map(cell => cell.getBoundingClientRect().right))""",
            cells,
        )
        assert right <= 375


def test_marks_stand_where_their_figures_say(report):
    report.set_viewport_size({"width": 1440, "height": 900})
    middle = "const b = t.getBoundingClientRect(); return [parseFloat(t.textContent), "
    for index, scale in ((0, 100), (1, 1)):
        table = report.locator("table.tracks").nth(index)
        axis = table.locator("th.mark text").evaluate_all(
            f"texts => texts.map(t => {{ {middle} (b.left + b.right) / 2]; }})"
        )
        (low, left), *_, (high, right) = axis
        assert (low, high) == (0, scale)
        rows = table.evaluate(
            """table => [...table.querySelectorAll('tbody tr')].map(row => {
                const b = row.querySelector('circle').getBoundingClientRect();
                return [parseFloat(row.querySelector('td.num').textContent),
                        (b.left + b.right) / 2];
            })"""
        )
        assert len(rows) == 4
        for value, place in rows:
            assert place == pytest.approx(left + value / scale * (right - left), abs=2)


def test_curves_stand_where_their_tables_say(report):
    report.set_viewport_size({"width": 1440, "height": 900})
    curve = report.locator("svg.curve").first
    ticks = curve.locator("text.y").evaluate_all(
        """texts => texts.map(t => { const b = t.getBoundingClientRect();
            return [parseFloat(t.textContent), (b.top + b.bottom) / 2]; })"""
    )
    (low, bottom), *_, (high, top) = ticks
    assert (low, high) == (0, 100)
    dots = curve.locator("circle").evaluate_all(
        """dots => dots.map(d => {
            const b = d.getBoundingClientRect(); return (b.top + b.bottom) / 2;
        })"""
    )
    for place, value in zip(dots, (61.0, 87.0, 95.3, 97.8), strict=True):
        assert place == pytest.approx(bottom + value / 100 * (top - bottom), abs=2)


def test_pictures_are_drawn(report):
    sizes = report.evaluate("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [[16, 16]] * 12


@pytest.mark.parametrize(
    ("media", "scheme", "colour"),
    [
        ("screen", "dark", "rgb(86, 180, 233)"),
        ("screen", "light", "rgb(0, 114, 178)"),
        ("print", "dark", "rgb(0, 114, 178)"),
    ],
)
def test_colours_follow_light_dark_and_paper(report, media, scheme, colour):
    report.emulate_media(media=media, color_scheme=scheme)
    for dot in (".tracks .dot", ".curve .dot", ".legend circle"):
        found = report.locator(dot).first.evaluate("e => getComputedStyle(e).fill")
        assert found == colour
    report.emulate_media(media="screen", color_scheme="light")


def test_a_printed_page_is_whole(report):
    report.emulate_media(media="print")
    report.set_viewport_size({"width": 670, "height": 900})  # A4 less its margins
    wide = report.evaluate(
        """() => [...document.querySelectorAll('table, svg.curve, .pictures')].filter(
            t => t.getBoundingClientRect().right > 670).map(t => t.textContent.slice(0, 80))"""
    )
    report.emulate_media(media="screen")
    assert wide == []
