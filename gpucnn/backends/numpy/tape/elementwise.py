"""Arithmetic on a tape, number by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .activation import FORMULAS
from .values import Value, repeated, runs
from .way import Way

if TYPE_CHECKING:
    from ....network.program import Operation
    from .tape import Tape


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


# Those that NumPy has as one function of the same name.
_FUNCTIONS = ("add", "divide", "maximum", "minimum", "multiply", "subtract")


class Arithmetic(Way):
    """y = f(x, x, ...), or of x and an operand of the layer's own; sizes of 1 are stretched."""

    @classmethod
    def suits(cls, operation: Operation, xs: list[Value]) -> bool:
        return operation.layer.function in _FUNCTIONS

    def made(self) -> Value:
        shape = self.output_shape()
        like = next((x for x in self.xs if x.shape == shape), self.xs[0])
        return Value(shape, like.channels_last)

    def bind(self, tape: Tape) -> None:
        function, y = getattr(np, self.operation.layer.function), self.y.seen
        terms = [x.seen for x in self.xs]
        if self.operation.w is not None:
            terms.append(self.operation.w.astype(tape.compute))
            terms = terms[::-1] if self.operation.layer.reverse else terms
        for second in terms[1:]:
            tape.call(function, terms[0], second, out=y)
            terms[0] = y
        target = self.y.map(self.y.channels_last)
        finish(tape, target, target, None, self.operation.activation)


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
    if activation != "linear":
        FORMULAS[activation](tape, source, target)
