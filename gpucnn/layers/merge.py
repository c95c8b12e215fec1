"""Layers that take many inputs and give one: sums, products, maxima, Concatenate, MatMul."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from .. import functional as F
from ..arguments import as_axis
from ..backends import backend_of
from ..backends.base import Array
from ..functional.checks import expect_shape
from ..functional.elementwise import summed_to
from .base import Layer, Shape, sample_text


class Merge(Layer):
    """A layer whose forward takes a list of arrays and whose backward returns one gradient each."""

    takes_many = True

    def _check(self, x: Sequence[Array]) -> list[Array]:
        if not isinstance(x, (list, tuple)) or len(x) < 2:
            raise ValueError(
                f"{self.label}: expects a list of two inputs or more. Received: {type(x).__name__}"
            )
        x = [self._own(array) for array in x]
        named = {f"input {index}": array for index, array in enumerate(x)}
        backend = backend_of(self.label, **named)
        dtypes = {name: array.dtype.name for name, array in named.items()}
        if len(set(dtypes.values())) > 1:
            raise TypeError(f"{self.label}: all inputs must be of one dtype. Received: {dtypes}")
        shapes = tuple(tuple(array.shape[1:]) for array in x)
        if len({array.shape[0] for array in x}) > 1:
            raise ValueError(
                f"{self.label}: all inputs must hold as many samples."
                f" Received: shapes {[array.shape for array in x]}"
            )
        self.output_shape(shapes)
        if not self.built:
            self.build(shapes, x[0].dtype, backend)
        self._backend = backend
        return x

    def _misfit(self, what: str, input_shape: Sequence[Shape]) -> ValueError:
        shapes = ", ".join(map(sample_text, input_shape))
        return ValueError(f"{self.label}: {what}. Received: inputs of shapes {shapes}")


class Broadcast(Merge):
    """A merging layer whose inputs' sizes of 1 are stretched to the others'."""

    function: str

    def output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        same_rank = len({len(shape) for shape in input_shape}) == 1
        sizes = [set(axis) - {1} for axis in zip(*input_shape, strict=False)]
        if not same_rank or any(len(size) > 1 for size in sizes):
            raise self._misfit("all inputs must be of one shape, but for sizes of 1", input_shape)
        return tuple(size.pop() if size else 1 for size in sizes)

    def _forward(self, x: list[Array], training: bool) -> Array:
        """Go from the left, and keep the two inputs of each step."""
        steps, y = [], x[0]
        for other in x[1:]:
            steps.append((y, other))
            y = F.arithmetic_forward(y, other, self.function, owner=self.label)
        self._save(steps)
        return y

    def _backward(self, dy: Array, steps: list[tuple[Array, Array]]) -> list[Array]:
        gradients = []
        for step in reversed(steps):
            dy, other = F.arithmetic_backward(dy, *step, self.function, owner=self.label)
            gradients.append(other)
        return [dy, *reversed(gradients)]


class Add(Broadcast):
    """The sum of its inputs; sizes of 1 are stretched to the others'.

    Example:
        >>> Add().forward([np.ones((1, 2)), np.ones((1, 2))])
        array([[2., 2.]])
    """

    function = "add"
    keeps_input = False

    def _forward(self, x: list[Array], training: bool) -> Array:
        y = x[0]
        for array in x[1:]:
            y = F.arithmetic_forward(y, array, "add", owner=self.label)
        self._save([array.shape for array in x], y.shape)
        return y

    def _backward(self, dy: Array, shapes: list[Shape], shape: Shape) -> list[Array]:
        expect_shape(self.label, shape, dy=dy)
        return [summed_to(x_shape, dy) for x_shape in shapes]


class Subtract(Broadcast):
    """The first input less the others; sizes of 1 are stretched."""

    function = "subtract"


class Multiply(Broadcast):
    """The product of its inputs; sizes of 1 are stretched to the others'.

    So (N, 1, 1, C) scales the channels of (N, H, W, C), as in squeeze-and-excitation (Hu et al.
    2018).

    Example:
        >>> Multiply().output_shape([(8, 8, 3), (1, 1, 3)])
        (8, 8, 3)
    """

    function = "multiply"


class Divide(Broadcast):
    """The first input over the others; sizes of 1 are stretched."""

    function = "divide"


class Power(Broadcast):
    """The first input to the power of the second; sizes of 1 are stretched.

    The gradient of the exponent is 0 where the base is not positive.
    """

    function = "power"


class Maximum(Broadcast):
    """The largest of its inputs, place by place; of equal ones the first takes the gradient."""

    function = "maximum"


class Minimum(Broadcast):
    """The smallest of its inputs, place by place; of equal ones the first takes the gradient."""

    function = "minimum"


class Average(Add):
    """The mean of its inputs; sizes of 1 are stretched to the others'."""

    def _forward(self, x: list[Array], training: bool) -> Array:
        return super()._forward(x, training) / len(x)

    def _backward(self, dy: Array, shapes: list[Shape], shape: Shape) -> list[Array]:
        return super()._backward(dy / len(shapes), shapes, shape)


