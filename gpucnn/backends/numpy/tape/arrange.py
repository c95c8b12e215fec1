"""Operations that move numbers and compute none, and those that a tape leaves to their layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .values import Value
from .way import Way

if TYPE_CHECKING:
    from ....network.program import Operation
    from .tape import Tape


class Concatenate(Way):
    """y = all x behind each other along an axis."""

    def made(self) -> Value:
        return Value(self.output_shape(), self.xs[0].channels_last)

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
        return Value(self.output_shape())

    def bind(self, tape: Tape) -> None:
        tape.call(np.copyto, self.y.seen.reshape(self.xs[0].shape), self.xs[0].seen)


class Whole(Way):
    """Whatever the operation is, by its layer."""

    def made(self) -> Value:
        dtype = self.operation.layer.output_dtype
        return Value(self.output_shape(), self.xs[0].channels_last, dtype)

    def bind(self, tape: Tape) -> None:
        wide = np.dtype(np.float32)  # logits in a network of fewer bits
        dtypes = [wide if x.dtype == wide.name else tape.dtype for x in self.xs]
        tape.call(self._run, [x.seen for x in self.xs], self.y.seen, dtypes)

    def _run(self, xs: Sequence[np.ndarray], y: np.ndarray, dtypes: Sequence[np.dtype]) -> None:
        given = (x.astype(dtype, copy=False) for x, dtype in zip(xs, dtypes, strict=True))
        np.copyto(y, self.operation.run(*given), casting="unsafe")
