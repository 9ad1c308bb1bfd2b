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
    Links,
    assigned_columns,
    correlations,
    first_ranked,
    mean_code_rows,
    mmd2,
    nearness,
    ranks,
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
    match : (n_codes,) number of the attacker's plaintext that is this record, -1 where the attacker
        does not have it: such codes are not scored; None for attackers who have none of them
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


def _shares(name: str, hits: NDArray[np.floating], chance: Chance, patient: Integers) -> Score:
    return _made(name, estimates.share(hits, patient), chance, patient)


def _matching(finding: Matching, truth: Truth) -> list[Score]:
    m = finding.similarity.shape[1]
    _check.shape((truth.codes.n_records, None), similarity=finding.similarity)
    _check.shape((truth.codes.n_records,), assigned=finding.assigned)
    given = finding.assigned[finding.assigned >= 0]
    if len(np.unique(given)) < len(given):
        raise ArgumentError("Expected each plaintext to be assigned at most once.")
    if truth.match is None or not (truth.match >= 0).any():
        raise ArgumentError("A matching is scored by the plaintext of each code, give Truth.match.")
    rows = np.flatnonzero(truth.match >= 0)
    match, patient = _numbers(truth.match, m, "match")[rows], truth.patient[rows]
    assigned = _numbers(finding.assigned, m, "assigned")[rows]
    if len(np.unique(match)) < len(match):
        raise ArgumentError("Expected each plaintext to be the match of at most one code.")
    n = len(rows)

    def of(name: str, kind: NDArray[np.integer], clump: float = 1.0) -> Score:
        # Plaintexts of no code are of a kind of their own: nothing is known of them.
        kinds = np.unique(kind, return_inverse=True)[1]
        of_plaintext = len(rows) + np.arange(m)
        of_plaintext[match] = kinds
        said = of_plaintext[assigned[assigned >= 0]]
        expected = float(np.bincount(of_plaintext)[said].sum()) / m
        hits = np.zeros(n)
        hits[assigned >= 0] = said == kinds[assigned >= 0]
        return _shares(name, hits, estimates.random_hits(expected, n, clump=clump), patient)

    similarity = finding.similarity[rows]
    rank = ranks(similarity)
    first, expected_first = first_ranked(similarity, match)
    chance_rank = estimates.random_pairs(rank, patient)
    own = estimates.mean(rank[np.arange(n), match], patient, (1.0, float(m)))
    covered = (assigned >= 0).astype(np.float64)
    return [
        of("reid", np.arange(n)),
        of("reid_identical", truth.identical()[rows]),
        of("patient", patient, estimates.clumping(patient)),
        _shares("first_rank", first, estimates.random_hits(expected_first, n), patient),
        _made("mean_rank", own, _within(chance_rank, 1.0, float(m)), patient),
        _shares("coverage", covered, Chance(value=1.0, low=0.0, high=1.0), patient),
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
        _nearest("challenge2", near, kind, truth.patient),
        _nearest("challenge2_reverse", near.T, kind, truth.patient),
        _mse_ratio(-near, true, truth.patient),
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
    chance = estimates.random_area(finding.scores[rows], positive, patient, seed)
    return [_made("auc", found, chance, patient)]


def _linked(finding: Linked, truth: Truth, seed: int) -> list[Score]:
    mine, theirs = truth.patient, truth.other_patient
    _check.shape(
        (len(mine), len(mine if theirs is None else theirs)), similarity=finding.similarity
    )
    links = Links.of(finding.similarity, mine, theirs)
    first, second, n_patients = links.first, links.second, links.n_patients
    nearest = np.where(np.isnan(finding.similarity), -np.inf, finding.similarity).argmax(axis=1)
    least = 2 if theirs is None else 1
    known = np.flatnonzero(np.bincount(second, minlength=n_patients)[first] >= least)
    hits = (second[nearest] == first).astype(np.float64)[known]
    if theirs is None:
        table = links.ranks()
        area_chance = estimates.random_links(
            table + table.T, links.left[links.same], links.right[links.same], seed
        )
        chance = estimates.random_owners(nearest, first, seed)
    else:
        cells = first[links.left] * n_patients + second[links.right]
        square = (n_patients, n_patients)
        weights = links.ranks().ravel()
        rank = np.bincount(cells, weights=weights, minlength=n_patients**2).astype(np.float64)
        hit = np.bincount(first * n_patients + second[nearest], minlength=n_patients**2)
        counts = [np.bincount(who, minlength=n_patients) for who in (first, second)]
        area_chance, chance = estimates.random_identities(
            rank.reshape(square), hit.reshape(square), counts[0], counts[1], seed
        )
    return [
        _made("auc", links.area(), area_chance, mine),
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
    hits = (kind[columns] == kind).astype(np.float64)
    return [
        _made(
            "map_correlation",
            found,
            _within(estimates.random_pairs(together, truth.patient), -1.0, 1.0),
            truth.patient,
        ),
        _nearest("linkage_first_rank", together, kind, truth.patient),
        _shares("linkage_assigned", hits, chance, truth.patient),
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
        _nearest("first_rank", together, truth.identical(), truth.patient),
        _mse_ratio(-nearness(true, predicted), true, truth.patient),
    ]


def _nearest(
    name: str, similarity: NDArray[np.floating], kind: NDArray[np.integer], patient: Integers
) -> Score:
    """Share of rows whose largest entry is on the diagonal, or of a plaintext identical to it."""
    hits, expected = first_ranked(similarity, np.arange(len(kind)), kind)
    return _shares(name, hits, estimates.random_hits(expected, len(kind)), patient)


def _mse_ratio(errors: NDArray[np.floating], true: NDArray[np.generic], patient: Integers) -> Score:
    """Squared error of predictions over that of predicting the mean; errors (n, n) of all pairs."""
    baseline = spread(true)
    if baseline == 0:
        raise ArgumentError("All truths are the same, so that there is nothing to predict.")
    ratios = errors / baseline
    # Random pairs have at least the error of the mean; the mean itself is what anybody can predict.
    paired = estimates.random_pairs(ratios, patient)
    reach = paired.high - paired.value
    chance = Chance(value=1.0, low=max(0.0, 1.0 - reach), high=max(1.0, paired.high))
    found = estimates.mean(ratios.diagonal(), patient, (0.0, np.inf))
    return _made("mse_ratio", found, chance, patient)


def _within(chance: Chance, low: float, high: float) -> Chance:
    return Chance(value=chance.value, low=max(low, chance.low), high=min(high, chance.high))


def _expected(said: NDArray[np.integer], kind: NDArray[np.integer]) -> float:
    """Hits on average of a random pairing with plaintexts of these kinds."""
    times = np.bincount(kind)
    return float(times[said].sum()) / len(kind)


def _numbers(values: Integers, m: int, name: str) -> Integers:
    outside = (values < -1) | (values >= m)
    if outside.any():
        raise ArgumentError(
            f"Expected {name} in [-1, {m - 1}], numbers of plaintexts, got "
            f"{int(values[outside][0])}."
        )
    return values
