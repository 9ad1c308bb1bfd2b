"""Scores against truths that are known: perfect attackers, useless ones, and slow counts."""

import math
from dataclasses import replace

import numpy as np
import pytest

from confide.audits.clustered import clopper_pearson
from confide.errors import ArgumentError
from confide.inversion import base
from confide.inversion.scores import Truth, score


def truth(n=60, *, per_patient=3, seed=0, **more):
    rng = np.random.default_rng(seed)
    codes = rng.standard_normal((n, 5, 8)).astype(np.float32)
    facts = {
        "records": rng.integers(0, 256, (n, 1, 8, 8)).astype(np.uint8),
        "patient": np.arange(n) // per_patient,
        "codes": base.ArrayCodes(codes),
    }
    return Truth(**(facts | more))


def scored(finding, of, **more):
    found = {s.name: s for s in score(finding, of, **more)}
    for s in found.values():
        assert s.low is None or s.low <= s.value <= s.high
        assert math.isnan(s.chance) or s.chance_low <= s.chance <= s.chance_high
    return found


def matching(assigned, m):
    table = np.zeros((len(assigned), m), dtype=np.float32)
    given = np.flatnonzero(assigned >= 0)
    table[given, assigned[given]] = 1
    return base.Matching(similarity=table, assigned=assigned)


class TestMatching:
    names = ("reid", "reid_identical", "patient", "first_rank", "mean_rank", "coverage")

    def test_a_perfect_one(self):
        match = np.random.default_rng(1).permutation(70)[:60]
        found = scored(matching(match, 70), truth(match=match))
        assert tuple(found) == self.names
        for name in self.names:
            assert found[name].value == 1
            assert (found[name].n, found[name].n_patients) == (60, 20)
        # Sixty of sixty, but of twenty patients.
        assert found["reid"].low == pytest.approx(clopper_pearson(20, 20)[0])
        assert found["reid"].chance == pytest.approx(1 / 70)
        assert found["mean_rank"].chance == pytest.approx(71 / 2)
        assert found["reid"].beyond_chance
        assert found["mean_rank"].beyond_chance

    def test_slow_counts(self):
        rng = np.random.default_rng(2)
        match = rng.permutation(60)
        assigned = match.copy()
        assigned[:12] = np.roll(assigned[:12], 1)
        assigned[50:] = -1
        table = rng.standard_normal((60, 60)).astype(np.float32)
        of = truth(match=match)
        found = scored(base.Matching(similarity=table, assigned=assigned), of)
        owner = {int(match[i]): int(of.patient[i]) for i in range(60)}
        assert found["reid"].value == pytest.approx(38 / 60)
        right = [a >= 0 and owner[int(a)] == p for a, p in zip(assigned, of.patient, strict=True)]
        assert found["patient"].value == pytest.approx(np.mean(right))
        assert found["coverage"].value == pytest.approx(50 / 60)
        ranks = [(table[i] > table[i, match[i]]).sum() + 1 for i in range(60)]
        assert found["mean_rank"].value == pytest.approx(np.mean(ranks))
        assert found["first_rank"].value == pytest.approx(np.mean(np.array(ranks) == 1))

    def test_identical_plaintexts_count_as_one(self):
        of = truth(match=np.arange(60))
        of.records[1] = of.records[0]
        assigned = np.arange(60)
        assigned[:2] = [1, 0]
        found = scored(matching(assigned, 60), of)
        assert found["reid"].value == pytest.approx(58 / 60)
        assert found["reid_identical"].value == 1
        assert found["reid_identical"].chance == pytest.approx((58 + 4) / 60 / 60)

    def test_chance_is_what_random_matchings_reach(self):
        rng = np.random.default_rng(3)
        of = truth(match=np.arange(60))
        runs = []
        for _ in range(100):
            table = rng.standard_normal((60, 60)).astype(np.float32)
            finding = base.Matching(similarity=table, assigned=rng.permutation(60))
            runs.append({s.name: s for s in score(finding, of)})
        for name in self.names[:5]:
            values = np.array([run[name].value for run in runs])
            error = values.std() / math.sqrt(len(runs))
            assert values.mean() == pytest.approx(runs[0][name].chance, abs=4 * error), name
            outside = [not r[name].chance_low <= r[name].value <= r[name].chance_high for r in runs]
            assert sum(outside) <= 1, name
            assert sum(run[name].beyond_chance for run in runs) <= 1

    def test_codes_whose_plaintext_the_attacker_lacks_are_left_out(self):
        match = np.arange(60)
        match[30:] = -1
        found = scored(matching(np.r_[np.arange(30), -np.ones(30, int)], 40), truth(match=match))
        assert (found["reid"].value, found["reid"].n) == (1, 30)

    def test_what_does_not_fit(self):
        good = matching(np.arange(60), 60)
        for match in (None, np.full(60, -1)):
            with pytest.raises(ArgumentError, match=r"Truth\.match"):
                score(good, truth(match=match))
        with pytest.raises(ArgumentError, match="match of at most one"):
            score(good, truth(match=np.zeros(60, int)))
        of = truth(match=np.arange(60))
        for assigned, words in ((np.zeros(60, int), "at most once"), (np.arange(60) + 1, "59")):
            with pytest.raises(ArgumentError, match=words):
                score(replace(good, assigned=assigned), of)
        with pytest.raises(ArgumentError, match="similarity"):
            score(matching(np.arange(50), 60), of)
        with pytest.raises(ArgumentError, match="NaN"):
            score(replace(good, similarity=good.similarity * np.nan), of)


