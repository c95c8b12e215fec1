"""Activations, softmax and losses: one number, or one row, at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


def each(function: Callable[..., float], *arrays: np.ndarray) -> np.ndarray:
    """Apply a function of numbers to every element."""
    flat = [np.asarray(a).astype(np.float64).ravel().tolist() for a in arrays]
    values = [function(*numbers) for numbers in zip(*flat, strict=True)]
    return np.array(values, np.float64).reshape(arrays[0].shape)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    return (0.0 if x <= 0 else x) + math.log1p(math.exp(-abs(x)))


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def normal_density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu_inner(x: float) -> float:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def gelu_inner_slope(x: float) -> float:
    return math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)


# y = f(x, alpha). A comparison puts NaN on the side that returns x: NaN in, NaN out.
FORWARD: dict[str, Callable[[float, float], float]] = {
    "relu": lambda x, a: 0.0 if x <= 0 else x,
    "relu6": lambda x, a: 0.0 if x <= 0 else 6.0 if x >= 6 else x,
    "clipped_relu": lambda x, a: 0.0 if x <= 0 else a if x >= a else x,
    "leaky_relu": lambda x, a: a * x if x <= 0 else x,
    "elu": lambda x, a: a * math.expm1(x) if x <= 0 else x,
    "selu": lambda x, a: SELU_SCALE * (SELU_ALPHA * math.expm1(x) if x <= 0 else x),
    "sigmoid": lambda x, a: sigmoid(x),
    "tanh": lambda x, a: math.tanh(x),
    "softplus": lambda x, a: softplus(x),
    "softsign": lambda x, a: x / (1 + abs(x)),
    "gelu": lambda x, a: x * normal_cdf(x),
    "gelu_tanh": lambda x, a: 0.5 * x * (1 + math.tanh(gelu_inner(x))),
    "silu": lambda x, a: x * sigmoid(x),
    "mish": lambda x, a: x * math.tanh(softplus(x)),
    "hard_sigmoid": lambda x, a: 0.0 if x <= -3 else 1.0 if x >= 3 else (x + 3) / 6,
    "hard_silu": lambda x, a: 0.0 if x <= -3 else x if x >= 3 else x * (x + 3) / 6,
}

# f' as a function of y for the first eight, of x for the others.
SLOPE: dict[str, Callable[[float, float], float]] = {
    "relu": lambda y, a: 1.0 if y > 0 else 0.0,
    "relu6": lambda y, a: 1.0 if 0 < y < 6 else 0.0,
    "clipped_relu": lambda y, a: 1.0 if 0 < y < a else 0.0,
    "leaky_relu": lambda y, a: 1.0 if y > 0 else a,
    "elu": lambda y, a: 1.0 if y > 0 else y + a,
    "selu": lambda y, a: SELU_SCALE if y > 0 else y + SELU_SCALE * SELU_ALPHA,
    "sigmoid": lambda y, a: y * (1 - y),
    "tanh": lambda y, a: 1 - y * y,
    "softplus": lambda x, a: sigmoid(x),
    "softsign": lambda x, a: 1 / (1 + abs(x)) ** 2,
    "gelu": lambda x, a: normal_cdf(x) + x * normal_density(x),
    "gelu_tanh": lambda x, a: (
        0.5 * (1 + math.tanh(gelu_inner(x)))
        + 0.5 * x * (1 - math.tanh(gelu_inner(x)) ** 2) * gelu_inner_slope(x)
    ),
    "silu": lambda x, a: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    "mish": lambda x, a: (
        math.tanh(softplus(x)) + x * (1 - math.tanh(softplus(x)) ** 2) * sigmoid(x)
    ),
    "hard_sigmoid": lambda x, a: 1 / 6 if -3 < x < 3 else 0.0,
    "hard_silu": lambda x, a: 0.0 if x <= -3 else 1.0 if x >= 3 else (2 * x + 3) / 6,
}


def activation_forward(x: np.ndarray, kind: str, alpha: float) -> np.ndarray:
    return each(lambda v: FORWARD[kind](v, alpha), x)


def activation_backward(dy: np.ndarray, saved: np.ndarray, kind: str, alpha: float) -> np.ndarray:
    """dx = dy * f'."""
    return each(lambda g, v: g * SLOPE[kind](v, alpha), dy, saved)


