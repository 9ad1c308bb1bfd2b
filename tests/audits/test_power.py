import numpy as np
import pytest
from scipy.special import comb, ndtri
from scipy.stats import norm

from audits.studies import cohort_of
from confide.audits.aggregate import evaluate
from confide.audits.mann_whitney import row_auc
from confide.audits.patients import smallest_detectable_auc
from confide.audits.power import detectable_auc
from confide.errors import ArgumentError


def cohort_sides(n_patients, n_in, n_out, n_records=1):
    return (
        np.full(n_patients, n_in),
        np.full(n_patients, n_out),
        np.full(n_patients, n_records),
    )


@pytest.mark.parametrize(
    ("n_patients", "n_in", "n_out", "n_records"),
    [(100, 12, 12, 1), (40, 8, 24, 3), (500, 32, 32, 1)],
)
def test_patients_of_that_leak_are_listed_in_four_cases_of_five(n_patients, n_in, n_out, n_records):
    sides = cohort_sides(n_patients, n_in, n_out, n_records)
    auc = detectable_auc(*sides)
    rng = np.random.default_rng(1)
    n = 4000
    held = np.zeros((n_in + n_out, n), dtype=bool)
    held[:n_in] = True
    shift = np.sqrt(2) * ndtri(auc)
    p = row_auc(rng.standard_normal(held.shape) + shift * held, held).p_value()
    tests = 1 if n_records == 1 else 2
    listed = (tests * p <= 0.05 / n_patients).mean()
    assert listed == pytest.approx(0.8, abs=0.03)


def test_closed_form_with_one_model_in():
    """One model in: U >= u needs the one signal above u of the others."""
    n_out = 39
    sides = cohort_sides(1, 1, n_out)
    # p is 1/40 at U = 39 and 2/40 at U = 38: the one signal is above 38 of 39.
    auc = detectable_auc(*sides, fdr=0.06)
    d = np.sqrt(2) * ndtri(auc)
    x = np.linspace(-8, 12, 20_001)
    below = norm.cdf(x)
    above_38 = below**39 + 39 * below**38 * (1 - below)
    power = np.trapezoid(norm.pdf(x - d) * above_38, x)
    assert power == pytest.approx(0.8, abs=0.02)


def test_more_is_needed_than_what_is_just_listed():
    for n in (12, 32, 100):
        sides = cohort_sides(1000, n, n)
        just, _ = smallest_detectable_auc(*sides)
        even = detectable_auc(*sides, power=0.5)
        assert just == pytest.approx(even, abs=0.02)
        assert even < detectable_auc(*sides) < 1


def test_nothing_is_detectable_with_too_few_models():
    assert detectable_auc(*cohort_sides(11_000, 8, 8)) is None
    assert detectable_auc(*cohort_sides(10, 0, 8)) is None


def test_the_same_seed_gives_the_same_number():
    sides = cohort_sides(300, 16, 16)
    assert detectable_auc(*sides, seed=3) == detectable_auc(*sides, seed=3)
    assert detectable_auc(*sides, seed=3) == pytest.approx(detectable_auc(*sides), abs=0.01)


def test_power_out_of_its_domain():
    with pytest.raises(ArgumentError, match="power=1"):
        detectable_auc(*cohort_sides(10, 8, 8), power=1.0)


@pytest.mark.parametrize(("n_in", "n_out", "n_patients"), [(8, 8, 20), (11, 11, 11_000), (5, 9, 3)])
def test_smallest_detectable_auc_by_counting(n_in, n_out, n_patients):
    """Oracle: walk down from perfect separation through all placements' counts."""
    found, needed = smallest_detectable_auc(*cohort_sides(n_patients, n_in, n_out))
    # Gaussian binomial coefficients: the number of placements with each U.
    table = {}

    def count(a, b):
        if (a, b) not in table:
            if a == 0 or b == 0:
                table[a, b] = np.array([1.0])
            else:
                x, y = count(a - 1, b), count(a, b - 1)
                z = np.zeros(a * b + 1)
                z[b : b + len(x)] += x
                z[: len(y)] += y
                table[a, b] = z
        return table[a, b]

    ways = count(n_in, n_out)
    p = ways[::-1].cumsum()[::-1] / comb(n_in + n_out, n_in)
    listed = [u for u in range(len(p)) if p[u] * n_patients <= 0.05]
    assert found == (listed[0] / (n_in * n_out) if listed else None)
    alone = [k for k in range(1, n_patients + 1) if p[-1] <= 0.05 * k / n_patients]
    assert needed == (alone[0] if alone else needed)


def test_predictive_values_by_counting_people():
    """Of 100,000 people at each prevalence, who is named and who of them was a member?"""
    rng = np.random.default_rng(0)
    n = 1000
    held = np.zeros((6, n), dtype=bool)
    for row in held:
        row[rng.permutation(n)[:500]] = True
    scores = rng.standard_normal((6, n)) + 2.0 * held
    measures, _ = evaluate(scores, held, cohort_of(np.arange(n)))
    for fpr in (0.1, 0.01):
        point = measures["tpr_at_fpr"][f"{fpr:g}"]
        for prevalence in (0.5, 0.1, 0.01):
            people = 100_000
            named_members = people * prevalence * point["tpr"]
            named_others = people * (1 - prevalence) * fpr
            wanted = named_members / (named_members + named_others)
            assert point["ppv"][f"{prevalence:g}"] == pytest.approx(wanted)
    # Normal scores two deviations apart: what the share among the named really is.
    truth = norm.sf(norm.isf(0.01) - 2)
    assert measures["tpr_at_fpr"]["0.01"]["ppv"]["0.1"] == pytest.approx(
        0.1 * truth / (0.1 * truth + 0.9 * 0.01), abs=0.03
    )
