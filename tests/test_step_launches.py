"""What a training step starts on a GPU: our kernels and nothing else, and no more of them.

``python -m tests.step_launches NETWORK`` prints the list.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn import layers as L
from gpucnn.backends import use_backend
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.losses import BinaryCrossEntropy, MeanSquaredError
from gpucnn.network import Residual

from .step_launches import Listing, listed_module, step_of

# Kernels of a step of batch 512, whose plans are a trainer's. Fewer are better: lower the number.
MOST = {
    "lenet5": 43,
    "vgg_small": 89,
    "resnet20": 238,
    "mobilenet_v2_small": 248,
}  # fmt: skip


@pytest.mark.parametrize("name", MOST)
def test_a_step_is_our_kernels_alone(name: str) -> None:
    listing = step_of(name, batch=512, optimizer="sgd")
    assert listing.arithmetic == []
    assert len(listing.kernels) == MOST[name]


@pytest.mark.parametrize("loss", [MeanSquaredError(), BinaryCrossEntropy()], ids=lambda x: x.alias)
def test_losses_of_each_number_take_two_kernels(loss) -> None:
    listing = Listing()
    with use_backend(CudaBackend(listed_module(listing), listing)) as backend:
        arrays = [backend.xp.empty((8, 5), np.float32) for _ in range(2)]
        value, gradient, known = loss.measure(*arrays)
    assert (value.shape, gradient.shape, known) == ((), (8, 5), {})
    assert listing.arithmetic == [] and len(listing.kernels) == 2


def test_a_block_without_a_norm_adds_and_cuts_in_its_convolution() -> None:
    listing = Listing()
    with use_backend(CudaBackend(listed_module(listing), listing)) as backend:
        block = Residual([L.Conv2D(4, 3, padding="same")], None, "relu", input_shape=(6, 6, 4))
        x = backend.xp.empty((2, 6, 6, 4), np.float32)
        block.backward(block.forward(x, training=True))
    assert listing.arithmetic == []
    kinds = [name.split("_")[0] for name in listing.kernels]
    assert kinds.count("add") == 1 and kinds.count("activation") == 1  # of gradients; and a mask


def test_the_list_sees_arithmetic_and_copies() -> None:
    listing = Listing()
    xp = listed_module(listing)
    x = xp.asarray(np.ones((2, 3)))
    y = (x + 1).mean()
    xp.maximum(x, 0)
    x[0] = 2
    x.reshape(3, 2).T.reshape(6)
    assert listing.copies == 1 and isinstance(y, xp.ndarray)
    assert listing.arithmetic == ["add", "add.reduce", "divide", "maximum", "setitem", "reshape"]
    with pytest.raises(AssertionError, match="must not wait for the device"):
        float(x[0, 0])
