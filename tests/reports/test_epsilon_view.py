from confide.reports import epsilon_view


def test_nothing_without_bounds():
    assert epsilon_view.bounds({}) is None
    assert epsilon_view.bounds({"epsilon": []}) is None


def test_a_bound_that_states_little_is_not_made_up():
    found = epsilon_view.bounds({"epsilon": [{"method": "mine", "epsilon": 0.5}]})
    (one,) = found.epsilon
    assert (one.method, one.value, one.unit, one.note) == ("mine", "0.50", "missing", 0)
    assert one.delta == one.confidence == one.evidence == "n/a"
    assert found.notes == ()


def test_equal_bounds_of_two_units_are_one_row(make_bound):
    same = [make_bound(), make_bound(unit="record")]
    (one,) = epsilon_view.bounds({"epsilon": same}).epsilon
    assert one.unit == "patient = record"
    other = [make_bound(), make_bound(unit="record", epsilon=0.2)]
    assert [one.unit for one in epsilon_view.bounds({"epsilon": other}).epsilon] == [
        "patient",
        "record",
    ]


def test_counts_of_models_are_not_taken_for_a_share(make_bound):
    for n_in, said in ((2, "a member of 2 models, not of 6"), (1, "a member of 1 model, not of 6")):
        alone = make_bound("clopper_pearson", n_in=n_in, n_out=6, n_correct=None, n_guesses=None)
        (one,) = epsilon_view.bounds({"epsilon": [alone]}).epsilon
        assert one.evidence == said


def test_bounds_are_rounded_down(make_bound):
    for epsilon, text in ((0.6499, "0.64"), (0.29, "0.29"), (12.0, "12.00"), (0.0, "0")):
        (one,) = epsilon_view.bounds({"epsilon": [make_bound(epsilon=epsilon)]}).epsilon
        assert one.value == text


def test_an_open_guard_of_membership_is_said(make_bound):
    for status, said in (("passed", False), ("unknown", True), ("failed", True)):
        guards = [{"name": "membership", "status": status, "message": ""}]
        found = epsilon_view.bounds({"epsilon": [make_bound()], "guards": guards})
        assert bool(found.caution) == said
    assert not epsilon_view.bounds({"epsilon": [make_bound()]}).caution
