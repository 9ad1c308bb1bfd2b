"""Log directories as the published code writes them, for tests."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass
class Logs:
    """A log directory on disk, and what is in it."""

    path: Path
    records: Path
    frame: pd.DataFrame
    logits: np.ndarray  # (n_runs, n_records, n_views, n_columns)
    labels: np.ndarray  # (n_records, n_columns)
    masks: np.ndarray  # (n_runs, n_patients), by first appearance
    names: list[str]
    test: tuple[np.ndarray, np.ndarray] | None


def published_masks(n_runs, n_patients, seed, share=0.5):
    """generate_masks, from its description: argsort down the runs, the first share is in."""
    np.random.seed(seed)  # noqa: NPY002
    uniform = np.random.uniform(0.0, 1.0, size=(n_runs, n_patients))  # noqa: NPY002
    return uniform.argsort(0) < int(share * n_runs)


def labels_of(kind, n, rng, n_columns):
    if kind == "binary":
        return rng.integers(0, 2, (n, 1)).astype(float)
    if kind == "multiclass":
        return np.eye(n_columns)[rng.integers(0, n_columns, n)]
    labels = (rng.random((n, n_columns)) < 0.4).astype(float)
    if kind == "unknowns":
        labels[rng.random(labels.shape) < 0.2] = np.nan
        labels[3] = np.nan
    return labels


def make_logs(
    folder,
    kind="multiclass",
    n_runs=16,
    n_patients=40,
    n_views=0,
    n_columns=3,
    seed=0,
    leak=1.5,
    test=0,
    info=True,
    dtype=np.float32,
    label_dtype=np.float16,
):
    """Runs that know their members a little; `n_views` 0 leaves the axis out."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(rng.permutation(n_patients), 1 + np.arange(n_patients) % 3)
    patient = patient[rng.permutation(len(patient))]
    n = len(patient)
    n_columns = 1 if kind == "binary" else n_columns
    labels = labels_of(kind, n, rng, n_columns)
    masks = published_masks(n_runs, n_patients, seed + 21)
    index = pd.factorize(patient)[0]
    side = np.nan_to_num(2 * labels - 1)
    shape = (n_runs, n, max(n_views, 1), n_columns)
    strength = leak * masks[:, index][:, :, None, None]
    logits = (rng.normal(size=shape) + strength * side[None, :, None]).astype(dtype)
    frame = pd.DataFrame(
        {
            "path": [f"{i:04d}.png" for i in range(n)],
            "pid": [f"{p:03d}" for p in patient],  # leading zeros
            "sex": np.where(patient % 2, "f", "m"),
            "finding": np.nan_to_num(labels[:, 0], nan=-1.0),
        }
    )
    logdir = folder / "logs"
    logdir.mkdir(parents=True)
    frame.to_csv(folder / "records.csv", index=False)
    np.save(logdir / "super_mask.npy", masks)
    (logdir / "valid_idcs.pkl").write_bytes(b"\x80\x04\x95never opened")
    held = None
    if test:
        test_labels = labels_of(kind, test, rng, n_columns)
        test_side = np.nan_to_num(2 * test_labels - 1)[None, :, None]
        held = rng.normal(size=(n_runs, test, *shape[2:])).astype(dtype) + test_side, test_labels
    names = [f"{word:06x}" for word in rng.choice(2**24, n_runs, replace=False)]
    for i, name in enumerate(names):
        run = logdir / name
        run.mkdir()
        squeeze = (lambda z: z) if n_views else (lambda z: z[:, 0])
        np.save(run / "train_logits.npy", squeeze(logits[i]))
        # What np.array of columns of a table is: one column after the other.
        np.save(run / "train_labels.npy", np.asfortranarray(labels.astype(label_dtype)))
        np.save(run / "subset_mask.npy", masks[i])
        np.save(run / "subset_idcs.npy", np.nonzero(masks[i])[0])
        if held:
            np.save(run / "test_logits.npy", squeeze(held[0][i]))
            np.save(run / "test_labels.npy", held[1])
        if info:
            stated = {"model": "wrn_28_2", "lr": 0.1, "epochs": 30, "augment": "weak"}
            stated |= {"seed": seed + 21, "run_seed": i, "n_runs": n_runs, "subset_ratio": 0.5}
            text = json.dumps({"wandb_run_id": name, "wandb_config": stated})
            (run / "info.json").write_text(text)
    order = np.argsort(names)
    return Logs(
        path=logdir,
        records=folder / "records.csv",
        frame=frame,
        logits=logits[order],
        labels=labels,
        masks=masks[order],
        names=sorted(names),
        test=held,
    )
