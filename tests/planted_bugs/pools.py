"""Bugs in pooling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda import CudaBackend, columns
from gpucnn.backends.cuda import norm_pool as norm_pool_module
from gpucnn.shapes import NormShape, PoolShape
from tests import reference
from tests.cases import in_layout
from tests.operations.conftest import poisoned
from tests.planted_bugs.common import Bug, assert_close, random

POOL = PoolShape.of((2, 7, 8, 5), (3, 2), mode="max", rank=2, strides=(2, 1), padding=(1, 0))


def pooled(backend: CudaBackend, shape: PoolShape, x: np.ndarray) -> None:
    """Forward and backward; x and the shape's reference have channels last."""
    last, selects = replace(shape, channels_last=True), shape.mode in ("max", "min")
    dy = random("dy", last.y_shape)
    y, index = reference.pool_forward(x, last)
    dx, terms = (reference.pool_backward(g, index, last) for g in (dy, np.abs(dy)))
    x, dy, y, dx, terms = (in_layout(a, shape.channels_last) for a in (x, dy, y, dx, terms))
    with poisoned(np):
        got, place = backend.pool_forward(x, shape)
        assert_close(got, y, reduction=last.taps + 1, magnitude=last.taps * np.ones(y.shape))
        if selects:
            index = in_layout(index, shape.channels_last).astype(shape.index_dtype)
            assert (place == index).all()
            got, place = backend.pool_forward(x, shape, activation="relu")
            assert_close(got, np.maximum(y, 0), magnitude=0)
            assert (place == np.where(y > 0, index, shape.taps)).all()
        got = backend.pool_backward(dy, index if selects else None, shape)
    assert_close(got, dx, reduction=2 * last.taps, magnitude=terms)


def pool(backend: CudaBackend) -> None:
    pooled(backend, POOL, np.round(3 * random("x", POOL.x_shape)))  # many are equal


def pool_packed(backend: CudaBackend) -> None:
    shape = PoolShape.of((2, 10, 8, 8), 3, mode="max", rank=2, strides=2, padding=((1, 1), (0, 1)))
    x = np.round(3 * random("x", shape.x_shape))
    x[0, 4, 3, ::3] = np.nan
    pooled(backend, shape, x)


