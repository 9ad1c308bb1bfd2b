"""Simulated audits with known answers: cohorts, and what an audit claims of each.

Cohorts without a leak, with a leak of a few patients, of a group, of everyone a little (as
published for chest radiographs), with strongly correlated records, with models that differ in how
much they give away, and with heavy-tailed signals; 1 to 30 records a patient, 8 to 200 models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from confide.attacks import LiRA, LossThreshold
from confide.audits.adjusted import covariates
from confide.audits.aggregate import evaluate
from confide.audits.canaries import EpsilonSettings, epsilon_bounds
from confide.audits.clustered import MeanOverModels, auc_influence, ordered
from confide.audits.epsilon import epsilon_of_mu
from confide.audits.groups import group_table
from confide.audits.mann_whitney import survival
from confide.audits.patients import PatientRisk, patient_risk
from confide.audits.shrinkage import shrunken
from confide.audits.tail import Tail, tail
from confide.audits.utility import utility
from confide.cohort import Cohort
from confide.masks import balanced

Floats = NDArray[np.float64]
CUTS = np.array([0.6, 0.7, 0.8])


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A kind of cohort, its size, and how many studies of it are simulated.

    Parameters
    ----------
    leak : a key of `LEAKS`
    most : records a patient has at most; numbers are even from 1
    within : correlation of a patient's records within a model
    between : deviation of the logarithm of how much a model gives away
    heavy : signals with Student's t of 4 degrees of freedom
    """

    leak: str
    most: int
    models: int
    studies: int
    patients: int = 300
    within: float = 0.5
    between: float = 0.0
    heavy: bool = False

    @property
    def name(self) -> str:
        extra = [
            "records correlated .9" * (self.within > 0.6),
            "models differ" * (self.between > 0),
            "heavy tails" * self.heavy,
        ]
        return ", ".join([self.leak, *filter(None, extra)])


def _few(rng: np.random.Generator, group: NDArray[np.bool_]) -> Floats:
    area = np.where(rng.random(len(group)) < 0.05, rng.uniform(0.65, 0.97, len(group)), 0.5)
    return np.sqrt(2) * ndtri(area)


def _everyone(rng: np.random.Generator, group: NDArray[np.bool_]) -> Floats:
    n = len(group)
    far = np.where(rng.random(n) < 0.1, rng.exponential(0.2, n), 0.0)
    return np.sqrt(2) * (0.16 + 0.09 * rng.standard_normal(n) + far)


