"""The zoo's networks as every library can have them, and the batches that they are given.

Two things are taken out that no two libraries do alike: dropout, whose draws are each one's own,
and "same" padding with strides, which PyTorch has on both sides alike and Keras has not. Then the
same weights and the same batches give the same losses, and a row shows by them that it is right.
"""

from __future__ import annotations

import numpy as np

from gpucnn import Residual, Sequential, models, set_seed
from gpucnn.backends import use_backend
from gpucnn.layers import BatchNorm, Conv2D, Dropout
from gpucnn.layers.base import Shape

from .cases import StepCase

CLASSES = {"resnet50": 1000}  # of others 10
RATES = {"resnet50": 0.001}  # of SGD: what rounding does to six steps stays small; of others
RATE, MOMENTUM = 0.003, 0.9
LAST_SCALE = 0.2  # of a block's last norm: Goyal et al. 2017, section 5.1, who begin with 0
BATCHES = 4  # that steps take in turn


def make(case: StepCase, input_shape: Shape | None = None) -> Sequential:
    """Return a case's network on NumPy, with the same weights every time.

    ``input_shape`` may be smaller than the usual one, in tests.
    """
    set_seed(0)
    shape = input_shape or models.USUAL[case.network]
    with use_backend("numpy"):
        whole = models.make(case.network, classes(case), shape, case.dtype)
        kept = [layer for layer in whole.layers if not isinstance(layer, Dropout)]
        model = Sequential(kept, name=case.network, input_shape=shape, dtype=case.dtype)
    for block in model.layers:
        if isinstance(block, Residual):
            block.body[-1].params["gamma"][...] = LAST_SCALE
    rng = np.random.default_rng(1)
    for _, layer in model.walk():
        if isinstance(layer, Conv2D) and layer.padding == "same":
            layer.padding = tuple(((r - 1) // 2,) * 2 for r in layer.kernel_size)
        if isinstance(layer, BatchNorm):  # as of a network that has been trained
            layer.state["moving_mean"][...] = rng.normal(0, 0.1, layer.state["moving_mean"].shape)
            layer.state["moving_variance"][...] = rng.uniform(
                0.5, 1.5, layer.state["moving_variance"].shape
            )
    return model


def classes(case: StepCase) -> int:
    return CLASSES.get(case.network, 10)


def rate(case: StepCase) -> float:
    return RATES.get(case.network, RATE)


def draw(
    case: StepCase, input_shape: Shape | None = None, count: int = BATCHES
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return batches (N, H, W, C) of normal numbers in float32, with labels."""
    rng = np.random.default_rng(0)
    shape = case.batch, *(input_shape or models.USUAL[case.network])
    return [
        (rng.standard_normal(shape, np.float32), rng.integers(0, classes(case), case.batch))
        for _ in range(count)
    ]
