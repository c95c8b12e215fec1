"""Norms and sums of channels of few numbers, each in one launch (kernels/column_norm.cu)."""

from __future__ import annotations

import numpy as np

from ...shapes import NormShape
from ..base import Array, accumulator
from .kernel import DTYPE, KernelFamily
from .launch import KernelCaller, ceil_div

FORWARD = KernelFamily("column_norm.cu", "column_norm_forward", DTYPE)
BACKWARD = KernelFamily("column_norm.cu", "column_norm_backward", DTYPE)
SUMS = KernelFamily("column_norm.cu", "column_sums", DTYPE)

# LANES and COLUMN_THREADS of the kernels.
LANES = 8
COLUMN_THREADS = 512
# A block reads its channels whole: with more rows, the many blocks of several launches are quicker.
MOST_ROWS = 1024


def are_few(shape: NormShape) -> bool:
    """Return whether the numbers of a channel are few, and those of a row lie side by side."""
    rows = shape.batch * shape.length
    return 0 < rows <= MOST_ROWS and (shape.channels_last or shape.length == 1)


def ceiling(activation: str, x: Array) -> np.floating:
    """Return the smallest number that memory holds as 6 behind "relu6", else NaN; in Accum.

    Half a step of the numbers below 6 is 2^-9 of float16's, 2^-6 of bfloat16's; 6 is even.
    """
    below = {"float16": 2.0**-9, "bfloat16": 2.0**-6}.get(x.dtype.name, 0.0)
    return accumulator(x.dtype).type(6.0 - below if activation == "relu6" else np.nan)


def norm_train(
    caller: KernelCaller, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape,
    activation: str, residual: Array | None, moving: tuple[Array, Array] | None, momentum: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """``batch_norm_train``."""
    sums = accumulator(x.dtype)
    y = caller.xp.empty_like(x)
    mean, var = (caller.xp.empty(shape.channels, sums) for _ in range(2))
    _launch(
        caller, FORWARD, shape, x, residual, gamma, beta, sums.type(epsilon),
        activation != "linear", ceiling(activation, x), y, mean, var, *(moving or (None, None)),
        sums.type(1 - momentum),
    )  # fmt: skip
    return y, mean, var


def norm_backward(
    caller: KernelCaller, dy: Array, x: Array, gamma: Array, mean: Array, var: Array,
    epsilon: float, training: bool, shape: NormShape, activation: str, beta: Array | None,
    y: Array | None,
) -> tuple[Array, Array, Array, Array | None]:  # fmt: skip
    """``batch_norm_backward``; of beta and y that which tells what a ReLU cut."""
    number, xp = accumulator(x.dtype).type, caller.xp
    dx, masked = xp.empty_like(x), None if y is None else xp.empty_like(dy)
    dgamma, dbeta = xp.empty_like(gamma), xp.empty_like(gamma)
    inverse_count = number(1.0 / (shape.batch * shape.length) if training else 0.0)
    _launch(
        caller, BACKWARD, shape, dy, x, y, gamma, beta, mean, var, number(epsilon),
        ceiling(activation, x), inverse_count, dx, dgamma, dbeta, masked,
    )  # fmt: skip
    return dx, dgamma, dbeta, masked


def sums(caller: KernelCaller, a: Array, shape: NormShape) -> Array:
    """The sum of each channel, in the dtype of ``a``."""
    total = caller.xp.empty(shape.channels, a.dtype)
    _launch(caller, SUMS, shape, a, total)
    return total


def _launch(
    caller: KernelCaller, family: KernelFamily, shape: NormShape, first: Array, *arguments: object
) -> None:
    caller.launch(
        family(first.dtype), ceil_div(shape.channels, LANES), COLUMN_THREADS, first, *arguments,
        shape.batch * shape.length, shape.channels,
    )  # fmt: skip
