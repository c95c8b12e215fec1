"""Maps of another size by interpolation, as a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..arguments import as_shape, as_tuple
from ..backends.base import Array
from ..functional.resize import Interpolation
from .base import Layer, Shape, sample_text


class Resize(Layer):
    """A map of another size by interpolation, its channels apart; Keras's UpSampling and Resizing.

    Args:
        size: of the output, an int or one for each axis; or None, where ``scale`` says it.
        scale: the output's size over the input's, rounded down; a number or one for each axis.
        interpolation: "nearest", "linear" or "cubic".
        coordinates, rounding, cubic_a, exclude_outside, antialias: see
            ``functional.resize.Interpolation``.
        axes: which axes are resized, counted with the batch axis: (1, 2) are the rows and columns
            of a picture with its channels last, (2, 3) with its channels first.

    Example:
        >>> Resize(scale=2, interpolation="linear").output_shape((7, 7, 16))
        (14, 14, 16)
    """

    arguments = (
        "size", "scale", "interpolation", "coordinates", "rounding", "cubic_a", "exclude_outside",
        "antialias", "axes",
    )  # fmt: skip
    keeps_input = False

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        *,
        scale: float | Sequence[float] | None = None,
        interpolation: str = "nearest",
        coordinates: str = "half_pixel",
        rounding: str = "round_prefer_floor",
        cubic_a: float = -0.75,
        exclude_outside: bool = False,
        antialias: bool = False,
        axes: Sequence[int] = (1, 2),
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.axes = as_shape(self.label, "axes", axes, minimum=1)
        rank = len(self.axes)
        self.size = None if size is None else as_tuple(self.label, "size", size, rank)
        scales = scale if isinstance(scale, (list, tuple)) or scale is None else (scale,) * rank
        self.scale = None if scales is None else tuple(map(float, scales))
        if (size is None and scale is None) or (
            self.scale is not None and (len(self.scale) != rank or min(self.scale) <= 0)
        ):
            raise ValueError(
                f"{self.label}: size, or scale of {rank} positive numbers, must be given."
                f" Received: size={size!r}, scale={scale!r}"
            )
        self.interpolation, self.coordinates, self.rounding = interpolation, coordinates, rounding
        self.cubic_a = float(cubic_a)
        self.exclude_outside, self.antialias = bool(exclude_outside), bool(antialias)
        self.how = Interpolation(
            interpolation, coordinates, rounding, self.cubic_a, self.exclude_outside, self.antialias
        )
        self.how.check(self.label)

    def output_shape(self, input_shape: Shape) -> Shape:
        if max(self.axes) > len(input_shape):
            raise ValueError(
                f"{self.label}: the input has no axes {self.axes}."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        output = list(input_shape)
        for axis, size, scale in self._axes(input_shape):
            if not size:
                raise ValueError(
                    f"{self.label}: a scale of {scale} leaves nothing of axis {axis}."
                    f" Received: input of shape {sample_text(input_shape)}"
                )
            output[axis - 1] = size
        return tuple(output)

    def _axes(self, input_shape: Shape) -> list[tuple[int, int, float | None]]:
        """Return (axis, new size, scale) for each axis that is resized."""
        scales = self.scale or (None,) * len(self.axes)
        sizes = self.size or [
            math.floor(input_shape[axis - 1] * scale)
            for axis, scale in zip(self.axes, scales, strict=True)
        ]
        return list(zip(self.axes, sizes, scales, strict=True))

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x.shape)
        return F.resize_forward(x, self._axes(x.shape[1:]), self.how, owner=self.label)

    def _backward(self, dy: Array, x_shape: Shape) -> Array:
        axes = self._axes(x_shape[1:])
        return F.resize_backward(dy, x_shape, axes, self.how, owner=self.label)
