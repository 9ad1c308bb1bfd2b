"""Networks of timm: sizes, group norm, weights of a file against timm's own, refusals."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from confide.errors import ArgumentError, MissingExtraError, MissingFileError
from confide.models import (
    DenseNet121Settings,
    ResNet50Settings,
    ViTB16Settings,
    ViTL16Settings,
    _skeleton,
    build,
)
from confide.models.layers import initialise

pytestmark = pytest.mark.filterwarnings("ignore")  # of timm and what it imports


class TinyResNet(ResNet50Settings):
    architecture: ClassVar[str] = "resnet18"


class TinyViT(ViTB16Settings):
    architecture: ClassVar[str] = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def timm():
    """The library; beside a PyTorch for CPUs torchvision lacks two operators."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs confide[vision]")
    fragment = None
    if not hasattr(torch.ops.torchvision, "nms"):
        fragment = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            fragment.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield pytest.importorskip("timm", reason="needs confide[vision]")
    del fragment


def _drawn(timm, name, **options):
    """A network of timm with weights, and statistics, that are all different."""
    with torch.device("meta"):
        network = timm.create_model(name, **options)
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.dtype != torch.float32:
                tensor.zero_()
            elif key.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif tensor.ndim > 1 and key not in ("pos_embed", "cls_token"):
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
            else:
                tensor.normal_(0.5, 0.3, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def files(timm, tmp_path_factory):
    """Networks of timm with their classifiers, and the files of their weights."""
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for name in ("resnet18", "densenet121", "vit_tiny_patch16_224"):
        network = _drawn(timm, name)
        save_file(network.state_dict(), folder / f"{name}.safetensors")
        found[name] = network, folder / f"{name}.safetensors"
    return found


@pytest.mark.parametrize(
    ("settings", "size", "count"),
    [
        (ResNet50Settings(), 224, 23.5e6),
        (DenseNet121Settings(), 64, 6.95e6),
        (ViTB16Settings(), 224, 85.8e6),
        (ViTB16Settings(), 64, 85.7e6),
        (ViTL16Settings(), 128, 303e6),
    ],
)
def test_number_of_parameters(timm, settings, size, count):
    with torch.device("meta"):
        network = _skeleton(settings, (3, size, size), 1)
    n = sum(p.numel() for p in network.parameters()) - network.head.weight.numel() - 1
    assert n == pytest.approx(count, rel=5e-3)
    assert not list(network.buffers())
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("settings", "shape"),
    [(TinyResNet(), (1, 32, 40)), (DenseNet121Settings(), (3, 32, 32)), (TinyViT(), (1, 32, 48))],
)
def test_drawn_anew(timm, settings, shape):
    before = torch.get_rng_state()
    network = build(settings, shape, 2)
    initialise(network, torch.Generator().manual_seed(7))
    drawn = {n: p.detach().clone() for n, p in network.named_parameters()}
    assert all(p.isfinite().all() for p in drawn.values())
    with torch.no_grad():
        for p in network.parameters():
            p.fill_(float("nan"))
    initialise(network, torch.Generator().manual_seed(7))
    assert all(torch.equal(p, drawn[n]) for n, p in network.named_parameters())
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    out = network(x)
    torch.testing.assert_close(out, network.head(network.features(x)))
    (slope,) = torch.autograd.grad(out[0].sum(), x)
    assert (slope[1:] == 0).all()  # a record does not see the others
    assert slope[0].abs().max() > 0
    network.train()
    torch.testing.assert_close(network(x), out)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [(TinyResNet, (3, 64, 64)), (DenseNet121Settings, (3, 32, 32)), (TinyViT, (3, 224, 224))],
)
def test_weights_of_a_file_give_the_features_of_timm(files, settings, shape):
    theirs, path = files[settings.architecture]
    before = torch.get_rng_state()
    network = build(settings(weights=path), shape, 5)
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
        for mode in (True, False):
            found = network.train(mode).features(x)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not list(network.buffers())  # frozen statistics are part of the weights
    assert network(x).shape == (2, 5)
    assert all(p.requires_grad for p in network.parameters())
    assert len(network.identity["weights_sha256"]) == 64


def test_models_differ_in_the_head_alone(files):
    network = build(TinyResNet(weights=files["resnet18"][1]), (1, 32, 32), 2)
    drawn = []
    for seed in (1, 2):
        with torch.no_grad():
            for p in network.parameters():
                p.fill_(float("nan"))
        initialise(network, torch.Generator().manual_seed(seed))
        drawn.append({n: p.detach().clone() for n, p in network.named_parameters()})
    differ = {n for n, p in drawn[0].items() if not torch.equal(p, drawn[1][n])}
    assert differ == {"head.weight"}
    assert drawn[0]["head.weight"].std().item() == pytest.approx(512**-0.5, rel=0.1)


@pytest.mark.parametrize(("settings", "size"), [(TinyResNet, 32), (TinyViT, 224)])
def test_a_grey_image_is_one_with_three_equal_colours(files, settings, size):
    path = files[settings.architecture][1]
    grey, rgb = (build(settings(weights=path), (c, size, size), 2) for c in (1, 3))
    x = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = grey.features(x), rgb.features(x.repeat(1, 3, 1, 1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (128, 96)])
