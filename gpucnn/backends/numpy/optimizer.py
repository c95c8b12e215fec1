"""Updates of parameters in place, in blocks: each array passes through memory once.

Sutskever et al. 2013 (momentum, in the form whose velocity holds the learning rate), Kingma & Ba
2015 (Adam), Loshchilov & Hutter 2019 (AdamW).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from .blocks import BLOCK, pieces, wide


def _flat_blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield views of the same block of each array."""
    flats = [array.reshape(-1) for array in arrays]
    for piece in pieces(flats[0].size, BLOCK):
        yield tuple(flat[piece] for flat in flats)


def _scaled(gradient: np.ndarray, grad_scale: np.ndarray | None) -> np.ndarray:
    """Return a new array grad_scale * gradient in the dtype of the sums."""
    gradient = wide(gradient)
    return gradient * gradient.dtype.type(1 if grad_scale is None else grad_scale)


class Optimizers:
    """``global_norm``, ``sgd_update`` and ``adam_update``."""

    def global_norm(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        double = any(array.dtype == np.float64 for array in arrays)
        total = 0.0
        for array in arrays:
            for (part,) in _flat_blocks(array):
                part = part.astype(np.float64, copy=False)
                total += part @ part
        return np.array(math.sqrt(total), np.float64 if double else np.float32)

    def sgd_update(
        self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray],
        velocities: Sequence[np.ndarray], weight_decays: Sequence[float], *, learning_rate: float,
        momentum: float, nesterov: bool, grad_scale: np.ndarray | None,
    ) -> None:  # fmt: skip
        rate, momentum = float(learning_rate), float(momentum)
        for *arrays, decay in zip(params, grads, velocities, weight_decays, strict=True):
            for param, gradient, velocity in _flat_blocks(*arrays):
                value, step = wide(param), _scaled(gradient, grad_scale)
                if decay:
                    step += float(decay) * value
                step *= rate
                velocity *= momentum
                velocity -= step
                step = momentum * velocity - step if nesterov else velocity
                param[...] = value + step

    def adam_update(
        self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray], m: Sequence[np.ndarray],
        v: Sequence[np.ndarray], weight_decays: Sequence[float], *, learning_rate: float,
        beta_1: float, beta_2: float, epsilon: float, step: int, decoupled: bool,
        grad_scale: np.ndarray | None,
    ) -> None:  # fmt: skip
        rate, beta_1, beta_2, epsilon = map(float, (learning_rate, beta_1, beta_2, epsilon))
        rate_now = rate / (1 - beta_1**step)
        root = 1 / math.sqrt(1 - beta_2**step)
        for *arrays, decay in zip(params, grads, m, v, weight_decays, strict=True):
            decay = float(decay)
            for param, gradient, first, second in _flat_blocks(*arrays):
                value, g = wide(param), _scaled(gradient, grad_scale)
                if decay and not decoupled:
                    g += decay * value
                first *= beta_1
                first += (1 - beta_1) * g
                second *= beta_2
                np.square(g, out=g)
                g *= 1 - beta_2
                second += g
                # rate * m' / (sqrt(v') + epsilon), m' and v' being free of their start at 0
                np.sqrt(second, out=g)
                g *= root
                g += epsilon
                np.divide(first, g, out=g)
                g *= rate_now
                kept = value * (1 - rate * decay) if decay and decoupled else value
                param[...] = kept - g
