"""A training step of WRN-28-2 by Keras 3 on JAX, as a peer: 64 x 64 x 3, batch 256.

Group norm, leaky ReLU, SGD with momentum and weight average, without augmentation; prints a line of
JSON.  Needs keras and jax, which confide does not install.
"""

import json
import os
import statistics
import time

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import keras
import numpy as np
from keras import layers

BATCH, STEPS = 256, 40


def network():
    """Pre-activation blocks, as in confide.models.wrn."""

    def norm(x):
        return layers.LeakyReLU(negative_slope=0.1)(layers.GroupNormalization(16)(x))

    def conv(x, channels, size, stride=1):
        return layers.Conv2D(channels, size, stride, "same", use_bias=False)(x)

    inputs = layers.Input((64, 64, 3))
    x, width = conv(inputs, 16, 3), 16
    for stage in range(3):
        wide = 32 * 2**stage
        for i in range(4):
            stride = 2 if stage and not i else 1
            y = norm(x)
            short = x if width == wide and stride == 1 else conv(y, wide, 1, stride)
            x = layers.Add()([short, conv(norm(conv(y, wide, 3, stride)), wide, 3)])
            width = wide
    x = layers.GlobalAveragePooling2D()(norm(x))
    return keras.Model(inputs, layers.Dense(1, dtype="float32")(x))


class Seconds(keras.callbacks.Callback):
    """Of each epoch."""

    def __init__(self):
        super().__init__()
        self.took = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.took.append((time.perf_counter() - self.start) / STEPS)


def main():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH * STEPS, 64, 64, 3), dtype=np.float32)
    y = rng.integers(0, 2, len(x))
    found = {"keras": keras.__version__}
    for policy in ("float32", "mixed_bfloat16"):
        keras.mixed_precision.set_global_policy(policy)
        model = network()
        optimizer = keras.optimizers.SGD(0.005, momentum=0.9, use_ema=True, ema_momentum=0.99)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(optimizer, loss, jit_compile=True)
        seconds = Seconds()
        model.fit(x, y, batch_size=BATCH, epochs=6, verbose=0, callbacks=[seconds], shuffle=False)
        found[policy] = {
            "parameters": model.count_params(),
            "ms": 1e3 * statistics.median(seconds.took[2:]),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
