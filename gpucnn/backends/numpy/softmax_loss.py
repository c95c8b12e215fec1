"""Softmax and the losses.

Softmax subtracts each row's maximum, so that no exponential overflows; its logarithm is z -
log(sum exp z) for the shifted z. The gradient of its cross-entropy is softmax - target (Bridle
1990), smoothed targets are Szegedy et al. 2016, section 7.
"""

from __future__ import annotations

import numpy as np

from ..base import accumulator
from . import buffers
from .blocks import BLOCK, flat, pieces, sample_blocks, share, wide


def _shifted(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return rows minus their maxima, in the dtype of the sums; in ``out``, if it has that."""
    x = wide(x)
    out = None if out is None or out.dtype != x.dtype else out
    return np.subtract(x, x.max(-1, keepdims=True, initial=-np.inf), out=out)  # may be empty


def _scaled(scale: float, loss_scale: np.ndarray | None) -> float:
    return float(scale) if loss_scale is None else float(scale) * float(loss_scale[0])


class SoftmaxAndLosses:
    """Softmax, its cross-entropy, the losses of ``POINTWISE_LOSSES``, and their means."""

    def softmax_forward(self, x: np.ndarray, log: bool = False) -> np.ndarray:
        y = buffers.empty(x.shape, x.dtype)

        def fill(rows: slice) -> None:
            part = _shifted(x[rows], y[rows])
            powers = np.exp(part, out=None if log else part)
            total = powers.sum(-1, keepdims=True)
            if log:
                part -= np.log(total)
            else:
                part /= total
            if part.dtype != y.dtype:
                y[rows] = part

        share(fill, sample_blocks(x.shape))
        return y

    def softmax_backward(self, dy: np.ndarray, y: np.ndarray, log: bool = False) -> np.ndarray:
        dx = buffers.empty(dy.shape, dy.dtype)

        def fill(rows: slice) -> None:
            slope, value = wide(dy[rows]), wide(y[rows])
            if log:
                part = slope - np.exp(value) * slope.sum(-1, keepdims=True)
            else:
                part = value * (slope - (slope * value).sum(-1, keepdims=True))
            dx[rows] = part

        share(fill, sample_blocks(dy.shape))
        return dx

    def softmax_cross_entropy(
        self, logits: np.ndarray, targets: np.ndarray, label_smoothing: float, scale: float,
        loss_scale: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        scale = _scaled(scale, loss_scale)
        losses = np.empty(len(logits), accumulator(logits.dtype))
        hits = np.empty(len(logits), bool)
        gradient = buffers.empty(logits.shape, logits.dtype)

        def fill(rows: slice) -> None:
            labels = targets[rows] if targets.ndim == 1 else targets[rows].argmax(-1)
            np.equal(logits[rows].argmax(-1), labels, out=hits[rows])
            z = _shifted(logits[rows])
            out = gradient[rows] if gradient.dtype == z.dtype else np.empty_like(z)
            losses[rows] = _cross_entropy(z, targets[rows], float(label_smoothing), out)
            out *= scale
            if out.dtype != gradient.dtype:
                gradient[rows] = out

        share(fill, sample_blocks(logits.shape))
        return losses, gradient, hits

    def loss_means(
        self, losses: np.ndarray, hits: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        return np.asarray(losses.mean()), None if hits is None else np.asarray(hits.mean())

    def pointwise_loss(
        self, prediction: np.ndarray, target: np.ndarray, kind: str, scale: float,
        loss_scale: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        scale = _scaled(scale, loss_scale)
        losses = np.empty_like(prediction, accumulator(prediction.dtype))
        gradient = buffers.empty_like(prediction)
        flats = flat(prediction, prediction, target, losses, gradient)

        def fill(piece: slice) -> None:
            p, t, loss, slope = (vector[piece] for vector in flats)
            loss[...], part = _POINTWISE[kind](wide(p), wide(t))
            slope[...] = part * scale

        share(fill, pieces(prediction.size, BLOCK))
        return losses, gradient


def _cross_entropy(
    z: np.ndarray, targets: np.ndarray, smoothing: float, gradient: np.ndarray
) -> np.ndarray:
    """Return the losses of a block of logits whose row maxima are 0; gradient = softmax - target.

    z is used up.
    """
    classes = z.shape[1]
    softmax = np.exp(z, out=gradient)
    total = softmax.sum(-1)
    softmax /= total[:, None]
    log_total = np.log(total)
    if targets.ndim == 2:
        target = (1 - smoothing) * wide(targets)
        target += smoothing / classes
        softmax -= target
        # -sum t log softmax; 0 log 0 is 0
        np.subtract(log_total[:, None], z, out=z)
        return np.multiply(target, z, out=z).sum(-1, where=target != 0)
    known = (targets >= 0) & (targets < classes)
    rows, labels = np.arange(len(z)), np.where(known, targets, 0)
    losses = log_total - (1 - smoothing) * z[rows, labels]
    softmax[rows, labels] -= 1 - smoothing
    if smoothing:
        losses -= smoothing * z.mean(-1)
        softmax -= smoothing / classes
    losses[~known] = np.nan
    softmax[~known] = np.nan
    return losses


def _huber(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quadratic up to 1, then linear: with c = d cut to [-1, 1], c (d - c/2)."""
    c = np.clip(d, -1, 1)
    return c * (d - 0.5 * c), c


def _bce_logits(z: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    power = np.exp(-np.abs(z))
    sigmoid = np.exp(np.minimum(z, 0)) / (1 + power)
    return np.maximum(z, 0) - z * t + np.log1p(power), sigmoid - t


# kind -> losses and their derivatives by the prediction
_POINTWISE = {
    "mse": lambda p, t: (np.square(p - t), 2 * (p - t)),
    "mae": lambda p, t: (np.abs(p - t), np.sign(p - t)),
    "huber": lambda p, t: _huber(p - t),
    "bce_logits": _bce_logits,
}
