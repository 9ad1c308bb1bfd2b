"""Lower bounds of epsilon from the models of an audit, and canaries: patients planted to be found.

The design.  The first half of the models are references.  The others are taken in pairs; the
first model of a pair is attacked, the second is not looked at.  A patient who is in exactly one
model of a pair gives a coin: was it the attacked one?  Masks are drawn for each patient on its own
and evenly over models, so given the references and the patients of each pair these coins are fair
and independent, whatever the share of models that hold a patient, and whatever attack is made of
the references.  (With all other models as references it would not be so: a balanced column gives
the last model away.)  Each coin decides the training data of one attacked model only, so all of
them together are one experiment of the kind of Steinke et al. (arXiv 2305.08846) with many runs
side by side.  The patients are chosen on the references.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide import _check
from confide.attacks import LiRA
from confide.attacks.base import Attack
from confide.audits.clustered import sum_by_patient
from confide.audits.epsilon import (
    CONFIDENCE,
    DELTA,
    Counts,
    clopper_pearson_epsilon,
    gdp_epsilon,
    guessing_epsilon,
)
from confide.audits.multiple import benjamini_hochberg
from confide.audits.patients import joint_signal
from confide.cohort import Cohort
from confide.errors import ArgumentError

Floats = NDArray[np.float64]
_PATIENTS = 4096
_FEWEST_MODELS = 8
"""Four references, two pairs."""
_ASSUMES = {
    "one_run": "Membership was drawn at random, patient by patient, and evenly over models.",
    "clopper_pearson": "Membership was drawn at random, patient by patient, and evenly over "
    "models. It is the bound of one patient, chosen on the first half of the models.",
    "gdp": "Membership was drawn at random, patient by patient, and evenly over models, and the "
    "privacy of the training follows the curve of a Gaussian mechanism, which nothing here checks. "
    "It is the mu of one patient, chosen on the first half of the models.",
}


@dataclass(frozen=True, kw_only=True)
class EpsilonSettings:
    """Which bounds are computed.

    Parameters
    ----------
    delta, confidence : of the claim that is refuted, and of each refutation by itself
    most : patients whose membership is guessed at most, those that leak most in the references
    """

    delta: float = DELTA
    confidence: float = CONFIDENCE
    most: int = 200

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 1.0:
            raise ArgumentError(f"Expected delta={self.delta!r} strictly between 0 and 1.")
        _check.in_range(0.5, 0.9999, confidence=self.confidence)
        _check.at_least(1, most=self.most)


def epsilon_bounds(
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    *,
    population: Floats | None = None,
    attack: Attack | None = None,
    whose: str = "patients",
    block: NDArray[np.int64] | None = None,
    settings: EpsilonSettings | None = None,
) -> list[dict[str, Any]]:
    """Lower bounds of the epsilon of the audited recipe.

    Parameters
    ----------
    signal : (n_models, n_records) one number a record, higher = more like a member; records with
        NaN are left out
    membership : (n_models, n_patients) bool, drawn by :func:`confide.masks.balanced`,
        or any other masks whose columns are exchangeable and independent
    cohort : whose records they are
    population : (n_models, n_population) signals of records in no training set
    attack : scores the records; the scores of a patient's records are added up
    whose : "patients" or "canaries", for the result
    block : (n_models,) the blocks within which membership was drawn, None for a single one; pairs
        of models of two blocks are left out, and so is the bound of one patient where there are
        several blocks
    settings : delta, confidence and number of patients

    Returns
    -------
    plain JSON, one dict a bound: method ("one_run", "clopper_pearson" or "gdp"), unit, epsilon,
    delta, confidence, attack, whose, n_patients, n_in and n_out (coins, or models of the one
    patient), assumes; one_run has n_guesses and n_correct, gdp has mu.  Empty with fewer than 8
    models or without any patient that has two references on each side.

    Notes
    -----
    Unit "patient": a patient is added with all records.  Unit "record": only patients with a
    single record, because adding one with more is not adding one record.  Each bound holds at its
    confidence by itself; the largest of several does not.
    """
    settings = settings or EpsilonSettings()
    attack = attack or LiRA()
    half = len(membership) // 2
    if len(membership) < _FEWEST_MODELS:
        return []
    leak = _leak(signal[:half], membership[:half], cohort)
    known = np.bincount(cohort.patient_index, weights=np.isnan(signal[0]), minlength=len(leak)) == 0
    leak[~known] = -np.inf
    single = cohort.records_per_patient == 1
    found: list[dict[str, Any]] = []
    for unit, eligible in (("patient", np.ones_like(single)), ("record", single)):
        chosen = _most(np.where(eligible, leak, -np.inf), settings.most)
        if not len(chosen):
            continue
        if unit == "record" and single.all():
            found += [bound | {"unit": unit} for bound in found]
            continue
        common = {"unit": unit, "whose": whose}
        coins = _one_run(signal, membership, cohort, chosen, population, attack, block, settings)
        one_block = block is None or bool((block == block[0]).all())
        worst = (
            _one_patient(signal, membership, cohort, int(chosen[0]), settings) if one_block else []
        )
        found += [bound | common for bound in (*coins, *worst)]
    return found


def canaries_found(p_value: Floats, canary_p_value: Floats, *, fdr: float) -> dict[str, int]:
    """How many canaries a list of patients would hold.

    Each canary stands beside all real patients in the same correction, one at a time, so that many
    canaries do not help each other onto the list.

    Parameters
    ----------
    p_value : (n_patients,) of the real patients
    canary_p_value : (n_canaries,) from :func:`confide.audits.patients.patient_risk` of the
        canaries' records and masks alone
    fdr : of the list

    Returns
    -------
    {"planted": number, "found": number}
    """
    q = [benjamini_hochberg(np.append(p_value, p))[-1] for p in canary_p_value]
    return {"planted": len(q), "found": int(np.sum(np.asarray(q) <= fdr))}


def _leak(signal: Floats, membership: NDArray[np.bool_], cohort: Cohort) -> Floats:
    """(n_patients,) difference of the means in and out over its moderated error; -inf unknown."""
    joint = joint_signal(signal, cohort)
    n_in = membership.sum(axis=0)
    n_out = len(membership) - n_in
    shift, variance, spread = np.empty((3, cohort.n_patients))
    for start in range(0, cohort.n_patients, _PATIENTS):
        part = slice(start, start + _PATIENTS)
        shift[part], variance[part] = _apart(joint[:, part], membership[:, part])
        spread[part] = joint[:, part].var(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        usable = (n_in >= 2) & (n_out >= 2) & (spread > 0)
        # Half of the weight on a common share of the spread, so that luck with few references
        # does not choose the patients.
        share = float(np.median((variance / spread)[usable])) if usable.any() else 1.0
        error = np.sqrt((0.5 * variance + 0.5 * share * spread) * (1.0 / n_in + 1.0 / n_out))
        return np.where(usable & (error > 0), shift / error, -np.inf)


def _apart(joint: Floats, held: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Difference of the means in and out, and variance about them: (n_patients,) each."""
    n_in = held.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_in = np.where(held, joint, 0.0).sum(axis=0) / n_in
        mean_out = np.where(held, 0.0, joint).sum(axis=0) / (len(held) - n_in)
        square = (joint - np.where(held, mean_in, mean_out)) ** 2
        return mean_in - mean_out, square.sum(axis=0) / (len(joint) - 2)


