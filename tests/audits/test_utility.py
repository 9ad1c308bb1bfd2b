"""Utility against scikit-learn, and the coverage of its intervals."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from confide.audits.utility import utility
from confide.cohort import Cohort
from confide.errors import SignalError


def heldout(seed, task, n=300, n_models=3, n_views=2):
    rng = np.random.default_rng(seed)
    n_classes = {"binary": 2, "multiclass": 4, "multilabel": 3}[task]
    patient = rng.integers(0, n // 2, n)
    if task == "multilabel":
        label = (rng.random((n, 3)) < 0.4).astype(float)
        truth = label.copy()
        label[rng.random((n, 3)) < 0.2] = np.nan
    else:
        label = rng.integers(0, n_classes, n)
        truth = (label[:, None] == np.arange(n_classes)).astype(float)
        truth = label[:, None].astype(float) if task == "binary" else truth
    logits = (
        rng.standard_normal((n_models, n, n_views, truth.shape[1])) + 1.5 * truth[:, None] - 0.5
    )
    cohort = Cohort(
        record=np.arange(n),
        patient=patient,
        label=label,
        task=task,
        classes=tuple("abcd"[:n_classes]),
        groups=pd.DataFrame({"site": np.array(["x", None], dtype=object)[patient % 2]}),
    )
    return logits, cohort


def test_binary_is_scikit_learns():
    logits, cohort = heldout(0, "binary")
    found = utility(logits, cohort)["overall"]
    z = logits.mean(axis=2)[..., 0]
    assert found["auroc"] == pytest.approx(np.mean([roc_auc_score(cohort.label, m) for m in z]))
    right = np.mean([accuracy_score(cohort.label, m > 0) for m in z])
    assert found["accuracy"] == pytest.approx(right)
    assert found["low"] < found["auroc"] < found["high"]
    assert found["n_patients"] == cohort.n_patients


def test_multiclass_is_scikit_learns():
    logits, cohort = heldout(1, "multiclass")
    found = utility(logits, cohort)["overall"]
    z = logits.mean(axis=2)
    p = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    areas = [roc_auc_score(cohort.label, m, multi_class="ovr", average="macro") for m in p]
    assert found["auroc"] == pytest.approx(np.mean(areas))
    right = np.mean([accuracy_score(cohort.label, m.argmax(1)) for m in p])
    assert found["accuracy"] == pytest.approx(right)


def test_multilabel_with_unknown_labels_is_scikit_learns():
    logits, cohort = heldout(2, "multilabel")
    found = utility(logits, cohort)["overall"]
    z, known = logits.mean(axis=2), ~np.isnan(cohort.label)
    areas = [
        np.mean([roc_auc_score(cohort.label[k, c], m[k, c]) for c, k in enumerate(known.T)])
        for m in z
    ]
    assert found["auroc"] == pytest.approx(np.mean(areas))
    right = np.mean([((m > 0) == (cohort.label == 1))[known].mean() for m in z])
    assert found["accuracy"] == pytest.approx(right)


def test_groups_are_of_patients_and_missing_is_one():
    logits, cohort = heldout(3, "binary")
    groups = utility(logits, cohort)["by_group"]["site"]
    assert set(groups) == {"x", "(missing)"}
    rows = cohort.patient_index
    table, _ = cohort.patient_groups()
    in_x = table["site"].eq("x").to_numpy()[rows]
    z = logits.mean(axis=2)[:, in_x, 0]
    expected = np.mean([roc_auc_score(cohort.label[in_x], m) for m in z])
    assert groups["x"]["auroc"] == pytest.approx(expected)
    assert groups["x"]["n_patients"] + groups["(missing)"]["n_patients"] == cohort.n_patients


def test_one_class_has_no_area():
    logits, cohort = heldout(4, "binary")
    rows = cohort.label == 1
    found = utility(logits[:, rows], cohort.select(rows))["overall"]
    assert found["auroc"] is found["low"] is found["high"] is None
    assert 0 < found["accuracy_low"] < found["accuracy"] < found["accuracy_high"] < 1


def test_intervals_cover_fresh_patients_and_models():
    values = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(80), rng.integers(1, 5, 80))
        label = rng.integers(0, 2, len(patient))
        noise = rng.standard_normal(80)[patient] + rng.standard_normal((6, len(patient)))
        strength = np.exp(0.2 * rng.standard_normal((6, 1)))
        logits = strength * (2 * label - 1) + noise
        cohort = Cohort(
            record=np.arange(len(patient)),
            patient=patient,
            label=label,
            task="binary",
            classes=("a", "b"),
        )
        found = utility(logits[:, :, None, None], cohort)["overall"]
        values.append([found[k] for k in ("auroc", "low", "high")])
        values[-1] += [found[k] for k in ("accuracy", "accuracy_low", "accuracy_high")]
    a = np.asarray(values)
    for j in (0, 3):
        truth = a[:, j].mean()
        inside = ((a[:, j + 1] <= truth) & (truth <= a[:, j + 2])).mean()
        assert inside >= 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 150)


@pytest.mark.parametrize("decimals", [0, 6])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_areas_of_every_value_with_ties_are_those_of_scikit_learn(task, decimals):
    logits, cohort = heldout(5, task)
    logits = np.round(logits, decimals)
    found = utility(logits, cohort)["by_group"]["site"]
    for value, rows in (
        ("x", cohort.groups["site"] == "x"),
        ("(missing)", cohort.groups["site"].isna()),
    ):
        part, label = logits[:, rows].mean(axis=2), cohort.label[rows]
        if task == "multiclass":
            # Rounded as in the module, so that ties are the same.
            part = part - part.max(axis=2, keepdims=True)
            part = part - np.log(np.exp(part).sum(axis=2, keepdims=True))
            label = label[:, None] == np.arange(4)
        label = label.reshape(len(label), -1)
        areas = [
            roc_auc_score(label[known, k], model[known, k])
            for model in part
            for k, known in enumerate((~np.isnan(label.astype(float))).T)
        ]
        assert found[value]["auroc"] == pytest.approx(np.mean(areas), abs=1e-12)


def test_a_logit_that_is_not_finite_is_refused():
    logits, cohort = heldout(0, "binary")
    logits[1, 4] = np.nan
    with pytest.raises(SignalError, match=r"model 1 .* not finite"):
        utility(logits, cohort)
