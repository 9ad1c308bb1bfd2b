"""Every known attack keeps the contract."""

import numpy as np
import pytest

from attacks.contract import AttackContract, study
from confide.attacks import (
    KNOWN,
    RMIA,
    CalibratedLoss,
    Global,
    LiRA,
    LossThreshold,
    LossTraceIQR,
    OfflineLiRA,
    OfflineRMIA,
    PerRecord,
    QuantileRegression,
    named,
)
from confide.errors import ArgumentError


class TestLiRA(AttackContract):
    attack = LiRA()


class TestLiRAGlobal(AttackContract):
    attack = LiRA(Global())


class TestLiRAPerRecord(AttackContract):
    attack = LiRA(PerRecord())


class TestOfflineLiRA(AttackContract):
    attack = OfflineLiRA()


class TestRMIA(AttackContract):
    attack = RMIA()


class TestOfflineRMIA(AttackContract):
    attack = OfflineRMIA()


class TestLossThreshold(AttackContract):
    attack = LossThreshold()
    uses_references = False


class TestCalibratedLoss(AttackContract):
    attack = CalibratedLoss()


class TestLossTraceIQR(AttackContract):
    attack = LossTraceIQR()
    uses_references = False


class WithPopulation(QuantileRegression):
    """Given people of the same kind where the suite gives none."""

    def score(self, target, references, membership, population=None):
        if population is None:
            z = self._people(len(references) + 1, target.shape[1:])
            population = (z[0], z[1:])
        return super().score(target, references, membership, population)

    def leave_one_out(self, signals, membership, population=None):
        if population is None:
            population = self._people(signals.shape[0], signals.shape[2:])
        return super().leave_one_out(signals, membership, population)

    def _people(self, n_models, shape):
        z = study(991, 2, 300)[0][:1].reshape(1, 300, *(1,) * len(shape))
        return np.broadcast_to(z, (n_models, 300, *shape))


class TestQuantileRegression(AttackContract):
    attack = WithPopulation()
    uses_references = False


def test_every_known_attack_is_tested():
    tested = {c.attack.name for c in AttackContract.__subclasses__()}
    assert set(KNOWN) <= tested


def test_named():
    first, second = named(["lira", RMIA(gamma=2.0)])
    assert isinstance(first, LiRA)
    assert second.gamma == 2.0
    with pytest.raises(ArgumentError, match="Did you mean 'lira'"):
        named(["lirra"])
    with pytest.raises(ArgumentError, match="gamma"):
        RMIA(gamma=0.0)
    with pytest.raises(ArgumentError, match=r"a=1\.5"):
        OfflineRMIA(a=1.5)


@pytest.mark.parametrize(
    "attack",
    [
        LiRA(PerRecord()),
        OfflineLiRA(PerRecord()),
        RMIA(),
        OfflineRMIA(a=0.4),
        LossThreshold(),
        CalibratedLoss(),
        LossTraceIQR(),
    ],
)
def test_leave_one_out_is_score_without_the_pair(attack):
    signals, held = study(0, n_models=8, n_records=12, leak=0.5, shape=(2,))
    population, _ = study(1, n_models=8, n_records=9, shape=(2,))
    population = population if "rmia" in attack.name else None
    scores = attack.leave_one_out(signals, held, population)
    contract = AttackContract()
    contract.attack = attack
    for t in range(8):
        for x in range(12):
            plain = contract.score_without_pair(signals, held, t, x, population)
            np.testing.assert_allclose(scores[t, x], plain[x], rtol=1e-9, atol=1e-12)
