"""Figures for papers: vector graphics of what the report shows, the same bytes every time."""

import io
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pypdf
import pytest
from PIL import Image

from confide.audits.result import AuditResult
from confide.errors import ArgumentError, MissingExtraError
from confide.reports import numbers
from confide.reports.paper import draw, rows_of
from confide.reports.paper_other import draw_certificate, draw_comparison
from confide.reports.paper_style import STYLES, Style, style_named

sys.path.append(str(Path(__file__).parents[1]))
from reports.certificates import make as make_certificate

mpl = pytest.importorskip("matplotlib")
NATURE = style_named("nature")
MM = 72 / 25.4
SVG = "{http://www.w3.org/2000/svg}"


def words(svg):
    """All text of an SVG."""
    return ["".join(one.itertext()) for one in ElementTree.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314


@pytest.fixture(scope="module")
def result(make_result):
    return make_result()


def only(result, curve, **summary):
    """The result with one kind of curve, and other entries in its summary."""
    return AuditResult(
        records=result.records,
        patients=result.patients,
        groups=result.groups.iloc[:0],
        curves=result.curves[result.curves["curve"] == curve],
        summary=result.summary | {"groups": {}, "utility": None} | summary,
    )


@pytest.fixture(scope="module")
def roc(result):
    return only(result, "roc")


@pytest.fixture(scope="module")
def pdfs(result):
    return draw(result, style=NATURE, kind="pdf")


@pytest.fixture(scope="module")
def svgs(result):
    return draw(result, style=NATURE, kind="svg")


def test_every_plot_of_an_audit_is_drawn(pdfs, svgs):
    assert list(pdfs) == list(svgs) == ["roc", "survival", "groups", "utility"]


def test_sizes_and_letters_are_those_of_the_journal(pdfs):
    for name, content in pdfs.items():
        (page,) = pypdf.PdfReader(io.BytesIO(content)).pages
        width, height = (float(v) for v in page.mediabox[2:])
        assert width == pytest.approx((183 if name == "utility" else 89) * MM, abs=0.5)
        assert height < 247 * MM
        fonts = page["/Resources"]["/Font"]
        for font in fonts.values():
            inner = font.get_object()
            assert inner["/Subtype"] in ("/Type0", "/TrueType")  # 42: letters are no outlines
        found = page.get_contents().get_data()
        sizes = {float(one) for one in re.findall(rb"/F\S+ ([\d.]+) Tf", found)}
        assert sizes == {7.0}
        assert not list(page.images)  # vectors alone


def test_the_same_bytes_every_time(roc, pdfs, svgs):
    assert draw(roc, style=NATURE, kind="pdf") == {"roc": pdfs["roc"]}
    assert draw(roc, style=NATURE, kind="svg") == {"roc": svgs["roc"]}
    for content in (*pdfs.values(), *svgs.values()):
        assert b"CreationDate" not in content
        assert b"dc:date" not in content


def test_a_user_s_own_settings_are_kept_and_change_nothing(roc, svgs):
    with mpl.rc_context({"font.size": 31, "lines.linewidth": 9}):
        before = dict(mpl.rcParams)
        assert draw(roc, style=NATURE, kind="svg") == {"roc": svgs["roc"]}
        assert dict(mpl.rcParams) == before


def test_curves_are_those_of_the_table(make_result):
    """A known straight line lands where it should."""
    x = np.array([0.01, 0.1, 1.0])
    curves = pd.DataFrame(
        {"curve": "roc", "series": "lira", "x": x, "y": x, "low": np.nan, "high": np.nan}
    )
    result = make_result(groups={}, utility=None)
    result = AuditResult(
        records=result.records,
        patients=result.patients,
        groups=result.groups,
        curves=curves,
        summary=result.summary,
    )
    (svg,) = draw(result, style=NATURE, kind="svg").values()
    paths = [
        one.get("d")
        for one in ElementTree.fromstring(svg).iter(f"{SVG}path")  # noqa: S314
        if "0072b2" in (one.get("style") or "") and one.get("clip-path")
    ]
    points = np.array([float(v) for v in re.findall(r"-?[\d.]+", paths[0])]).reshape(-1, 2)
    dotted = [
        one.get("d")
        for one in ElementTree.fromstring(svg).iter(f"{SVG}path")  # noqa: S314
        if "6b7280" in (one.get("style") or "") and one.get("clip-path")
    ]
    ends = np.array([float(v) for v in re.findall(r"-?[\d.]+", dotted[0])]).reshape(-1, 2)
    for end in ends:  # the curve y = x is the diagonal
        slope = np.interp(end[0], points[:, 0], points[:, 1])
        assert slope == pytest.approx(end[1], abs=0.01)


def test_axes_say_what_they_are(svgs):
    assert {"False-positive rate", "True-positive rate", "LiRA", "RMIA"} <= set(words(svgs["roc"]))
    said = set(words(svgs["survival"]))
    assert {"AUC of a patient", "measured, all records together"} <= said
    assert "withheld" in " ".join(words(svgs["groups"]))
    named = [word for word in words(svgs["survival"]) if re.match("[a-z]|95% ", word)]
    assert len(set(named)) == len(named)  # nothing in the legend has the name of another
    assert {"all records, by chance", "worst record, by chance"} <= said
    assert {"95% interval of the measured", "95% bounds of the corrected"} <= said
    assert "middle 95% of chance" in said
    assert "AUROC of the task, held-out patients (95% interval)" in words(svgs["utility"])


def test_rows_hold_the_figures_of_the_tables(result):
    table = result.groups.set_index(["group", "value"])
    by_group = result.summary["utility"]["by_group"]
    n = 0
    for head, *rows in rows_of(result):
        for row in rows:
            value = row.text.rsplit(" (", 1)[0]
            found = table.loc[(head.text, value)]
            if "withheld" in row.text:
                assert (row.ratio, row.difference, row.auroc) == (None, None, None)
                continue
            assert row.ratio == pytest.approx(
                found[["ratio_low", "ratio", "ratio_high"]].tolist(), rel=1e-5
            )
            assert row.difference == pytest.approx((-0.01, 0.02, 0.05), rel=1e-5)
            one = by_group[head.text][value]
            if row.auroc is not None:
                assert row.auroc == pytest.approx((one["low"], one["auroc"], one["high"]), rel=1e-5)
                n += 1
            assert row.text.endswith(f"({numbers.count(found['n_patients'])})")
    assert n >= 5


def test_a_ratio_of_zero_has_its_place(make_result):
    result = make_result(groups={"race": {"a": 200, "b": 250}}, utility=None, attacks=())
    for zero in (False, True):
        if zero:
            result.groups.loc[result.groups["value"] == "b", ["ratio", "ratio_low"]] = 0.0
        svg = draw(result, style=NATURE, kind="svg")["groups"]
        assert ("0" in words(svg)) == zero


def test_many_values_fill_several_files(make_result):
    sizes = {f"v{i:03d}": 40 for i in range(120)}
    result = make_result(5000, groups={"site": sizes}, utility=None, attacks=())
    found = draw(result, style=NATURE, kind="svg")
    assert [name for name in found if "groups" in name] == ["groups", "groups-2", "groups-3"]
    said = [word for name in found if "groups" in name for word in words(found[name])]
    assert sum(word.startswith("v") for word in said) == 120
    assert said.count("site") == 3


def test_hostile_names_are_text(make_result, hostile):
    names = ("$x^2$ $", "_hidden", "\\alpha{", "a\nb", *hostile)
    result = make_result(
        groups={"race": dict.fromkeys(names, 50), names[0]: {names[1]: 300, names[2]: 150}},
        attacks=("lira", *names[:3]),
    )
    found = draw(result, style=NATURE, kind="svg")
    assert {"$x^2$ $", "_hidden", "\\alpha{"} <= set(words(found["roc"]))
    said = " ".join(words(found["groups"]))
    for name in ("$x^2$ $", "_hidden", "\\alpha{", "a b", "<script>alert(1)</script>"):
        assert f"{name} (50)" in said
    for content in found.values():
        tags = {one.tag for one in ElementTree.fromstring(content).iter()}  # noqa: S314
        assert f"{SVG}script" not in tags
        assert f"{SVG}image" not in tags


def test_png_is_fine_enough_for_print(roc):
    found = draw(roc, style=style_named("plain"), kind="png")
    with Image.open(io.BytesIO(found["roc"])) as image:
        assert image.size[0] == pytest.approx(120 / 25.4 * 600, abs=2)


def test_what_was_not_measured_is_left_out(make_result):
    bare = only(make_result(), "none", attacks={})
    assert draw(bare, style=NATURE, kind="pdf") == {}
    assert draw_comparison({"arms": []}, style=NATURE, kind="pdf") == {}
    assert draw_certificate({"attacks": {}}, style=NATURE, kind="pdf") == {}


def arm(name, auc, auroc, *, on=True, **more):
    return {
        **{"name": name, "auc": auc, "auc_low": auc - 0.01, "auc_high": auc + 0.01},
        **{"auroc": auroc, "auroc_low": auroc - 0.02, "auroc_high": auroc + 0.02},
        **{"on_frontier": on, "guards": []},
    } | more


def test_the_frontier_of_a_comparison():
    arms = [arm("plain", 0.8, 0.9), arm("$8$ <b>", 0.6, 0.8), arm("worse", 0.9, 0.7, on=False)]
    failed = arm("blind", 0.7, 0.6, on=False, guards=[{"name": "blind", "status": "failed"}])
    unknown = arm("no test", 0.7, 0.6) | {"auroc": None}
    summary = {"attack": "lira", "frontier_by": "auc", "arms": [*arms, failed, unknown]}
    (svg,) = draw_comparison(summary, style=NATURE, kind="svg").values()
    said = words(svg)
    assert {"plain", "$8$ <b>", "worse", "blind (a guard failed)"} <= set(said)
    assert "AUC of LiRA (0.5 is guessing)" in said
    assert "no test" not in said
    assert "guessing" in said
    assert "Filled, dashed line: no other recipe here is better in both," in said
    assert "by the estimates alone. Hollow: another is. Crosses: 95% intervals." in said


def test_a_frontier_of_one_recipe_has_no_line():
    arms = [arm("plain", 0.6, 0.9), arm("worse", 0.8, 0.7, on=False)]
    arms[1]["guards"] = [{"name": "order", "status": "accepted"}]
    (svg,) = draw_comparison(
        {"attack": "lira", "frontier_by": "auc", "arms": arms}, style=NATURE, kind="svg"
    ).values()
    said = words(svg)
    assert "Filled: no other recipe here is better in both," in said
    assert not any("line" in line for line in said)
    assert "worse (a guard accepted)" in said


def test_a_certificate():
    found = draw_certificate(make_certificate(), style=NATURE, kind="svg")
    assert set(found) == {"shares", "areas"}
    assert "release (95% interval)" in words(found["shares"])
    assert "linkage" in words(found["areas"])


def test_styles_are_checked():
    with pytest.raises(ArgumentError, match="Did you mean 'nature'"):
        style_named("natur")
    with pytest.raises(ArgumentError, match="line"):
        Style(name="x", single=89, double=183, letters=7, fonts=("DejaVu Sans",), line=0)
    assert set(STYLES) == {"nature", "plain"}


def test_without_matplotlib_the_extra_is_named(monkeypatch, result):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"confide\[figures\]"):
        draw(result, style=NATURE, kind="pdf")
