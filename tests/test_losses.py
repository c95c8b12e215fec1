"""Losses: value and gradient against PyTorch, shapes, labels, and what must be refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpucnn.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
)

from .tolerance import assert_close


def draw(*shape: int, seed: int = 0, dtype=np.float64) -> np.ndarray:
    return (2 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def check(backend, loss, prediction, target, torch_loss) -> None:
    """Compare value and gradient with a function of torch tensors."""
    x = torch.tensor(prediction.astype(np.float64), requires_grad=True)
    expected = torch_loss(x, torch.tensor(target))
    expected.backward()
    value, gradient = loss(backend.asarray(prediction), backend.asarray(target))
    assert value.shape == ()
    value, gradient = backend.to_numpy(value), backend.to_numpy(gradient)
    # A loss is a few exponentials and logarithms of terms up to the logits' size, then a mean.
    size = float(np.abs(prediction).max())
    assert_close(
        value, expected.detach().numpy(), dtype=prediction.dtype,
        reduction=prediction.size, magnitude=size + abs(expected.item()),
    )  # fmt: skip
    scale = 1.0 / np.prod(prediction.shape[:-1])
    assert_close(
        gradient, x.grad.numpy(), dtype=prediction.dtype,
        reduction=16 + prediction.shape[-1], magnitude=scale * size,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(1, 2), (5, 10), (33, 7), (2, 3, 5, 11)])
def test_cross_entropy_of_labels(backend, shape, smoothing, dtype):
    labels = np.random.default_rng(1).integers(0, shape[-1], shape[:-1])

    def expected(x, t):
        rows = x.reshape(-1, shape[-1])
        return F.cross_entropy(rows, t.reshape(-1), label_smoothing=smoothing)

    check(backend, CrossEntropy(smoothing), draw(*shape, dtype=dtype), labels, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_probabilities(backend, smoothing):
    target = np.random.default_rng(1).dirichlet(np.ones(7), 12)
    check(
        backend, CrossEntropy(smoothing), draw(12, 7), target,
        lambda x, t: F.cross_entropy(x, t, label_smoothing=smoothing),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64])
def test_labels_may_be_of_any_integer_type(backend, dtype):
    labels = np.array([3, 0, 9], dtype)
    value, gradient = CrossEntropy()(backend.asarray(draw(3, 10)), backend.asarray(labels))
    wide, wide_gradient = CrossEntropy()(
        backend.asarray(draw(3, 10)), backend.asarray(labels.astype(np.int64))
    )
    assert float(value) == float(wide)
    np.testing.assert_array_equal(backend.to_numpy(gradient), backend.to_numpy(wide_gradient))


def test_cross_entropy_by_hand(backend):
    """Two classes at logits 0 and log 3: probabilities 1/4 and 3/4."""
    logits = backend.asarray(np.log([[1.0, 3.0], [1.0, 3.0]]))
    value, gradient = CrossEntropy()(logits, backend.asarray(np.array([1, 0])))
    assert float(value) == pytest.approx((np.log(4 / 3) + np.log(4)) / 2, rel=1e-14)
    expected = [[1 / 8, -1 / 8], [-3 / 8, 3 / 8]]
    np.testing.assert_allclose(backend.to_numpy(gradient), expected, rtol=1e-14)


def test_cross_entropy_does_not_overflow(backend):
    logits = backend.asarray(np.array([[1e4, 0.0, -1e4]], np.float32))
    value, gradient = CrossEntropy()(logits, backend.asarray(np.array([1])))
    assert float(value) == 1e4
    np.testing.assert_array_equal(backend.to_numpy(gradient), [[1.0, -1.0, 0.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (MeanSquaredError(), F.mse_loss),
        (MeanAbsoluteError(), F.l1_loss),
        (Huber(), F.huber_loss),
        (BinaryCrossEntropy(), F.binary_cross_entropy_with_logits),
    ],
    ids=["mse", "mae", "huber", "binary_cross_entropy"],
)
def test_pointwise_losses(backend, loss, expected, dtype):
    target = np.random.default_rng(1).random((9, 2, 5))
    check(backend, loss, draw(9, 2, 5, dtype=dtype), target, expected)


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "mae", "huber", "binary_cross_entropy"])
def test_a_loss_is_called_by_its_name(name):
    loss = Loss.of(name)
    assert loss.alias == name
    assert Loss.from_config(json.loads(json.dumps(loss.config()))) == loss


def test_arguments_survive_json():
    assert Loss.from_config(CrossEntropy(0.2).config()) == CrossEntropy(label_smoothing=0.2)


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_outside_the_classes_is_named(label):
    labels = np.array([[0, 1, 2], [3, label, 5]])
    with pytest.raises(ValueError, match=f"0 to 9.*10 classes.*label {label} at index 4"):
        CrossEntropy()(draw(2, 3, 10), labels)


@pytest.mark.parametrize(
    ("loss", "prediction", "target"),
    [
        (CrossEntropy(), draw(4, 10), np.zeros((4, 1), int)),
        (CrossEntropy(), draw(4, 10), np.zeros(3, int)),
        (CrossEntropy(), draw(4, 10), np.zeros((4, 9))),
        (CrossEntropy(), draw(0, 10), np.zeros(0, int)),
        (MeanSquaredError(), draw(4, 1), draw(4)),
        (MeanSquaredError(), draw(0, 1), draw(0, 1)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(loss, prediction, target):
    with pytest.raises(
        ValueError, match=rf"{type(loss).__name__}: .*Received: .*\({target.shape[0]}"
    ):
        loss(prediction, target)


def test_an_integer_prediction_is_refused():
    with pytest.raises(TypeError, match=r"CrossEntropy: .*int64"):
        CrossEntropy()(np.zeros((2, 3), int), np.zeros(2, int))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, "much"])
def test_bad_smoothing_is_named(smoothing):
    with pytest.raises(ValueError, match="CrossEntropy: label_smoothing must be a number in"):
        CrossEntropy(smoothing)
