"""Activations and their derivatives, in forms that neither overflow nor cancel.

At the infinities they are their limits (softsign itself is NaN there).

Hendrycks & Gimpel 2016 (gelu), Elfwing et al. 2017 and Ramachandran et al. 2017 (silu), Misra 2019
(mish), Clevert et al. 2015 (elu), Klambauer et al. 2017 (selu), Howard et al. 2019 (hard_silu),
He et al. 2015 (PReLU). relu, relu6, clipped_relu, hard_sigmoid and hard_silu have the derivative of
the flat side at their kinks, leaky_relu and prelu that of the left side.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ...shapes import NormShape
from ..base import SELU_ALPHA, SELU_SCALE, accumulator, bend
from . import buffers
from .bits import byte_count, each_byte, packed, passed, unpacked
from .blocks import BLOCK, LARGE, choose, elementwise, flat, keep, rounded, share, wide
from .channels import Block, Lanes
from .special import erfc

_FLOOR = -1000  # exp is 0 below, and a product of it with -inf would be NaN


@cache
def _zeros(dtype: np.dtype) -> np.ndarray:
    return np.zeros(LARGE, dtype)


def relu(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """max(x, 0), a last axis of up to ``LARGE``: NumPy is slow to compare with a single number."""
    return np.maximum(x, _zeros(x.dtype)[: x.shape[-1]], out=out)


def _limited(x: np.ndarray) -> np.ndarray:
    """Raise x to where exp(-x) is finite: a sigmoid has fallen below all other numbers there."""
    return np.maximum(x, -708 if x.dtype == np.float64 else -87)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    y = np.exp(-_limited(x))
    y += 1
    return np.reciprocal(y, out=y)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0))


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    return 0.5 * erfc(x * -math.sqrt(0.5))


def _gelu_slope(x: np.ndarray) -> np.ndarray:
    """(x Phi(x))' = Phi(x) + x phi(x); phi is 0 to all digits beyond the limits."""
    z = np.clip(x, -40, 40)
    return _normal_cdf(x) + z * np.exp(-0.5 * z * z) * (1 / math.sqrt(2 * math.pi))


