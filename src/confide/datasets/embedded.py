"""Real data that come with scikit-learn: the Wisconsin diagnostic breast cancer study."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from confide.cohort import Cohort
from confide.datasets.base import ByFraction, Data, Source
from confide.datasets.features import feature_matrix


class Embedded(Source):
    """569 patients, one record each: 30 measures of cell nuclei, benign or malignant.

    The group `radius` is the third of the cohort by mean radius: small, medium or large.
    Street, Wolberg and Mangasarian, "Nuclear feature extraction for breast tumor diagnosis",
    Biomedical Image Processing and Biomedical Visualization 1993.

    Parameters
    ----------
    test : which patients are held out
    """

    description: ClassVar[str] = "breast cancer Wisconsin (diagnostic): 569 patients, 30 features"

    name: Literal["embedded"] = "embedded"
    test: ByFraction = ByFraction()

    def load(self, folder: Path = Path()) -> Data:
        """See :meth:`Source.load`; nothing is read from `folder`."""
        from sklearn.datasets import load_breast_cancer

        bunch = load_breast_cancer()
        frame = pd.DataFrame(bunch.data, columns=bunch.feature_names)
        n = len(frame)
        ids = np.array([f"wdbc-{row:03d}" for row in range(n)], dtype=object)
        third = np.argsort(np.argsort(bunch.data[:, 0], kind="stable")) * 3 // n
        cohort = Cohort(
            record=ids,
            patient=ids,
            label=(1 - bunch.target).astype(np.int64),  # there, 0 is malignant
            task="binary",
            classes=("benign", "malignant"),
            groups=pd.DataFrame(
                {"radius": np.array(["small", "medium", "large"], dtype=object)[third]},
                dtype=object,
            ),
        )
        test = self.test.mask(cohort, frame)
        inputs, names, notes = feature_matrix(frame, list(frame.columns), ~test)
        return Data(cohort=cohort, inputs=inputs, test=test, feature_names=names, notes=notes)
