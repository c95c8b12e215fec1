"""The quick start's network takes the same 20 steps on every backend."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import gpucnn
from gpucnn.backends import use_backend
from gpucnn.backends.base import Backend
from gpucnn.data import Loader, Normalize, Shift, load
from gpucnn.losses import CrossEntropy
from gpucnn.models import digits_cnn
from gpucnn.optimizers import SGD

STEPS = 20


def train(backend: Backend, dtype: str) -> list[float]:
    """Return the losses of the first steps on the digits: dropout, batch norm, momentum and all."""
    gpucnn.set_seed(0)
    digits = load("digits")
    loader = Loader(
        digits.train, 24, seed=0, augment=Shift(1), normalize=Normalize.of(digits.train.images)
    )
    with use_backend(backend):
        model = digits_cnn(len(digits.classes), digits.image_shape, dtype)
        loss = CrossEntropy(label_smoothing=0.05)
        optimizer = SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-4, clip_norm=5.0)
        losses = []
        for _, (images, labels) in zip(range(STEPS), loader.epoch(0), strict=False):
            prediction = model.forward(backend.asarray(images), training=True)
            value, dprediction = loss(prediction, backend.asarray(labels))
            model.backward(dprediction)
            optimizer.step(model.parameters())
            losses.append(float(backend.to_numpy(value)))
    return losses


@cache
def numpy_losses(dtype: str) -> list[float]:
    return train(gpucnn.get_backend("numpy"), dtype)


# Rounding differs by order of sums; training amplifies it from step to step.
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-10), ("float32", 1e-4)])
def test_losses_agree(backend: Backend, dtype: str, rtol: float) -> None:
    losses = train(backend, dtype)
    assert len(losses) == STEPS
    assert losses[-1] < 0.6 * losses[0], "it does not learn"
    np.testing.assert_allclose(losses, numpy_losses(dtype), rtol=rtol)
