"""Guards of validity: checks without which the figures of an audit mean something else.

A guard is {"name", "status", "message"}; its status is "passed", "failed", "unknown" (it could not
be decided) or "accepted" (it failed, and the user accepted that by name).  A failed guard of
:data:`REFUSING` and :data:`ACCOUNTING` refuses the result: it is written and shown, and the exit
code is 1.  The others warn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide import _check
from confide.audits.blind import Blind, blind_test
from confide.cohort import Cohort
from confide.errors import TableError

Floats = NDArray[np.float64]
Guard = dict[str, str]

REFUSING = ("blind", "recipe")
"""Guards that refuse a result when they fail, unless accepted by name."""

ACCOUNTING = "accounting"
"""The guard that refuses a result when it fails, and cannot be accepted: a guarantee of
differential privacy that an attack refutes.  See :mod:`confide.audits.promise`."""

_VOIDING = {
    "membership": "The p-values need membership drawn at random; see the guards.",
    "blind": "Members and non-members differ without any model; see the guards.",
    "recipe": "The target and its references were not trained alike; see the guards.",
}

RECIPE_FIELDS = ("source", "task", "architecture", "optimizer", "epochs", "augmentation")
"""What target and references have to share; every other field that both state has to agree too."""

BLIND_BY_DESIGN: Guard = {
    "name": "blind",
    "status": "passed",
    "message": "Who is in which model was drawn at random, patient by patient, as part of this "
    "audit: members and non-members differ by nothing but chance.",
}
"""The blind guard of an audit that draws the membership itself."""

RECIPE_BY_DESIGN: Guard = {
    "name": "recipe",
    "status": "passed",
    "message": "All models were trained by one recipe, as part of this audit.",
}
"""The recipe guard of an audit that trains all models itself."""


def settle(guards: Iterable[Guard], accepted: Sequence[str] = ()) -> list[Guard]:
    """The same guards, where failed ones that are accepted by name have the status "accepted".

    Parameters
    ----------
    guards : any
    accepted : names out of :data:`REFUSING`

    Raises
    ------
    ArgumentError : a name that no guard has or that does not refuse anything
    """
    check_accepted(accepted)
    return [
        g | {"status": "accepted", "message": f"{g['message']} Accepted by name."}
        if g["status"] == "failed" and g["name"] in accepted
        else g
        for g in guards
    ]


def check_accepted(names: Iterable[str]) -> None:
    """Refuse (ArgumentError) to accept by name what is no guard of :data:`REFUSING`."""
    for name in names:
        _check.one_of(REFUSING, accept=name)


def refusal(guards: Iterable[Mapping[str, Any]]) -> str | None:
    """Why the guards refuse a result, with what to do about it, or None when they do not."""
    failed = {str(g.get("name")): g for g in guards if g.get("status") == "failed"}
    if ACCOUNTING in failed:
        return (
            f"The {ACCOUNTING} guard failed, which cannot be accepted: "
            f"{failed[ACCOUNTING].get('message', '')}"
        )
    names = [name for name in failed if name in REFUSING]
    if not names:
        return None
    accept = " ".join(f"--accept {name}" for name in names)
    return (
        f"The figures do not mean what they should: the {' and '.join(names)} guard failed. They "
        f"were written all the same; mend the cause, or accept it by name with {accept}."
    )


def voided(guards: Iterable[Mapping[str, Any]]) -> str | None:
    """Why no claim can be made, as text of a verdict, or None when the guards allow claims."""
    reasons = [
        _VOIDING[str(g["name"])]
        for g in guards
        if g.get("status") == "failed" and g.get("name") in _VOIDING
    ]
    return f"{' '.join(reasons)} No claim is made." if reasons else None


def recipe_guard(recipes: Mapping[str, Mapping[str, Any]]) -> Guard:
    """Were the target and its references trained alike?

    Parameters
    ----------
    recipes : name of a model -> what is stated of its training, plain JSON; the first is the
        target.  Fields are compared by value, nested ones as "optimizer.lr", numbers as numbers.
        A field that is missing or None is not stated.

    Returns
    -------
    guard "recipe": failed where two models state different values of any field, naming field,
    models and values; unknown where nothing differs and a field of :data:`RECIPE_FIELDS` is not
    stated by all, or where there is nothing to compare; else passed
    """
    flat = {name: _flat(recipe) for name, recipe in recipes.items()}
    if len(flat) < 2:
        text = "There are no two models whose recipes could be compared."
        return {"name": "recipe", "status": "unknown", "message": text}
    differing = []
    for field in dict.fromkeys(key for recipe in flat.values() for key in recipe):
        stated = {name: recipe[field] for name, recipe in flat.items() if field in recipe}
        (first, value), *rest = stated.items()
        for name, other in rest:
            if not _equal(value, other):
                differing.append(f"{field} is {value!r} in {first}, {other!r} in {name}")
                break
    if differing:
        text = (
            f"Models were not trained alike: {_some(differing)}. An attack would measure that "
            "difference beside membership."
        )
        return {"name": "recipe", "status": "failed", "message": text}
    silent = [
        f"{field} (not stated by {_some([n for n, r in flat.items() if not _states(r, field)])})"
        for field in RECIPE_FIELDS
        if not all(_states(recipe, field) for recipe in flat.values())
    ]
    if silent:
        text = f"Nothing stated differs, but not everything is stated: {_some(silent, 6)}."
        return {"name": "recipe", "status": "unknown", "message": text}
    text = f"{', '.join(list(flat)[:5])}{', ...' if len(flat) > 5 else ''} state the same recipe."
    return {"name": "recipe", "status": "passed", "message": text}


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def _states(flat: Mapping[str, Any], field: str) -> bool:
    return any(key == field or key.startswith(f"{field}.") for key in flat)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)  # 1 and 1.0 are equal


def _some(items: Sequence[str], most: int = 3) -> str:
    shown = "; ".join(items[:most])
    return f"{shown}; and {len(items) - most} more" if len(items) > most else shown


def blind_guard(
    features: NDArray[Any],
    member: NDArray[np.bool_],
    patient_index: NDArray[np.integer[Any]],
    seed: int = 0,
) -> Guard:
    """Can members be told from non-members without any model?

    If they can, an attack on a model may measure where the records come from instead of whether
    the model was trained on them (Das, Zhang & Tramer 2024, arXiv 2406.16201).  See
    :func:`confide.audits.blind.blind_test` for the test.

    Parameters
    ----------
    features : (n_records, n_features) numbers that describe inputs, labels and groups, never
        outputs of a model; NaN where unknown
    member : (n_records,) bool
    patient_index : (n_records,) the patient of each record, 0, 1, ...
    seed : of folds and trees

    Returns
    -------
    guard "blind": failed where an interval of the AUC lies above .5; unknown where there are too
    few patients to tell

    Raises
    ------
    ArgumentError : lengths that differ, infinite features, or a patient on both sides
    """
    found = blind_test(features, member, patient_index, seed=seed)
    if found is None:
        text = (
            "Too few patients on one side to test whether members can be told from non-members "
            "without the model."
        )
        return {"name": "blind", "status": "unknown", "message": text}
    worst = max(found, key=lambda one: one.auc.low)
    if worst.auc.low > 0.5:
        text = (
            f"Without any model, {_words(worst)} tells members from non-members: "
            f"{_figures(worst)}. They do not come from the same source, so attacks on a model "
            "measure the source and not its memory. Take non-members from a held-out part of the "
            "members' own source."
        )
        return {"name": "blind", "status": "failed", "message": text}
    text = (
        "Without any model, members could not be told from non-members: "
        f"{' and '.join(f'{_figures(one)} for {_words(one)}' for one in found)}. Smaller "
        "differences than these intervals cannot be excluded."
    )
    return {"name": "blind", "status": "passed", "message": text}


def _words(one: Blind) -> str:
    return {"logistic": "logistic regression", "boosting": "boosted trees"}[one.classifier]


def _figures(one: Blind) -> str:
    return f"AUC {one.auc.value:.3f} ({one.auc.low:.3f} to {one.auc.high:.3f})"


def refuse_both_sides(cohort: Cohort, member: NDArray[np.bool_]) -> None:
    """Refuse a patient some of whose records are members and some not.

    Parameters
    ----------
    cohort : all records
    member : (n_records,) bool; or any other mask that must not cut through a patient

    Raises
    ------
    TableError : names the first such patient and one record of each side
    """
    owner = cohort.patient_index
    n_in = np.bincount(owner, weights=member, minlength=cohort.n_patients)
    both = (n_in > 0) & (n_in < cohort.records_per_patient)
    if not both.any():
        return
    patient = int(np.argmax(both))
    row_in, row_out = (int(np.argmax((owner == patient) & side)) for side in (member, ~member))
    raise TableError(
        f"Patient {_plain(cohort.patients, patient)!r} is both a member and a non-member: record "
        f"{_plain(cohort.record, row_in)!r} (row {row_in}) is in the training data, record "
        f"{_plain(cohort.record, row_out)!r} (row {row_out}) is not ({int(both.sum()):,} such "
        "patients in all). Privacy is a matter of patients; leave their other records out."
    )


def refuse_shared_patients(cohort: Cohort, heldout: Cohort) -> None:
    """Refuse a patient with records in both cohorts: the audited one and the held-out one.

    Raises
    ------
    TableError : names the first such patient and one record of each cohort
    """
    # A set: NumPy compares ids that are objects one by one, all with all.
    known = set(heldout.patients.tolist())
    both = np.fromiter((one in known for one in cohort.patients.tolist()), bool, cohort.n_patients)
    if not both.any():
        return
    shared = both[cohort.patient_index]
    row = int(np.argmax(shared))
    other = int(np.argmax(heldout.patient == cohort.patient[row]))
    raise TableError(
        f"Patient {_plain(cohort.patient, row)!r} is both audited and held out: record "
        f"{_plain(cohort.record, row)!r} (row {row}) is audited, record "
        f"{_plain(heldout.record, other)!r} (row {other}) is held out "
        f"({len(np.unique(cohort.patient_index[shared])):,} such patients in all); split by "
        "patient."
    )


def _plain(ids: NDArray[Any], row: int) -> Any:
    return ids[row : row + 1].tolist()[0]  # an int or str, whose repr is short
