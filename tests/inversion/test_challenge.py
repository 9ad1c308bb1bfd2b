"""Folders of a challenge: made, read, and hostile ones."""

import json
import os
import stat

import numpy as np
import pytest

from confide.datasets.phantom import Phantom
from confide.encoders.base import build
from confide.encoders.key import Key
from confide.encoders.settings import NeuraCryptSettings
from confide.errors import ArgumentError, FolderError, MissingFileError, ReleaseError, TableError
from confide.inversion import challenge
from confide.inversion.challenge import ChallengeFolder, export, is_challenge


def opened():
    return Phantom(n_patients=12, max_views=2, size=(16, 16), seed=3).open()


def encoder(records, **more):
    settings = NeuraCryptSettings(patch=8, width=6, private_depth=1, **more)
    made = build(settings, records.shape, Key(bytes(range(32))))
    made.calibrate(records.load().inputs)
    return made


def names_of(records):
    return [f"CheXpert/train/{name}/view1.png" for name in records.cohort.record]


@pytest.fixture
def made(tmp_path):
    records = opened()
    return export(encoder(records), records, names_of(records), tmp_path / "given")


def put(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))


class TestExport:
    def test_the_layout(self, made, tmp_path):
        records = opened()
        n_test = int(records.test.sum())
        assert n_test > 0
        assert sorted(p.name for p in tmp_path.iterdir()) == ["given", "given.private"]
        assert sorted(p.name for p in made.path.iterdir()) == [
            challenge.TARGET_IMAGES, challenge.CODES, challenge.IMAGES,
        ]  # fmt: skip
        private = tmp_path / "given.private"
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert sorted(p.name for p in private.iterdir()) == [challenge.TARGETS, challenge.TRUTH]
        assert len(made.images) == made.n_records == records.cohort.n_records - n_test
        assert len(made.target_images) == n_test
        assert made.shape == (4, 6)
        assert not set(made.images) & set(made.target_images)
        assert list(made.images) == sorted(made.images)

    def test_the_codes_are_those_of_the_truth(self, tmp_path):
        records = opened()
        plain = encoder(records, shuffle=False)
        made = export(plain, records, names_of(records), tmp_path / "given")
        codes = plain(records.load().inputs)
        row = {name: i for i, name in enumerate(names_of(records))}
        for image, file in made.truth().items():
            at = made.files.index(file)
            np.testing.assert_allclose(made.codes(np.array([at]))[0], codes[row[image]], atol=1e-5)
        targets = codes[[row[image] for image in made.target_images]].mean(axis=1)
        np.testing.assert_allclose(made.target_means(), targets, atol=1e-5)
        stored = np.load(made.path / challenge.CODES / "0.npy", allow_pickle=False)
        assert stored.dtype == np.float32

    def test_the_order_is_fresh_each_time(self, made, tmp_path):
        records = opened()
        again = export(encoder(records), records, names_of(records), tmp_path / "again")
        assert made.images == again.images
        assert made.truth() != again.truth()

    def test_progress(self, tmp_path):
        records, seen = opened(), []
        export(
            encoder(records), records, names_of(records), tmp_path / "given",
            progress=lambda *at: seen.append(at),
        )  # fmt: skip
        assert seen[-1] == (records.cohort.n_records,) * 2

    def test_what_is_refused(self, made, tmp_path):
        records = opened()
        names = names_of(records)
        with pytest.raises(FolderError, match="not empty"):
            export(encoder(records), records, names, made.path)
        (tmp_path / "new.private").mkdir()
        (tmp_path / "new.private" / "other").touch()
        with pytest.raises(FolderError, match=r"new\.private is not empty"):
            export(encoder(records), records, names, tmp_path / "new")
        for wrong in (names[1:], [names[0], *names[:-1]]):
            with pytest.raises(ArgumentError, match="different names"):
                export(encoder(records), records, wrong, tmp_path / "other")

    def test_an_unfinished_one_is_no_challenge(self, made):
        (made.path / challenge.IMAGES).unlink()
        assert is_challenge(made.path)
        with pytest.raises(MissingFileError, match="finished"):
            ChallengeFolder.read(made.path)


