"""What common mistakes in audits do to the numbers, each measured on simulated data.

The first table of docs/pitfalls.md is the output of

    python benchmarks/pitfalls.py --write docs/pitfalls.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, ndtri
from scipy.stats import chi2_contingency, rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from confide.attacks import Global, LiRA, PerRecord
from confide.audits.aggregate import true_positive_rate
from confide.audits.clustered import MeanOverModels, auc_influence, clopper_pearson, ordered
from confide.audits.control import planted_control
from confide.audits.epsilon import Counts, bonferroni_epsilon, clopper_pearson_epsilon
from confide.audits.groups import group_table
from confide.audits.mann_whitney import blocked_p_value, row_auc, survival
from confide.audits.multiple import benjamini_hochberg
from confide.audits.patients import patient_risk
from confide.audits.tail import tail
from confide.cohort import Cohort
from confide.masks import balanced, block_of
from simulations import Setting, draw
from validity import markdown, write

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def cohort_of(patient: NDArray[np.intp], group: NDArray[np.bool_] | None = None) -> Cohort:
    """Records of these patients; `group` is of records."""
    given = {} if group is None else {"groups": pd.DataFrame({"here": group.astype(str)})}
    return Cohort(
        record=np.arange(len(patient)),
        patient=patient,
        label=np.arange(len(patient)) % 2,
        task="binary",
        classes=("no", "yes"),
        **given,
    )


def area(score: Floats, member: Bools) -> float:
    """Area under the ROC curve, ties half."""
    n_in = int(member.sum())
    ranks = rankdata(score)
    return float((ranks[member].sum() - n_in * (n_in + 1) / 2) / (n_in * (len(member) - n_in)))


def by_record(n_studies: int = 100) -> str:
    """Group test and interval without a leak, 20 records a patient that correlate .9."""
    wrong, right, narrow = 0, 0, 0
    for seed in range(n_studies):
        rng = np.random.default_rng(seed)
        n, models, k = 100, 16, 20
        patient = np.repeat(np.arange(n), k)
        group = rng.random(n) < 0.4
        cohort, held = cohort_of(patient, group[patient]), balanced(models, n, seed=seed)
        shared = rng.standard_normal((models, n))[:, patient]
        signal = 0.95 * shared + 0.3 * rng.standard_normal((models, n * k))
        records, risk = patient_risk(signal, held, cohort)
        top = records.auc >= np.quantile(records.auc, 0.9)
        counts = np.array([[(top == a)[group[patient] == b].sum() for a in (0, 1)] for b in (0, 1)])
        wrong += chi2_contingency(counts).pvalue <= 0.05
        table, _ = group_table(risk.joint, cohort.patient_groups()[0], top=0.1)
        right += table["p_value"].min() <= 0.05
        inside = held[0][patient]
        value, influence = auc_influence(ordered(signal[0], inside), np.arange(n * k), n * k)
        narrow += abs(value - 0.5) > 1.96 * np.sqrt(influence @ influence)
    return (
        f"without any leak, a chi-square test of records finds one of two groups more at risk in "
        f"{wrong / n_studies:.0%} of cohorts at 5 % (patients: {right / n_studies:.1%}), and an "
        f"interval by records leaves out .5 in {narrow / n_studies:.0%} of models (20 alike "
        "records a patient)"
    )


def both_sides() -> str:
    """Nearest neighbour on features of patients whose labels are coin tosses."""
    rng = np.random.default_rng(0)
    n, k = 300, 10
    patient = np.repeat(np.arange(n), k)
    label = (rng.random(n) < 0.5)[patient]
    features = rng.standard_normal((n, 8))[patient] + 0.5 * rng.standard_normal((n * k, 8))
    found = []
    for test in (rng.random(n * k) < 0.5, patient < n // 2):
        model = KNeighborsClassifier(1).fit(features[~test], label[~test])
        found.append(np.mean(model.predict(features[test]) == label[test]))
    return (
        f"labels that are coin tosses are predicted right in {found[0]:.0%}, when records are "
        f"split, and in {found[1]:.0%}, when patients are"
    )


def rounded() -> str:
    """Confident models in single precision: margins of 16 out and 20 in, deviation 4."""
    rng = np.random.default_rng(0)
    member = rng.random(200_000) < 0.5
    margin = rng.normal(16.0, 4.0, len(member)) + 4.0 * member
    loss = np.log(expit(margin.astype(np.float32)) + np.float32(1e-8)).astype(np.float64)
    rate = [true_positive_rate(ordered(x, member), np.array([0.01]))[0][0] for x in (margin, loss)]
    return (
        f"with confident models, in single precision, it finds {rate[1]:.1%} of members at 1 % "
        f"false alarms; logit(p_y) finds {rate[0]:.1%}"
    )


def own_reference(n_models: int = 16) -> str:
    """LiRA without a leak, with the target among its references."""
    rng = np.random.default_rng(0)
    held = balanced(n_models, 4000, seed=0)
    signal = rng.standard_normal(held.shape)
    attack = LiRA(Global())
    inside = [area(attack.score(s, signal, held), m) for s, m in zip(signal, held, strict=True)]
    scores = attack.leave_one_out(signal, held)
    out = [area(s, m) for s, m in zip(scores, held, strict=True)]
    return (
        f"with {n_models} models and nothing to find, LiRA's AUC is {np.mean(inside):.3f}; left "
        f"out, {np.mean(out):.3f}"
    )


def counts_tell() -> str:
    """The number of the other models that held a patient."""
    held = balanced(16, 4000, seed=0)
    found = [area(-(held.sum(axis=0) - row).astype(float), row) for row in held]
    return (
        "the number of other models that held a record alone tells who is a member, with an AUC of "
        f"{np.mean(found):.3f}"
    )


def leave_one_out_over_models() -> str:
    """Risk over models from scores of an attack, without a leak."""
    words = []
    for n_models in (8, 200):
        rng = np.random.default_rng(n_models)
        held = balanced(n_models, 6000 if n_models == 8 else 1500, seed=0)
        signal = rng.standard_normal(held.shape)
        scores = LiRA(Global()).leave_one_out(signal, held)
        words.append(
            f"{row_auc(scores, held).auc.mean():.3f} from scores and "
            f"{row_auc(signal, held).auc.mean():.3f} from signals at {n_models} models"
        )
    return f"without a leak the mean area of a record is {' and '.join(words)}"


def wrong_side(n_models: int = 64) -> str:
    """Two-sided density of the out references, after a shift of one deviation."""
    rng = np.random.default_rng(0)
    held = balanced(n_models, 4000, seed=0)
    signal = rng.standard_normal(held.shape) + held
    out = ~held
    n = out.sum(axis=0)
    mean = (signal * out).sum(axis=0) / n
    spread = np.sqrt((((signal - mean) * out) ** 2).sum(axis=0) / (n - 1))
    z = (rng.standard_normal(4000) + (member := rng.random(4000) < 0.5) - mean) / spread
    return (
        f"a shift of one deviation has an AUC of {area(-0.5 * z**2, member):.3f} by the density of "
        f"the models without the record, and {area(z, member):.3f} by the one-sided z"
    )


def own_variance() -> str:
    """LiRA with 16 references and a leak of one deviation."""
    rng = np.random.default_rng(0)
    held = balanced(16, 20_000, seed=0)
    signal = rng.standard_normal(held.shape) + held
    member = rng.random(held.shape[1]) < 0.5
    target = rng.standard_normal(len(member)) + member
    found = [
        true_positive_rate(ordered(LiRA(v).score(target, signal, held), member), np.array([0.001]))
        for v in (PerRecord(), Global(), None)
    ]
    own, one, moderated = (float(rates[0]) for rates, _ in found)
    return (
        f"at .1 % false alarms and 16 references each record's own variance finds {own:.1%} of "
        f"members, one common variance {one:.1%}, the moderated one {moderated:.1%}"
    )


def worst_record() -> str:
    """Patients of 1 and of 20 records without a leak, 100 models with and 100 without each."""
    words = []
    for k in (1, 20):
        rng = np.random.default_rng(k)
        patient = np.repeat(np.arange(500), k)
        held = balanced(200, 500, seed=k)
        _, risk = patient_risk(
            rng.standard_normal((200, len(patient))), held, cohort_of(patient), fdr=0.05
        )
        words.append(f"{np.mean(risk.maximum >= 0.6):.1%} of patients with {k}")
    return (
        "without a leak, with 200 models, the worst record has an AUC of .6 or more in "
        f"{' and '.join(words)} records"
    )


def noisy_tail() -> str:
    """A cohort like those published: median area .565, few above .7."""
    d = draw(Setting(leak="everyone", most=1, models=32, studies=1, patients=3000), 0)
    risk = patient_risk(d.signal, d.membership, d.cohort)[1]
    found = tail(risk, np.array([0.7]))
    return (
        f"with 32 models {found.raw[0]:.1%} of patients seem to have an AUC of .7 or more; "
        f"{np.mean(d.area >= 0.7):.1%} do, and the corrected share is {found.corrected[0]:.1%} "
        f"(bounds {found.low[0]:.1%} to {found.high[0]:.1%})"
    )


def unmeasurable(n_negative: int = 100) -> str:
    """True positive rate of a guess at 1 %, with 100 non-members."""
    rng = np.random.default_rng(0)
    member = np.arange(2 * n_negative) < n_negative
    usual, ours = [], []
    for _ in range(3000):
        score = rng.random(len(member))
        o = ordered(score, member)
        allowed = np.searchsorted(o.false / o.n_false, 0.01, side="right") - 1
        usual.append(o.true[allowed] / n_negative if allowed >= 0 else 0.0)
        ours.append(true_positive_rate(o, np.array([0.01]))[0][0])
    return (
        f"with {n_negative} non-members a guess finds {np.mean(usual):.1%} of members at 1 % false "
        f"alarms by the usual threshold, {np.mean(ours):.1%} by the one used here; at .1 % there "
        "is nothing to measure"
    )


def best_threshold(n_studies: int = 300, n: int = 500) -> str:
    """Epsilon from trainings with and without one patient who does not leak."""
    rng, best, paid = np.random.default_rng(0), 0, 0
    for _ in range(n_studies):
        inside, outside = np.sort(rng.standard_normal((2, n)))
        above = n - np.searchsorted(outside, inside)
        each = [
            clopper_pearson_epsilon(Counts(hits_in=n - i, n_in=n, hits_out=int(k), n_out=n))
            for i, k in enumerate(above)
            if i % 5 == 0 or i > n - 20
        ]
        best += max(each) > 0
        paid += bonferroni_epsilon(inside, outside) > 0
    return (
        f"without a leak the best threshold for {n} trainings with and {n} without a patient says "
        f"epsilon > 0 in {best / n_studies:.1%} of audits at 95 %; corrected, in "
        f"{paid / n_studies:.1%}"
    )


def too_small(n_patients: int = 11_000) -> str:
    """Twenty planted patients with an AUC of .95 a record."""
    rng = np.random.default_rng(0)
    words = []
    for models in (16, 64):
        signal = rng.standard_normal((models, n_patients))
        held = balanced(models, n_patients, seed=0)
        cohort = cohort_of(np.arange(n_patients))
        risk = patient_risk(signal, held, cohort)[1]
        found = planted_control(signal, held, cohort, risk.p_value, fdr=0.05, seed=0)
        words.append(f"{found['found']} of {found['planted']} with {models} models")
    return (
        f"in a cohort of {n_patients:,}, of planted patients with an AUC of .95 the list holds "
        f"{' and '.join(words)}"
    )


def permutations() -> str:
    """Smallest p-value of 1,000 permutations, and what one patient of 65,379 needs."""
    exact = float(survival(100, 100, np.array([10_000]))[0])
    return (
        f"1,000 permutations give no p-value below {1 / 1001:.4f}; to list one of 65,379 patients "
        f"takes {0.05 / 65379:.1e}, and the exact law goes down to {exact:.0e}"
    )


def two_names() -> str:
    """A person whose true area is .9, under one id and under two with masks of their own."""
    rng = np.random.default_rng(0)
    n, models = 400, 200
    shift = np.sqrt(2) * ndtri(0.9)
    held = balanced(models, 2 * n, seed=0)
    noise = rng.standard_normal((models, 2 * n))
    one = row_auc(noise[:, :n] + shift * held[:, :n], held[:, :n]).auc.mean()
    either = held[:, :n] | held[:, n:]
    two = row_auc(noise[:, :n] + shift * either, held[:, :n]).auc.mean()
    return f"a person with an AUC of {one:.2f} shows {two:.2f} under two ids"


def dropped(n_models: int = 16) -> str:
    """Models of a record that are missing, one in ten, the rest balanced: counts differ."""
    rng = np.random.default_rng(0)
    held = rng.random((n_models, 4000)) < 0.5
    found = [area(held.sum(axis=0).astype(float), row) for row in held]
    return (
        f"with coin tosses for {n_models} models, the number of models that held a record alone "
        f"has an AUC of {np.mean(found):.3f} as an attack on any of them"
    )


def other_source() -> str:
    """No model at all: inputs of members and of another hospital's patients."""
    rng = np.random.default_rng(0)
    member = rng.random(2000) < 0.5
    inputs = rng.standard_normal((2000, 20)) + 0.3 * member[:, None]
    said = cross_val_predict(LogisticRegression(), inputs, member, cv=5, method="decision_function")
    return (
        f"20 features that differ by .3 deviations between two hospitals tell members with an AUC "
        f"of {area(said, member):.2f}, without looking at any model"
    )


