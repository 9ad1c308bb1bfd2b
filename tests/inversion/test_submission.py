"""Submissions: there and back, and scores counted by hand."""

import json

import numpy as np
import pytest

from confide.errors import ArgumentError, FolderError, MissingFileError, ReleaseError, TableError
from confide.inversion import challenge, submission
from confide.inversion.challenge import ChallengeFolder
from confide.inversion.challenge_files import write_array
from confide.inversion.submission import Submission, score_submission


@pytest.fixture
def folder(tmp_path):
    """Four codes and three images of challenge 2; code 3 - i is of image i."""
    path, private = tmp_path / "given", tmp_path / "given.private"
    for one in (path / challenge.CODES, private / challenge.TARGETS):
        one.mkdir(parents=True)
    rng = np.random.default_rng(0)
    truth = {}
    for i in range(4):
        write_array(path / challenge.CODES / f"{i}.npy", rng.standard_normal((2, 5)))
        truth[f"x/im{3 - i}.png"] = f"{challenge.CODES}/{i}.npy"
    for i in range(3):
        write_array(private / challenge.TARGETS / f"{i}.npy", np.full((2, 5), float(i)))
        truth[f"x/new{i}.png"] = f"{challenge.TARGETS}/{i}.npy"
    (private / challenge.TRUTH).write_text(json.dumps(truth))
    (path / challenge.IMAGES).write_text(json.dumps([f"x/im{i}.png" for i in range(4)]))
    (path / challenge.TARGET_IMAGES).write_text(json.dumps([f"x/new{i}.png" for i in range(3)]))
    return ChallengeFolder.read(path)


def perfect(folder):
    return Submission(
        predictions=folder.truth(),
        target_images=folder.target_images,
        target_means=folder.target_means(),
    )


class TestScores:
    def test_a_perfect_one(self, folder):
        found = score_submission(perfect(folder), folder)
        assert {name: s.value for name, s in found.items()} == {
            "challenge1": 1, "coverage": 1, "challenge2": 1, "challenge2_reverse": 1,
            "challenge2_coverage": 1,
        }  # fmt: skip
        assert (found["challenge1"].n, found["challenge1"].n_patients) == (4, 0)
        assert found["challenge1"].low is None
        assert found["challenge1"].chance == pytest.approx(1 / 4)

    def test_what_is_missing_is_wrong(self, folder):
        found = score_submission(Submission(predictions={"x/im0.png": "3.npy"}), folder)
        assert found["challenge1"].value == found["coverage"].value == 1 / 4
        assert "challenge2" not in found
        some = Submission(
            predictions={}, target_images=("x/new1.png",), target_means=folder.target_means()[1:2]
        )
        found = score_submission(some, folder)
        assert found["challenge1"].value == found["coverage"].value == 0
        for name in ("challenge2", "challenge2_reverse", "challenge2_coverage"):
            assert found[name].value == pytest.approx(1 / 3)

    def test_directions_of_challenge_2(self, folder):
        # True means 0, 1, 2; predicted 0.1, 0.2, 2: true 1 has 0.2 as its nearest, which is right,
        # while 0.2 has 0 as its nearest, which is wrong.
        means = np.repeat(np.array([[0.1], [0.2], [2.0]], dtype=np.float32), 5, axis=1)
        found = score_submission(
            Submission(predictions={}, target_images=folder.target_images, target_means=means),
            folder,
        )
        assert found["challenge2"].value == 1
        assert found["challenge2_reverse"].value == pytest.approx(2 / 3)

    def test_other_folders_before_the_names(self, folder):
        moved = {f"/home/x/{k}": f"/scratch/{v}" for k, v in folder.truth().items()}
        assert score_submission(Submission(predictions=moved), folder)["challenge1"].value == 1

    @pytest.mark.parametrize(
        ("predictions", "words"),
        [
            ({"x/other.png": "0.npy"}, "not an image"),
            ({"x/im0.png": "77.npy"}, "'77.npy' is not in"),
            ({"x/im0.png": "../0.npy"}, "not the name of a code file"),
            ({"x/im0.png": "0.npy", "/y/x/im0.png": "1.npy"}, "more than once"),
        ],
    )
    def test_predictions_that_do_not_fit(self, folder, predictions, words):
        with pytest.raises(TableError, match=words):
            score_submission(Submission(predictions=predictions), folder)

    def test_means_that_do_not_fit(self, folder):
        wrong = Submission(
            predictions={}, target_images=("x/new0.png",),
            target_means=np.zeros((1, 4), dtype=np.float32),
        )  # fmt: skip
        with pytest.raises(ReleaseError, match="expected 5"):
            score_submission(wrong, folder)
        wrong = Submission(
            predictions={}, target_images=("im0.png",),
            target_means=np.zeros((1, 5), dtype=np.float32),
        )  # fmt: skip
        with pytest.raises(TableError, match="not an image"):
            score_submission(wrong, folder)


