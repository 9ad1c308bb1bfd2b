"""Audit folders as arms of a comparison: read, refused or measured; nothing is written to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.attacks import Attack, named, public_features, scores_of_all
from confide.attacks.base import chunks
from confide.audits.comparison import RATES, THRESHOLDS, Arm, Measured
from confide.audits.differences import heldout_auroc, patient_areas, record_auc
from confide.errors import FolderError, MismatchError, MissingFileError
from confide.runs.analysis import stored_heldout, stored_signals
from confide.runs.canaries import canary_records, without_canaries
from confide.runs.erase import without_seeds
from confide.runs.models import cohort_from_table
from confide.signals import scalar
from confide.stores import AuditFolder, plain, read_json, read_table

_TOLERANCE = 1e-5
_IDS = ("record", "patient")


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """A finished audit of a recipe, as its folder holds it.

    Attributes
    ----------
    path, name : where it lies, what it is called
    manifest, summary : the two JSON files
    patients, records, groups : the tables
    folder : None where the signals were erased
    """

    path: Path
    name: str
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    patients: pd.DataFrame
    records: pd.DataFrame
    groups: pd.DataFrame
    folder: AuditFolder | None

    @classmethod
    def read(cls, path: Path, name: str) -> Stored:
        """Read a folder.

        Raises
        ------
        MissingFileError : no audit folder, or one that is not analysed yet
        FolderError : another kind of folder, an audit of a released model, or damaged files
        """
        manifest = _manifest(path)
        erased = str(manifest.get("format")).startswith("erased on ")
        folder = None if erased else AuditFolder.read(path)
        if manifest.get("source") == "model":
            raise FolderError(
                f"{path} is the audit of one released model, which says nothing of single "
                "patients; compare audits of recipes, made by `confide audit run`, `scores` or "
                "`logdir`."
            )
        if not (path / "summary.json").is_file():
            raise MissingFileError(
                f"{path} is not analysed yet: summary.json is missing. Finish it with `confide "
                f"audit run`, or `confide audit report {path}`."
            )
        summary = read_json(path / "summary.json")
        if not _whole(summary):
            raise FolderError(
                f"{path / 'summary.json'} is damaged or of another version, figures are missing; "
                f"write it again with `confide audit report {path}`."
            )
        tables = {
            key: _table(path / f"{key}.parquet", columns)
            for key, columns in (
                ("patients", ("patient", "auc_joint")),
                ("records", _IDS),
                ("groups", ("group", "value")),
            )
        }
        n_done = summary["n_models"] if folder is None else int(folder.done.sum())
        if n_done != summary["n_models"]:
            raise FolderError(
                f"{path} holds {n_done} finished models, its summary is of "
                f"{summary['n_models']}; run `confide audit report {path}` first."
            )
        return cls(
            path=path, name=name, manifest=manifest, summary=summary, folder=folder, **tables
        )

    @property
    def fraction(self) -> float | None:
        """Share of the models that hold a patient, None where it is not known."""
        found = (self.manifest.get("design") or {}).get("fraction")
        return float(found) if isinstance(found, int | float) else None


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise MissingFileError(f"There is no audit folder at {path}.")
    if (path / "compare.json").is_file():
        raise FolderError(f"{path} holds a comparison; name the audits that it compares.")
    if (path / "release.json").is_file():
        raise FolderError(
            f"{path} is a release of codes; `confide attack run` says what it gives away."
        )
    manifest = read_json(path / "manifest.json")
    asked = manifest.get("asked") if isinstance(manifest, dict) else None
    if isinstance(asked, dict):
        hint = "Its own report compares training on codes with the plain baseline."
        if (path / "certificate.json").is_file() or "attack" in str(asked.get("holds")):
            hint = "Certificates of releases are not compared with audits of recipes."
        raise FolderError(
            f"{path} holds {asked.get('holds', 'something else')!s:.60}, no audit. {hint}"
        )
    if not isinstance(manifest, dict):
        raise FolderError(f"{path / 'manifest.json'} is not the manifest of an audit.")
    return manifest


def _whole(summary: Any) -> bool:
    """Whether a summary has what is compared, in the form that audits write."""
    try:
        tail, attacks = summary["patients"]["tail"], summary["attacks"]
        counts = [summary[key] for key in ("n_models", "n_patients", "n_records")]
        counts.append(summary["patients"]["n_at_risk"])
        figures = [tail[t][key] for t in THRESHOLDS for key in ("corrected", "low", "high")]
        figures.append(summary["patients"]["fdr"])
        for found in attacks.values():
            figures += [found[key] for key in ("auc", "auc_low", "auc_high")]
            for rate in RATES:
                if point := found["tpr_at_fpr"].get(rate):
                    figures += [point[key] for key in ("tpr", "low", "high")]
        utility = summary["utility"]
        if utility is not None:
            by_value = [one for g in utility["by_group"].values() for one in g.values()]
            for measured in (utility["overall"], *by_value):
                figures += [measured[key] for key in ("auroc", "low", "high", "accuracy")]
        texts = [summary["verdict"]["status"]]
        for guard in summary["guards"]:
            texts += [guard[key] for key in ("name", "status", "message")]
    except (KeyError, TypeError, AttributeError):
        return False
    return (
        all(isinstance(n, int) and n >= 0 for n in counts)
        and all(x is None or isinstance(x, int | float) for x in figures)
        and all(isinstance(text, str) for text in texts)
    )


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    table = read_table(path)
    for column in columns:
        if column not in table:
            raise FolderError(
                f"{path} has no column {column!r}; write it again with `confide audit report "
                f"{path.parent}`."
            )
    return table


def require_same_patients(stored: Sequence[Stored]) -> list[str]:
    """Refuse audits of different records, patients, labels or held-out records.

    Returns
    -------
    warnings on what may differ: the inputs of the records

    Raises
    ------
    MismatchError : names two audits and what differs
    """
    first = stored[0]
    for other in stored[1:]:
        what = _difference(first, other)
        if what is not None:
            raise MismatchError(
                f"{first.path} and {other.path} are not of the same cohort: {what}. Their figures "
                "would differ for that alone; audit all recipes on the same data, with the same "
                "`data: test`."
            )
    prints = [_fingerprint(one) for one in stored]
    if len({p for p in prints if p is not None}) > 1:
        names = ", ".join(
            f"“{one.name}” {p:.8}" for one, p in zip(stored, prints, strict=True) if p
        )
        same = "The audits are of the same records, patients and labels, but the inputs of the "
        differ = f"{same}records or the groups differ (fingerprints: {names})."
        codes = [f"“{one.name}”" for one in stored if _of_codes(one)]
        if not codes:
            return [f"{differ} Make sure that this is meant."]
        return [
            f"{differ} Models of {', '.join(codes)} were trained on codes: another network on "
            "another input, and an attacker who holds codes instead of records. What the released "
            "codes themselves give away is in none of these figures; attack the release."
        ]
    return []


def _of_codes(stored: Stored) -> bool:
    data = (stored.manifest.get("config") or {}).get("data")
    return isinstance(data, Mapping) and data.get("name") == "release"


def _difference(a: Stored, b: Stored) -> str | None:
    for key in ("task", "n_patients", "n_records", "n_heldout_records"):
        one, other = a.summary.get(key), b.summary.get(key)
        if one != other:
            return f"{key} is {one!r:.40} and {other!r:.40}{_prints(a, b)}"
    labels = sorted(
        str(c)
        for c in {*a.records.columns, *b.records.columns}
        if c == "label" or str(c).startswith("label_")
    )
    for column in (*_IDS, *labels):
        if column not in a.records or column not in b.records:
            return f"only one has {column!r}"
        if not _equal(a.records[column], b.records[column]):
            return f"the {column} ids or values differ, or their order{_prints(a, b)}"
    if not _equal(a.patients["patient"], b.patients["patient"]):
        return "the patients differ, or their order"
    if a.folder is not None and b.folder is not None and not _same_heldout(a.path, b.path):
        return f"the held-out records differ{_prints(a, b)}"
    return None


def _prints(a: Stored, b: Stored) -> str:
    one, other = _fingerprint(a), _fingerprint(b)
    if one is None or other is None or one == other:
        return ""
    return f" (data fingerprints {one:.12} and {other:.12})"


def _fingerprint(stored: Stored) -> str | None:
    """Of the data; None where it is not known.

    That of predictions from elsewhere covers the predictions, which differ between any two recipes.
    """
    found = stored.manifest.get("fingerprint")
    return None if found is None or stored.manifest.get("source") is not None else str(found)


def _equal(one: pd.Series[Any], other: pd.Series[Any]) -> bool:
    a, b = (x.astype(object).where(x.notna(), None).tolist() for x in (one, other))
    return bool(a == b)


def _same_heldout(one: Path, other: Path) -> bool:
    a, b = (_table(path / "cohort.parquet", (*_IDS, "heldout")) for path in (one, other))
    a, b = (x[x["heldout"].to_numpy(dtype=bool)].reset_index(drop=True) for x in (a, b))
    return all(_equal(a[key], b[key]) for key in _IDS)


def differing(stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """The settings in which the audits differ, one mapping of dotted names an audit.

    A setting that an audit does not have is None there.  Audits whose settings are not known have
    none, and are not compared in this.
    """
    flat = [_flat(_recipe(one.manifest)) if _settings_known(one) else {} for one in stored]
    known = [settings for one, settings in zip(stored, flat, strict=True) if _settings_known(one)]
    keys = dict.fromkeys(key for settings in known for key in settings)
    texts = {
        key: {json.dumps(plain(s.get(key)), sort_keys=True, default=str) for s in known}
        for key in keys
    }
    differ = [key for key in keys if len(texts[key]) > 1]
    return [
        {key: settings.get(key) for key in differ if _settings_known(one)}
        for one, settings in zip(stored, flat, strict=True)
    ]


def _settings_known(stored: Stored) -> bool:
    return any(
        isinstance(stored.manifest.get(key), dict) and stored.manifest[key]
        for key in ("config", "trainer")
    )


def _recipe(manifest: Mapping[str, Any]) -> dict[str, Any]:
    config = manifest.get("config")
    recipe = config if isinstance(config, dict) and config else {}
    if not recipe and isinstance(manifest.get("trainer"), dict):
        recipe = manifest["trainer"]  # one of the user's own
    fraction = (manifest.get("design") or {}).get("fraction")
    bare = without_seeds(recipe)  # an erased audit has none
    return dict(bare) | ({} if fraction is None else {"audit": {"fraction": fraction}})


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict):
        return {prefix: settings}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def arm_of(stored: Stored, recipe: Mapping[str, Any], attack: str) -> Arm:
    """An audit with all that a comparison needs of it; its signals are read where they are left.

    Raises
    ------
    FolderError : stored signals are damaged, or do not give the figures of the summary
    """
    return Arm(
        name=stored.name,
        recipe=recipe,
        summary=stored.summary,
        patients=stored.patients,
        groups=stored.groups,
        fraction=stored.fraction,
        settings_known=_settings_known(stored),
        erased=stored.folder is None,
        measured=None if stored.folder is None else _measured(stored, stored.folder, attack),
    )


def _measured(stored: Stored, folder: AuditFolder, attack: str) -> Measured:
    table = read_table(stored.path / "cohort.parquet")
    manifest = folder.manifest
    cohort, held_out = cohort_from_table(table, manifest["task"], manifest["classes"])
    signals, population = stored_signals(folder, cohort, held_out)
    membership = folder.array("membership")[:][folder.done]
    masks = hashlib.sha256(folder.done.tobytes() + np.packbits(membership).tobytes()).hexdigest()
    real, held, patients = without_canaries(signals, membership, cohort, canary_records(table))
    features = None
    if held_out is not None and population is not None:
        features = (public_features(patients), public_features(held_out))
    (chosen,) = named([attack])
    scores = scores_of_all(chosen, real, patients.expand(held), population, features=features)
    found = record_auc(scores, held, patients)
    del scores  # as large as the signals
    _require_same_figure(stored, chosen, found.mean())
    heldout = stored_heldout(folder, held_out)
    signal = np.concatenate([scalar(real[:, part]) for part in chunks(real)], axis=1)
    areas = patient_areas(signal, held, patients)
    _require_same_areas(stored, areas.areas)
    return Measured(
        attack=found,
        areas=areas,
        auroc=None if heldout is None else heldout_auroc(*heldout),
        masks=masks,
    )


def _require_same_figure(stored: Stored, attack: Attack, auc: float) -> None:
    told = stored.summary["attacks"][attack.name]["auc"]
    if told is None or abs(auc - told) > _TOLERANCE:
        raise _outdated(stored.path)


def _require_same_areas(stored: Stored, areas: NDArray[np.float64]) -> None:
    told = stored.patients["auc_joint"].to_numpy(dtype=np.float64, na_value=np.nan)
    if told.shape != areas.shape or not np.allclose(told, areas, atol=_TOLERANCE, equal_nan=True):
        raise _outdated(stored.path)


def _outdated(path: Path) -> FolderError:
    return FolderError(
        f"The stored signals of {path} give other figures than its tables, which another version "
        f"may have written; run `confide audit report {path}` first."
    )