def best_epoch() -> str:
    """Fifty useless epochs, judged on 100 test records."""
    rng = np.random.default_rng(0)
    label = np.arange(100) < 50
    best = [max(area(x, label) for x in rng.standard_normal((50, 100))) for _ in range(100)]
    return (
        "the best of 50 epochs of a model that knows nothing has a mean AUC of "
        f"{np.mean(best):.2f} on 100 test records"
    )


def pooled_scores() -> str:
    """Ten sites whose models are alike, but for an offset and a prevalence of their own."""
    rng = np.random.default_rng(0)
    label, score, within = [], [], []
    for site in range(10):
        truth = rng.random(500) < 0.1 + 0.08 * site
        own = rng.standard_normal(500) + 1.0 * truth
        within.append(area(own, truth))
        label.append(truth)
        score.append(own - 0.4 * site)
    pooled = area(np.concatenate(score), np.concatenate(label))
    return (
        f"ten models with an AUC of {np.mean(within):.2f} each, on scales of their own, have "
        f"{pooled:.2f} pooled"
    )


def few_patients() -> str:
    """No finding among 30 patients."""
    few, more = (clopper_pearson(0, n)[1] for n in (30, 75))
    return f"0 of 30 is compatible with up to {few:.1%}; 0 of 75 with up to {more:.1%}"


