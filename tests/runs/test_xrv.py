"""TorchXRayVision's data and networks: transforms, split, labels, and a whole audit."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.model_selection import GroupShuffleSplit

from confide.datasets.xrv import FINDINGS, XrvCheXpert, XrvMimic, prepared, split
from confide.errors import (
    ArgumentError,
    ImageError,
    MissingExtraError,
    MissingFileError,
    TableError,
)

TABLE = [
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
]


def labels(n, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.choice(["1.0", "0.0", "-1.0", ""], size=(n, len(TABLE)))
    frame = pd.DataFrame(values, columns=TABLE)
    frame.loc[: n // 8, "No Finding"] = "1.0"
    return frame


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory):
    """CheXpert's layout: 60 patients with one to three views."""
    root = tmp_path_factory.mktemp("data") / "CheXpert-v1.0-small"
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(1, 61):
        for view in range(1, 2 + patient % 3):
            frontal = view < 3
            kind = "frontal" if frontal else "lateral"
            name = f"train/patient{patient:05d}/study1/view{view}_{kind}.jpg"
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 15), dtype=np.uint8)).save(file)
            rows.append(
                {
                    "Path": f"CheXpert-v1.0-small/{name}",
                    "Sex": ["Male", "Female"][patient % 2],
                    "Age": 50,
                    "Frontal/Lateral": kind.capitalize(),
                    "AP/PA": ["AP", "PA"][view % 2] if frontal else "",
                }
            )
    frame = pd.concat([pd.DataFrame(rows), labels(len(rows))], axis=1)
    frame.to_csv(root / "train.csv", index=False)
    return root


def test_images_are_cropped_and_scaled_to_the_range_of_the_library():
    image = np.zeros((10, 14), dtype=np.uint8)
    image[:, 2:12] = 255
    found = prepared(image)
    assert found.shape == (1, 224, 224)
    assert found.dtype == np.float32
    assert (found == 1024).all()  # the margins are cut away
    assert (prepared(np.zeros((224, 300), np.uint8)) == -1024).all()
    colour = np.stack([image, 255 - image, image], axis=2)
    np.testing.assert_array_equal(prepared(colour), found)