class TestCodes:
    def test_slices_and_numbers(self, made):
        every = made.codes(slice(None))
        assert every.shape == (made.n_records, 4, 6)
        assert every.dtype == np.float32
        np.testing.assert_array_equal(made.codes(np.array([3, 1, 3])), every[[3, 1, 3]])
        np.testing.assert_array_equal(made.codes(slice(2, None, 3)), every[2::3])
        assert made.codes(np.array([], dtype=int)).shape == (0, 4, 6)
        for rows in ([-1], [made.n_records]):
            with pytest.raises(ArgumentError, match="rows"):
                made.codes(np.array(rows))

    def test_files_stand_in_the_order_of_their_numbers(self, made):
        assert made.files == tuple(f"{i}.npy" for i in range(made.n_records))

    def test_pickles_are_never_looked_at(self, made):
        bomb = b"cos\nsystem\n(S'touch /tmp/broken'\ntR."
        (made.path / challenge.CODES / "image_means.npy").write_bytes(bomb)
        for name in ("args.p", "model.p"):
            (made.path / name).write_bytes(bomb)
            (made.path / challenge.CODES / name).write_bytes(bomb)
        assert ChallengeFolder.read(made.path).n_records == made.n_records

    def test_a_code_of_another_shape(self, made):
        np.save(made.path / challenge.CODES / "2.npy", np.ones((4, 5), dtype=np.float32))
        with pytest.raises(ReleaseError, match=r"2\.npy has shape \(4, 5\)"):
            ChallengeFolder.read(made.path).codes(slice(None))

    def test_more_or_fewer_codes_than_images(self, made):
        (made.path / challenge.CODES / "2.npy").unlink()
        with pytest.raises(ReleaseError, match="images"):
            ChallengeFolder.read(made.path)

    def test_links_are_refused(self, made, tmp_path):
        file = made.path / challenge.CODES / "1.npy"
        file.rename(tmp_path / "1.npy")
        file.symlink_to(tmp_path / "1.npy")
        with pytest.raises(ReleaseError, match=r"1\.npy"):
            ChallengeFolder.read(made.path)

    def test_a_file_that_becomes_a_link_later(self, made, tmp_path):
        opened_before = ChallengeFolder.read(made.path)
        file = made.path / challenge.CODES / "1.npy"
        file.rename(tmp_path / "1.npy")
        file.symlink_to(tmp_path / "1.npy")
        with pytest.raises(ReleaseError, match="symbolic link"):
            opened_before.codes(slice(None))

    def test_a_pipe_is_not_waited_for(self, made):
        file = made.path / challenge.CODES / "1.npy"
        opened_before = ChallengeFolder.read(made.path)
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(ReleaseError, match="no file"):
            opened_before.codes(slice(None))


class TestTruth:
    def test_the_layout_of_the_authors(self, made, tmp_path):
        # They keep the answers in the folder itself, with absolute paths.
        wanted, means = made.truth(), made.target_means()
        private = tmp_path / "given.private"
        for path in private.iterdir():
            path.rename(made.path / path.name)
        file = made.path / challenge.TRUTH
        moved = {
            f"/Mounts/x/{k}": f"/Mounts/codes/{v}" for k, v in json.loads(file.read_text()).items()
        }
        put(file, moved)
        private.rmdir()
        assert made.truth() == wanted
        np.testing.assert_array_equal(made.target_means(), means)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda d: d.pop(min(d)), "does not say"),
            (lambda d: d.update({min(d): "../secret.npy"}), "not the name of a code file"),
            (lambda d: d.update({min(d): "999.npy"}), "is not in"),
            (lambda d: d.update(dict.fromkeys(d, "0.npy")), "more than one image"),
            (lambda d: d.update({min(d): 3}), "expected a string"),
            (lambda d: d.update({"/x/" + min(d): "0.npy"}), "more than once"),
        ],
    )
    def test_a_damaged_one(self, made, tmp_path, change, words):
        file = tmp_path / "given.private" / challenge.TRUTH
        content = {k: v for k, v in json.loads(file.read_text()).items() if k in made.images}
        change(content)
        put(file, content)
        with pytest.raises(TableError, match=words):
            made.truth()

    def test_solvers_have_none(self, made, tmp_path):
        (tmp_path / "given.private").rename(tmp_path / "away")
        with pytest.raises(MissingFileError, match="only who made"):
            made.truth()


class TestRows:
    def test_by_id_by_column_and_by_end(self, made):
        records = opened()
        names = np.array(names_of(records), dtype=object)
        wanted = np.flatnonzero(~records.test)
        np.testing.assert_array_equal(sorted(made.rows_of(names).values()), wanted)
        frame = records.frame.assign(file=[f"/data/{name}" for name in names])
        np.testing.assert_array_equal(
            sorted(made.rows_of(records.cohort.record, frame).values()), wanted
        )
        short = [name.removeprefix("CheXpert/") for name in names]
        np.testing.assert_array_equal(sorted(made.rows_of(short).values()), wanted)

    def test_names_that_do_not_tell(self, made):
        records = opened()
        with pytest.raises(TableError, match="name the images"):
            made.rows_of(records.cohort.record, records.frame)
        # They all end in view1.png.
        with pytest.raises(TableError, match="have 0"):
            made.rows_of(["view1.png"] * 30)


def test_what_is_a_challenge(made, tmp_path):
    assert is_challenge(made.path)
    assert not is_challenge(tmp_path)
    assert not is_challenge(tmp_path / "nothing")


def test_without_a_second_challenge(made):
    (made.path / challenge.TARGET_IMAGES).unlink()
    assert ChallengeFolder.read(made.path).target_images == ()


@pytest.mark.parametrize("content", [None, []])
def test_a_second_challenge_that_was_lost_is_named(made, content):
    (made.path / challenge.TARGET_IMAGES).unlink()
    if content is not None:
        put(made.path / challenge.TARGET_IMAGES, content)
    with pytest.raises(MissingFileError, match=challenge.TARGET_IMAGES):
        ChallengeFolder.read(made.path).target_means()