def _most(leak: Floats, most: int) -> NDArray[np.intp]:
    """The patients with the largest values, the largest first."""
    order = np.argsort(-leak, kind="stable")[:most]
    return order[np.isfinite(leak[order])]


def _one_run(
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    chosen: NDArray[np.intp],
    population: Floats | None,
    attack: Attack,
    block: NDArray[np.int64] | None,
    settings: EpsilonSettings,
) -> list[dict[str, Any]]:
    half = len(membership) // 2
    rows = np.flatnonzero(np.isin(cohort.patient_index, chosen))
    part = cohort.select(rows)
    owner = cohort.patient_index[rows][np.unique(part.patient_index, return_index=True)[1]]
    held = membership[:, owner]
    references, in_references = signal[:half][:, rows], part.expand(held[:half])
    scores, coins = [], []
    for target in range(half, len(membership) - 1, 2):
        if block is not None and block[target] != block[target + 1]:
            continue  # a pair of two blocks is no fair coin
        extra = None if population is None else (population[target], population[:half])
        by_record = attack.score(signal[target, rows], references, in_references, extra)
        by_patient = sum_by_patient(by_record, part.patient_index, part.n_patients)
        tossed = (held[target] != held[target + 1]) & np.isfinite(by_patient)
        scores.append(by_patient[tossed])
        coins.append(held[target, tossed])
    if not any(map(len, coins)):
        return []
    score, coin = np.concatenate(scores), np.concatenate(coins)
    best = guessing_epsilon(score, coin, delta=settings.delta, confidence=settings.confidence)
    facts = {"n_guesses": best.n_guesses, "n_correct": best.n_correct}
    counts = (len(owner), int(coin.sum()), int((~coin).sum()))
    return [_bound("one_run", best.epsilon, attack.name, counts, settings) | facts]


