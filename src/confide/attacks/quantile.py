"""Quantile regression: what is normal for such a record, learnt from records that were not held.

Bertran et al., "Scalable membership inference attacks via quantile regression", NeurIPS 2023.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.attacks.base import Attack, Signals, check_membership, chunks, no_population
from confide.cohort import Cohort
from confide.errors import ArgumentError
from confide.signals import scalar

Floats = NDArray[np.float64]
Features = tuple[pd.DataFrame, pd.DataFrame]
"""What is known of the audited records, and of the population, without asking any model."""

_UPPER = 0.9
_LEAST_SPREAD = 0.1  # of the whole population's
_POPULATION = 8_000
"""Evenly spaced population records that are learnt from, where there are more."""
_CATEGORIES = 250  # of a column; scikit-learn bins into 255
_FEW = 20


class QuantileRegression(Attack):
    """Where a signal lies among those of similar records that the target was not trained on.

    Without reference models: for each target alone, gradient boosting learns the median and the
    90 % quantile of the signal, given the features of a record, from the population.  The score is
    (signal - median) / (quantile - median).  Where the signals of similar records have one form up
    to place and width, thresholds on it are thresholds at one false positive rate for all records,
    which is what the authors regress on rate by rate.

    The signal is the mean over known labels and views.  Without features the regression is a
    constant, and the order of records that of their signals.
    """

    name: ClassVar[str] = "quantile"
    needs_population: ClassVar[bool] = True

    def score(
        self,
        target: Floats,
        references: Floats,
        membership: NDArray[np.bool_],
        population: tuple[Floats, Floats] | None = None,
        *,
        features: Features | None = None,
    ) -> Floats:
        """See :meth:`Attack.score`; references are not used, and the population is needed.

        Parameters
        ----------
        features : a row for each record, and one for each population record, with the same
            columns; numbers are ordered, everything else is a category; missing values allowed

        Raises
        ------
        ArgumentError : no population, one with fewer than 20 known signals, or features that do
            not fit
        """
        if population is None:
            raise no_population(self)
        z = _known(population[0][None])
        own = scalar(target[None])[0]
        return _scores(own, z[0], _Table.of(features, len(own), z.shape[1]))

    def leave_one_out(
        self,
        signals: Signals,
        membership: NDArray[np.bool_],
        population: Floats | None = None,
        *,
        features: Features | None = None,
    ) -> Floats:
        """See :meth:`Attack.leave_one_out` and :meth:`score`; nothing needs to be left out."""
        check_membership(signals, membership)
        if population is None:
            raise no_population(self)
        z = _known(population)
        n_models, n_records = signals.shape[:2]
        if len(z) != n_models:
            raise ArgumentError(
                f"Expected population signals of {n_models} models, got those of {len(z)}."
            )
        table = _Table.of(features, n_records, z.shape[1])
        result = np.empty((n_models, n_records))
        for part in chunks(signals):
            result[:, part] = scalar(signals[:, part])
        for t in range(n_models):
            result[t] = _scores(result[t], z[t], table)
        return result


def public_features(cohort: Cohort) -> pd.DataFrame:
    """Labels and groups of the records of a cohort, as features: one row a record.

    An attacker who holds a record is taken to know its label, as for every other attack here, and
    the groups of its patient.  Membership is nowhere in them.
    """
    label = cohort.label.reshape(cohort.n_records, -1).astype(object)
    columns: dict[str, Any] = {f"label_{i}": column for i, column in enumerate(label.T)}
    columns |= {f"group_{name}": cohort.groups[name].to_numpy() for name in cohort.groups.columns}
    return pd.DataFrame(columns)


class _Table:
    """Features as numbers: the population's, and the different rows of the records'.

    Attributes
    ----------
    population : (n_population, n_features); a category is its number, negative where it is missing
        or not in the population
    rows : (n_rows, n_features) the records'; records that agree share a row
    row_of : (n_records,) the row of each record
    is_category : (n_features,)
    """

    def __init__(self, records: Floats, population: Floats, is_category: NDArray[np.bool_]) -> None:
        self.population, self.is_category = population, is_category
        if is_category.all():
            self.rows, row_of = np.unique(records, axis=0, return_inverse=True)
            self.row_of = row_of.ravel()
        else:
            self.rows, self.row_of = records, np.arange(len(records))

    @classmethod
    def of(cls, features: Features | None, n_records: int, n_population: int) -> _Table | None:
        """Check and encode features; None where there is nothing to tell records apart by."""
        if features is None or features[0].shape[1] == 0:
            return None
        records, population = features
        if (len(records), len(population)) != (n_records, n_population):
            raise ArgumentError(
                f"Expected features of {n_records} records and {n_population} population records, "
                f"got {len(records)} and {len(population)} rows."
            )
        if list(records.columns) != list(population.columns):
            raise ArgumentError(
                "The features of the records and of the population have different columns: "
                f"{list(records.columns)} and {list(population.columns)}."
            )
        encoded = [_encoded(records[name], population[name]) for name in records.columns]
        return cls(
            np.column_stack([r for r, _, _ in encoded]),
            np.column_stack([p for _, p, _ in encoded]),
            np.array([is_category for _, _, is_category in encoded]),
        )


def _encoded(records: pd.Series[Any], population: pd.Series[Any]) -> tuple[Floats, Floats, bool]:
    """Both columns as floats, and whether they are categories."""
    both = (records, population)
    if all(pd.api.types.is_numeric_dtype(c) and not pd.api.types.is_bool_dtype(c) for c in both):
        numbers = [c.to_numpy(dtype=np.float64, na_value=np.nan) for c in both]
        if any(np.isinf(n).any() for n in numbers):
            raise ArgumentError(f"Feature {records.name!r} is infinite in some record.")
        return numbers[0], numbers[1], False
    # The commonest of the population; the rest has too few records to learn from.
    text = [c.astype(object).map(str, na_action="ignore") for c in both]
    known = text[1].value_counts().index[:_CATEGORIES]
    codes = [known.get_indexer(pd.Index(t)).astype(np.float64) for t in text]
    return codes[0], codes[1], True


def _known(population: Floats) -> Floats:
    """(n_models, n_population) one signal a record."""
    z = scalar(population)
    n_known = int((~np.isnan(z)).sum(axis=1).min())
    if n_known < _FEW:
        raise ArgumentError(
            f"Attack 'quantile' needs at least {_FEW} population records with a known label, got "
            f"{n_known}."
        )
    return z


def _scores(own: Floats, z: Floats, table: _Table | None) -> Floats:
    """Scores (n_records,) of one target from its signals of records and population."""
    known = np.flatnonzero(~np.isnan(z))
    known = known[:: -(-len(known) // _POPULATION)]
    middle, upper = np.quantile(z[known], [0.5, _UPPER])
    least = _LEAST_SPREAD * (upper - middle)
    if table is not None and upper > middle:
        middle = _regressed(table, known, z, 0.5)
        upper = _regressed(table, known, z, _UPPER)
        middle, upper = middle[table.row_of], upper[table.row_of]
    spread = np.maximum(upper - middle, least)
    return (own - middle) / np.where(spread > 0, spread, 1.0)


def _regressed(table: _Table, known: NDArray[np.intp], z: Floats, level: float) -> Floats:
    """(n_rows,) conditional quantiles of the signal."""
    # Takes a second to import, and few audits ask for it.
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        loss="quantile",
        quantile=level,
        max_iter=40,
        learning_rate=0.15,
        max_leaf_nodes=15,
        min_samples_leaf=20,
        categorical_features=table.is_category,
        early_stopping=False,
        random_state=0,
    )
    predicted: Floats = model.fit(table.population[known], z[known]).predict(table.rows)
    return predicted