def looks(n_studies: int = 200) -> str:
    """Stop at the first list that is not empty; looks at 16, 32, ..., 128 models."""
    at = range(16, 129, 16)
    least = np.empty((n_studies, len(at)))
    for seed in range(n_studies):
        held = balanced(128, 40, seed=seed, block=16)
        signal, block = np.random.default_rng(seed).standard_normal(held.shape), block_of(128, 16)
        for i, m in enumerate(at):
            p = blocked_p_value(signal[:m], held[:m], block[:m])
            least[seed, i] = benjamini_hochberg(p).min()
    free, paid = ((least <= level).any(axis=1).mean() for level in (0.05, 0.05 / len(at)))
    return (
        f"without a leak, stopping at the first list that is not empty (8 looks) ends with a false "
        f"list in {free:.1%} of audits at 5 %; at fdr / 8, in {paid:.1%}"
    )


def models_as_fixed(n_studies: int = 200) -> str:
    """Eight models that differ in how much they give away: interval for patients alone."""
    both, alone = [], []
    for seed in range(n_studies):
        s = Setting(leak="group", most=1, models=8, studies=1, patients=300, between=0.4)
        d, total, influences = draw(s, seed), MeanOverModels(300), np.zeros(300)
        for signal, held in zip(d.signal, d.membership, strict=True):
            value, influence = auc_influence(ordered(signal, held), np.arange(300), 300)
            total.add(value, influence)
            influences += influence / len(d.signal)
        found = total.interval()
        both.append((found.value, found.low, found.high))
        width = 1.96 * float(np.sqrt(influences @ influences))
        alone.append((found.value, found.value - width, found.value + width))
    truth = np.mean([b[0] for b in both])
    share = [np.mean([low <= truth <= high for _, low, high in x]) for x in (alone, both)]
    return (
        f"with 8 models that differ, 95 % intervals of an AUC for patients alone hold the truth in "
        f"{share[0]:.0%} of audits; for patients and models, in {share[1]:.0%}"
    )


