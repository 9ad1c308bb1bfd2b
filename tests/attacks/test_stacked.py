"""The stack of attacks: its parts against plain computations, chance where nothing leaks."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from attacks.contract import AttackContract, Sliced, mean_auc, study
from confide.attacks import RMIA, LiRA, base
from confide.attacks.cosignals import CoSignals
from confide.attacks.difficulty import shrunken_shift, shrunken_variance, smooth
from confide.attacks.evidence import NAMES, Evidence, Part
from confide.attacks.stacked import Stacked, _equal, _folds, _learnt, _play
from confide.errors import ArgumentError
from confide.masks import balanced


class TestStacked(AttackContract):
    attack = Stacked()

    def test_own_signals_never_enter_the_references(self):
        """Other records of the target are read, its membership and its fold's signals are not."""
        signals, held = study(8, n_models=24, leak=0.5)
        target, fold = 3, np.arange(3, 24, 8)
        before = self.attack.leave_one_out(signals, held)
        changed = signals.copy()
        changed[target] += 5.0
        after = self.attack.leave_one_out(changed, held)
        assert not np.allclose(before[target], after[target])
        # Models that are left out together are no references of one another.
        for other in fold[fold != target]:
            np.testing.assert_array_equal(before[other], after[other])

    @pytest.mark.parametrize("n_models", [8, 24])
    def test_membership_of_targets_is_not_read(self, n_models):
        """But for the number of references, which does not tell it (see below)."""
        signals, held = study(11, n_models=n_models, leak=0.8)
        scores = self.attack.leave_one_out(signals, held)
        fold, rest = _folds(n_models, 8)[2]
        game = Evidence(fold, rest, held.shape[1], _equal(held, rest))
        erased = held.copy()
        erased[fold] = False
        weights = _learnt(signals[rest], held[rest], np.arange(held.shape[1]))
        alone = _play(signals, erased, [game], [weights])
        np.testing.assert_allclose(alone[fold], scores[fold], rtol=1e-9)


def play(signals, held, target, rest):
    """Evidence of one target, by hand."""
    game = Evidence(np.array([target]), np.asarray(rest), held.shape[1])
    part, at = Part(signals, held), slice(0, held.shape[1])
    game.measure(part, at)
    game.relate(part, at)
    return dict(zip(NAMES, np.moveaxis(game.of(part, at)[0], -1, 0), strict=True))


def test_lira_and_rmia_are_among_the_evidence():
    signals, held = study(0, n_models=17, n_records=80, leak=0.7, shape=(2,))
    evidence = play(signals, held, 0, range(1, 17))
    lira = LiRA().score(signals[0], signals[1:], held[1:])
    np.testing.assert_allclose(evidence["lira"], lira, rtol=1e-9)
    rmia = RMIA().score(signals[0], signals[1:], held[1:])
    np.testing.assert_allclose(evidence["rmia"], rmia, rtol=1e-9)


def test_evidence_without_any_noise_of_estimation():
    """Equal laws for all records and many references: the likelihood ratio itself."""
    rng = np.random.default_rng(0)
    held = balanced(401, 300, seed=0)
    signals = rng.standard_normal((401, 300)) + 2.0 * held
    evidence = play(signals, held, 0, range(1, 401))
    truth = 2.0 * (signals[0] - 1.0)
    assert np.corrcoef(evidence["shrunken"], truth)[0, 1] > 0.999
    np.testing.assert_allclose(evidence["shrunken"], truth, atol=0.6)


def test_smooth_finds_a_curve_and_ignores_values_without_weight():
    rng = np.random.default_rng(1)
    x = rng.uniform(-2, 2, 20_000)
    weight = (rng.random(20_000) < 0.8).astype(float)
    y = np.where(weight > 0, np.sin(x) + rng.standard_normal(20_000), 1e9)
    assert np.abs(smooth(x, y, weight) - np.sin(x))[np.abs(x) < 1.7].max() < 0.15
    np.testing.assert_array_equal(smooth(x, y, np.zeros_like(x)), 0.0)
    np.testing.assert_allclose(smooth(np.ones(9), np.arange(9.0), np.ones(9)), 4.0)


def test_shrunken_values_are_nearer_to_the_truth():
    rng = np.random.default_rng(2)
    n, dof = 20_000, 6.0
    x = rng.standard_normal(n)
    true_shift = np.exp(0.5 * x) * (1.0 + 0.5 * rng.standard_normal(n))
    true_variance = np.exp(0.8 * x + 0.4 * rng.standard_normal(n))
    variance = true_variance * rng.chisquare(dof, n) / dof
    noise = 0.5 * true_variance
    shift = true_shift + np.sqrt(noise) * rng.standard_normal(n)
    found, left = shrunken_shift(shift, noise, x)
    assert ((found - true_shift) ** 2).mean() < 0.5 * ((shift - true_shift) ** 2).mean()
    # What remains is what it says.
    assert left.mean() == pytest.approx(((found - true_shift) ** 2).mean(), rel=0.15)
    log_error = np.log(shrunken_variance(variance, np.full(n, dof), x) / true_variance)
    assert (log_error**2).mean() < 0.4 * (np.log(variance / true_variance) ** 2).mean()
    np.testing.assert_array_equal(shrunken_variance(variance, np.zeros(n), x), 1.0)


