"""Layers that pick, repeat and pad the numbers of a sample: Pad, Slice, Take, Tile, Resize."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..arguments import as_choice, as_shape, as_tuple, integers
from ..backends.base import Array
from ..functional.arrange import PAD_MODES, check_padding
from ..functional.checks import expect_shape
from ..functional.resize import Interpolation
from .base import Layer, Shape, sample_text


class Pad(Layer):
    """Put numbers before and behind each axis of a sample, or take some away.

    Args:
        padding: a (before, after) pair for each axis of a sample, its channels too; a negative
            number crops.
        mode: "constant", "edge", "reflect" or "wrap"; see ``functional.pad_forward``.
        value: what "constant" puts there.

    Example:
        >>> Pad([(1, 1), (2, 2), (0, 0)], "reflect").output_shape((8, 8, 3))
        (10, 12, 3)
    """

    arguments = ("padding", "mode", "value")

    def __init__(
        self, padding: Sequence[Sequence[int]], mode: str = "constant", value: float = 0.0,
        **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(**common)
        pairs = [integers(pair) for pair in padding] if isinstance(padding, (list, tuple)) else None
        if pairs is None or any(pair is None or len(pair) != 2 for pair in pairs):
            raise ValueError(
                f"{self.label}: padding must hold a (before, after) pair for each axis of a sample."
                f" Received: padding={padding!r}"
            )
        self.padding = tuple(pairs)
        self.mode = as_choice(self.label, "mode", mode, PAD_MODES)
        self.value = float(value)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != len(self.padding):
            raise ValueError(
                f"{self.label}: expects a sample of {len(self.padding)} axes."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        check_padding(self.label, input_shape, self.padding, self.mode)
        return tuple(n + sum(pair) for n, pair in zip(input_shape, self.padding, strict=True))

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x.shape)
        return F.pad_forward(x, self._pairs, self.mode, self.value, owner=self.label)

    def _backward(self, dy: Array, x_shape: Shape) -> Array:
        return F.pad_backward(dy, x_shape, self._pairs, self.mode, owner=self.label)

    @property
    def _pairs(self) -> tuple[tuple[int, int], ...]:
        return ((0, 0), *self.padding)


class Slice(Layer):
    """Every step-th number from start to stop along each axis of a sample, as NumPy's slices.

    Args:
        slices: a (start, stop, step) triple for each axis of a sample, None where open.

    Example:
        >>> Slice([(None, None, -1), (0, None, 2)]).forward(np.array([[[1.0, 2.0], [3.0, 4.0]]]))
        array([[[3.],
                [1.]]])
    """

    arguments = ("slices",)

    def __init__(self, slices: Sequence[Sequence[int | None]], **common: Any) -> None:
        super().__init__(**common)
        listed = slices if isinstance(slices, (list, tuple)) else ()
        for item in listed:
            if not (
                isinstance(item, (list, tuple))
                and len(item) == 3
                and integers([n for n in item if n is not None]) is not None
                and item[2] != 0
            ):
                listed = ()
                break
        if not listed:
            raise ValueError(
                f"{self.label}: slices must hold a (start, stop, step) triple for each axis of a"
                f" sample, with no step of 0. Received: slices={slices!r}"
            )
        self.slices = tuple(tuple(item) for item in listed)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != len(self.slices):
            raise ValueError(
                f"{self.label}: expects a sample of {len(self.slices)} axes."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        axes = zip(input_shape, self.slices, strict=True)
        return tuple(len(range(*slice(*item).indices(size))) for size, item in axes)

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x.shape)
        return self.backend.arranged(x[self._whole])

    def _backward(self, dy: Array, x_shape: Shape) -> Array:
        return F.slice_backward(dy, x_shape, self._whole, owner=self.label)

    @property
    def _whole(self) -> tuple[slice, ...]:
        return (slice(None), *(slice(*item) for item in self.slices))


class Take(Layer):
    """The numbers at some places of an axis, in any order, some perhaps twice.

    Args:
        places: not negative.
        axis: counts the batch axis (0), which it cannot be.

    Example:
        >>> Take([2, 0, 2]).forward(np.array([[1.0, 2.0, 3.0]]))
        array([[3., 1., 3.]])
    """

    arguments = ("places", "axis")

    def __init__(self, places: Sequence[int], axis: int = -1, **common: Any) -> None:
        super().__init__(**common)
        self.places = as_shape(self.label, "places", places)
        if integers([axis]) in (None, (0,)):
            raise ValueError(
                f"{self.label}: axis must be an integer other than 0, the batch."
                f" Received: axis={axis!r}"
            )
        self.axis = int(axis)

    def output_shape(self, input_shape: Shape) -> Shape:
        place = self.axis - 1 if self.axis > 0 else self.axis + len(input_shape)
        if not 0 <= place < len(input_shape) or max(self.places, default=0) >= input_shape[place]:
            raise ValueError(
                f"{self.label}: the input has no axis {self.axis} with the places {self.places}."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        return (*input_shape[:place], len(self.places), *input_shape[place + 1 :])

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x.shape)
        return F.take_forward(x, self.places, self.axis, owner=self.label)

    def _backward(self, dy: Array, x_shape: Shape) -> Array:
        return F.take_backward(dy, self.places, x_shape, self.axis, owner=self.label)


class Tile(Layer):
    """Each axis of a sample behind itself, so many times.

    Example:
        >>> Tile((2, 1)).forward(np.array([[[1.0, 2.0]]]))
        array([[[1., 2.],
                [1., 2.]]])
    """

    arguments = ("repeats",)

    def __init__(self, repeats: Sequence[int], **common: Any) -> None:
        super().__init__(**common)
        self.repeats = as_shape(self.label, "repeats", repeats, minimum=1)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != len(self.repeats):
            raise ValueError(
                f"{self.label}: expects a sample of {len(self.repeats)} axes."
                f" Received: input of shape {sample_text(input_shape)}"
            )
        return tuple(n * times for n, times in zip(input_shape, self.repeats, strict=True))

    def _forward(self, x: Array, training: bool) -> Array:
        self._save(x.shape)
        return self.backend.xp.tile(x, (1, *self.repeats))

    def _backward(self, dy: Array, x_shape: Shape) -> Array:
        expect_shape(self.label, (x_shape[0], *self.output_shape(x_shape[1:])), dy=dy)
        pairs = zip(self.repeats, x_shape[1:], strict=True)
        apart = dy.reshape(x_shape[0], *(n for pair in pairs for n in pair))
        return F.reduce_forward(apart, "sum", range(1, apart.ndim, 2), owner=self.label)


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
        for axis, size, _ in self._axes(input_shape):
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
