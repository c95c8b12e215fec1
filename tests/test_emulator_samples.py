"""Tensor-core kernels in the emulator: right as they stand, and every planted bug is caught."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpucnn.backends.cuda.tensor_map import Pixels, TensorMap, Tiles
from tests.emulator import KernelError, Module, tensor_map
from tests.emulator.build import CXX

SAMPLES = Path(__file__).parent / "emulator" / "samples"
RING_BYTES = 3 * 2 * 64 * 64 * 2 + 6 * 8  # three stages of two tiles, six mbarriers

pytestmark = pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")
rng = np.random.default_rng(0)
i32 = np.int32


def array(shape: tuple[int, ...], dtype: type, value: float | None = None) -> np.ndarray:
    """Random numbers or `value`, 64-byte aligned as device memory is."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    result = memory[start : start + size].view(dtype).reshape(shape)
    result[...] = rng.standard_normal(shape) if value is None else value
    return result


def conv(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """3x3 "same" convolution in float64: (N, H, W, C), (K, 3, 3, C) -> (N, H, W, K)."""
    _, height, width, _ = x.shape
    padded = np.pad(x.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, r : r + height, s : s + width] @ w[:, r, s].T.astype(float)
        for r in range(3)
        for s in range(3)
    )


def largest_error(y: np.ndarray, want: np.ndarray) -> float:
    error = np.abs(y.astype(float) - want).max() / np.abs(want).max()
    return float("inf") if np.isnan(error) else float(error)


