import base64
import copy
import io
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from confide.reports import certificate_figures as figures
from confide.reports import certificate_scores, certificate_words
from confide.reports.certificate import render_certificate

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
import certificates
from certificates import ALL, attack, challenge, make, matching, points, score, substitute, verdicts
from codes_pages import Page

SCORES = (
    "reid",
    "reid_identical",
    "patient",
    "first_rank",
    "mean_rank",
    "coverage",
    "challenge2",
    "challenge2_reverse",
    "mse_ratio",
    "mmd",
    "auc",
    "precision_at_1",
    "map_correlation",
    "linkage_first_rank",
    "linkage_assigned",
    "correlation",
)


def page(certificate, pictures=None):
    return Page(render_certificate(certificate, pictures or {}))


def cells(shown, *start):
    return [row for row in shown.rows if tuple(row[: len(start)]) == start]


def rows_of(text):
    """Rows of a table, each on a line of its own and cells between bars; deeper lines go on."""
    lines = re.sub(r"\n {12,}", " ", text.strip()).splitlines()
    return [[" ".join(cell.split()) for cell in line.split(" | ")] for line in lines]


def test_one_row_an_attack_with_its_figures_and_controls():
    certificate = make()
    before = copy.deepcopy(certificate)
    shown = page(certificate)
    assert certificate == before
    for row in rows_of("""
        linkage the codes | Leaks | 0.618 0.578 to 0.658 AUC | 0.500 0.420 to 0.580
            | 0.940 at least 0.900 | 0.510 0.420 to 0.580
        two-keys-linkage two releases, two keys | Nothing found | 0.512 0.472 to 0.552 AUC
            | 0.500 0.420 to 0.580 | 0.950 at least 0.900 | 0.500 0.420 to 0.580
        alignment codes, their plaintexts | Leaks | 97.8% 96.4% to 99.2% re-identified
            | 0.24% 0.0% to 1.4% | 100.0% at least 90.0% | 0.24% 0.0% to 1.4%
        assignment codes, their plaintexts | Not established The positive control was not broken:
            0.35 on the linear encoder, expected at least 0.9; give more records or a larger budget.
            | 0.47% 0.0% to 1.9% re-identified | 0.24% 0.0% to 1.4% | 35.0% at least 90.0%
            | 0.0% 0.0% to 1.4%
        unpaired-alignment codes, plaintexts | Leaks | 0.731 0.711 to 0.751 correlation of maps
            | 0.020 -0.010 to 0.050 | 0.940 at least 0.500 | 0.020 -0.010 to 0.050
        transfer codes, plaintexts with an attribute | Not run The attribute has fewer than two
            values in the attacker's plaintexts. | n/a AUC | n/a | n/a | n/a
    """):
        assert row in shown.rows
    assert (
        "What 9 attacks recovered from these codes, beside 1 control; confide 0.1.0" in shown.text
    )


def test_each_attack_has_all_its_scores():
    shown = page(make())
    for row in rows_of("""
        mean rank | 5.7 1.0 to 14.7 | 213.0 190.5 to 235.5 | 425 | 180 | 1.0 1.0 to 10.0
            | 212.5 203.5 to 221.5 chance 190.5 to 235.5
        nearest is the patient's | 23.6% 18.6% to 28.6% | 0.41% 0.0% to 1.5% | 391 | 180
            | 88.0% 83.0% to 93.0% | 2.0% 0.0% to 7.0% chance 0.0% to 1.5%
        discrepancy | 0.000123 | n/a | 425 | 180 | 0.000123 | 0.000123
        error ratio | 0.242 0.192 to 0.292 | 1.000 0.875 to 1.125 | 425 | 180
            | 0.100 0.050 to 0.150 | 0.996 0.946 to 1.046 chance 0.875 to 1.125
    """):
        assert row in shown.rows
    for words in (
        "What alignment does, in one sentence.",
        "Leaks : re-identified 97.8% (96.4% to 99.2%), by chance 0.24% (0.0% to 1.4%).",
        "The release: 425 codes attacked; 425 codes of 180 patients scored; 47 s.",
        "Positive control: a linear encoder: 425 codes attacked; 425 codes of 180 patients",
        "plaintext stopped at its deadline.",
        "The release: not run. The attribute has fewer than two values",
        "Settings: n_keys 3; epochs 20; learning_rate 0.0001; schedule.name plateau.",
        "Carlini et al. 2021, arXiv 2108.07256, section 4 (assignment)",
        "Both were simulated for this certificate, with keys of its own",
        "Its attacker knows of 50% of the patients which plaintext is whose code",
    ):
        assert words in shown.text


