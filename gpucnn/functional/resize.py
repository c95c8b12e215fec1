"""Maps of another size: nearest, linear and cubic interpolation, each axis by itself.

Along an axis y = M x, where a row of the matrix M holds the weights of one output. Its transpose
carries the gradient back, so that what several outputs read is summed by a matrix product, in a
fixed order. Nearest neighbours are taken without a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..arguments import as_choice
from ..backends import backend_of
from ..backends.base import Array, accumulator
from .arrange import take_backward, take_forward
from .checks import expect_shape

INTERPOLATIONS = ("nearest", "linear", "cubic")
COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
)  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Interpolation:
    """How an axis is resized, in the words of ONNX's Resize.

    Attributes:
        kind: "nearest", "linear" or "cubic".
        coordinates: where output p reads: "half_pixel", (p + 0.5) / scale - 0.5, as Keras and
            PyTorch; "half_pixel_symmetric", the same with the middle kept where scale * size is no
            integer; "pytorch_half_pixel", the same but 0 for a single output; "align_corners",
            the first and the last pixels coincide; "asymmetric", p / scale.
        rounding: of "nearest": "round_prefer_floor", "round_prefer_ceil", "floor" or "ceil".
        cubic_a: the kernel's free coefficient (Keys 1981): -0.75 as PyTorch, -0.5 as Keras.
        exclude_outside: leave out what lies beyond the edge instead of repeating the edge.
        antialias: stretch the kernel where the map shrinks, so that every input counts.
    """

    kind: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False

    def check(self, owner: str) -> None:
        """Raise a ValueError where a word is none of those above."""
        as_choice(owner, "interpolation", self.kind, INTERPOLATIONS)
        as_choice(owner, "coordinates", self.coordinates, COORDINATES)
        as_choice(owner, "rounding", self.rounding, ROUNDINGS)

    def sources(self, size: int, output: int, scale: float) -> np.ndarray:
        """Return the coordinate in the input that each output reads, (output,) in float64."""
        p = np.arange(output, dtype=np.float64)
        if self.coordinates == "asymmetric":
            return p / scale
        whole = scale * size  # the output's size before it was rounded
        if self.coordinates == "align_corners":
            return p * (size - 1) / (whole - 1) if output > 1 else np.zeros(1)
        if self.coordinates == "pytorch_half_pixel" and output == 1:
            return np.zeros(1)
        if self.coordinates == "half_pixel_symmetric":
            return size / 2 * (1 - output / whole) + (p + 0.5) / scale - 0.5
        return (p + 0.5) / scale - 0.5

    def places(self, size: int, output: int, scale: float) -> tuple[int, ...]:
        """Return the input that each output of "nearest" copies."""
        x = self.sources(size, output, scale)
        rounded = {
            "round_prefer_floor": np.ceil(x - 0.5),
            "round_prefer_ceil": np.floor(x + 0.5),
            "floor": np.floor(x),
            "ceil": np.ceil(x),
        }[self.rounding]
        return tuple(np.clip(rounded, 0, size - 1).astype(int).tolist())

    def matrix(
        self, size: int, output: int, scale: float, sources: np.ndarray | None = None
    ) -> np.ndarray:
        """Return M (output, size) in float64."""
        x = self.sources(size, output, scale) if sources is None else sources
        shrink = min(scale, 1.0) if self.antialias else 1.0
        kernel, reach = (_triangle, 1) if self.kind == "linear" else (self._cubic, 2)
        span = int(np.ceil(reach / shrink))
        taps = np.floor(x).astype(int)[:, None] + np.arange(1 - span, span + 1)  # (output, taps)
        weights = kernel((taps - x[:, None]) * shrink)
        if self.exclude_outside:
            inside = np.where((taps >= 0) & (taps < size), weights, 0)
            # a size may ask for more than its scale reaches: what reads no pixel has the edge
            weights = np.where(inside.any(axis=1, keepdims=True), inside, weights)
        weights = weights / weights.sum(axis=1, keepdims=True)
        matrix = np.zeros((output, size))
        rows = np.broadcast_to(np.arange(output)[:, None], taps.shape)
        np.add.at(matrix, (rows, np.clip(taps, 0, size - 1)), weights)
        return matrix

    def _cubic(self, d: np.ndarray) -> np.ndarray:
        a, d = self.cubic_a, np.abs(d)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = a * (((d - 5) * d + 8) * d - 4)
        return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _triangle(d: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(d), 0)


# What is resized: the axis, its new size, and the scale (None: the new size over the old).
Axes = Sequence[tuple[int, int, float | None]]


def resize_forward(x: Array, axes: Axes, how: Interpolation, *, owner: str = "resize") -> Array:
    """Return x with other sizes along some axes.

    Args:
        x: any shape, floating; of any dtype for "nearest".
        axes: (axis, new size, scale) for each axis to resize; with a scale of None, the new size
            over the old one.
        how: the interpolation.

    Raises:
        ValueError: ``how`` holds an unknown word.

    Source: the ONNX operator Resize; Keys 1981, "Cubic convolution interpolation for digital image
    processing".

    Example:
        >>> resize_forward(np.array([[1.0, 3.0]]), [(1, 4, None)], Interpolation("linear"))
        array([[1. , 1.5, 2.5, 3. ]])
    """
    backend_of(owner, x=x)
    how.check(owner)
    for axis, output, scale in axes:
        size = x.shape[axis]
        scale = output / size if scale is None else scale
        if how.kind == "nearest":
            places = how.places(size, output, scale)
            if places != tuple(range(size)):
                x = take_forward(x, places, axis, owner=owner)
        elif (output, scale) != (size, 1):
            x = along_axis(x, _matrix(how, size, output, scale), axis, owner=owner)
    return x


def resize_backward(
    dy: Array, x_shape: Sequence[int], axes: Axes, how: Interpolation, *, owner: str = "resize"
) -> Array:
    """Return dx (x_shape) for the gradient dy of ``resize_forward``'s output."""
    how.check(owner)
    shape = list(x_shape)
    shapes = []
    for axis, output, _ in axes:
        shapes.append(tuple(shape))
        shape[axis] = output
    expect_shape(owner, shape, dy=dy)
    for (axis, output, scale), shape in reversed(list(zip(axes, shapes, strict=True))):
        size = shape[axis]
        scale = output / size if scale is None else scale
        if how.kind == "nearest":
            places = how.places(size, output, scale)
            if places != tuple(range(size)):
                dy = take_backward(dy, places, shape, axis, owner=owner)
        elif (output, scale) != (size, 1):
            dy = along_axis(dy, _matrix(how, size, output, scale).T, axis, owner=owner)
    return dy


def along_axis(x: Array, matrix: np.ndarray, axis: int, *, owner: str = "along_axis") -> Array:
    """Return y[..., p, ...] = sum over h of matrix[p, h] x[..., h, ...] along ``axis``.

    Args:
        x: any shape, floating; 16-bit sums are carried in float32.
        matrix: (outputs, inputs), on the host.

    Example:
        >>> along_axis(np.array([[1.0, 3.0]]), np.array([[0.5, 0.5]]), 1)
        array([[2.]])
    """
    backend = backend_of(owner, x=x)
    xp, wide = backend.xp, accumulator(x.dtype)
    weights = backend.asarray(np.ascontiguousarray(matrix.T), wide)
    y = xp.moveaxis(x.astype(wide, copy=False), axis, -1) @ weights  # (..., H) @ (H, P)
    return xp.ascontiguousarray(xp.moveaxis(y, -1, axis)).astype(x.dtype, copy=False)


@lru_cache(maxsize=256)
def _matrix(how: Interpolation, size: int, output: int, scale: float) -> np.ndarray:
    return how.matrix(size, output, scale)
