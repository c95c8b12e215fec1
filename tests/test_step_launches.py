"""What a training step starts on a GPU: our kernels and nothing else, and no more of them.

``python -m tests.step_launches NETWORK`` prints the list.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn import layers as L
from gpucnn.backends import use_backend
from gpucnn.backends.cuda.backend import CudaBackend
from gpucnn.losses import BinaryCrossEntropy, CrossEntropy, MeanSquaredError
from gpucnn.network import Residual, Sequential

from .step_launches import Listing, frozen_of, listed_module, step_of

# Kernels of a step of batch 512, whose plans are a trainer's. Fewer are better: lower the number.
MOST = {
    "lenet5": 42,
    "vgg_small": 86,
    "resnet20": 229,
    "mobilenet_v2_small": 245,
    "resnet50_cifar": 593,
}  # fmt: skip
# Passes that read a convolution's output for its moments, and norms that need them: the others'
# come from the convolution itself, but for Winograd's, depthwise ones and a picture's few channels.
MOMENTS = {
    ("vgg_small", "float32"): (6, 6),
    ("vgg_small", "bfloat16"): (3, 6),
    ("resnet20", "float32"): (11, 21),
    ("resnet20", "bfloat16"): (1, 21),
    ("mobilenet_v2_small", "bfloat16"): (9, 25),
    ("resnet50_cifar", "float32"): (13, 53),
    ("resnet50_cifar", "bfloat16"): (0, 53),
}


@pytest.mark.parametrize("name", MOST)
def test_a_step_is_our_kernels_alone(name: str) -> None:
    listing = step_of(name, batch=512, optimizer="sgd")
    assert listing.arithmetic == []
    assert len(listing.kernels) == MOST[name]


@pytest.mark.parametrize(("name", "dtype"), MOMENTS)
def test_convolutions_leave_the_moments_of_what_they_store(name: str, dtype: str) -> None:
    kernels = step_of(name, 512, dtype, optimizer="sgd").kernels
    passes, norms = (
        sum(kernel.startswith(f"channel_sums_{what}moments") for kernel in kernels)
        for what in ("", "finish_")
    )
    assert (passes, norms) == MOMENTS[name, dtype]


# Of an answer of a frozen network to a batch of 64: for most convolutions and for each pool one,
# where residuals and activations go along. Split sums take another, Winograd's filters, too.
MOST_FROZEN = {
    ("vgg_small", "float32"): 16,
    ("vgg_small", "bfloat16"): 8,  # the pools, too, go along
    ("resnet20", "float32"): 34,
    ("resnet20", "bfloat16"): 23,
    ("mobilenet_v2_small", "float32"): 32,
    ("mobilenet_v2_small", "bfloat16"): 28,
    ("resnet50_cifar", "float32"): 88,
    ("resnet50_cifar", "bfloat16"): 59,
}


@pytest.mark.parametrize(("name", "dtype"), MOST_FROZEN)
def test_a_frozen_network_is_convolutions_and_pools(name: str, dtype: str) -> None:
    listing = frozen_of(name, 64, dtype)
    assert listing.arithmetic == []
    assert len(listing.kernels) == MOST_FROZEN[name, dtype]
    others = [k for k in listing.kernels if not k.startswith(("conv", "winograd", "split_sum"))]
    assert {k.split("_")[0] for k in others} <= {"global", "pool", "pad", "activation"}


@pytest.mark.parametrize("loss", [MeanSquaredError(), BinaryCrossEntropy()], ids=lambda x: x.alias)
def test_losses_of_each_number_take_two_kernels(loss) -> None:
    listing = Listing()
    with use_backend(CudaBackend(listed_module(listing), listing)) as backend:
        arrays = [backend.xp.empty((8, 5), np.float32) for _ in range(2)]
        value, gradient, known = loss.measure(*arrays)
    assert (value.shape, gradient.shape, known) == ((), (8, 5), {})
    assert listing.arithmetic == [] and len(listing.kernels) == 2


def test_relu_and_pool_go_along_with_a_convolution_on_tensor_cores() -> None:
    listing = Listing()
    with use_backend(CudaBackend(listed_module(listing), listing)) as backend:
        convolved = [
            layer
            for filters in (64, 128)
            for layer in (L.Conv2D(filters, 3, padding="same"), L.ReLU(), L.MaxPool2D(2))
        ]
        model = Sequential(convolved, input_shape=(21, 18, 16), dtype="bfloat16")
        x = backend.xp.empty((64, 21, 18, 16), model.layers[0].dtype)
        model.backward(model.forward(x, training=True))
    assert listing.arithmetic == []
    kinds = [name.split("_")[0] for name in listing.kernels if not name.startswith("split_sum")]
    assert kinds[:2] == ["conv"] * 2 and sorted(kinds[2:]) == [
        *["channel"] * 4, *["conv"] * 4, *["pool"] * 2,
    ]  # fmt: skip


def test_an_answer_is_normalised_as_it_is_pooled() -> None:
    listing = Listing()
    with use_backend(CudaBackend(listed_module(listing), listing)) as backend:
        layers = [L.Conv2D(8, 3), L.BatchNorm(), L.ReLU(), L.MaxPool2D(2)]
        model = Sequential(layers, input_shape=(9, 8, 3))
        model.predict(backend.xp.empty((2, 9, 8, 3), np.float32))
    assert listing.arithmetic == []
    assert [name.split("_")[0] for name in listing.kernels] == ["conv", "norm"]


def test_logits_in_float32_cost_the_rounding_of_their_gradient() -> None:
    kernels = []
    for out_dtype in (None, "float32"):
        listing = Listing()
        with use_backend(CudaBackend(listed_module(listing), listing)) as backend:
            model = Sequential(
                [L.Dense(10, out_dtype=out_dtype)], input_shape=(512,), dtype="bfloat16"
            )
            model.build((512,), "bfloat16", backend)
            x = backend.xp.empty((64, 512), model.dtype)
            listing.clear()
            y = model.forward(x, training=True)
            _, dy, _ = CrossEntropy().measure(y, backend.xp.empty(64, np.int64))
            model.backward(dy)
        assert listing.arithmetic == []
        kernels.append(listing.kernels)
    narrow, wide = kernels
    assert y.dtype == dy.dtype == np.float32
    assert len(wide) == len(narrow) + 1 and wide.count("split_sum_bf16") > 0


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
