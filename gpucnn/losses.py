"""Losses: the value to report and the gradient to start ``backward`` with, in one pass.

Every loss is called as ``loss(prediction, target) -> (value, dprediction)``: ``value`` is a 0-d
array on the device, the mean over all samples (and positions), in float32, or float64 for float64
predictions; ``dprediction`` is its gradient, of the prediction's shape and dtype. A ``LossScale``
given as a third argument multiplies dprediction alone. Nothing waits for the device.

    >>> loss = CrossEntropy(label_smoothing=0.1)
    >>> value, dlogits = loss(np.zeros((2, 10), np.float32), np.array([3, 7]))
    >>> round(float(value), 4), dlogits.shape
    (2.3026, (2, 10))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .backends import backend_of, package_of
from .backends.base import Array, Backend
from .configured import Configured, check_range
from .functional.checks import prepare
from .metrics import Metric, accuracy

if TYPE_CHECKING:
    from .optimizers import LossScale


class Loss(Configured):
    """A function of prediction and target; subclasses are dataclasses.

    Attributes:
        metrics: the names of the metrics that a trainer reports with this loss.
    """

    metrics: ClassVar[tuple[str, ...]] = ()

    def __call__(
        self, prediction: Array, target: Array, loss_scale: LossScale | None = None
    ) -> tuple[Array, Array]:
        """Return (value, dprediction).

        Raises:
            ValueError: the shapes do not fit, or there is no sample.
            TypeError: prediction and target lie on different devices.
        """
        raise NotImplementedError

    def measure(
        self, prediction: Array, target: Array, *loss_scale: LossScale
    ) -> tuple[Array, Array, dict[Metric, Array]]:
        """Return (value, dprediction, metrics): what a trainer asks for.

        The metrics, by their functions, are those that the pass over the prediction gives, too.
        """
        return *self(prediction, target, *loss_scale), {}

    def check(self, shape: tuple[int, ...], target: Array) -> None:
        """Raise a ValueError where a target does not fit predictions of this shape.

        A trainer asks for all of its data before the first step.
        """


def _on(backend: Backend, loss_scale: LossScale | None) -> Array | None:
    return None if loss_scale is None else loss_scale.on(backend)


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
        check_range(self, "label_smoothing", least=0, below=1)

    def check(self, shape: tuple[int, ...], target: Array) -> None:
        self._check_shape(shape, target)
        if package_of(type(target)) == "numpy":
            self._check_labels(shape[-1], target)

    def _check_shape(self, shape: tuple[int, ...], target: Array) -> None:
        integer = target.dtype.kind in "iu"
        if target.shape != (shape[:-1] if integer else shape) or 0 in shape:
            raise ValueError(
                f"CrossEntropy: the target must hold integer labels of shape {shape[:-1]} or"
                f" probabilities of shape {shape}, at least one sample."
                f" Received: {target.dtype.name} of shape {target.shape}"
            )

    def _check_labels(self, classes: int, target: np.ndarray) -> None:
        if target.dtype.kind not in "iu":
            return
        wrong = np.flatnonzero((target < 0) | (target >= classes))
        if wrong.size:
            raise ValueError(
                f"CrossEntropy: labels must be 0 to {classes - 1}, for the prediction has {classes}"
                " classes (its last axis)."
                f" Received: label {target.flat[wrong[0]]} at index {wrong[0]}"
            )

    def __call__(
        self, prediction: Array, target: Array, loss_scale: LossScale | None = None
    ) -> tuple[Array, Array]:
        return self.measure(prediction, target, loss_scale)[:2]

    def measure(
        self, prediction: Array, target: Array, loss_scale: LossScale | None = None
    ) -> tuple[Array, Array, dict[Metric, Array]]:
        backend = backend_of("CrossEntropy", prediction=prediction, target=target)
        self._check_shape(prediction.shape, target)
        if backend.name == "numpy":  # a device's labels would have to be waited for
            self._check_labels(prediction.shape[-1], target)
        rows, classes = math.prod(prediction.shape[:-1]), prediction.shape[-1]
        if target.dtype.kind in "iu":
            if target.dtype not in (np.int32, np.int64):
                target = target.astype(np.int64)
            target = target.reshape(rows)  # (...) -> (rows,)
        else:
            target = target.astype(prediction.dtype, copy=False).reshape(rows, classes)
        _, logits = prepare("CrossEntropy", prediction=prediction)
        losses, dlogits, hits = backend.softmax_cross_entropy(
            logits.reshape(rows, classes),
            backend.arranged(target),
            self.label_smoothing,
            1.0 / rows,
            _on(backend, loss_scale),
        )
        value, share = backend.loss_means(losses, hits)
        # (rows, classes) -> (..., classes)
        return value, dlogits.reshape(prediction.shape), {accuracy: share}


class Pointwise(Loss):
    """A loss of each element alone: prediction and target have one shape, the mean is over all."""

    kind: ClassVar[str]

    def check(self, shape: tuple[int, ...], target: Array) -> None:
        if shape != target.shape or 0 in shape:
            raise ValueError(
                f"{type(self).__name__}: prediction and target must have one shape, and at least"
                f" one element. Received: prediction {shape}, target {target.shape}"
            )

    def __call__(
        self, prediction: Array, target: Array, loss_scale: LossScale | None = None
    ) -> tuple[Array, Array]:
        owner = type(self).__name__
        backend = backend_of(owner, prediction=prediction, target=target)
        self.check(prediction.shape, target)
        target = target.astype(prediction.dtype, copy=False)
        _, prediction, target = prepare(owner, prediction=prediction, target=target)
        scale = 1.0 / prediction.size
        losses, dprediction = backend.pointwise_loss(
            prediction, target, self.kind, scale, _on(backend, loss_scale)
        )
        return backend.loss_means(losses)[0], dprediction


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
