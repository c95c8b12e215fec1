"""What a convolution does to its input on the way from memory (kernels/norm_on_load.cuh)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from ..base import Array, NormOnLoad, accumulator

# Between which an activation of ``NORM_FUSED`` keeps its output.
BOUNDS = {"linear": (-inf, inf), "relu": (0.0, inf), "relu6": (0.0, 6.0)}


@dataclass(frozen=True)
class Normed:
    """An array that is to be read through a norm: what ``run`` of a plan that can gets for x."""

    array: Array
    norm: NormOnLoad


def read_as(source: Array | Normed) -> tuple[Array, tuple[Any, ...]]:
    """Return the array that is read, and how as its kernels' parameters: none for a plain one."""
    if not isinstance(source, Normed):
        return source, ()
    *arrays, epsilon, activation = source.norm
    numbers = map(accumulator(source.array.dtype).type, (epsilon, *BOUNDS[activation]))
    return source.array, (*arrays, *numbers)
