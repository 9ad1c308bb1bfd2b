"""Made-up chest images with planted leakage, for tests and for trying things out."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from confide.cohort import Cohort
from confide.datasets import chest
from confide.datasets.base import ByFraction, Data, Source
from confide.datasets.images import Side

_PIXELS_AT_ONCE = 2**15  # fits the cache: half the time of 2**20; does not change the images


class Phantom(Source):
    """Drawings of chest radiographs; patients, and how hard they are to fit, by design.

    The label is whether a lung has an opacity.  Images of a patient share the anatomy and the
    opacity and differ in position, exposure and noise.  Groups: `sex`; `rare`, whether there is
    a pacemaker; `planted`, whether the patient is "typical" or "hard".  A hard patient has the
    wrong label on every image and an anatomy out of the ordinary, so that a model fits the label
    only by memorising the patient: an audit should find these.

    The same settings give the same data on every machine.

    Parameters
    ----------
    n_patients : number of patients
    max_views : a patient has 1 to `max_views` images, each number as likely
    size : height and width
    rare : share of the patients with a pacemaker (rounded to whole patients)
    hard : share of the patients that are hard to fit (rounded to whole patients)
    opacity : density of an opacity, in shares of white
    mislabelled : share of the other patients whose label is wrong on every image (rounded to whole
        patients); nothing in the images or groups tells them
    seed : of everything but the split
    test : which patients are held out
    """

    description: ClassVar[str] = "made-up chest images with planted leakage, any size, from a seed"

    name: Literal["phantom"] = "phantom"
    n_patients: int = Field(default=500, ge=2)
    max_views: int = Field(default=4, ge=1)
    size: tuple[Side, Side] = (64, 64)
    rare: float = Field(default=0.05, ge=0, le=1)
    hard: float = Field(default=0.05, ge=0, le=1)
    opacity: float = Field(default=0.5, ge=0, le=1)
    mislabelled: float = Field(default=0.0, ge=0, le=1)
    seed: int = Field(default=0, ge=0)
    test: ByFraction = ByFraction()

    def load(self, folder: Path = Path()) -> Data:
        """See :meth:`Source.load`; nothing is read from `folder`."""
        n = self.n_patients
        of_patients, of_images, of_pixels, of_labels = (
            np.random.default_rng(child) for child in np.random.SeedSequence(self.seed).spawn(4)
        )
        hard = _some(of_patients, n, self.hard)
        pacemaker = _some(of_patients, n, self.rare)
        female = of_patients.random(n) < 0.5
        label = of_patients.random(n) < 0.5
        body = chest.anatomy(of_patients, n, hard)
        body |= {
            "female": female.astype(np.float32),
            "pacemaker": pacemaker.astype(np.float32),
            "opaque": (label ^ hard) * np.float32(self.opacity),
        }
        typical = np.flatnonzero(~hard)
        wrong = typical[_some(of_labels, len(typical), self.mislabelled)]
        label[wrong] = ~label[wrong]
        texture = of_patients.random((n, chest.TEXTURE, chest.TEXTURE), dtype=np.float32)
        n_views = of_patients.integers(1, self.max_views + 1, n)
        owner = np.repeat(np.arange(n), n_views)
        view = chest.positions(of_images, len(owner))
        groups = {
            "sex": np.where(female, "female", "male"),
            "rare": np.where(pacemaker, "pacemaker", "no pacemaker"),
            "planted": np.where(hard, "hard", "typical"),
        }
        number = np.concatenate([np.arange(k) for k in n_views])
        patient = np.array([f"phantom-{i:04d}" for i in range(n)], dtype=object)[owner]
        cohort = Cohort(
            record=np.array(
                [f"{p}-{k}" for p, k in zip(patient, number, strict=True)], dtype=object
            ),
            patient=patient,
            label=label[owner].astype(np.int64),
            task="binary",
            classes=("clear", "opacity"),
            groups=pd.DataFrame({k: v[owner] for k, v in groups.items()}, dtype=object),
        )
        inputs = np.empty((len(owner), 1, *self.size), dtype=np.uint8)
        step = max(1, _PIXELS_AT_ONCE // (self.size[0] * self.size[1]))
        for start in range(0, len(owner), step):
            rows = slice(start, start + step)
            inputs[rows, 0] = chest.draw(
                {name: values[owner[rows]] for name, values in body.items()},
                {name: values[rows] for name, values in view.items()},
                texture[owner[rows]],
                _noise(of_pixels, len(owner[rows]), self.size),
            )
        test = self.test.mask(cohort, cohort.groups)
        return Data(cohort=cohort, inputs=inputs, test=test)


def _some(rng: np.random.Generator, n: int, share: float) -> NDArray[np.bool_]:
    chosen = np.zeros(n, dtype=bool)
    chosen[rng.permutation(n)[: round(share * n)]] = True
    return chosen


def _noise(rng: np.random.Generator, n: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Mean 0 and variance 1: twice the sum of three uniforms; needs no transcendental function."""
    one = rng.random((n, 3, *size), dtype=np.float32)
    return 2 * (one[:, 0] + one[:, 1] + one[:, 2]) - np.float32(3)
