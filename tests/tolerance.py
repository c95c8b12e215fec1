"""One tolerance for every comparison: a function of dtype and reduction length, per element.

An operation computes s, a sum of n terms (or a chain of n roundings), in its accumulator, and
rounds once to its dtype. With u the unit roundoff (half the machine epsilon),

    |s - exact|   <= growth(n) * u(accumulator) * magnitude    magnitude = sum of |terms|
    |round(s) - s| <= u(dtype) * |s|  (or half a subnormal, where s is that small)

The worst case of growth is n. Rounding errors are of both signs, so that for long sums it stays
under a small multiple of sqrt(n) (Higham and Mary, "A new approach to probabilistic rounding error
analysis", 2019): 4 sqrt(n) is seven standard deviations of errors spread evenly over +-u, even if
all terms are of one sign. That is tight enough to see a sum that was carried in float16, or
products taken in TF32, where float32 was promised.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np


def unit_roundoff(dtype: Any) -> float:
    """Half the distance from 1 to the next number.

    >>> unit_roundoff(np.float32) == 2.0**-24
    True
    """
    return float(ml_dtypes.finfo(dtype).eps) / 2


def growth(reduction: int) -> float:
    """How many roundings of n add up: all of a few, some square roots of many.

    >>> growth(9), growth(16), growth(100)
    (9.0, 16.0, 40.0)
    """
    return min(float(reduction), 4 * math.sqrt(reduction))


def allowed_error(
    expected: np.ndarray, dtype: Any, reduction: int = 1, magnitude: Any = None
) -> np.ndarray:
    """Return the largest error that each element of a result of ``dtype`` may have.

    ``reduction`` is the number of terms of each element's sum (roundings, for a formula), and
    ``magnitude`` the sum of their absolute values (the result's own where it is not given).
    """
    dtype = np.dtype(dtype)
    size = np.abs(expected)
    magnitude = size if magnitude is None else magnitude
    accumulator = np.float64 if dtype == np.float64 else np.float32
    summing = growth(reduction) * unit_roundoff(accumulator) * magnitude
    subnormal = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    return summing + unit_roundoff(dtype) * (size + summing) + subnormal / 2


def assert_sum(got: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Assert that ``got`` is a + b, where a may have been rounded to their dtype before or not."""
    dtype, a, b = a.dtype, a.astype(np.float64), b.astype(np.float64)
    allowed = allowed_error(a + b, dtype, 1, np.abs(a) + np.abs(b))
    if dtype.itemsize == 2:  # else a is as it was summed
        allowed = allowed + unit_roundoff(dtype) * np.abs(a)
    error = np.abs(got.astype(np.float64) - (a + b))
    assert got.dtype == dtype
    assert (error <= allowed).all(), f"off by {np.max(error / allowed)} times what is allowed"


def assert_close(
    actual: np.ndarray,
    expected: np.ndarray,
    *,
    dtype: Any = None,
    reduction: int = 1,
    magnitude: Any = None,
    what: str = "result",
) -> None:
    """Require that ``actual`` is ``expected`` (float64) up to rounding, in shape and dtype too.

    ``dtype`` is the one required of ``actual`` (that of ``expected`` if not given); integers must
    be equal. NaN and infinities must stand at the same places. ``reduction`` and ``magnitude`` are
    those of ``allowed_error``.
    """
    dtype = np.dtype(expected.dtype if dtype is None else dtype)
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {actual.shape}, expected {expected.shape}")
    if actual.dtype != dtype:
        raise AssertionError(f"{what}: dtype {actual.dtype}, expected {dtype}")
    if dtype.kind in "biu":
        _report(what, actual, expected, actual != expected, None)
        return
    got, expected = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    allowed = np.zeros(expected.shape)
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are compared apart
        allowed[...] = allowed_error(expected, dtype, reduction, magnitude)
        near = np.isfinite(got) & (np.abs(got - expected) <= allowed)
    same = np.where(np.isnan(expected), np.isnan(got), got == expected)
    _report(what, got, expected, ~np.where(finite, near, same), allowed)


def _report(
    what: str, got: np.ndarray, expected: np.ndarray, bad: np.ndarray, allowed: np.ndarray | None
) -> None:
    """Fail, naming the first and the worst wrong elements."""
    if not bad.any():
        return
    places = np.argwhere(bad)
    lines = [f"{what}: {len(places)} of {bad.size} elements differ"]
    for place in map(tuple, places[:5].tolist()):
        limit = "" if allowed is None else f" (allowed error {allowed[place]:.3g})"
        lines.append(f"  at {place}: {got[place]!s}, expected {expected[place]!s}{limit}")
    raise AssertionError("\n".join(lines))