PITFALLS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("records as the unit", by_record, "masks, splits, tests and intervals are by patient"),
    (
        "a patient in training and test",
        both_sides,
        "refused, with the patient's name",
    ),
    ("`log(softmax + eps)` as signal", rounded, "logit(p_y) from logits, exact"),
    ("the target among its own references", own_reference, "always left out"),
    (
        "unequal counts of references",
        counts_tell,
        "one model of each kind is left out, so counts are equal",
    ),
    (
        "records that are in more models than others",
        dropped,
        "balanced masks; a model that failed is left out whole, and named",
    ),
    (
        "risk over models from leave-one-out scores",
        leave_one_out_over_models,
        "from signals, in which membership had no part",
    ),
    ("a density where a tail belongs", wrong_side, "offline LiRA is one-sided"),
    ("a variance from few models", own_variance, "moderated variances"),
    (
        "a worst-record risk without its null",
        worst_record,
        "a null for each number of records, and `auc_joint` beside it",
    ),
    (
        "counting patients above an AUC",
        noisy_tail,
        "measured, by chance, and corrected with bounds",
    ),
    (
        "the nominal rate of false alarms with few non-members",
        unmeasurable,
        'the k-th highest non-member; below one false alarm `null`, "not measurable"',
    ),
    ("the best of many thresholds", best_threshold, "fixed in advance, or corrected"),
    ("permutation p-values in a large cohort", permutations, "exact laws"),
    (
        "nothing found, so safe",
        too_small,
        'positive control, smallest detectable AUC, "not established"',
    ),
    (
        "stopping when something is found",
        looks,
        "each of K looks is made at fdr / K",
    ),
    ("models taken as fixed", models_as_fixed, "intervals are for patients and models"),
    (
        "the same person under two ids",
        two_names,
        "exact duplicates fail a guard; near-duplicate images are looked for",
    ),
    (
        "members and non-members of different sources",
        other_source,
        "a blind classifier runs first; the audit is refused where it succeeds",
    ),
    (
        "the best epoch chosen on the test records",
        best_epoch,
        "chosen on dev patients of their own",
    ),
    (
        "scores of several models pooled into one AUC",
        pooled_scores,
        "means over models, or over sites, of the AUC within each",
    ),
    ("no finding among few patients", few_patients, "the upper end of the interval counts"),
)


def table() -> list[list[str]]:
    """Mistake, what it does, and what is done here."""
    rows = [["mistake", "what it does, measured", "here"]]
    for mistake, figure, here in PITFALLS:
        text = figure()
        rows.append([mistake, text[0].upper() + text[1:], here])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="Markdown file whose table is replaced")
    a = parser.parse_args()
    text = markdown(table())
    print(text)
    if a.write:
        write(a.write, "pitfalls", text)


if __name__ == "__main__":
    main()
