"""How far a result is from float64, in one number, and from where on it is wrong."""

from __future__ import annotations

import math
from typing import Any

# Above this a result is wrong, not imprecise: far over the rounding of the format (TF32 shows in
# what should be strict float32), far under that of a lost term.
LIMITS = {
    "float32 strict": 5e-4,
    "float32 tf32": 1e-2,
    "float32 fp32x3": 5e-4,
    "bfloat16 mixed": 5e-2,
    "float16 mixed": 1.5e-2,
    "float64 strict": 1e-11,
}


def number_format(dtype: str) -> str:
    """Return the format that a dtype has where no other arithmetic was asked for.

    >>> number_format("float32"), number_format("bfloat16")
    ('float32 strict', 'bfloat16 mixed')
    """
    return f"{dtype} {'mixed' if dtype in ('float16', 'bfloat16') else 'strict'}"


def relative_error(result: Any, expected: Any) -> float:
    """Return the largest deviation, each over its expected number or the root mean square of all.

    The larger of the two counts: one wrong element among many shows, elements near 0 are not held
    to their own size, and large ones, as a softmax's gradient has among small ones, to no
    more. NaN, or another shape, gives infinity. Both are arrays, or tensors, of float64.

    >>> import numpy as np
    >>> relative_error(np.array([3.0, 5.0]), np.array([3.0, 4.0]))
    0.25
    >>> relative_error(np.array([1.0, 10.0]), np.array([0.0, 10.0])) == 1 / 50**0.5
    True
    >>> relative_error(np.array([np.nan]), np.ones(1)), relative_error(np.ones(2), np.ones(3))
    (inf, inf)
    """
    if tuple(result.shape) != tuple(expected.shape):
        return math.inf
    scale = math.sqrt(float((expected * expected).mean()))
    if scale == 0:
        return math.inf if bool((result != 0).any()) else 0.0
    worst = float((abs(result - expected) / abs(expected).clip(scale)).max())
    return worst if math.isfinite(worst) else math.inf
