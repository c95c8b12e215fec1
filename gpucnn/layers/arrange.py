"""Layers that pick, repeat and pad the numbers of a sample: Pad, Slice, Take, Tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..arguments import as_axis, as_choice, as_shape, integers
from ..backends.base import Array
from ..functional.arrange import PAD_MODES, check_padding
from ..functional.checks import expect_shape
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
    keeps_input = False

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
    keeps_input, passes_input = False, True

    def __init__(self, slices: Sequence[Sequence[int | None]], **common: Any) -> None:
        super().__init__(**common)
        if not isinstance(slices, (list, tuple)) or not slices or not all(map(_is_cut, slices)):
            raise ValueError(
                f"{self.label}: slices must hold a (start, stop, step) triple for each axis of a"
                f" sample, with no step of 0. Received: slices={slices!r}"
            )
        self.slices = tuple(map(tuple, slices))

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
    keeps_input = False

    def __init__(self, places: Sequence[int], axis: int = -1, **common: Any) -> None:
        super().__init__(**common)
        self.places = as_shape(self.label, "places", places)
        self.axis = as_axis(self.label, axis)

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
    keeps_input = False

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


def _is_cut(item: Any) -> bool:
    """Return whether this is a (start, stop, step) triple of integers or None, with a step."""
    if not isinstance(item, (list, tuple)) or len(item) != 3 or item[2] == 0:
        return False
    return integers([n for n in item if n is not None]) is not None