def test_scores_are_explained_once_and_only_where_they_occur():
    text = page(make(certificates.FAILED)).text
    assert text.count("Share of the codes whose own plaintext was named") == 1
    assert "0.5 is guessing" not in text


@pytest.mark.parametrize("name", SCORES)
def test_every_score_has_its_words(name):
    found = certificate_scores.of(name)
    assert found.sentence.endswith(".")
    assert len(found.title) <= 27
    assert certificate_scores.of("new").sentence not in found.sentence
    assert {"mean_rank": "smaller", "mse_ratio": "smaller"}.get(name, "") in found.sentence


def test_an_unknown_score_is_shown_by_its_name():
    one = attack("mine", "alignment", ALL["alignment"])
    one |= {"headline": "guile", "release": {"guile": score(0.123456, 0.01)}}
    shown = page(make({}, attacks={"mine": one}))
    assert cells(shown, "mine codes, their plaintexts")[0][2] == "0.123 0.0935 to 0.153 guile"
    assert "Guile guile : A score that this page has no words for" in shown.text
    assert "On one axis" not in shown.text  # nobody knows whether it is a share


@pytest.mark.parametrize(
    ("name", "label", "sentence", "not_read_as"),
    [
        ("bad", "Bad", "Records can be re-identified", "That the other records are safe"),
        ("moderate", "Moderate", "at most 20% of the records can", "That others cannot do better"),
        ("good", "Good, for these attacks", "at most 5% of the records", "the release is safe"),
        ("not established", "Not established", "cannot say how many", "established is never safe"),
        ("not measured", "Not measured", "was not measured", "cannot be re-identified: this is"),
    ],
)
def test_verdicts(name, label, sentence, not_read_as):
    certificate = verdicts()[name]
    assert certificate["reidentification"]["verdict"] == name
    text = page(certificate).text
    assert f"Re-identification: {label} " in text
    assert certificate["reidentification"]["text"] in text
    top = text[: text.index("Attacker and codes The attacker")]
    means, means_not = top.split("What this means")[1].split("What this does not mean")
    assert sentence in top.split("What this means")[0]
    assert not_read_as in means_not
    assert means.strip()
    assert "An attack that failed shows only that this attack failed; no release is" in means_not


def test_a_certificate_without_a_statement_says_what_failed_attacks_mean():
    assert "An attack that failed shows only that this attack failed." in (
        page(make(statement=None)).text
    )


@pytest.mark.parametrize("verdict", list(verdicts()))
def test_nothing_is_called_private(verdict):
    text = page(verdicts()[verdict]).text.lower()
    for words in (
        certificates.STATEMENT.lower(),
        "private_depth",
        "neuracrypt is not private",
        "private health data",
        "the release is safe. good is the authors' word",
        "not established is never safe",
        "that the other records are safe",
    ):
        text = text.replace(words, "")
    for word in ("private", "anonym", "secure", "safe", "protect"):
        assert word not in text


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (None, "No gate was set: nothing was asked of this release."),
        (0.05, "Gate missed: at most 5% of the records may be singled out. The upper end of the "),
        (0.995, "Gate met: at most 99.5% of the records may be singled out. The upper end of the "),
    ],
)
def test_gates(most, words):
    values = {"alignment": ALL["alignment"]}
    assert words in page(make(values, most=most)).text


def test_a_gate_needs_all_attacks():
    text = page(make(most=0.995)).text
    assert "Gate missed: at most 99.5%" in text
    assert "Not all attacks that were asked for were established." in text


def test_a_gate_is_met_only_by_true():
    assert "Gate missed" in page(make(gate={"reid": 0.1, "met": None, "why": None})).text


def test_outcomes_are_listed_whatever_the_verdict():
    text = page(make()).text
    for words in (
        "Leaks: linkage, one-key-linkage, attribute-probe, alignment, plaintext, unpaired-align",
        "Nothing found: two-keys-linkage.",
        "Control held: wrongly-paired.",
        "Not established: assignment.",
        "Not run: transfer.",
    ):
        assert words in text
    assert "Not scored: alignment." in page(challenge()).text
    good = make({"alignment": (0.0024, 1.0, 0.0024), "one-key-linkage": ALL["one-key-linkage"]})
    assert "Nothing found: alignment." in page(good).text
    assert "Leaks: one-key-linkage." in page(good).text