class TestSubstitute:
    def found(self, predicted, **more):
        of = truth(**more)
        return scored(base.Substitute(means=lambda records: predicted(of)), of)

    def test_a_perfect_one(self):
        found = self.found(lambda of: of.codes.values.mean(axis=1))
        assert found["challenge2"].value == found["challenge2_reverse"].value == 1
        assert found["mse_ratio"].value == pytest.approx(0, abs=1e-9)
        assert found["mse_ratio"].beyond_chance
        assert found["mmd"].value == pytest.approx(0, abs=1e-3)
        assert math.isnan(found["mmd"].chance)

    def test_predicting_the_mean_is_chance(self):
        found = self.found(
            lambda of: np.tile(of.codes.values.mean(axis=(0, 1)), (60, 1)).astype(np.float32)
        )
        assert found["mse_ratio"].value == pytest.approx(1)
        assert not found["mse_ratio"].beyond_chance
        assert found["challenge2"].value == pytest.approx(1 / 60)

    def test_directions_against_a_slow_search(self):
        noise = np.random.default_rng(9).standard_normal((60, 8)).astype(np.float32)
        found = self.found(lambda of: of.codes.values.mean(axis=1) + 0.4 * noise)
        true = truth().codes.values.mean(axis=1)
        predicted = true + 0.4 * noise
        forth = [np.square(predicted - t).sum(axis=1).argmin() == i for i, t in enumerate(true)]
        back = [np.square(true - p).sum(axis=1).argmin() == i for i, p in enumerate(predicted)]
        assert np.mean(forth) != np.mean(back)
        assert found["challenge2"].value == pytest.approx(np.mean(forth))
        assert found["challenge2_reverse"].value == pytest.approx(np.mean(back))

    def test_wrong_pairs_stay_at_chance(self):
        found = self.found(lambda of: np.roll(of.codes.values.mean(axis=1), 1, axis=0))
        assert found["challenge2"].value == 0
        assert found["mse_ratio"].value > 1.5
        for name in ("challenge2", "challenge2_reverse", "mse_ratio"):
            assert not found[name].beyond_chance

    def test_what_does_not_fit(self):
        with pytest.raises(ArgumentError, match="predicted"):
            self.found(lambda of: np.ones((60, 3), dtype=np.float32))
        with pytest.raises(ArgumentError, match="predicted"):
            self.found(lambda of: np.full((60, 8), np.nan, dtype=np.float32))
        same = base.ArrayCodes(np.ones((60, 5, 8), dtype=np.float32))
        with pytest.raises(ArgumentError, match="nothing to predict"):
            self.found(lambda of: of.codes.values.mean(axis=1), codes=same)


