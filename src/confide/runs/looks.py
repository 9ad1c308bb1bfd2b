"""Train until it is enough: look at what the models say at planned numbers of models, then stop.

Membership is drawn in balanced blocks of 16 models, so that any number of finished blocks is an
audit by itself.  The looks are at 16, 32, 64, ... models; after each a rule says whether to stop.

**What a look costs.**  The list of patients at look j is made at fdr / K, K being the number of
planned looks.  Let F_j be the share of false names on the list that look j would give (0 for an
empty list).  At a fixed number of models E[F_j] <= fdr / K.  The list that is reported is that of
the look at which the run stopped, and whatever made it stop, its share of false names is one of
F_1, ..., F_K and so at most their sum: its expectation is at most K fdr / K = fdr.  Nothing is
assumed about the rule or about how the looks depend on each other; the price is power.  The
expectation at a look is Benjamini and Hochberg's, with what that assumes about patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from confide import masks
from confide.attacks.base import chunks
from confide.audits.patients import PatientRisk, check_fdr, patient_risk
from confide.audits.shrinkage import shrunken
from confide.audits.tail import tail
from confide.cohort import Cohort
from confide.errors import ArgumentError, FolderError
from confide.runs.canaries import without_canaries
from confide.runs.stored import StoredSignals
from confide.signals import scalar
from confide.stores import AuditFolder

Floats = NDArray[np.float64]
BLOCK = 16
"""Models per balanced block, and at the first look."""
_SAME_LIST = 0.95
_TO_SE = -2.0 * float(ndtri(0.025))
_FROM_TAIL = np.array([0.8])  # any threshold: only the risk of patients is read


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the first `n_models` models say.

    Attributes
    ----------
    n_models : finished models
    at_risk : (n_patients,) bool, the list at this look's share of the false discovery rate
    se : root mean square over patients of the posterior standard error of their risk, on the scale
        of areas; NaN where no patient has one, or the rule does not read it
    """

    n_models: int
    at_risk: NDArray[np.bool_]
    se: float


class Rule(Protocol):
    """When it is enough; `reads_se` says whether it reads the `se` of looks."""

    @property
    def reads_se(self) -> bool: ...

    @property
    def text(self) -> str:
        """The rule as it stands in a configuration."""

    def enough(self, looks: Sequence[Look]) -> str | None:
        """Why the run can stop after the last of these looks; None if it goes on."""


@dataclass(frozen=True, kw_only=True)
class Stable:
    """Stop when the list of patients at risk is the same as at the look before, nearly.

    At least two looks, and the Jaccard index of the two lists (patients on both over patients on
    either) is at least 0.95.  Two empty lists are not enough: with few models a list is empty
    because nobody could be listed yet, so a run that lists nobody uses all its models.  A list
    that stays the same is not thereby complete; more models may still add to it.
    """

    reads_se: ClassVar[bool] = False

    @property
    def text(self) -> str:
        """The rule as it stands in a configuration."""
        return "stable"

    def enough(self, looks: Sequence[Look]) -> str | None:
        """See :class:`Rule`."""
        if len(looks) < 2:
            return None
        before, now = looks[-2:]
        either = int((before.at_risk | now.at_risk).sum())
        both = int((before.at_risk & now.at_risk).sum())
        if not either or both < _SAME_LIST * either:
            return None
        return (
            f"the list of patients at risk is stable: {int(before.at_risk.sum()):,} at "
            f"{before.n_models:,} models, {int(now.at_risk.sum()):,} at {now.n_models:,}, "
            f"{both:,} of them the same"
        )


@dataclass(frozen=True, kw_only=True)
class StandardError:
    """Stop when the risk of patients is known well enough.

    The root mean square over patients of the posterior standard error of their risk is at most
    `at_most`.  It is the average over the cohort; a patient with a rare risk may be known worse.

    Parameters
    ----------
    at_most : on the scale of areas, strictly between 0 and 0.5
    """

    at_most: float
    reads_se: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 < self.at_most < 0.5:
            raise ArgumentError(
                f"Expected at_most={self.at_most!r}, a standard error of an area, strictly "
                "between 0 and 0.5."
            )

    @property
    def text(self) -> str:
        """The rule as it stands in a configuration."""
        return f"se={self.at_most:g}"

    def enough(self, looks: Sequence[Look]) -> str | None:
        """See :class:`Rule`."""
        se = looks[-1].se
        if not se <= self.at_most:  # also NaN
            return None
        return f"the standard error of a patient's risk is {se:.2g}, at most {self.at_most:g}"


def named(text: str) -> Rule:
    """The rule of a configuration's `until`: ``stable`` or ``se=0.05``.

    >>> named("se=0.05")
    StandardError(at_most=0.05)
    """
    if text == "stable":
        return Stable()
    try:
        if text.startswith("se="):
            return StandardError(at_most=float(text.removeprefix("se=")))
    except ValueError:
        pass  # no number, or out of its domain
    raise ArgumentError(
        f"Unknown until={text!r}; expected 'stable', or 'se=' and a standard error strictly "
        "between 0 and 0.5, such as 'se=0.05'."
    )


def planned(n_models: int) -> tuple[int, ...]:
    """Numbers of models at which a run of at most `n_models` is looked at.

    >>> planned(96)
    (16, 32, 64, 96)
    """
    if n_models < BLOCK or n_models % BLOCK:
        below = n_models // BLOCK * BLOCK
        near = f"{below} or {below + BLOCK}" if below else f"{BLOCK}"
        raise ArgumentError(
            f"With until, n_models={n_models} must be a multiple of {BLOCK}; use {near}."
        )
    looks = []
    n = BLOCK
    while n < n_models:
        looks.append(n)
        n *= 2
    return (*looks, n_models)


