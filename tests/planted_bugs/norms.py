"""Bugs in norms and losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda import CudaBackend, columns, norm
from gpucnn.shapes import NormShape
from tests import reference
from tests.planted_bugs.common import Bug, assert_close, random

NORM = NormShape(batch=3, channels=37, length=70, groups=1)


def batch_norm(backend: CudaBackend, most_rows: int = 0) -> None:
    x = random("x", NORM.axes) + np.float32(3)
    gamma, beta = random("gamma", (37,)), random("beta", (37,))
    y, mean, var = reference.batch_norm_train(x, gamma, beta, 1e-3, NORM)
    moving = np.zeros(37, np.float32), np.ones(37, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MOST_ROWS", most_rows)
        got = backend.batch_norm_train(x, gamma, beta, 1e-3, NORM, moving=moving, momentum=0.75)
    wanted = y, mean, var, mean / 4, 0.75 + var / 4
    for value, expected in zip((*got, *moving), wanted, strict=True):
        assert_close(value, expected, reduction=210, magnitude=np.abs(expected) + 3)


def column_norm(backend: CudaBackend) -> None:
    batch_norm(backend, most_rows=210)
    x, y, dy = (random(name, NORM.axes) for name in ("x", "y", "dy"))
    gamma, mean, var = random("gamma", (37,)), random("mean", (37,)), random("var", (37,), low=0.5)
    given = dy, x, gamma, mean, var, 1e-3, True, NORM, "relu", None, y
    expected = reference.batch_norm_backward(*given)
    for value, exact in zip(backend.batch_norm_backward(*given), expected, strict=True):
        assert_close(value, exact, reduction=210, magnitude=np.abs(exact) + 6)


def fused_norm(backend: CudaBackend) -> None:
    """With ReLU, and a residual for the forward pass, by threads that take many packs each."""
    shape = replace(NORM, batch=9, channels_last=False)
    x, residual, dy = (random(name, shape.axes) for name in ("x", "r", "dy"))
    gamma, beta = random("gamma", (37,)), random("beta", (37,))
    mean, var = random("mean", (37,)), random("var", (37,), low=0.5)
    given = x, gamma, beta, mean, var, 1e-3, shape, "relu", residual
    y = reference.batch_norm_infer(*given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norm, "THREADS_WANTED", 1)
        assert_close(backend.batch_norm_infer(*given), y, reduction=8, magnitude=np.abs(y) + 6)
        before = reference.batch_norm_infer(*given[:-2])
        dy[np.abs(before) < 1e-3] = 0
        for fused in ((beta,), (None, y.astype(np.float32, order="C"))):
            given = dy, x, gamma, mean, var, 1e-3, True, shape, "relu", *fused
            expected = reference.batch_norm_backward(*given)
            got = backend.batch_norm_backward(*given)
            for value, exact in zip(got[:3], expected, strict=False):
                assert_close(value, exact, reduction=630, magnitude=np.abs(exact) + 6)
    assert_close(got[3], expected[3])


def group_norm(backend: CudaBackend) -> None:
    x, gamma, beta = random("x", NORM.axes), random("gamma", (37,)), random("beta", (37,))
    y, _, _ = reference.group_norm_forward(x, gamma, beta, 1e-3, NORM)
    got, _, _ = backend.group_norm_forward(x, gamma, beta, 1e-3, NORM)
    assert_close(got, y, reduction=2590, magnitude=np.abs(y) + 1)


def cross_entropy(backend: CudaBackend) -> None:
    for classes in (37, 302, 1100):  # a warp's, held by one, and shared by a block
        logits, labels = random("logits", (5, classes)), np.array([0, 36, 17, 4, 25], np.int32)
        logits[1, [4, 36]] = logits[2, [17, 20]] = 2  # the first of two, which is the label once
        losses, dlogits = reference.softmax_cross_entropy(logits, labels, 0.1, 0.5)
        got = backend.softmax_cross_entropy(logits, labels, 0.1, 0.5)
        assert_close(got[0], losses, reduction=classes, magnitude=np.abs(losses) + 1)
        assert_close(got[1], dlogits, reduction=classes, magnitude=np.abs(dlogits) + 0.01)
        assert got[2].tolist() == (logits.argmax(1) == labels).tolist()


def means(backend: CudaBackend) -> None:
    losses, hits = random("losses", (20011,)), random("hits", (20011,)) > 0.3
    mean, share = backend.loss_means(losses, hits)
    assert_close(mean, losses.mean(dtype=np.float64), reduction=20011, magnitude=1)
    assert share == hits.mean()


BUGS = [
    Bug("the tree starts below its height", batch_norm, "channel_sums.cu",
        "int half = BLOCK_THREADS / 2", "int half = BLOCK_THREADS / 64"),
    Bug("no barrier in the tree", batch_norm, "channel_sums.cu",
        "        __syncthreads();  // the level below is complete\n", ""),
    Bug("columns beyond the last are read", batch_norm, "channel_sums.cu",
        "column < s.columns && slot < slots", "slot < slots"),
    Bug("steps beyond the last are read", batch_norm, "channel_sums.cu",
        "exists(k) ? at(k) : step).first", "at(k)).first"),
    Bug("steps beyond the last are counted", batch_norm, "channel_sums.cu",
        "WHICH == ALL || at(k) < end", "true"),
    Bug("the steps after the whole ones start with another thread's", batch_norm,
        "channel_sums.cu", "slot < before ? slot + slots : slot", "slot"),
    Bug("numbers beyond the last are counted", batch_norm, "channel_sums.cu",
        "taken - (w >= last_end)", "taken"),
    Bug("means compared without what they are counted from", batch_norm, "moments.cuh",
        "(b.pivot - a.pivot) + ", ""),
    Bug("two sets as if their means were one", batch_norm, "moments.cuh",
        " + apart * apart * a.count * share", ""),
    Bug("moving statistics that stand still", batch_norm, "batch_norm.cuh",
        "math::fma(share, batch - moving, moving)", "moving"),
    Bug("rows beyond the last are counted", column_norm, "column_norm.cu",
        "(rows - at.slot + SLOTS - 1) / SLOTS", "(rows + SLOTS - 1) / SLOTS"),
    Bug("no barrier in a column's tree", column_norm, "column_norm.cu",
        "        __syncthreads();  // the level below is complete\n", ""),
    Bug("no barrier behind a column's tree", column_norm, "column_norm.cu",
        "    __syncthreads();  // the sum is there\n", ""),
    Bug("the gradient of what the ReLU has cut", column_norm, "column_norm.cu",
        "!(output > 0)", "!(output != 0)"),
    Bug("no barrier in the finish's tree", batch_norm, "channel_sums.cu",
        "        __syncthreads();  // the parts of this level are there\n", ""),
    Bug("the end of the row before is counted", fused_norm, "channel_sums.cu",
        "(int)max(0ll, row - first)", "0"),
    Bug("whole packs of the masked gradient where rows share them", fused_norm, "channel_sums.cu",
        "if (steps.in_packs) {", "if (true) {"),
    Bug("ReLU lets through what is above the mean", fused_norm, "batch_norm.cuh",
        "value > ROUNDS_TO_ZERO &&", "widen(x) > mean &&"),
    Bug("the residual of the pack before", fused_norm, "batch_norm.cu",
        "packs.load(residual, k)", "packs.load(residual, 0)"),
    Bug("a stride that the channels do not fit", fused_norm, "pack.cuh",
        "i += COUNT * stride", "i += COUNT * stride - PACK"),
    Bug("packs beyond the last are stored", fused_norm, "pack.cuh", "else if (at(k) < end)",
        "else"),
    Bug("the pack that is not whole is every thread's", fused_norm, "pack.cuh",
        "(whole && (whole - first) % stride)", "false"),
    Bug("the scratch reused too early", group_norm, "block_sum.cuh",
        "    __syncthreads();  // everyone has read it\n", ""),
    Bug("the group's last elements left out", group_norm, "group_norm.cu",
        "e < group.size; e += BLOCK_THREADS) sum",
        "e + BLOCK_THREADS < group.size; e += BLOCK_THREADS) sum"),
    Bug("the butterfly starts at 8", cross_entropy, "row_reduce.cuh", "int mask = 16",
        "int mask = 8"),
    Bug("what no class stands for is held as zero", cross_entropy, "softmax_cross_entropy.cu",
        "[k % PACK]) : -math::infinity()", "[k % PACK]) : 0"),
    Bug("a lane's packs side by side", cross_entropy, "softmax_cross_entropy.cu",
        "(k / PACK * ROW_THREADS + first_column()) * PACK",
        "(k / PACK + first_column()) * PACK"),
    Bug("the last of the largest logits", cross_entropy, "softmax_cross_entropy.cu",
        "v > value ||", "v >= value ||"),
    Bug("the place of the largest in the last thread", cross_entropy, "row_reduce.cuh",
        "return a < b ? a : b; }", "return a > b ? a : b; }"),
    Bug("a block's losses are all the others', too", means, "loss_means.cu",
        "min(count - first, (long long)per_block)", "count - first"),
    Bug("no barrier before the warps' values are read", cross_entropy, "row_reduce.cuh",
        "        __syncthreads();  // every warp's value is there\n", ""),
]  # fmt: skip
