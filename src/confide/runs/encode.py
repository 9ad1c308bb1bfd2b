"""From a cohort and a key to a release."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confide.cohort import Cohort
from confide.config import Config
from confide.datasets import ByFraction, Opened
from confide.datasets.features import may_identify
from confide.encoders.derive import Chance
from confide.encoders.key import Key
from confide.encoders.manifest import RESERVED, Manifest
from confide.encoders.publish import Publisher
from confide.encoders.published import render_records
from confide.encoders.settings import EncodeSettings, NeuraCryptSettings
from confide.encoders.shards import SHARD_BYTES
from confide.encoders.source import ReleasedCodes
from confide.encoders.state import KeyState
from confide.errors import ConfigError, TableError
from confide.runs.models import Progress, silent

MAX_CALIBRATION = 512
"""Records that calibrate an encoder, at most."""

MAX_CALIBRATION_BYTES = 2**28
"""Memory of the records that calibrate an encoder, at most."""

_NOT_THE_ANSWER = {"path", "images", "array"}  # where data lie; the fingerprint tells what they are


def encode(
    config: Config,
    folder: Path,
    key_path: Path,
    out: Path,
    *,
    unlock: Callable[[Path], Key],
    reuse_key: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Encode the records of a configuration into a release; the same call resumes.

    Memory does not grow with the number of records.

    Parameters
    ----------
    config, folder : from :func:`confide.config.load`
    key_path : the key file; its state file, beside it, keeps the calibration and the releases
    out : the release; beside it RELEASE.private says which code is whose
    unlock : reads the key file, see :func:`confide.encoders.key.unlock`
    reuse_key : make the release although another was made with the key
    progress : called with (codes finished, codes in all)

    Returns
    -------
    what was made, as plain values

    Raises
    ------
    TableError : a column that cannot be published; names it
    KeyFileError : the key cannot be read, is bound to another architecture or was used before
    FolderError, MismatchError : the folder cannot be used, or was begun with something else
    """
    refuse_codes(config)
    settings = config.encode
    # All that can be refused is refused before anything is written, and what is quick comes first.
    key = unlock(key_path)
    state = KeyState.of(key_path, key.id)
    if not (reuse_key or Publisher.begun(out)):
        state.refuse_reuse()
    opened = open_with_key(config, folder, key, state)
    settings.n_patches(opened.shape)
    labels, columns = _named(config, opened)
    dev_seed = _seed(key, f"dev {settings.dev.seed}")
    table = _table(opened, settings, dev_seed, labels, columns)
    encoder = KeyedEncoder(config, opened, key, state)
    asked = _asked(config, opened, key, table) | {"the calibration of the key": encoder.digest}
    with Publisher.open(out, asked, lambda: _order(opened.cohort)) as p:
        state.register(p.release_id, out.resolve(), force=reuse_key)
        rows = p.truth["row"].to_numpy()
        records = table.iloc[rows].reset_index(drop=True)
        records.insert(0, "code", np.arange(len(rows)))
        if settings.pseudonyms:
            records["patient"] = _pseudonyms(opened.cohort, rows)
        notes = [*opened.notes, *_lopsided(table, labels)]
        if p.finished:
            manifest = p.manifest()
            notes.append("The release was finished before; nothing was left to do.")
        else:
            encoder.bind()
            manifest = _write(p, records, rows, encoder, labels, columns, progress)
        state.finish(p.release_id, manifest.digest)
    return _summary(manifest, records, [*labels, *columns], notes)


def refuse_codes(config: Config) -> None:
    """Raise ConfigError if the data of a configuration are codes."""
    if isinstance(config.data, ReleasedCodes):
        raise ConfigError(
            f"data.path names the release {config.data.path[0]}, which holds codes already; name "
            "records. Releases are for `confide encode train` and `confide audit run`."
        )


