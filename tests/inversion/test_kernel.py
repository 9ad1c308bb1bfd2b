"""Components of rows, and the turn between two keys, against what made them."""

import numpy as np
import pytest
import torch

from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.errors import ArgumentError
from confide.inversion import base, kernel
from inversion.worlds import phantom

WORK = base.Work(seed=2)


def rng(seed=0):
    return np.random.default_rng(seed)


def of(values, k, work=WORK):
    codes = base.ArrayCodes(values.astype(np.float32))
    return kernel.components(codes.codes, codes.n_records, codes.shape, k, work)


def textured(n, rows, k, seed):
    """(n, rows, k) skewed components whose positions vary together in their own ways."""
    # The ways are of the population, the draws of the sample.
    mix = rng(99).standard_normal((rows * k, rows * k)) / np.sqrt(rows * k)
    scale = np.tile(np.geomspace(1, 0.3, k), rows)
    x = (rng(seed).exponential(size=(n, rows * k)) - 1) @ mix * scale
    return (x - x.mean(0)).reshape(n, rows, k).astype(np.float32)


def orthogonal(k, seed):
    return np.linalg.qr(rng(seed).standard_normal((k, k)))[0]


class TestComponents:
    def test_are_the_leading_directions_of_rows_beyond_their_mean(self):
        x = rng().standard_normal((30, 4, 6)) * [5, 3, 1, 0.5, 0.2, 0.1]
        x += 100 * rng(1).standard_normal((1, 4, 6))
        rest = (x - x.mean(0)).reshape(-1, 6)
        left, sizes, _ = np.linalg.svd(rest, full_matrices=False)
        deviation = sizes / np.sqrt(len(rest))
        expected = left * sizes / np.sqrt(deviation * deviation[0])
        found = of(x, 3).reshape(-1, 3)
        signs = np.sign((found * expected[:, :3]).sum(axis=0))
        np.testing.assert_allclose(found * signs, expected[:, :3], atol=2e-3)

    def test_the_first_has_deviation_one_and_the_mean_is_zero(self):
        found = of(rng().standard_normal((40, 3, 8)) * 7 + 50, 4)
        np.testing.assert_allclose(found[..., 0].std(), 1.0, rtol=1e-4)
        np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-5)

    def test_inner_products_of_rows_are_kept_by_all_components(self):
        # The scale of each component is known, so that the Gram matrix comes back.
        x = rng().standard_normal((12, 2, 5))
        found = of(x, 5)
        rest = x - x.mean(0)
        variance = np.linalg.eigvalsh(rest.reshape(-1, 5).T @ rest.reshape(-1, 5) / 24)[::-1]
        whole = found * np.sqrt(np.sqrt(variance * variance[0])).astype(np.float32)
        gram = np.einsum("iac,jac->ij", rest, rest)
        np.testing.assert_allclose(np.einsum("iac,jac->ij", whole, whole), gram, atol=1e-3)

    def test_directions_without_variance_are_left_out(self):
        x = rng().standard_normal((20, 3, 2)) @ rng(1).standard_normal((2, 9))
        assert of(x, 6).shape == (20, 3, 2)

    def test_a_sample_and_parts_are_enough(self, monkeypatch):
        x = rng().standard_normal((200, 4, 3)) @ rng(1).standard_normal((3, 16))
        whole = of(x, 3)
        monkeypatch.setattr(kernel, "SAMPLE", 50 * 4 * 16)
        monkeypatch.setattr(kernel, "AT_ONCE", 7 * 4 * 16)
        sampled = of(x, 3)

        # Three directions hold all variance, so that only their mixture may differ.
        def products(z):
            return np.linalg.qr(z.reshape(-1, 3))[0]

        cosines = np.linalg.svd(products(whole).T @ products(sampled))[1]
        np.testing.assert_allclose(cosines, 1.0, atol=1e-4)

    def test_codes_that_tell_nothing_are_refused(self):
        with pytest.raises(ArgumentError, match="at least 2 codes"):
            of(np.ones((1, 2, 3)), 2)
        with pytest.raises(ArgumentError, match="all the same"):
            of(np.full((9, 2, 3), 0.1) * rng().standard_normal((1, 2, 3)), 2)


