"""Near-duplicates: found across patients, against all pairs, and not where there are none."""

import numpy as np
import pytest

from confide.datasets import near_duplicates as module
from confide.datasets.near_duplicates import MAX_DISTANCE, area_means, hashes, near_duplicates
from confide.errors import ArgumentError


def pictures(seed, n, side=40, channels=1):
    """Smooth random images, no two alike."""
    rng = np.random.default_rng(seed)
    small = rng.standard_normal((n, channels, 16, 16))
    up = area_means(side, 16).T  # spreads each of 16 values over its stretch
    smooth = up @ small @ up.T
    smooth = (smooth - smooth.min((2, 3), keepdims=True)) / np.ptp(smooth, (2, 3), keepdims=True)
    return (20 + 200 * smooth).astype(np.uint8)


def as_sets(found):
    return [rows.tolist() for rows in found.sets]


def test_copies_of_other_patients_are_found():
    images = pictures(0, 60)
    images[50] = images[3]
    images[51] = np.clip(images[4] * 0.7 + 30, 0, 255)  # contrast and brightness
    rng = np.random.default_rng(0)
    images[52] = np.clip(images[5] + rng.normal(0, 4, images[5].shape), 0, 255)
    found = near_duplicates(images, np.arange(60))
    assert as_sets(found) == [[3, 50], [4, 51], [5, 52]]
    assert (found.n_blank, found.n_crowded) == (0, 0)


def test_copies_of_one_patient_are_nobodys_business():
    images = pictures(1, 40)
    images[20:30] = images[0]
    owner = np.arange(40)
    owner[20:30] = 0
    assert as_sets(near_duplicates(images, owner)) == []
    # With one copy at another patient, all of them are one set.
    owner[29] = 99
    assert as_sets(near_duplicates(images, owner)) == [[0, *range(20, 30)]]


