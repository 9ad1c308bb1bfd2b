"""The report in a real browser: drawn, inert and silent on the network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from confide.reports.html import render

CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
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

    def _visit(text):
        path = tmp_path_factory.mktemp("page") / "report.html"
        path.write_text(text, encoding="utf-8")
        page = browser.new_page()
        seen = []
        page.on("dialog", lambda dialog: (seen.append("dialog"), dialog.dismiss()))
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url))
        page.goto(path.as_uri())
        for plot in ("roc", "survival"):
            page.locator(f"#plot-{plot} .xaxislayer-above").wait_for(state="attached")
        seen.remove(path.as_uri())
        return page, seen

    return _visit


@pytest.fixture(scope="module")
def report(visit, make_result):
    """A plain report, opened once."""
    page, seen = visit(render(make_result(), title="t", method={}))
    assert seen == []
    return page


def test_hostile_names_do_nothing_and_nothing_is_fetched(visit, make_result, hostile):
    result = make_result(
        groups={"race": dict.fromkeys(hostile, 50), hostile[1]: {hostile[2]: 50}},
        attacks=("lira", *hostile[:5]),
        warnings=list(hostile),
    )
    result.patients["patient"] = [hostile[i % 8] + str(i) for i in range(len(result.patients))]
    text = render(result, title=hostile[1], method={hostile[2]: hostile[0]}, show_ids=True)
    page, seen = visit(text)
    # Over a curve, so that the name of an attack passes through the drawing library too.
    page.locator("#plot-roc .nsewdrag").hover()
    page.wait_for_timeout(300)
    assert seen == []
    assert page.evaluate("document.querySelectorAll('img, iframe, object, embed').length") == 0
    assert page.locator("h1").inner_text() == hostile[1]


def test_a_script_that_got_in_would_not_run(visit, make_result):
    text = render(make_result(), title="t", method={})
    broken = text.replace("</main>", "<script>alert(1)</script><img src=http://example.org></main>")
    page, seen = visit(broken)
    assert "dialog" not in seen
    assert any("Content Security Policy" in line for line in seen)
    loaded = page.evaluate("performance.getEntriesByType('resource').map(e => e.transferSize)")
    assert not any(loaded)


def _stroke(report):
    line = report.locator("#plot-roc .scatterlayer .trace path.js-line").last
    return line.evaluate("e => getComputedStyle(e).stroke")


def test_figures_are_drawn(report):
    # Two attacks and a diagonal; two risks, chance for each and one corrected, three with bands.
    assert report.locator("#plot-roc .scatterlayer .trace").count() == 5
    assert report.locator("#plot-survival .scatterlayer .trace").count() == 8
    assert report.locator(".fallback").count() == 0


@pytest.mark.parametrize(
    ("scheme", "colour"), [("dark", "rgb(240, 132, 60)"), ("light", "rgb(213, 94, 0)")]
)
def test_figures_follow_light_and_dark(report, scheme, colour):
    report.emulate_media(color_scheme=scheme)
    assert _stroke(report) == colour


@pytest.mark.parametrize("width", [1440, 375])
def test_nothing_is_cut_off(report, width):
    report.set_viewport_size({"width": width, "height": 900})
    report.wait_for_timeout(400)  # the drawing library redraws a little after the last resize
    assert report.evaluate("document.documentElement.scrollWidth") <= width
    outside = report.evaluate(
        """() => [...document.querySelectorAll('.plot')].flatMap(plot => {
            const box = plot.getBoundingClientRect();
            return [...plot.querySelectorAll('text')].filter(text => {
                const b = text.getBoundingClientRect();
                return b.width && (b.left < box.left - 1 || b.right > box.right + 1
                                   || b.bottom > box.bottom + 1);
            }).map(text => text.textContent);
        })"""
    )
    assert outside == []


def test_paper_is_light_and_narrow(report):
    report.emulate_media(media="print", color_scheme="dark")
    report.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert _stroke(report) == "rgb(213, 94, 0)"
    background = report.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    assert report.locator("#plot-roc .main-svg").first.evaluate("e => e.clientWidth") == 600
    report.evaluate("dispatchEvent(new Event('afterprint'))")
    report.emulate_media(media="screen", color_scheme="light")
