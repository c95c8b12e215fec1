"""Updates of parameters in place, in blocks: each array passes through memory once.

Sutskever et al. 2013 (momentum, in the form whose velocity holds the learning rate), Kingma & Ba
2015 (Adam), Loshchilov & Hutter 2019 (AdamW).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .blocks import ALONE, BLOCK, flat, pieces, share, wide
from .convolution.workspace import workspace


def _flat_blocks(*arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yield views of the same block of each array, in the memory order of the first."""
    flats = flat(arrays[0], *arrays)
    for piece in pieces(flats[0].size, BLOCK):
        yield [vector[piece] for vector in flats]


def _blocks_of_all(
    decays: Sequence[float], *lists: Sequence[np.ndarray]
) -> list[tuple[list[np.ndarray], float]]:
    """Return the blocks of all tensors, each with its weight decay."""
    return [
        (block, float(decay))
        for *arrays, decay in zip(*lists, decays, strict=True)
        for block in _flat_blocks(*arrays)
    ]


def _scratch(name: str, like: np.ndarray) -> np.ndarray:
    return workspace.take(f"optimizer {name}", like.shape, like.dtype)


class Optimizers:
    """``global_norm``, ``sgd_update`` and ``adam_update``."""

    def global_norm(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        double = any(array.dtype == np.float64 for array in arrays)
        parts = [part for array in arrays for (part,) in _flat_blocks(array)]
        squares = np.empty(len(parts))

        def fill(place: int) -> None:
            squares[place] = np.square(parts[place], dtype=np.float64).sum()

        share(fill, range(len(parts)))
        return np.array(math.sqrt(squares.sum()), np.float64 if double else np.float32)

    def sgd_update(
        self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray],
        velocities: Sequence[np.ndarray], weight_decays: Sequence[float], *, learning_rate: float,
        momentum: float, nesterov: bool, grad_scale: np.ndarray | None,
    ) -> None:  # fmt: skip
        rate, momentum = float(learning_rate), float(momentum)
        scale = 1.0 if grad_scale is None else float(grad_scale)

        def update(block: tuple) -> None:
            (param, gradient, velocity), decay = block
            value, gradient = wide(param), wide(gradient)
            step = np.multiply(gradient, rate * scale, out=_scratch("step", value))
            if decay:
                step += np.multiply(value, rate * decay, out=_scratch("term", value))
            velocity *= momentum
            velocity -= step
            if nesterov:
                value += np.multiply(velocity, momentum, out=_scratch("term", value))
                value -= step
            else:
                value += velocity
            if value is not param:
                param[...] = value

        _share(update, _blocks_of_all(weight_decays, params, grads, velocities))

    def adam_update(
        self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray], m: Sequence[np.ndarray],
        v: Sequence[np.ndarray], weight_decays: Sequence[float], *, learning_rate: float,
        beta_1: float, beta_2: float, epsilon: float, step: int, decoupled: bool,
        grad_scale: np.ndarray | None,
    ) -> None:  # fmt: skip
        rate, beta_1, beta_2, epsilon = map(float, (learning_rate, beta_1, beta_2, epsilon))
        scale = 1.0 if grad_scale is None else float(grad_scale)
        # m' = m / (1 - beta_1^t) and v' = v / root^2 are free of their start at 0:
        # rate m' / (sqrt(v') + epsilon) = rate_now m / (sqrt(v) + epsilon root)
        root = math.sqrt(1 - beta_2**step)
        rate_now = rate * root / (1 - beta_1**step)

        def update(block: tuple) -> None:
            (param, gradient, first, second), decay = block
            value, gradient = wide(param), wide(gradient)
            g, term = _scratch("step", value), _scratch("term", value)
            np.multiply(gradient, scale, out=g)
            if decay and not decoupled:
                g += np.multiply(value, decay, out=term)
            first *= beta_1
            first += np.multiply(g, 1 - beta_1, out=term)
            second *= beta_2
            np.square(g, out=g)
            g *= 1 - beta_2
            second += g
            np.sqrt(second, out=g)
            g += epsilon * root
            np.divide(first, g, out=g)
            g *= rate_now
            if decay and decoupled:
                value *= 1 - rate * decay
            value -= g
            if value is not param:
                param[...] = value

        _share(update, _blocks_of_all(weight_decays, params, grads, m, v))


def _share(update: Callable[[tuple], None], blocks: list[tuple[list[np.ndarray], float]]) -> None:
    size = sum(arrays[0].size for arrays, _ in blocks)
    share(update, blocks, alone=size <= ALONE)