# ---- the cases: each runs one kernel and returns its relative error -----------------------------
def conv_igemm_f16(kernel: Callable, **options: object) -> float:
    n, h, w, c, k = 2, 7, 9, 24, 40
    x, filters = array((n, h, w, c), np.float16), array((k, 3, 3, c), np.float16)
    y = array((n, h, w, k), np.float16, np.nan)
    grid = (-(-n * h * w // 64), -(-k // 64))
    kernel(grid, (128,), (x, filters, y, *map(i32, (n, h, w, c, k, 3, 3, 1, 1, h, w))), **options)
    return largest_error(y, conv(x, filters))


def gemm_tf32(kernel: Callable, **options: object) -> float:
    m, n, d = 64, 96, 40
    a, b = array((m, d), np.float32), array((n, d), np.float32)
    y = array((m, n), np.float32, np.nan)
    args = (a, b, y, i32(m), i32(n), i32(d))
    kernel((m // 32, n // 32), (256,), args, shared_mem=2 * 32 * 48, **options)
    return largest_error(y, a.astype(float) @ b.T.astype(float))


def gemm_f64(kernel: Callable, rows: int, **options: object) -> float:
    m, n, d = 48, 24, 64
    a, b = array((m, d), np.float64), array((n, d), np.float64)
    y = array((m, n), np.float64, np.nan)
    kernel((m // rows, n // 8), (32,), (a, b, y, i32(n), i32(d)), **options)
    return largest_error(y, a @ b.T)


def gemm_m8n8k4_f64(kernel: Callable, **options: object) -> float:
    return gemm_f64(kernel, 8, **options)


def gemm_m16n8k16_f64(kernel: Callable, **options: object) -> float:
    return gemm_f64(kernel, 16, **options)


def gemm_wgmma_manual(kernel: Callable, **options: object) -> float:
    m, n, d = 128, 64, 320
    a, b = array((m, d), np.float16), array((n, d), np.float16)
    y = array((m, n), np.float32, np.nan)
    args = (a, b, y, i32(m), i32(n), i32(d))
    kernel((m // 64, n // 64), (128,), args, shared_mem=2 * 64 * 64 * 2, **options)
    return largest_error(y, a.astype(float) @ b.T.astype(float))


def gemm_wgmma(kernel: Callable, **options: object) -> float:
    m, n, d = 128, 64, 320
    a, b = array((m, d), np.float16), array((n, d), np.float16)
    y = array((m, n), np.float32, np.nan)
    maps = [tensor_map(TensorMap(t, (d, len(t)), Tiles((64, 64)))) for t in (a, b)]
    args = (*maps, y, i32(m), i32(n), i32(d))
    kernel((m // 64, n // 64), (160,), args, shared_mem=RING_BYTES, extra=(a, b), **options)
    return largest_error(y, a.astype(float) @ b.T.astype(float))


def conv_wgmma(kernel: Callable, **options: object) -> float:
    n, h, w, c, k = 2, 8, 8, 64, 64
    x, filters = array((n, h, w, c), np.float16), array((k, 3, 3, c), np.float16)
    y = array((n, h, w, k), np.float32, np.nan)
    x_map = tensor_map(TensorMap(x, (c, w, h, n), Pixels((-1, -1), (-1, -1), 64, 64)))
    w_map = tensor_map(TensorMap(filters, (9 * c, k), Tiles((64, 64))))
    geometry = np.array([c, h, w, 3, 3, 1], i32).view("V24")
    args = (x_map, w_map, y, i32(n * h * w), i32(k), geometry)
    grid = (n * h * w // 64, k // 64)
    kernel(grid, (160,), args, shared_mem=RING_BYTES, extra=(x, filters), **options)
    return largest_error(y, conv(x, filters))


# case -> (file, relative error that its number format allows)
CASES = {
    conv_igemm_f16: ("conv_mma.cu", 1e-3),
    gemm_tf32: ("conv_mma.cu", 1e-3),
    gemm_m8n8k4_f64: ("mma_f64.cu", 1e-14),
    gemm_m16n8k16_f64: ("mma_f64.cu", 1e-14),
    gemm_wgmma_manual: ("wgmma.cu", 1e-5),
    gemm_wgmma: ("wgmma.cu", 1e-5),
    conv_wgmma: ("wgmma.cu", 1e-5),
}


@pytest.mark.parametrize("mode", ["fast", "check"])
@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_sample(case, order, mode):
    file, tolerance = CASES[case]
    names = [c.__name__ for c in CASES if CASES[c][0] == file]
    kernel = Module(SAMPLES / file, names, mode=mode).get_function(case.__name__)
    assert case(kernel, order=order, seed=7) <= tolerance


# (case, what is wrong, the text, its replacement)
COMPLETE = "        __syncthreads();  // the tiles are complete\n"
REUSE = "        __syncthreads();  // the tiles may be overwritten\n"
PREFETCH = "if (t + 1 < steps) load(t + 1, (t + 1) & 1);\n        cp_async_commit();"
MUTANTS = [
    (conv_igemm_f16, "no cp.async wait", "cp_async_wait<1>();", ""),
    (conv_igemm_f16, "wait one group short", "cp_async_wait<1>();", "cp_async_wait<2>();"),
    (
        conv_igemm_f16,
        "no commit in the last round",
        PREFETCH,
        "if (t + 1 < steps) { load(t + 1, (t + 1) & 1); cp_async_commit(); }",
    ),
    (conv_igemm_f16, "no sync after the wait", COMPLETE, ""),
    (conv_igemm_f16, "no sync before refilling", REUSE, ""),
    (conv_igemm_f16, "B fragment's registers swapped", "[1] = four[1];", "[1] = four[2];"),
    (
        conv_igemm_f16,
        "rows of A's ldmatrix wrong",
        "lane % 16][d + lane / 16 * 8]",
        "lane / 2][d + lane % 2 * 8]",
    ),
    (conv_igemm_f16, "accumulator column wrong", "lane % 4 * 2 + e % 2;", "lane % 4 + e % 2 * 4;"),
    (conv_igemm_f16, "pitch breaks alignment", "PITCH = TILE_D + 8", "PITCH = TILE_D + 4"),
    (conv_igemm_f16, "padding not filled with zeros", "in ? 16 : 0);", "16);"),
    (
        conv_igemm_f16,
        "mma in a divergent branch",
        "mma_m16n8k16_f16(acc[i][j]",
        "if (lane < 31) mma_m16n8k16_f16(acc[i][j]",
    ),
    (conv_igemm_f16, "tail of the filters unguarded", "n0 + row < K && d < D", "d < D"),
    (gemm_tf32, "order of A's registers", "ra[8][t], ra[0][t + 4]", "ra[0][t + 4], ra[8][t]"),
    (gemm_tf32, "dynamic shared memory overrun", "smem + 32 * 48)", "smem + 33 * 48)"),
    (gemm_m8n8k4_f64, "accumulator columns apart", "2 * t + e", "t + 4 * e"),
    (
        gemm_m8n8k4_f64,
        "operands swapped",
        "a[m * D + k], b[(n0 + group) * D + k]",
        "b[(n0 + group) * D + k], a[m * D + k]",
    ),
    (
        gemm_m16n8k16_f64,
        "rows and columns of A's registers swapped",
        "i % 2 * 8) * D + k0 + i / 2",
        "i / 4 * 8) * D + k0 + i % 4",
    ),
    (gemm_m16n8k16_f64, "B's registers side by side", "k0 + i * 4", "k0 - t + t * 4 + i"),
    (gemm_wgmma, "result read before the wait", "wgmma_wait<0>();", "wgmma_wait<1>();"),
    (
        gemm_wgmma,
        "stage given back before the wait",
        "wgmma_wait<0>();\n        mbarrier_arrive(&ring.empty[stage]);",
        "mbarrier_arrive(&ring.empty[stage]);\n        wgmma_wait<0>();",
    ),
    (
        gemm_wgmma,
        "full barrier not waited for",
        "mbarrier_wait(&ring.full[stage], t / STAGES & 1);",
        "",
    ),
    (
        gemm_wgmma,
        "empty barrier not waited for",
        "mbarrier_wait(&ring.empty[stage], (t / STAGES & 1) ^ 1);",
        "",
    ),
    (gemm_wgmma, "producer's parity wrong", "(t / STAGES & 1) ^ 1", "t / STAGES & 1"),
    (
        gemm_wgmma,
        "expected bytes wrong",
        "&ring.full[stage], 2 * TILE)",
        "&ring.full[stage], TILE)",
    ),
    (gemm_wgmma, "empty barrier's count wrong", "&ring.empty[i], 128)", "&ring.empty[i], 4)"),
    (gemm_wgmma_manual, "no proxy fence", "fence_proxy_async();", ""),
    (gemm_wgmma_manual, "stores not swizzled", "((chunk ^ (row & 7)) << 4)", "(chunk << 4)"),
    (gemm_wgmma_manual, "stride of A wrong", "(a + k * 32, 16, 1024)", "(a + k * 32, 16, 512)"),
    (gemm_wgmma_manual, "step along k wrong", "(b + k * 32,", "(b + k * 64,"),
    (
        gemm_wgmma_manual,
        "accumulator row wrong",
        "lane / 4 + i / 2 % 2 * 8",
        "lane / 4 * 2 + i / 2 % 2",
    ),
    (conv_wgmma, "filter offsets swapped", "rs % conv.S, rs / conv.S", "rs / conv.S, rs % conv.S"),
    (conv_wgmma, "corner wrong", "w - conv.pad, h - conv.pad, n", "w, h, n"),
]


@pytest.mark.parametrize(
    "case, text, replacement",
    [pytest.param(c, old, new, id=f"{c.__name__}: {bug}") for c, bug, old, new in MUTANTS],
)
def test_planted_bug_is_caught(case, text, replacement):
    file, tolerance = CASES[case]
    source = (SAMPLES / file).read_text()
    assert text in source
    mutant = source.replace(text, replacement)
    kernel = Module(SAMPLES / file, [case.__name__], mode="check", text=mutant).get_function(
        case.__name__
    )
    try:
        error = case(kernel)
    except KernelError:
        return
    assert error > tolerance
