"""The report of a training on codes in a real browser: whole, legible, silent on the network."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from confide.reports.codes import render_codes

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from codes_inputs import METHOD, make
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
    """Open a page; whatever it says, asks or fetches lands in `seen`."""

    def _visit(inputs, title="t"):
        path = tmp_path_factory.mktemp("page") / "report.html"
        path.write_text(render_codes(*inputs, title=title, method=METHOD), encoding="utf-8")
        page = browser.new_page()
        seen = []
        page.on("dialog", lambda dialog: (seen.append("dialog"), dialog.dismiss()))
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url))
        page.goto(path.as_uri())
        seen.remove(path.as_uri())
        return page, seen

    return _visit


@pytest.fixture(scope="module")
def report(visit):
    page, seen = visit(make())
    assert seen == []
    return page


def test_hostile_names_do_nothing_and_nothing_is_fetched(visit, hostile):
    inputs = make(
        labels=hostile,
        arms=hostile[:3],
        encoders=dict.fromkeys(hostile, hostile[2]),
        sites=dict.fromkeys(hostile[:4], 60),
        groups={hostile[0]: dict.fromkeys(hostile, 50)},
        warnings=list(hostile),
    )
    page, seen = visit(inputs, title=hostile[1])
    assert seen == []
    assert page.evaluate("document.querySelectorAll('img, iframe, object').length") == 0
    assert page.locator("script").count() == 1
    assert page.locator("h1").inner_text() == hostile[1]
    for width in (1440, 375):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1440, 375])
def test_nothing_is_cut_off(report, width):
    report.set_viewport_size({"width": width, "height": 900})
    assert report.evaluate("document.documentElement.scrollWidth") <= width
    # Texts of the axis stay in its column, and do not touch each other.
    crowded = report.evaluate(
        """() => [...document.querySelectorAll('th.mark')].filter(cell => {
            const box = cell.getBoundingClientRect();
            const texts = [...cell.querySelectorAll('text')].map(t => t.getBoundingClientRect());
            return texts.some((t, i) => t.left < box.left - 8 || t.right > box.right + 8
                                        || (i && t.left < texts[i - 1].right + 2));
        }).length"""
    )
    assert report.locator("th.mark").count() > 4
    assert crowded == 0


def test_on_a_phone_an_auc_is_seen_without_scrolling(report):
    report.set_viewport_size({"width": 375, "height": 900})
    right = report.evaluate(
        """() => Math.max(...[...document.querySelectorAll('.areas td.mark + td')]
            .map(cell => cell.getBoundingClientRect().right))"""
    )
    assert right <= 375


def test_on_a_phone_the_main_tables_are_seen_without_scrolling(report):
    report.set_viewport_size({"width": 375, "height": 900})
    wide = report.evaluate(
        """() => [...document.querySelectorAll('.scroll:has(.stacked)')]
            .filter(part => part.scrollWidth > part.clientWidth).map(part => part.ariaLabel)"""
    )
    assert report.locator(".stacked").count() == 8
    assert wide == []


def test_marks_stand_where_their_figures_say(report):
    report.set_viewport_size({"width": 1440, "height": 900})
    axis = report.locator("th.mark").first.evaluate(
        """cell => [...cell.querySelectorAll('text')].map(t => {
            const b = t.getBoundingClientRect(); return [+t.textContent, (b.left + b.right) / 2];
        })"""
    )
    (low, left), *_, (high, right) = axis
    rows = report.locator("table.areas").first.evaluate(
        """table => [...table.querySelectorAll('tbody tr')].filter(r => r.querySelector('circle'))
            .map(r => { const b = r.querySelector('circle').getBoundingClientRect();
                return [parseFloat(r.querySelector('td.num').textContent), (b.left + b.right) / 2];
            })"""
    )
    assert len(rows) == 12
    for auc, place in rows:
        assert place == pytest.approx(left + (auc - low) / (high - low) * (right - left), abs=1.5)


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
    dot = report.locator("circle.dot").first
    assert dot.evaluate("e => getComputedStyle(e).fill") == colour
    report.emulate_media(media="screen", color_scheme="light")


def test_a_printed_page_is_whole(report):
    report.emulate_media(media="print")
    report.set_viewport_size({"width": 670, "height": 900})  # A4 less its margins
    wide = report.evaluate(
        """() => [...document.querySelectorAll('table')].filter(
            t => t.getBoundingClientRect().right > 670).map(t => t.caption.textContent)"""
    )
    report.emulate_media(media="screen")
    assert wide == []
