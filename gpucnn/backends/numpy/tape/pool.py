"""Pooling on a tape: over the taps of a window along one axis after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ....shapes import PoolShape
from ..pool import JOINED
from .elementwise import finish
from .values import Value
from .way import Way

if TYPE_CHECKING:
    from ....network.program import Operation
    from .tape import Tape


class WindowPool(Way):
    """Windows that lie within the map, their inputs next to each other.

    The first axis is taken first: what it joins are whole rows.
    """

    @classmethod
    def suits(cls, operation: Operation, xs: list[Value]) -> bool:
        shape: PoolShape = operation.geometry(xs[0].shape)
        axes = zip(
            shape.input, shape.output, shape.window, shape.strides, shape.padding, shape.dilation,
            strict=True,
        )  # fmt: skip
        return all(
            pad == (0, 0) and dilation == 1 and (count - 1) * stride + window <= size
            for size, count, window, stride, pad, dilation in axes
        )

    def made(self) -> Value:
        x = self.xs[0]
        self.shape: PoolShape = self.operation.geometry(x.shape)
        x.read(self.shape.channels_last, ((0, 0),) * self.shape.rank)
        return Value(self.output_shape(), self.shape.channels_last)

    def bind(self, tape: Tape) -> None:
        shape, x = self.shape, self.xs[0].map(self.shape.channels_last)
        *_, images, channels = x.shape
        if len(self.y.shape) > 2:
            target = self.y.map(shape.channels_last)
        else:  # of whole maps, (N, C)
            target = self.y.seen.reshape(*shape.output, images, channels)
        join = JOINED[shape.mode][0]
        for axis in range(shape.rank):
            extents = (*shape.output[: axis + 1], *x.shape[axis + 1 :])
            last = axis == shape.rank - 1
            out = target if last else tape.scratch(f"pool {axis % 2}", extents)
            self._join(tape, join, x, axis, out)
            x = out
        if shape.mode == "average":
            tape.call(np.divide, target, target.dtype.type(shape.taps), out=target)
        finish(tape, target, target, None, self.operation.activation)

    def _join(self, tape: Tape, join: np.ufunc, x: np.ndarray, axis: int, y: np.ndarray) -> None:
        """Put on a tape: y = the windows' taps along an axis of x, joined."""
        count, window, stride = (
            each[axis] for each in (self.shape.output, self.shape.window, self.shape.strides)
        )
        if count == 1 and window > 2:
            some = x[(*(slice(None),) * axis, slice(window))]
            tape.call(join.reduce, some, axis, out=y, keepdims=True)
            return
        taps = [
            x[(*(slice(None),) * axis, slice(tap, tap + (count - 1) * stride + 1, stride))]
            for tap in range(window)
        ]
        if window == 1:
            tape.call(np.copyto, y, taps[0])
        for first, second in zip((taps[0], *(y,) * window), taps[1:], strict=False):
            tape.call(join, first, second, out=y)
