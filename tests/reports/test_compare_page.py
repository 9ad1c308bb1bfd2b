"""The page of a comparison: what it says, where points lie, and in a real browser."""

import copy
import io
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from confide.audits.comparison import compare
from confide.reports.compare import render_comparison
from confide.reports.compare_frontier import frontiers, spread, ticks
from confide.reports.compare_text import renderables
from confide.reports.compare_view import share
from reports.comparisons import arm, three
from reports.conftest import HOSTILE, make
from reports.test_browser import CHROMIUM, QUIET


@pytest.fixture(scope="module")
def found():
    return three(make)


@pytest.fixture(scope="module")
def page(found):
    return render_comparison(found)


def test_all_is_said_without_scripts(found, page):
    bare = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    for pair in found.summary["pairs"]:
        assert pair["text"] in bare
    assert found.summary["verdict"]["text"] in bare
    for key in ("settings", "audits", "shares", "attacks", "differences", "groups-1", "groups-2"):
        assert f'data-table="{key}"' in bare
    assert "http" not in bare.replace("http-equiv", "")


def test_every_number_of_the_tables_is_in_the_json(found, page):
    stored = json.dumps(found.summary) + json.dumps(found.groups.astype(object).values.tolist())
    known = {f"{float(x):.6g}" for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", stored)}
    shown = re.findall(r'data-(?:value|low|high)="([^"]+)"', page)
    assert len(shown) > 100
    assert set(shown) <= known


def test_better_is_up_and_to_the_left(found):
    by_attack, by_tail = frontiers(found.summary, "LiRA")
    plain, small, early = by_attack.points
    assert small.x < early.x < plain.x
    assert early.y < small.y < plain.y  # down the page
    assert all(p.left < p.x < p.right and p.top < p.y < p.bottom for p in by_attack.points)
    assert [p.filled for p in by_attack.points] == [False, True, True]
    assert by_attack.lines == ((small.x, small.y, early.x, early.y),)
    assert by_attack.reference[0] < small.left
    assert by_tail.lines == ()
    for drawn in (by_attack, by_tail):
        for point in drawn.points:
            assert all(0 <= v <= 100 for v in (point.left, point.right, point.top, point.bottom))


def test_names_do_not_lie_on_each_other():
    many = [arm(make, f"recipe {i}", auc=0.6 + 0.001 * i) for i in range(12)]
    (drawn, _) = frontiers(compare(many, "lira").summary, "LiRA")
    places = sorted(p.label_y for p in drawn.points)
    assert all(b - a >= 5.99 for a, b in pairwise(places))
    assert 0 < places[0] < places[-1] < 100


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.49, 0.52), (0.5, 0.51), (-0.05, 0.93), (0.6, 0.95)]
)
def test_ticks_are_few_and_within(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert low <= found[0]
    assert found[-1] <= high


def test_spread_keeps_what_is_apart():
    assert spread([10.0, 50.0, 90.0], 6.0) == [10.0, 50.0, 90.0]
    assert spread([99.0, 99.0], 6.0) == [93.0, 99.0]


def test_hostile_names_are_text():
    names = [HOSTILE[0], HOSTILE[2], HOSTILE[3]]
    found = three(make, names)
    found.groups["value"] = HOSTILE[1]
    text = render_comparison(found, title=HOSTILE[4])
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "{{ 7*7 }}" in text


def test_withheld_cells_hold_no_number():
    first = arm(make, "a")
    first.groups.loc[first.groups["group"] == "race", "withheld"] = True
    text = render_comparison(compare([first, arm(make, "b")], "lira"))
    table = text.split('data-table="groups-2"')[1].split("</table>")[0]
    assert table.count("withheld") == 12
    assert not re.search(r'data-value="', table)


def test_what_was_not_measured_is_not_withheld():
    arms = [arm(make, "a"), arm(make, "b", auc=0.7)]
    for one in arms:
        one.summary["utility"] = None
    text = render_comparison(compare(arms, "lira"))
    table = text.split('data-table="groups-1"')[1].split("</table>")[0]
    assert "withheld" not in table
    assert table.count(">n/a") == 6


def test_bounds_have_no_more_decimals_than_they_deserve():
    found = share({"corrected": 0.00029, "low": 0.0, "high": 0.08098}, "corrected")
    assert (found.text, found.interval) == ("0.029%", "0.0% to 8.1%")
    found = share({"corrected": 0.0, "low": 0.0, "high": 0.0}, "corrected")
    assert (found.text, found.interval) == ("0.0%", "0.0% to 0.0%")


def test_large_counts_are_whole_and_other_figures_have_six_digits(found, page):
    shown = set(re.findall(r'data-(?:value|low|high)="([^"]+)"', page))
    assert max(len(x.lstrip("-0.")) for x in shown if "e" not in x) <= 7
    found = copy.deepcopy(found)
    found.summary["arms"][0]["n_at_risk"] = 1_234_567
    assert 'data-value="1234567"' in render_comparison(found)


def test_an_accepted_guard_is_told_from_a_failed_one():
    arms = [arm(make, "a"), arm(make, "b", auc=0.7)]
    for one, status in zip(arms, ("failed", "accepted"), strict=True):
        one.summary["guards"].append({"name": "order", "status": status, "message": "Sorted."})
    found = compare(arms, "lira")
    page = render_comparison(found)
    assert "Guard order failed in <bdi>a</bdi>." in page
    assert "Guard order failed and was accepted in <bdi>b</bdi>." in page
    console = Console(width=80, record=True, file=io.StringIO())
    for part in renderables(found):
        console.print(part)
    assert "guard order failed and was accepted in b: Sorted." in console.export_text()


def test_without_utility_there_is_no_figure():
    arms = [arm(make, "a"), arm(make, "b")]
    for one in arms:
        one.summary["utility"] = None
    text = render_comparison(compare([*arms], "lira"))
    assert "no figure" in text


needs_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")


@pytest.fixture(scope="module")
def opened(page, tmp_path_factory):
    sync_api = pytest.importorskip("playwright.sync_api")
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        context = chromium.new_context(bypass_csp=False, accept_downloads=True)
        tab, seen = context.new_page(), []
        tab.on("console", lambda message: seen.append(message.text))
        tab.on("pageerror", lambda error: seen.append(str(error)))
        tab.on("request", lambda request: seen.append(request.url))
        tab.goto(path.as_uri())
        seen.remove(path.as_uri())
        yield tab, seen, chromium, path
        chromium.close()


@needs_browser
@pytest.mark.browser
def test_the_choice_of_risk_swaps_the_figure_without_a_script(opened):
    tab, seen, *_ = opened
    assert tab.locator("figure.by-attack").is_visible()
    assert not tab.locator("figure.by-tail").is_visible()
    tab.locator("#risk-attack").focus()
    tab.keyboard.press("ArrowDown")
    assert tab.locator("figure.by-tail").is_visible()
    assert not tab.locator("figure.by-attack").is_visible()
    tab.locator("#risk-attack").check()
    assert seen == []


@needs_browser
@pytest.mark.browser
def test_tables_sort_and_download(opened):
    tab, *_ = opened
    table = tab.locator('table[data-table="audits"]')
    table.get_by_role("button", name="Attack AUC").click()
    assert table.locator("tbody th").all_inner_texts() == ["small", "early", "plain"]
    with tab.expect_download() as got:
        tab.get_by_role(
            "button", name=re.compile("Download CSV: Main figures of each audit")
        ).click()
    text = Path(got.value.path()).read_text(encoding="utf-8-sig")
    assert got.value.suggested_filename == "audits.csv"
    assert text.splitlines()[1].startswith('"small"')


@needs_browser
@pytest.mark.browser
@pytest.mark.parametrize("width", [375, 1440])
def test_nothing_is_cut_off(opened, width):
    tab, *_ = opened
    tab.set_viewport_size({"width": width, "height": 900})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    outside = tab.evaluate(
        """() => [...document.querySelectorAll('figure.by-attack text')].filter(text => {
            const b = text.getBoundingClientRect();
            return b.left < 0 || b.right > innerWidth;
        }).map(text => text.textContent)"""
    )
    assert outside == []


@needs_browser
@pytest.mark.browser
def test_no_serious_fault_for_screen_readers(opened):
    axe = pytest.importorskip("axe_playwright_python")
    *_, chromium, path = opened
    context = chromium.new_context(bypass_csp=True)
    tab = context.new_page()
    tab.goto(path.as_uri())
    tab.evaluate(next(Path(axe.__file__).parent.rglob("axe.min.js")).read_text())
    faults = tab.evaluate("axe.run()")["violations"]
    context.close()
    assert [(f["id"], f["impact"]) for f in faults] == []