def open_with_key(config: Config, folder: Path, key: Key, state: KeyState) -> Opened:
    """The records, read as the key's calibration was, and split by a secret draw.

    A split by a public seed would tell where in the table a patient stands to everybody who has the
    table; so the seed is one that the key derives from it.
    """
    binding = state.binding
    reading = (binding["calibration"].get("reading") or None) if binding else None
    opened = config.data.open(folder, reading=reading)
    test = getattr(config.data, "test", None)
    if isinstance(test, ByFraction):
        _, mask = opened.cohort.split(test.fraction, _seed(key, f"test {test.seed}"))
        opened = replace(opened, test=mask)
    return opened


def _seed(key: Key, purpose: str) -> int:
    return int.from_bytes(key.derive(f"split {purpose}"), "big")


class KeyedEncoder:
    """The encoder of a release, calibrated at the first use of its key.

    Parameters
    ----------
    config : with the encoder's settings
    opened : the records, from :func:`open_with_key`
    key, state : from which its weights and its calibration are taken
    """

    def __init__(self, config: Config, opened: Opened, key: Key, state: KeyState) -> None:
        from confide.encoders.base import Calibration, build
        from confide.training.device import device_of

        self.settings: EncodeSettings = config.encode
        self._opened, self._state = opened, state
        self._architecture = self.settings.architecture(opened.shape)
        binding = state.binding
        if binding is not None:
            state.bind(self._architecture, {})  # refuses another architecture
        self.encoder = build(
            self.settings,
            opened.shape,
            key,
            device=device_of(config.performance),
            precision=_precision(config),
        )
        if binding is not None:
            self._calibration = Calibration.from_json(binding["calibration"])
        else:
            self._calibration = self.encoder.calibrate(opened.read(self._sample(key)))

    def _sample(self, key: Key) -> NDArray[np.intp]:
        """Some of the records that are not held out, the same for the same key and cohort."""
        rng = np.random.default_rng(int.from_bytes(key.derive("calibration records"), "big"))
        rows = np.flatnonzero(~self._opened.test)
        most = max(1, min(MAX_CALIBRATION, MAX_CALIBRATION_BYTES // self.record_bytes))
        return np.sort(rng.permutation(rows)[:most])

    @property
    def digest(self) -> str:
        """Of the calibration that this release is, or will be, encoded with."""
        content = json.dumps(self._calibration.to_json(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def bind(self) -> None:
        """Store the calibration with the key, or take the one that is stored."""
        from confide.encoders.base import Calibration

        calibration = self._calibration.to_json() | {"reading": dict(self._opened.reading)}
        stored = self._state.bind(self._architecture, calibration)
        self.encoder.use(Calibration.from_json(stored))

    @property
    def architecture(self) -> dict[str, Any]:
        """What goes into the manifest: an attacker is always assumed to know it."""
        return {**self._architecture, "shuffle": self.settings.shuffle}

    @property
    def code_shape(self) -> tuple[int, int]:
        """(rows, channels) of a code."""
        return self.encoder.n_patches, self.encoder.width

    @property
    def code_bytes(self) -> int:
        """Of a stored code."""
        size = 4 if self.settings.dtype == "float32" else 2
        return size * int(np.prod(self.code_shape))

    @property
    def record_bytes(self) -> int:
        """Of a record in memory, at most."""
        return 4 * int(np.prod(self._opened.shape))

    def __call__(self, records: NDArray[Any]) -> NDArray[np.float32]:
        from confide.training.device import tensor_float32

        with tensor_float32(False):
            return self.encoder(records)

    def read(self, parts: list[NDArray[np.intp]]) -> Iterator[NDArray[Any]]:
        """Records of each part; the next part is read while one is encoded."""
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(self._opened.read, rows) for rows in parts[:1]]
            for i in range(len(parts)):
                if i + 1 < len(parts):
                    waiting.append(pool.submit(self._opened.read, parts[i + 1]))
                yield waiting.pop(0).result()


def _write(
    p: Publisher,
    records: pd.DataFrame,
    rows: NDArray[np.intp],
    encoder: KeyedEncoder,
    labels: tuple[str, ...],
    columns: tuple[str, ...],
    progress: Progress,
) -> Manifest:
    settings = encoder.settings
    # Records of a shard are in memory at once too.
    shard_bytes = min(SHARD_BYTES, SHARD_BYTES * encoder.code_bytes // encoder.record_bytes)
    codes_per_shard = None
    if isinstance(settings, NeuraCryptSettings) and settings.norm == "batch":
        # A batch has to be encoded at once, so it is a shard.
        codes_per_shard = even(len(rows), settings.batch_size)
    p.create(
        records,
        shape=encoder.code_shape,
        dtype=settings.dtype,
        encoder=encoder.architecture,
        labels=labels,
        columns=columns,
        pseudonyms=settings.pseudonyms,
        shard_bytes=shard_bytes,
        codes_per_shard=codes_per_shard,
    )
    pending = list(p.pending())
    done = len(rows) - sum(part.stop - part.start for _, part in pending)
    progress(done, len(rows))
    inputs = encoder.read([rows[part] for _, part in pending])
    for (shard, part), found in zip(pending, inputs, strict=True):
        p.write(shard, encoder(found))
        done += part.stop - part.start
        progress(done, len(rows))
    return p.finish()


def even(n: int, most: int) -> int:
    """Records a batch, above half of `most`, so that the last batch is as full as can be.

    >>> even(129, 128), even(1025, 32), even(20, 32)
    (65, 25, 20)
    """
    if n <= most:
        return n
    return max(range(most // 2 + 1, most + 1), key=lambda size: (((n - 1) % size + 1) / size, size))


def _asked(config: Config, opened: Opened, key: Key, table: pd.DataFrame) -> dict[str, Any]:
    data = config.data.model_dump(mode="json")
    return {
        "key_id": key.id,
        "encode": config.encode.model_dump(mode="json"),
        "data": {k: v for k, v in data.items() if k not in _NOT_THE_ANSWER},
        # One precision throughout: the bits of a code would tell when it was made.
        "precision": _precision(config),
        "fingerprint of the data": opened.fingerprint(),
        "the fingerprint of what is published": hashlib.sha256(table.to_csv().encode()).hexdigest(),
    }


def _precision(config: Config) -> str:
    return "bfloat16" if config.performance.precision == "bfloat16" else "float32"


def _order(cohort: Cohort) -> pd.DataFrame:
    """A random order of the records, by the operating system's generator."""
    rows = Chance().permutation(cohort.n_records)
    return pd.DataFrame(
        {"record": cohort.record[rows], "patient": cohort.patient[rows], "row": rows}
    )


def _named(config: Config, opened: Opened) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the labels and of the public columns; identifiers must be named twice."""
    label = getattr(config.data, "label", "label")
    labels = (label,) if isinstance(label, str) else tuple(label)
    counts = Counter([*labels, *config.encode.columns])
    frame = pd.DataFrame() if opened.frame is None else opened.frame
    for name, count in counts.items():
        if name not in frame:
            if name in labels:
                continue
            known = ", ".join(map(str, frame.columns)) or "none"
            raise TableError(
                f"encode.columns names {name!r}, which the table does not have; its columns are "
                f"{known}."
            )
        reason = may_identify(frame[name], name) or _of_patients(opened.cohort, frame[name], name)
        if name in opened.reserved:
            reason = "the configuration uses it to name patients, records or files"
        if reason and count < 2:
            remedy = (
                "Choose another label, or name it under encode.columns too"
                if name in labels
                else "Leave it out of encode.columns, or name it twice"
            )
            raise TableError(
                f"The column {name!r} would be published, but it may identify patients: {reason}. "
                f"{remedy} to publish it."
            )
    columns = tuple(name for name in dict.fromkeys(config.encode.columns) if name not in labels)
    return labels, columns


def _of_patients(cohort: Cohort, column: pd.Series[Any], name: str) -> str | None:
    """Why a column that is the same on all records of a patient may identify, or None."""
    first = column.groupby(cohort.patient_index).first()
    of_record = first.to_numpy()[cohort.patient_index]
    same = (column.to_numpy() == of_record) | column.isna().to_numpy()
    return may_identify(first, name) if np.all(same) else None


def _table(
    opened: Opened,
    settings: EncodeSettings,
    dev_seed: int,
    labels: tuple[str, ...],
    columns: tuple[str, ...],
) -> pd.DataFrame:
    """Labels, public columns and split of each record, in the order of the cohort.

    Raises
    ------
    TableError : the table of a release cannot hold them; names the column
    """
    cohort = opened.cohort
    for name in (*labels, *columns):
        if name in RESERVED:
            raise TableError(
                f"The table of a release has a column {name!r} of its own; rename the label or "
                "public column of that name."
            )
    table = pd.DataFrame(index=range(cohort.n_records))
    if cohort.task == "multilabel":
        for name, values in zip(labels, cohort.label.T, strict=True):
            table[name] = values
    else:
        table[labels[0]] = _classes(cohort)
    for name in columns:
        table[name] = opened.frame[name].to_numpy() if opened.frame is not None else None
    split = np.where(opened.test, "test", "train").astype(object)
    rest = np.flatnonzero(~opened.test)
    _, dev = cohort.select(rest).split(settings.dev.fraction, dev_seed)
    split[rest[dev]] = "dev"
    table["split"] = split
    render_records(table.assign(code=np.arange(len(table))), ("code", *table.columns))
    return table


def _lopsided(table: pd.DataFrame, labels: tuple[str, ...]) -> Iterator[str]:
    """What the receiver cannot train on, said while the site can still encode otherwise."""
    for name in labels:
        if table[name].nunique() < 2:  # nothing to learn in any split
            continue
        for split, values in table.groupby("split")[name]:
            if values.nunique() < 2:
                yield (
                    f"Label {name!r} has fewer than two values in the {len(values)} {split} "
                    "records; no model of it can be trained on this release. Encode again under "
                    "a new key, with a larger share for `dev` or `test` or with more patients."
                )


def _classes(cohort: Cohort) -> NDArray[Any]:
    """The class of each record as the table had it: whole numbers, or text."""
    names = cohort.classes
    if all(re.fullmatch("0|-?[1-9][0-9]{0,17}", name) for name in names):
        return np.array([int(name) for name in names])[cohort.label]
    return np.array(names, dtype=object)[cohort.label]


def _pseudonyms(cohort: Cohort, rows: NDArray[np.intp]) -> NDArray[Any]:
    """P1, P2, ... in the order of the codes, which is random."""
    number, _ = pd.factorize(cohort.patient_index[rows])
    return np.array([f"P{i + 1}" for i in number], dtype=object)


def _alone(records: pd.DataFrame, published: list[str]) -> int:
    """Records, or with pseudonyms patients, that nobody equals in all that is published."""
    kinds = records.groupby(published, dropna=False).ngroup().tolist()
    if "patient" not in records:
        return sum(count == 1 for count in Counter(kinds).values())
    of_patient: dict[str, list[int]] = {}
    for patient, kind in zip(records["patient"], kinds, strict=True):
        of_patient.setdefault(patient, []).append(kind)
    all_of_one = Counter(tuple(sorted(found)) for found in of_patient.values())
    return sum(count == 1 for count in all_of_one.values())


def _summary(
    manifest: Manifest, records: pd.DataFrame, published: list[str], notes: list[str]
) -> dict[str, Any]:
    return {
        "release_id": manifest.release_id,
        "key_id": manifest.key_id,
        "digest": manifest.digest,
        "encoder": manifest.encoder,
        "n_records": manifest.n_records,
        "shape": list(manifest.shape),
        "dtype": manifest.dtype,
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "labels": list(manifest.labels),
        "columns": list(manifest.columns),
        "splits": {k: int(v) for k, v in records["split"].value_counts().items()},
        "pseudonyms": manifest.pseudonyms,
        "alone": _alone(records, [*published, "split"]),
        "statement": manifest.statement,
        "notes": notes,
    }