def _one_patient(
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    patient: int,
    settings: EpsilonSettings,
) -> list[dict[str, Any]]:
    """Bounds from one patient over the models that are no references.

    The patient's signals, standardised by the references, are added up; the threshold, between
    the means in and out in proportion to the spreads, is the references' too.  With an even draw
    the numbers of hits are sums of independent trials of unequal chance (the draw is strongly
    Rayleigh), which spread no more than binomial ones (Hoeffding, Ann. Math. Stat. 27 (1956)).
    """
    half = len(membership) // 2
    rows = np.flatnonzero(cohort.patient_index == patient)
    before = signal[:half][:, rows]
    spread = before.std(axis=0)
    usable = spread > 0
    weight = np.divide(1.0, spread, out=np.zeros_like(spread), where=usable)
    joint = (signal[:, rows] - before.mean(axis=0)) @ weight
    held = membership[:, patient]
    first_in, first_out = joint[:half][held[:half]], joint[:half][~held[:half]]
    sd_in, sd_out = first_in.std() + 1e-12, first_out.std() + 1e-12
    threshold = (first_in.mean() * sd_out + first_out.mean() * sd_in) / (sd_in + sd_out)
    hit, held = joint[half:] >= threshold, held[half:]
    if held.all() or not held.any():
        return []
    counts = Counts(
        hits_in=int(hit[held].sum()),
        n_in=int(held.sum()),
        hits_out=int(hit[~held].sum()),
        n_out=int((~held).sum()),
    )
    claim = {"delta": settings.delta, "confidence": settings.confidence}
    numbers = (1, counts.n_in, counts.n_out)
    plain = clopper_pearson_epsilon(counts, **claim)
    mu, gaussian = gdp_epsilon(counts, **claim)
    return [
        _bound("clopper_pearson", plain, "signal", numbers, settings),
        _bound("gdp", gaussian, "signal", numbers, settings) | {"mu": mu},
    ]


def _bound(
    method: str,
    epsilon: float,
    attack: str,
    counts: tuple[int, int, int],
    settings: EpsilonSettings,
) -> dict[str, Any]:
    return {
        "method": method,
        "epsilon": epsilon,
        "delta": settings.delta,
        "confidence": settings.confidence,
        "attack": attack,
        "n_patients": counts[0],
        "n_in": counts[1],
        "n_out": counts[2],
        "assumes": _ASSUMES[method],
    }
