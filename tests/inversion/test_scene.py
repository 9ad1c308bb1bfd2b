"""What an attacker is given, and what is kept from him."""

from dataclasses import fields, replace

import numpy as np
import pytest

from confide.encoders.settings import LinearSettings, NeuraCryptSettings
from confide.inversion import base
from confide.inversion.scene import Hidden, NotThereError, Plaintexts, Scene, Some, control
from confide.inversion.targets import Target, encoded

SHAPE = (1, 16, 16)


def architecture(**settings):
    settings = {"patch": 8, "width": 16, "private_depth": 1} | settings
    return base.Architecture(settings=NeuraCryptSettings(**settings), shape=SHAPE)


def scene(n=24, *, hidden=True, plaintexts=True, seed=0):
    """Two records a patient; plaintexts are the records in another order."""
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    patient, attribute = np.arange(n) // 2, np.arange(n) // 2 % 2
    order = rng.permutation(n)
    theirs = np.empty_like(records)
    theirs[order] = records
    who, what = np.empty(n, dtype=int), np.empty(n, dtype=int)
    who[order], what[order] = patient, attribute
    made = architecture()
    return Scene(
        target=Target(
            kind="release", architecture=made, codes=base.ArrayCodes(encoded(made, records, 7))
        ),
        plaintexts=Plaintexts(records=theirs, patient=who, attribute=what) if plaintexts else None,
        hidden=Hidden(records=records, patient=patient, match=order, attribute=attribute)
        if hidden
        else None,
    )


KINDS = [
    base.CodesOnly,
    base.KnownAttributes,
    base.OneKey,
    base.TwoKeys,
    base.Unpaired,
    base.LabelledPlaintexts,
    base.SameImages,
    base.KnownPairs,
]


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_given_more_than_his_type_says(kind):
    known = scene().known(kind)
    assert type(known) is kind
    given = {f.name for f in fields(known)}
    wanted = {
        base.CodesOnly: set(),
        base.KnownAttributes: {"attribute"},
        base.OneKey: {"other"},
        base.TwoKeys: {"other"},
        base.Unpaired: {"plaintexts"},
        base.LabelledPlaintexts: {"plaintexts", "attribute"},
        base.SameImages: {"plaintexts"},
        base.KnownPairs: {"plaintexts", "pairs"},
    }[kind]
    assert given == {"architecture", "codes"} | wanted


def test_pairs_are_pairs_and_are_not_scored():
    s = scene()
    pairs = s.known(base.KnownPairs).pairs
    assert len(pairs) == 12
    np.testing.assert_array_equal(s.hidden.match[pairs[:, 0]], pairs[:, 1])
    truth = s.truth(base.KnownPairs)
    told = set(s.hidden.patient[pairs[:, 0]])
    assert not told & set(truth.patient)
    assert len(truth.patient) == 12
    rest = np.flatnonzero(~np.isin(s.hidden.patient, list(told)))
    np.testing.assert_array_equal(truth.records, s.hidden.records[rest])
    np.testing.assert_array_equal(truth.codes.codes(slice(None)), s.target.codes.codes(rest))


def test_attributes_that_are_known_are_not_scored():
    s = scene()
    known, truth = s.known(base.KnownAttributes), s.truth(base.KnownAttributes)
    assert ((known.attribute >= 0) ^ (truth.attribute >= 0)).all()
    assert (
        np.where(known.attribute >= 0, known.attribute, truth.attribute) == s.hidden.attribute
    ).all()
    # By patient: no patient is on both sides.
    assert not set(s.hidden.patient[known.attribute >= 0]) & set(
        s.hidden.patient[truth.attribute >= 0]
    )


def test_two_releases_share_patients_and_no_record():
    s = scene()
    for kind in (base.OneKey, base.TwoKeys):
        known, truth = s.known(kind), s.truth(kind)
        assert known.codes.n_records == len(truth.patient) == 12
        assert known.other.n_records == len(truth.other_patient) == 12
        assert sorted(truth.patient) == sorted(truth.other_patient)
    same = [sorted(x.ravel()) for x in s.known(base.OneKey).codes.codes(slice(None))]
    again = [sorted(x.ravel()) for x in s.known(base.TwoKeys).codes.codes(slice(None))]
    np.testing.assert_array_equal(same, again)
    one, two = s.known(base.OneKey).other, s.known(base.TwoKeys).other
    assert not np.allclose(np.sort(one.values.ravel()), np.sort(two.values.ravel()))


