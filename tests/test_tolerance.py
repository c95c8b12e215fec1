"""The tolerance passes what rounds as it should and sees what does not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import DTYPES, random
from tests.tolerance import assert_close

TERMS = 600


def dot(x: np.ndarray, w: np.ndarray, accumulator: type) -> np.ndarray:
    """Sum the products of two rows one after the other, in the given dtype."""
    total = np.zeros(len(x), accumulator)
    for i in range(TERMS):
        total += x[:, i].astype(accumulator) * w[:, i].astype(accumulator)
    return total


def problem(dtype: object, low: float = -1.0) -> tuple[np.ndarray, ...]:
    x, w = (random(name, (200, TERMS), dtype, low) for name in "xw")
    return x, w, dot(x, w, np.float64), dot(np.abs(x), np.abs(w), np.float64)


@pytest.mark.parametrize("low", [-1.0, 0.5], ids=["mixed signs", "one sign"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_sum_in_float32_passes(dtype, low):
    x, w, exact, magnitude = problem(DTYPES[dtype], low)
    got = dot(x, w, np.float32).astype(DTYPES[dtype])
    assert_close(got, exact, dtype=DTYPES[dtype], reduction=TERMS, magnitude=magnitude)


@pytest.mark.parametrize("low", [-1.0, 0.5], ids=["mixed signs", "one sign"])
def test_a_sum_in_float16_is_seen(low):
    x, w, exact, magnitude = problem(np.float16, low)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(
            dot(x, w, np.float16), exact, dtype=np.float16, reduction=TERMS, magnitude=magnitude
        )


def test_products_of_tf32_are_seen():
    x, w, exact, magnitude = problem(np.float32)
    x, w = ((a.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) for a in (x, w))
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(
            dot(x, w, np.float32), exact, dtype=np.float32, reduction=TERMS, magnitude=magnitude
        )


def test_a_sum_in_float32_is_seen_where_float64_is_due():
    x, w, exact, magnitude = problem(np.float64)
    got = dot(x, w, np.float32).astype(np.float64)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(got, exact, reduction=TERMS, magnitude=magnitude)


def test_one_wrong_element_is_named():
    expected = random("x", (3, 4), np.float32)
    got = expected.copy()
    got[1, 2] += 1e-6
    with pytest.raises(AssertionError, match=r"1 of 12 elements differ\n  at \(1, 2\)"):
        assert_close(got, expected)


@pytest.mark.parametrize(
    ("got", "expected"),
    [(np.nan, 1), (1, np.nan), (np.inf, 1), (1, np.inf), (-np.inf, np.inf), (np.inf, np.nan)],
)
def test_nan_and_infinity_never_pass(got, expected):
    with pytest.raises(AssertionError, match="1 of 2 elements differ"):
        assert_close(np.array([0.0, got]), np.array([0.0, expected]), magnitude=np.inf)
    assert_close(np.array([expected]), np.array([expected]))


def test_shape_and_dtype_come_first():
    zeros = np.zeros((2, 3))
    with pytest.raises(AssertionError, match=r"shape \(3, 2\), expected \(2, 3\)"):
        assert_close(np.zeros((3, 2)), zeros)
    with pytest.raises(AssertionError, match="dtype float32, expected float64"):
        assert_close(zeros.astype(np.float32), zeros)
    with pytest.raises(AssertionError, match="dtype int64, expected uint8"):
        assert_close(zeros.astype(np.int64), zeros, dtype=np.uint8)


def test_integers_are_equal_or_not():
    assert_close(np.array([1, 2]), np.array([1, 2]), magnitude=1e9)
    with pytest.raises(AssertionError, match="1 of 2 elements differ"):
        assert_close(np.array([1, 2]), np.array([1, 3]), magnitude=1e9)
