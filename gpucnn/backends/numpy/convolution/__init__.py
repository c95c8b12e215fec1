"""The algorithms for convolution, one a file, and the choice among them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ....shapes import ConvShape
from .base import Algorithm, Finish
from .depthwise import Depthwise
from .few_channels import FewChannels
from .pointwise import Pointwise
from .taps import Taps
from .winograd import Winograd

__all__ = ["ALGORITHMS", "Algorithm", "Finish", "choose"]

# The more special ones first; the last one takes every shape.
ALGORITHMS: tuple[Algorithm, ...] = (
    Depthwise(), Pointwise(), Winograd(4), FewChannels(), Taps(),
)  # fmt: skip


@lru_cache(maxsize=4096)
def choose(direction: str, shape: ConvShape, dtype: np.dtype) -> Algorithm:
    """Return the algorithm for "fprop", "dgrad" or "wgrad" of this shape, in float32 or float64.

    >>> shape = ConvShape.of((32, 28, 28, 64), (64, 3, 3, 64), padding=1)
    >>> choose("fprop", shape, np.dtype(np.float32)).name
    'winograd4'
    """
    return next(each for each in ALGORITHMS if each.suits(direction, shape, dtype))
