"""Do the numbers of an audit mean what they say?  Simulated cohorts with known answers.

Cohorts without a leak, with a leak of a few patients, of a group, of everyone a little (as
published for chest radiographs), with strongly correlated records, with models that differ in how
much they give away, and with heavy-tailed signals; 1 to 30 records a patient, 8 to 200 models.
For every interval the share of studies in which it holds the truth, for every list the share that
is false.  The tables of docs/validity.md are the output of

    python benchmarks/validity.py --write docs/validity.md      # about 20 minutes of one core
    python benchmarks/validity.py --share 0.1                   # a tenth of the studies, printed
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from confide.audits.mann_whitney import null_se, row_auc, survival
from confide.audits.patients import patient_risk
from confide.audits.power import detectable_auc
from confide.audits.tail import tail
from simulations import CUTS, SETTINGS, Setting, Tally, draw, response, study, useful

COVERED = {
    "AUC, LiRA": ["lira auc"],
    "AUC, loss": ["loss auc"],
    "TPR at 10 %, LiRA": ["lira tpr"],
    "tail, measured": [f"raw {c:g}" for c in CUTS],
    "tail, corrected": [f"corrected {c:g}" for c in CUTS],
    "group ratio": ["ratio"],
    "group difference": ["mean_difference"],
    "adjusted difference": ["adjusted_difference"],
}


def pooled(t: Tally, names: Sequence[str]) -> tuple[float, float]:
    """Mean coverage of some intervals of the same studies, and its standard error."""
    found = np.asarray([t.coverage(name) for name in names])
    return float(found[:, 0].mean()), float(found[:, 1].max())


def percent(value: float, digits: int = 1) -> str:
    """In percent, empty where there is none."""
    return "" if np.isnan(value) else f"{100 * value:.{digits}f}"


Found = Sequence[tuple[Setting, Tally]]
Rows = list[list[str]]


def coverage_table(found: Found) -> Rows:
    """Coverage in percent; bold where more than 2 points too low, and beyond chance."""
    rows = [["leak", "records", "models", "studies", *COVERED, "risk of a patient"]]
    for s, t in found:
        row = [s.name, _records(s), str(s.models), f"{t.average('studies'):.0f}"]
        for names in COVERED.values():
            share, error = pooled(t, names)
            row.append(_marked(share, error))
        rows.append([*row, _marked(t.average("risk"), 0.0)])
    means = []
    for names in COVERED.values():
        each = np.array([pooled(t, names)[0] for _, t in found])
        weight = np.array([len(t.claims.get(names[0], [])) for _, t in found], dtype=float)
        known = ~np.isnan(each)
        mean = np.average(each[known], weights=weight[known])
        means.append(_marked(float(mean), np.sqrt(0.0475 / weight[known].sum())))
    risk = float(np.mean([t.average("risk") for _, t in found]))
    total = f"{sum(t.average('studies') for _, t in found):.0f}"
    return [*rows, ["**all**", "", "", total, *means, _marked(risk, 0.0)]]


def _records(s: Setting) -> str:
    return "1" if s.most == 1 else f"1-{s.most}"


def _marked(share: float, error: float) -> str:
    low = share < 0.93 and share < 0.95 - 2 * error
    return f"**{percent(share)}**" if low else percent(share)


ERRORS = {
    "false share of the list": "false share",
    "p <= 5 %": "p 0.05",
    "p <= 1 %": "p 0.01",
    "p <= .1 %": "p 0.001",
    "list: p <= 5 %": "list p 0.05",
    "one-run epsilon above the truth": "one_run above",
    "one-patient epsilon above": "clopper_pearson above",
    "Gaussian epsilon above": "gdp above",
}


def errors_table(found: Found) -> Rows:
    """Shares in percent of studies (or of patients without a leak) in which an error was made."""
    rows = [["leak", "records", "models", "lists", *ERRORS]]
    for s, t in found:
        shares = [percent(t.average(name), 2 if "001" in name else 1) for name in ERRORS.values()]
        rows.append(
            [
                s.name,
                _records(s),
                str(s.models),
                str(len(t.means.get("false share", [])) or ""),
                *shares,
            ]
        )
    means = []
    for name in ERRORS.values():
        each = [x for _, t in found for x in t.means.get(name, [])]
        means.append(percent(float(np.mean(each)), 2 if "001" in name else 1))
    return [*rows, ["**all**", "", "", "", *means]]


def noise_table(found: Found) -> Rows:
    """Shares of patients at or above areas, and the error of a patient's risk."""
    rows = [["leak", "records", "models"]]
    rows[0] += [f"share >= {c:.1f}: true / measured / corrected, %" for c in CUTS]
    rows[0] += [
        "error of a patient's area",
        "of the risk",
        "risk by the tail alone, coverage",
        "local fdr: said / false",
    ]
    for s, t in found:
        shares = [
            " / ".join(percent(t.average(f"{k} {c:g}")) for k in ("true", "raw", "corrected"))
            for c in CUTS
        ]
        said = ""
        if np.isfinite(t.average("lfdr said")):
            said = f"{t.average('lfdr said'):.2f} / {t.average('lfdr false'):.2f}"
        errors = [f"{t.average(name):.3f}" for name in ("error raw", "error risk")]
        errors.append(percent(t.average("risk by tail")))
        rows.append([s.name, _records(s), str(s.models), *shares, *errors, said])
    return rows