def test_a_record_in_both_releases_of_one_key_has_the_same_rows():
    made, records = architecture(), scene().hidden.records
    first = encoded(made, records, 3, orders=0)
    second = encoded(made, records, 3, orders=1)
    assert not np.array_equal(first, second)  # other orders
    np.testing.assert_allclose(np.sort(first, axis=1), np.sort(second, axis=1), atol=1e-5)


def test_without_the_truth_nothing_is_told():
    s = scene(hidden=False)
    for kind in (base.KnownPairs, base.KnownAttributes, base.OneKey):
        with pytest.raises(NotThereError, match="truth is not at hand"):
            s.known(kind)
    assert s.known(base.SameImages).plaintexts.shape == (24, *SHAPE)
    with pytest.raises(NotThereError):
        s.truth(base.SameImages)


def test_without_plaintexts_nobody_has_them():
    with pytest.raises(NotThereError, match="no plaintexts"):
        scene(plaintexts=False).known(base.Unpaired)


def test_patients_of_one_record_are_in_one_release():
    s = scene()
    alone = replace(s, hidden=replace(s.hidden, patient=np.arange(24)))
    with pytest.raises(NotThereError, match="No patient has two records"):
        alone.known(base.OneKey)


def test_an_attribute_of_one_value_is_none():
    s = scene()
    same = replace(s, hidden=replace(s.hidden, attribute=np.zeros(24, dtype=int)))
    with pytest.raises(NotThereError, match="fewer than two values"):
        same.known(base.KnownAttributes)


def test_controls():
    s = scene()
    linear, noise = control(s, "linear", 10**9), control(s, "noise", 10**9)
    assert isinstance(linear.target.architecture.settings, LinearSettings)
    assert noise.target.architecture == s.target.architecture
    for one in (linear, noise):
        assert one.target.codes.n_records == 24
        assert one.target.codes.shape == s.target.codes.shape
        np.testing.assert_array_equal(one.hidden.records, s.hidden.records)
        np.testing.assert_array_equal(one.plaintexts.records, s.plaintexts.records)
    # Linear codes are linear in the records: a mean record has the mean code.
    codes, records = linear.target.codes.values, s.hidden.records.reshape(24, -1)
    x = np.c_[records / 255, np.ones(24)]
    first_row = codes[:, 0]
    fitted = x @ np.linalg.lstsq(x, first_row, rcond=None)[0]
    np.testing.assert_allclose(fitted, first_row, atol=1e-4)


def test_codes_of_noise_know_nothing_of_the_records():
    s = scene()
    other = replace(s, hidden=replace(s.hidden, records=s.hidden.records[::-1]))
    a, b = control(s, "noise", 10**9), control(other, "noise", 10**9)
    np.testing.assert_array_equal(a.target.codes.values, b.target.codes.values)


@pytest.mark.parametrize("kind", ["linear", "noise"])
def test_small_controls_keep_their_plaintexts(kind):
    s = scene()
    small = control(s, kind, 4 * 16 * 10)
    n = small.target.codes.n_records
    assert n == 10 == len(small.hidden.records) == len(small.plaintexts.records)
    np.testing.assert_array_equal(
        small.plaintexts.records[small.hidden.match], small.hidden.records
    )
    assert (np.unique(small.hidden.patient, return_counts=True)[1] == 2).all()


def test_small_controls_leave_other_peoples_plaintexts():
    s = scene()
    s = replace(s, hidden=replace(s.hidden, match=np.full(24, -1)))
    small = control(s, "linear", 4 * 16 * 10)
    assert len(small.plaintexts.records) == 24
    assert (small.hidden.match == -1).all()


def test_controls_are_made_of_plaintexts_where_the_truth_is_not_at_hand():
    s = scene(hidden=False)
    made = control(s, "linear", 10**9)
    np.testing.assert_array_equal(made.plaintexts.records[made.hidden.match], made.hidden.records)
    with pytest.raises(NotThereError, match="no records to make a control of"):
        control(scene(hidden=False, plaintexts=False), "linear", 10**9)


def test_some_codes():
    values = np.arange(2 * 3 * 4, dtype=np.float32).reshape(4, 3, 2)
    some = Some(base.ArrayCodes(values), np.array([3, 1]))
    assert (some.n_records, some.shape) == (2, (3, 2))
    np.testing.assert_array_equal(some.codes(slice(None)), values[[3, 1]])
    np.testing.assert_array_equal(some.codes(np.array([1])), values[[1]])


def test_shadow_keys_are_repeatable_and_differ():
    made, records = architecture(), scene().hidden.records
    one, again, other = (made.shadow(records, seed)(records) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
