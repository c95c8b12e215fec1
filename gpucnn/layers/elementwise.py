"""Layers of arithmetic on each number: functions of it, and operations with an own operand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..arguments import as_choice, as_number, as_shape
from ..backends.base import Array
from ..functional.elementwise import BINARY, UNARY
from ..initializers import Initializer, check_initializer
from .base import Layer, Shape, sample_text


class Elementwise(Layer):
    """A function of each number by its name, such as "sqrt"; ``functional.elementwise_forward``.

    Activations with names of their own (``Sigmoid``, ``GELU``) are layers of their own.

    Example:
        >>> Elementwise("sqrt").forward(np.array([[4.0, 9.0]]))
        array([[2., 3.]])
    """

    arguments = ("function",)

    def __init__(self, function: str, **common: Any) -> None:
        super().__init__(**common)
        self.function = as_choice(self.label, "function", function, tuple(UNARY))

    def _forward(self, x: Array, training: bool) -> Array:
        y = F.elementwise_forward(x, self.function, owner=self.label)
        self._save(x, y)
        return y

    def _backward(self, dy: Array, x: Array, y: Array) -> Array:
        return F.elementwise_backward(dy, x, y, self.function, owner=self.label)


class Clip(Layer):
    """min(max(x, low), high); None leaves that side open. PyTorch's Hardtanh.

    Example:
        >>> Clip(-1, 1).forward(np.array([[-3.0, 0.5]]))
        array([[-1. ,  0.5]])
    """

    arguments = ("low", "high")

    def __init__(self, low: float | None = None, high: float | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.low = None if low is None else as_number(self.label, "low", low, above=-float("inf"))
        self.high = (
            None if high is None else as_number(self.label, "high", high, above=-float("inf"))
        )

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x)
        return F.clip_forward(x, self.low, self.high, owner=self.label)

    def _backward(self, dy: Array, x: Array) -> Array:
        return F.clip_backward(dy, x, self.low, self.high, owner=self.label)


class Shrink(Layer):
    """0 for numbers in [-threshold, threshold], the others nearer to 0 by ``bias``.

    PyTorch's Hardshrink, and with ``bias=threshold`` its Softshrink. With ``positive`` all negative
    numbers are 0, too: PyTorch's Threshold, ONNX's ThresholdedRelu.

    Example:
        >>> Shrink(1, bias=1).forward(np.array([[-3.0, 0.5, 2.0]]))
        array([[-2.,  0.,  1.]])
    """

    arguments = ("threshold", "bias", "positive")

    def __init__(
        self, threshold: float = 0.5, *, bias: float = 0.0, positive: bool = False, **common: Any
    ) -> None:
        super().__init__(**common)
        self.threshold = as_number(self.label, "threshold", threshold, above=-float("inf"))
        self.bias = as_number(self.label, "bias", bias, above=-float("inf"))
        self.positive = bool(positive)

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x)
        return F.shrink_forward(x, self.threshold, self.bias, self.positive, owner=self.label)

    def _backward(self, dy: Array, x: Array) -> Array:
        return F.shrink_backward(dy, x, self.threshold, self.positive, owner=self.label)


class Constant(Layer):
    """An array of its own for each sample, whatever the input: a learned token or position.

    Args:
        shape: the array's.
        learned: whether it is a parameter; otherwise it is a constant, kept in ``state``.
        operand_initializer: a name, or a function (shape, generator) -> array.

    Parameter, or state: "operand", of ``shape``. The gradient of the input is 0.

    Example:
        >>> Constant((2,)).forward(np.array([[7.0], [8.0]]))
        array([[1., 1.],
               [1., 1.]])
    """

    arguments = ("shape", "learned", "operand_initializer")
    keeps_input = False

    def __init__(
        self, shape: Sequence[int], *, learned: bool = True,
        operand_initializer: Initializer = "ones", **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(**common)
        self.shape = as_shape(self.label, "shape", shape)
        self.learned = bool(learned)
        self.operand_initializer = check_initializer(
            self.label, "operand_initializer", operand_initializer
        )

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.shape

    def _build(self, input_shape: Shape) -> None:
        add = self._add if self.learned else self._add_state
        add("operand", self.shape, self.operand_initializer)

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x.shape)
        operand = self.params["operand"] if self.learned else self.state["operand"]
        y = self.backend.xp.empty((x.shape[0], *self.shape), x.dtype)
        y[...] = operand
        return y

    def _backward(self, dy: Array, x_shape: Shape) -> Array:
        if self.learned:
            self.grads["operand"] = F.reduce_forward(dy, "sum", [0], owner=self.label)
        return self.backend.xp.zeros(x_shape, dy.dtype)


class Arithmetic(Layer):
    """function(x, operand) with an array of its own, the same for all samples.

    So Arithmetic("add", (4, 1, 1)) is a bias of four channels that lie first, and
    Arithmetic("multiply", ()) a learned scale.

    Args:
        function: "add", "subtract", "multiply", "divide", "power", "maximum" or "minimum".
        shape: the operand's, which broadcasts against a sample as in NumPy.
        reverse: function(operand, x) instead.
        learned: whether the operand is a parameter; otherwise it is a constant, kept in ``state``.
        operand_initializer: a name, or a function (shape, generator) -> array.

    Parameter, or state: "operand", of ``shape``.

    Example:
        >>> Arithmetic("subtract", (), reverse=True, operand_initializer="ones").forward(
        ...     np.array([[0.25, 1.0]])
        ... )
        array([[0.75, 0.  ]])
    """

    arguments = ("function", "shape", "reverse", "learned", "operand_initializer")

    def __init__(
        self,
        function: str,
        shape: Sequence[int],
        *,
        reverse: bool = False,
        learned: bool = True,
        operand_initializer: Initializer = "ones",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.function = as_choice(self.label, "function", function, tuple(BINARY))
        self.shape = as_shape(self.label, "shape", shape)
        self.reverse, self.learned = bool(reverse), bool(learned)
        self.operand_initializer = check_initializer(
            self.label, "operand_initializer", operand_initializer
        )

    def output_shape(self, input_shape: Shape) -> Shape:
        front = len(input_shape) - len(self.shape)
        pairs = list(zip(input_shape[max(front, 0) :], self.shape, strict=False))
        if front < 0 or any(own not in (1, size) and size != 1 for size, own in pairs):
            raise ValueError(
                f"{self.label}: a sample must broadcast against an operand of shape {self.shape}."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        return (*input_shape[:front], *(own if size == 1 else size for size, own in pairs))

    def _build(self, input_shape: Shape) -> None:
        add = self._add if self.learned else self._add_state
        add("operand", self.shape, self.operand_initializer)

    def _operand(self, x: Array) -> Array:
        if self.learned:
            return self.params["operand"]
        return self.state["operand"].astype(x.dtype, copy=False)

    def _forward(self, x: Array, training: bool) -> Array:
        pair = (x, self._operand(x))
        self._save(x)
        return F.arithmetic_forward(*pair[:: self._step], self.function, owner=self.label)

    def _backward(self, dy: Array, x: Array) -> Array:
        pair = (x, self._operand(x))[:: self._step]
        gradients = F.arithmetic_backward(dy, *pair, self.function, owner=self.label)
        dx, doperand = gradients[:: self._step]
        if self.learned:
            self.grads["operand"] = doperand
        return dx

    @property
    def _step(self) -> int:
        return -1 if self.reverse else 1