def _gelu_tanh_parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x cut to +-10, (1 + tanh u) / 2 = sigmoid(2u) for u = sqrt(2/pi) (x + 0.044715 x^3), and 2u'.

    Beyond +-10 the sigmoid is 0 or 1 to all digits.
    """
    z = np.clip(x, -10, 10)
    square = z * z
    scale = math.sqrt(8 / math.pi)
    return z, _sigmoid(scale * z * (1 + 0.044715 * square)), scale * (1 + 3 * 0.044715 * square)


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, -10) * _gelu_tanh_parts(x)[1]


def _gelu_tanh_slope(x: np.ndarray) -> np.ndarray:
    z, gate, slope = _gelu_tanh_parts(x)
    return gate * (1 + z * slope * (1 - gate))


def _silu_slope(x: np.ndarray) -> np.ndarray:
    gate = _sigmoid(x)
    return gate * (1 + np.minimum(_limited(x), 100) * (1 - gate))  # the gate is 1 beyond


def _mish_gate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """tanh(softplus(x)) = n / (n + 2) for n = e (e + 2), e = exp(x), and its derivative.

    Beyond 20 the gate is 1 to all digits.
    """
    e = np.exp(np.minimum(x, 20))
    n = e * (e + 2)
    return n / (n + 2), 4 * (e / (n + 2)) * ((e + 1) / (n + 2))


def _mish_slope(x: np.ndarray) -> np.ndarray:
    gate, slope = _mish_gate(x)
    return gate + np.clip(x, _FLOOR, 20) * slope


# kind -> y from x, alpha and out, where it may be put
_FORWARD = {
    "relu": lambda x, a, out: relu(x, out),
    "relu6": lambda x, a, out: np.clip(x, 0, 6),
    "clipped_relu": lambda x, a, out: np.clip(x, 0, a),
    "leaky_relu": lambda x, a, out: choose(x > 0, x, a * x),
    "elu": lambda x, a, out: _elu(x, a),
    "selu": lambda x, a, out: SELU_SCALE * _elu(x, SELU_ALPHA),
    "sigmoid": lambda x, a, out: _sigmoid(x),
    "tanh": lambda x, a, out: np.tanh(x),
    "softplus": lambda x, a, out: _softplus(x),
    "softsign": lambda x, a, out: x / (1 + np.abs(x)),
    "gelu": lambda x, a, out: np.maximum(x, _FLOOR) * _normal_cdf(x),
    "gelu_tanh": lambda x, a, out: _gelu_tanh(x),
    "silu": lambda x, a, out: _limited(x) * _sigmoid(x),
    "mish": lambda x, a, out: np.maximum(x, _FLOOR) * _mish_gate(x)[0],
    "hard_sigmoid": lambda x, a, out: np.clip(x + 3, 0, 6) / 6,
    "hard_silu": lambda x, a, out: np.maximum(x, -3) * (np.clip(x + 3, 0, 6) / 6),
}

# kind -> dx from dy, the saved y (a kind of FROM_OUTPUT) or x, alpha and out
_BACKWARD = {
    "relu": lambda dy, y, a, out: keep(dy, y > 0, out),
    "relu6": lambda dy, y, a, out: keep(dy, (y > 0) & (y < 6)),
    "clipped_relu": lambda dy, y, a, out: keep(dy, (y > 0) & (y < a)),
    "leaky_relu": lambda dy, y, a, out: choose(y > 0, dy, a * dy),
    "elu": lambda dy, y, a, out: choose(y > 0, dy, dy * (y + a)),
    "selu": lambda dy, y, a, out: choose(
        y > 0, SELU_SCALE * dy, dy * (y + SELU_SCALE * SELU_ALPHA)
    ),
    "sigmoid": lambda dy, y, a, out: dy * (y * (1 - y)),
    "tanh": lambda dy, y, a, out: dy * (1 - y * y),
    "softplus": lambda dy, x, a, out: dy * _sigmoid(x),
    "softsign": lambda dy, x, a, out: dy / (1 + np.abs(x)) / (1 + np.abs(x)),
    "gelu": lambda dy, x, a, out: dy * _gelu_slope(x),
    "gelu_tanh": lambda dy, x, a, out: dy * _gelu_tanh_slope(x),
    "silu": lambda dy, x, a, out: dy * _silu_slope(x),
    "mish": lambda dy, x, a, out: dy * _mish_slope(x),
    "hard_sigmoid": lambda dy, x, a, out: keep(dy / 6, np.abs(x) < 3),
    "hard_silu": lambda dy, x, a, out: keep(choose(x < 3, dy * (x / 3 + 0.5), dy), x > -3),
}


class Activations:
    """``activation_...``, ``mask_backward``, ``add``, ``prelu_forward`` and ``_backward``."""

    def activation_forward(self, x: np.ndarray, kind: str, alpha: float) -> np.ndarray:
        function = _FORWARD[kind]
        alpha, most = float(alpha), LARGE if kind == "relu" else BLOCK
        return elementwise(lambda x, out: function(x, alpha, out), x.dtype, x, most=most)

    def activation_backward(
        self, dy: np.ndarray, saved: np.ndarray, kind: str, alpha: float
    ) -> np.ndarray:
        function = _BACKWARD[kind]
        alpha, most = float(alpha), LARGE if kind == "relu" else BLOCK
        return elementwise(
            lambda dy, saved, out: function(dy, saved, alpha, out), dy.dtype, dy, saved, most=most
        )

    def activation_masked(
        self, x: np.ndarray, kind: str, alpha: float, residual: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        function, (_, ceiling) = _FORWARD[kind], bend(kind, alpha)
        inputs = [array for array in (x, residual) if array is not None]
        y = buffers.empty_like(inputs[-1])
        target, *sources = flat(inputs[-1], y, *inputs)
        mask = buffers.empty((byte_count(y.size),), np.uint8)
        in_place = accumulator(x.dtype) == x.dtype

        def fill(octets: slice, piece: slice) -> None:
            part = target[piece]
            out = part if in_place else None
            value, *others = (wide(source[piece]) for source in sources)
            for other in others:
                value = np.add(value, other, out=out)
            value = function(value, float(alpha), out)
            if value is not part:
                part[...] = value
            mask[octets] = packed(passed(part, ceiling))

        each_byte(fill, y.size)
        return y, mask

    def activation_mask(self, y: np.ndarray, kind: str, alpha: float) -> np.ndarray:
        (source,), (_, ceiling) = flat(y, y), bend(kind, alpha)
        mask = buffers.empty((byte_count(y.size),), np.uint8)

        def fill(octets: slice, piece: slice) -> None:
            mask[octets] = packed(passed(source[piece], ceiling))

        each_byte(fill, y.size)
        return mask

    def mask_backward(
        self, dy: np.ndarray, mask: np.ndarray, axes: tuple[int, ...], slope: float, scale: float
    ) -> np.ndarray:
        dx = buffers.empty_ordered(dy.shape, axes, dy.dtype)
        target, source = flat(dx, dx, dy)

        def fill(octets: slice, piece: slice) -> None:
            part, out = source[piece], target[piece]
            bits = unpacked(mask[octets], part.size)
            if slope:
                value = wide(part)
                out[...] = choose(bits, value * scale, value * slope)
            elif scale == 1:
                keep(part, bits, out)
            else:
                out[...] = keep(wide(part) * scale, bits)

        each_byte(fill, dx.size)
        return dx

    def add(self, a: np.ndarray, b: np.ndarray, activation: str = "linear") -> np.ndarray:
        def run(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
            y = np.add(a, b, out=out)
            return relu(y, y) if activation == "relu" else y

        return elementwise(run, a.dtype, a, b, most=LARGE)

    def prelu_forward(self, x: np.ndarray, slope: np.ndarray, shape: NormShape) -> np.ndarray:
        lanes = Lanes(x, shape)
        y = lanes.empty(x.dtype)
        source, target, factor = lanes.view(x), lanes.view(y), lanes.along(wide(slope))

        def fill(block: Block) -> None:
            part = wide(source[block])
            target[block] = choose(part > 0, part, factor * part)

        share(fill, lanes.blocks)
        return y

    def prelu_backward(
        self, dy: np.ndarray, x: np.ndarray, slope: np.ndarray, shape: NormShape
    ) -> tuple[np.ndarray, np.ndarray]:
        lanes = Lanes(x, shape)
        dx = lanes.empty(dy.dtype)
        source, slopes, target = lanes.view(x), lanes.view(dy), lanes.view(dx)
        factor = lanes.along(wide(slope))

        def fill(block: Block) -> list[np.ndarray]:
            part, grad = wide(source[block]), wide(slopes[block])
            target[block] = choose(part > 0, grad, factor * grad)
            return [lanes.sums(keep(part * grad, ~(part > 0)))]

        (dslope,) = lanes.totals(fill, 1)
        return dx, rounded(dslope, slope.dtype)
