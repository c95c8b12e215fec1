"""Layers that move numbers and compute none: Flatten, Reshape, Permute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..arguments import integers
from ..backends.base import Array
from ..functional.checks import expect_shape
from .base import Layer, Shape, sample_text


class Reshape(Layer):
    """Give each sample another shape; one size may be -1 and follows from the others.

    Example:
        >>> Reshape((8, 8, 1)).output_shape((64,))
        (8, 8, 1)
    """

    arguments: tuple[str, ...] = ("target_shape",)
    keeps_input, passes_input = False, True

    def __init__(self, target_shape: Sequence[int], **common: Any) -> None:
        super().__init__(**common)
        sizes = integers(target_shape)
        if sizes is None or sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
            raise ValueError(
                f"{self.label}: target_shape must hold positive sizes, and -1 at most once."
                f" Received: target_shape={target_shape!r}"
            )
        self.target_shape = sizes

    def output_shape(self, input_shape: Shape) -> Shape:
        size, known = math.prod(input_shape), math.prod(abs(n) for n in self.target_shape)
        if size % known or (-1 not in self.target_shape and size != known):
            raise ValueError(
                f"{self.label}: the {size} numbers of a sample do not fit into {self.target_shape}."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        return tuple(size // known if n == -1 else n for n in self.target_shape)

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x.shape)
        return x.reshape(x.shape[0], *self.output_shape(x.shape[1:]))

    def _backward(self, dy: Array, x_shape: Shape) -> Array:
        expect_shape(self.label, (x_shape[0], *self.output_shape(x_shape[1:])), dy=dy)
        return dy.reshape(x_shape)


class Flatten(Reshape):
    """Make each sample one row, (N, H, W, C) -> (N, H * W * C), in the order of memory."""

    arguments = ()

    def __init__(self, **common: Any) -> None:
        super().__init__((-1,), **common)


class Permute(Layer):
    """Reorder each sample's axes; ``dims`` counts them from 1, as in Keras.

    Example:
        >>> Permute((3, 1, 2)).output_shape((28, 28, 3))  # channels last -> channels first
        (3, 28, 28)
    """

    arguments = ("dims",)
    keeps_input, passes_input = False, True

    def __init__(self, dims: Sequence[int], **common: Any) -> None:
        super().__init__(**common)
        places = integers(dims)
        if places is None or sorted(places) != list(range(1, len(places) + 1)):
            last = "the number of axes" if places is None else len(places)
            raise ValueError(
                f"{self.label}: dims must hold each of 1 ... {last} once. Received: dims={dims!r}"
            )
        self.dims = places

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != len(self.dims):
            raise ValueError(
                f"{self.label}: expects a sample of {len(self.dims)} axes."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        return tuple(input_shape[dim - 1] for dim in self.dims)

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x.shape)
        return self._permuted(x, self.dims)

    def _backward(self, dy: Array, x_shape: Shape) -> Array:
        expect_shape(self.label, (x_shape[0], *self.output_shape(x_shape[1:])), dy=dy)
        return self._permuted(dy, tuple(self.dims.index(dim) + 1 for dim in sorted(self.dims)))

    def _permuted(self, x: Array, dims: Shape) -> Array:
        places = tuple(range(1, len(dims) + 1))
        if dims == (places[-1], *places[:-1]):
            return F.channels_first(x, owner=self.label)
        if dims == (*places[1:], 1):
            return F.channels_last(x, owner=self.label)
        return self.backend.arranged(x.transpose(0, *dims))
