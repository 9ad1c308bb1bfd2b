"""Using a classifier of codes on new records, at the site that holds the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from confide.config import Config
from confide.encoders.key import Key
from confide.encoders.state import KeyState
from confide.errors import FolderError, KeyFileError, MismatchError, MissingFileError
from confide.models.settings import DeepViTSettings
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
    one row a record: record, patient, and probability_<label> of the positive class

    Raises
    ------
    KeyFileError : no release of the training was made with the key
    MismatchError : records of another shape than the encoder takes
    """
    from confide.encoders.base import Calibration, build
    from confide.training.codes import ArrayInputs
    from confide.training.codes import predict as logits_of
    from confide.training.device import device_of, tensor_float32

    model = _model(trained)
    key = unlock(key_path)
    if key.id not in model["keys"].values():
        raise KeyFileError(
            f"No release that {trained} was trained on was made with the key {key_path} (id "
            f"{key.id}); use the key of one of its sites: {', '.join(model['keys'])}."
        )
    binding = KeyState.of(key_path, key.id).binding
    if binding is None:
        raise KeyFileError(
            f"The calibration of the key {key_path} is lost; put its .state.json back beside it."
        )
    opened = config.data.unlabelled().open(folder)
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
    found = {label: np.empty(n, dtype=np.float32) for label in networks}
    # Parts of one size: with norm "batch" a record left over would be normalised by itself.
    for rows in np.array_split(np.arange(n), -(-n // _AT_ONCE)):
        with tensor_float32(False):
            codes = encoder(opened.read(rows))
        inputs = ArrayInputs(codes, device)
        for label, network in networks.items():
            found[label][rows] = logits_of(network, inputs, np.arange(len(rows)))[:, 0]
        progress(int(rows[-1]) + 1, n)
    table = pd.DataFrame({"record": opened.cohort.record, "patient": opened.cohort.patient})
    for label, logits in found.items():
        table[f"probability_{label}"] = 1 / (1 + np.exp(-logits.astype(np.float64)))
    _write(out, table)
    return table


def _model(trained: Path) -> dict[str, Any]:
    file = trained / "model.json"
    if not file.is_file():
        raise MissingFileError(f"{file} is missing; is {trained} a finished training on codes?")
    model = read_json(file)
    wanted = {"model": dict, "encoder": dict, "shape": list, "keys": dict, "labels": dict}
    if not isinstance(model, dict) or not all(
        isinstance(model.get(name), kind) for name, kind in wanted.items()
    ):
        raise FolderError(f"{file} is damaged; run the training again to write it.")
    return model


def _encoder_settings(architecture: dict[str, Any]) -> Any:
    from confide.encoders.settings import LinearSettings, NeuraCryptSettings

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
