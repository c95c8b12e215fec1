"""Dropout from Philox4x32-10, the counter-based generator of Salmon et al., SC'11.

A block of four 32-bit words is a keyed bijection of its counter: ten rounds of

    (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0,  lo(M1 c2),  hi(M0 c0) ^ c3 ^ k1,  lo(M0 c0))

between which the key rises by two Weyl constants. Nothing is carried from block to block: any
element's number is known from its place, the seed and the offset alone, on every device.
"""

from __future__ import annotations

import numpy as np

from . import buffers
from .blocks import BLOCK, blocks, keep, share, wide

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
    """``dropout``."""

    def dropout(
        self, x: np.ndarray, rate: float, seed: int, offset: int | np.ndarray
    ) -> np.ndarray:
        y, offset = buffers.empty_like(x), int(offset)
        threshold, scale = np.uint32(int(rate * 2**32)), 1 / (1 - float(rate))

        def fill(block: tuple[slice, ...]) -> None:
            part = wide(x[block])
            # A block follows C order, in which its elements count from first on.
            first = 0
            for axis, extent in zip(block, x.shape, strict=True):
                first = first * extent + axis.start
            counters = np.arange(first // 4, -(-(first + part.size) // 4), dtype=np.uint64)
            words = philox(counters, offset, seed).reshape(-1)[first % 4 :]
            kept = words[: part.size].reshape(part.shape) >= threshold
            y[block] = keep(part * scale, kept)

        share(fill, list(blocks(x.shape, BLOCK)))
        return y
