"""One released model as target: against a slow oracle, nulls, traps of references, and tables."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from confide import masks
from confide.attacks import OfflineLiRA, OfflineRMIA
from confide.audits.drawn import drawn, drawn_alike
from confide.audits.released import audit_released, by_patient, tuned_a
from confide.cohort import Cohort
from confide.errors import ArgumentError


def study(seed=0, n_references=3, design="random", leak=0.0, n_patients=120, offset=1.0):
    """Signals of a target and references that share difficulty, with one offset a model."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    n = len(patient)
    held = np.zeros((n_references + 1, n_patients), dtype=bool)
    held[0] = rng.permutation(n_patients) < n_patients // 2
    if design == "balanced":
        held = masks.balanced(n_references + 1, n_patients, seed=seed + 10**6)
    elif design == "random":
        held[1:] = rng.random((n_references, n_patients)) < 0.5
    cohort = Cohort(
        record=np.arange(n),
        patient=patient,
        label=rng.integers(0, 2, n),
        task="binary",
        classes=("0", "1"),
    )
    signals = 1.5 * rng.normal(size=n) + rng.normal(size=(n_references + 1, n))
    signals += offset * rng.normal(size=(n_references + 1, 1)) + leak * held[:, patient]
    return signals, held, cohort


def test_areas_are_those_of_the_scores():
    signals, held, cohort = study(leak=1.0, design="out")
    found = audit_released(signals, held, cohort)
    member = held[0][cohort.patient_index]
    for name in ("loss", "lira_offline", "rmia_offline"):
        score = found.records[f"score_{name}"]
        auc = found.summary["attacks"][name]["auc"]
        assert auc == pytest.approx(roc_auc_score(member, score))
        people = found.summary["attacks"][name]["by_patient"]["auc"]
        assert people == pytest.approx(roc_auc_score(held[0], found.patients[f"score_{name}"]))
    np.testing.assert_array_equal(found.records["member"], member)
    np.testing.assert_array_equal(found.patients["member"], held[0])


def test_references_that_held_nobody_give_the_attacks_themselves():
    signals, held, cohort = study(leak=1.0, design="out", n_references=4)
    found = audit_released(signals, held, cohort)
    without = np.zeros((4, cohort.n_records), dtype=bool)
    for attack in (OfflineLiRA(), OfflineRMIA(a=0.3)):
        expected = attack.score(signals[0], signals[1:], without)
        np.testing.assert_allclose(found.records[f"score_{attack.name}"], expected)


def test_a_target_alone_meets_the_loss_threshold_only():
    signals, held, cohort = study(leak=2.0, n_references=0)
    found = audit_released(signals, held, cohort)
    assert list(found.summary["attacks"]) == ["loss"]
    assert found.summary["verdict"]["status"] == "detectable"
    assert any("No reference" in line for line in found.summary["warnings"])


def test_a_leak_is_found_and_references_help():
    signals, held, cohort = study(leak=1.0, n_references=6, n_patients=300)
    attacks = audit_released(signals, held, cohort).summary["attacks"]
    assert attacks["lira_offline"]["auc_low"] > 0.6
    assert attacks["lira_offline"]["auc"] > attacks["loss"]["auc"]
    people = attacks["lira_offline"]["by_patient"]["auc"]
    assert people > attacks["lira_offline"]["auc"]


def test_enough_references_of_both_kinds_allow_the_online_attacks():
    signals, held, cohort = study(leak=1.0, n_references=15, design="balanced")
    found = audit_released(signals, held, cohort)
    assert {"lira", "rmia"} <= set(found.summary["attacks"])
    assert found.summary["attacks"]["lira"]["auc"] > 0.6


@pytest.mark.parametrize(
    ("design", "n_references"),
    [
        pytest.param("balanced", 7, marks=pytest.mark.slow),
        pytest.param("random", 3, marks=pytest.mark.slow),
        ("out", 1),
    ],
)
def test_without_a_leak_the_areas_are_a_half_and_the_intervals_hold_it(design, n_references):
    areas, inside = {}, {}
    for seed in range(12):
        signals, held, cohort = study(seed, n_references, design, n_patients=40)
        for name, one in (
            audit_released(signals, held, cohort, seed=seed).summary["attacks"].items()
        ):
            areas.setdefault(name, []).append(one["auc"])
            inside.setdefault(name, []).append(one["auc_low"] <= 0.5 <= one["auc_high"])
    for name, values in areas.items():
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - 0.5) < 3.5 * error, name
        assert np.mean(inside[name]) >= 0.75, name


def test_the_online_attacks_use_one_number_of_references():
    _, held, _ = study(n_references=15, n_patients=400)
    found = drawn_alike(held[1:], held[0], np.random.default_rng(0))
    assert not (found.used & ~held[1:]).any()
    assert set(found.n_used.tolist()) <= {0, found.n_used.max()}
    assert found.n_used.max() >= 4
    assert (found.n_used == 0).mean() < 0.06


