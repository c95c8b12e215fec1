"""Metrics: what is reported beside the loss, computed on the device without waiting for it.

A metric is a function ``(prediction, target) -> 0-d array`` that gives the mean over a batch; its
name is the function's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .backends import backend_of
from .backends.base import Array

Metric = Callable[[Array, Array], Array]


def _labels(prediction: Array, target: Array) -> Array:
    """Integer labels (...), where the target is rows of probabilities (..., classes) too."""
    return target if target.dtype.kind in "iu" else target.argmax(axis=-1)


def accuracy(prediction: Array, target: Array) -> Array:
    """Return how often the largest of ``prediction`` (..., classes) is the target's class.

    The target is integer labels (...), or probabilities (..., classes).
    """
    return (prediction.argmax(axis=-1) == _labels(prediction, target)).mean()


def top_5_accuracy(prediction: Array, target: Array) -> Array:
    """Return how often the target's class is among the five largest of ``prediction``.

    A tie counts against it, so that a network which has learnt nothing gets no credit.
    """
    xp = backend_of("top_5_accuracy", prediction=prediction, target=target).xp
    labels = _labels(prediction, target)[..., None]  # (...) -> (..., 1)
    own = xp.take_along_axis(prediction, labels, axis=-1)
    below = (prediction < own).sum(axis=-1)
    return (below >= prediction.shape[-1] - 5).mean()


def binary_accuracy(prediction: Array, target: Array) -> Array:
    """Return how often the sign of a logit agrees with its target of 0 or 1; one shape."""
    return ((prediction > 0) == (target > 0.5)).mean()


METRICS: dict[str, Metric] = {
    metric.__name__: metric for metric in (accuracy, top_5_accuracy, binary_accuracy)
}


def named(metrics: Iterable[str | Metric]) -> dict[str, Metric]:
    """Return the metrics by name; each is given by its name or is a function itself.

    A single name may stand alone.

    Raises:
        ValueError: no metric has this name, or two have one, or one is called "loss".
    """
    found = {}
    for metric in [metrics] if isinstance(metrics, str) else metrics:
        if not callable(metric) and metric not in METRICS:
            raise ValueError(
                f"metrics must be of {', '.join(METRICS)}, or functions. Received: {metric!r}"
            )
        metric = metric if callable(metric) else METRICS[metric]
        name = getattr(metric, "__name__", type(metric).__name__)
        if name in found or name == "loss":
            raise ValueError(f"metrics must have names of their own. Received: {name!r} twice")
        found[name] = metric
    return found


def confusion_matrix(
    labels: np.ndarray, predicted: np.ndarray, classes: int | None = None
) -> np.ndarray:
    """Count how often each class was taken for each: (classes, classes), rows the true class.

    Args:
        labels, predicted: integers (N,).
        classes: their number; by default one more than the largest.

    Raises:
        ValueError: the lengths differ, or a label is not one of the classes.

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]))
        array([[1, 1],
               [0, 1]])
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    kinds = labels.dtype.kind + predicted.dtype.kind
    if labels.shape != predicted.shape or labels.ndim != 1 or not set(kinds) <= set("iu"):
        raise ValueError(
            "confusion_matrix: labels and predicted must be integers (N,), equally many. Received:"
            f" {labels.dtype} {labels.shape} and {predicted.dtype} {predicted.shape}"
        )
    both = np.concatenate([labels, predicted])
    classes = 1 + int(both.max(initial=0)) if classes is None else classes
    if both.min(initial=0) < 0 or both.max(initial=0) >= classes:
        raise ValueError(
            f"confusion_matrix: labels must be 0 to {classes - 1}."
            f" Received: {both.min()} to {both.max()}"
        )
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)  # (classes * classes,) -> (true, predicted)
