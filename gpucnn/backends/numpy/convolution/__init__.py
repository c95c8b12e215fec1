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

# By how exactly they are to compute; the more special ones first, the last takes every shape.
_SPECIAL, _GENERAL = (Depthwise(), Pointwise()), (FewChannels(), Taps())
_STRICT = (*_SPECIAL, Winograd(4), Winograd(2), *_GENERAL)
ALGORITHMS: dict[str, tuple[Algorithm, ...]] = {
    "strict": _STRICT,
    "exact": (*_SPECIAL, *_GENERAL),  # F(2x2, 3x3) is as exact, but not where many inputs are 0
    "tf32": _STRICT,
    "fp32x3": _STRICT,
}


@lru_cache(maxsize=4096)
def choose(direction: str, shape: ConvShape, dtype: np.dtype, math: str = "strict") -> Algorithm:
    """Return the algorithm for "fprop", "dgrad" or "wgrad" of this shape, in float32 or float64.

    >>> shape = ConvShape.of((32, 28, 28, 64), (64, 3, 3, 64), padding=1)
    >>> choose("fprop", shape, np.dtype(np.float32)).name
    'winograd4'
    >>> choose("fprop", shape, np.dtype(np.float32), "exact").name
    'taps'
    """
    return next(each for each in ALGORITHMS[math] if each.suits(direction, shape, dtype))