class MatMul(Merge):
    """The matrix product of two inputs over their last two axes, the others broadcast.

    Example:
        >>> MatMul().output_shape([(4, 7, 5), (4, 5, 3)])
        (4, 7, 3)
    """

    def output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        a, b = input_shape[0], input_shape[-1]
        front = list(zip(a[:-2], b[:-2], strict=False))
        if (
            len(input_shape) != 2
            or min(len(a), len(b)) < 2
            or len(a) != len(b)
            or a[-1] != b[-2]
            or any(m != n and 1 not in (m, n) for m, n in front)
        ):
            raise self._misfit("two inputs (batch, ..., M, K) and (batch, ..., K, N)", input_shape)
        return (*map(max, a[:-2], b[:-2]), a[-2], b[-1])

    def _forward(self, x: list[Array], training: bool) -> Array:
        self._save(x)
        return F.matmul_forward(*x, owner=self.label)

    def _backward(self, dy: Array, x: list[Array]) -> list[Array]:
        return list(F.matmul_backward(dy, *x, owner=self.label))


class Concatenate(Merge):
    """Its inputs behind each other along ``axis``, which counts the batch axis (0).

    Example:
        >>> Concatenate().output_shape([(8, 8, 3), (8, 8, 5)])
        (8, 8, 8)
    """

    arguments = ("axis",)
    keeps_input = False

    def __init__(self, axis: int = -1, **common: Any) -> None:
        super().__init__(**common)
        self.axis = as_axis(self.label, axis)

    def output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        first = tuple(input_shape[0])
        place = self.axis - 1 if self.axis > 0 else self.axis + len(first)
        if not 0 <= place < len(first):
            raise self._misfit(f"the inputs have no axis {self.axis}", input_shape)
        others = {(*shape[:place], *shape[place + 1 :]) for shape in input_shape}
        if len(others) > 1 or len({len(shape) for shape in input_shape}) > 1:
            raise self._misfit(
                f"all inputs must be of one shape but for axis {self.axis}", input_shape
            )
        joined = sum(shape[place] for shape in input_shape)
        return (*first[:place], joined, *first[place + 1 :])

    def _forward(self, x: list[Array], training: bool) -> Array:
        sizes = [array.shape[self.axis] for array in x]
        shape = (len(x[0]), *self.output_shape([array.shape[1:] for array in x]))
        y = self.backend.xp.empty(shape, x[0].dtype)
        # CuPy's concatenate sends a table of many arrays from the host, which no graph can replay.
        for part, array in zip(self._parts(y, sizes), x, strict=True):
            part[...] = array
        self._save(sizes, shape)
        return y

    def _backward(self, dy: Array, sizes: list[int], shape: Shape) -> list[Array]:
        expect_shape(self.label, shape, dy=dy)
        return [self.backend.arranged(part) for part in self._parts(dy, sizes)]

    def _parts(self, array: Array, sizes: list[int]) -> list[Array]:
        """Return views of these sizes, behind each other along the axis."""
        before = (slice(None),) * (self.axis % array.ndim)
        ends = accumulate(sizes)
        return [array[(*before, slice(end - n, end))] for n, end in zip(sizes, ends, strict=True)]