class TestTurn:
    def test_covariances_are_those_of_a_loop(self):
        x = textured(20, 3, 2, 0)
        found = kernel.covariances(x)
        for j in range(3):
            for i in range(3):
                expected = sum(np.outer(row[j], row[i]) for row in x) / 20
                np.testing.assert_allclose(found[j, i], expected, atol=1e-6)

    def test_turned_covariances_are_those_of_turned_components(self):
        x, turn = textured(20, 3, 4, 0), rng(3).standard_normal((4, 2))
        np.testing.assert_allclose(
            kernel.turned(kernel.covariances(x), turn),
            kernel.covariances(x @ turn.astype(np.float32)),
            atol=1e-5,
        )

    @pytest.mark.parametrize("seed", range(3))
    def test_a_rotation_is_found_exactly_but_for_its_sign(self, seed):
        x, truth = textured(300, 6, 4, seed), orthogonal(4, seed)
        left = kernel.covariances(x @ truth.T.astype(np.float32))
        starts = [0.3 * rng(s).standard_normal((4, 4)) for s in range(4)]
        lost, turn = min(kernel.find_turns(left, kernel.covariances(x), starts), key=lambda f: f[0])
        assert lost < 1e-6
        sign = np.sign((turn * truth).sum())
        np.testing.assert_allclose(sign * turn, truth, atol=1e-3)

    def test_other_draws_of_the_population_and_third_moments_give_the_sign(self):
        x, y, truth = textured(3000, 6, 4, 1), textured(3000, 6, 4, 2), orthogonal(4, 5)
        ours = x @ truth.T.astype(np.float32)
        starts = [0.3 * rng(s).standard_normal((4, 4)) for s in range(4)]
        turns = kernel.find_turns(kernel.covariances(ours), kernel.covariances(y), starts)
        turn = kernel.nearest_rotation(min(turns, key=lambda f: f[0])[1])
        third, theirs = kernel.third_moments(ours), kernel.third_moments(y)
        agreed = kernel.agreement(third, theirs, turn)
        found = np.sign(agreed) * ours @ turn
        assert abs(agreed) > 0.8
        assert np.corrcoef(found.ravel(), x.ravel())[0, 1] > 0.97
        np.testing.assert_allclose(kernel.agreement(third, theirs, -turn), -agreed)

    def test_third_moments_are_those_of_a_loop(self):
        x = textured(15, 3, 2, 0)
        found = kernel.third_moments(x)
        for j, a, i in np.ndindex(3, 2, 3):
            expected = np.mean([row[j, a] * (row[i] ** 2).sum() for row in x])
            np.testing.assert_allclose(found[j, a, i], expected, atol=1e-5)

    def test_third_moments_turn_with_the_components(self):
        x, turn = textured(40, 3, 4, 0), orthogonal(4, 2)
        turned = kernel.third_moments(x @ turn.astype(np.float32))
        np.testing.assert_allclose(kernel.agreement(kernel.third_moments(x), turned, turn), 1.0)

    def test_the_nearest_rotation_of_a_rotation_is_itself(self):
        truth = orthogonal(5, 1)
        np.testing.assert_allclose(kernel.nearest_rotation(3 * truth), truth, atol=1e-12)
        tall = kernel.nearest_rotation(rng().standard_normal((5, 2)))
        np.testing.assert_allclose(tall.T @ tall, np.eye(2), atol=1e-12)

    def test_gains_are_inner_products_and_highest_at_the_truth(self):
        x = textured(500, 7, 3, 4)
        patch = rng(8).permutation(7)
        right = kernel.covariances(x)
        left = right[np.ix_(patch, patch)]
        found = kernel.gains(left, right, patch)
        expected = [
            [sum((left[j, i] * right[p, patch[i]]).sum() for i in range(7)) for p in range(7)]
            for j in range(7)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        total = found[np.arange(7), patch].sum()
        others = (found[np.arange(7), rng(100 + i).permutation(7)].sum() for i in range(50))
        assert total > max(others)


class TestNetworks:
    @pytest.mark.parametrize(
        ("settings", "least"),
        [
            (LinearSettings(patch=8, width=256), 0.99),
            (NeuraCryptSettings(patch=8, width=1024, private_depth=0), 0.97),
            (NeuraCryptSettings(patch=8, width=1024, private_depth=2), 0.93),
        ],
        ids=["linear", "shallow", "deep"],
    )
    def test_components_under_two_keys_differ_by_a_turn(self, settings, least):
        # The Gram matrix of records from their leading components, which no turn changes.
        x, _, _ = phantom(30, 7)
        architecture = base.Architecture(settings=settings, shape=x.shape[1:])
        grams = []
        for seed in (1, 2):
            codes = architecture.shadow(x, seed)(x)
            found = of(codes, 8).reshape(len(x), -1)
            grams.append((found @ found.T)[np.triu_indices(len(x), 1)])
        assert np.corrcoef(grams)[0, 1] > least


def test_no_global_generator_is_used():
    before = torch.get_rng_state()
    of(rng().standard_normal((20, 3, 4)), 2)
    assert torch.equal(before, torch.get_rng_state())
