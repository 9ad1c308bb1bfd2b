"""An audit of a released model from its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide._tables import coded, read_table, require_columns, text
from confide.audits.guards import check_accepted
from confide.audits.result import AuditResult
from confide.cohort import Cohort
from confide.datasets import Images, Table
from confide.datasets.base import ByColumn, naming
from confide.datasets.xrv import XrvCheXpert, XrvMimic
from confide.errors import ConfigError, TableError
from confide.runs.model_archives import kind_of
from confide.runs.model_files import Opened, open_model
from confide.runs.model_settings import ModelConfig, ModelSettings, Output
from confide.runs.models import Progress, silent
from confide.runs.released import Model, Records, audit_model
from confide.runs.xrv import is_network, open_network

_WORDS = {"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0}


def audit_model_config(
    config: ModelConfig,
    folder: Path,
    out: Path,
    *,
    accept: Sequence[str] = (),
    progress: Progress = silent,
) -> AuditResult:
    """Audit what a configuration describes; see :func:`confide.runs.released.audit_model`.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load_as`
    out : the audit folder
    """
    check_accepted(accept)
    records, frame = _records(config, folder)
    models = [
        _model(settings, where, records.cohort, frame, config, folder)
        for where, settings in _named(config)
    ]
    return audit_model(
        models[0],
        records,
        out,
        references=models[1:],
        seed=config.seed,
        batch_size=config.batch_size,
        accept=accept,
        title=config.target.model.name,
        progress=progress,
    )


def _named(config: ModelConfig) -> list[tuple[str, ModelSettings]]:
    return [
        ("target", config.target),
        *((f"references.{i}", one) for i, one in enumerate(config.references)),
    ]


def _records(config: ModelConfig, folder: Path) -> tuple[Records, pd.DataFrame | None]:
    """The records, and the table in which the columns of members are."""
    data = config.data
    frame: pd.DataFrame | None
    features: tuple[str, ...] = ()
    if isinstance(data, XrvCheXpert | XrvMimic):
        opened = data.open(folder)
        frame = opened.frame
    elif isinstance(data, Table):
        features = data.features or ()
        loaded, frame = data.load(folder), read_table(folder / data.path)
        inputs = _plain_inputs(frame, features)
        records = Records(
            cohort=loaded.cohort,
            read=lambda rows: inputs[rows],
            fingerprint=loaded.fingerprint(),
        )
    else:
        opened = data.open(folder)
        frame = read_table(folder / data.path) if isinstance(data, Images) else opened.frame
    if not isinstance(data, Table):
        records = Records(
            cohort=opened.cohort,
            read=opened.read,
            fingerprint=opened.fingerprint(),
            notes=opened.notes,
        )
    for where, settings in _named(config):
        column = _column(settings)
        if column is not None:
            _refuse_giveaway(where, column, features, records.cohort)
    return records, frame


def _plain_inputs(frame: pd.DataFrame, features: Sequence[str]) -> NDArray[np.float32]:
    """(n_records, n_features) as they stand in the table: what was done to them is the model's."""
    if not features:
        raise ConfigError(
            "data.features is missing; name the columns that the models take, in their order."
        )
    require_columns(frame, features)
    for name in features:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            raise TableError(
                f"Column {name!r} is an input of the models and holds no numbers; write it in "
                "numbers as the models take it."
            )
    return frame[list(features)].to_numpy(dtype=np.float32, na_value=np.nan)


def _column(settings: ModelSettings) -> str | None:
    return settings.members.column if isinstance(settings.members, ByColumn) else settings.members


def _refuse_giveaway(where: str, column: str, features: tuple[str, ...], cohort: Cohort) -> None:
    """Membership is what attackers do not know: it may be no input and no group."""
    if column in features:
        raise ConfigError(
            f"{where}.members is the column {column!r}, which is also an input of the models; "
            "name the inputs under data.features without it."
        )
    if column in cohort.groups.columns:
        raise ConfigError(
            f"{where}.members is the column {column!r}, which is also a group; leave it out of "
            "data.groups."
        )


def _model(
    settings: ModelSettings,
    where: str,
    cohort: Cohort,
    frame: pd.DataFrame | None,
    config: ModelConfig,
    folder: Path,
) -> Model:
    if settings.members is None and where == "target":
        raise ConfigError(
            "target.members is missing; name the column that says who was trained on."
        )
    members = None
    if settings.members is not None:
        if frame is None or not len(frame.columns):
            raise ConfigError(
                f"{where}.members names a column, but data of name {config.data.name!r} have no "
                "table; use table or images."
            )
        members = _members(frame, settings.members, where)
    common: dict[str, Any] = {
        "members": members,
        "name": settings.model.name,
        "mean": settings.mean,
        "scale": settings.scale,
        "recipe": settings.recipe,
    }
    path = folder / settings.model
    if is_network(settings.model) and not path.exists():
        weights = None if settings.weights is None else folder / settings.weights
        found = open_network(str(settings.model), weights, performance=config.performance)
        mark = str(settings.model) if weights is None else file_digest(weights)
        return _of(found, settings, where, common | {"mark": mark})
    if kind_of(path) == "table":
        outputs, output = predictions_of(path, cohort)
        return Model(
            model=outputs,
            output=settings.output or output,
            classes=settings.classes,
            **common,
            mark=file_digest(path),
        )
    found = open_model(path, trusted=settings.trusted, performance=config.performance)
    return _of(found, settings, where, common | {"mark": file_digest(path)})


def _of(found: Opened, settings: ModelSettings, where: str, common: dict[str, Any]) -> Model:
    if found.output is not None and settings.output not in (None, found.output):
        raise ConfigError(
            f"{where}.output is {settings.output}, but this model returns {found.output}."
        )
    return Model(
        model=found.run,
        output=found.output or settings.output,
        classes=settings.classes or found.classes,
        **common,
    )


def _members(frame: pd.DataFrame, members: str | ByColumn, where: str) -> NDArray[np.float64]:
    """(n_records,) 1, 0 or NaN from a column."""
    column = members.column if isinstance(members, ByColumn) else members
    require_columns(frame, [column])
    codes, values = coded(frame[column], column)
    names = [text(value) for value in values]
    if isinstance(members, ByColumn):
        if text(members.value) not in names:
            raise TableError(
                f"{where}.members: no record has the value {members.value!r} in column {column!r}; "
                f"its values are {', '.join(names[:10])}."
            )
        found = [1.0 if name == text(members.value) else 0.0 for name in names]
    else:
        unknown = [name for name in names if name.strip().lower() not in _WORDS]
        if unknown:
            raise TableError(
                f"{where}.members: column {column!r} holds {unknown[0]!r:.80}; expected 1, 0 or "
                "nothing, or name the value of members as {column: ..., value: ...}."
            )
        found = [_WORDS[name.strip().lower()] for name in names]
    return np.asarray([*found, np.nan])[codes]


def predictions_of(path: Path, cohort: Cohort) -> tuple[NDArray[np.float64], Output | None]:
    """Outputs of a table of predictions, in the order of the cohort's records.

    Parameters
    ----------
    path : CSV or Parquet with the columns record and logit_0 ... or prob_0 ..., one row a record,
        or one a record and view with a column view

    Returns
    -------
    outputs : (n_records, n_views, n_outputs); NaN for records of which the table says nothing
    output : "probabilities", or None for the columns logit_0 ..., which may hold them all the same
    """
    frame = read_table(path)
    with naming(path):
        require_columns(frame, ["record"])
        kinds = {
            kind: sorted(
                (
                    str(c)
                    for c in frame.columns
                    if str(c).removeprefix(f"{kind}_").isdigit() and str(c).startswith(f"{kind}_")
                ),
                key=lambda c: int(c.rpartition("_")[2]),
            )
            for kind in ("logit", "prob")
        }
        given = [kind for kind, columns in kinds.items() if columns]
        if len(given) != 1:
            raise TableError("The table needs either logit_0, logit_1, ... or prob_0, prob_1, ...")
        columns = kinds[given[0]]
        if columns == ["prob_0"]:
            raise TableError("The table has prob_0 alone; give prob_0 and prob_1.")
        require_columns(frame, [f"{given[0]}_{i}" for i in range(len(columns))])
        values = frame[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
        bad = ~np.isfinite(values)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise TableError(
                f"Column {columns[column]!r} in row {row} is "
                f"{_plain(frame[columns[column]], row)!r}; expected a finite number."
            )
        view = np.zeros(len(frame), dtype=np.intp)
        if "view" in frame.columns:
            view = pd.factorize(frame["view"], sort=True)[0]
            if (view < 0).any():
                raise TableError(f"Column 'view' is missing in row {int(np.argmax(view < 0))}.")
        place = _places(frame["record"], cohort)
        known = place >= 0
        n_views = int(view.max()) + 1
        slot = place[known] * n_views + view[known]
        if len(np.unique(slot)) < len(slot):
            row = int(np.flatnonzero(known)[pd.Series(slot).duplicated().to_numpy().argmax()])
            raise TableError(f"Record {_plain(frame['record'], row)!r} is given twice (row {row}).")
        outputs = np.full((cohort.n_records * n_views, len(columns)), np.nan)
        outputs[slot] = values[known]
    output: Output | None = "probabilities" if given[0] == "prob" else None
    return outputs.reshape(cohort.n_records, n_views, len(columns)), output


def _plain(column: pd.Series[Any], row: int) -> Any:
    """A value without its NumPy type, whose repr is short."""
    return column.iloc[row : row + 1].tolist()[0]


def _places(record: pd.Series[Any], cohort: Cohort) -> NDArray[np.intp]:
    """Row of the cohort for each row of a table, -1 for other records; ids compare as text."""
    where = {text(one): row for row, one in enumerate(cohort.record.tolist())}
    return np.asarray([where.get(text(one), -1) for one in record.tolist()], dtype=np.intp)


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
