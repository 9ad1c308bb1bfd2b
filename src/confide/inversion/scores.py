"""Scores of what attacks found, against the truth, with intervals by patient and chance levels.

Every class of finding has its own scores:

- :class:`Matching`: reid, reid_identical, patient, first_rank, mean_rank, coverage
- :class:`Substitute`: challenge2, challenge2_reverse, mse_ratio, mmd
- :class:`Attributes`: auc
- :class:`Linked`: auc, precision_at_1
- :class:`Maps`: map_correlation, linkage_first_rank, linkage_assigned
- :class:`Reconstruction`: correlation, first_rank, mse_ratio
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from confide import _check
from confide.audits.bootstrap import patient_bootstrap
from confide.errors import ArgumentError
from confide.inversion import estimates
from confide.inversion.base import (
    Attributes,
    Codes,
    Finding,
    Integers,
    Linked,
    Maps,
    Matching,
    Reconstruction,
    Records,
    Substitute,
)
from confide.inversion.estimates import Chance, Estimate
from confide.inversion.similarity import (
    assigned_columns,
    correlations,
    first_ranked,
    mean_code_rows,
    mmd2,
    nearness,
    ranks,
    same_patient_area,
    spread,
)

LOWER_IS_BETTER = frozenset({"mean_rank", "mse_ratio", "mmd"})
"""Scores that an attacker wants to be small."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure about a finding.

    Attributes
    ----------
    name : of the score
    value : of the finding
    low, high : limits of the 95 % interval, with patients as the units; None where there is no
        telling
    chance : of an attacker who knows nothing; NaN where that means nothing
    chance_low, chance_high : what such an attacker leaves less than once in a thousand runs
    n : codes that were scored
    n_patients : their patients; 0 where they are not known
    """

    name: str
    value: float
    low: float | None
    high: float | None
    chance: float
    chance_low: float
    chance_high: float
    n: int
    n_patients: int

    @property
    def beyond_chance(self) -> bool:
        """Whether it is better, for the attacker, than the range of chance."""
        if self.name in LOWER_IS_BETTER:
            return self.value < self.chance_low
        return self.value > self.chance_high


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What is hidden from the attacker.

    Attributes
    ----------
    records : (n_codes, *shape) the plaintexts, in the order of the codes
    patient : (n_codes,) number of the patient
    match : (n_codes,) number of the attacker's plaintext that is this record; None for attackers
        who do not have them
    attribute : (n_codes,) 0 or 1, -1 where it is not known; None without one
    codes : the codes
    other_patient : (n_others,) number of the patient of each code of a second release, with the
        same numbers as `patient`; for scoring only, no attack sees it
    """

    records: Records
    patient: Integers
    codes: Codes
    match: Integers | None = None
    attribute: Integers | None = None
    other_patient: Integers | None = None

    def __post_init__(self) -> None:
        n = self.codes.n_records
        if not n:
            raise ArgumentError("Expected at least one code to score, got none.")
        if len(self.records) != n:
            raise ArgumentError(f"Expected records of {n} codes, got {len(self.records)}.")
        _check.shape((n,), patient=self.patient)
        for name in ("match", "attribute"):
            values = getattr(self, name)
            if values is not None:
                _check.shape((n,), **{name: values})

    def identical(self) -> NDArray[np.int64]:
        """(n_codes,) number of the plaintext, the same for those identical pixel by pixel."""
        digests = [hashlib.sha256(np.ascontiguousarray(r).tobytes()).digest() for r in self.records]
        numbers = {digest: i for i, digest in enumerate(dict.fromkeys(digests))}
        return np.array([numbers[digest] for digest in digests], dtype=np.int64)


def score(finding: Finding, truth: Truth, seed: int = 0) -> list[Score]:
    """Score a finding.

    Parameters
    ----------
    finding : of any of the classes in the docstring of this module
    truth : of the codes that it is about
    seed : of the resamples of patients and of simulations

    Returns
    -------
    the scores, in the order given there

    Raises
    ------
    ArgumentError : a finding that does not fit the truth, or one whose truth is not there
    """
    if isinstance(finding, Matching):
        return _matching(finding, truth)
    if isinstance(finding, Substitute):
        return _substitute(finding, truth)
    if isinstance(finding, Attributes):
        return _attributes(finding, truth, seed)
    if isinstance(finding, Linked):
        return _linked(finding, truth, seed)
    if isinstance(finding, Maps):
        return _maps(finding, truth)
    if isinstance(finding, Reconstruction):
        return _reconstruction(finding, truth)
    raise ArgumentError(f"There are no scores for a {type(finding).__name__}.")


