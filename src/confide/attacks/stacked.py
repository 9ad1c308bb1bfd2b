"""A stack of attacks: evidence of membership, weighted by models that play the target.

Shrinkage by difficulty, LiRA, RMIA and co-signals each see something that the others miss, and
which of them sees most depends on the cohort and on the number of references.  So reference models
play the target in turn, with the others as their references; their membership is known, and a
logistic regression on it weighs the evidence.  Stacked generalisation: Wolpert, Neural Networks 5
(1992).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from confide.attacks.base import Attack, Signals, check_membership, chunks
from confide.attacks.evidence import NAMES, Evidence, Part

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]
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
    """

    name: ClassVar[str] = "stacked"

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
        sample, held = _sample(references, membership)
        # In an order of their own, so that the folds do not depend on that of the references.
        order = np.argsort(np.nanmean(sample.reshape(n, -1), axis=1), kind="stable")
        weights = _learnt(sample[order], held[order])
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
        sample, held = _sample(signals, membership)
        weights, games = [], []
        for fold, rest in _folds(n_models, _FOLDS):
            weights.append(_learnt(sample[rest], held[rest]))
            games.append(Evidence(fold, rest, n_records, _equal(membership, rest)))
        scores = _play(signals, membership, games, weights)
        n_in = membership.sum(axis=0)
        scores[:, (n_in < 2) | (n_models - n_in < 2)] = np.nan
        return scores


@dataclass(frozen=True, kw_only=True, eq=False)
class _Weights:
    """Log-odds are (evidence - centre) / scale @ weight + intercept; arrays (len(NAMES),)."""

    centre: Floats
    scale: Floats
    weight: Floats
    intercept: float

    def log_odds(self, evidence: Floats) -> Floats:
        """(..., len(NAMES)) -> (...); higher = more like a member."""
        return ((evidence - self.centre) / self.scale) @ self.weight + self.intercept


def _learnt(signals: Floats, membership: Bools) -> _Weights:
    """Weights found by letting each of the models play the target, the others its references."""
    n_models, n_records = membership.shape
    evidence: list[Floats] = []
    truth: list[Bools] = []
    some = np.arange(n_records) % (1 + n_models * n_records // _TRAINING_ROWS) == 0
    for fold, rest in _folds(n_models, _LEARNING_FOLDS) if n_models > 2 else []:
        n_in = membership[rest].sum(axis=0)
        game = Evidence(fold, rest, n_records, np.minimum(n_in, len(rest) - n_in))
        rows, member = [], []
        for at, _, (values,) in _stream(signals, membership, [game]):
            usable = np.isfinite(values).all(axis=-1) & some[at]
            rows.append(values[usable])
            member.append(membership[fold, at][usable])
        evidence.append(np.concatenate(rows))
        truth.append(np.concatenate(member))
    both = [(e, t) for e, t in zip(evidence, truth, strict=True) if t.any() and not t.all()]
    k = len(NAMES)
    if not both:
        plain = np.array([float(name in _FIXED[0]) for name in NAMES])
        return _Weights(centre=np.zeros(k), scale=np.ones(k), weight=plain, intercept=0.0)
    return _picked([e for e, _ in both], [t for _, t in both])


def _picked(evidence: list[Floats], truth: list[Bools]) -> _Weights:
    """The best of the learnt and the fixed weights, judged on models that were not learnt from.

    Each fold of models that played the target is judged by the area under its ROC curve; the
    learnt weights are then those of all other folds.
    """
    everything, everyone = np.concatenate(evidence), np.concatenate(truth)
    learnt = _regression(everything, everyone)
    if _deviance(learnt, everything, everyone) < _EVIDENT:
        return _fixed(everything, _FIXED[0])
    stride = 1 + sum(map(len, truth)) // _JUDGED_ROWS
    judged = [(e[::stride], t[::stride]) for e, t in zip(evidence, truth, strict=True)]
    judged = [(e, t) for e, t in judged if t.any() and not t.all()]
    fixed = [_fixed(everything, names) for names in _FIXED]
    areas = [float(np.mean([_area(w, e, t) for e, t in judged])) if judged else 0.5 for w in fixed]
    held_out = []
    for i, (e, t) in enumerate(judged):
        others = [one for j, one in enumerate(judged) if j != i]
        if others:
            fitted = _regression(*(np.concatenate(x) for x in zip(*others, strict=True)))
            held_out.append(_area(fitted, e, t))
    if held_out and float(np.mean(held_out)) > max(areas):
        return learnt
    return fixed[int(np.argmax(areas))]


def _standard(evidence: Floats) -> tuple[Floats, Floats]:
    centre, spread = evidence.mean(axis=0), evidence.std(axis=0)
    return centre, np.where(spread > 1e-12 * (1.0 + np.abs(centre)), spread, np.inf)


def _fixed(evidence: Floats, names: tuple[str, ...]) -> _Weights:
    centre, scale = _standard(evidence)
    weight = np.array([float(name in names) for name in NAMES])
    return _Weights(centre=centre, scale=scale, weight=weight, intercept=0.0)


def _regression(evidence: Floats, member: Bools) -> _Weights:
    centre, scale = _standard(evidence)
    model = LogisticRegression(solver="newton-cholesky", tol=1e-8)
    model.fit((evidence - centre) / scale, member)
    return _Weights(
        centre=centre, scale=scale, weight=model.coef_[0], intercept=float(model.intercept_[0])
    )


def _deviance(weights: _Weights, evidence: Floats, member: Bools) -> float:
    """What the weights explain beyond the share of members."""
    odds = weights.log_odds(evidence)
    share = np.clip(member.mean(), 1e-12, 1 - 1e-12)
    alone = np.where(member, np.log(share), np.log1p(-share)).sum()
    return float(2.0 * (log_expit(np.where(member, odds, -odds)).sum() - alone))


def _area(weights: _Weights, evidence: Floats, member: Bools) -> float:
    return float(roc_auc_score(member, weights.log_odds(evidence)))


def _play(
    signals: Signals, membership: Bools, games: Sequence[Evidence], weights: Sequence[_Weights]
) -> Floats:
    """(n_models, n_records) scores of the targets of all games; NaN without a known label.

    Where a record has no reference of one kind there is no evidence: the target's median.
    """
    scores = np.full(membership.shape, np.nan)
    labelled = np.zeros(membership.shape[1], dtype=np.bool_)
    for at, part, evidence in _stream(signals, membership, games):
        labelled[at] = np.isfinite(part.signal).all(axis=0)
        for game, values, weight in zip(games, evidence, weights, strict=True):
            scores[game.targets, at] = weight.log_odds(values)
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


def _sample(signals: Signals, membership: Bools) -> tuple[Floats, Bools]:
    """Signals and membership of evenly spaced records, which the weights are learnt from."""
    n_records = signals.shape[1]
    width = int(np.prod(signals.shape, dtype=np.int64)) // n_records
    wanted = max(1, min(_TRAINING_RECORDS, _TRAINING_ELEMENTS // width))
    rows = np.arange(0, n_records, -(-n_records // wanted))
    pieces = []
    for at in chunks(signals):
        mine = rows[(rows >= at.start) & (rows < at.stop)] - at.start
        pieces.append(np.asarray(signals[:, at][:, mine], dtype=np.float64))
    return np.concatenate(pieces, axis=1), membership[:, rows]