def test_positions_are_interpolated_to_the_size(files, size):
    theirs, path = files["vit_tiny_patch16_224"]
    network = build(TinyViT(weights=path), (1, *size), 1)
    rows, columns = size[0] // 16, size[1] // 16
    found = network.trunk.pos_embed.detach()
    assert torch.equal(found[:, 0], theirs.pos_embed.detach()[:, 0])  # of the class token
    grid = theirs.pos_embed.detach()[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
    torch.testing.assert_close(found[:, 1:], expected.flatten(2).transpose(1, 2))


def test_a_short_training_starts_from_the_file(files):
    from confide import masks
    from confide.training import TorchTrainer, TrainSettings

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (12, 1, 32, 32), dtype=np.uint8), rng.integers(0, 2, 12)
    path = files["resnet18"][1]
    settings = TrainSettings.model_validate(
        {"model": {"name": "resnet50"}, "epochs": 1, "batch_size": 4}
    ).model_copy(update={"model": TinyResNet(weights=Path(path.name))})
    trainer = TorchTrainer(
        x, y, task="binary", n_classes=2, n_audited=12, expected_members=6.0,
        settings=settings, folder=path.parent,
    )  # fmt: skip
    assert trainer.models_at_once == 1
    logits = trainer.fit(masks.balanced(4, 12)[:1], [5])
    network = build(TinyResNet(weights=path), (1, 32, 32), 1)
    assert logits.shape == (1, 12, 1, 1)
    assert trainer.describe()["weights_sha256"] == network.identity["weights_sha256"]


def test_files_that_are_refused(files, tmp_path):
    theirs, path = files["resnet18"]
    state = {k: v.clone() for k, v in theirs.state_dict().items()}

    def refused(words, changes=None, error=ArgumentError, shape=(3, 32, 32), file=None):
        if changes is not None:
            file = tmp_path / "changed.safetensors"
            save_file({k: v for k, v in {**state, **changes}.items() if v is not None}, file)
        with pytest.raises(error, match=words):
            build(TinyResNet(weights=file or path), shape, 1)

    refused("'bn1.weight' is missing", {"bn1.weight": None})
    refused(r"'bn1.weight' is \(3,\), expected \(64,\)", {"bn1.weight": torch.ones(3)})
    refused(r"'conv1.weight' is \(64, 1, 7, 7\)", {"conv1.weight": torch.ones(64, 1, 7, 7)})
    refused("'extra' has no place in it", {"extra": torch.ones(1)})
    refused("not finite", {"bn1.bias": torch.full((64,), torch.nan)})
    refused("1 or 3 channels, got 2", shape=(2, 32, 32))
    refused(
        "no weights at .*none.safetensors",
        error=MissingFileError,
        file=tmp_path / "none.safetensors",
    )
    torch.save(state, tmp_path / "pickle.safetensors")
    refused("not a file of weights in the safetensors format", file=tmp_path / "pickle.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:5000])
    refused("not a file of weights in the safetensors format", file=tmp_path / "cut.safetensors")


def test_positions_that_are_no_square_are_refused(files, tmp_path):
    state = {k: v.clone() for k, v in files["vit_tiny_patch16_224"][0].state_dict().items()}
    state["pos_embed"] = torch.zeros(1, 1 + 15, 192)
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ArgumentError, match=r"'pos_embed' is \(1, 16, 192\)"):
        build(TinyViT(weights=tmp_path / "a.safetensors"), (3, 64, 64), 1)


@pytest.mark.parametrize(
    ("settings", "shape", "words"),
    [
        (ResNet50Settings(), (1, 31, 40), "32 x 32 pixels or more"),
        (ViTB16Settings(), (1, 64, 72), "patches of 16 x 16 pixels, which 64 x 72"),
        (DenseNet121Settings(), (12, 1000), "'resnet1d'"),
    ],
)
def test_records_that_do_not_fit_are_refused(settings, shape, words):
    with pytest.raises(ArgumentError, match=words):
        build(settings, shape, 1)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"confide\[vision\]"):
        build(ResNet50Settings(), (1, 32, 32), 1)


def test_the_hub_is_asked_by_name_for_a_file_without_pickles(files, monkeypatch):
    path, asked = files["resnet18"][1], []
    hub = ModuleType("huggingface_hub")
    hub.hf_hub_download = lambda *names: asked.append(names) or str(path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    network = build(TinyResNet(weights="hub"), (3, 32, 32), 1)
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]
    assert network.identity == build(TinyResNet(weights=path), (3, 32, 32), 1).identity

    def offline(*names):
        raise ConnectionError("no route to host")

    hub.hf_hub_download = offline
    with pytest.raises(MissingFileError, match=r"cannot be fetched from https://.*no route") as it:
        build(TinyResNet(weights="hub"), (3, 32, 32), 1)
    assert "train.model.weights" in str(it.value)


def test_weights_are_relative_to_the_folder(files):
    path = files["resnet18"][1]
    network = build(TinyResNet(weights=Path(path.name)), (1, 32, 32), 1, folder=path.parent)
    assert network.identity
