"""Operations that take a map number by number, and those that a tape leaves to their layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .values import Value, repeated, runs

if TYPE_CHECKING:
    from ....network.program import Operation
    from .tape import Tape


class Way:
    """One operation on its values: ``y`` says what it makes, ``bind`` puts its calls on a tape."""

    def __init__(self, operation: Operation, xs: list[Value]) -> None:
        self.operation, self.xs = operation, xs
        self.y = self.made()

    @classmethod
    def suits(cls, operation: Operation, xs: list[Value]) -> bool:
        """Return whether the operation can run this way."""
        return True

    def made(self) -> Value:
        """Tell the values that are read how, and return the one that is made."""
        return Value(self.xs[0].shape, self.xs[0].channels_last)

    def bind(self, tape: Tape) -> None:
        raise NotImplementedError


class Scale(Way):
    """y = x * w + b, channel by channel."""

    @classmethod
    def suits(cls, operation: Operation, xs: list[Value]) -> bool:
        return xs[0].channels_last in (None, operation.layer.axis == -1) or len(xs[0].shape) == 2

    def made(self) -> Value:
        self.xs[0].read(self.operation.layer.axis == -1, self.xs[0].border)
        return super().made()

    def bind(self, tape: Tape) -> None:
        last = self.y.channels_last
        x, y = runs(self.xs[0].map(last), self.y.map(last))
        tape.call(np.multiply, x, repeated(self.operation.w, x), out=y)
        finish(tape, y, y, self.operation.b, self.operation.activation)


class Sum(Way):
    """y = the sum of all x, of one shape."""

    @classmethod
    def suits(cls, operation: Operation, xs: list[Value]) -> bool:
        return len({x.shape for x in xs}) == 1

    def bind(self, tape: Tape) -> None:
        last = self.y.channels_last
        y, first, *more = (value.map(last) for value in (self.y, *self.xs))
        for x in more:
            tape.call(np.add, first, x, out=y)
            first = y
        finish(tape, y, y, None, self.operation.activation)


class Reshape(Way):
    """Each sample becomes one row, in the order in which layers see it."""

    @classmethod
    def suits(cls, operation: Operation, xs: list[Value]) -> bool:
        return len(operation.layer.output_shape(xs[0].shape[1:])) == 1

    def made(self) -> Value:
        shape = self.xs[0].shape
        return Value((shape[0], *self.operation.layer.output_shape(shape[1:])))

    def bind(self, tape: Tape) -> None:
        tape.call(np.copyto, self.y.seen.reshape(self.xs[0].shape), self.xs[0].seen)


class Whole(Way):
    """Whatever the operation is, by its layer."""

    def made(self) -> Value:
        batch, *shapes = self.xs[0].shape[0], *(value.shape[1:] for value in self.xs)
        layer = self.operation.layer
        shape = layer.output_shape(tuple(shapes) if layer.takes_many else shapes[0])
        return Value((batch, *shape), self.xs[0].channels_last)

    def bind(self, tape: Tape) -> None:
        tape.call(self._run, [value.seen for value in self.xs], self.y.seen, tape.dtype)

    def _run(self, xs: Sequence[np.ndarray], y: np.ndarray, dtype: Any) -> None:
        given = (x.astype(dtype, copy=False) for x in xs)
        np.copyto(y, self.operation.run(*given), casting="unsafe")


def finish(
    tape: Tape, source: np.ndarray, target: np.ndarray, bias: np.ndarray | None, activation: str
) -> None:
    """Put on a tape: target (..., C) = activation(source + bias), source to be overwritten."""
    if bias is None and activation == "linear":
        if source is not target:
            tape.call(np.copyto, target, source)
        return
    source, target = runs(source, target)
    if bias is not None:
        sums = target if activation == "linear" else source
        tape.call(np.add, source, repeated(bias, source), out=sums)
    if activation == "relu":  # NumPy compares with an array many times as quickly as with a number
        tape.call(np.maximum, source, np.zeros(source.shape[-1], source.dtype), out=target)
    elif activation == "relu6":
        tape.call(np.clip, source, *source.dtype.type([0, 6]), out=target)