class TestFiles:
    def test_there_and_back(self, folder, tmp_path):
        wanted = perfect(folder)
        wanted.write(tmp_path / "out")
        found = Submission.read(tmp_path / "out")
        assert found.predictions == wanted.predictions
        assert found.target_images == wanted.target_images
        np.testing.assert_array_equal(found.target_means, wanted.target_means)
        with pytest.raises(FolderError, match="not empty"):
            wanted.write(tmp_path / "out")

    def test_whole_codes_count_by_their_mean(self, folder, tmp_path):
        out = tmp_path / "out"
        perfect(folder).write(out)
        rows = folder.target_means()[0] + np.array([[-1], [1]], dtype=np.float32)
        write_array(out / challenge.TARGETS / "0.npy", rows)
        np.testing.assert_allclose(Submission.read(out).target_means, folder.target_means())

    def test_each_part_may_be_missing(self, folder, tmp_path):
        perfect(folder).write(tmp_path / "out")
        (tmp_path / "out" / submission.PREDICTIONS).unlink()
        assert Submission.read(tmp_path / "out").predictions == {}
        Submission(predictions={"a": "1.npy"}).write(tmp_path / "one")
        found = Submission.read(tmp_path / "one")
        assert (dict(found.predictions), found.target_means) == ({"a": "1.npy"}, None)
        with pytest.raises(MissingFileError, match="neither"):
            Submission.read(tmp_path)

    @pytest.mark.parametrize(
        ("content", "error", "words"),
        [
            ({"5.npy": "x/new0.png"}, MissingFileError, r"5\.npy"),
            ({"0.npy": "a", "/b/0.npy": "c"}, TableError, "'0.npy' more than once"),
            ({"0.npy": "a", "1.npy": "a"}, TableError, "image 'a' more than once"),
            ({"../given/0.npy": "a"}, TableError, "not the name of a code file"),
        ],
    )
    def test_hostile_names(self, folder, tmp_path, content, error, words):
        out = tmp_path / "out"
        perfect(folder).write(out)
        (out / submission.PREDICTED_TARGETS).write_text(json.dumps(content))
        with pytest.raises(error, match=words):
            Submission.read(out)

    def test_links_and_lengths(self, folder, tmp_path):
        out = tmp_path / "out"
        perfect(folder).write(out)
        file = out / challenge.TARGETS / "0.npy"
        write_array(file, np.zeros(7))
        with pytest.raises(ReleaseError, match="different lengths"):
            Submission.read(out)
        file.unlink()
        file.symlink_to(out / challenge.TARGETS / "1.npy")
        with pytest.raises(ReleaseError, match="symbolic link"):
            Submission.read(out)


def test_values_that_do_not_fit():
    means = np.zeros((2, 5), dtype=np.float32)
    with pytest.raises(ArgumentError, match="target_means"):
        Submission(predictions={}, target_images=("a",), target_means=means)
    with pytest.raises(ArgumentError, match="target_means"):
        Submission(predictions={}, target_images=("a", "b"), target_means=means * np.nan)
    with pytest.raises(ArgumentError, match="once"):
        Submission(predictions={}, target_images=("a", "a"), target_means=means)


@pytest.mark.parametrize("k", [2, 3, 10])
def test_chance_of_some_predictions_is_that_of_guessing(k):
    """Guesses leave its range less than once in a thousand runs, in both directions."""
    from confide.inversion.estimates import random_hits
    from confide.inversion.similarity import first_ranked, nearness

    rng, n, rounds = np.random.default_rng(4), 60, 400
    out = np.zeros((rounds, 2))
    for i in range(rounds):
        true, rows = rng.normal(size=(n, 3)), rng.permutation(n)[:k]
        near = nearness(true, rng.normal(size=(k, 3)))
        out[i, 0] = first_ranked(near[rows], np.arange(k))[0].sum()
        out[i, 1] = first_ranked(near.T, rows)[0].sum()
    for hits, expected in zip(out.T, (1.0, k / n), strict=True):
        assert hits.mean() == pytest.approx(expected, abs=5 * max(hits.std(), 0.05) / rounds**0.5)
        assert (hits / n > random_hits(expected, n).high).mean() <= 0.01
