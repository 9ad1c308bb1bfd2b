"""A function of one's own as a trainer: what it is given, and what it may return."""

from functools import partial

import numpy as np
import pytest
import torch

from confide.errors import ArgumentError, SignalError, TrainingError
from confide.training.base import FunctionTrainer

ROWS = np.array([1, 2, 4, 0, 3])  # three audited records, two held out
MEMBERS = np.array([[True, False, True]])
LOGITS = np.array([-3.0, 1.5, 2.0, -0.5, 4.0])


def fitted(returned, n_logits=1, seed=7):
    trainer = FunctionTrainer(lambda train, query, seed: returned, "mine").bound(ROWS, n_logits)
    return trainer.fit(MEMBERS, [seed])


def test_the_function_is_given_its_own_row_numbers():
    seen = []

    def fit(train, query, seed):
        seen.append((train.tolist(), query.tolist(), seed))
        train[:], query[:] = 0, 0  # its own to change
        return LOGITS

    trainer = FunctionTrainer(fit).bound(ROWS, 1)
    found = trainer.fit(np.array([[True, False, True], [False, True, True]]), [2**40 + 3, 4])
    assert seen == [([1, 4], [1, 2, 4, 0, 3], 3), ([2, 4], [1, 2, 4, 0, 3], 4)]
    assert (found.shape, found.dtype) == ((2, 5, 1, 1), np.float32)
    np.testing.assert_array_equal(found[1, :, 0, 0], LOGITS)


def test_unbound_it_is_asked_for_the_records_of_the_mask():
    seen = []

    def fit(train, query, seed):
        seen.append(query.tolist())
        return LOGITS[:3]

    assert FunctionTrainer(fit).fit(MEMBERS, [1]).shape == (1, 3, 1, 1)
    assert seen == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("returned", "n_logits", "expected"),
    [
        (LOGITS, 1, LOGITS[:, None, None]),
        (LOGITS.tolist(), 1, LOGITS[:, None, None]),
        (np.stack([LOGITS, 3 * LOGITS], axis=1), 1, 2 * LOGITS[:, None, None]),
        (np.stack([LOGITS, LOGITS], axis=1)[..., None], 1, np.stack([LOGITS] * 2, 1)[..., None]),
        (np.stack([LOGITS] * 3, axis=1), 3, np.stack([LOGITS] * 3, axis=1)[:, None]),
        (np.zeros(5), 1, np.zeros((5, 1, 1))),
    ],
)
def test_forms_of_logits(returned, n_logits, expected):
    np.testing.assert_allclose(fitted(returned, n_logits)[0], expected)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_a_tensor_with_a_gradient_is_taken(kind):
    tensor = torch.tensor(LOGITS, dtype=kind, requires_grad=True)
    np.testing.assert_allclose(fitted(tensor)[0, :, 0, 0], LOGITS)


@pytest.mark.parametrize(
    ("returned", "n_logits", "message"),
    [
        (LOGITS[:3], 1, r"shape \(3,\) for the 5 records of query; expected \(5, 1\) or \(5, n_v"),
        (np.zeros((5, 3)), 1, r"shape \(5, 3\) .* expected \(5, 1\)"),
        (np.zeros((5, 2)), 3, r"shape \(5, 2\) .* expected \(5, 3\)"),
        (np.float32(2), 1, r"shape \(\) "),
        (np.zeros((5, 1, 1, 1)), 1, r"shape \(5, 1, 1, 1\) "),
        (np.zeros((5, 0, 1)), 1, r"shape \(5, 0, 1\) "),
        (None, 1, r"nothing; expected fit\(train, query, seed\)"),
        ("many", 1, "str, not an array of numbers"),
        (np.array([0.0, 1.0, 0.97, 0.2, 0.5]), 1, "probabilities or classes .* return logits"),
        (np.array([0, 1, 1, 0, 0]), 1, "probabilities or classes"),
        (np.full((5, 2), 0.5), 1, "probabilities or classes"),
        (np.full((5, 4), 0.25), 4, "probabilities or classes"),
    ],
)
def test_what_no_logits_are_is_refused(returned, n_logits, message):
    with pytest.raises(TrainingError, match=f"^mine returned .*{message}"):
        fitted(returned, n_logits)


@pytest.mark.parametrize(
    "returned",
    [
        np.array([0.2, 0.9, 0.3, 0.4, 0.6]),  # a model that hardly tells
        np.zeros((5, 1)),
        np.array([0.0, 1.0, 0.5, 0.5, np.nan]),  # told as such, by who knows the record
        np.log([[0.5, 0.5]] * 5),
    ],
)
def test_logits_that_may_be_are_taken(returned):
    assert fitted(returned).shape == (1, 5, 1, 1)


def test_a_failure_says_whose_it_is():
    def fit(train, query, seed):
        raise KeyError("age")

    with pytest.raises(TrainingError, match=r"fit raised KeyError: 'age'\.$") as caught:
        FunctionTrainer(fit).fit(MEMBERS, [1])
    assert isinstance(caught.value.__cause__, KeyError)

    def own(train, query, seed):
        raise SignalError("Said on purpose.")

    with pytest.raises(SignalError, match=r"^Said on purpose\.$"):
        FunctionTrainer(own).fit(MEMBERS, [1])


def test_the_older_form_is_asked_as_before():
    seen = []

    def fit(rows, seed, verbose=False):
        seen.append((rows.tolist(), seed))
        return LOGITS[:, None]

    trainer = FunctionTrainer(fit)
    assert trainer.bound(np.arange(5), 1).fit(MEMBERS, [2**40]).shape == (1, 5, 1, 1)
    assert seen == [([0, 2], 2**40)]
    with pytest.raises(ArgumentError, match=r"cannot be told .* expected fit\(train, query, seed"):
        trainer.bound(ROWS, 1)


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (lambda rows: rows, r"\(rows\)"),
        (lambda a, b, c, d: a, r"\(a, b, c, d\)"),
        (lambda *a: a, r"\(a\)"),
        (lambda a, b, c, *, rate: a, r"\(a, b, c, rate\)"),
    ],
)
def test_functions_that_cannot_be_called_are_refused(function, takes):
    with pytest.raises(ArgumentError, match=rf"f takes {takes}; expected fit\(train, query, seed"):
        FunctionTrainer(function, "f")


def test_a_class_without_a_signature_is_refused():
    with pytest.raises(ArgumentError, match=r"arguments of int cannot be read|takes"):
        FunctionTrainer(int)


def test_settings_may_be_bound_beforehand():
    def fit(train, query, seed, *, scale):
        return scale * LOGITS

    found = FunctionTrainer(partial(fit, scale=2.0)).bound(ROWS, 1).fit(MEMBERS, [1])
    np.testing.assert_allclose(found[0, :, 0, 0], 2 * LOGITS)