def norm_pool(backend: CudaBackend) -> None:
    shape = PoolShape.of((2, 10, 9, 6), 3, mode="max", rank=2, strides=2, padding=((1, 1), (0, 1)))
    norm = NormShape.of(shape.x_shape)
    x, gamma, beta = random("x", shape.x_shape), random("gamma", (6,)), random("beta", (6,))
    normal, *statistics = reference.batch_norm_train(x, gamma, beta, 1e-3, norm)
    y, _ = reference.pool_forward(normal, shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MOST_ROWS", 0)
        patch.setattr(norm_pool_module, "THREADS_WANTED", 20)
        got, _, *found = backend.batch_norm_pool_train(x, gamma, beta, 1e-3, norm, shape, "relu")
    expected = (np.maximum(y, 0), *statistics)
    for value, exact in zip((got, *found), expected, strict=True):
        assert_close(value, exact, reduction=180, magnitude=np.abs(exact) + 2)


def pool_strips(backend: CudaBackend) -> None:
    for padding in (1, ((1, 1), (0, 0))):
        shape = PoolShape.of((2, 7, 24, 3), 3, mode="max", rank=2, strides=2, padding=padding)
        x = np.round(3 * random("x", shape.x_shape))
        pooled(backend, replace(shape, channels_last=False), x)


def pool_gathered(backend: CudaBackend) -> None:
    shape = PoolShape.of((2, 5, 9, 8), 3, mode="max", rank=2, strides=(3, 1), dilation=(1, 2))
    pooled(backend, shape, np.round(3 * random("x", shape.x_shape)))


def pool_cells(backend: CudaBackend) -> None:
    shape = PoolShape.of((2, 9, 11, 8), 2, mode="average", rank=2, strides=(2, 3))
    pooled(backend, shape, random("x", shape.x_shape))


def pool_pairs(backend: CudaBackend) -> None:
    shape = PoolShape.of((2, 6, 8, 3), 2, mode="min", rank=2)
    pooled(backend, replace(shape, channels_last=False), np.round(3 * random("x", shape.x_shape)))


def global_pool(backend: CudaBackend) -> None:
    for channels_last in (True, False):
        shape = PoolShape.of((2, 19, 7, 8), (19, 7), mode="max", rank=2)
        shape = replace(shape, channels_last=channels_last)
        x = np.round(3 * random("x", (2, 19, 7, 8)))
        x[..., ::3] -= 4  # below zero
        pooled(backend, shape, x)
        pooled(backend, replace(shape, mode="average"), random("x", (2, 19, 7, 8)))


BUGS = [
    Bug("a later equal maximum wins", pool, "pool_window.cuh", "value <= best", "value < best"),
    Bug("the last of the equal ones of 3x3", pool_packed, "pool_window.cuh",
        "int t = TAPS - 2; t >= 0; --t", "int t = 0; t < TAPS - 1; ++t"),
    Bug("a NaN among 3x3 lost", pool_packed, "pool_window.cuh", "if (sum != sum)", "if (false)"),
    Bug("the channels of the first thread", norm_pool, "norm_pool.cu",
        "normaliser(unit * WIDTH + j,", "normaliser(j,"),
    Bug("units of another pixel's channels", norm_pool, "norm_pool.cu", "i += stride",
        "i += stride + 1"),
    Bug("the column beside a strip left out", pool_strips, "pool_strips.cu",
        "rows[r].beside_exists ? widen(rows[r].beside) : worst", "worst"),
    Bug("what the ReLU has cut keeps its place", pool_packed, "pool_window.cuh",
        "if (SELECTS && g.relu && !(pooled.value[j] > 0)) pooled.tap[j]",
        "if (false) pooled.tap[j]"),
    Bug("what the ReLU has cut in a strip keeps its place", pool_strips, "pool_strips.cu",
        "if (SELECTS && g.relu && !(best[j] > 0)) chosen[j]", "if (false) chosen[j]"),
    Bug("the ReLU of a map forgotten", global_pool, "global_pool.cu",
        "narrow(g.relu && found.value <= 0 ? (Accum)0 : found.value)", "narrow(found.value)"),
    Bug("the column of padding is read", pool_strips, "pool_strips.cu",
        "row[rows[r].beside_exists ? beside : first]", "row[beside]"),
    Bug("rows of padding are counted", pool_strips, "pool_strips.cu",
        "if (!rows[r].exists) continue;", ""),
    Bug("outputs beyond the row are written", pool_strips, "pool_strips.cu",
        "if (out.axis[2] + j >= g.output[2]) break;", ""),
    Bug("the index ignored", pool_gathered, "pool_gather.cu", "(int)index.at[j] == tap ?",
        "true ?"),
    Bug("windows beyond the last are read", pool_gathered, "pool_gather.cu",
        "min(g.output[a], (int)divide(padded, g.by_stride[a]) + 1)",
        "(int)divide(padded, g.by_stride[a]) + 1"),
    Bug("the gap between windows gets a gradient", pool_cells, "pool_cells.cu",
        "if (!inside(tap, g.window)) continue;", ""),
    Bug("windows outside the map are read", pool_packed, "pool_cells.cu",
        "if (!inside(out, g.output)) continue;", ""),
    Bug("the windows before a cell's own forgotten", pool_packed, "pool_cells.cu",
        "fill_cell<2>(", "fill_cell<1>("),
    Bug("pairs of a row taken for one", pool_pairs, "pool_cells.cu", "number + j % ACROSS",
        "number"),
    Bug("the last of the equal ones of a map", global_pool, "global_pool.cu",
        "alike ? b.index < a.index", "alike ? b.index > a.index"),
    Bug("the splits of a map overlap", global_pool, "global_pool.cu",
        "min((blockIdx.y + 1) * g.per_split, g.units)", "g.units"),
    Bug("no barrier in the tree of a map", global_pool, "global_pool.cu",
        "        __syncthreads();  // the level below is complete\n", ""),
    Bug("a row's gradient runs into the next", global_pool, "global_pool_backward.cu",
        "if (l == by_length.value) l = 0, ++row;", ""),
]  # fmt: skip