@pytest.mark.parametrize("design", ["balanced", "random"])
def test_members_and_nonmembers_are_compared_with_as_many_references(design):
    _, held, _ = study(n_references=5, design=design, n_patients=400)
    found = drawn(~held[1:], held[0], np.random.default_rng(0))
    assert not (found.used & held[1:]).any()
    counts = [
        np.bincount(found.n_used[side], minlength=6) / side.sum() for side in (held[0], ~held[0])
    ]
    np.testing.assert_allclose(counts[0], counts[1], atol=2 / min(held[0].sum(), 150))


def test_a_reference_trained_on_the_other_side_is_not_used():
    signals, held, cohort = study(n_references=1)
    held[1] = ~held[0]  # out for every member, in for every non-member
    found = audit_released(signals, held, cohort)
    assert list(found.summary["attacks"]) == ["loss"]
    (guard,) = found.summary["guards"]
    assert guard["name"] == "references"
    assert guard["status"] == "failed"


def test_references_that_differ_between_the_sides_are_not_used():
    """Two references, each out for one side: their offsets alone would look like a leak."""
    signals, held, cohort = study(n_references=2, offset=0.0)
    held[1], held[2] = held[0], ~held[0]
    signals[1] += 3.0
    found = audit_released(signals, held, cohort)
    assert list(found.summary["attacks"]) == ["loss"]
    assert found.summary["guards"][0]["status"] == "failed"
    assert found.summary["verdict"]["status"] == "not_shown"


def test_a_is_tuned_on_references_and_never_on_the_target():
    signals, held, cohort = study(leak=1.0, n_references=4)
    by_record = cohort.expand(held)
    a = tuned_a(signals[1:], by_record[1:])
    best = [
        np.mean(
            [
                roc_auc_score(
                    by_record[1:][one][known],
                    OfflineRMIA(a=float(x)).score(
                        signals[1:][one], np.delete(signals[1:], one, 0), others
                    )[known],
                )
                for one in range(4)
                for others in [np.delete(by_record[1:], one, 0)]
                for known in [(~others).any(axis=0)]
            ]
        )
        for x in np.linspace(0, 1, 11)
    ]
    assert a == pytest.approx(np.argmax(best) / 10)
    assert tuned_a(signals[1:], np.zeros_like(by_record[1:])) == 0.3


def test_score_of_a_patient_has_one_spread_whatever_the_number_of_records():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(4000), np.where(np.arange(4000) % 2, 1, 9))
    n = len(patient)
    cohort = Cohort(
        record=np.arange(n),
        patient=patient,
        label=np.zeros(n, dtype=int),
        task="binary",
        classes=("0", "1"),
    )
    score = rng.exponential(size=n)
    found = by_patient(score, cohort)
    for few in (0, 1):
        assert np.std(found[few::2]) == pytest.approx(1.0, abs=0.05)
    score[patient == 0] = np.nan
    assert np.isnan(by_patient(score, cohort)[0])


def test_named_are_those_above_the_share_of_false_alarms():
    signals, held, cohort = study(leak=1.0, n_patients=400, design="out")
    found = audit_released(signals, held, cohort)
    table = found.patients
    others = table[~table["member"]]
    rate = found.summary["attacks"]["lira_offline"]["by_patient"]["tpr_at_fpr"]["0.01"]
    assert others["named_lira_offline_at_0.01"].sum() == rate["n_false_positives"] == 2
    named = table[table["member"]]["named_lira_offline_at_0.01"].mean()
    assert named == pytest.approx(rate["tpr"])
    assert "named_lira_offline_at_0.001" not in table  # 200 patients cannot show it


def test_unknown_labels_leave_records_without_a_score():
    signals, held, cohort = study(design="out")
    signals[:, :5] = np.nan
    found = audit_released(signals, held, cohort)
    assert found.records["score_loss"].isna().sum() == 5
    scored = found.summary["attacks"]["loss"]["n_scored"]
    assert scored["members"] + scored["nonmembers"] == cohort.n_records - 5
    lines = [line for line in found.summary["warnings"] if "5 records have no score" in line]
    assert "no score of the loss threshold:" in lines[0]
    assert "no score of offline LiRA:" in lines[1]
    assert not any("_" in line for line in lines)


def test_the_same_seed_gives_the_same_numbers():
    first, second = (audit_released(*study(n_references=4), seed=3).summary for _ in range(2))
    assert first == second


def test_what_does_not_fit_is_refused():
    signals, held, cohort = study()
    with pytest.raises(ArgumentError, match="at least 2 of each"):
        audit_released(signals, np.ones_like(held), cohort)
    with pytest.raises(ArgumentError, match="bool membership"):
        audit_released(signals, held[:2], cohort)
    with pytest.raises(ArgumentError, match="records"):
        audit_released(signals[:, 1:], held, cohort)
