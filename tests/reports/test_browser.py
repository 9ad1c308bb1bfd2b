"""The report in a real browser: drawn, inert and silent on the network."""

import csv
import dataclasses
import io
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
        for plot in ("roc", "survival") if 'id="figures"' in text else ():
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


def _said(page):
    return page.locator(".slider output").inner_text()


def test_the_slider_says_what_was_found_at_a_threshold_and_marks_it(visit, make_result):
    result = make_result()
    page, seen = visit(render(result, title="t", method={}))
    slider = page.get_by_role("slider", name="AUC threshold")
    limits = [slider.get_attribute(name) for name in ("min", "max", "step")]
    assert limits == ["0.5", "1.0", "0.05"]
    n = int((result.patients["auc_joint"] >= 0.8).sum())
    assert _said(page).startswith(f"At or above AUC 0.800: {n} of 455 patients measured, where ")
    line = page.locator("#plot-survival .shapelayer path")
    before = line.get_attribute("d")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert _said(page).startswith("At or above AUC 0.850")
    assert slider.get_attribute("aria-valuetext") == "AUC 0.850"
    assert line.get_attribute("d") != before
    page.keyboard.press("Home")
    assert _said(page).startswith("At or above AUC 0.500")
    page.emulate_media(color_scheme="dark")  # drawn again, and the mark stays
    assert page.locator("#plot-survival .shapelayer path").count() == 1
    page.emulate_media(color_scheme="light")
    assert seen == []
    page.close()


def _tables(result, **more):
    """The page without figures, which opens sooner."""
    return render(dataclasses.replace(result, curves=result.curves.iloc[:0]), **more)


def _names(page):
    return page.locator("table.patients > tbody > tr:not(.detail) > th bdi").all_inner_texts()


def test_patients_are_paged_sorted_and_filtered(visit, make_result, make_records):
    result = make_records(make_result(3000, n_at_risk=230))
    page, seen = visit(_tables(result, title="t", method={}))
    section = page.locator("section[aria-labelledby=patients]")
    status = section.get_by_role("status")
    assert _names(page) == [f"P{i}" for i in range(1, 26)]
    assert status.inner_text() == "Rows 1 to 25 of 230."
    back = section.get_by_role("button", name="Previous rows")
    on = section.get_by_role("button", name="Next rows")
    assert back.is_disabled()
    for _ in range(9):
        on.click()
    assert _names(page) == [f"P{i}" for i in range(226, 231)]
    assert on.is_disabled()

    head = section.get_by_role("columnheader", name="AUC, all records")
    button = head.get_by_role("button")
    for direction, first in (("ascending", "P230"), ("descending", "P1"), (None, "P1")):
        button.press("Enter")
        assert head.get_attribute("aria-sort") == direction
        assert _names(page)[0] == first
    assert status.inner_text() == "Rows 1 to 25 of 230."

    section.get_by_role("searchbox", name="Filter patients").fill("p22")
    assert _names(page) == ["P22"]  # and not P220
    assert status.inner_text() == "1 row, of 230 in all."
    section.get_by_role("searchbox").fill("p101")  # not P10 beside the number of its records
    assert _names(page) == ["P101"]
    section.get_by_role("searchbox").fill("p")  # no whole pseudonym
    assert status.inner_text() == "Rows 1 to 25 of 230."
    section.get_by_role("searchbox").fill("p999")  # of no patient
    assert _names(page) == []
    section.get_by_role("searchbox").fill("nobody")
    assert status.inner_text() == "0 rows, of 230 in all."
    section.get_by_role("searchbox").fill("")
    assert status.inner_text() == "Rows 1 to 25 of 230."
    assert seen == []
    page.close()


def test_records_of_a_patient_open_and_close(visit, make_result, make_records):
    page, seen = visit(
        _tables(make_records(make_result(3000, n_at_risk=120)), title="t", method={})
    )
    section = page.locator("section[aria-labelledby=patients]")
    for name in ("P2", "P118"):  # one of the page, one of its data
        section.get_by_role("searchbox").fill(name)
        button = section.get_by_role("button", name=f"Records of {name}", exact=True)
        detail = page.locator(f"#{button.get_attribute('aria-controls')}")
        assert not detail.is_visible()
        button.press("Enter")
        assert button.get_attribute("aria-expanded") == "true"
        assert detail.inner_text().split("\n")[0] == "R1 AUC 0.990, standard error 0.030"
        button.press("Enter")
        assert not detail.is_visible()
    assert seen == []
    page.close()


def _download(page, label):
    with page.expect_download() as found:
        page.get_by_role("button", name=label).click()
    text = Path(found.value.path()).read_bytes().decode("utf-8-sig")
    return found.value.suggested_filename, list(csv.reader(io.StringIO(text, newline="")))


def test_tables_are_downloaded_with_full_numbers(visit, make_result, make_records):
    result = make_records(make_result(3000, n_at_risk=230))
    result.summary["attacks"]["lira"] |= {"auc": 0.6123456, "auc_low": 0.59, "auc_high": 0.63}
    page, _ = visit(_tables(result, title="t", method={}))
    name, rows = _download(page, "Download CSV: Attacks on average")
    assert name == "attacks.csv"
    assert rows[:2] == [
        ["Attack", "AUC", "AUC low", "AUC high", "Balanced accuracy"],
        ["LiRA", "0.612346", "0.59", "0.63", "0.577"],
    ]
    name, rows = _download(page, "Download CSV: All 230 patients at risk")
    assert name == "patients-at-risk.csv"
    assert [row[0] for row in rows[1:]] == [f"P{i}" for i in range(1, 231)]
    listed = result.patients[result.patients["at_risk"]].sort_values("p_value")
    column = rows[0].index("AUC, all records")
    for row, auc in zip(rows[1:], listed["auc_joint"], strict=True):
        assert float(row[column]) == pytest.approx(auc, rel=1e-5)
    name, rows = _download(page, "Download CSV: Members found while few outsiders")
    assert rows[0][-1] == "Predictive value if 1% are members"
    assert rows[1][:3] == ["LiRA", "0.1", "0.21"]
    assert rows[4][:3] == ["LiRA", "0.0001", "not measurable: too few outsiders"]
    page.close()