class TestAttributes:
    def test_only_codes_that_are_asked_for(self):
        attribute = (np.arange(60) % 2).astype(np.int64)
        scores = attribute.astype(np.float32)
        scores[:12] = np.nan
        known = attribute.copy()
        known[12:24] = -1
        found = scored(base.Attributes(scores=scores), truth(attribute=known))
        assert (found["auc"].value, found["auc"].n, found["auc"].n_patients) == (1, 36, 12)
        assert found["auc"].low == pytest.approx(clopper_pearson(12, 12)[0])

    def test_scores_that_tell_nothing(self):
        rng = np.random.default_rng(0)
        inside, held = 0, 0
        for seed in range(60):
            attribute = (rng.random(20) < 0.5)[np.arange(60) // 3].astype(np.int64)
            attribute[:3], attribute[-3:] = 0, 1
            finding = base.Attributes(scores=rng.standard_normal(60).astype(np.float32))
            s = score(finding, truth(attribute=attribute), seed=seed)[0]
            inside += s.chance_low <= s.value <= s.chance_high
            held += s.low is None or s.low <= 0.5 <= s.high
        assert inside >= 59
        assert held >= 50

    def test_one_value_alone(self):
        finding = base.Attributes(scores=np.zeros(60, dtype=np.float32))
        with pytest.raises(ArgumentError, match="both values"):
            score(finding, truth(attribute=np.ones(60, dtype=np.int64)))
        with pytest.raises(ArgumentError, match=r"Truth\.attribute"):
            score(finding, truth())


class TestLinked:
    def test_a_perfect_one(self):
        of = truth()
        table = (of.patient[:, None] == of.patient).astype(np.float32)
        np.fill_diagonal(table, np.nan)
        found = scored(base.Linked(similarity=table), of)
        assert found["auc"].value == found["precision_at_1"].value == 1
        assert found["auc"].low == pytest.approx(clopper_pearson(20, 20)[0])
        assert found["precision_at_1"].chance == pytest.approx(2 / 59, rel=0.05)
        assert found["auc"].beyond_chance

    def test_patients_of_one_code_are_no_part_of_the_precision(self):
        of = truth(n=10)
        of = replace(of, patient=np.array([0, 0, 1, 1, 2, 3, 4, 5, 6, 7]))
        table = (of.patient[:, None] == of.patient).astype(np.float32)
        np.fill_diagonal(table, np.nan)
        found = scored(base.Linked(similarity=table), of)
        assert (found["precision_at_1"].value, found["precision_at_1"].n) == (1, 4)
        assert found["precision_at_1"].chance == pytest.approx(1 / 9, rel=0.1)

    def test_two_releases(self):
        of = truth(other_patient=np.r_[np.arange(10), [99, 98]])
        table = (of.patient[:, None] == of.other_patient).astype(np.float32)
        found = scored(base.Linked(similarity=table), of)
        assert found["auc"].value == 1
        assert (found["precision_at_1"].value, found["precision_at_1"].n) == (1, 30)

    def test_noise_is_chance(self):
        rng = np.random.default_rng(0)
        inside = {"auc": 0, "precision_at_1": 0}
        for _ in range(25):
            vectors = rng.standard_normal((60, 4))
            table = (vectors @ vectors.T).astype(np.float32)
            np.fill_diagonal(table, np.nan)
            for s in score(base.Linked(similarity=table), truth()):
                inside[s.name] += s.chance_low <= s.value <= s.chance_high
        assert min(inside.values()) >= 24

    def test_nothing_to_link(self):
        table = np.zeros((60, 60), dtype=np.float32)
        with pytest.raises(ArgumentError, match="got 0 and 1,770"):
            score(base.Linked(similarity=table), truth(per_patient=1))


class TestMaps:
    def test_a_perfect_one_and_noise(self):
        rng = np.random.default_rng(0)
        true = rng.standard_normal((60, 16)).astype(np.float32)
        maps = true + 7 * rng.standard_normal(16).astype(np.float32)
        found = scored(base.Maps(maps=maps, expected=lambda records: true), truth())
        for name in ("map_correlation", "linkage_first_rank", "linkage_assigned"):
            assert found[name].value == pytest.approx(1)
            assert found[name].beyond_chance
        inside = 0
        for _ in range(40):
            noise = rng.standard_normal((60, 16)).astype(np.float32)
            found = scored(base.Maps(maps=noise, expected=lambda records: true), truth())
            inside += not any(s.beyond_chance for s in found.values())
        assert inside >= 39
        assert found["linkage_assigned"].chance == pytest.approx(1 / 60)

    def test_identical_records_count_as_one(self):
        of = truth()
        of.records[1] = of.records[0]
        true = np.random.default_rng(0).standard_normal((60, 16)).astype(np.float32)
        true[1] = true[0]
        maps = true.copy()
        maps[:2] += 0.01 * np.random.default_rng(1).standard_normal((2, 16)).astype(np.float32)
        found = scored(base.Maps(maps=maps, expected=lambda records: true), of)
        assert found["linkage_first_rank"].value == found["linkage_assigned"].value == 1


class TestReconstruction:
    def test_a_perfect_one_and_the_mean(self):
        of = truth()
        found = scored(base.Reconstruction(records=of.records.astype(np.float32)), of)
        assert found["correlation"].value == found["first_rank"].value == pytest.approx(1)
        assert found["mse_ratio"].value == pytest.approx(0, abs=1e-9)
        mean = np.tile(of.records.mean(axis=0), (60, 1, 1, 1)).astype(np.float32)
        found = scored(base.Reconstruction(records=mean), of)
        assert found["correlation"].value == 0
        assert found["mse_ratio"].value == pytest.approx(1)
        assert found["first_rank"].value == pytest.approx(1 / 60)
        assert not any(s.beyond_chance for s in found.values())

    def test_a_picture_of_another_record(self):
        of = truth()
        other = np.roll(of.records, 1, axis=0).astype(np.float32)
        found = scored(base.Reconstruction(records=other), of)
        assert not any(s.beyond_chance for s in found.values())


def test_truths_that_do_not_fit():
    with pytest.raises(ArgumentError, match="records"):
        truth(records=np.zeros((3, 1, 8, 8)))
    with pytest.raises(ArgumentError, match="patient"):
        truth(patient=np.zeros(3, int))
    with pytest.raises(ArgumentError, match="match"):
        truth(match=np.zeros(3, int))
    with pytest.raises(ArgumentError, match="at least one"):
        truth(codes=base.ArrayCodes(np.zeros((0, 5, 8), dtype=np.float32)))
    with pytest.raises(ArgumentError, match="no scores"):
        score(base.Finding(), truth())
