import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, binomtest, norm

from confide.audits.epsilon import (
    Counts,
    bonferroni_epsilon,
    clopper_pearson_epsilon,
    epsilon_of_mu,
    gdp_epsilon,
    guessing_epsilon,
    one_run_epsilon,
    one_run_p_value,
    split_epsilon,
)
from confide.errors import ArgumentError

# Hits and trials in, hits and trials out, then what jax_privacy 2.0.0 says: Clopper-Pearson at
# delta 0 and 1e-3 (one_sided=False), epsilon of mu at delta 1e-5, and one run at delta 1e-12, 1e-5
# and 1e-3, all at significance .05.  Made with CanaryScoreAuditor on scores of 0 and 1 and
# Explicit(.5); `epsilon_from_gdp` divides its significance by the number of points of its ROC hull,
# which was given back (3 points).
JAX_PRIVACY = [
    (45, 50, 5, 50, 1.276565806, 1.275285993, 7.373793, 1.393604, 1.392791, 1.303790),
    (30, 40, 10, 60, 0.723533406, 0.721831388, 3.338214, 0.459686, 0.459048, 0.388490),
    (50, 50, 0, 50, 2.569584683, 2.568507536, 16.209813, 2.784727, 2.781889, 2.481269),
    (5, 50, 45, 50, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (90, 100, 10, 100, 1.542152395, 1.540937737, 9.143879, 1.630823, 1.629892, 1.520262),
    (12, 100, 1, 200, 0.836415972, 0.820559965, 1.523686, 0.770644, 0.763703, 0.0),
    (700, 1000, 400, 1000, 0.546206738, 0.544447346, 2.513461, 0.454889, 0.454436, 0.357952),
    (3, 10, 4, 10, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
]
# dp_accounting 0.6.0, get_epsilon_gaussian(1 / mu, delta).
DP_ACCOUNTING = [
    (1.0, 1e-5, 4.377178095681),
    (2.0, 1e-5, 9.997256146434),
    (0.5, 1e-3, 1.352276244802),
    (4.0, 1e-6, 26.356963925326),
]


def counts(a, n, b, m):
    return Counts(hits_in=a, n_in=n, hits_out=b, n_out=m)


def laplace(rng, epsilon, n):
    """An epsilon-private answer for in (1) and out (0)."""
    return 1 + rng.laplace(size=n) / epsilon, rng.laplace(size=n) / epsilon


@pytest.mark.parametrize("row", JAX_PRIVACY)
def test_agrees_with_stored_figures_of_jax_privacy(row):
    a, n, b, m, pure, approximate, gaussian, *one_run = row
    c = counts(a, n, b, m)
    assert clopper_pearson_epsilon(c) == pytest.approx(pure, abs=1e-8)
    assert clopper_pearson_epsilon(c, delta=1e-3) == pytest.approx(approximate, abs=1e-8)
    assert gdp_epsilon(c)[1] == pytest.approx(gaussian, abs=2e-6)
    for delta, wanted in zip((1e-12, 1e-5, 1e-3), one_run, strict=True):
        found = one_run_epsilon(n + m, a + b, a, delta=delta)
        assert found == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize(("mu", "delta", "epsilon"), DP_ACCOUNTING)
def test_agrees_with_stored_figures_of_dp_accounting(mu, delta, epsilon):
    assert epsilon_of_mu(mu, delta) == pytest.approx(epsilon, abs=1e-8)


def test_agrees_with_jax_privacy_where_it_is_installed():
    auditing = pytest.importorskip("jax_privacy.auditing")
    rng = np.random.default_rng(0)
    for _ in range(5):
        inside, outside = rng.normal(1, 1, 60), rng.normal(0, 1, 80)
        at = float(rng.normal(0.5, 0.5))
        theirs = auditing.CanaryScoreAuditor(inside, outside)
        strategy = auditing.Explicit(at)
        a, b = int((inside >= at).sum()), int((outside >= at).sum())
        c = counts(a, 60, b, 80)
        for delta in (1e-6, 1e-2):
            wanted = theirs.epsilon_clopper_pearson(
                0.05, delta, one_sided=False, threshold_strategy=strategy
            )
            assert clopper_pearson_epsilon(c, delta=delta) == pytest.approx(wanted, abs=1e-8)
            wanted = theirs.epsilon_one_run(0.05, delta, threshold_strategy=strategy)
            assert one_run_epsilon(140, a + b, a, delta=delta) == pytest.approx(wanted, abs=1e-5)


def test_clopper_pearson_by_scipys_intervals():
    rng = np.random.default_rng(1)
    for _ in range(25):
        n, m = rng.integers(1, 60, 2)
        a, b = int(rng.integers(0, n + 1)), int(rng.integers(0, m + 1))
        tpr = binomtest(a, int(n)).proportion_ci(0.95, "exact")
        fpr = binomtest(b, int(m)).proportion_ci(0.95, "exact")
        delta = 0.01
        forward = np.log(max(tpr.low - delta, 1e-300) / fpr.high)
        backward = np.log(max(1 - fpr.high - delta, 1e-300) / (1 - tpr.low))
        found = clopper_pearson_epsilon(counts(a, int(n), b, int(m)), delta=delta)
        assert found == pytest.approx(max(forward, backward, 0.0), abs=1e-9)


def test_perfect_separation_has_a_closed_form():
    low = 0.025 ** (1 / 20)
    found = clopper_pearson_epsilon(counts(20, 20, 0, 20))
    assert found == pytest.approx(np.log(low / (1 - low)))
    assert one_run_epsilon(30, 30, 30, delta=0.0) == pytest.approx(
        -np.log(0.05 ** (-1 / 30) - 1), abs=1e-6
    )


@pytest.mark.parametrize(("mu", "delta"), [(0.3, 1e-4), (1.0, 1e-5), (3.0, 1e-2), (12.0, 1e-6)])
def test_privacy_profile_of_a_gaussian_by_integration(mu, delta):
    epsilon = epsilon_of_mu(mu, delta)
    edge = epsilon / mu + mu / 2  # where the densities of N(mu, 1) and N(0, 1) differ by e^epsilon

    def lost(x):
        return norm.pdf(x, mu) - np.exp(epsilon + norm.logpdf(x))

    assert quad(lost, edge, edge + 40, epsabs=0)[0] == pytest.approx(delta, rel=1e-6)


def test_little_mu_and_much_delta_mean_nothing():
    assert epsilon_of_mu(0.0, 1e-5) == 0.0
    assert epsilon_of_mu(0.001, 0.5) == 0.0
    assert gdp_epsilon(counts(5, 10, 5, 10)) == (0.0, 0.0)


def test_one_run_p_value_by_loops():
    """Theorem 5.2, sum by sum."""
    for m, r, v, epsilon, delta in [
        (40, 20, 17, 0.7, 1e-3),
        (9, 9, 9, 2.0, 0.01),
        (5, 3, 0, 0, 0.1),
    ]:
        q = np.exp(epsilon) / (1 + np.exp(epsilon))
        reached = sum(binom.pmf(k, r, q) for k in range(v, r + 1))
        worst = max(
            (sum(binom.pmf(k, r, q) for k in range(max(v - i, 0), v)) / i for i in range(1, m + 1)),
        )
        wanted = min(1.0, reached + 2 * m * delta * worst)
        assert one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(wanted, rel=1e-9)


def test_one_run_p_value_rises_with_epsilon_where_it_is_small():
    grid = np.linspace(0, 12, 600)
    for m, r, v in [(200, 100, 95), (1000, 30, 30), (50, 50, 35)]:
        p = np.array([one_run_p_value(m, r, v, e, 1e-5) for e in grid])
        small = p < 0.1
        assert (np.diff(p[small]) >= -1e-15).all()
        found = one_run_epsilon(m, r, v)
        assert one_run_p_value(m, r, v, found, 1e-5) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_one_run_is_valid_and_tight_for_randomised_response(epsilon):
    """Each coin is told truly with chance e^eps / (1 + e^eps): the worst that is allowed."""
    rng = np.random.default_rng(3)
    right = rng.random((500, 200)) < 1 / (1 + np.exp(-epsilon))
    bounds = np.array([one_run_epsilon(200, 200, int(r.sum())) for r in right])
    assert (bounds > epsilon).mean() < 0.065
    if epsilon:
        assert np.median(bounds) > epsilon - 0.5


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_guesses_from_scores_refute_no_true_claim(epsilon):
    rng = np.random.default_rng(4)
    found = []
    for n in [12, 50, 200] * 70:
        coins = rng.random(n) < 0.5
        noise = rng.standard_normal(n)
        scores = coins + rng.laplace(size=n) / epsilon if epsilon else noise
        found.append(guessing_epsilon(scores, coins).epsilon)
    assert (np.array(found) > epsilon).mean() <= 0.05


def test_guesses_find_what_is_there():
    rng = np.random.default_rng(5)
    coins = rng.random(400) < 0.5
    best = guessing_epsilon(20.0 * coins + rng.standard_normal(400), coins)
    assert (best.n_coins, best.n_guesses, best.n_correct) == (400, 400, 400)
    assert best.epsilon > 4
    # A sparse leak: one in twenty is given away when in, and only then.
    leaks = rng.random(4000) < 0.05
    coins = rng.random(4000) < 0.5
    best = guessing_epsilon(10.0 * (coins & leaks) + rng.standard_normal(4000), coins)
    assert best.n_guesses < 1000
    assert best.epsilon > 1


def test_scores_that_are_all_the_same_refute_nothing():
    coins = np.arange(100) % 2 == 0
    assert guessing_epsilon(np.zeros(100), coins).epsilon == 0.0


def uncorrected(scores, coins):
    """The mistake: the best number of guesses, as if it had been the only one."""
    right = np.cumsum(coins[np.argsort(-scores)])
    return max(one_run_epsilon(len(coins), k, int(right[k - 1]), delta=0) for k in range(5, 101, 3))


def test_the_uncorrected_maximum_over_thresholds_sees_leaks_where_there_are_none():
    rng = np.random.default_rng(6)
    found = np.array([uncorrected(rng.random(100), rng.random(100) < 0.5) for _ in range(150)])
    assert (found > 0).mean() > 0.10


def test_uncorrected_clopper_pearson_errs_more_often_than_it_says():
    """The mistake again, at the level of each limit: a one-sided bound read at all thresholds."""
    rng = np.random.default_rng(7)
    wrong = {"fixed": 0, "best": 0, "bonferroni": 0}
    for _ in range(200):
        inside, outside = rng.standard_normal((2, 1000))
        at = np.quantile(outside, np.linspace(0.02, 0.98, 25))
        each = [
            clopper_pearson_epsilon(
                counts(int((inside >= t).sum()), 1000, int((outside >= t).sum()), 1000),
                confidence=0.8,
            )
            for t in at
        ]
        wrong["fixed"] += each[12] > 0
        wrong["best"] += max(each) > 0
        wrong["bonferroni"] += bonferroni_epsilon(inside, outside, confidence=0.8) > 0
    assert wrong["fixed"] / 200 <= 0.2
    assert wrong["best"] / 200 > 0.2
    assert wrong["bonferroni"] / 200 <= 0.2


@pytest.mark.parametrize("bound", [split_epsilon, bonferroni_epsilon])
@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_chosen_thresholds_refute_no_true_claim(bound, epsilon):
    rng = np.random.default_rng(8)
    wrong = 0
    for i in range(200):
        n = (10, 40, 300)[i % 3]
        inside, outside = laplace(rng, epsilon, n) if epsilon else rng.standard_normal((2, n))
        wrong += bound(inside, outside) > epsilon
    assert wrong / 200 <= 0.05


@pytest.mark.parametrize("bound", [split_epsilon, bonferroni_epsilon])
def test_chosen_thresholds_approach_the_truth(bound):
    rng = np.random.default_rng(9)
    found = bound(*laplace(rng, 1.0, 20_000))
    assert 0.85 < found <= 1.0
    # In and out exchanged is as telling.
    inside, outside = laplace(rng, 1.0, 20_000)
    assert 0.85 < bound(-outside, -inside) <= 1.0


def test_limits_at_order_statistics_hold_for_all_thresholds_at_once():
    """Uniform scores: the true rates of every threshold are known."""
    rng = np.random.default_rng(10)
    worst = []
    for _ in range(300):
        inside, outside = rng.random((2, 60))
        worst.append(bonferroni_epsilon(inside, outside, confidence=0.6))
    assert (np.array(worst) > 0).mean() <= 0.4


def test_refused():
    with pytest.raises(ArgumentError, match=r"hits_in=5 in \[0, 4\]"):
        counts(5, 4, 0, 4)
    with pytest.raises(ArgumentError, match="n_out=0"):
        counts(0, 4, 0, 0)
    with pytest.raises(ArgumentError, match="delta=1"):
        clopper_pearson_epsilon(counts(1, 4, 0, 4), delta=1.0)
    with pytest.raises(ArgumentError, match="confidence"):
        one_run_epsilon(4, 4, 4, confidence=0.4)
    with pytest.raises(ArgumentError, match="n_guesses=5"):
        one_run_p_value(4, 5, 3, 1.0, 0.0)
    with pytest.raises(ArgumentError, match="delta=0"):
        epsilon_of_mu(1.0, 0.0)
    with pytest.raises(ArgumentError, match="at least two"):
        split_epsilon(np.zeros(1), np.zeros(5))
    with pytest.raises(ArgumentError, match="outside holds nan at index 1"):
        bonferroni_epsilon(np.zeros(3), np.array([0.0, np.nan, 1.0]))
    with pytest.raises(ArgumentError, match="scores holds nan"):
        guessing_epsilon(np.array([np.nan, 1.0]), np.array([True, False]))
    with pytest.raises(ArgumentError, match="coins"):
        guessing_epsilon(np.zeros(3), np.zeros(2, dtype=bool))


@pytest.mark.slow
def test_null_audits_in_their_thousands():
    rng = np.random.default_rng(11)
    n = 2000
    guess = [guessing_epsilon(rng.random(300), rng.random(300) < 0.5).epsilon for _ in range(n)]
    best = [bonferroni_epsilon(*rng.standard_normal((2, 64))) for _ in range(n)]
    split = [split_epsilon(*rng.standard_normal((2, 64)), seed=i) for i in range(n)]
    for found in (guess, best, split):
        assert (np.array(found) > 0).mean() <= 0.05