def test_a_download_of_a_part_says_so(visit, make_result):
    result = make_result(6000, n_at_risk=5002, groups={})
    page, seen = visit(_tables(result, title="t", method={}))
    name, rows = _download(page, "Download CSV of the first 5,000: The first 5,000 of 5,002")
    assert name == "patients-at-risk-first-5000.csv"
    assert len(rows) == 5001
    assert seen == []
    page.close()


def test_filters_have_names_of_their_own(visit, make_result):
    groups = {key: {f"{key}{i}": 40 for i in range(30)} for key in ("site", "city")}
    page, _ = visit(_tables(make_result(3000, n_at_risk=30, groups=groups), title="t", method={}))
    names = [
        page.evaluate("e => e.labels[0].textContent.trim()", one.element_handle())
        for one in page.get_by_role("searchbox").all()
    ]
    assert len(set(names)) == len(names) >= 3
    assert "Filter patients" in names
    page.close()


def test_nothing_is_wider_than_paper(visit, make_result):
    groups = {"race": {"AfricanAmerican": 2000, "x" * 80: 400}, "sex": {"F": 1500, "M": 1300}}
    page, _ = visit(_tables(make_result(3000, n_at_risk=30, groups=groups), title="t", method={}))
    page.set_viewport_size({"width": 718, "height": 1000})
    page.emulate_media(media="print")
    wide = page.evaluate(
        """() => [...document.querySelectorAll('table')].filter(
          table => table.getBoundingClientRect().right > 718.5).map(table => table.dataset.table)"""
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") == 718
    heads = page.locator("table[data-table=group-1] thead th:visible").all_inner_texts()
    assert heads[-1].split()[0] == "q"
    assert not {"p", "Holm"} & {head.split()[0] for head in heads if head.split()}
    page.close()


def test_what_is_withheld_stays_withheld_in_downloads(visit, make_result):
    result = make_result(groups={"race": {"White": 441, "Seven": 7, "Six": 7}})
    page, _ = visit(_tables(result, title="t", method={}))
    _, rows = _download(page, "Download CSV: Risk by race")
    assert "" not in rows[0]  # the drawing is no column
    assert rows[2][:2] == ["Seven", "withheld"]
    assert set(rows[2][1:]) == {"withheld", ""}
    page.close()


def test_downloads_run_nothing_in_a_spreadsheet(visit, make_result):
    hostile = ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "  =1", "a;=1", 'b"=1', "\uff1d1", "-5", "fine"]
    result = make_result(groups={"site": dict.fromkeys(hostile, 40)})
    page, _ = visit(_tables(result, title="t", method={}))
    _, rows = _download(page, "Download CSV: Risk by site")
    found = [row[0] for row in rows[1:]]
    assert found == [
        "'=1+1", "'+cmd", "'-2+3", "'@SUM(A1)", "'=1", "a;'=1", "b\"'=1", "'\uff1d1", "-5", "fine",
    ]  # fmt: skip
    page.close()


def test_groups_are_sorted_by_number_and_withheld_ones_come_last(visit, make_result):
    result = make_result(groups={"race": {"a": 300, "b": 90, "c": 51, "d": 7, "e": 7}})
    result.groups["p_value"] = [0.04, 0.9, 0.0004, 0.5, 0.5]
    page, _ = visit(_tables(result, title="t", method={}))
    table = page.locator("table[data-table=group-1]")
    button = table.get_by_role("columnheader", name="p", exact=True).get_by_role("button")
    for order in ("cabde", "bacde", "abcde"):
        button.click()
        assert "".join(table.locator("tbody th").all_inner_texts()) == order
    page.close()


def test_without_scripts_everything_is_said(browser, make_result, make_records, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(_tables(make_records(make_result()), title="t", method={}), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("table.patients .detail").first.is_visible()
    assert not page.locator(".slider").is_visible()
    assert page.locator("button").count() == 0
    context.close()


def test_a_script_that_got_in_would_not_run(visit, make_result):
    text = render(make_result(), title="t", method={})
    broken = text.replace("</main>", "<script>alert(1)</script><img src=http://example.org></main>")
    page, seen = visit(broken)
    assert "dialog" not in seen
    assert any("Content Security Policy" in line for line in seen)
    loaded = page.evaluate("performance.getEntriesByType('resource').map(e => e.transferSize)")
    assert not any(loaded)


def _drawn_in(report, colour):
    """Waits for it: a browser tells its pages of another colour scheme at their next frame."""
    line = report.locator("#plot-roc .scatterlayer .trace path.js-line").last
    sync_api = pytest.importorskip("playwright.sync_api")
    sync_api.expect(line).to_have_css("stroke", colour)


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
    _drawn_in(report, colour)


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
    _drawn_in(report, "rgb(213, 94, 0)")
    background = report.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    assert report.locator("#plot-roc .main-svg").first.evaluate("e => e.clientWidth") == 600
    report.evaluate("dispatchEvent(new Event('afterprint'))")
    report.emulate_media(media="screen", color_scheme="light")
