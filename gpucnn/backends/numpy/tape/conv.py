"""Convolutions and dense layers on a tape: a product over columns, or the backend's algorithms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ....shapes import ConvShape
from ..blocks import wide
from ..convolution import Finish, choose
from ..settings import settled
from .elementwise import finish
from .values import Value
from .way import Way

if TYPE_CHECKING:
    from ....network.program import Operation
    from .tape import Tape

COLUMN_WORK = 1 << 24  # multiply-adds, beyond which an algorithm with fewer of them pays
MOST_COLUMNS = 1 << 19  # numbers: 2 MB of float32, as much as the second-level cache has
CHANNEL_WORK = 1 << 21  # the same of a depthwise one
SHORT = 16  # numbers: where shorter runs lie together in x, the rows of the output are the runs


class _Padded(Way):
    """A convolution that reads x with its padding around it."""

    def made(self) -> Value:
        self.shape: ConvShape = self.operation.geometry(self.xs[0].shape)
        self.xs[0].read(self.shape.channels_last, self.shape.padding)
        return Value(self.shape.y_shape, self.shape.channels_last)

    def bind(self, tape: Tape) -> None:
        target = self.y.map(self.shape.channels_last)
        out = target if target.flags.c_contiguous else tape.scratch("y", target.shape)
        self._multiply(tape, self._windows(tape), out)
        finish(tape, out, target, self.operation.b, self.operation.activation)

    def _multiply(self, tape: Tape, windows: np.ndarray, out: np.ndarray) -> None:
        """Put on a tape: out (*output, N, K) = the sum over the windows' taps."""
        raise NotImplementedError

    def _windows(self, tape: Tape) -> np.ndarray:
        """View what each pixel of y reads, (*output, N, *kernel, C)."""
        shape, source = self.shape, self._source(tape)
        *steps, image, channel = source.strides
        return as_strided(
            source,
            (*shape.output, shape.batch, *shape.kernel, shape.channels),
            (
                *(step * stride for step, stride in zip(steps, shape.strides, strict=True)), image,
                *(step * apart for step, apart in zip(steps, shape.dilation, strict=True)), channel,
            ),
            writeable=False,
        )  # fmt: skip

    def _source(self, tape: Tape) -> np.ndarray:
        """Return x with its padding, (*input, N, C)."""
        (x,), shape = self.xs, self.shape
        source = x.bordered(shape.padding, shape.channels_last)
        if source is None:
            inside = x.map(shape.channels_last)
            spatial = [*zip(shape.input, shape.padding, strict=True)]
            source = np.zeros(
                (*(size + sum(pad) for size, pad in spatial), *inside.shape[-2:]), tape.compute
            )
            place = tuple(slice(pad[0], pad[0] + size) for size, pad in spatial)
            tape.call(np.copyto, source[place], inside)
        return source


class Columns(_Padded):
    """y = columns(x) @ w, of all pixels at once: (P*Q*N, R*S*C) @ (R*S*C, K)."""

    @classmethod
    def suits(cls, operation: Operation, xs: list[Value]) -> bool:
        shape = operation.geometry(xs[0].shape)
        columns = shape.batch * math.prod(shape.output) * shape.taps * shape.channels
        return shape.groups == 1 and shape.multiply_adds <= COLUMN_WORK and columns <= MOST_COLUMNS

    def _multiply(self, tape: Tape, windows: np.ndarray, out: np.ndarray) -> None:
        shape, first = self.shape, self.shape.rank + 1
        height, width = math.prod(windows.shape[:first]), math.prod(windows.shape[first:])
        run = shape.channels
        if shape.batch == 1 and shape.dilation[-1] == 1:
            run *= shape.kernel[-1]
        by_tap = run < SHORT
        if by_tap:  # (R, S, C, P, Q, N)
            windows = windows.transpose(*range(first, windows.ndim), *range(first))
        columns = windows
        if not windows.flags.c_contiguous:
            columns = tape.scratch("columns", windows.shape)
            tape.call(np.copyto, columns, windows)
        columns = columns.reshape(width, height).T if by_tap else columns.reshape(height, width)
        filters = np.ascontiguousarray(wide(self.operation.w).reshape(shape.filters, width).T)
        tape.multiply(columns, filters, out.reshape(height, shape.filters))


class Depthwise(_Padded):
    """A group for each channel: y = the sum over taps of x * w, with w repeated along a row.

    Without strides the pixels of a row are one run (see ``..convolution.depthwise``).
    """

    @classmethod
    def suits(cls, operation: Operation, xs: list[Value]) -> bool:
        shape = operation.geometry(xs[0].shape)
        return (
            shape.groups == shape.channels == shape.filters and shape.multiply_adds <= CHANNEL_WORK
        )

    def _multiply(self, tape: Tape, windows: np.ndarray, out: np.ndarray) -> None:
        shape, rank = self.shape, self.shape.rank
        outer = rank - 1 if shape.strides[-1] == 1 else rank
        taps = range(rank + 1, 2 * rank + 1)
        # (*output, N, *kernel, C) -> (*output[:outer], *kernel, run): the rest is one run
        windows = windows.transpose(*range(outer), *taps, *range(outer, rank + 1), 2 * rank + 1)
        windows = windows.reshape(*windows.shape[: outer + rank], -1)
        w = np.moveaxis(wide(self.operation.w)[..., 0], 0, -1)  # (C, *kernel) -> (*kernel, C)
        w = np.ascontiguousarray(np.tile(w, windows.shape[-1] // shape.channels))
        pixels, kernel = "abc"[:outer], "rst"[:rank]
        call = f"{pixels}{kernel}k,{kernel}k->{pixels}k"
        out = out.reshape(*out.shape[:outer], -1)
        tape.call(np.einsum, call, windows, w, out=out)


class Algorithmic(Way):
    """A convolution with much work, or in groups, by the algorithm of the backend's choice."""

    def made(self) -> Value:
        self.shape: ConvShape = self.operation.geometry(self.xs[0].shape)
        self.xs[0].read(self.shape.channels_last)
        return Value(self.shape.y_shape, self.shape.channels_last)

    def bind(self, tape: Tape) -> None:
        shape, operation = self.shape, self.operation
        x, y = (value.map(shape.channels_last) for value in (self.xs[0], self.y))
        source = x if x.flags.c_contiguous else tape.scratch("x", x.shape)
        target = y if y.flags.c_contiguous else tape.scratch("y", y.shape)
        if source is not x:
            tape.call(np.copyto, source, x)
        b = None if operation.b is None else wide(operation.b)
        last = Finish(shape.batch, b, operation.activation)
        algorithm = choose("fprop", shape, tape.compute, operation.layer.math)
        tape.call(settled(algorithm.fprop), source, wide(operation.w), target, shape, last)
        if target is not y:
            tape.call(np.copyto, y, target)


class Dense(Way):
    """y = x @ w^T of rows."""

    @classmethod
    def suits(cls, operation: Operation, xs: list[Value]) -> bool:
        return len(xs[0].shape) == 2

    def made(self) -> Value:
        return Value((self.xs[0].shape[0], len(self.operation.w)))

    def bind(self, tape: Tape) -> None:
        y, operation = self.y.seen, self.operation
        filters = np.ascontiguousarray(wide(operation.w).T)
        tape.multiply(self.xs[0].seen, filters, y)
        finish(tape, y, y, operation.b, operation.activation)
