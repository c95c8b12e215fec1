"""What a way to compute an operation on a tape is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .values import Value

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

    def output_shape(self) -> tuple[int, ...]:
        """Return the shape of y, as the operation's layer says it."""
        layer, shapes = self.operation.layer, tuple(x.shape[1:] for x in self.xs)
        return self.xs[0].shape[0], *layer.output_shape(shapes if layer.takes_many else shapes[0])

    def bind(self, tape: Tape) -> None:
        raise NotImplementedError