def activation_mask(y: np.ndarray, kind: str, alpha: float) -> np.ndarray:
    """Bit i of byte j is set where f' at output 8j + i is 1."""
    mask = np.zeros(-(-y.size // 8), np.uint8)
    for place, value in enumerate(y.astype(np.float64).ravel().tolist()):
        if SLOPE[kind](value, alpha) == 1:
            mask[place // 8] |= 1 << place % 8
    return mask


def mask_backward(
    dy: np.ndarray, mask: np.ndarray, axes: tuple[int, ...], slope: float, scale: float
) -> np.ndarray:
    """dx = scale * dy where the bit is set, else slope * dy; ``axes`` is about memory alone."""
    bits = [byte >> bit & 1 for byte in mask.tolist() for bit in range(8)]
    return each(
        lambda g, bit: g * (scale if bit else slope), dy, np.reshape(bits[: dy.size], dy.shape)
    )


def _slopes(x: np.ndarray, slope: np.ndarray, s: Any) -> np.ndarray:
    """The slope of its channel, for each element of x."""
    shape = [1] * x.ndim
    shape[-1 if s.channels_last else 1] = len(slope)
    return np.broadcast_to(slope.astype(np.float64).reshape(shape), x.shape)


def prelu_forward(x: np.ndarray, slope: np.ndarray, s: Any) -> np.ndarray:
    return each(lambda v, a: v if v > 0 else a * v, x, _slopes(x, slope, s))


def prelu_backward(
    dy: np.ndarray, x: np.ndarray, slope: np.ndarray, s: Any
) -> tuple[np.ndarray, np.ndarray]:
    dx = each(lambda g, v, a: g if v > 0 else a * g, dy, x, _slopes(x, slope, s))
    parts = each(lambda g, v: 0.0 if v > 0 else g * v, dy, x)
    axis = x.ndim - 1 if s.channels_last else 1
    return dx, np.array([np.take(parts, c, axis).sum() for c in range(len(slope))])


def _log_softmax(row: np.ndarray) -> np.ndarray:
    highest = row.max()
    return row - highest - math.log(sum(math.exp(v - highest) for v in row))


def softmax_forward(x: np.ndarray, log: bool = False) -> np.ndarray:
    """y[i] = exp(x[i]) / sum over j of exp(x[j]) for each row, or its logarithm."""
    rows = [_log_softmax(row) for row in x.astype(np.float64)]
    return np.array([row if log else np.exp(row) for row in rows]).reshape(x.shape)


def softmax_backward(dy: np.ndarray, y: np.ndarray, log: bool = False) -> np.ndarray:
    """dx[i] = sum over j of dy[j] * dy[j]/dx[i], with the matrix of derivatives written out."""
    dx = np.zeros(y.shape)
    for n, (g, p) in enumerate(zip(dy.astype(np.float64), y.astype(np.float64), strict=True)):
        for i in range(len(p)):
            for j in range(len(p)):
                same = 1.0 if i == j else 0.0
                slope = same - math.exp(p[i]) if log else p[j] * (same - p[i])
                dx[n, i] += g[j] * slope
    return dx


def softmax_cross_entropy(
    logits: np.ndarray, targets: np.ndarray, label_smoothing: float, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """loss = -sum of target * log softmax (0 log 0 is 0), dlogits = scale * (softmax - target)."""
    rows, classes = logits.shape
    losses, dlogits = np.zeros(rows), np.zeros(logits.shape)
    for n in range(rows):
        if targets.ndim == 1 and not 0 <= targets[n] < classes:
            losses[n], dlogits[n] = math.nan, math.nan
            continue
        log_p = _log_softmax(logits[n].astype(np.float64))
        for i in range(classes):
            target = float(targets[n, i]) if targets.ndim == 2 else float(i == targets[n])
            target = (1 - label_smoothing) * target + label_smoothing / classes
            if target:
                losses[n] -= target * log_p[i]
            dlogits[n, i] = scale * (math.exp(log_p[i]) - target)
    return losses, dlogits


# (loss, its derivative) as functions of the prediction z and the target t.
LOSSES: dict[str, tuple[Callable[[float, float], float], Callable[[float, float], float]]] = {
    "mse": (lambda z, t: (z - t) ** 2, lambda z, t: 2 * (z - t)),
    "mae": (lambda z, t: abs(z - t), lambda z, t: float(z > t) - float(z < t)),
    "huber": (
        lambda z, t: (z - t) ** 2 / 2 if abs(z - t) <= 1 else abs(z - t) - 0.5,
        lambda z, t: max(-1.0, min(1.0, z - t)),
    ),
    # -t log sigmoid(z) - (1 - t) log(1 - sigmoid(z)), and 1 - sigmoid(z) = sigmoid(-z)
    "bce_logits": (
        lambda z, t: t * softplus(-z) + (1 - t) * softplus(z),
        lambda z, t: sigmoid(z) - t,
    ),
}


def pointwise_loss(
    prediction: np.ndarray, target: np.ndarray, kind: str, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    loss, slope = LOSSES[kind]
    losses = each(loss, prediction, target)
    return losses, each(lambda z, t: scale * slope(z, t), prediction, target)