def band(score: Score) -> Literal["good", "moderate", "bad"]:
    """What the authors of NeuraCrypt called a share of re-identified images.

    They called less than 5 % good, 5 to 20 % moderate and more than 20 % bad (README of their
    challenge, 2021).  Here the upper end of the interval has to be below the bound, so that few
    patients, of whom little can be said, never look good.  "good" is their word for one attack:
    other attacks may do better.

    Raises
    ------
    ArgumentError : the score has no interval
    """
    if score.high is None or not np.isfinite(score.high):
        raise ArgumentError(f"The score {score.name!r} has no interval, so that no band is known.")
    if score.high < 0.05:
        return "good"
    return "moderate" if score.high < 0.20 else "bad"


def _made(name: str, found: Estimate, chance: Chance | None, patient: NDArray[np.integer]) -> Score:
    nothing = float("nan")
    return Score(
        name=name,
        value=found.value,
        low=found.low,
        high=found.high,
        chance=chance.value if chance else nothing,
        chance_low=chance.low if chance else nothing,
        chance_high=chance.high if chance else nothing,
        n=len(patient),
        n_patients=len(np.unique(patient)),
    )


def _shares(name: str, hits: NDArray[np.floating], chance: Chance, truth: Truth) -> Score:
    return _made(name, estimates.share(hits, truth.patient), chance, truth.patient)


def _matching(finding: Matching, truth: Truth) -> list[Score]:
    n, m = truth.codes.n_records, finding.similarity.shape[1]
    if truth.match is None:
        raise ArgumentError("A matching is scored by the plaintext of each code, give Truth.match.")
    _check.shape((n, None), similarity=finding.similarity)
    _check.shape((n,), assigned=finding.assigned)
    match = _numbers(truth.match, m, "match", least=0)
    assigned = _numbers(finding.assigned, m, "assigned", least=-1)
    given = assigned >= 0
    if len(np.unique(assigned[given])) < given.sum():
        raise ArgumentError("Expected each plaintext to be assigned at most once.")
    if len(np.unique(match)) < n:
        raise ArgumentError("Expected each plaintext to be the match of at most one code.")

    def of(name: str, kind: NDArray[np.integer], clump: float = 1.0) -> Score:
        # Plaintexts of no code are of a kind of their own: nothing is known of them.
        of_plaintext = -1 - np.arange(m)
        of_plaintext[match] = kind
        said = np.where(given, of_plaintext[assigned], -1 - m)
        times = dict(zip(*np.unique(of_plaintext, return_counts=True), strict=True))
        expected = sum(int(times.get(one, 0)) for one in said) / m
        hits = (said == kind).astype(np.float64)
        return _shares(name, hits, estimates.random_hits(expected, n, clump=clump), truth)

    rank = ranks(finding.similarity)
    own = rank[np.arange(n), match]
    first, expected_first = first_ranked(finding.similarity, match)
    return [
        of("reid", np.arange(n)),
        of("reid_identical", truth.identical()),
        of("patient", truth.patient, estimates.clumping(truth.patient)),
        _shares("first_rank", first, estimates.random_hits(expected_first, n), truth),
        _made(
            "mean_rank",
            estimates.mean(own, truth.patient, (1.0, float(m))),
            _within(estimates.random_pairs(rank, truth.patient), 1.0, float(m)),
            truth.patient,
        ),
        _shares("coverage", given.astype(np.float64), Chance(value=1.0, low=0.0, high=1.0), truth),
    ]


def _substitute(finding: Substitute, truth: Truth) -> list[Score]:
    true = mean_code_rows(truth.codes)
    predicted = np.asarray(finding.means(truth.records), dtype=np.float32)
    _check.shape(true.shape, predicted=predicted)
    _check.finite(predicted=predicted)
    near = nearness(true, predicted)
    kind = truth.identical()
    distance = mmd2(true, predicted)
    return [
        _nearest("challenge2", near, kind, truth),
        _nearest("challenge2_reverse", near.T, kind, truth),
        _mse_ratio(-near, true, truth),
        _made("mmd", Estimate(value=distance, low=None, high=None), None, truth.patient),
    ]


def _attributes(finding: Attributes, truth: Truth, seed: int) -> list[Score]:
    if truth.attribute is None:
        raise ArgumentError("Attributes are scored by the true ones, give Truth.attribute.")
    _check.shape((truth.codes.n_records,), scores=finding.scores)
    rows = np.flatnonzero((truth.attribute >= 0) & ~np.isnan(finding.scores))
    positive, patient = truth.attribute[rows] == 1, truth.patient[rows]
    if positive.all() or not positive.any():
        raise ArgumentError(
            f"Expected both values of the attribute among the {len(rows)} codes that were scored; "
            "choose another attribute, or other patients whose attribute is known."
        )
    owner = np.unique(patient, return_inverse=True)[1]
    areas = patient_bootstrap(finding.scores[None, rows], positive, owner, seed=seed).pooled
    interval = areas.interval(0)
    found = Estimate(
        value=float(areas.value[0]),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
    )
    chance = estimates.random_area(np.bincount(owner[positive]), np.bincount(owner[~positive]))
    return [_made("auc", found, chance, patient)]


