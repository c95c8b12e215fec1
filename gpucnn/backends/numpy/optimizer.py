"""Updates of parameters in place, in blocks: each array passes through memory once.

Sutskever et al. 2013 (momentum, in the form whose velocity holds the learning rate), Kingma & Ba
2015 (Adam), Loshchilov & Hutter 2019 (AdamW), Zhang et al. 2019 (Lookahead), Jordan 2024 (Muon).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..base import Factors, Masters, Number
from .blocks import ALONE, BLOCK, flat, pieces, rounded, share, wide
from .convolution.workspace import workspace

PATIENCE = 64  # steps that are skipped in a row, as in kernels/gradient_scale.cu

Tensors = Sequence[np.ndarray | None]


def _flat_blocks(*arrays: np.ndarray | None) -> Iterator[list[np.ndarray | None]]:
    """Yield views of the same block of each array, in the memory order of the first."""
    flats = [None if array is None else flat(arrays[0], array)[0] for array in arrays]
    for piece in pieces(flats[0].size, BLOCK):
        yield [None if vector is None else vector[piece] for vector in flats]


def _blocks_of_all(
    decays: Sequence[float], factors: Factors, masters: Masters, *lists: Tensors
) -> list[tuple[list[np.ndarray | None], float, float]]:
    """Return the blocks of all tensors, each with its weight decay and the factor of its rate."""
    count = len(decays)
    columns = (*lists, masters or [None] * count, decays, factors or [1.0] * count)
    return [
        (block, float(decay), float(factor))
        for *arrays, decay, factor in zip(*columns, strict=True)
        for block in _flat_blocks(*arrays)
    ]


def _scratch(name: str, like: np.ndarray) -> np.ndarray:
    return workspace.take(f"optimizer {name}", like.shape, like.dtype)


def _start(param: np.ndarray, master: np.ndarray | None) -> np.ndarray:
    """Return what an update starts from, and may change: the master, brought up to date."""
    if master is None:
        return wide(param)
    np.copyto(master, wide(param), where=rounded(master, param.dtype) != param)
    return master


class Optimizers:
    """``gradient_scale``, and the updates of the optimizers."""

    def gradient_scale(
        self, grads: Sequence[np.ndarray], *, clip_norm: float | None = None,
        loss_scale: np.ndarray | None = None, growth_interval: int | None = None,
        skipped: np.ndarray | None = None, step: Number = 1, betas: Sequence[float] = (),
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        scale = 1.0 if loss_scale is None else float(loss_scale[0])
        norm = _norm(grads) / scale
        t = float(step) - (0 if skipped is None else float(skipped[0]))
        factor = (clip_norm / norm if clip_norm and norm > clip_norm else 1.0) / scale
        if not math.isfinite(norm):
            hopeless = loss_scale is None or loss_scale[1] <= -PATIENCE
            factor = math.nan if hopeless else 0.0
        if loss_scale is not None:
            _adapt(loss_scale, growth_interval, math.isfinite(norm))
            skipped += not math.isfinite(norm)
        return tuple(map(np.array, (norm, factor, *(1 - beta**t for beta in betas))))

    def sgd_update(
        self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray],
        velocities: Sequence[np.ndarray], weight_decays: Sequence[float], *, learning_rate: Number,
        momentum: float, nesterov: bool, grad_scale: np.ndarray | None, masters: Masters = None,
        rate_factors: Factors = None,
    ) -> None:  # fmt: skip
        rate, momentum = float(learning_rate), float(momentum)
        scale = 1.0 if grad_scale is None else float(grad_scale)
        if scale == 0:
            return

        def update(block: tuple) -> None:
            (param, gradient, velocity, master), decay, factor = block
            value, gradient, own = _start(param, master), wide(gradient), rate * factor
            step = np.multiply(gradient, own * scale, out=_scratch("step", value))
            if decay:
                step += np.multiply(value, own * decay, out=_scratch("term", value))
            velocity *= momentum
            velocity -= step
            if nesterov:
                value += np.multiply(velocity, momentum, out=_scratch("term", value))
                value -= step
            else:
                value += velocity
            if value is not param:
                param[...] = value

        _share(
            update, _blocks_of_all(weight_decays, rate_factors, masters, params, grads, velocities)
        )

    def adam_update(
        self, params: Sequence[np.ndarray], grads: Sequence[np.ndarray], m: Sequence[np.ndarray],
        v: Sequence[np.ndarray], weight_decays: Sequence[float], *, learning_rate: Number,
        beta_1: float, beta_2: float, epsilon: float, correction_1: Number, correction_2: Number,
        decoupled: bool, grad_scale: np.ndarray | None, masters: Masters = None,
        rate_factors: Factors = None,
    ) -> None:  # fmt: skip
        rate, beta_1, beta_2, epsilon = map(float, (learning_rate, beta_1, beta_2, epsilon))
        scale = 1.0 if grad_scale is None else float(grad_scale)
        if scale == 0:
            return
        # m' = m / (1 - beta_1^t) and v' = v / root^2 are free of their start at 0:
        # rate m' / (sqrt(v') + epsilon) = rate root / (1 - beta_1^t) m / (sqrt(v) + epsilon root)
        root, correction = math.sqrt(correction_2), float(correction_1)

        def update(block: tuple) -> None:
            (param, gradient, first, second, master), decay, factor = block
            value, gradient, own = _start(param, master), wide(gradient), rate * factor
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
            g *= own * root / correction
            if decay and decoupled:
                value *= 1 - own * decay
            value -= g
            if value is not param:
                param[...] = value

        _share(update, _blocks_of_all(weight_decays, rate_factors, masters, params, grads, m, v))

    def lookahead_update(
        self, params: Sequence[np.ndarray], slow: Sequence[np.ndarray], *, share: Number,
        grad_scale: np.ndarray | None, masters: Masters = None,
    ) -> None:  # fmt: skip
        share_now = float(share)
        if share_now == 0 or (grad_scale is not None and grad_scale == 0):
            return

        def update(block: tuple) -> None:
            (param, mean, master), *_ = block
            value = _start(param, master)
            mean += share_now * (value - mean)
            if master is not None:
                master[...] = mean
            param[...] = mean

        _share(update, _blocks_of_all([0.0] * len(params), None, masters, params, slow))

    def muon_direction(
        self, grads: Sequence[np.ndarray], velocities: Sequence[np.ndarray], *, momentum: float,
        nesterov: bool, grad_scale: np.ndarray | None,
    ) -> list[np.ndarray]:  # fmt: skip
        scale = 1.0 if grad_scale is None else float(grad_scale)
        if scale == 0:
            return list(grads)
        directions = []
        for grad, velocity in zip(grads, velocities, strict=True):
            step = wide(grad) * scale
            velocity *= momentum
            velocity += step
            u = step + momentum * velocity if nesterov else velocity
            norm = _norm([u])
            directions.append(rounded(u / norm if norm else np.zeros_like(u), grad.dtype))
        return directions

    def newton_schulz(
        self, a: np.ndarray, b: np.ndarray, coefficients: Sequence[float]
    ) -> np.ndarray:
        c0, c1, c2 = coefficients
        out = c1 * wide(a) + c2 * wide(b)
        out[np.diag_indices(len(out))] += c0
        return rounded(out, a.dtype)

    def muon_update(
        self, params: Sequence[np.ndarray], steps: Sequence[np.ndarray],
        weight_decays: Sequence[float], *, learning_rate: Number, grad_scale: np.ndarray | None,
        masters: Masters = None, rate_factors: Factors = None,
    ) -> None:  # fmt: skip
        rate = float(learning_rate)
        if grad_scale is not None and grad_scale == 0:
            return

        def update(block: tuple) -> None:
            (param, step, master), decay, factor = block
            value = _start(param, master)
            value -= rate * factor * (wide(step) + decay * value)
            if value is not param:
                param[...] = value

        _share(update, _blocks_of_all(weight_decays, rate_factors, masters, params, steps))


def _norm(arrays: Sequence[np.ndarray]) -> float:
    """Return sqrt of the sum of all squares."""
    parts = [part for array in arrays for (part,) in _flat_blocks(array)]
    squares = np.empty(len(parts))

    def fill(place: int) -> None:
        squares[place] = np.square(parts[place], dtype=np.float64).sum()

    share(fill, range(len(parts)))
    return math.sqrt(squares.sum())


def _adapt(loss_scale: np.ndarray, growth_interval: int | None, finite: bool) -> None:
    """Change a loss scale [scale, streak] after a step whose gradients are finite or not."""
    scale, streak = loss_scale.tolist()
    streak = max(streak, 0) + 1 if finite else min(streak, 0) - 1
    if growth_interval and not finite:
        scale /= 2
    elif growth_interval and streak >= growth_interval:
        scale, streak = 2 * scale, 0
    loss_scale[:] = scale, streak


def _share(update: Callable[[tuple], None], blocks: list[tuple]) -> None:
    size = sum(arrays[0].size for arrays, *_ in blocks)
    share(update, blocks, alone=size <= ALONE)
