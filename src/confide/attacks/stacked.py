"""A stack of attacks: evidence of membership, weighted by models that play the target.

Shrinkage by difficulty, LiRA, RMIA and co-signals each see something that the others miss, and
which of them sees most depends on the cohort and on the number of references.  So reference models
play the target in turn, with the others as their references; their membership is known, and a
logistic regression on it weighs the evidence.  Stacked generalisation: Wolpert, Neural Networks 5
(1992).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from confide.attacks.base import Attack, Signals, check_membership, chunks
from confide.attacks.evidence import NAMES, Evidence, Part
from confide.errors import ArgumentError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]
_Cases = tuple[Floats, Bools]
"""Evidence and 1 (n, len(NAMES) + 1) and membership (n,) of records; sums of both of patients."""
_FOLDS = 8
_LEARNING_FOLDS = 5
_ALONE = 8
"""Up to this many models each is left out alone, beyond it with its fold."""
_FIXED = (("shrunken", "rmia"), ("rmia",), ("lira",))
"""What the learnt weights have to beat: plain sums of evidence.

Noise that is learnt would do worse than chance: with balanced masks, what the other models held
tells a little of what the target did not.
"""
_EVIDENT = 40.0
"""Deviance that a regression has to explain before anything but the plain sum is considered: below
it even the choice would be one of noise."""
_JUDGED_ROWS = 100_000
_TRAINING_RECORDS = 20_000
_TRAINING_ELEMENTS = 8_000_000
_TRAINING_ROWS = 400_000


class Stacked(Attack):
    """Weighted evidence; the weights are learnt from reference models that play the target.

    The score is the log-odds of membership that a logistic regression gives to: a likelihood ratio
    with shifts and variances shrunken to curves of difficulty, RMIA's log ratio, LiRA, what other
    records foretell of the target's signal, and the signal's place among the references'.  It
    reads the other records of the target, and takes about half of the audited records for members
    where it learns what to expect of them.  The population is not used.

    With up to 8 models each target is left out alone; with more, targets are left out in 8 folds,
    so that each has seven eighths of the models as references.  The learnt weights are used where
    they do better than RMIA, LiRA and the plain sum of the shrunken ratio and RMIA, by the area
    over records of models that were not learnt from; else the best of those is.

    Parameters
    ----------
    patients : (n_records,) the patient of each record.  Then the sum of a patient's scores is what
        is learnt and judged, over patients in place of records; scores of single records may
        be the worse for it.  None: each record stands alone.
    """

    name: ClassVar[str] = "stacked"

    def __init__(self, patients: NDArray[Any] | None = None) -> None:
        self._patients = None if patients is None else np.asarray(patients)

    def score(
        self,
        target: Floats,
        references: Floats,
        membership: Bools,
        population: tuple[Floats, Floats] | None = None,
    ) -> Floats:
        """See :meth:`Attack.score`."""
        scores: Floats = self.score_all(target[None], references, membership)[0]
        return scores

    def score_all(self, targets: Floats, references: Floats, membership: Bools) -> Floats:
        """Score several targets against the same references, fitted once.

        Parameters
        ----------
        targets : (n_targets, n_records[, n_views[, n_labels]])
        references, membership : see :meth:`Attack.score`

        Returns
        -------
        (n_targets, n_records)
        """
        check_membership(references, membership)
        n_targets, n = len(targets), len(references)
        owner = self._owners(membership.shape[1])
        sample, held, owner = _sample(references, membership, owner)
        # In an order of their own, so that the folds do not depend on that of the references.
        order = np.argsort(np.nanmean(sample.reshape(n, -1), axis=1), kind="stable")
        weights = _learnt(sample[order], held[order], owner)
        # The membership of targets is not known; no one reads these rows.
        held = np.concatenate([np.zeros((n_targets, membership.shape[1]), np.bool_), membership])
        game = Evidence(np.arange(n_targets), np.arange(n) + n_targets, held.shape[1])
        return _play(np.concatenate([targets, references]), held, [game], [weights])[:n_targets]

    def leave_one_out(
        self,
        signals: Signals,
        membership: Bools,
        population: Floats | None = None,
    ) -> Floats:
        """See :meth:`Attack.leave_one_out`; folds of targets in place of single ones."""
        check_membership(signals, membership)
        n_models, n_records = membership.shape
        sample, held, owner = _sample(signals, membership, self._owners(n_records))
        weights, games = [], []
        for fold, rest in _folds(n_models, _FOLDS):
            weights.append(_learnt(sample[rest], held[rest], owner))
            games.append(Evidence(fold, rest, n_records, _equal(membership, rest)))
        scores = _play(signals, membership, games, weights)
        n_in = membership.sum(axis=0)
        scores[:, (n_in < 2) | (n_models - n_in < 2)] = np.nan
        return scores

    def _owners(self, n_records: int) -> Indices:
        """(n_records,) number of the patient of each record, or of the record."""
        if self._patients is None:
            return np.arange(n_records)
        if self._patients.shape != (n_records,):
            raise ArgumentError(
                f"patients has shape {self._patients.shape}, not ({n_records},): give the patient "
                "of each record that is scored."
            )
        return np.unique(self._patients, return_inverse=True)[1]


def _learnt(signals: Floats, membership: Bools, owner: Indices) -> Floats:
    """Weights found by letting each of the models play the target, the others its references.

    (len(NAMES) + 1,), the last of the constant 1: a record that tells nothing then adds nothing to
    the sum of its patient.
    """
    n_models, n_records = membership.shape
    records: list[_Cases] = []
    patients: list[_Cases] = []
    some = owner % (1 + n_models * n_records // _TRAINING_ROWS) == 0
    for fold, rest in _folds(n_models, _LEARNING_FOLDS) if n_models > 2 else []:
        n_in = membership[rest].sum(axis=0)
        game = Evidence(fold, rest, n_records, np.minimum(n_in, len(rest) - n_in))
        parts = [v[:, some[at]] for at, _, (v,) in _stream(signals, membership, [game])]
        evidence, member = _with_one(np.concatenate(parts, axis=1)), membership[np.ix_(fold, some)]
        usable = np.asarray(np.isfinite(evidence).all(axis=-1))
        if member[usable].any() and not member[usable].all():
            records.append((evidence[usable], member[usable]))
            patients.append(_summed(evidence, usable, member, owner[some]))
    if not records:
        return _sum_of(_FIXED[0])
    return _picked([records, patients] if len(np.unique(owner)) < n_records else [records])


def _with_one(evidence: Floats) -> Floats:
    return np.concatenate([evidence, np.ones((*evidence.shape[:-1], 1))], axis=-1)


def _summed(evidence: Floats, usable: Bools, member: Bools, owner: Indices) -> _Cases:
    """Evidence of owners, the sum of their usable records', and who of them is a member.

    (n_targets, n_records, k), (n_targets, n_records) twice, (n_records,).
    """
    order = np.argsort(owner, kind="stable")
    starts = np.flatnonzero(np.diff(owner[order], prepend=-1))
    known = np.logical_or.reduceat(usable[:, order], starts, axis=1)
    used = np.where(usable[..., None], evidence, 0.0)[:, order]
    sums = np.add.reduceat(used, starts, axis=1)
    return sums[known], member[:, order[starts]][known]


def _picked(ways: list[list[_Cases]]) -> Floats:
    """The best of the learnt and the fixed weights, judged on models that were not learnt from.

    Weights are learnt from each of the ways of looking at the folds of models that played the
    target, and judged by the last: by the area under the ROC curve in each fold, learnt from all
    others.
    """
    learnt: list[tuple[float, Floats]] = []
    stride = 1 + sum(len(truth) for _, truth in ways[0]) // _JUDGED_ROWS
    judged = [(e[::stride], t[::stride]) for e, t in ways[-1]]
    usable = [i for i, (_, t) in enumerate(judged) if t.any() and not t.all()]
    for way in ways:
        weights, deviance = _regression(*_joined(way))
        if deviance >= _EVIDENT and len(usable) > 1:
            thinned = [(e[::stride], t[::stride]) for e, t in way]
            others = [_joined(thinned[:i] + thinned[i + 1 :]) for i in usable]
            fitted = [_regression(*other)[0] for other in others]
            learnt.append((_area(fitted, [judged[i] for i in usable]), weights))
    spread = _spread(_joined(ways[0])[0])
    fixed = [_sum_of(names) / spread for names in _FIXED]
    if not learnt:
        return fixed[0]
    plain = [(_area([w] * len(usable), [judged[i] for i in usable]), w) for w in fixed]
    return max(plain + learnt, key=lambda one: one[0])[1]


def _joined(cases: list[_Cases]) -> _Cases:
    return np.concatenate([e for e, _ in cases]), np.concatenate([t for _, t in cases])


def _sum_of(names: tuple[str, ...]) -> Floats:
    return np.array([float(name in names) for name in (*NAMES, "one")])


def _spread(evidence: Floats) -> Floats:
    """Standard deviations; infinite for evidence that is always the same."""
    spread = evidence.std(axis=0)
    return np.where(spread > 1e-12 * (1.0 + np.abs(evidence).max(axis=0)), spread, np.inf)


def _regression(evidence: Floats, member: Bools) -> tuple[Floats, float]:
    """Weights, and the deviance that they explain beyond the share of members."""
    centre, spread = evidence.mean(axis=0), _spread(evidence)
    model = LogisticRegression(solver="newton-cholesky", tol=1e-8)
    model.fit((evidence - centre) / spread, member)
    weights: Floats = model.coef_[0] / spread
    intercept = float(model.intercept_[0] - centre @ weights)
    odds = evidence @ weights + intercept
    share = np.clip(member.mean(), 1e-12, 1 - 1e-12)
    alone = np.where(member, np.log(share), np.log1p(-share)).sum()
    deviance = float(2.0 * (log_expit(np.where(member, odds, -odds)).sum() - alone))
    if not np.isfinite(spread[-1]):  # one record each: the constant is the intercept
        weights[-1] = intercept
    return weights, deviance


def _area(weights: Sequence[Floats], cases: Sequence[_Cases]) -> float:
    """Mean area under the ROC curve of some weights, each with its own cases."""
    return float(
        np.mean([roc_auc_score(t, e @ w) for w, (e, t) in zip(weights, cases, strict=True)])
    )


def _play(
    signals: Signals, membership: Bools, games: Sequence[Evidence], weights: Sequence[Floats]
) -> Floats:
    """(n_models, n_records) scores of the targets of all games; NaN without a known label.

    Where a record has no reference of one kind there is no evidence: the target's median.
    """
    scores = np.full(membership.shape, np.nan)
    labelled = np.zeros(membership.shape[1], dtype=np.bool_)
    for at, part, evidence in _stream(signals, membership, games):
        labelled[at] = np.isfinite(part.signal).all(axis=0)
        for game, values, weight in zip(games, evidence, weights, strict=True):
            scores[game.targets, at] = _with_one(values) @ weight
    for game in games:
        for t in game.targets:
            known = np.isfinite(scores[t])
            middle = np.median(scores[t][known]) if known.any() else 0.0
            scores[t] = np.where(labelled & ~known, middle, scores[t])
    return scores


def _stream(
    signals: Signals, membership: Bools, games: Sequence[Evidence]
) -> Iterator[tuple[slice, Part, list[Floats]]]:
    """Evidence of all games, some records at a time; three passes over the signals."""
    for at in chunks(signals):
        part = Part(signals[:, at], membership[:, at])
        for game in games:
            game.measure(part, at)
    for at in chunks(signals):
        part = Part(signals[:, at], membership[:, at])
        for game in games:
            game.relate(part, at)
    for at in chunks(signals):
        part = Part(signals[:, at], membership[:, at])
        yield at, part, [game.of(part, at) for game in games]


def _folds(n_models: int, n_folds: int) -> list[tuple[Indices, Indices]]:
    """(targets, references) of each fold."""
    everyone = np.arange(n_models)
    n_folds = n_models if n_models <= _ALONE else n_folds
    return [
        (fold, np.setdiff1d(everyone, fold))
        for fold in (everyone[k::n_folds] for k in range(n_folds))
    ]


def _equal(membership: Bools, rest: Indices) -> Indices:
    """How many references of either kind a record has, whatever the left-out models held.

    (n_models, n_records) -> (n_records,).  Where half of all models hold a record, the smaller of
    the two numbers that remain does not tell on which side models are missing.  Elsewhere it would,
    and the number is what remains at least.
    """
    n_models = len(membership)
    n_in, left_in = membership.sum(axis=0), membership[rest].sum(axis=0)
    left = np.minimum(left_in, len(rest) - left_in)
    smaller = np.minimum(n_in, n_models - n_in)
    least = np.maximum(smaller - (n_models - len(rest)), 1)
    number: Indices = np.where(2 * n_in == n_models, left, np.minimum(left, least))
    return number


def _sample(signals: Signals, membership: Bools, owner: Indices) -> tuple[Floats, Bools, Indices]:
    """Signals, membership and owners of evenly spaced owners, which the weights are learnt from."""
    n_records = signals.shape[1]
    width = int(np.prod(signals.shape, dtype=np.int64)) // n_records
    wanted = max(1, min(_TRAINING_RECORDS, _TRAINING_ELEMENTS // width))
    rows = np.flatnonzero(owner % -(-n_records // wanted) == 0)
    pieces = []
    for at in chunks(signals):
        mine = rows[(rows >= at.start) & (rows < at.stop)] - at.start
        pieces.append(np.asarray(signals[:, at][:, mine], dtype=np.float64))
    return np.concatenate(pieces, axis=1), membership[:, rows], owner[rows]
