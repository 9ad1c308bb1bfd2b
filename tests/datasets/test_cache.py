"""Decoded images kept on disk: the same as without, and never taken for what they are not."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest
from PIL import Image

from confide.datasets import Images, cache_index, image_files, images
from confide.datasets import cache as caching
from confide.datasets.pixels import open_files
from confide.errors import FolderError, ImageError

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported from files
from dicom_files import write

N = 25


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Four images a piece; times tell changes apart at once, where a test does not say else."""
    monkeypatch.setattr(cache_index, "_PIECE_ROWS", 4)
    monkeypatch.setattr(cache_index, "_SETTLED", 0)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (12, 9), dtype=np.uint8)


@pytest.fixture
def paths(tmp_path):
    """Images of every kind that is read."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    found = []
    for i in range(N):
        path = folder / ("sub" if i % 5 == 0 else ".") / f"{i}.img"
        if i % 6 == 0:
            Image.fromarray(picture(i).astype(np.uint16) * 11).save(path, "PNG")
        elif i % 6 == 1:
            Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(path, "JPEG")
        elif i % 6 == 2:
            write(path, picture(i), WindowCenter=100, WindowWidth=50)
        elif i % 6 == 3:
            Image.fromarray(picture(i)).save(path, "TIFF")
        elif i % 6 == 4:
            with path.open("wb") as file:
                np.save(file, picture(i))
        else:
            Image.fromarray(picture(i)).save(path, "PNG")
        found.append(path)
    return found


@pytest.fixture
def counted(monkeypatch):
    """Rows that are decoded, and those whose whole file is hashed."""
    decoded, hashed = [], []
    real_decode, real_hash = image_files.decoded, image_files.hashlib.file_digest
    monkeypatch.setattr(
        image_files, "decoded", lambda p, *a: decoded.append(p) or real_decode(p, *a)
    )
    monkeypatch.setattr(
        image_files.hashlib,
        "file_digest",
        lambda f, kind: hashed.append(Path(f.name)) or real_hash(f, kind),
    )
    return decoded, hashed


def every(found):
    return found.read(np.arange(N))


def files(folder, kind):
    return sorted(folder.glob(f"*.{kind}"))


def test_cached_is_uncached_is_one_by_one(paths, tmp_path):
    for channels in ("auto", 1, 3):
        plain = open_files(paths, (8, 6), channels)
        first = open_files(paths, (8, 6), channels, cache=tmp_path / "c")
        again = open_files(paths, (8, 6), channels, cache=tmp_path / "c")
        wanted = every(plain)
        singly = [plain.read(np.array([row]))[0] for row in range(N)]
        assert np.array_equal(wanted, singly)
        for found in (first, again):
            assert np.array_equal(every(found), wanted)
            assert type(every(found)) is np.ndarray
            assert found.mark() == plain.mark()
            assert (found.notes, found.reading, found.shape) == (
                plain.notes,
                plain.reading,
                plain.shape,
            )
            rows = np.array([7, 3, 3, 24])
            assert np.array_equal(found.read(rows), wanted[rows])
            assert found.read(np.array([], dtype=np.intp)).shape == (0, *found.shape)
    assert len(files(tmp_path / "c", "npy")) == 3
    mean, sd = plain.moments(np.arange(N))
    np.testing.assert_allclose(mean, wanted.mean((1, 2, 3)))
    np.testing.assert_allclose(sd, wanted.std((1, 2, 3)))


def test_the_array_is_plain_and_its_owners_alone(paths, tmp_path):
    wanted = every(open_files(paths, (8, 6), cache=tmp_path / "deep" / "c"))
    folder = tmp_path / "deep" / "c"
    (array,) = files(folder, "npy")
    assert np.array_equal(np.load(array, allow_pickle=False), wanted)
    assert array.stat().st_size == 128 + wanted.size
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}
    first, *lines = (folder / array.with_suffix(".jsonl").name).read_text().splitlines()
    assert json.loads(first)["shape"] == [N, 3, 8, 6]
    assert [json.loads(line)["piece"] for line in lines] == list(range(7))
    said = json.loads(lines[1])["files"][2]
    assert said[:2] == [paths[6].stat().st_size, paths[6].stat().st_mtime_ns]


def test_nothing_is_read_again(paths, tmp_path, counted):
    decoded, hashed = counted
    open_files(paths, (8, 6), cache=tmp_path)
    assert set(decoded) == set(hashed) == set(paths)
    decoded.clear(), hashed.clear()
    found = open_files(paths, (8, 6), cache=tmp_path)
    every(found), found.mark()
    assert decoded == hashed == []


def test_progress(paths, tmp_path):
    told = []
    open_files(paths, (8, 6), cache=tmp_path, progress=lambda *at: told.append(at))
    assert told == [(min(4 * (i + 1), N), N) for i in range(7)]
    told.clear()
    found = open_files(paths, (8, 6), cache=tmp_path, progress=lambda *at: told.append(at))
    assert told == []
    found.moments(np.arange(N), lambda *at: told.append(at))
    assert told == [(N, N)]
    open_files(paths, (8, 6)).read(np.arange(N), lambda *at: told.append(at))
    assert told == [(N, N)] * 2


def test_a_file_with_other_pixels_makes_a_new_array(paths, tmp_path):
    every(open_files(paths, (8, 6), cache=tmp_path))
    before = paths[5].stat()
    content = bytearray(paths[5].read_bytes())
    Image.fromarray(255 - picture(5)).save(paths[5], "PNG")
    # Neither size nor time of content tell.
    paths[5].write_bytes(paths[5].read_bytes().ljust(len(content), b"\0")[: len(content)])
    os.utime(paths[5], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert paths[5].stat().st_size == before.st_size
    found = open_files(paths, (8, 6), cache=tmp_path)
    plain = open_files(paths, (8, 6))
    assert np.array_equal(every(found), every(plain))
    assert found.mark() == plain.mark()
    assert found.notes[:-1] == plain.notes
    assert found.notes[-1].endswith(": 1 of 25 files changed.")
    assert open_files(paths, (8, 6), cache=tmp_path).notes == plain.notes
    assert len(files(tmp_path, "npy")) == 1


def test_a_file_that_was_touched_alone_is_hashed_alone(paths, tmp_path, counted):
    decoded, hashed = counted
    first = open_files(paths, (8, 6), cache=tmp_path)
    os.utime(paths[9])
    paths[4].chmod(0o640)
    decoded.clear(), hashed.clear()
    again = open_files(paths, (8, 6), cache=tmp_path)
    assert (again.notes, again.mark(), decoded) == (first.notes, first.mark(), [])
    assert set(hashed) == {paths[4], paths[9]}
    hashed.clear()
    open_files(paths, (8, 6), cache=tmp_path)
    assert hashed == []


def test_times_that_are_too_fresh_prove_nothing(paths, tmp_path, counted, monkeypatch):
    _, hashed = counted
    monkeypatch.setattr(cache_index, "_SETTLED", 10**12)
    first = open_files(paths, (8, 6), cache=tmp_path)
    for _ in range(2):
        hashed.clear()
        assert open_files(paths, (8, 6), cache=tmp_path).mark() == first.mark()
        assert sorted(hashed) == sorted(paths)
    monkeypatch.setattr(cache_index, "_SETTLED", 0)
    open_files(paths, (8, 6), cache=tmp_path)
    hashed.clear()
    open_files(paths, (8, 6), cache=tmp_path)
    assert hashed == []


def test_data_that_moved_are_the_same(paths, tmp_path, counted):
    decoded, _ = counted
    first = open_files(paths, (8, 6), cache=tmp_path / "c")
    (tmp_path / "images").rename(tmp_path / "moved")
    moved = [tmp_path / "moved" / path.relative_to(tmp_path / "images") for path in paths]
    decoded.clear()
    assert open_files(moved, (8, 6), cache=tmp_path / "c").mark() == first.mark()
    assert decoded == []


@pytest.mark.parametrize(
    "harm", ["flipped", "truncated", "longer", "header", "gone", "index", "unfinished line"]
)
def test_a_damaged_cache_is_made_again(paths, tmp_path, harm, counted):
    decoded, _ = counted
    wanted = every(open_files(paths, (8, 6), cache=tmp_path))
    (array,), (index,) = files(tmp_path, "npy"), files(tmp_path, "jsonl")
    content = bytearray(array.read_bytes())
    if harm == "flipped":
        content[700] ^= 1
    elif harm == "header":
        content[40] ^= 1
    elif harm == "truncated":
        del content[-1]
    elif harm == "longer":
        content += b"more"
    array.write_bytes(content)
    if harm == "gone":
        array.unlink()
    elif harm == "index":
        index.write_bytes(index.read_bytes().replace(b'"files"', b'"flies"', 1))
    elif harm == "unfinished line":
        index.write_bytes(index.read_bytes()[:-30])
    decoded.clear()
    found = open_files(paths, (8, 6), cache=tmp_path)
    assert np.array_equal(every(found), wanted)
    if harm == "longer":  # what follows the array is no part of it
        assert not decoded
    elif harm == "unfinished line":
        assert decoded == paths[24:]
    else:
        assert found.notes[-1].endswith("was damaged.")
    decoded.clear()
    assert np.array_equal(every(open_files(paths, (8, 6), cache=tmp_path)), wanted)
    assert not decoded


def test_random_harm_is_never_read(paths, tmp_path):
    paths = paths[1:5]
    wanted = open_files(paths, (8, 6), cache=tmp_path).read(np.arange(4))
    rng = np.random.default_rng(0)
    for i in range(24):
        (array,), (index,) = files(tmp_path, "npy"), files(tmp_path, "jsonl")
        harmed = array if i % 2 else index
        content = bytearray(harmed.read_bytes())
        if i % 3:
            content[rng.integers(len(content))] = rng.integers(256)
        else:
            del content[rng.integers(len(content)) :]
        harmed.write_bytes(content)
        found = open_files(paths, (8, 6), cache=tmp_path)
        assert np.array_equal(found.read(np.arange(4)), wanted)
        assert found.mark() == open_files(paths, (8, 6)).mark()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(1, 16))
def test_a_kill_at_any_write_loses_one_piece(paths, tmp_path, at, monkeypatch, counted):
    decoded, _ = counted
    left, real = [at], caching._write

    def killed(file, content):
        left[0] -= 1
        if left[0] == 0:
            file.write(bytes(content)[: len(content) // 2])  # half of it
            file.flush()
            raise Killed
        real(file, content)

    monkeypatch.setattr(caching, "_write", killed)
    # The header, then for each of 7 pieces the images and a line.
    with pytest.raises(Killed):
        open_files(paths, (8, 6), cache=tmp_path)
    monkeypatch.setattr(caching, "_write", real)
    decoded.clear()
    found = open_files(paths, (8, 6), cache=tmp_path)
    if at >= 4:  # nothing is surveyed again, and what has its line is not decoded
        assert sorted(decoded) == sorted(paths[4 * ((at - 2) // 2) :])
    plain = open_files(paths, (8, 6))
    assert np.array_equal(every(found), every(plain))
    assert found.mark() == plain.mark()


def test_what_was_begun_with_other_files_is_begun_anew(paths, tmp_path, monkeypatch):
    real = caching._write

    def killed(file, content):
        if file.name and b'"piece":3' in bytes(content):
            raise Killed
        real(file, content)

    monkeypatch.setattr(caching, "_write", killed)
    with pytest.raises(Killed):
        open_files(paths, (8, 6), cache=tmp_path)
    monkeypatch.setattr(caching, "_write", real)
    Image.fromarray(picture(99)).save(paths[5], "PNG")
    found = open_files(paths, (8, 6), cache=tmp_path)
    assert np.array_equal(every(found), every(open_files(paths, (8, 6))))
    assert found.notes[-1].endswith("was not finished, and its files may have changed.")


def test_a_file_that_changes_while_it_is_read_is_refused(paths, tmp_path, monkeypatch):
    real = image_files.decoded

    def changing(path, *rest):
        result = real(path, *rest)
        if path == paths[10]:
            os.utime(path, ns=(1, 1))
        return result

    monkeypatch.setattr(image_files, "decoded", changing)
    with pytest.raises(ImageError, match=r"^Row 10: .*10\.img changed while it was read; run"):
        open_files(paths, (8, 6), cache=tmp_path)


def test_other_versions_and_other_settings(paths, tmp_path, monkeypatch):
    for size in ((8, 6), (6, 8)):
        every(open_files(paths, size, cache=tmp_path))
    every(open_files(paths[::-1], (8, 6), cache=tmp_path))
    assert len(files(tmp_path, "npy")) == 3
    monkeypatch.setattr(cache_index, "_versions", lambda: {"confide": "99"})
    found = open_files(paths, (8, 6), cache=tmp_path)
    assert found.notes[-1].endswith("made by other versions of confide or of the decoders.")
    assert len(files(tmp_path, "npy")) == 3


def test_a_reading_that_was_decided_before(paths, tmp_path):
    decided = open_files(paths, (8, 6)).reading
    for some in (paths, paths[6:7]):
        plain = open_files(some, (8, 6), "auto", decided)
        for _ in range(2):
            found = open_files(some, (8, 6), "auto", decided, cache=tmp_path)
            rows = np.arange(len(some))
            assert np.array_equal(found.read(rows), plain.read(rows))
            assert found.reading == decided


def test_two_writers_take_turns(paths, tmp_path, counted):
    decoded, _ = counted
    decided, found = open_files(paths, (8, 6), 1).reading, []
    decoded.clear()
    threads = [
        threading.Thread(
            target=lambda: found.append(every(open_files(paths, (8, 6), 1, cache=tmp_path)))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    once = [path for path in paths if int(path.stem) % 6]  # others have 16 bits
    assert [decoded.count(path) for path in once] == [1] * len(once)
    wanted = every(open_files(paths, (8, 6), 1, decided))
    assert len(found) == 3
    assert all(np.array_equal(one, wanted) for one in found)


def test_a_process_that_is_killed_lets_go(paths, tmp_path, counted):
    decoded, _ = counted

    def stop(done, total):
        if done >= 12:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        open_files(paths, (8, 6), cache=tmp_path / "c", progress=stop)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    found = open_files(paths, (8, 6), cache=tmp_path / "c")
    assert sorted(decoded) == sorted(paths[8:])  # the third piece was decoded, and not yet written
    assert np.array_equal(every(found), every(open_files(paths, (8, 6))))


def test_a_full_disk_and_a_folder_that_cannot_be_used(paths, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=r"file cannot be used as a cache \(.*; name another"):
        open_files(paths, (8, 6), cache=tmp_path / "file")
    usage = caching.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(FolderError, match="1,000 bytes free, the images take 3,600; free some"):
        open_files(paths, (8, 6), cache=tmp_path / "c")
    monkeypatch.undo()

    def full(file, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching, "_write", full)
    with pytest.raises(FolderError, match=r"is full\. What was kept is safe"):
        open_files(paths, (8, 6), cache=tmp_path / "c")


def test_links_are_not_followed(paths, tmp_path):
    open_files(paths, (8, 6), cache=tmp_path / "c")
    (array,), (index,) = files(tmp_path / "c", "npy"), files(tmp_path / "c", "jsonl")
    index.unlink()
    array.unlink()
    (tmp_path / "other").write_text("mine")
    index.symlink_to(tmp_path / "other")
    array.symlink_to(tmp_path / "other")
    open_files(paths, (8, 6), cache=tmp_path / "c")
    assert (tmp_path / "other").read_text() == "mine"
    assert not index.is_symlink()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(paths, tmp_path, mode):
    folder = tmp_path / "a cache"
    wanted = every(open_files(paths, (8, 6), cache=folder))
    folder.chmod(mode)
    words = f"a cache has mode {mode:04o}: others can write to it.*chmod 700 '{folder}'"
    with pytest.raises(FolderError, match=words):
        open_files(paths, (8, 6), cache=folder)
    folder.chmod(0o755)
    assert np.array_equal(every(open_files(paths, (8, 6), cache=folder)), wanted)


def test_a_folder_or_link_of_another_is_refused(paths, tmp_path, monkeypatch):
    (tmp_path / "c").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "c")
    open_files(paths, (8, 6), cache=tmp_path / "link")  # a link of one's own is none of another's
    real = Path.lstat
    monkeypatch.setattr(
        Path, "lstat", lambda p: os.stat_result([*real(p)[:4], 12345, *real(p)[5:10]])
    )
    with pytest.raises(FolderError, match=r"link is not your own folder.*name a folder of yours"):
        open_files(paths, (8, 6), cache=tmp_path / "link")
    monkeypatch.undo()
    monkeypatch.setattr(caching.os, "getuid", lambda: 12345)
    with pytest.raises(FolderError, match="is not your own folder"):
        open_files(paths, (8, 6), cache=tmp_path / "c")


def test_files_become_their_owners_alone(paths, tmp_path):
    notes = open_files(paths, (8, 6), cache=tmp_path).notes
    kept = [*files(tmp_path, "npy"), *files(tmp_path, "jsonl")]
    for path in kept:
        path.chmod(0o644)
    assert open_files(paths, (8, 6), cache=tmp_path).notes == notes
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}


@pytest.mark.skipif(os.getuid() != 0, reason="gives files to another user")
def test_files_of_another_are_made_anew(paths, tmp_path):
    wanted = every(open_files(paths, (8, 6), cache=tmp_path))
    for kind in ("npy", "jsonl"):
        (path,) = files(tmp_path, kind)
        os.chown(path, 12345, -1)
        found = open_files(paths, (8, 6), cache=tmp_path)
        assert "damaged" in found.notes[-1]
        assert np.array_equal(every(found), wanted)
        assert path.stat().st_uid == 0


def test_a_cache_that_cannot_be_written_is_read(paths, tmp_path, monkeypatch):
    wanted = every(open_files(paths, (8, 6), cache=tmp_path))
    os.utime(paths[3])
    real = caching._opened

    def refuse(path, flags=os.O_RDWR):
        if flags != os.O_RDONLY:
            raise PermissionError(13, "Permission denied")
        return real(path, flags)

    monkeypatch.setattr(caching, "_opened", refuse)
    assert np.array_equal(every(open_files(paths, (8, 6), cache=tmp_path)), wanted)


# --- in a source


def source(folder, paths, **changed):
    names = [str(path.relative_to(folder / "images")) for path in paths]
    ids = np.arange(len(names))
    frame = pd.DataFrame({"image": names, "p": ids // 2, "y": ids % 2})
    frame.to_csv(folder / "t.csv", index=False)
    given = {"path": "t.csv", "images": "images", "patient": "p", "label": "y", "size": (8, 6)}
    return Images(**(given | changed))


def test_a_source_with_a_cache_is_the_same(paths, tmp_path):
    plain, kept = (source(tmp_path, paths, **more) for more in ({}, {"cache": "c"}))
    for _ in range(2):
        a, b = plain.load(tmp_path), kept.load(tmp_path)
        assert np.array_equal(a.inputs, b.inputs)
        assert a.fingerprint() == b.fingerprint()
        assert plain.open(tmp_path).fingerprint() == kept.open(tmp_path).fingerprint()
    assert (tmp_path / "c").is_dir()
    # A run that was begun without a cache goes on with one.
    assert plain.model_dump(mode="json") == kept.model_dump(mode="json")
    first = kept.open(tmp_path).fingerprint()
    Image.fromarray(picture(77)).save(paths[5], "PNG")
    assert kept.open(tmp_path).fingerprint() == plain.open(tmp_path).fingerprint() != first
    assert kept.load(tmp_path).fingerprint() == plain.load(tmp_path).fingerprint() != a


def test_a_source_tells_how_far_it_is(paths, tmp_path):
    told = []
    kept = source(tmp_path, paths, cache="c").telling(lambda *at: told.append(at))
    kept.load(tmp_path)
    assert told[0][0] < N
    assert told.count((N, N)) == 2  # into the cache, and out of it
    told.clear()
    plain = source(tmp_path, paths).telling(lambda *at: told.append(at))
    plain.unlabelled().load(tmp_path)
    assert told == [(N, N)]
    opened = plain.open(tmp_path)
    opened.read(np.arange(N))  # whoever asks for some knows how far they are
    assert told == [(N, N)]
    assert plain.model_dump() == source(tmp_path, paths).model_dump()


def test_images_decoded_otherwise_are_not_taken_from_the_cache(paths, tmp_path, monkeypatch):
    for module in (cache_index, images):
        monkeypatch.setattr(module, "DECODING", "as before")
    cache_index._versions.cache_clear()
    before = source(tmp_path, paths, cache="c").open(tmp_path)
    monkeypatch.undo()
    cache_index._versions.cache_clear()
    now = source(tmp_path, paths, cache="c").open(tmp_path)
    assert now.notes[-1].endswith("made by other versions of confide or of the decoders.")
    assert now.fingerprint() != before.fingerprint()


def test_an_array_needs_no_cache():
    with pytest.raises(pydantic.ValidationError, match="images in `array` need none"):
        Images(path="t.csv", array="x.npy", cache="c", patient="p", label="y")
