"""Dropout: the same elements fall on every backend."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests import reference
from tests.cases import DTYPES, random
from tests.tolerance import assert_close


def ones_and_more(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """No element is 0, so that a 0 in the result is one that fell."""
    return random("x", shape, dtype, 0.5, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (2, 1026), (4099,)])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.875])
def test_the_reference_says_which_fall(run, rate, shape, dtype):
    x = ones_and_more(shape, DTYPES[dtype])
    expected = reference.dropout(x, rate, 1234, 7)
    got = run("dropout", x, rate, 1234, 7)
    assert np.array_equal(got != 0, expected != 0)
    assert_close(got, expected, dtype=x.dtype, reduction=2)


@cache
def many() -> tuple[np.ndarray, np.ndarray]:
    x = ones_and_more((70001,), np.float32)
    return x, reference.dropout(x, 0.3, 5, 6)


def test_many_elements(run):
    x, expected = many()
    assert_close(run("dropout", x, 0.3, 5, 6), expected, dtype=x.dtype, reduction=2)


@pytest.mark.parametrize(
    ("seed", "offset"),
    [(0, 0), (1, 0), (0, 1), (2**32 - 1, 2**32 + 5), (2**63 + 11, 2**63 + 1), (2**64 - 1, 2**40)],
)
def test_seeds_and_offsets_of_64_bits(run, seed, offset):
    x = ones_and_more((133,), np.float32)
    got = run("dropout", x, 0.5, seed, offset)
    assert_close(got, reference.dropout(x, 0.5, seed, offset), dtype=x.dtype)
    other = run("dropout", x, 0.5, seed ^ 2**33, offset)
    assert not np.array_equal(got, other)


def test_seeds_and_offsets_wrap_at_64_bits(run):
    x = ones_and_more((133,), np.float32)
    wrapped = run("dropout", x, 0.5, 2**64 + 7, 2**65 + 3)
    assert_close(wrapped, reference.dropout(x, 0.5, 7, 3), dtype=x.dtype)


def test_a_rate_of_nothing_and_of_almost_everything(run):
    x = ones_and_more((1000,), np.float32)
    assert_close(run("dropout", x, 0.0, 5, 0), x)
    rate = 1 - 2.0**-10
    assert_close(run("dropout", x, rate, 5, 0), reference.dropout(x, rate, 5, 0), dtype=x.dtype)


def test_the_threshold_is_exact(run):
    """At a rate of word / 2^32 the element of that word lives, at (word + 1) / 2^32 it falls."""
    x = np.ones(4, np.float64)
    word = reference.philox4x32([0, 0, 3, 0], [9, 0])[2]
    assert run("dropout", x, word / 2**32, 9, 3)[2] != 0
    assert run("dropout", x, (word + 1) / 2**32, 9, 3)[2] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_and_nan_fall_too(run, dtype):
    x = np.array([np.inf, np.nan, -np.inf, 1] * 9, np.float64).astype(DTYPES[dtype])
    assert_close(run("dropout", x, 0.5, 3, 1), reference.dropout(x, 0.5, 3, 1), dtype=x.dtype)


def test_nothing_falls_out_of_nothing(run):
    empty = np.zeros((0, 3), np.float16)
    assert_close(run("dropout", empty, 0.5, 1, 2), empty)
