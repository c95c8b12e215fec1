"""Normalisation and channel sums on the GPU (kernels/{channel_sums,batch_norm,group_norm}.cu)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...shapes import NormShape
from ..base import Array, accumulator
from .kernel import CHANNELS_LAST, DTYPE, Axis, KernelFamily
from .launch import KernelCaller, batch_parts, ceil_div
from .spatial import DIVISOR, divisor

_TERM: Axis = {
    name: (name, {"TERM": name.upper()})
    for name in ("sum", "squared_deviation", "batch_gradient", "group_gradient", "slope")
}
_AXES = (CHANNELS_LAST, DTYPE)
SUMS = KernelFamily("channel_sums.cu", "channel_sums", _TERM, *_AXES)
SUMS_FINISH = KernelFamily("channel_sums.cu", "channel_sums_finish", _TERM, *_AXES)
BATCH_FORWARD = KernelFamily("batch_norm.cu", "batch_norm_forward", *_AXES)
BATCH_BACKWARD = KernelFamily("batch_norm.cu", "batch_norm_backward", *_AXES)
GROUP_FORWARD = KernelFamily("group_norm.cu", "group_norm_forward", *_AXES)
GROUP_BACKWARD = KernelFamily("group_norm.cu", "group_norm_backward", *_AXES)

THREADS = 256  # as in the kernels
POSITIONS_PER_SPLIT = 1024
MAX_SPLITS = 256

# struct NormGeometry of kernels/norm_geometry.cuh
_GEOMETRY = np.dtype(
    [(name, "i4") for name in ("batch", "channels", "length", "groups", "group_channels")]
    + [(f"by_{name}", DIVISOR) for name in ("channels", "length", "group_channels")]
)


@lru_cache(maxsize=1024)
def norm_record(shape: NormShape) -> np.ndarray:
    """Return a shape as the struct that the kernels take by value.

    Raises:
        ValueError: the positions of the batch, or one sample, pass the 2^31 that kernels count to.
    """
    for name, size in (
        ("the positions of the batch", shape.batch * shape.length),
        ("one sample", shape.channels * shape.length),
    ):
        if size >= 2**31:
            raise ValueError(f"normalization: {name} must be below 2^31. Received: {size}")
    sizes = (shape.channels, shape.length, shape.channels // shape.groups)
    row = (shape.batch, *sizes[:2], shape.groups, sizes[2], *(divisor(max(1, s)) for s in sizes))
    return np.array([row], _GEOMETRY)


class NormOps(KernelCaller):
    """The normalisations of ``Backend`` and the sums over all but the channels."""

    def bias_grad(self, dy: Array, shape: NormShape) -> Array:
        return self._channel_sums("sum", dy, shape)[0].astype(dy.dtype, copy=False)

    def batch_norm_train(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape
    ) -> tuple[Array, Array, Array]:
        scale = 1.0 / max(1, shape.batch * shape.length)
        mean = self._channel_sums("sum", x, shape, scale=scale)[0]
        var = self._channel_sums("squared_deviation", x, shape, mean=mean, scale=scale)[0]
        return self.batch_norm_infer(x, gamma, beta, mean, var, epsilon, shape), mean, var

    def batch_norm_infer(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, epsilon: float,
        shape: NormShape,
    ) -> Array:  # fmt: skip
        y = self.xp.empty_like(x)
        kernel = BATCH_FORWARD(shape.channels_last, x.dtype.name)
        eps = accumulator(x.dtype).type(epsilon)
        for part in batch_parts(shape.batch, shape.channels * shape.length):
            self.launch_elements(
                kernel, x[part].size, x[part], gamma, beta, mean, var, eps, y[part], x[part].size,
                norm_record(shape),
            )  # fmt: skip
        return y

    def batch_norm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, epsilon: float,
        training: bool, shape: NormShape,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        dbeta, dgamma = self._channel_sums(
            "batch_gradient", dy, shape, x=x, mean=mean, var=var, epsilon=epsilon
        )
        dx = self.xp.empty_like(x)
        kernel = BATCH_BACKWARD(shape.channels_last, x.dtype.name)
        number = accumulator(x.dtype).type
        inverse_count = 1.0 / max(1, shape.batch * shape.length) if training else 0.0
        for part in batch_parts(shape.batch, shape.channels * shape.length):
            self.launch_elements(
                kernel, x[part].size, dy[part], x[part], gamma, mean, var, number(epsilon), dgamma,
                dbeta, number(inverse_count), dx[part], x[part].size, norm_record(shape),
            )  # fmt: skip
        return dx, dgamma.astype(gamma.dtype, copy=False), dbeta.astype(gamma.dtype, copy=False)

    def group_norm_forward(
        self, x: Array, gamma: Array, beta: Array, epsilon: float, shape: NormShape
    ) -> tuple[Array, Array, Array]:
        sums = accumulator(x.dtype)
        y = self.xp.empty_like(x)
        mean, var = (self.xp.empty((shape.batch, shape.groups), sums) for _ in range(2))
        self.launch(
            GROUP_FORWARD(shape.channels_last, x.dtype.name), shape.batch * shape.groups, THREADS,
            x, gamma, beta, sums.type(epsilon), y, mean, var, norm_record(shape),
        )  # fmt: skip
        return y, mean, var

    def group_norm_backward(
        self, dy: Array, x: Array, gamma: Array, mean: Array, var: Array, epsilon: float,
        shape: NormShape,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        dx = self.xp.empty_like(x)
        self.launch(
            GROUP_BACKWARD(shape.channels_last, x.dtype.name), shape.batch * shape.groups, THREADS,
            dy, x, gamma, mean, var, accumulator(x.dtype).type(epsilon), dx, norm_record(shape),
        )  # fmt: skip
        dbeta, dgamma = self._channel_sums(
            "group_gradient", dy, shape, x=x, mean=mean, var=var, epsilon=epsilon
        )
        return dx, dgamma.astype(gamma.dtype, copy=False), dbeta.astype(gamma.dtype, copy=False)

    def _channel_sums(
        self, term: str, a: Array, shape: NormShape, *, x: Array | None = None,
        mean: Array | None = None, var: Array | None = None, epsilon: float = 0.0,
        scale: float = 1.0,
    ) -> Array:  # fmt: skip
        """Return (terms, C) sums in Accum: one term, or two for the gradients."""
        sums = accumulator(a.dtype)
        terms = 2 if term.endswith("gradient") else 1
        positions = shape.batch * shape.length
        if positions == 0:
            return self.xp.zeros((terms, shape.channels), sums)
        splits = min(MAX_SPLITS, ceil_div(positions, POSITIONS_PER_SPLIT))
        per_split = ceil_div(positions, splits)
        splits = ceil_div(positions, per_split)
        tiles = ceil_div(shape.channels, 32) if shape.channels_last else shape.channels
        choice = (term, shape.channels_last, a.dtype.name)
        partial = self.xp.empty((splits, terms, shape.channels), sums)
        self.launch(
            SUMS(*choice), (tiles, splits), THREADS, a, x, mean, var, sums.type(epsilon), partial,
            per_split, norm_record(shape),
        )  # fmt: skip
        result = self.xp.empty((terms, shape.channels), sums)
        self.launch_elements(
            SUMS_FINISH(*choice), result.size, partial, result, sums.type(scale), splits,
            result.size,
        )  # fmt: skip
        return result
