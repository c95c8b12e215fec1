"""Activations on a tape, by calls in place; the formulas are those of ``..activation``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .values import Value, runs
from .way import Way

if TYPE_CHECKING:
    from ....network.program import Operation
    from .tape import Tape


class Activate(Way):
    """y = f(x)."""

    @classmethod
    def suits(cls, operation: Operation, xs: list[Value]) -> bool:
        return operation.layer.kind in FORMULAS

    def bind(self, tape: Tape) -> None:
        last = self.y.channels_last
        x, y = runs(self.xs[0].map(last), self.y.map(last))
        FORMULAS[self.operation.layer.kind](tape, x, y)


def _row(x: np.ndarray, number: float) -> np.ndarray:
    """Return a number for each of the last axis: NumPy is slow to compare with a single one."""
    return np.full(x.shape[-1], number, x.dtype)


def _sixth(tape: Tape, x: np.ndarray, y: np.ndarray) -> None:
    """y = min(max(x + 3, 0), 6) / 6"""
    tape.call(np.add, x, x.dtype.type(3), out=y)
    tape.call(np.clip, y, *x.dtype.type([0, 6]), out=y)
    tape.call(np.divide, y, x.dtype.type(6), out=y)


def _hard_silu(tape: Tape, x: np.ndarray, y: np.ndarray) -> None:
    gate = tape.scratch("gate", x.shape)
    _sixth(tape, x, gate)
    tape.call(np.maximum, x, _row(x, -3), out=y)  # -infinity times 0 would be NaN
    tape.call(np.multiply, y, gate, out=y)


def _one_and_exp(tape: Tape, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y = x, raised to where exp(-x) is finite; return 1 + exp(-y)."""
    tape.call(np.maximum, x, _row(x, -708 if x.dtype == np.float64 else -87), out=y)
    total = tape.scratch("gate", x.shape)
    tape.call(np.negative, y, out=total)
    tape.call(np.exp, total, out=total)
    tape.call(np.add, total, x.dtype.type(1), out=total)
    return total


def _sigmoid(tape: Tape, x: np.ndarray, y: np.ndarray) -> None:
    tape.call(np.reciprocal, _one_and_exp(tape, x, y), out=y)


def _silu(tape: Tape, x: np.ndarray, y: np.ndarray) -> None:
    tape.call(np.divide, y, _one_and_exp(tape, x, y), out=y)


FORMULAS: dict[str, Callable[[Tape, np.ndarray, np.ndarray], None]] = {
    "linear": lambda tape, x, y: tape.call(np.copyto, y, x),
    "relu": lambda tape, x, y: tape.call(np.maximum, x, _row(x, 0), out=y),
    "relu6": lambda tape, x, y: tape.call(np.clip, x, *x.dtype.type([0, 6]), out=y),
    "hard_sigmoid": _sixth,
    "hard_silu": _hard_silu,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "tanh": lambda tape, x, y: tape.call(np.tanh, x, out=y),
}
