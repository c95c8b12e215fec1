"""Bugs in what takes each number of a map by itself, or moves it."""

from __future__ import annotations

from functools import partial

import numpy as np

from gpucnn.backends.cuda import CudaBackend
from tests import reference
from tests.cases import random as draw
from tests.planted_bugs.common import Bug, assert_close, random
from tests.tolerance import assert_close as close


def change_layout(backend: CudaBackend) -> None:
    for size in ((1, 67, 40), (2, 40, 67)):
        x = random("x", size)
        assert_close(backend.change_layout(x), x.transpose(0, 2, 1))


def pictures(backend: CudaBackend) -> None:
    for size in ((2, 3, 524), (2, 524, 3)):
        x = random("x", size)
        assert_close(backend.change_layout(x), x.transpose(0, 2, 1))


def add(backend: CudaBackend) -> None:
    a, b = random("a", (1003,)), random("b", (1003,))
    assert_close(backend.add(a, b, "relu"), np.maximum(a + b, 0), magnitude=0)


def gelu(backend: CudaBackend) -> None:
    x, dy = (draw(name, (1003,), np.float16, -6, 6) for name in ("x", "dy"))
    y = reference.activation_forward(x, "gelu", 0.0)
    dx = reference.activation_backward(dy, x, "gelu", 0.0)
    f16 = partial(close, dtype=np.float16, reduction=20)
    f16(backend.activation_forward(x, "gelu", 0.0), y, magnitude=np.abs(y) + 0.1)
    f16(backend.activation_backward(dy, x, "gelu", 0.0), dx, magnitude=np.abs(dx) + 6)


def dropout(backend: CudaBackend) -> None:
    x = random("x", (1001,))
    assert_close(backend.dropout(x, 0.3, 77, 5), reference.dropout(x, 0.3, 77, 5))


def masks(backend: CudaBackend) -> None:
    """Of a ReLU6, and of a sum; the way back with a slope and with none."""
    x, residual, dy = (8 * random(name, (1001,)) for name in ("x", "residual", "dy"))
    x[:4], dy[5:8] = (np.nan, 6, 7, 0), np.inf
    y, mask = backend.activation_masked(x, "relu6", 0.0)
    alive = (y > 0) & (y < 6)
    np.testing.assert_array_equal(y, np.clip(x, 0, 6))
    for bits in (mask, backend.activation_mask(y, "relu6", 0.0)):
        np.testing.assert_array_equal(bits, np.packbits(alive, bitorder="little"))
    for slope, below in ((0.0, 0), (0.25, 0.25 * dy)):
        dx = backend.mask_backward(dy, mask, (0,), slope, 2.0)
        np.testing.assert_array_equal(dx, np.where(alive, 2 * dy, below))
    x[0] = 0
    y, mask = backend.activation_masked(x, "relu", 0.0, residual)
    np.testing.assert_array_equal(y, np.maximum(x + residual, 0))
    np.testing.assert_array_equal(mask, np.packbits(y > 0, bitorder="little"))


def dropout_masked(backend: CudaBackend) -> None:
    x = np.maximum(random("x", (1001,)), 0)
    y, mask = backend.dropout_masked(x, "relu", 0.0, 0.3, 77, 5)
    expected = reference.dropout(x, 0.3, 77, 5)
    assert_close(y, expected)
    np.testing.assert_array_equal(mask, np.packbits(expected > 0, bitorder="little"))


BUGS = [
    Bug("no barrier before the tile is written", change_layout, "change_layout.cu",
        "    __syncthreads();  // the tile is complete\n", ""),
    Bug("lines beyond the last are written", change_layout, "change_layout.cu",
        "if (row >= t.rows || column >= t.columns) continue;", ""),
    Bug("words of the warp are read too early", pictures, "picture_layout.cu",
        "    __syncwarp();  // the warp's words are there\n", ""),
    Bug("words beyond the last are read", pictures, "picture_layout.cu",
        "if (at.in_pictures(k) < CHANNELS * (long long)units) held", "held"),
    Bug("words beyond the last are written", pictures, "picture_layout.cu",
        "if (at.in_pictures(k) < CHANNELS * (long long)units) y[", "y["),
    Bug("a picture's planes behind those of the first", pictures, "picture_layout.cu",
        "(CHANNELS * n + c)", "(n + c)"),
    Bug("sums of what the kernel before has yet to write", add, "add.cu",
        "    after_kernels_before();\n", ""),
    Bug("negative sums pass", add, "add.cu", "relu && sum <= 0", "relu && sum > 9"),
    Bug("a digit of a coefficient", gelu, "activations.cuh", "0.0157442", "0.0156442"),
    Bug("the left tail's slope on the right", gelu, "activations.cuh", "x > 0 ? 1 - left : x", "x"),
    Bug("the last pack stored as if it were whole", gelu, "pack.cuh", "i + PACK <= size", "true"),
    Bug("a mask's second half is its first", masks, "mask.cu", " << (k * PACK)", ""),
    Bug("a mask's first half is read twice", masks, "mask.cu", "bits >> (k * PACK + j)",
        "bits >> j"),
    Bug("an element's byte is its own", masks, "mask.cu", "mask[packs.i / OCTET] =",
        "mask[packs.i] ="),
    Bug("threads behind the last byte write", masks, "mask.cuh", "else if (i < size)", "else"),
    Bug("a NaN passes", masks, "mask.cuh", "widen(y) > 0", "!(widen(y) <= 0)"),
    Bug("what has reached the ceiling passes", masks, "mask.cuh", ">= ceiling", "> ceiling"),
    Bug("the ceiling is none", masks, "mask.cu", "v >= ceiling ? ceiling : v", "v"),
    Bug("infinity times a slope of zero", masks, "mask.cu", "slope > 0 ? slope * v : (Accum)0",
        "slope * v"),
    Bug("what passed is not scaled", masks, "mask.cu", "scale * d", "d"),
    Bug("the sum leaves its residual out", masks, "mask.cu", "if (residual) v +=", "if (0) v +="),
    Bug("the residual's second pack is its first", masks, "mask.cu",
        "packs.load(residual, k)", "packs.load(residual, 0)"),
    Bug("eight elements in packs where fewer are left", masks, "mask.cuh",
        "in_packs && i + OCTET <= size", "in_packs"),
    Bug("what fell passes", dropout_masked, "dropout.cu", " & lives >> j", ""),
    Bug("the words of the first pack again", dropout_masked, "dropout.cu",
        "packs.at(k), threshold", "packs.i, threshold"),
    Bug("what was cut passes", dropout_masked, "dropout.cu",
        "(unsigned)passes(in.at[j], ceiling) & lives >> j", "lives >> j & 1"),
    Bug("nine rounds of Philox", dropout, "philox.cuh", "round < 10", "round < 9"),
    Bug("who has nothing to do does not wait", dropout, "dropout.cu",
        "    after_kernels_before();\n",
        "    if (first_of_pack() >= count) return;\n    after_kernels_before();\n"),
]  # fmt: skip
