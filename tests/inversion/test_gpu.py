"""Every attack runs on a CUDA device, and finds there what it finds on the CPU."""

import numpy as np
import pytest
import torch

from confide.inversion import base
from confide.inversion.scores import score
from confide.inversion.settings import NEEDS
from confide.inversion.suite import KNOWN
from inversion.worlds import world

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TRAINED = ("mmd", "noise-mmd", "discriminator", "transfer", "plaintext", "wrongly-paired")


@pytest.fixture(scope="module")
def linear():
    return world("linear", n_patients=60)


@pytest.mark.parametrize("name", NEEDS)
def test_on_a_gpu(linear, name):
    attack = KNOWN[name].of("quick")
    known = linear.known(attack.knowledge)
    scores = []
    for device in ("cuda", "cpu"):
        if device == "cpu" and name in (*TRAINED, "assignment"):
            continue  # seconds there, minutes here
        work = base.Work(seed=3, device=torch.device(device), seconds=5.0)
        finding = attack(known, work)
        found = score(finding, linear.truth(attack.knowledge), seed=1)
        scores.append({one.name: one.value for one in found})
    assert np.isfinite(scores[0][attack.headline])
    if name not in TRAINED:
        assert scores[0][attack.headline] >= attack.breaks_at - 0.05
    for one in scores[1:]:
        assert scores[0][attack.headline] == pytest.approx(one[attack.headline], abs=0.05)
