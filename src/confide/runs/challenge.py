"""The NeuraCrypt challenge: export one, submit to one, score what was submitted."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from confide.config import Config
from confide.datasets import Images, Opened
from confide.encoders.key import Key
from confide.encoders.release import sha256
from confide.encoders.state import KeyState
from confide.errors import FolderError, MissingFileError
from confide.inversion import challenge
from confide.inversion.challenge import ChallengeFolder
from confide.inversion.challenge_files import Names, fresh_folder, read_array
from confide.inversion.submission import Submission, score_submission
from confide.runs.encode import KeyedEncoder, open_with_key, refuse_codes
from confide.runs.models import Progress, silent
from confide.stores import read_json, read_table


def export_challenge(
    config: Config,
    folder: Path,
    key_path: Path,
    out: Path,
    *,
    unlock: Callable[[Path], Key],
    reuse_key: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Make a challenge of the records of a configuration; those held out are those of challenge 2.

    It counts as a release made with the key.

    Parameters
    ----------
    config, folder, key_path, unlock, reuse_key, progress : as of :func:`confide.runs.encode.encode`
    out : the folder to give away; OUT.private, beside it, answers it and stays

    Raises
    ------
    TableError, KeyFileError, FolderError : as there
    """
    refuse_codes(config)
    key = unlock(key_path)
    state = KeyState.of(key_path, key.id)
    if not reuse_key:
        state.refuse_reuse()
    opened = open_with_key(config, folder, key, state)
    config.encode.n_patches(opened.shape)
    encoder = KeyedEncoder(config, opened, key, state)
    fresh_folder(out)
    release_id = secrets.token_hex(16)
    state.register(release_id, out.resolve(), force=reuse_key)
    encoder.bind()
    made = challenge.export(encoder.encoder, opened, _names(config, opened), out, progress=progress)
    state.finish(release_id, sha256(out / challenge.IMAGES))
    return {
        "key_id": key.id,
        "encoder": encoder.architecture,
        "n_codes": made.n_records,
        "n_targets": len(made.target_images),
        "shape": list(made.shape),
        "notes": list(opened.notes),
    }


def _names(config: Config, opened: Opened) -> list[str]:
    """Of the images: their file names, or the ids of the records."""
    if isinstance(config.data, Images) and config.data.array is None and opened.frame is not None:
        names = [str(name) for name in opened.frame[config.data.image]]
        if len(set(names)) == len(names):
            return names
    return [str(record) for record in opened.cohort.record]


def submit(result: Path, encoded: Path, out: Path, attack: str | None = None) -> dict[str, Any]:
    """Turn what an attack run found about a challenge into a submission.

    Parameters
    ----------
    result : the folder of the run
    encoded : the challenge
    out : the folder of the submission, which must not exist or be empty
    attack : whose findings are submitted; needed if several attacks found some

    Raises
    ------
    MissingFileError : the run found nothing that can be submitted
    FolderError : it is not about this challenge, or several attacks found something
    """
    folder = ChallengeFolder.read(encoded)
    matched = {path.stem: path for path in sorted(result.glob("*.parquet"))}
    predicted = {path.name.removesuffix(".means.npy"): path for path in result.glob("*.means.npy")}
    names = sorted({*matched, *predicted})
    if not names:
        raise MissingFileError(
            f"{result} holds no findings; attack the challenge first: confide attack run {encoded}"
        )
    if attack is None and len(names) > 1:
        raise FolderError(
            f"{result} holds findings of {', '.join(names)}; choose one of them with --attack."
        )
    attack = attack or names[0]
    if attack not in names:
        raise MissingFileError(f"{result} holds no findings of {attack!r}, but {', '.join(names)}.")
    made = Submission(
        predictions=_predictions(matched[attack], folder) if attack in matched else {},
        **(_targets(predicted[attack], folder) if attack in predicted else {}),
    )
    made.write(out)
    return {
        "attack": attack,
        "n_predictions": len(made.predictions),
        "n_targets": len(made.target_images),
    }


def _predictions(file: Path, folder: ChallengeFolder) -> dict[str, str]:
    table = read_table(file)
    if not {"code", "record"} <= set(table.columns) or table["code"].dtype.kind not in "iu":
        raise FolderError(f"{file} is no matching of an attack run; run the attack again.")
    table = table.dropna(subset=["record"])
    names, files = Names(folder.images), folder.files
    found = {}
    for code, record in zip(table["code"], table["record"], strict=True):
        image = names.find(str(record))
        if image is None or not 0 <= code < len(files):
            raise FolderError(f"{file} is not about {folder.path}: it names {record!r:.80}.")
        found[image] = files[code]
    return found


def _targets(file: Path, folder: ChallengeFolder) -> dict[str, Any]:
    means = read_array(file, n_axes=(2,))
    images = read_json(file.with_suffix(".json"))
    known = isinstance(images, list) and sorted(map(str, images)) == sorted(folder.target_images)
    if not known or means.shape != (len(images), folder.shape[1]):
        raise FolderError(f"{file} is not about the images of challenge 2 of {folder.path}.")
    return {"target_images": tuple(images), "target_means": means}


def score(submission: Path, encoded: Path) -> dict[str, Any]:
    """Score a submission; needs the private folder of the challenge.

    Raises
    ------
    MissingFileError, TableError, ReleaseError : a file is missing, damaged or does not fit
    """
    scores = score_submission(Submission.read(submission), ChallengeFolder.read(encoded))
    return {name: asdict(one) for name, one in scores.items()}
