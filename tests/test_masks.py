import numpy as np
import pytest
from scipy.stats import chi2, chisquare

from confide import masks
from confide.errors import ArgumentError


@pytest.mark.parametrize(
    ("n_models", "fraction", "n_in"), [(4, 0.5, 2), (64, 0.5, 32), (10, 0.3, 3), (9, 0.5, 4)]
)
def test_every_patient_is_in_the_same_number_of_models(n_models, fraction, n_in):
    mask = masks.balanced(n_models, 200, fraction=fraction, seed=1)
    assert mask.shape == (n_models, 200)
    assert mask.dtype == bool
    assert (mask.sum(axis=0) == n_in).all()


def test_one_seed_one_mask():
    one = masks.balanced(32, 50, seed=7)
    np.testing.assert_array_equal(one, masks.balanced(32, 50, seed=7))
    assert (one != masks.balanced(32, 50, seed=8)).any()


def test_the_same_masks_on_every_machine():
    # Stored once; an audit that is resumed elsewhere must meet the same members.
    packed = np.packbits(masks.balanced(8, 6, seed=0)).tobytes().hex()
    assert packed == "3199f2056f6a"


def test_a_column_is_uniform_over_all_choices():
    # C(6, 3) = 20 equally likely columns.
    mask = masks.balanced(6, 20_000, seed=3)
    codes = (1 << np.arange(6)) @ mask
    values, counts = np.unique(codes, return_counts=True)
    assert len(values) == 20
    assert chisquare(counts).pvalue > 0.001


def test_patients_are_independent():
    mask = masks.balanced(64, 400, seed=5).astype(float)
    r = np.corrcoef(mask.T)[np.triu_indices(400, 1)]
    # Two independent balanced columns of n models correlate with variance 1 / (n - 1).
    assert abs(r.mean()) < 4 / np.sqrt(63 * len(r))
    assert r.var() == pytest.approx(1 / 63, rel=0.03)


def test_pairs_of_patients_share_models_as_a_hypergeometric():
    mask = masks.balanced(4, 60_000, seed=11)
    both = (mask[:, ::2] & mask[:, 1::2]).sum(axis=0)
    counts = np.bincount(both, minlength=3)
    expected = np.array([1, 4, 1]) / 6 * 30_000
    assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(0.999, 2)


def test_models_have_about_the_fraction_of_patients():
    share = masks.balanced(64, 10_000, seed=2).mean(axis=1)
    assert abs(share - 0.5).max() < 5 * 0.5 / np.sqrt(10_000)


def test_later_blocks_leave_earlier_rows_alone():
    two = masks.balanced(32, 40, seed=4, block=16)
    four = masks.balanced(64, 40, seed=4, block=16)
    np.testing.assert_array_equal(four[:32], two)
    for start in range(0, 64, 16):
        assert (four[start : start + 16].sum(axis=0) == 8).all()
    assert (four[:16] != four[16:32]).any()


def test_the_block_of_each_model():
    assert masks.block_of(32, 16).tolist() == [0] * 16 + [1] * 16
    assert masks.block_of(5).tolist() == [0] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_models": 1}, "n_models=1"),
        ({"n_patients": 0}, "n_patients=0"),
        ({"fraction": 1.2}, "fraction=1.2"),
        ({"fraction": float("nan")}, "fraction=nan"),
        ({"fraction": 0.01}, "has 0 models that hold a patient"),
        ({"fraction": 0.99}, "has 16 models that hold a patient"),
        ({"block": 8}, "block=8 to be at least 16"),
        ({"n_models": 40, "block": 16}, "n_models=40 to be a multiple of block=16"),
    ],
)
def test_a_design_that_cannot_be_balanced_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        masks.balanced(**({"n_models": 16, "n_patients": 10} | arguments))
