"""Layers that reduce axes of a sample: sums, maxima, norms; and the place of a maximum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..arguments import as_choice, integers
from ..backends.base import Array
from ..functional.reduce import MODES
from .base import Layer, Shape, sample_text


class Reduce(Layer):
    """One number for each line, plane or block along some axes of a sample.

    Args:
        mode: "sum", "mean", "max", "min", "prod", "l1", "l2", "log_sum", "log_sum_exp" or
            "sum_square"; see ``functional.reduce_forward``.
        axes: counted with the batch axis (0), which cannot be among them, or from behind.
        keepdims: leave axes of size 1 in their place.

    Example:
        >>> Reduce("mean", (1, 2)).output_shape((8, 8, 3))
        (3,)
    """

    arguments = ("mode", "axes", "keepdims")

    def __init__(
        self, mode: str, axes: int | Sequence[int], *, keepdims: bool = False, **common: Any
    ) -> None:
        super().__init__(**common)
        self.mode = as_choice(self.label, "mode", mode, MODES)
        self.axes = _axes(self, axes)
        self.keepdims = bool(keepdims)

    def output_shape(self, input_shape: Shape) -> Shape:
        return _reduced(self, input_shape, self.axes, self.keepdims)

    def _forward(self, x: Array, training: bool) -> Array:
        options = {"keepdims": self.keepdims, "owner": self.label}
        y = F.reduce_forward(x, self.mode, self.axes, **options)
        self._save(x, y)
        return y

    def _backward(self, dy: Array, x: Array, y: Array) -> Array:
        return F.reduce_backward(dy, x, y, self.mode, self.axes, owner=self.label)


class ArgMax(Layer):
    """The place of the largest number along ``axis``, of equal ones the first; int64.

    It has no gradient: a network ends here, or is trained without it.

    Example:
        >>> ArgMax().forward(np.array([[0.1, 0.7, 0.2]]))
        array([1])
    """

    arguments = ("axis", "keepdims")
    output_dtype = "int64"
    keeps_input = False

    def __init__(self, axis: int = -1, *, keepdims: bool = False, **common: Any) -> None:
        super().__init__(**common)
        (self.axis,) = _axes(self, [axis])
        self.keepdims = bool(keepdims)

    def output_shape(self, input_shape: Shape) -> Shape:
        return _reduced(self, input_shape, (self.axis,), self.keepdims)

    def _forward(self, x: Array, training: bool) -> Array:
        y = self.backend.xp.argmax(x, axis=self.axis)
        return self.backend.xp.expand_dims(y, self.axis) if self.keepdims else y

    def backward(self, dy: Array) -> Array:
        raise RuntimeError(f"{self.label}: the place of a maximum has no gradient. Received: dy")


def _axes(layer: Layer, axes: Any) -> tuple[int, ...]:
    places = integers([axes]) or integers(axes)
    if not places or 0 in places or len(set(places)) < len(places):
        raise ValueError(
            f"{layer.label}: axes must be different integers other than 0, the batch."
            f" Received: axes={axes!r}"
        )
    return places


def _reduced(layer: Layer, shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    rank = len(shape) + 1
    places = {axis % rank for axis in axes if -rank < axis < rank}
    if len(places) < len(axes) or 0 in places:
        raise ValueError(
            f"{layer.label}: the input has no axes {tuple(axes)} behind the batch."
            f" Received: input of shape {sample_text(shape)}"
        )
    left = ((1 if place in places else size, place) for place, size in enumerate(shape, 1))
    return tuple(size for size, place in left if keepdims or place not in places)
