"""Dropout from Philox4x32-10, the counter-based generator of Salmon et al., SC'11.

A block of four 32-bit words is a keyed bijection of its counter: ten rounds of

    (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0,  lo(M1 c2),  hi(M0 c0) ^ c3 ^ k1,  lo(M0 c0))

between which the key rises by two Weyl constants. Nothing is carried from block to block: any
element's number is known from its place, the seed and the offset alone, on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..base import bend
from . import buffers
from .bits import packed, passed
from .blocks import BLOCK, blocks, flat, keep, share, wide

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1
_LOW = 0xFFFFFFFF
_ROUNDS = 10


def philox(counters: np.ndarray, offset: int, seed: int) -> np.ndarray:
    """Return the words (counters.size, 4) uint32 of counters (uint64) under ``offset``, ``seed``.

    The 128-bit counter is (counter low, counter high, offset low, offset high) and the key (seed
    low, seed high), each number taken modulo 2^64.

    Example:
        >>> [hex(word) for word in philox(np.zeros(1, np.uint64), 0, 0)[0].tolist()]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    low, shift = np.uint64(_LOW), np.uint64(32)
    m0, m1 = map(np.uint64, _MULTIPLIERS)
    c0, c1 = counters & low, counters >> shift
    c2 = np.full(counters.shape, offset & _LOW, np.uint64)
    c3 = np.full(counters.shape, offset >> 32 & _LOW, np.uint64)
    k0, k1 = seed & _LOW, seed >> 32 & _LOW
    for _ in range(_ROUNDS):
        c0 *= m0
        c2 *= m1
        c1 ^= c2 >> shift
        c1 ^= np.uint64(k0)
        c3 ^= c0 >> shift
        c3 ^= np.uint64(k1)
        c2 &= low
        c0 &= low
        c0, c1, c2, c3 = c1, c2, c3, c0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    words = np.empty((counters.size, 4), np.uint32)
    for word, value in enumerate((c0, c1, c2, c3)):
        words[:, word] = value
    return words


class Dropout:
    """``dropout`` and ``dropout_masked``."""

    def dropout(
        self, x: np.ndarray, rate: float, seed: int, offset: int | np.ndarray
    ) -> np.ndarray:
        y = buffers.empty_like(x)
        scale = 1 / (1 - float(rate))

        def fill(block: tuple[slice, ...], lives: np.ndarray) -> None:
            y[block] = keep(wide(x[block]) * scale, lives)

        _each_block(fill, x.shape, rate, seed, offset)
        return y

    def dropout_masked(
        self, x: np.ndarray, kind: str, alpha: float, rate: float, seed: int,
        offset: int | np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        y, passes = buffers.empty_like(x), buffers.empty_like(x, np.bool_)
        scale, (_, ceiling) = 1 / (1 - float(rate)), bend(kind, alpha)

        def fill(block: tuple[slice, ...], lives: np.ndarray) -> None:
            part = x[block]
            y[block] = keep(wide(part) * scale, lives)
            np.logical_and(passed(part, ceiling), lives, out=passes[block])

        _each_block(fill, x.shape, rate, seed, offset)
        return y, packed(*flat(passes, passes))


def _each_block(
    fill: Callable[[tuple[slice, ...], np.ndarray], object], shape: tuple[int, ...], rate: float,
    seed: int, offset: int | np.ndarray,
) -> None:  # fmt: skip
    """Call ``fill(block, lives)`` with each block of an array and which of its elements do."""
    threshold, offset = np.uint32(int(rate * 2**32)), int(offset)

    def draw(block: tuple[slice, ...]) -> None:
        # A block follows C order, in which its elements count from first on.
        first, extents = 0, [axis.stop - axis.start for axis in block]
        for axis, extent in zip(block, shape, strict=True):
            first = first * extent + axis.start
        size = math.prod(extents)
        counters = np.arange(first // 4, -(-(first + size) // 4), dtype=np.uint64)
        words = philox(counters, offset, seed).reshape(-1)[first % 4 :]
        fill(block, words[:size].reshape(extents) >= threshold)

    share(draw, list(blocks(shape, BLOCK)))