@pytest.mark.parametrize("shape", [(320, 390), (390, 320), (200, 180), (225, 300)])
def test_resizing_is_that_of_scikit_image(shape):
    transform = pytest.importorskip("skimage.transform")
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    side = min(shape)
    top, left = (size // 2 - side // 2 for size in shape)
    square = image[None, top : top + side, left : left + side].astype(np.float32)
    square = (2 * (square / 255) - 1.0) * 1024
    expected = transform.resize(square, (1, 224, 224), mode="constant", preserve_range=True)
    np.testing.assert_allclose(prepared(image), expected, atol=1e-3)


def test_the_split_is_that_of_the_training_script():
    rng = np.random.default_rng(0)
    patient = np.asarray([f"{i:05d}" for i in rng.integers(0, 200, 700)])
    table = pd.DataFrame({"patientid": patient})
    draw = GroupShuffleSplit(train_size=0.8, test_size=0.2, random_state=0)
    train, test = next(draw.split(X=range(len(table)), groups=table.patientid))
    inner = table.iloc[train]
    draw = GroupShuffleSplit(train_size=0.8, test_size=0.2, random_state=0)
    fitted, chosen = next(draw.split(X=range(len(inner)), groups=inner.patientid))
    side = split(patient)
    assert (side[test] == 0).all()
    assert (side[train[fitted]] == 1).all()
    assert np.isnan(side[train[chosen]]).all()
    order = rng.permutation(700)
    np.testing.assert_array_equal(split(patient[order]), side[order])


def test_chexpert_is_read_as_the_library_reads_it(chexpert):
    opened = XrvCheXpert(path="train.csv").open(chexpert)
    table = pd.read_csv(chexpert / "train.csv")
    kept = table[table["Frontal/Lateral"] == "Frontal"].reset_index(drop=True)
    assert opened.cohort.n_records == len(kept)
    assert opened.cohort.patient.tolist() == [p[33:38] for p in kept["Path"]]
    assert opened.cohort.classes == FINDINGS
    healthy = (kept["No Finding"] == 1).to_numpy()
    effusion = np.where(healthy, 0.0, kept["Pleural Effusion"])
    effusion[effusion == -1] = np.nan
    np.testing.assert_array_equal(opened.cohort.label[:, FINDINGS.index("Effusion")], effusion)
    side = opened.frame["member"].to_numpy()
    assert (side == 1).any()
    assert (side == 0).any()
    assert np.isnan(side).any()
    for patient in opened.cohort.patients:
        assert len(set(map(str, side[opened.cohort.patient == patient]))) == 1
    found = opened.read(np.array([3, 0]))
    assert found.shape == (2, 1, 224, 224)
    with Image.open(chexpert.parent / kept["Path"][3]) as image:
        np.testing.assert_array_equal(found[0], prepared(np.asarray(image)))
    assert any("drawn again" in note for note in opened.notes)
    only = XrvCheXpert(path="train.csv", views=("PA",)).open(chexpert)
    assert set(only.cohort.groups["view"]) == {"PA"}


def test_mimic_is_read_as_the_library_reads_it(tmp_path):
    n = 40
    subject, study = 10000000 + np.arange(n) // 2, 50000000 + np.arange(n)
    keys = pd.DataFrame({"subject_id": subject, "study_id": study})
    pd.concat([keys, labels(n)], axis=1).to_csv(tmp_path / "labels.csv.gz", index=False)
    views = np.resize(["PA", "AP", "LATERAL"], n)
    meta = keys.assign(dicom_id=[f"d{i}" for i in range(n)], ViewPosition=views)
    meta.sample(frac=1, random_state=0).to_csv(tmp_path / "meta.csv", index=False)
    for i in range(n):
        file = tmp_path / f"files/p{str(subject[i])[:2]}/p{subject[i]}/s{study[i]}/d{i}.jpg"
        file.parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(file)
    source = XrvMimic(path="labels.csv.gz", metadata="meta.csv", images="files")
    opened = source.open(tmp_path)
    assert opened.cohort.n_records == (views != "LATERAL").sum()
    row = opened.cohort.record.tolist().index("d4")
    assert opened.read(np.array([row])).mean() == pytest.approx((2 * 4 / 255 - 1) * 1024, abs=8)


def test_tables_that_cannot_be_used(chexpert, tmp_path):
    table = pd.read_csv(chexpert / "train.csv")
    table.assign(Path="../../secret.jpg").to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(TableError, match="patientNNNNN"):
        XrvCheXpert(path="train.csv").open(tmp_path)
    away = "../../train/patient00001/study1/view1_frontal.jpg"
    table.assign(Path=away).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(ImageError, match="outside"):
        XrvCheXpert(path="train.csv").open(tmp_path)
    table.drop(columns="Edema").to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(TableError, match="no column 'Edema'"):
        XrvCheXpert(path="train.csv").open(tmp_path)
    with pytest.raises(TableError, match="at least 5 patients"):
        split(["1", "1", "2"])


@pytest.mark.skipif(
    importlib.util.find_spec("torchxrayvision") is not None, reason="the library is installed"
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels(chexpert, monkeypatch):
    data = XrvCheXpert(path="train.csv").open(chexpert)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="more than 100 pixels"):
        data.read(np.array([0]))


def test_without_the_library_the_extra_is_named():
    from confide.runs.xrv import open_network

    with pytest.raises(MissingExtraError, match=r"confide\[vision\]"):
        open_network("densenet121-res224-chex")


@pytest.fixture(scope="module")
def library():
    """The library; beside a PyTorch for CPUs torchvision lacks two operators."""
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs confide[vision]")
    fragment = None
    if not hasattr(torch.ops.torchvision, "nms"):
        fragment = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            fragment.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield pytest.importorskip("torchxrayvision", reason="needs confide[vision]")
    del fragment


@pytest.mark.filterwarnings("ignore")
def test_a_network_gives_its_logits(library, tmp_path):
    import torch

    from confide.runs.xrv import open_network

    torch.manual_seed(0)
    network = library.models.DenseNet(num_classes=18).eval()
    x = 500 * np.random.default_rng(0).normal(size=(2, 1, 224, 224)).astype(np.float32)
    expected = network(torch.from_numpy(x)).detach().numpy()
    for name, content in (("whole", network), ("state", network.state_dict())):
        torch.save(content, tmp_path / name)
        found = open_network("densenet121-res224-chex", tmp_path / name)
        np.testing.assert_allclose(found.run(x), expected, atol=1e-4)
        assert set(FINDINGS) == {c for c in found.classes if not c.startswith("(")}
    torch.save(network, tmp_path / "old", _use_new_zipfile_serialization=False)
    with pytest.raises(ArgumentError, match="save its weights anew"):
        open_network("densenet121-res224-chex", tmp_path / "old")
    with pytest.raises(MissingFileError, match="nothing is downloaded"):
        open_network("densenet121-res224-pc", tmp_path / "none")
    with pytest.raises(ArgumentError, match="no network"):
        open_network("densenet121-res224-nobody")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_audit_of_a_network(library, chexpert, tmp_path):
    import torch

    from confide.config import load_as
    from confide.runs.model_config import audit_model_config
    from confide.runs.model_settings import ModelConfig

    torch.manual_seed(0)
    for name in ("chex", "pc"):
        torch.save(library.models.DenseNet(num_classes=18).state_dict(), tmp_path / name)
    (tmp_path / "xrv.yaml").write_text(
        f"data: {{name: xrv-chexpert, path: {chexpert}/train.csv}}\n"
        "target: {model: densenet121-res224-chex, members: member, weights: chex}\n"
        "references: [{model: densenet121-res224-pc, members: null, weights: pc}]\n"
        "batch_size: 16\n"
    )
    found = audit_model_config(*load_as(ModelConfig, tmp_path / "xrv.yaml"), tmp_path / "out")
    assert found.summary["verdict"]["status"] != "detectable"
    assert any("Labels that not every model predicts" in w for w in found.summary["warnings"])
    assert set(found.summary["attacks"]) == {"loss", "lira_offline", "rmia_offline"}
