"""What every function of kernels/ptx.cuh must do, on a GPU as in the emulator.

A case runs a kernel of tests/emulator/samples/ptx.cu and compares with NumPy: exactly where data
moves, within the rounding of a sum where a product is added. What passes in the emulator and on a
GPU is the same in both. ``CASES`` maps each name to (the architecture it needs, the case).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from gpucnn.backends.cuda.tensor_map import Pixels, TensorMap, Tiles

from .cases import as_tf32
from .ptx_runners import Architecture, EmulatorRunner, GpuRunner

Runner = EmulatorRunner | GpuRunner
Case = Callable[[Runner], None]
ANY, AMPERE, HOPPER = (7, 5), (8, 0), (9, 0)
CASES: dict[str, tuple[Architecture, Case]] = {}


def case(architecture: Architecture) -> Callable[[Case], Case]:
    def declare(function: Case) -> Case:
        CASES[function.__name__] = (architecture, function)
        return function

    return declare


def runs_on(name: str, architecture: Architecture) -> bool:
    """Return whether a GPU of this architecture has what a case needs; wgmma is Hopper's alone, and
    not every newer one has clusters."""
    needed = CASES[name][0]
    return (
        architecture == needed
        if name.startswith(("wgmma", "multicast"))
        else architecture >= needed
    )


def numbers(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    """Random numbers, 64-byte aligned as tensor maps want them."""
    itemsize = np.dtype(dtype).itemsize
    room = np.zeros(int(np.prod(shape)) * itemsize + 64, np.uint8)
    start = -room.ctypes.data % 64
    array = room[start : start + int(np.prod(shape)) * itemsize].view(dtype).reshape(shape)
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        array[...] = random.integers(0, np.iinfo(dtype).max, shape)
    else:
        array[...] = random.standard_normal(shape)
    return array


def same(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(got, expected)


def i32(value: int) -> np.int32:
    return np.int32(value)


# ---- conversions --------------------------------------------------------------------------------


@case(ANY)
def float_from_half(run: Runner) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    y = np.full(bits.shape, 7, np.float32)
    run("half_to_float", 256, bits, y, i32(bits.size))
    same(y, bits.view(np.float16).astype(np.float32))  # every NaN is NaN, whatever its bits


@case(ANY)
def half_from_float(run: Runner) -> None:
    """Every binary16, the middles between neighbours, and the floats beside these."""
    exact = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (exact[1:] + exact[:-1]) / 2
    beside = [np.nextafter(middles, np.float32(end)) for end in (-np.inf, np.inf)]
    extremes = np.array([65519.996, 65520, 1e38, np.inf, np.nan, 2**-25, 1e-30], np.float32)
    x = np.concatenate([exact, middles, *beside, extremes])
    x = np.concatenate([x, -x])
    y = np.zeros(x.shape, np.uint16)
    run("float_to_half", 256, x, y, i32(x.size))
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    finite = ~np.isnan(expected)
    same(y[finite], expected.view(np.uint16)[finite])  # in bits, for the sign of zero
    assert np.isnan(y.view(np.float16)[~finite]).all()


def same_bfloat16(bits: np.ndarray, x: np.ndarray) -> None:
    """Require that they are x rounded to the nearest, ties to even."""
    number = ~np.isnan(x)
    same(bits[number], x[number].astype(ml_dtypes.bfloat16).view(np.uint16))  # the sign of 0, too
    assert np.isnan(bits.view(ml_dtypes.bfloat16)[~number].astype(np.float32)).all()


@case(AMPERE)
def bfloat16_from_float(run: Runner) -> None:
    """Every bfloat16 from 0 up, the middles between neighbours, and the floats beside these."""
    upper = np.arange(0x7F81, dtype=np.uint32) << 16
    low = np.array([0, 0x7FFF, 0x8000, 0x8001], np.uint32)
    x = (upper[:, None] + low).ravel().view(np.float32)
    x = np.concatenate([x, -x])
    y = np.zeros(x.shape, np.uint16)
    run("float_to_bfloat16", 256, x, y, i32(x.size))
    same_bfloat16(y, x)


@case(AMPERE)
def cvt_tf32(run: Runner) -> None:
    x = numbers((1000,), np.float32)
    ties = x[:500].view(np.uint32) & np.uint32(0xFFFFE000) | np.uint32(0x1000)
    x[:500] = ties.view(np.float32)
    x[500:505] = 0, -np.inf, np.inf, np.nan, np.finfo(np.float32).max  # the last to infinity
    y = np.zeros(x.shape, np.uint32)
    run("float_to_tf32", 128, x, y, i32(x.size))
    same(y >> 13, as_tf32(x).view(np.uint32) >> 13)  # the tensor cores read no lower bits


def in_pairs(run: Runner, kernel: str, dtype: Any) -> None:
    exact = np.arange(0x7C00, dtype=np.uint16).view(dtype).astype(np.float32)
    exact = exact[np.isfinite(exact)]
    middles = exact[:-1] + (exact[1:] - exact[:-1]) / 2
    beside = [np.nextafter(middles, np.float32(end)) for end in (-np.inf, np.inf)]
    x = np.concatenate([exact, middles, *beside, np.array([3e38, np.inf, np.nan], np.float32)])
    x = np.concatenate([x, -x])
    x = x[(x == 0) | ~(abs(x) < 1e-37)]  # what is below may count as 0
    x = x[: x.size // 2 * 2]
    y = np.zeros(x.size // 2, np.uint32)
    run(kernel, 256, x, y, i32(x.size))
    with np.errstate(over="ignore"):
        expected = x.astype(dtype)
    got, finite = y.view(np.uint16), ~np.isnan(x)
    same(got[finite], expected.view(np.uint16)[finite])
    same(got[~finite], np.uint16(0x7FFF))


@case(AMPERE)
def cvt_f16x2(run: Runner) -> None:
    in_pairs(run, "pairs_to_half", np.float16)


@case(AMPERE)
def cvt_bf16x2(run: Runner) -> None:
    in_pairs(run, "pairs_to_bfloat16", ml_dtypes.bfloat16)


def bounds(run: Runner, kernel: str, dtype: Any) -> None:
    """Of every number and another, its neighbours, zeros of both signs and NaN among them."""
    a = np.arange(2**16, dtype=np.uint16)
    others = [np.random.default_rng(0).permutation(a), a ^ 1, a ^ 0x8000]
    for b in (each.view(dtype) for each in others):
        y = np.zeros((2, a.size), np.uint16)
        run(kernel, 256, *(each.view(np.uint32) for each in (a, b, y)), i32(a.size // 2))
        x = a.view(dtype)
        with np.errstate(invalid="ignore"):  # of NaN that signal
            number = ~(np.isnan(x) | np.isnan(b))
            above = np.where(x == b, ~np.signbit(x) & np.signbit(b), x > b)
        same(y[:, ~number], np.uint16(0x7FFF))
        for got, wanted in zip(y, (np.where(above, x, b), np.where(above, b, x)), strict=True):
            same(got[number], wanted.view(np.uint16)[number])


@case(AMPERE)
def max_min_nan_f16x2(run: Runner) -> None:
    bounds(run, "bounds_half", np.float16)


@case(AMPERE)
def max_min_nan_bf16x2(run: Runner) -> None:
    bounds(run, "bounds_bfloat16", ml_dtypes.bfloat16)


# ---- shared memory and barriers -----------------------------------------------------------------


@case(ANY)
def smem_u32(run: Runner) -> None:
    y = np.zeros(60, np.uint32)
    run("shared_addresses", 32, y, i32(y.size), shared=16 * y.size)
    same(y, 16 * np.arange(y.size, dtype=np.uint32))


@case(ANY)
def in_register(run: Runner) -> None:
    x, y = numbers((32,), np.int32), np.zeros(32, np.int32)
    run("through_registers", 32, x, y)
    same(y, x)


@case(HOPPER)
def griddepcontrol(run: Runner) -> None:
    """Behind nothing there is nothing to wait for; tests/test_dependent_launch.py has kernels."""
    x, y = numbers((32,), np.int32), np.zeros(32, np.int32)
    run("after_others", 32, x, y)
    same(y, x)


@case(ANY)
def bar_sync(run: Runner) -> None:
    x, y = numbers((96,), np.int32), np.zeros(96, np.int32)
    run("named_barriers", 96, x, y)
    same(y, np.concatenate([x[63::-1], x[:63:-1]]))


def matrices(x: np.ndarray, count: int, transposed: bool = False) -> np.ndarray:
    """What ldmatrix gives each lane: (32 lanes, count) pairs, when lane l names row 5 l % 32."""
    rows = x[5 * np.arange(8 * count) % 32].reshape(count, 8, 8)
    rows = rows.transpose(0, 2, 1) if transposed else rows
    lanes = rows.reshape(count, 32, 2).transpose(1, 0, 2).astype(np.uint32)
    return lanes[..., 0] | lanes[..., 1] << 16


@case(ANY)
def ldmatrix_x4(run: Runner) -> None:
    x, y = numbers((32, 8), np.uint16), np.zeros((32, 4), np.uint32)
    run("ldmatrix_4", 32, x, y)
    same(y, matrices(x, 4))


@case(ANY)
def ldmatrix_x4_trans(run: Runner) -> None:
    x, y = numbers((32, 8), np.uint16), np.zeros((32, 4), np.uint32)
    run("ldmatrix_4_trans", 32, x, y)
    same(y, matrices(x, 4, transposed=True))


@case(ANY)
def ldmatrix_x2(run: Runner) -> None:
    x, y = numbers((32, 8), np.uint16), np.zeros((32, 2), np.uint32)
    run("ldmatrix_2", 32, x, y)
    same(y, matrices(x, 2))


@case(HOPPER)
def stmatrix_x4_trans(run: Runner) -> None:
    """What ldmatrix_x4_trans reads, stmatrix_x4_trans puts back."""
    y, expected = np.zeros((32, 8), np.uint16), numbers((32, 8), np.uint16)
    x = np.zeros((32, 4), np.uint32)
    run("ldmatrix_4_trans", 32, expected, x)
    run("stmatrix_4_trans", 32, x, y)
    same(y, expected)


def copies(run: Runner, kernel: str, size: int, bytes_: np.ndarray) -> None:
    """32 pieces of ``size`` bytes, of each so many taken and the rest zero."""
    x = numbers((32, size // 4), np.uint32)
    y = np.full_like(x, 7)
    run(kernel, 32, x, bytes_, y)
    expected = x.copy().view(np.uint8)
    expected[np.arange(size) >= bytes_[:, None]] = 0
    same(y, expected.view(np.uint32))


@case(AMPERE)
def cp_async_16(run: Runner) -> None:
    copies(run, "copy_16", 16, np.arange(32, dtype=np.int32) % 17)


@case(AMPERE)
def cp_async_4(run: Runner) -> None:
    copies(run, "copy_4", 4, np.arange(32, dtype=np.int32) % 5)


@case(HOPPER)
def mbarrier(run: Runner) -> None:
    x, y = numbers((5, 32), np.int32), np.zeros((5, 32), np.int32)
    run("ring", 64, x, y, i32(5), shared=128 + 16)
    same(y, x[:, ::-1])


# ---- tensor cores -------------------------------------------------------------------------------


def product(
    run: Runner, kernel: str, sizes: tuple[int, int, int], dtype: Any, sums: Any, *,
    threads: int = 32, shared: int = 0, onto: bool = True, rounded: Callable | None = None,
    turned: bool = False,
) -> None:  # fmt: skip
    """d (M, N) += a (M, K) b (N, K)^T, or = without ``onto``; ``turned``: a comes as (K, M).

    Tensor cores add in their own order and may cut where others round: an error of one unit of the
    last place for each term.
    """
    m, n, k = sizes
    a, b = numbers((m, k), dtype, seed=1), numbers((n, k), dtype, seed=2)
    d = numbers((m, n), sums, seed=3)
    exact = [np.asarray(rounded(t) if rounded else t, np.float64) for t in (a, b)]
    start = d.astype(np.float64) * onto
    expected = start + exact[0] @ exact[1].T
    magnitude = abs(start) + abs(exact[0]) @ abs(exact[1]).T
    as_bits = dtype in (np.float16, ml_dtypes.bfloat16)
    a = np.ascontiguousarray(a.T) if turned else a
    given = [t.view(np.uint16) if as_bits else t for t in (a, b)]
    run(kernel, threads, *given, d, shared=shared)
    error = abs(d - expected)
    assert (error <= (k + 1) * np.finfo(sums).eps * magnitude).all(), f"off by {error.max()}"


@case(AMPERE)
def mma_m16n8k16_f16(run: Runner) -> None:
    product(run, "mma_f16", (16, 8, 16), np.float16, np.float32)


@case(AMPERE)
def mma_m16n8k16_bf16(run: Runner) -> None:
    product(run, "mma_bf16", (16, 8, 16), ml_dtypes.bfloat16, np.float32)


@case(AMPERE)
def mma_m16n8k8_tf32(run: Runner) -> None:
    product(run, "mma_tf32", (16, 8, 8), np.float32, np.float32, rounded=as_tf32)


@case(AMPERE)
def mma_m8n8k4_f64(run: Runner) -> None:
    product(run, "mma_f64", (8, 8, 4), np.float64, np.float64)


@case(HOPPER)
def mma_m16n8k16_f64(run: Runner) -> None:
    product(run, "mma_f64_16", (16, 8, 16), np.float64, np.float64)


def gemm_wgmma(run: Runner, kernel: str) -> None:
    """``_mk``: a comes with k as the slow index."""
    _, _, n, tag, *turned = kernel.split("_")
    dtype = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "tf32": np.float32}[tag]
    shared = (64 + int(n)) * 128
    product(
        run, kernel, (64, int(n), 128 // np.dtype(dtype).itemsize), dtype, np.float32, threads=128,
        shared=shared, onto=False, rounded=cut_to_tf32 if tag == "tf32" else None,
        turned=bool(turned),
    )  # fmt: skip


def cut_to_tf32(x: np.ndarray) -> np.ndarray:
    """wgmma reads floats without the lower 13 bits; mma.sync leaves rounding them to others."""
    return (x.view(np.uint32) & ~np.uint32(0x1FFF)).view(np.float32)


for name in (
    "gemm_wgmma_64_f16", "gemm_wgmma_64_bf16", "gemm_wgmma_112_f16",
    "gemm_wgmma_112_bf16", "gemm_wgmma_128_f16", "gemm_wgmma_128_bf16",
    "gemm_wgmma_192_f16", "gemm_wgmma_192_bf16", "gemm_wgmma_224_f16",
    "gemm_wgmma_224_bf16", "gemm_wgmma_256_f16", "gemm_wgmma_256_bf16",
    "gemm_wgmma_64_f16_mk", "gemm_wgmma_64_bf16_mk", "gemm_wgmma_112_f16_mk",
    "gemm_wgmma_112_bf16_mk", "gemm_wgmma_128_f16_mk", "gemm_wgmma_128_bf16_mk",
    "gemm_wgmma_192_f16_mk", "gemm_wgmma_192_bf16_mk", "gemm_wgmma_224_f16_mk",
    "gemm_wgmma_224_bf16_mk", "gemm_wgmma_256_f16_mk", "gemm_wgmma_256_bf16_mk",
    "gemm_wgmma_64_tf32", "gemm_wgmma_112_tf32", "gemm_wgmma_128_tf32",
    "gemm_wgmma_192_tf32", "gemm_wgmma_224_tf32", "gemm_wgmma_256_tf32",
):  # fmt: skip
    CASES[name.removeprefix("gemm_")] = HOPPER, partial(gemm_wgmma, kernel=name)


def turned_wgmma(run: Runner, n: int, kernel: str, dtype: Any) -> None:
    """Operands with k as the slow index: blocks of 64 columns apart from each other, and the
    columns of taps, that share most of their rows: one pixel apart in a patch 10 pixels wide."""
    for first, eight, step in ((0, 8, 16), (13, 10, 1)):
        starts = first + step * np.arange(n // 64)
        rows = starts[:, None] + (np.arange(2)[:, None] * eight + np.arange(8)).reshape(16)
        a, b = numbers((16, 64), dtype, seed=1), numbers((rows.max() + 1, 64), dtype, seed=2)
        d, given = np.zeros((64, n), np.float32), [t.view(np.uint16) for t in (a, b)]
        geometry = map(i32, (len(b), first, eight, step))
        run(kernel, 128, *given, d, *geometry, shared=(16 + len(b)) * 128)
        x, y = (t.astype(np.float64) for t in (a, b))
        expected = np.concatenate([x.T @ y[block] for block in rows], axis=1)
        magnitude = np.concatenate([abs(x.T) @ abs(y[block]) for block in rows], axis=1)
        assert (abs(d - expected) <= 17 * np.finfo(np.float32).eps * magnitude).all()


@case(HOPPER)
def wgmma_m64n128k16_mn(run: Runner) -> None:
    turned_wgmma(run, 128, "turned_wgmma_128", np.float16)
    turned_wgmma(run, 128, "turned_wgmma_128_bf16", ml_dtypes.bfloat16)


@case(HOPPER)
def wgmma_m64n192k16_mn(run: Runner) -> None:
    turned_wgmma(run, 192, "turned_wgmma_192", np.float16)
    turned_wgmma(run, 192, "turned_wgmma_192_bf16", ml_dtypes.bfloat16)


@case(HOPPER)
def wgmma_m64n256k16_mn(run: Runner) -> None:
    turned_wgmma(run, 256, "turned_wgmma_256", np.float16)
    turned_wgmma(run, 256, "turned_wgmma_256_bf16", ml_dtypes.bfloat16)


# ---- TMA ----------------------------------------------------------------------------------------


def swizzled(rows: np.ndarray) -> np.ndarray:
    """Rows of 128 bytes as the 128-byte swizzle stores them: piece p of row r at p xor r % 8."""
    pieces = rows.view(np.uint8).reshape(len(rows), 8, 16)
    places = np.arange(8)[None] ^ (np.arange(len(rows)) % 8)[:, None]
    return np.take_along_axis(pieces, places[..., None], axis=1).reshape(-1)


def tile(run: Runner, swizzle: int) -> None:
    """A box of 8 rows of 64 numbers that sticks out of the tensor on two sides."""
    x, box, corner = numbers((20, 72), np.uint16), (64, 8), (16, 15)
    tensor = TensorMap(x, (72, 20), Tiles(box), swizzle)
    y = np.full(8 * 128, 7, np.uint8)
    run("load_tile", 64, tensor, y, i32(y.size), *map(i32, corner), shared=y.size + 8)
    expected = np.zeros((8, 64), np.uint16)
    expected[:5, :56] = x[15:, 16:]
    same(y, swizzled(expected) if swizzle else expected.view(np.uint8).reshape(-1))


@case(HOPPER)
def tma_load_2d(run: Runner) -> None:
    tile(run, swizzle=0)


@case(HOPPER)
def tma_load_2d_swizzled(run: Runner) -> None:
    tile(run, swizzle=128)


def pixels(run: Runner, first: int, tap: tuple[int, int], stride: tuple[int, int]) -> None:
    """16 pixels of a 3x3 convolution padded by 1, from the end of one image into the next.

    Of 72 channels the last 8, with zeros behind them.
    """
    images, height, width, channels, count = 2, 5, 6, 72, 16
    x = numbers((images, height, width, channels), np.uint16)
    (r, s), (down, across) = tap, stride
    copies = Pixels((-1, -1), (-1, -1), 64, count, (across, down))
    tensor = TensorMap(x, (channels, width, height, images), copies)
    outputs = images, (height - 1) // down + 1, (width - 1) // across + 1
    n, p, q = np.unravel_index(first + np.arange(count), outputs)
    y, (h, w) = np.full(count * 128, 7, np.uint8), (down * p, across * q)
    run(
        "load_im2col", 64, tensor, y, i32(y.size), i32(64), i32(w[0] - 1), i32(h[0] - 1), i32(n[0]),
        i32(s), i32(r), shared=y.size + 8,
    )  # fmt: skip
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 56)))
    same(y, swizzled(padded[n, h + r, w + s, 64:]))


@case(HOPPER)
def tma_load_im2col(run: Runner) -> None:
    pixels(run, 20, (2, 0), (1, 1))


@case(HOPPER)
def tma_load_im2col_strided(run: Runner) -> None:
    pixels(run, 5, (0, 2), (2, 1))
    pixels(run, 3, (2, 1), (1, 2))


@case(HOPPER)
def tma_load_3d(run: Runner) -> None:
    """One tap of 8 filters of 72 channels: the last are beyond both ends."""
    x = numbers((12, 3, 72), np.uint16)
    tensor = TensorMap(x, (72, 3, 12), Tiles((64, 1, 8)))
    y = np.full(8 * 128, 7, np.uint8)
    run("load_tile_3d", 64, tensor, y, i32(y.size), i32(64), i32(1), i32(8), shared=y.size + 8)
    expected = np.zeros((8, 64), np.uint16)
    expected[:4, :8] = x[8:, 1, 64:]
    same(y, swizzled(expected))


@case(HOPPER)
def tma_load_4d(run: Runner) -> None:
    """A patch of 5 x 4 pixels that sticks out of an image above and on the left."""
    x = numbers((2, 6, 7, 64), np.uint16)
    tensor = TensorMap(x, (64, 7, 6, 2), Tiles((64, 4, 5, 1)))
    y = np.full(5 * 4 * 128, 7, np.uint8)
    corner = map(i32, (0, -1, -2, 1))
    run("load_tile_4d", 64, tensor, y, i32(y.size), *corner, shared=y.size + 8)
    padded = np.pad(x[1], ((2, 0), (1, 0), (0, 0)))
    same(y, swizzled(padded[:5, :4].reshape(20, 64)))


@case(HOPPER)
def multicast(run: Runner) -> None:
    """Two blocks bring halves of 16 filters' taps, and of 16 pixels under those taps, to both."""
    phases, y = 3, np.full((2, 3, 32 * 128), 7, np.uint8)
    w, x = numbers((16, 3, 64), np.uint16), numbers((1, 4, 4, 64), np.uint16, seed=1)
    rows = TensorMap(w, (64, 3, 16), Tiles((64, 1, 8)))
    pixels = TensorMap(x, (64, 4, 4, 1), Pixels((-1, -1), (-1, -1), 64, 8))
    run("multicast", 64, rows, pixels, y, i32(phases), shared=y.shape[-1] + 16, blocks=2)
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    for s in range(phases):  # under the taps of the middle row
        under_tap = padded[1:5, s : s + 4].reshape(16, 64)
        stage = np.concatenate([swizzled(w[:, s]), swizzled(np.ascontiguousarray(under_tap))])
        same(y[:, s], np.stack([stage, stage]))


@case(HOPPER)
def tma_store_2d(run: Runner) -> None:
    y, rows = numbers((20, 72), np.uint16), numbers((8, 64), np.uint16, seed=1)
    expected = y.copy()
    expected[15:, 16:] = rows[:5, :56]
    tensor, x = TensorMap(y, (72, 20), Tiles((64, 8))), swizzled(rows)
    run("store_tile", 64, tensor, x, i32(x.size), i32(16), i32(15), shared=x.size)
    same(y, expected)


@case(HOPPER)
def tma_store_4d(run: Runner) -> None:
    """A patch of 5 x 4 pixels that sticks out of an image below and on the right."""
    y, rows = numbers((2, 6, 7, 64), np.uint16), numbers((5, 4, 64), np.uint16, seed=1)
    expected = y.copy()
    expected[0, 3:, 5:] = rows[:3, :2]
    tensor = TensorMap(y, (64, 7, 6, 2), Tiles((64, 4, 5, 1)))
    x, corner = swizzled(rows.reshape(20, 64)), map(i32, (0, 5, 3, 0))
    run("store_tile_4d", 64, tensor, x, i32(x.size), *corner, shared=x.size)
    same(y, expected)