def test_a_control_is_no_attack():
    held = {name: ALL[name] for name in ("two-keys-linkage", "wrongly-paired")}
    text = page(make(held)).text
    assert "What 1 attack recovered from these codes, beside 1 control;" in text
    assert "Control held. An attack that is itself a control" in text
    assert "Control failed" not in text
    text = page(make({"wrongly-paired": (0.842, 1.0, 0.0024)})).text
    assert "What 0 attacks recovered from these codes, beside 1 control;" in text
    assert "Control failed: wrongly-paired." in text
    assert "Leaks: " not in text
    off = page(make({"wrongly-paired": (0.842, 1.0, 0.842)})).text
    assert "Not established: wrongly-paired." in off
    alone = page(make({"alignment": ALL["alignment"]})).text
    assert "What 1 attack recovered from these codes;" in alone
    assert "Control held" not in alone


@pytest.mark.parametrize(
    ("knowledge", "words"),
    [
        ("codes", "has no records to compare the codes with."),
        ("unpaired", "plaintext records of the same kind, but not those of the codes"),
        ("same-images", "but does not know which is whose"),
        ("pairs", "knows of 50% of the patients which plaintext is whose code."),
        ("more", "has what is called more."),
    ],
)
def test_attackers(knowledge, words):
    text = page(make({}, knowledge=knowledge)).text
    assert words in text
    assert "knows how the codes were made, all but the key" in text


def test_what_was_attacked():
    shown = page(make())
    for row in (
        ["Release id", "4f" * 16],
        ["Key id", "9c" * 16],
        ["Digest of the manifest", "ab12" * 16],
        ["SHA-256 of release.json", "cd34" * 16],
        ["Codes in it", "11,214"],
        ["Codes attacked", "425, a sample; among more codes each is harder to find"],
        ["Their patients", "180"],
        ["Plaintexts of the attacker", "425"],
        ["Each code", "256 rows of 2,048 numbers, float32"],
        ["Encoder", "name neuracrypt; patch 16; width 2048; private_depth 4"],
        ["Published beside the codes", "opacity, view"],
        ["Attribute that probes look for", "sex: F against M"],
        ["seed", "7"],
        ["budget", "quick"],
        ["minutes of training, at most", "no limit"],
        ["versions.torch", "2.13.0"],
    ):
        assert row in shown.rows
    assert "425 of 11,214 codes were attacked, drawn by chance." in shown.text


def test_small_numbers_of_patients_are_not_told():
    certificate = make({"alignment": ALL["alignment"]})
    certificate["attacked"]["n_patients"] = 9
    for target, n in (("release", 9), ("linear", 10), ("noise", 0)):
        for one in certificate["attacks"]["alignment"][target].values():
            one["n_patients"] = n
    shown = page(certificate)
    assert ["Their patients", "fewer than 10"] in shown.rows
    assert cells(shown, "mean rank")[0][4] == "< 10"
    assert "425 codes of fewer than 10 patients scored" in shown.text
    assert "425 codes of 10 patients scored" in shown.text
    assert "425 codes attacked; 425 codes scored; 4.2 s" in shown.text  # 0: not known
    assert "9" not in {cell for row in shown.rows for cell in row}
    assert "of 9 " not in shown.text


def test_a_challenge_has_no_release():
    shown = page(challenge())
    assert "Codes of a challenge" in shown.text
    names = {row[0] for row in shown.rows}
    assert not names & {"Release id", "Key id", "Digest of the manifest"}
    assert ["Their patients", "not known: the truth was not at hand"] in shown.rows
    assert ["Codes attacked", "all 425"] in shown.rows
    assert "The codes of a challenge have no manifest" in shown.text
    assert "encode verify" not in shown.text
    row = cells(shown, "alignment codes, their plaintexts")[0]
    assert row[1:3] == ["Not scored The truth was not at hand.", "n/a re-identified"]


def test_what_is_missing_is_not_a_number():
    certificate = make({"alignment": ALL["alignment"], "transfer": ALL["transfer"]})
    nothing = dict.fromkeys(("low", "high", "chance", "chance_low", "chance_high"))
    for one in certificate["attacks"]["alignment"]["release"].values():
        one |= nothing
    for one in (certificate, {}):
        assert not re.search(r"\b(None|nan|NaN)\b", page(one).text)
    row = cells(page(certificate), "alignment codes, their plaintexts")[0]
    assert row[2:4] == ["97.8% re-identified", "n/a"]


