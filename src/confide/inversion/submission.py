"""Submissions to a NeuraCrypt challenge, and their scores; see `challenge.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from confide import _check
from confide.errors import ArgumentError, MissingFileError, ReleaseError, TableError
from confide.inversion.base import Floats
from confide.inversion.challenge import CODES, TARGETS, ChallengeFolder
from confide.inversion.challenge_files import (
    Names,
    bare,
    fresh_folder,
    mean_row,
    new_folder,
    read_pairs,
    write_array,
)
from confide.inversion.estimates import random_hits
from confide.inversion.scores import Score
from confide.inversion.similarity import first_ranked, nearness
from confide.stores import write_json

PREDICTIONS = "parallel_data_predictions.json"
PREDICTED_TARGETS = "out_of_domain_npy_path_to_orig_path_dict.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Submission:
    """What is submitted to a challenge.

    Attributes
    ----------
    predictions : name of the code file by image, for challenge 1; images may be missing
    target_images : (n,) images whose codes are predicted, for challenge 2
    target_means : (n, C) float32, mean rows of the predicted codes; None without challenge 2
    """

    predictions: Mapping[str, str]
    target_images: tuple[str, ...] = ()
    target_means: Floats | None = None

    def __post_init__(self) -> None:
        if self.target_means is not None:
            _check.shape((len(self.target_images), None), target_means=self.target_means)
            _check.finite(target_means=self.target_means)
        if len(set(self.target_images)) < len(self.target_images):
            raise ArgumentError("Expected each image once among target_images.")

    def write(self, path: Path) -> None:
        """Write it in the form of the challenge.

        Raises
        ------
        FolderError : `path` holds other things, or cannot be written
        """
        fresh_folder(path)
        if self.target_means is not None:
            new_folder(path / TARGETS)
            named = {}
            for i, (image, row) in enumerate(
                zip(self.target_images, self.target_means, strict=True)
            ):
                write_array(path / TARGETS / f"{i}.npy", row)
                named[f"{TARGETS}/{i}.npy"] = image
            write_json(path / PREDICTED_TARGETS, named)
        write_json(path / PREDICTIONS, dict(self.predictions))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a submission; a part that is not there is empty.

        Raises
        ------
        MissingFileError : there is none at `path`, or a file that it names is missing
        ReleaseError, TableError : a file is damaged or holds other things; names the file
        """
        first, second = path / PREDICTIONS, path / PREDICTED_TARGETS
        if not first.exists() and not second.exists():
            raise MissingFileError(f"{path} holds neither {PREDICTIONS} nor {PREDICTED_TARGETS}.")
        predictions = read_pairs(first) if first.exists() else {}
        predictions = {image: bare(name, first) for image, name in predictions.items()}
        if not second.exists():
            return cls(predictions=predictions)
        images: dict[str, str] = {}
        for reference, image in read_pairs(second).items():
            name = bare(reference, second)
            if name in images:
                raise TableError(f"{second} names {name!r} more than once.")
            if image in images.values():
                raise TableError(f"{second} names the image {image!r:.120} more than once.")
            images[name] = image
        if (path / TARGETS).is_symlink():
            raise ReleaseError(f"{path / TARGETS} is a link; put the folder itself in its place.")
        rows = [mean_row(path / TARGETS / name) for name in images]
        if len({len(row) for row in rows}) > 1:
            raise ReleaseError(f"{path / TARGETS} holds rows of different lengths.")
        means = np.stack(rows) if rows else None
        return cls(
            predictions=predictions, target_images=tuple(images.values()), target_means=means
        )


def score_submission(submission: Submission, folder: ChallengeFolder) -> dict[str, Score]:
    """Score a submission as the challenge does, but that what is missing counts as wrong.

    Challenge 1: "challenge1", the share of the images whose predicted code file is right, and
    "coverage", the share with a prediction.  Challenge 2, if something was submitted: "challenge2",
    the share of the target images whose true mean row has the predicted one of the same image as
    its nearest (the authors' scorer), "challenge2_reverse", the same from predicted to true (their
    README), and "challenge2_coverage".

    The patients are not known, so that the scores have no intervals.

    Raises
    ------
    MissingFileError : the truth is not there
    TableError, ReleaseError : the submission or the truth does not fit the challenge
    """
    truth = folder.truth()
    names, files = Names(folder.images), set(folder.files)
    found: dict[str, str] = {}
    for given, reference in submission.predictions.items():
        image = _named(given, names, found, PREDICTIONS)
        name = bare(reference, Path(PREDICTIONS))
        if name not in files:
            raise TableError(f"{PREDICTIONS}: {name!r} is not in {folder.path / CODES}.")
        found[image] = name
    n = len(truth)
    hits = np.array([found.get(image) == name for image, name in truth.items()], dtype=np.float64)
    scores = {
        "challenge1": _plain("challenge1", hits, len(found) / n),
        "coverage": _covered("coverage", len(found), n),
    }
    if submission.target_means is not None:
        scores |= _second(submission, submission.target_means, folder)
    return scores


def _second(submission: Submission, predicted: Floats, folder: ChallengeFolder) -> dict[str, Score]:
    true = folder.target_means()
    if predicted.shape[1] != true.shape[1]:
        raise ReleaseError(
            f"{TARGETS} holds rows of {predicted.shape[1]} numbers, expected {true.shape[1]}."
        )
    names, seen = Names(folder.target_images), dict[str, str]()
    for given in submission.target_images:
        seen[_named(given, names, seen, PREDICTED_TARGETS)] = given
    place = {image: i for i, image in enumerate(folder.target_images)}
    rows, n = np.array([place[image] for image in seen], dtype=np.intp), len(place)
    near = nearness(true, predicted)
    hits, reverse = np.zeros(n), np.zeros(n)
    hits[rows], _ = first_ranked(near[rows], np.arange(len(rows)))
    reverse[rows], _ = first_ranked(near.T, rows)
    return {
        # Each true row chooses among those submitted, each submitted one among all true ones.
        "challenge2": _plain("challenge2", hits, 1.0),
        "challenge2_reverse": _plain("challenge2_reverse", reverse, len(rows) / n),
        "challenge2_coverage": _covered("challenge2_coverage", len(rows), n),
    }


def _plain(name: str, hits: NDArray[np.float64], expected: float) -> Score:
    chance = random_hits(expected, len(hits))
    return Score(
        name=name,
        value=float(hits.mean()),
        low=None,
        high=None,
        chance=chance.value,
        chance_low=chance.low,
        chance_high=chance.high,
        n=len(hits),
        n_patients=0,
    )


def _covered(name: str, n_given: int, n: int) -> Score:
    return Score(
        name=name,
        value=n_given / n,
        low=None,
        high=None,
        chance=1.0,
        chance_low=0.0,
        chance_high=1.0,
        n=n,
        n_patients=0,
    )


def _named(given: str, names: Names, found: Mapping[str, str], file: str) -> str:
    image = names.find(given)
    if image is None:
        raise TableError(f"{file}: {given!r:.120} is not an image of the challenge.")
    if image in found:
        raise TableError(f"{file} names the image {image!r:.120} more than once.")
    return image
