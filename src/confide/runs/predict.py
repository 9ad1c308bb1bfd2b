"""Using a classifier of codes on new records, at the site that holds the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.config import Config
from confide.encoders.key import Key
from confide.encoders.settings import EncodeSettings, LinearSettings, NeuraCryptSettings
from confide.encoders.state import KeyState
from confide.errors import FolderError, KeyFileError, MismatchError, MissingFileError
from confide.models.settings import DeepViTSettings
from confide.runs.encode import even
from confide.runs.fits import slug
from confide.runs.models import Progress, silent
from confide.stores import disk_errors, read_json, write_bytes, write_table

_AT_ONCE = 64


def predict(
    trained: Path,
    config: Config,
    folder: Path,
    key_path: Path,
    out: Path,
    *,
    unlock: Callable[[Path], Key],
    progress: Progress = silent,
) -> pd.DataFrame:
    """Encode records and classify the codes, which are written nowhere.

    Parameters
    ----------
    trained : the folder of a training on codes
    config, folder : the new records, from :func:`confide.config.load`; columns of labels and
        groups are not read and may be absent
    key_path : the key that the site's release was made with
    out : where the table goes, CSV or (by its suffix) Parquet

    Returns
    -------
    one row a record: record, patient, and probability_<label>=<value> of the positive value, or
    probability_<label> of labels of 1 and 0

    Raises
    ------
    KeyFileError : no release of the training was made with the key
    MismatchError : records of another shape than the encoder takes
    """
    from confide.encoders.base import Calibration, build
    from confide.training.codes import ArrayInputs
    from confide.training.codes import predict as logits_of
    from confide.training.device import device_of, tensor_float32

    if out.suffix not in (".csv", ".parquet"):
        raise FolderError(f"{out} should end in .csv or .parquet.")
    if out.exists():
        raise FolderError(f"{out} is there already; choose another --out, or remove it.")
    model = _model(trained)
    key = unlock(key_path)
    if key.id not in model["keys"].values():
        raise KeyFileError(
            f"No release that {trained} was trained on was made with the key {key_path} (id "
            f"{key.id}); use the key of one of its sites: {', '.join(model['keys'])}."
        )
    state = KeyState.of(key_path, key.id)
    binding = state.binding
    made = {entry["manifest_sha256"] for entry in state.releases}
    if binding is not None and not made & set(model["digests"].values()):
        raise KeyFileError(
            f"The state file beside the key {key_path} does not list a release that {trained} was "
            "trained on, so its calibration is another; put the right .state.json back beside it."
        )
    if binding is None:
        raise KeyFileError(
            f"The calibration of the key {key_path} is lost; put its .state.json back beside it."
        )
    reading = binding["calibration"].get("reading") or None
    opened = config.data.unlabelled().open(folder, reading=reading)
    shape = tuple(binding["architecture"]["shape"])
    if opened.shape != shape:
        raise MismatchError(
            f"The records have the shape {opened.shape}, those that the key encoded {shape}; "
            "prepare them in the same way (data.size, data.channels)."
        )
    device = device_of(config.performance)
    encoder = build(_encoder_settings(model["encoder"]), shape, key, device=device)
    encoder.use(Calibration.from_json(binding["calibration"]))
    networks = {label: _network(trained, model, label) for label in model["labels"]}
    n = opened.cohort.n_records
    parts = _parts(n, encoder.settings)
    found = {label: np.empty(n, dtype=np.float32) for label in networks}
    for rows in parts:
        with tensor_float32(False):
            codes = encoder(opened.read(rows))
        inputs = ArrayInputs(codes, device)
        for label, network in networks.items():
            found[label][rows] = logits_of(network, inputs, np.arange(len(rows)))[:, 0]
        progress(int(rows[-1]) + 1, n)
    table = pd.DataFrame({"record": opened.cohort.record, "patient": opened.cohort.patient})
    for label, logits in found.items():
        positive = model["labels"][label][1]
        column = f"probability_{label}" + ("" if positive == label else f"={positive}")
        table[column] = 1 / (1 + np.exp(-logits.astype(np.float64)))
    _write(out, table)
    return table


def _parts(n: int, settings: EncodeSettings) -> list[NDArray[np.intp]]:
    """Records that are encoded together: of norm "batch", about as many as in training."""
    if not isinstance(settings, NeuraCryptSettings) or settings.norm == "frozen":
        return np.array_split(np.arange(n), -(-n // _AT_ONCE))
    if n <= settings.batch_size // 2:
        raise MismatchError(
            f"With norm 'batch' codes depend on the {settings.batch_size} records that are encoded "
            f"together; {n} records are too few to be read by a model that was trained on such "
            "codes. Classify more at once, or train on codes of norm 'frozen'."
        )
    size = even(n, settings.batch_size)
    return np.array_split(np.arange(n), range(size, n, size))


def _model(trained: Path) -> dict[str, Any]:
    file = trained / "model.json"
    if not file.is_file():
        raise MissingFileError(f"{file} is missing; is {trained} a finished training on codes?")
    model = read_json(file)
    damaged = FolderError(f"{file} is damaged; run the training again to write it.")
    wanted = {"model": dict, "encoder": dict, "shape": list, "keys": dict, "digests": dict}
    wanted |= {"labels": dict}
    if not isinstance(model, dict) or not all(
        isinstance(model.get(name), kind) for name, kind in wanted.items()
    ):
        raise damaged
    named = [*model["keys"].values(), *model["digests"].values()]
    if not all(isinstance(one, str) for one in named):
        raise damaged
    try:
        _encoder_settings(model["encoder"])
        DeepViTSettings.model_validate(model["model"])
        shape = [int(n) for n in model["shape"]]
    except (KeyError, TypeError, ValueError):
        raise damaged from None
    pairs = model["labels"].values()
    if len(shape) != 2 or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
        raise damaged
    return model


def _encoder_settings(architecture: dict[str, Any]) -> EncodeSettings:
    kind = LinearSettings if architecture["name"] == "linear" else NeuraCryptSettings
    return kind.model_validate({k: v for k, v in architecture.items() if k != "shape"})


def _network(trained: Path, model: dict[str, Any], label: str) -> Any:
    from confide.models import build_code_classifier
    from confide.training.codes import from_bytes

    which = "all sites" if len(model["keys"]) > 1 else next(iter(model["keys"]))
    name = slug({"label": label, "arm": "codes", "model": which})
    file = trained / "models" / f"{name}.safetensors"
    if not file.is_file():
        raise MissingFileError(f"{file} is missing; run the training again to make it.")
    encoder = model["encoder"]
    network = build_code_classifier(
        DeepViTSettings.model_validate(model["model"]),
        (model["shape"][0], model["shape"][1]),
        1,
        position=encoder["name"] == "linear" and encoder.get("shuffle") is False,
    )
    network.load_state_dict(from_bytes(file.read_bytes(), network, where=str(file)))
    return network


def _write(out: Path, table: pd.DataFrame) -> None:
    with disk_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".parquet":
        write_table(out, table)
    else:
        write_bytes(out, table.to_csv(index=False).encode())