def published_table(cohorts: int, patients: int = 2000) -> Rows:
    """Cohorts of the size of a published study: 100 models with, and 100 without each patient.

    Under the null the law of a patient's area is known exactly; the last row is that law.
    """
    rows = [["leak", "median", "SD", "99.9 % point"]]
    rows[0] += [f"share >= {c:.1f}: true / measured / corrected (bounds), %" for c in CUTS]
    for leak in ("none", "everyone"):
        s = Setting(leak=leak, most=1, models=200, studies=cohorts, patients=patients)
        shares, areas = [], []
        for seed in range(cohorts):
            d = draw(s, seed)
            risk = patient_risk(d.signal, d.membership, d.cohort)[1]
            t = tail(risk, CUTS)
            true = (d.area[:, None] >= CUTS).mean(axis=0)
            shares.append([true, t.raw, t.corrected, t.low, t.high])
            areas.append(risk.joint)
        mean, area = np.mean(shares, axis=0), np.concatenate(areas)
        cells = [
            f"{percent(a, 2)} / {percent(b, 2)} / {percent(c, 2)} ({percent(d, 2)}-{percent(e, 2)})"
            for a, b, c, d, e in mean.T
        ]
        numbers = (np.median(area), area.std(), np.quantile(area, 0.999))
        rows.append([leak, *(f"{x:.3f}" for x in numbers), *cells])
    u = np.arange(10_001)
    law = survival(100, 100, u)
    point = float(u[law >= 0.001][-1]) / 10_000
    exact = [percent(float(law[round(c * 10_000)]), 2) for c in CUTS]
    rows.append(["none, exact law", "0.500", f"{null_se(100, 100):.3f}", f"{point:.3f}", *exact])
    return rows


RESPONSES = ((0.0, 32), (1.0, 32), (2.0, 64))
UTILITIES = ((8, 5), (16, 1), (64, 5))


def edges_table(share: float) -> Rows:
    """Epsilon where the bound is tight; utility; power at the area said to be detectable."""
    rows = [["what", "models", "studies", "figure"]]
    for epsilon, models in RESPONSES:
        n, t = max(2, round(400 * share)), Tally()
        for seed in range(n):
            t.add(response(epsilon, models, seed))
        for method, words in (("one_run", "one-run"), ("clopper_pearson", "one-patient")):
            above, mean = t.average(f"{method} above"), t.average(f"{method} epsilon")
            what = f"randomised response, epsilon {epsilon:g}: {words} bound above the truth"
            rows.append([what, str(models), str(n), f"{percent(above)} % (mean bound {mean:.2f})"])
    for models, most in UTILITIES:
        n, t = max(2, round(400 * share)), Tally()
        for seed in range(n):
            t.add(useful(models, most, seed))
        both = " / ".join(percent(t.coverage(name)[0]) for name in ("auroc", "accuracy"))
        records = "1 record" if most == 1 else f"1-{most} records"
        what = f"utility, {records}: AUROC / accuracy intervals that hold the truth"
        rows.append([what, str(models), str(n), f"{both} %"])
    for models in (32, 64):
        n = max(200, round(4000 * share))
        area, listed = power(models, 500, n)
        what = f"a patient of 500 with the area that is said to be detectable ({area:.3f}): listed"
        rows.append([what, str(models), str(n), f"{percent(listed)} %"])
    return rows


def power(models: int, patients: int, n: int) -> tuple[float, float]:
    """(the area that the audit calls detectable, share of patients with it that are listed)."""
    side, rng = np.full(patients, models // 2), np.random.default_rng(models)
    area = detectable_auc(side, side, np.ones(patients, dtype=np.int64))
    if area is None:
        return float("nan"), float("nan")
    held = np.broadcast_to((np.arange(models) < models // 2)[:, None], (models, n))
    signal = rng.standard_normal((models, n)) + np.sqrt(2) * ndtri(area) * held
    return area, float((row_auc(signal, held).p_value() <= 0.05 / patients).mean())


def markdown(rows: Rows) -> str:
    """A table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def write(path: Path, name: str, text: str) -> None:
    """Put `text` between the two comments of that name in a Markdown file."""
    page = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"{path} has no place for {name}: expected {begin} ... {end} once.")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the studies")
    parser.add_argument("--workers", type=int, default=1, help="processes; no figure depends on it")
    parser.add_argument("--write", type=Path, help="Markdown file whose tables are replaced")
    a = parser.parse_args()
    start = time.perf_counter()
    with ProcessPoolExecutor(a.workers) as pool:
        tallies = []
        each = pool.map(partial(study, share=a.share), SETTINGS)
        for s, tally in zip(SETTINGS, each, strict=True):
            tallies.append((s, tally))
            print(f"{time.perf_counter() - start:.0f} s: {s}", file=sys.stderr, flush=True)
    tables = {
        "coverage": coverage_table(tallies),
        "errors": errors_table(tallies),
        "noise": noise_table(tallies),
        "published": published_table(max(2, round(10 * a.share))),
        "edges": edges_table(a.share),
    }
    for name, rows in tables.items():
        print(f"\n{name}\n\n{markdown(rows)}", flush=True)
    if a.write:
        for name, rows in tables.items():
            write(a.write, name, markdown(rows))
    print(f"\n{time.perf_counter() - start:.0f} seconds", file=sys.stderr)


if __name__ == "__main__":
    main()
