"""Losses: the value to report and the gradient to start ``backward`` with, in one pass.

Every loss is called as ``loss(prediction, target) -> (value, dprediction)``: ``value`` is a 0-d
array on the device, the mean over all samples (and positions), in float32, or float64 for float64
predictions; ``dprediction`` is its gradient, of the prediction's shape and dtype. Nothing waits for
the device.

    >>> loss = CrossEntropy(label_smoothing=0.1)
    >>> value, dlogits = loss(np.zeros((2, 10), np.float32), np.array([3, 7]))
    >>> round(float(value), 4), dlogits.shape
    (2.3026, (2, 10))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .arguments import as_fraction
from .backends import backend_of
from .backends.base import Array
from .configured import Configured
from .functional.checks import prepare


class Loss(Configured):
    """A function of prediction and target; subclasses are dataclasses.

    Attributes:
        metrics: the names of the metrics that a trainer reports with this loss.
    """

    metrics: ClassVar[tuple[str, ...]] = ()

    def __call__(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        """Return (value, dprediction).

        Raises:
            ValueError: the shapes do not fit, or there is no sample.
            TypeError: prediction and target lie on different devices.
        """
        raise NotImplementedError


def check_labels(labels: np.ndarray, classes: int, owner: str = "CrossEntropy") -> None:
    """Raise a ValueError unless every one of the integer ``labels`` is one of 0 to classes - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise ValueError(
            f"{owner}: labels must be 0 to {classes - 1}, for the prediction has {classes} classes"
            f" (its last axis). Received: label {labels.flat[wrong[0]]} at index {wrong[0]}"
        )


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy of softmax(prediction): the prediction is logits, with no softmax before.

    prediction: (..., classes). target: integer labels (...), or rows of probabilities
    (..., classes). Label smoothing e turns a target t into (1 - e) * t + e / classes (Szegedy et
    al., "Rethinking the Inception Architecture for Computer Vision", 2016). Labels outside the
    classes are a ValueError on the CPU; on a GPU, which cannot raise, they make the loss NaN.
    """

    alias: ClassVar[str] = "cross_entropy"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        as_fraction("CrossEntropy", "label_smoothing", self.label_smoothing)

    def __call__(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        backend = backend_of("CrossEntropy", prediction=prediction, target=target)
        classes = prediction.shape[-1]
        integer = target.dtype.kind in "iu"
        wanted = prediction.shape[:-1] if integer else prediction.shape
        if target.shape != wanted or prediction.size == 0:
            raise ValueError(
                "CrossEntropy: the target must hold integer labels of shape"
                f" {prediction.shape[:-1]} or probabilities of shape {prediction.shape}, at least"
                f" one sample. Received: {target.dtype.name} of shape {target.shape}"
            )
        rows = math.prod(prediction.shape[:-1])
        if integer:
            if isinstance(target, np.ndarray):
                check_labels(target, classes)
            target = target.astype(np.int64, copy=False).reshape(rows)  # (...) -> (rows,)
        else:
            target = target.astype(prediction.dtype, copy=False).reshape(rows, classes)
        _, logits = prepare("CrossEntropy", prediction=prediction)
        losses, dlogits = backend.softmax_cross_entropy(
            logits.reshape(rows, classes),
            backend.xp.ascontiguousarray(target),
            self.label_smoothing,
            1.0 / rows,
        )
        # (rows, classes) -> (..., classes)
        return backend.xp.asarray(losses.mean()), dlogits.reshape(prediction.shape)


class Pointwise(Loss):
    """A loss of each element alone: prediction and target have one shape, the mean is over all."""

    kind: ClassVar[str]

    def __call__(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        owner = type(self).__name__
        backend = backend_of(owner, prediction=prediction, target=target)
        if prediction.shape != target.shape or prediction.size == 0:
            raise ValueError(
                f"{owner}: prediction and target must have one shape, and at least one element."
                f" Received: prediction {prediction.shape}, target {target.shape}"
            )
        target = target.astype(prediction.dtype, copy=False)
        _, prediction, target = prepare(owner, prediction=prediction, target=target)
        scale = 1.0 / prediction.size
        losses, dprediction = backend.pointwise_loss(prediction, target, self.kind, scale)
        return backend.xp.asarray(losses.mean()), dprediction


@dataclass(frozen=True)
class MeanSquaredError(Pointwise):
    """(prediction - target)^2."""

    alias: ClassVar[str] = "mse"
    kind: ClassVar[str] = "mse"


@dataclass(frozen=True)
class MeanAbsoluteError(Pointwise):
    """abs(prediction - target); its gradient is 0 where the two are equal."""

    alias: ClassVar[str] = "mae"
    kind: ClassVar[str] = "mae"


@dataclass(frozen=True)
class Huber(Pointwise):
    """d^2 / 2 for abs(d) <= 1, else abs(d) - 1/2, with d = prediction - target (Huber 1964)."""

    alias: ClassVar[str] = "huber"
    kind: ClassVar[str] = "huber"


@dataclass(frozen=True)
class BinaryCrossEntropy(Pointwise):
    """Cross-entropy of sigmoid(prediction) with targets in [0, 1]: the prediction is logits."""

    alias: ClassVar[str] = "binary_cross_entropy"
    metrics: ClassVar[tuple[str, ...]] = ("binary_accuracy",)
    kind: ClassVar[str] = "bce_logits"