LEAKS: dict[str, Callable[[np.random.Generator, NDArray[np.bool_]], Floats]] = {
    "none": lambda rng, group: np.zeros(len(group)),
    "few": _few,  # a twentieth of the patients, areas of .65 to .97
    "group": lambda rng, group: np.where(group, 0.7, 0.25),  # areas .69 and .57
    "everyone": _everyone,  # median .565, a thin tail
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """One simulated study.

    `mu` is the distance of in from out in deviations of the sum of the patient's records, the
    models' offset known; `area` the true area over models of the `joint` statistic.
    """

    signal: Floats
    membership: NDArray[np.bool_]
    cohort: Cohort
    mu: Floats
    area: Floats


def draw(s: Setting, seed: int) -> Drawn:
    """Models with a common offset each; records with levels and spreads of their own.

    A patient leaks in all records alike; the leak is set in deviations of a single record, so
    that patients with more records leak more, by exactly what the correlation leaves of them.
    Group "here" is 30 % of the patients; "site" goes with the number of records and does nothing.
    """
    rng = np.random.default_rng([seed, s.models, s.most])
    sizes = rng.integers(1, s.most + 1, s.patients)
    patient = np.repeat(np.arange(s.patients), sizes)
    group = rng.permutation(s.patients) < round(0.3 * s.patients)
    site = rng.random(s.patients) < 0.2 + 0.6 * (sizes - 1) / max(s.most - 1, 1)
    cohort = Cohort(
        record=np.arange(len(patient)),
        patient=patient,
        label=rng.choice(3, len(patient), p=[0.7, 0.25, 0.05]),
        task="multiclass",
        classes=("a", "b", "c"),
        groups=pd.DataFrame(
            {
                "here": np.where(group, "yes", "no")[patient],
                "site": np.where(site, "far", "near")[patient],
            }
        ),
    )
    membership = balanced(s.models, s.patients, seed=seed)
    leak = LEAKS[s.leak](rng, group)
    signal = np.sqrt(s.within) * rng.standard_normal((s.models, s.patients))[:, patient]
    signal += np.sqrt(1 - s.within) * rng.standard_normal((s.models, len(patient)))
    if s.heavy:  # one divisor for the patient: the sum of records is heavy-tailed alike
        signal /= np.sqrt(rng.chisquare(4, (s.models, s.patients)) / 4)[:, patient]
    strength = np.exp(s.between * rng.standard_normal(s.models))[:, None]
    signal += strength * cohort.expand(membership & (leak != 0)) * leak[patient]
    signal += 0.3 * rng.standard_normal(s.models)[:, None]
    signal *= np.exp(0.4 * rng.standard_normal(len(patient)))
    own = np.sqrt(sizes + sizes * (sizes - 1) * s.within)
    offset = 0.3 * sizes  # the models' offset is common to a patient's records
    mu, scale = leak * sizes / own, own / np.sqrt(own**2 + offset**2)
    return Drawn(
        signal=signal + rng.normal(0, 2, len(patient)),
        membership=membership,
        cohort=cohort,
        mu=mu,
        area=_true_area(s, mu, scale),
    )


def _true_area(s: Setting, mu: Floats, scale: Floats) -> Floats:
    """Chance that a signal in lies above one out, over models drawn anew."""
    if s.heavy:
        rng = np.random.default_rng(0)
        noise = rng.standard_t(4, (2, 200_000)) * scale.mean()
        noise += np.sqrt(1 - scale.mean() ** 2) * rng.standard_normal(noise.shape)
        return np.searchsorted(np.sort(noise[1] - noise[0]), mu * scale) / noise.shape[1]
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    strength = np.exp(s.between * nodes)[:, None]
    return (weights / weights.sum()) @ ndtr(strength * mu * scale / np.sqrt(2))


@dataclass
class Tally:
    """What was claimed in many studies, and what is true."""

    claims: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    means: dict[str, list[float]] = field(default_factory=dict)

    def claim(
        self, name: str, value: float, low: float, high: float, truth: float = np.nan
    ) -> None:
        """An interval; without a truth that of all studies' mean value is taken."""
        self.claims.setdefault(name, []).append((value, low, high, truth))

    def mean(self, name: str, value: float) -> None:
        """A figure of which the mean over studies is reported."""
        self.means.setdefault(name, []).append(float(value))

    def add(self, other: Tally) -> None:
        for name, found in other.claims.items():
            self.claims.setdefault(name, []).extend(found)
        for name, values in other.means.items():
            self.means.setdefault(name, []).extend(values)

    def coverage(self, name: str) -> tuple[float, float]:
        """Share of the intervals that hold the truth, and its standard error; NaN without any."""
        value, low, high, truth = np.asarray(self.claims.get(name, np.empty((0, 4)))).T
        known = np.isfinite(low)
        if not known.any():
            return float("nan"), float("nan")
        truth = np.where(np.isnan(truth), value[known].mean(), truth)
        inside = ((low <= truth + 1e-9) & (truth <= high + 1e-9))[known]
        share = float(inside.mean())
        return share, float(np.sqrt(max(share * (1 - share), 0.0475 * 0.5) / len(inside)))

    def average(self, name: str) -> float:
        values = np.asarray(self.means.get(name, [np.nan]))
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def measure(s: Setting, seed: int) -> Tally:
    """All that an audit claims of one simulated study, beside the truth."""
    d, t = draw(s, seed), Tally()
    risk = patient_risk(d.signal, d.membership, d.cohort)[1]
    _lists(t, d, risk, np.random.default_rng(seed))
    _groups(t, d, risk, s)
    if not (s.heavy or s.between):
        _epsilon(t, d)
    _shrinkage(t, d, risk)
    if seed % 3 == 0:  # the dearest
        _tails(t, d, risk, s)
    if seed % 2 == 0 or s.models <= 16:
        _attacks(t, d, seed)
    return t


def _lists(t: Tally, d: Drawn, risk: PatientRisk, rng: np.random.Generator) -> None:
    null = d.mu == 0
    listed = risk.at_risk
    if null.any():
        t.mean("false share", (listed & null).sum() / max(listed.sum(), 1))
        # Ties of a discrete law broken evenly: exactly uniform if the law is right.
        n_in, n_out = int(risk.n_in[0]), int(risk.n_out[0])
        above = survival(n_in, n_out, np.round(risk.joint * n_in * n_out).astype(int) + 1)
        even = above + rng.random(len(above)) * (risk.p_joint - above)
        for level in (0.05, 0.01, 0.001):
            t.mean(f"p {level:g}", (even[null] <= level).mean())
            t.mean(f"list p {level:g}", (risk.p_value[null] <= level).mean())


def _tails(t: Tally, d: Drawn, risk: PatientRisk, s: Setting) -> None:
    found: Tail = tail(risk, CUTS)
    for i, cut in enumerate(CUTS):
        truth = float((d.area >= cut).mean())
        t.claim(f"raw {cut:g}", found.raw[i], found.raw_low[i], found.raw_high[i])
        t.claim(f"corrected {cut:g}", found.corrected[i], found.low[i], found.high[i], truth)
        t.mean(f"raw {cut:g}", found.raw[i])
        t.mean(f"corrected {cut:g}", found.corrected[i])
        t.mean(f"true {cut:g}", truth)
    inside = (found.risk_low <= d.area + 1e-9) & (d.area <= found.risk_high + 1e-9)
    t.mean("risk by tail", inside.mean())
    if s.leak in ("none", "few"):
        called = found.local_fdr <= 0.5
        t.mean("lfdr said", found.local_fdr[called].sum())
        t.mean("lfdr false", (d.mu[called] == 0).sum())


def _shrinkage(t: Tally, d: Drawn, risk: PatientRisk) -> None:
    less = shrunken(d.signal, d.membership, d.cohort, risk)
    known = ~np.isnan(less.risk)
    if known.any():
        inside = (less.low <= d.area + 1e-9) & (d.area <= less.high + 1e-9)
        t.mean("risk", inside[known].mean())
        t.mean("error raw", np.sqrt(np.mean((risk.joint - d.area)[known] ** 2)))
        t.mean("error risk", np.sqrt(np.mean((less.risk - d.area)[known] ** 2)))


def _groups(t: Tally, d: Drawn, risk: PatientRisk, s: Setting) -> None:
    columns, _ = d.cohort.patient_groups()
    table, overall = group_table(
        risk.joint, columns, top=0.1, seed=0, covariates=covariates(d.cohort)
    )
    rows = table.set_index(["group", "value"])
    here, far = rows.loc[("here", "yes")], rows.loc[("site", "far")]
    in_group = (columns["here"] == "yes").to_numpy()
    for name, row, truth in (
        ("ratio", here, 1.0 if s.leak == "none" else np.nan),
        ("mean_difference", here, float(d.area[in_group].mean() - d.area[~in_group].mean())),
        ("adjusted_difference", far, 0.0),
    ):
        if s.leak != "none" and name == "mean_difference":
            truth = np.nan
        t.claim(name, row[name], row[f"{name}_low"], row[f"{name}_high"], truth)
    if s.leak == "none":
        t.mean("group p 0.05", float(overall["here"]["p_value"] <= 0.05))


def _attacks(t: Tally, d: Drawn, seed: int) -> None:
    held = d.cohort.expand(d.membership)
    scores = LiRA().leave_one_out(d.signal, held)
    measured, _ = evaluate(scores, d.membership, d.cohort, seed=seed)
    t.claim("lira auc", *(measured[k] for k in ("auc", "auc_low", "auc_high")))
    rate = measured["tpr_at_fpr"]["0.1"]
    t.claim("lira tpr", *(rate[k] for k in ("tpr", "low", "high")))
    area = MeanOverModels(d.cohort.n_patients)
    for signal, inside in zip(d.signal, held, strict=True):
        influence = auc_influence(
            ordered(signal, inside), d.cohort.patient_index, d.cohort.n_patients
        )
        area.add(*influence)
    found = area.interval()
    t.claim("loss auc", found.value, found.low, found.high)


def _epsilon(t: Tally, d: Drawn) -> None:
    """A shift between normal laws is a Gaussian mechanism: its epsilon at delta is known."""
    settings = EpsilonSettings()
    truth = epsilon_of_mu(float(d.mu.max()), settings.delta)
    for bound in epsilon_bounds(d.signal, d.membership, d.cohort, settings=settings):
        if bound["unit"] == "patient":
            t.mean(f"{bound['method']} above", float(bound["epsilon"] > truth))
            t.mean(f"{bound['method']} epsilon", bound["epsilon"])


def response(epsilon: float, models: int, seed: int) -> Tally:
    """Bounds where they are tightest: each patient's membership, told with randomised response.

    The truth is `epsilon` with delta 0; nothing separates the two.
    """
    rng, n, t = np.random.default_rng([seed, models]), 200, Tally()
    membership = balanced(models, n, seed=seed)
    lie = rng.random((models, n)) < 1 / (1 + np.exp(epsilon))
    signal = (membership ^ lie) + 1e-3 * rng.standard_normal((models, n))
    cohort = Cohort(
        record=np.arange(n),
        patient=np.arange(n),
        label=np.arange(n) % 2,
        task="binary",
        classes=("no", "yes"),
    )
    for bound in epsilon_bounds(signal, membership, cohort, attack=LossThreshold()):
        if bound["unit"] == "patient":
            t.mean(f"{bound['method']} above", float(bound["epsilon"] > epsilon))
            t.mean(f"{bound['method']} epsilon", bound["epsilon"])
    return t


def useful(models: int, most: int, seed: int) -> Tally:
    """Utility of models that differ, on held-out patients with correlated records."""
    rng, n, t = np.random.default_rng([seed, models, most]), 120, Tally()
    patient = np.repeat(np.arange(n), rng.integers(1, most + 1, n))
    label = rng.integers(0, 2, n)[patient]
    cohort = Cohort(
        record=np.arange(len(patient)),
        patient=patient,
        label=label,
        task="binary",
        classes=("no", "yes"),
    )
    side, size = 2 * label - 1, (models, len(patient))
    skill = 0.5 + 0.15 * rng.standard_normal(models)
    person = 0.6 * rng.standard_normal(n)[patient] + 0.5 * rng.standard_normal(len(patient))
    logits = skill[:, None] * side + person + 0.6 * rng.standard_normal(size)
    found = utility(logits[:, :, None, None], cohort)["overall"]
    t.claim("auroc", found["auroc"], found["low"], found["high"])
    t.claim("accuracy", found["accuracy"], found["accuracy_low"], found["accuracy_high"])
    return t


SETTINGS = (
    Setting(leak="none", most=1, models=16, studies=120),
    Setting(leak="none", most=30, models=8, studies=100, patients=200),
    Setting(leak="none", most=5, models=64, studies=60, patients=200),
    Setting(leak="few", most=5, models=8, studies=100),
    Setting(leak="few", most=5, models=16, studies=120),
    Setting(leak="few", most=1, models=64, studies=60),
    Setting(leak="few", most=30, models=200, studies=24, patients=150),
    Setting(leak="group", most=1, models=16, studies=120),
    Setting(leak="group", most=5, models=64, studies=60, patients=200),
    Setting(leak="everyone", most=1, models=16, studies=100),
    Setting(leak="everyone", most=1, models=200, studies=24),
    Setting(leak="few", most=30, models=16, studies=100, patients=200, within=0.9),
    Setting(leak="group", most=5, models=16, studies=100, between=0.3),
    Setting(leak="few", most=1, models=64, studies=60, heavy=True),
)


def study(s: Setting, share: float = 1.0) -> Tally:
    """All studies of a setting, and lists of three times as many again."""
    total = Tally()
    n = max(2, round(share * s.studies))
    for seed in range(n):
        total.add(measure(s, seed))
    for seed in range(n, 4 * n if s.leak in ("none", "few") else n):  # lists are cheap
        d = draw(s, seed)
        risk = patient_risk(d.signal, d.membership, d.cohort)[1]
        _lists(total, d, risk, np.random.default_rng(seed))
    total.mean("studies", n)
    return total
