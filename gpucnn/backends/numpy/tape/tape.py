"""A frozen network as a list of NumPy calls, bound to arrays that were allocated beforehand.

With one image a convolution's arithmetic takes ten microseconds, and to find the algorithm, check
the arguments and allocate the result takes thirty. A tape does all that once. What is left of a
layer is a handful of calls like ``np.matmul(columns, filters, out)``; to run the network is to run
down the list.

One thread does it all: to wake another one takes as long as a product of this size. The BLAS may be
given more, which spin for work and so begin at once. How they cut a product up can change the order
of its sums. So each is tried, and those whose bits would change are left to one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...base import accumulator
from ..settings import quick
from ..threads import at_most, blas_threads, one_blas_thread
from .activation import Activate
from .arrange import Concatenate, Reshape, Whole
from .conv import Algorithmic, Columns, Dense, Depthwise
from .elementwise import Arithmetic, Scale
from .pool import WindowPool
from .values import Value

if TYPE_CHECKING:
    from ....network.program import Program


class Tape:
    """A program bound to the shapes of its inputs: arrays in, arrays out.

    Not for two threads at a time: its memory is its own.
    """

    def __init__(
        self, program: Program, shapes: Sequence[Sequence[int]], dtype: Any, threads: int = 1
    ) -> None:
        self.dtype, self.compute = np.dtype(dtype), accumulator(dtype)
        self.calls: list[Callable[[], Any]] = []
        self.scratches: dict[str, np.ndarray] = {}
        values = {number: Value(shape) for number, shape in enumerate(shapes)}
        self.inputs = list(values.values())
        self.ways = ways = []
        for operation in program.operations:
            xs = [values[source] for source in operation.sources]
            way = next(kind for kind in _WAYS[operation.kind] if kind.suits(operation, xs))
            ways.append(way(operation, xs))
            values[operation.result] = ways[-1].y
            ways[-1].y.inherit(xs)
        for value in values.values():
            value.allocate(self.compute)
        # where threads of ours compute, those of the BLAS would be in their way
        ours = any(isinstance(way, Algorithmic) for way in ways)
        self.blas_threads = 1 if ours else threads
        for way in ways:
            way.bind(self)
        self.outputs = [values[output] for output in program.outputs]

    def __call__(self, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
        with at_most(self.blas_threads), quick():
            for value, x in zip(self.inputs, xs, strict=True):
                np.copyto(value.seen, x)
            for call in self.calls:
                call()
        return [value.seen.astype(value.dtype or self.dtype, order="C") for value in self.outputs]

    def __str__(self) -> str:
        """List the calls, the shape of an array in its place."""
        return "\n".join(map(_written, self.calls))

    def call(self, function: Callable, *arguments: Any, **keywords: Any) -> None:
        """Put a call on the tape."""
        self.calls.append(partial(function, *arguments, **keywords))

    def multiply(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """Put a matrix product on the tape."""
        if self.blas_threads == 1 or _has_the_same_bits(a, b, out, self.blas_threads):
            self.call(np.matmul, a, b, out=out)
        else:
            self.call(_multiply_alone, a, b, out)

    def scratch(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """Return memory that an operation fills and that nobody reads after it."""
        size = int(np.prod(shape))
        if name not in self.scratches or self.scratches[name].size < size:
            self.scratches[name] = np.empty(size, self.compute)
        return self.scratches[name][:size].reshape(shape)


# What computes each kind of operation: the first that suits.
_WAYS = {
    "conv": (Columns, Depthwise, Algorithmic),
    "dense": (Dense, Whole),
    "scale": (Scale, Whole),
    "sum": (Arithmetic,),
    "arithmetic": (Arithmetic, Whole),
    "activation": (Activate, Whole),
    "concatenate": (Concatenate,),
    "pool": (WindowPool, Whole),
    "reshape": (Reshape, Whole),
    "layer": (Whole,),
}


def _written(call: partial) -> str:
    """Write a call down: ``matmul((784, 25), (25, 6), out=(784, 6))``."""

    def shown(value: Any) -> str:
        return str(value.shape) if isinstance(value, np.ndarray) and value.ndim else str(value)

    arguments = [shown(value) for value in call.args]
    arguments += [f"{name}={shown(value)}" for name, value in call.keywords.items()]
    return f"{call.func.__name__}({', '.join(arguments)})"


def _has_the_same_bits(a: np.ndarray, b: np.ndarray, out: np.ndarray, threads: int) -> bool:
    """Return whether so many threads of the BLAS give the bits of one, by trial."""
    a = np.empty_like(a)  # what will be there
    a[...] = np.random.default_rng(0).standard_normal(a.shape)
    alone, shared = np.empty_like(out), np.empty_like(out)
    _multiply_alone(a, b, alone)
    with at_most(threads):
        np.matmul(a, b, out=shared)
        # another thread of the process may hold the BLAS to fewer for the time being
        return blas_threads() == threads and bool((alone == shared).all())


def _multiply_alone(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    with one_blas_thread():
        np.matmul(a, b, out=out)