def take(
    rule: Rule,
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    *,
    fdr: float,
    seed: int = 0,
) -> Look:
    """Look at the models that are finished, for what `rule` reads.

    Parameters
    ----------
    rule : what stops the run
    signal : (n_models, n_records) one number a record, NaN for a record without a known label
    membership : (n_models, n_patients) bool, drawn in blocks of 16
    cohort : whose records they are
    fdr : of this look's list: the false discovery rate over the number of planned looks
    seed : deals patients into folds, see :func:`confide.audits.shrinkage.shrunken`
    """
    block = masks.block_of(len(signal), BLOCK)
    _, risk = patient_risk(signal, membership, cohort, fdr=fdr, block=block)
    se = _posterior_se(signal, membership, cohort, risk, seed) if rule.reads_se else float("nan")
    return Look(n_models=len(signal), at_risk=risk.at_risk, se=se)


def _posterior_se(
    signal: Floats,
    membership: NDArray[np.bool_],
    cohort: Cohort,
    risk: PatientRisk,
    seed: int,
) -> float:
    near = shrunken(signal, membership, cohort, risk, seed=seed)
    width = near.high - near.low
    without = np.isnan(width) & ~np.isnan(risk.joint)
    if without.any():
        other = tail(risk, _FROM_TAIL)
        width = np.where(without, other.risk_high - other.risk_low, width)
    known = width[~np.isnan(width)]
    return float(np.sqrt(np.mean((known / _TO_SE) ** 2))) if len(known) else float("nan")


@dataclass(frozen=True, kw_only=True)
class Until:
    """How far a run with looks came, as its manifest has it under ``until``.

    Attributes
    ----------
    rule : text of the rule
    looks : planned numbers of models
    fdr : of the list over all looks, as the run began
    stopped_at : the number of models at which it stopped; None while it goes on
    why : the reason, None while it goes on
    """

    rule: str
    looks: tuple[int, ...]
    fdr: float
    stopped_at: int | None = None
    why: str | None = None

    def __post_init__(self) -> None:
        check_fdr(self.fdr)
        named(self.rule)
        if not self.looks or self.looks != planned(self.looks[-1]):
            raise ArgumentError(f"The planned looks {list(self.looks)!r:.80} are none.")
        if self.stopped_at is not None and self.stopped_at not in self.looks:
            raise ArgumentError(f"stopped_at={self.stopped_at!r:.20} is not a planned look.")

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> Until | None:
        """What a manifest says; None for a run of a fixed number of models.

        Raises
        ------
        FolderError : it is damaged
        """
        stored = manifest.get("until")
        if stored is None:
            return None
        try:
            return cls(**stored | {"looks": tuple(stored["looks"])})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FolderError(
                f"The manifest's `until` is damaged ({error}); restore it from a copy, or use "
                "another --out."
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for the manifest and the summary."""
        return asdict(self) | {"looks": list(self.looks)}

    @property
    def n_due(self) -> int:
        """Models that a finished folder holds; those beyond are pending and not missing."""
        return self.stopped_at or self.looks[-1]

    def warnings(self) -> list[str]:
        """What a reader of the result must know."""
        if self.stopped_at is None:
            return [
                f"The run is not finished (until {self.rule}). Its list of patients is not one of "
                "the planned looks; run the same command again to go on."
            ]
        return [
            f"The run stopped after {self.stopped_at:,} of at most {self.looks[-1]:,} models "
            f"(until {self.rule}): {self.why}. The list of patients pays for all "
            f"{len(self.looks)} planned looks. The intervals of attacks, groups and tails and the "
            "bounds of epsilon are those of a fixed number of models; they are not corrected for "
            "the choice of when to stop."
        ]


def train_until(
    folder: AuditFolder,
    cohort: Cohort,
    canary: NDArray[np.bool_] | None,
    train: Callable[[int, int], None],
) -> None:
    """Train from look to look until it is enough; say so in the manifest.

    Parameters
    ----------
    folder : open for writing, with ``until`` in its manifest
    cohort, canary : the trained records, and which of them were planted; a look leaves those out
    train : called with (first, last): trains the models first to last - 1 that are not finished

    Notes
    -----
    A resumed run takes the earlier looks again, from the stored signals, so that a kill between
    two looks changes nothing.
    """
    until = Until.of(folder.manifest)
    if until is None or until.stopped_at is not None:
        return
    rule, first = named(until.rule), 0
    found: list[Look] = []
    for n_models in until.looks:
        train(first, n_models)
        first = n_models
        signal, held, patients = _stored(folder, n_models, cohort, canary)
        seed = int(folder.manifest["design"]["seed"])
        share = until.fdr / len(until.looks)
        found.append(take(rule, signal, held, patients, fdr=share, seed=seed))
        why = rule.enough(found)
        if n_models == until.looks[-1] and why is None:
            why = "it has trained all its models, and what it waited for did not come"
        if why is not None:
            folder.manifest["until"] = until.to_json() | {"stopped_at": n_models, "why": why}
            folder.save()
            return


def _stored(
    folder: AuditFolder, n_models: int, cohort: Cohort, canary: NDArray[np.bool_] | None
) -> tuple[Floats, NDArray[np.bool_], Cohort]:
    """One number a record of the first models, their masks, and the records: without canaries."""
    done = np.arange(len(folder.manifest["models"])) < n_models
    stored = StoredSignals(folder.array("logits"), done, cohort.label, cohort.task)
    planted = np.zeros(cohort.n_records, dtype=bool) if canary is None else canary
    membership = folder.array("membership")[:n_models]
    real, held, patients = without_canaries(stored, membership, cohort, planted)
    signal = np.empty((n_models, patients.n_records))
    for part in chunks(real):
        signal[:, part] = scalar(real[:, part])
    return signal, held, patients
