"""Every known attack keeps the contract."""

import numpy as np
import pytest

from attacks.contract import AttackContract, study
from confide.attacks import (
    KNOWN,
    RMIA,
    Global,
    LiRA,
    LossThreshold,
    OfflineLiRA,
    OfflineRMIA,
    PerRecord,
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


def test_every_known_attack_is_tested():
    tested = {c.attack.name for c in AttackContract.__subclasses__()}
    assert tested == set(KNOWN)


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
    [LiRA(PerRecord()), OfflineLiRA(PerRecord()), RMIA(), OfflineRMIA(a=0.4), LossThreshold()],
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