def test_cosignals_leave_the_record_out():
    """Against ridge regressions without the record, one by one."""
    rng = np.random.default_rng(3)
    references, target = rng.standard_normal((5, 30)), rng.standard_normal((2, 30))
    model = CoSignals(2, 5)
    for at in (slice(0, 11), slice(11, 30)):
        model.add(references[:, at], target[:, at])
    fitted = model.predict(references, target)
    ridge = 0.3 * np.trace(references @ references.T) / 5
    for x in range(30):
        rest = np.delete(np.arange(30), x)
        products = references[:, rest] @ references[:, rest].T + ridge * np.eye(5)
        beta = np.linalg.solve(products, references[:, rest] @ target[:, rest].T)
        np.testing.assert_allclose(fitted[:, x], references[:, x] @ beta, rtol=1e-9)
    with pytest.raises(ArgumentError, match="before the first prediction"):
        model.add(references, target)


def test_co_signals_find_what_models_have_in_common():
    """Noise that related models share can be foretold; the stack gains by it."""
    rng = np.random.default_rng(4)
    held = balanced(48, 1500, seed=4)
    common = rng.standard_normal((48, 3)) @ rng.standard_normal((3, 1500))
    signals = common + 0.7 * rng.standard_normal((48, 1500)) + held
    ours = mean_auc(Stacked().leave_one_out(signals, held), held)
    assert ours > mean_auc(LiRA().leave_one_out(signals, held), held) + 0.03


@pytest.mark.parametrize("n_models", [8, 16, 64])
@pytest.mark.parametrize("leak", [0.15, 1.0])
def test_not_behind_its_parts(n_models, leak):
    signals, held = study(12, n_models=n_models, n_records=600, leak=leak)
    ours = mean_auc(Stacked().leave_one_out(signals, held), held)
    parts = [mean_auc(a.leave_one_out(signals, held), held) for a in (LiRA(), RMIA())]
    # Four standard errors of a mean over targets.
    se = np.sqrt(601 / (12 * 300 * 300) / n_models)
    assert ours > max(parts) - 4 * se


@pytest.mark.parametrize("design", ["balanced", "coins", "a third"])
def test_numbers_of_references_do_not_tell_members(design):
    """Among records in as many models, few are used as often for members as for others."""
    held = balanced(16, 3000, seed=5)
    if design != "balanced":
        share = 0.5 if design == "coins" else 0.3
        held = np.random.default_rng(5).random((16, 3000)) < share
    total = held.sum(axis=0)
    for fold, rest in _folds(16, 8):
        used = _equal(held, rest)
        for n_in in np.unique(total[(total >= 4) & (total <= 12)]):
            some = total == n_in
            few, mine = -used[some].astype(float), held[fold][:, some]
            if some.sum() > 200:
                area = np.mean([roc_auc_score(m, few) for m in mine])
                se = np.sqrt((some.sum() + 1) / (12 * n_in * (16 - n_in) / 256)) / some.sum()
                assert abs(area - 0.5) < 5 * se


def of_patients(scores, held, patient, size):
    """Mean area over patients, by the sums of their records' scores."""
    areas = []
    for row, inside in zip(scores, held, strict=True):
        known = np.isfinite(row)
        sums = np.bincount(patient[known], row[known], minlength=size)
        member = np.bincount(patient, inside, minlength=size) > 0
        areas.append(roc_auc_score(member, sums))
    return float(np.mean(areas))


@pytest.mark.parametrize("leak", [0.0, 0.6])
def test_sums_of_patients_are_learnt_and_judged(leak):
    """Records of a patient share most of what is not membership, so that plain sums mislead."""
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(150), rng.integers(1, 8, 150))
    held = balanced(24, 150, seed=3)[:, patient]
    shared = rng.standard_normal((24, 150))[:, patient]
    noise = rng.standard_normal(held.shape)
    signals = 0.8 * shared + 0.6 * noise + leak * held
    ours = of_patients(Stacked(patient).leave_one_out(signals, held), held, patient, 150)
    se = np.sqrt(151 / (12 * 75 * 75) / 24)
    if leak == 0.0:
        assert abs(ours - 0.5) < 4 * se
        return
    for attack in (LiRA(), RMIA(), Stacked()):
        other = of_patients(attack.leave_one_out(signals, held), held, patient, 150)
        assert ours > other - 2 * se, attack


def test_patients_of_another_cohort_are_refused():
    signals, held = study(1)
    with pytest.raises(ArgumentError, match="patient of each record"):
        Stacked(np.arange(3)).leave_one_out(signals, held)


def test_several_targets_are_scored_as_one_by_one():
    signals, held = study(6, n_models=20, leak=0.8)
    together = Stacked().score_all(signals[:4], signals[4:], held[4:])
    for row, target in zip(together, signals, strict=False):
        one = Stacked().score(target, signals[4:], held[4:])
        np.testing.assert_allclose(one, row, rtol=1e-9)


def test_few_training_records_are_enough(monkeypatch):
    from confide.attacks import stacked

    signals, held = study(7, n_models=16, n_records=1200, leak=1.0)
    every = Stacked().leave_one_out(signals, held)
    monkeypatch.setattr(stacked, "_TRAINING_RECORDS", 300)
    some = Stacked().leave_one_out(Sliced(signals), held)
    assert np.corrcoef(expit(every).ravel(), expit(some).ravel())[0, 1] > 0.98
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 16 * 100)
    again = Stacked().leave_one_out(Sliced(signals), held)
    np.testing.assert_allclose(again, some, rtol=1e-9)
