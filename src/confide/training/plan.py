"""How a training is laid out: by settings and shapes alone, so that a resumed run does the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

from confide.models.settings import (
    CodeViTSettings,
    DenseNet121Settings,
    ModelSettings,
    OwnSettings,
    ResNet1dSettings,
    ResNet50Settings,
    SmallCNNSettings,
    TabularResNetSettings,
    ViTB16Settings,
    ViTL16Settings,
    ViTSettings,
    WRNSettings,
)
from confide.training.settings import Performance, TrainSettings

# The most models that one stack gains from.  Median milliseconds a model-step, as measured:
#   CPU, two cores shared with other work (benchmarks/training.py)
#     128 units, 3 blocks, 200 features, batch 512     1: 14.7   4: 8.9   16: 8.7   32: 8.3
#     the same, 30 features, batch 228                 1: 22     4: 8.0    8: 5.8
#     300 units, 6 blocks, 64 features, batch 512      1: 74     4: 64     8: 58
#     small CNN, 28 x 28, batch 256, one core          1: 319    4: 351    no gain
#     small CNN of width 8, 32 x 32, batch 16          1: 19     8: 7.2   16: 5.7
#     the same, batch 64 / 64 x 64, batch 32           1: 29     8: 18  /  1: 41     8: 35
#   one H200, compiled, whole fits of 117 to 196 steps with their evaluation
#     300 units, 6 blocks, 64 features, batch 512      1: 6.7   16: 0.80  128: 0.53
#     small CNN, 28 x 28, batch 256                    1: 6.2    8: 1.5    32: 0.76
#   a wide residual network fills the device alone
# Networks that are not named are trained one by one.
_MOST = {
    ("cpu", "tabular_resnet"): 16,
    ("cpu", "small_cnn"): 16,  # large images or batches are kept apart by _MEMORY
    ("cuda", "tabular_resnet"): 128,
    ("cuda", "small_cnn"): 32,
}
_MEMORY = {"cpu": 2**28, "cuda": 16 * 2**30}  # bytes that one stack may take
# Compiling took 12 to 20 s on that machine, once for all stacks of a size, and saved 54 ms a step
# of 128 tables, 5 ms of 16 and 3 ms of one small CNN.
_STEPS_TO_COMPILE = 1000
# Networks whose steps are the same operations each time, as nobody knows of a network of one's own.
_RECORDED = {"tabular_resnet", "small_cnn", "wrn", "resnet1d", "vit"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of a training.

    Attributes
    ----------
    batch : records a step of each model
    steps_per_epoch, steps : of each model
    models_at_once : models in one stack
    rows_at_once : records evaluated together
    compiles : whether to use torch.compile
    replays : whether steps are recorded as a CUDA graph
    half : whether to compute in bfloat16
    """

    batch: int
    steps_per_epoch: int
    steps: int
    models_at_once: int
    rows_at_once: int
    compiles: bool
    replays: bool
    half: bool

    @classmethod
    def of(
        cls,
        train: TrainSettings,
        performance: Performance,
        device: str,
        input_shape: tuple[int, ...],
        expected_members: float,
        n_parameters: int,
    ) -> Plan:
        """Lay out a training on a kind of device, "cpu" or "cuda"."""
        batch = min(train.batch_size, max(1, round(expected_members)))
        steps_per_epoch = max(1, round(expected_members / batch))
        steps = train.epochs * steps_per_epoch
        floats = activations(train.model, input_shape)
        if performance.models_at_once == "auto":
            # weights, their gradients, momenta and average, then what backward needs
            one = 4 * (5 * n_parameters + batch * floats)
            at_once = max(1, min(_MOST.get((device, train.model.name), 1), _MEMORY[device] // one))
        else:
            at_once = performance.models_at_once
        compiles = performance.compile
        if compiles == "auto":
            compiles = (
                device == "cuda"
                and steps >= _STEPS_TO_COMPILE
                and not (at_once == 1 and _fused(train.model))
            )
        return cls(
            batch=batch,
            steps_per_epoch=steps_per_epoch,
            steps=steps,
            models_at_once=at_once,
            rows_at_once=max(1, _MEMORY[device] // (4 * floats * at_once)),
            compiles=compiles,
            replays=device == "cuda"
            and performance.compile is not False
            and train.model.name in _RECORDED
            and train.privacy is None
            and not (train.label_smoothing or train.dropout or train.mixup),
            half=performance.precision == "bfloat16",
        )


def _fused(model: ModelSettings) -> bool:
    """Whether one such network has kernels of its own, see confide.models.fused_norm."""
    return isinstance(model, WRNSettings) and model.width & (model.width - 1) == 0


def activations(model: ModelSettings, input_shape: tuple[int, ...]) -> int:
    """About how many numbers a record leaves behind for the backward pass."""
    size = math.prod(input_shape)
    match model:
        case TabularResNetSettings(width=width, depth=depth):
            return size + width * (8 * depth + 4)
        case SmallCNNSettings(width=width):
            # two layers of three results a stage, half the numbers in each next stage
            return size + 12 * width * math.prod(input_shape[1:]) // 4
        case WRNSettings(depth=depth, width=width):
            # six results a block, half the numbers in each next stage
            per_block = 6 * 16 * width * math.prod(input_shape[1:])
            return size + per_block * (depth - 4) // 6 * 7 // 4
        case ResNet1dSettings(width=width):
            # six results a block, half the samples in each next one
            return size + 2 * 6 * width * input_shape[1]
        case ViTSettings(patch=patch, width=width, depth=depth, heads=heads, mlp=mlp):
            rows = math.prod(input_shape[1:]) // patch**2
            return size + _transformer(rows, width, depth, heads, mlp)
        case ViTB16Settings():
            return size + _transformer(math.prod(input_shape[1:]) // 16**2 + 1, 768, 12, 12, 4)
        case ViTL16Settings():
            return size + _transformer(math.prod(input_shape[1:]) // 16**2 + 1, 1024, 24, 16, 4)
        case ResNet50Settings() | DenseNet121Settings():
            # 11 and 7 million results of convolutions at 224 x 224, and their norms; those of a
            # dense block are read by all layers behind them
            return 700 * math.prod(input_shape[1:])
        case CodeViTSettings(depth=depth, heads=heads, head_width=head_width, mlp=mlp):
            # in the last block the token alone has queries and is worked on
            rows, width = input_shape
            inner = (depth - 1) * rows * 3 * heads * head_width
            return 5 * size + inner + _transformer(rows, width, depth - 1, heads, mlp)
        case OwnSettings():
            return 1000 * size  # not known; enough for the other networks


def _transformer(rows: int, width: int, depth: int, heads: int, mlp: int) -> int:
    return depth * rows * ((10 + 2 * mlp) * width + 3 * heads * rows)
