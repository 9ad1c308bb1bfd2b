"""Who carries a class: labels that belong to patients, and patients that dominate a class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from confide.cohort import Cohort

_FEWEST = 10  # patients with several records, for a statement on them
_NEARLY_ALL = 0.95
_BY_CHANCE = 0.8
_LARGE_SHARE = 0.05
_TIMES_FAIR = 3.0


def prevalence_warnings(cohort: Cohort) -> list[str]:
    """Sentences that say, with numbers, where records of a class are no independent cases.

    Said is, for each label, (1) that nearly all (95 %) patients with several records have one
    class in all of them, where fewer than 80 % would by chance: the label is a property of the
    patient; and (2) for the class most concerned, that one patient has at least 10 % of its
    records and three times the share of a patient on average.  Of the labels of a multilabel
    cohort only records with a known label count, and of (2) only positive ones.
    """
    if cohort.task != "multilabel":
        found = _of_label(cohort.label, cohort.patient_index, cohort.classes, "the label")
    else:
        found = [
            sentence
            for i, name in enumerate(cohort.classes)
            for sentence in _of_finding(cohort.label[:, i], cohort.patient_index, name)
        ]
    return found


def _of_finding(label: NDArray[np.float64], owner: NDArray[np.intp], name: str) -> list[str]:
    known = ~np.isnan(label)
    return _of_label(label[known].astype(np.int64), owner[known], (None, name), f"{name!r}")


def _of_label(
    label: NDArray[np.int64],
    owner: NDArray[np.intp],
    classes: tuple[str | None, ...],
    what: str,
) -> list[str]:
    """`classes` whose name is None are not looked at for patients that dominate."""
    if len(label) == 0:
        return []
    counts = np.zeros((int(owner.max()) + 1, len(classes)), dtype=np.int64)
    np.add.at(counts, (owner, label), 1)
    return [*_one_class(counts, what), *_dominated(counts, classes)]


def _one_class(counts: NDArray[np.int64], what: str) -> list[str]:
    n_records = counts.sum(axis=1)
    several = counts[n_records > 1]
    if len(several) < _FEWEST:
        return []
    share = counts.sum(axis=0) / n_records.sum()
    expected = float((share ** several.sum(axis=1)[:, None]).sum(axis=1).mean())
    alone = int((several.max(axis=1) == several.sum(axis=1)).sum())
    if alone < _NEARLY_ALL * len(several) or expected >= _BY_CHANCE:
        return []
    return [
        f"In {alone:,} of {len(several):,} patients with several records, {what} is the same in "
        f"all of them ({expected:.0%} would be by chance): it is a property of the patient, and "
        "records of one patient are no independent cases."
    ]


def _dominated(counts: NDArray[np.int64], classes: tuple[str | None, ...]) -> list[str]:
    total = counts.sum(axis=0)
    n_patients = (counts > 0).sum(axis=0)
    share = counts.max(axis=0) / np.maximum(total, 1)
    heavy = (share >= _LARGE_SHARE) & (share * n_patients >= _TIMES_FAIR)
    heavy &= np.array([name is not None for name in classes])
    if not heavy.any():
        return []
    worst = int(np.argmax(np.where(heavy, counts.max(axis=0), 0)))
    more = int(heavy.sum()) - 1
    also = f" So it is with {more:,} more classes." if more > 1 else ""
    also = " So it is with one more class." if more == 1 else also
    return [
        # No number that singles the patient out: the sentence stands in reports.
        f"One patient has at least {5 * int(20 * share[worst])}% of the records of class "
        f"{classes[worst]!r}: figures of this class rest on few people.{also}"
    ]