def test_nothing_attacked():
    text = page(make({})).text
    assert "No attack was asked for." in text
    assert "Nothing was scored." in text
    assert "What 0 attacks recovered" in text


def test_the_published_attribute_needs_no_probe():
    certificate = make()
    certificate["attacked"]["attribute_is_published"] = True
    assert "sex: F against M (the release publishes it: no probe is needed for it)" in (
        page(certificate).text
    )


def test_how_to_check(tmp_path):
    certificate = make()
    shown = page(certificate)
    assert f"print the digest {'ab12' * 16}." in shown.text
    assert ["SHA-256 of the certificate", certificate["sha256"]] in shown.rows
    command = certificate_words.check(certificate)[-1][0]
    assert command in shown.text
    program, *rest = shlex.split(command)
    assert program == "python"

    def checked(content):
        (tmp_path / "certificate.json").write_text(json.dumps(content, indent=1))
        ran = subprocess.run(
            [sys.executable, *rest], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return ran.stdout.strip()

    assert checked(certificate) == "True"
    assert checked(certificate | {"seed": 8}) == "False"


def test_an_axis_has_its_marks_where_the_scores_are():
    assert figures.place(0.0) == 5
    assert figures.place(1.0) == 95
    assert figures.place(1.4) == 95
    assert figures.place(None) is None
    one = score(0.6, 0.5, half=0.1, reach=0.05)
    found = figures.track(one, score(0.9, 0.5), {}, "area", "label")
    assert (found.left, found.dot, found.right) == pytest.approx((50, 59, 68))
    assert (found.chance_left, found.chance, found.chance_right) == pytest.approx((45.5, 50, 54.5))
    assert found.weak == pytest.approx(86)
    assert found.noise is None
    assert figures.track({}, one, one, "area", "") is None
    assert figures.track(one, one, one, "rank", "") is None
    bare = figures.track({"value": 0.5}, {}, {}, "share", "")
    assert bare.left == bare.dot == bare.right
    assert bare.chance is None


def test_only_shares_and_areas_have_an_axis():
    shown = page(make())
    labels = [attrs["aria-label"] for tag, attrs in shown.tags if "aria-label" in attrs]
    assert "alignment: re-identified 97.8% (96.4% to 99.2%), by chance 0.24%" in labels
    assert "linkage: AUC 0.618 (0.578 to 0.658), by chance 0.500" in labels
    assert not [label for label in labels if label.startswith("unpaired-alignment: ")]


def test_a_curve_is_its_points():
    found = points(matching, (5, 1, 2), (0.9, 0.1, 0.5))
    curve = figures.curve("shadow keys", found, "reid", "share")
    assert [point.x for point in curve.points] == pytest.approx([13, 33.5, 95])
    assert [point.y for point in curve.points] == pytest.approx(
        [84 - 78 * value for value in (0.1, 0.5, 0.9)]
    )
    for point in curve.points:
        assert point.low > point.y > point.high  # heights are counted from the top
    assert [text for _, text in curve.y_ticks] == ["0%", "25%", "50%", "75%", "100%"]
    assert [text for _, text in curve.x_ticks] == ["1", "2", "5"]
    assert curve.rows[0] == ("1", "10.0%", "8.6% to 11.4%", "0.24%", "20 s")
    assert not curve.logarithmic


def test_a_wide_curve_is_logarithmic():
    found = points(substitute, (1, 10, 100), (0.1, 0.5, 0.9))
    curve = figures.curve("known pairs", found, "challenge2", "share")
    assert curve.logarithmic
    assert [point.x for point in curve.points] == pytest.approx([13, 54, 95])


def test_points_without_a_score_are_in_the_table_alone():
    found = [*points(matching, (1, 2), (0.1, 0.5)), {"x": 3, "scores": {}, "seconds": None}]
    curve = figures.curve("keys", found, "reid", "share")
    assert len(curve.points) == 2
    assert curve.rows[-1] == ("3", "n/a", "n/a", "n/a", "n/a")
    one = figures.curve("keys", found[:1], "reid", "share")
    assert [point.x for point in one.points] == [54]
    certificate = make(certificates.FAILED)
    certificate["attacks"]["alignment"]["curves"] = {"keys": found[2:]}
    shown = page(certificate)
    assert ["3", "n/a", "n/a", "n/a"] in shown.rows
    assert "figure" not in {tag for tag, _ in shown.tags}


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((3.0, 213.0), ["0", "100", "200", "300"]),
        ((0.2, 0.9), ["0", "0.5", "1"]),
        ((-0.1, 0.7), ["-0.2", "0", "0.2", "0.4", "0.6", "0.8"]),
        ((0.0, 0.0), ["0", "1"]),
    ],
)
def test_other_scores_have_round_ticks(values, ticks):
    found = [
        {"x": i, "scores": {"s": {"value": value}}, "seconds": 1} for i, value in enumerate(values)
    ]
    curve = figures.curve("x", found, "s", "number")
    assert [text for _, text in curve.y_ticks] == ticks
    assert all(6 - 1e-9 <= point.y <= 84 + 1e-9 for point in curve.points)