def test_a_copy_of_a_copy_is_linked_through_equal_codes():
    # Equal codes of several patients, and a near code: one set.
    images = pictures(2, 30)
    images[10] = images[11] = images[0]
    images[12] = np.clip(images[0].astype(int) + np.arange(40)[:, None] // 4, 0, 255)
    owner = np.arange(30)
    owner[10] = 0
    assert as_sets(near_duplicates(images, owner)) == [[0, 10, 11, 12]]


def test_as_comparing_all_pairs():
    # Noise of many strengths, so that some pairs are inside and some outside of the limits.
    base = pictures(3, 80)
    rng = np.random.default_rng(3)
    noise = rng.standard_normal(base.shape) * np.linspace(0, 30, 80)[:, None, None, None]
    images = np.concatenate([base, np.clip(base + noise, 0, 255).astype(np.uint8)])
    codes, _ = hashes(images)
    bits = np.unpackbits(codes.view(np.uint8), axis=1).astype(int)
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    mean = area_means(40, 32)
    small = (mean @ images[:, 0].astype(float) @ mean.T).reshape(160, -1)
    wanted, certain = set(), set()
    for i in range(160):
        for j in range(i + 1, 160):
            if distance[i, j] <= MAX_DISTANCE and np.corrcoef(small[i], small[j])[0, 1] >= 0.98:
                wanted.add((i, j))
                if distance[i, j] <= 15:
                    certain.add((i, j))
    found = {tuple(pair) for pair in as_sets(near_duplicates(images, np.arange(160)))}
    assert certain <= found <= wanted
    assert len(certain) > 20
    assert len(wanted) < 80
    assert len(found) >= len(wanted) - 2


def test_different_pictures_are_no_duplicates():
    found = near_duplicates(pictures(4, 1500, side=24), np.arange(1500))
    assert as_sets(found) == []


def test_the_code_ignores_brightness_contrast_and_size():
    images = pictures(5, 50, side=64)
    darker = (images // 2).astype(np.uint8)
    mean = area_means(64, 32)
    halved = np.rint(mean @ images.astype(float) @ mean.T).astype(np.uint8)
    codes, _ = hashes(images)
    for other in (darker, halved):
        differ = np.bitwise_count(codes ^ hashes(other)[0]).sum(axis=1)
        assert differ.max() <= 15


def test_colour_counts_in_the_confirmation():
    images = pictures(6, 20, channels=3)
    images[10] = images[0][::-1]  # the same grey, other colours
    images[11] = images[1]
    assert as_sets(near_duplicates(images, np.arange(20))) == [[1, 11]]


def test_blank_images_are_left_out():
    images = pictures(7, 20)
    images[3:9] = 0
    images[9:12] = 255
    images[12] = 100 + (np.arange(40) > 38)
    found = near_duplicates(images, np.arange(20))
    assert as_sets(found) == []
    assert found.n_blank == 10
    assert near_duplicates(np.zeros((4, 1, 8, 8), np.uint8), np.arange(4)).n_blank == 4


def test_crowds_are_left_out_and_counted(monkeypatch):
    monkeypatch.setattr(module, "_CROWDED", 3)
    images = pictures(8, 30)
    images[10] = images[0]
    found = near_duplicates(images, np.arange(30))
    assert found.n_crowded == 0
    assert as_sets(found) == [[0, 10]]
    # Five codes that agree in all bands but one bit each: crowded in nearly every band.
    codes = np.zeros((5, 4), dtype=np.uint64)
    codes[:, 0] = 2 ** np.arange(5, dtype=np.uint64)
    compared = np.zeros(5, dtype=bool)
    pairs = np.concatenate(list(module._candidates(codes, np.arange(5), compared)))
    assert compared.all()  # the band of the single bits tells them apart
    assert len(pairs) == 0
    monkeypatch.setattr(module, "_CROWDED", 5)
    pairs = np.concatenate(list(module._candidates(codes, np.arange(5), compared)))
    assert len(np.unique(pairs, axis=0)) == 10


def test_parts_do_not_matter(monkeypatch):
    images = pictures(9, 90)
    images[45:] = images[:45]
    whole = as_sets(near_duplicates(images, np.arange(90)))
    assert len(whole) == 45
    monkeypatch.setattr(module, "_PART", 7)
    monkeypatch.setattr(module, "_PAIRS", 3)
    assert as_sets(near_duplicates(images, np.arange(90))) == whole


def test_any_shape():
    for shape in ((1, 1, 1, 1), (3, 2, 5, 70), (0, 1, 8, 8), (2, 1, 300, 20)):
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        assert as_sets(near_duplicates(images, np.arange(len(images)))) == []


@pytest.mark.parametrize(
    "images",
    [np.zeros((3, 8, 8), np.uint8), np.zeros((3, 1, 8, 8)), np.zeros((4, 1, 8, 8), np.uint8)],
)
def test_wrong_input_is_refused(images):
    with pytest.raises(ArgumentError, match="Expected uint8 images"):
        near_duplicates(images, np.arange(3))


def test_area_means():
    assert area_means(6, 3) @ np.array([1, 3, 5, 7, 9, 11]) == pytest.approx([2, 6, 10])
    assert area_means(3, 2) @ np.array([1.0, 4.0, 7.0]) == pytest.approx([2, 6])
    assert area_means(2, 4) @ np.array([1.0, 5.0]) == pytest.approx([1, 1, 5, 5])


def chest(folder, name):
    """Images 64 x 64 and patients of a folder of real chest X-rays."""
    pd = pytest.importorskip("pandas")
    from PIL import Image

    frame = pd.read_csv(folder / name / "metadata.csv")
    images = [
        np.asarray(Image.open(folder / name / "images" / file).convert("L").resize((64, 64)))
        for file in frame["image"]
    ]
    return np.stack(images)[:, None], frame


def test_real_duplicates_are_found(real_data):
    if not (real_data / "cxr_nc").is_dir():
        pytest.skip("cxr_nc is not there")
    images, frame = chest(real_data, "cxr_nc")
    found = near_duplicates(images, frame["patient_id"].factorize()[0])
    files, patients = frame["image"].to_numpy(), frame["patient_id"].to_numpy()
    people = {tuple(sorted(set(patients[rows]))) for rows in found.sets}
    assert people == {("ccx_285", "ccx_339"), ("ccx_287", "ccx_340"), ("ccx_178", "ccx_97")}
    told = frame.dropna(subset="duplicate_of")
    other = told["patient_id"].to_numpy() != (
        frame.set_index("image")["patient_id"].loc[told["duplicate_of"]].to_numpy()
    )
    pairs = zip(told["image"][other], told["duplicate_of"][other], strict=True)
    assert {frozenset(files[rows]) for rows in found.sets} == set(map(frozenset, pairs))


@pytest.mark.parametrize("name", ["nih_cxr64", "cxr_open"])
def test_no_false_alarm_on_real_images(real_data, name):
    if not (real_data / name).is_dir():
        pytest.skip(f"{name} is not there")
    if name == "cxr_open":
        images, frame = chest(real_data, name)
    else:
        pd = pytest.importorskip("pandas")
        images = np.load(real_data / name / "images.npz")["images"][:, None]
        frame = pd.read_csv(real_data / name / "metadata.csv")
    # Each image its own patient: also images of one person are no duplicates.
    assert as_sets(near_duplicates(images, np.arange(len(images)))) == []
    assert len(frame) == len(images)


def test_ham10000(real_data):
    folder = real_data / "ham10000_nc"
    if not folder.is_dir():
        pytest.skip("ham10000_nc is not there")
    pd = pytest.importorskip("pandas")
    frame = pd.read_csv(folder / "metadata.csv")
    images = np.load(folder / "images28_gray.npz")["images"]
    images = images.reshape(len(frame), 1, 28, 28)
    found = near_duplicates(images, frame["lesion_id"].factorize()[0])
    # The one pair that the publisher of the folder tells, and no other.
    assert [sorted(frame["image_id"].iloc[rows]) for rows in found.sets] == [
        ["ISIC_0025226", "ISIC_0030074"]
    ]
