"""What the records of shapes are made of: the twin of kernels/{divisor,spatial}.cuh."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

AXES = 3  # spatial axes of a record, whatever the rank

# struct Divisor of kernels/divisor.cuh
DIVISOR = np.dtype([("value", "u4"), ("multiplier", "u4"), ("shift", "u4")])


def divisor(value: int) -> tuple[int, int, int]:
    """Return struct Divisor of kernels/divisor.cuh: (value, multiplier, shift).

    For n < 2^31, (umulhi(n, multiplier) + n) >> shift == n // value (Granlund & Montgomery 1994).
    """
    shift = (value - 1).bit_length()
    return value, (2**32 * (2**shift - value)) // value + 1, shift


def check_sizes(owner: str, *limits: tuple[str, int, int]) -> None:
    """Raise a ValueError unless each (name, size, bits) is below 2^bits, as kernels count."""
    for name, size, bits in limits:
        if size >= 2**bits:
            raise ValueError(f"{owner}: {name} must be below 2^{bits}. Received: {size}")


def padded_sizes(sizes: Iterable[int], padding: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Return the size of each axis with its padding."""
    return tuple(size + sum(pair) for size, pair in zip(sizes, padding, strict=True))


def per_axis(values: Iterable[int], neutral: int = 1) -> tuple[int, ...]:
    """Return a value for each axis of a record; the leading ones that are missing are neutral.

    >>> per_axis((28, 32))
    (1, 28, 32)
    """
    values = tuple(values)
    return (neutral,) * (AXES - len(values)) + values