def test_curves_are_on_the_page():
    shown = page(make())
    assert ["Shadow keys", "Re-identified 95% interval", "By chance", "Time"] in shown.rows
    assert ["3", "95.3% 93.9% to 96.7%", "0.24%", "30 s"] in shown.rows
    assert "against known pairs , which is drawn on a logarithmic scale" in shown.text
    assert "controls were not run for these points" in shown.text


def test_pictures_are_what_was_recovered():
    rows = [[0.0, 0.5, 1.0], [1.0, 0.25, 2.0]]
    pictures = {"unpaired-alignment": [{"truth": rows, "recovered": rows[::-1]}]}
    shown = page(make(), pictures)
    images = [attrs for tag, attrs in shown.tags if tag == "img"]
    assert [image["alt"] for image in images] == [
        "The truth, record 1",
        "What was recovered, record 1",
    ]
    for image, expected in zip(images, (rows, rows[::-1]), strict=True):
        kind, data = image["src"].split(",")
        assert kind == "data:image/png;base64"
        values = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(values, np.round(255 * np.clip(expected, 0, 1)))
    assert "This page shows hidden records, or maps of them." in shown.text
    assert "One square a patch: how much contrast the patch has." in shown.text
    bare = page(make(), {"unpaired-alignment": []})
    assert "shows hidden records" not in bare.text
    assert "img" not in {tag for tag, _ in bare.tags}


def test_rebuilt_records_are_called_so():
    one = attack("rebuild", "alignment", ALL["alignment"])
    one |= {"headline": "correlation", "release": {"correlation": score(0.8, 0.1)}}
    pictures = {"rebuild": [{"truth": [[0.0]], "recovered": [[1.0]]}]}
    text = page(make({}, attacks={"rebuild": one}), pictures).text
    assert "Left, the hidden record; right, what was rebuilt from its code." in text


def test_hostile_names_are_text(hostile):
    benign = page(make(), certificates.pictures("alignment"))
    shown = page(certificates.hostile(hostile), certificates.pictures(*hostile))
    assert {tag for tag, _ in shown.tags} <= {tag for tag, _ in benign.tags}
    assert not [name for _, attrs in shown.tags for name in attrs if name.startswith("on")]
    assert "{{ 7*7 }}" in shown.text
    assert "<script>alert(1)</script>" in shown.text
    assert "\u202e" not in shown.text
    assert "\x1b" not in shown.text


def test_the_page_runs_its_own_script_and_loads_nothing():
    text = render_certificate(make(), certificates.pictures("alignment"))
    shown = Page(text)
    (policy,) = [
        attrs["content"]
        for tag, attrs in shown.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert [tag for tag, _ in shown.tags].count("script") == 1
    sources = [attrs["src"] for _, attrs in shown.tags if "src" in attrs]
    assert len(sources) == 12
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert {attrs["href"][:1] for _, attrs in shown.tags if "href" in attrs} == {"#", "d"}
    assert text == render_certificate(make(), certificates.pictures("alignment"))


@pytest.mark.parametrize("made", [make, challenge])
def test_tables_have_captions_ids_are_unique_and_headings_do_not_skip(made):
    shown = page(made(), certificates.pictures("alignment"))
    tags = [tag for tag, _ in shown.tags]
    assert tags.count("table") == tags.count("caption") > 4
    ids = [attrs["id"] for _, attrs in shown.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs["href"][1:] for _, attrs in shown.tags if attrs.get("href", "")[:1] == "#"}
    assert targets <= set(ids)
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
