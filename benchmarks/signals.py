"""Train many models of a recipe and keep their signals in one file, for studies of attacks.

The file tells who was in which training set; treat it as the data themselves.

    python benchmarks/signals.py benchmarks/cohorts/phantom.yaml --models 64 --out phantom.npz

`read` gives the arrays back.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide import masks
from confide.cohort import Cohort
from confide.config import load
from confide.runs.launch import split, trainer_of
from confide.runs.models import model_seeds
from confide.signals import signals as to_signals

_LEVELS = 65_535


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """Signals of many models about one cohort.

    Attributes
    ----------
    signals : (n_models, n_records, n_views) float64
    membership : (n_models, n_patients) bool
    population : (n_models, n_population, n_views) float64, of records that no model holds
    cohort : the audited records; patients are numbers
    population_label : (n_population,) class indices
    trace : (n_models, n_records) inter-quartile ranges of loss traces, None where not kept
    """

    signals: NDArray[np.float64]
    membership: NDArray[np.bool_]
    population: NDArray[np.float64]
    cohort: Cohort
    population_label: NDArray[np.int64] | None
    trace: NDArray[np.float32] | None


def read(path: Path | str) -> Study:
    """Read a file of this script."""
    with np.load(path, allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files}
    n_patients = int(kept["patient_index"].max()) + 1
    n_classes = int(kept["n_classes"])
    cohort = Cohort(
        record=np.arange(len(kept["label"])),
        patient=kept["patient_index"],
        label=kept["label"],
        task="binary" if n_classes == 2 else "multiclass",
        classes=tuple(str(i) for i in range(n_classes)),
    )
    return Study(
        signals=_restored(kept, "signal"),
        membership=np.unpackbits(kept["membership"], axis=1, count=n_patients).astype(bool),
        population=_restored(kept, "population"),
        cohort=cohort,
        population_label=kept.get("population_label"),
        trace=kept.get("trace"),
    )


def _stored(values: NDArray[np.float64], name: str) -> dict[str, NDArray[Any]]:
    """65,536 levels a record and view, from its smallest to its largest signal over models."""
    low = values.min(axis=0)
    step = np.maximum((values.max(axis=0) - low) / _LEVELS, 1e-30)
    return {name: np.rint((values - low) / step).astype(np.uint16), f"{name}_low": low} | {
        f"{name}_step": step
    }


def _restored(kept: dict[str, NDArray[Any]], name: str) -> NDArray[np.float64]:
    return kept[name] * kept[f"{name}_step"] + kept[f"{name}_low"]


def make(
    config: Path, n_models: int, n_population: int, seconds: float, trace: bool
) -> dict[str, Any]:
    """Train models until `seconds` are over and return what the file holds."""
    settings, folder = load(config)
    if trace:
        settings = settings.model_copy(
            update={"train": settings.train.model_copy(update={"trace": True})}
        )
    data = settings.data.load(folder)
    cohort, heldout = split(data)
    if heldout is None:
        raise SystemExit(f"{config} holds no patients out; RMIA needs a population.")
    trainer = trainer_of(settings, data)
    held = masks.balanced(n_models, cohort.n_patients, seed=settings.audit.seed)
    seeds = model_seeds(settings.audit.seed, n_models)
    own, others, ranges, begin = [], [], [], time.perf_counter()
    correct: dict[str, list[float]] = {"members": [], "others": []}
    for start in range(0, n_models, trainer.models_at_once):
        group = slice(start, min(start + trainer.models_at_once, n_models))
        members = cohort.expand(held[group])
        logits, of_trace = trainer.fit_traced(members, seeds[group])
        ranges += [] if of_trace is None else [of_trace]
        mine, rest = logits[:, : cohort.n_records], logits[:, cohort.n_records :][:, :n_population]
        own.append(to_signals(mine, cohort.label, cohort.task))
        others.append(to_signals(rest, heldout.label[:n_population], cohort.task))
        right = own[-1][..., 0] > 0
        correct["members"].append(float(right[members].mean()))
        correct["others"].append(float(right[~members].mean()))
        if time.perf_counter() - begin > seconds:
            break
    n = sum(map(len, own))
    print(
        f"{config.stem}: {n} models of {cohort.n_records:,} records, {cohort.n_patients:,} "
        f"patients; {time.perf_counter() - begin:.0f} s; signal above 0 of "
        + ", ".join(f"{k} {np.mean(v):.3f}" for k, v in correct.items()),
        flush=True,
    )
    return {
        **_stored(np.concatenate(own), "signal"),
        **_stored(np.concatenate(others), "population"),
        **({"trace": np.concatenate(ranges)} if ranges else {}),
        "population_label": heldout.label[:n_population],
        "membership": np.packbits(held[:n], axis=1),
        "patient_index": cohort.patient_index,
        "label": cohort.label,
        "n_classes": len(cohort.classes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--population", type=int, default=3000, help="held-out records to keep")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of training, at most")
    parser.add_argument("--trace", action="store_true", help="keep ranges of loss traces")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    np.savez(a.out, **make(a.config, a.models, a.population, a.seconds, a.trace))


if __name__ == "__main__":
    main()
