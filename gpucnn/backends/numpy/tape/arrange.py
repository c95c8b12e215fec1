"""Operations that move numbers and compute none, and those that a tape leaves to their layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .values import Value
from .way import Way

if TYPE_CHECKING:
    from ....network.program import Operation
    from .tape import Tape


class Concatenate(Way):
    """y = all x behind each other along an axis."""

    def made(self) -> Value:
        shape = self.operation.layer.output_shape(tuple(x.shape[1:] for x in self.xs))
        return Value((self.xs[0].shape[0], *shape), self.xs[0].channels_last)

    def bind(self, tape: Tape) -> None:
        y = np.moveaxis(self.y.seen, self.operation.layer.axis, 0)
        start = 0
        for x in (np.moveaxis(x.seen, self.operation.layer.axis, 0) for x in self.xs):
            tape.call(np.copyto, y[start : start + len(x)], x)
            start += len(x)


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
        return Value((batch, *shape), self.xs[0].channels_last, layer.output_dtype)

    def bind(self, tape: Tape) -> None:
        tape.call(self._run, [value.seen for value in self.xs], self.y.seen, tape.dtype)

    def _run(self, xs: Sequence[np.ndarray], y: np.ndarray, dtype: Any) -> None:
        given = (x.astype(dtype, copy=False) for x in xs)
        np.copyto(y, self.operation.run(*given), casting="unsafe")