def _linked(finding: Linked, truth: Truth, seed: int) -> list[Score]:
    within = truth.other_patient is None
    mine = truth.patient
    theirs = mine if truth.other_patient is None else truth.other_patient
    _check.shape((len(mine), len(theirs)), similarity=finding.similarity)
    area, pairs = same_patient_area(finding.similarity, mine, theirs, within=within)
    if not pairs.any():
        raise ArgumentError("No patient has two codes, so that there is nothing to link.")
    similarity = np.where(np.isnan(finding.similarity), -np.inf, finding.similarity)
    nearest = similarity.argmax(axis=1)
    count = (mine[:, None] == theirs).sum(axis=1) - (1 if within else 0)
    known = np.flatnonzero(count > 0)
    hits = (theirs[nearest] == mine)[known].astype(np.float64)
    # All codes are dealt, those of patients with one code too: a code of theirs may be the nearest.
    dealt = estimates.random_owners(nearest, mine, theirs, within=within, seed=seed)
    scale = len(mine) / len(known)
    chance = Chance(
        value=float(dealt.value * scale),
        low=float(dealt.low * scale),
        high=min(1.0, float(dealt.high * scale)),
    )
    others = np.unique(np.concatenate([mine, theirs]), return_counts=True)[1]
    return [
        _made("auc", area, estimates.random_area(pairs[pairs > 0], others), mine),
        _made("precision_at_1", estimates.share(hits, mine[known]), chance, mine[known]),
    ]


def _maps(finding: Maps, truth: Truth) -> list[Score]:
    expected = np.asarray(finding.expected(truth.records), dtype=np.float32)
    _check.shape(expected.shape, maps=finding.maps)
    together = correlations(finding.maps, expected)
    kind, n = truth.identical(), len(expected)
    columns = assigned_columns(together)
    chance = estimates.random_hits(_expected(kind[columns], kind), n)
    found = estimates.mean(together.diagonal(), truth.patient, (-1.0, 1.0))
    return [
        _made(
            "map_correlation",
            found,
            _within(estimates.random_pairs(together, truth.patient), -1.0, 1.0),
            truth.patient,
        ),
        _nearest("linkage_first_rank", together, kind, truth),
        _shares("linkage_assigned", (kind[columns] == kind).astype(np.float64), chance, truth),
    ]


def _reconstruction(finding: Reconstruction, truth: Truth) -> list[Score]:
    _check.shape(truth.records.shape, records=finding.records)
    together = correlations(finding.records, truth.records)
    found = estimates.median(together.diagonal(), truth.patient)
    chance = estimates.random_median(together, truth.patient)
    predicted = finding.records.reshape(len(finding.records), -1)
    true = truth.records.reshape(len(truth.records), -1)
    return [
        _made("correlation", found, chance, truth.patient),
        _nearest("first_rank", together, truth.identical(), truth),
        _mse_ratio(-nearness(true, predicted), true, truth),
    ]


def _nearest(
    name: str, similarity: NDArray[np.floating], kind: NDArray[np.integer], truth: Truth
) -> Score:
    """Share of rows whose largest entry is on the diagonal, or of a plaintext identical to it."""
    hits, expected = first_ranked(similarity, np.arange(len(kind)), kind)
    return _shares(name, hits, estimates.random_hits(expected, len(kind)), truth)


def _mse_ratio(errors: NDArray[np.floating], true: NDArray[np.generic], truth: Truth) -> Score:
    """Squared error of predictions over that of predicting the mean; errors (n, n) of all pairs."""
    baseline = spread(true)
    if baseline == 0:
        raise ArgumentError("All truths are the same, so that there is nothing to predict.")
    ratios = errors / baseline
    # Random pairs have at least the error of the mean; the mean itself is what anybody can predict.
    paired = estimates.random_pairs(ratios, truth.patient)
    reach = paired.high - paired.value
    chance = Chance(value=1.0, low=max(0.0, 1.0 - reach), high=max(1.0, paired.high))
    found = estimates.mean(ratios.diagonal(), truth.patient, (0.0, np.inf))
    return _made("mse_ratio", found, chance, truth.patient)


def _within(chance: Chance, low: float, high: float) -> Chance:
    return Chance(value=chance.value, low=max(low, chance.low), high=min(high, chance.high))


def _expected(said: NDArray[np.integer], kind: NDArray[np.integer]) -> float:
    """Hits on average of a random pairing with plaintexts of these kinds."""
    times = np.bincount(kind)
    return float(times[said].sum()) / len(kind)


def _numbers(values: Integers, m: int, name: str, *, least: int) -> Integers:
    outside = (values < least) | (values >= m)
    if outside.any():
        raise ArgumentError(
            f"Expected {name} in [{least}, {m - 1}], numbers of plaintexts, got "
            f"{int(values[outside][0])}."
        )
    return values
