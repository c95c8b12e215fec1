"""The emulator itself: what it computes, and that it reports each kind of mistake."""

from __future__ import annotations

import ctypes
import math
import re
import shutil
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.emulator import KernelError, Module
from tests.emulator.build import CXX

SOURCE = Path(__file__).parent / "emulator" / "selftest.cu"
NAMES = [
    *["warp_sum<true>", "warp_sum<false>", "named_barriers<true>", "named_barriers<false>"],
    *["last_block", "warp_functions", "atomics", "conversions", "functions", "vectors"],
    *["by_value", "add_one", "shared_bytes", "dynamic_shared", "copy", "exchange"],
    *["shuffle_outside_mask", "divergent_barrier", "overflow", "wild", "one_past", "null"],
    *["write_const"],
    *["uninitialised_shared", "uninitialised_local", "same_element", "endless", "failing_assert"],
    *["dependent<true>", "dependent<false>"],
]
f32 = np.float32
pytestmark = pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no {CXX}")


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return {mode: Module(SOURCE, NAMES, mode=mode) for mode in ("fast", "check")}


@pytest.fixture(params=["fast", "check"])
def get(request, modules):
    """The kernels, in both builds."""
    return modules[request.param].get_function


@pytest.fixture
def check(modules):
    return modules["check"].get_function


# ---- what works ---------------------------------------------------------------------------------
@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_warp_sum(get, order):
    x, y = np.arange(128, dtype=f32), np.zeros(4, f32)
    get("warp_sum<true>")((1,), (128,), (x, y), order=order)
    np.testing.assert_array_equal(y, x.reshape(4, 32).sum(1) * [1, 2, 4, 8])


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_named_barriers(get, order):
    x, y = np.arange(192, dtype=f32), np.zeros(192, f32)
    get("named_barriers<true>")((1,), (128,), (x, y), order=order)
    np.testing.assert_array_equal(y.reshape(-1, 2), 2 * x.reshape(-1, 2)[:, ::-1])


@pytest.mark.parametrize("threads", [1, 2])
def test_last_block_adds_the_partial_sums(get, threads):
    x, out = np.arange(256, dtype=f32), np.zeros(1, f32)
    arrays = (x, np.zeros(8, f32), np.zeros(1, np.uint32), out)
    get("last_block")((8,), (32,), arrays, threads=threads, block_races=False)
    assert out[0] == x.sum()


def test_warp_functions(get):
    right = np.zeros(32, np.int32)
    get("warp_functions")((1,), (32,), (right,))
    np.testing.assert_array_equal(right, 8)


def test_atomics(get):
    i, u = np.array([-100, 100, 0], np.int32), np.array([0, 0, 2**32 - 1], np.uint32)
    f, d, wide = np.zeros(1, f32), np.zeros(1), np.array([0, 5], np.uint64)
    get("atomics")((1,), (32,), (i, u, f, d, wide))
    assert i.tolist() == [-9, -40, -496]
    assert u.tolist() == [96, 2**32 - 1, 2**32 - 32]
    assert (f[0], d[0], wide.tolist()) == (16, 8, [32 << 40, 9])


def test_conversions(get):
    half = (np.arange(32) / 7).astype(np.float16)
    bfloat = (np.arange(32) / 3).astype(ml_dtypes.bfloat16)
    y, bits = np.zeros(32, f32), np.zeros((32, 2), np.uint16)
    get("conversions")((1,), (32,), (half, bfloat, y, bits))
    want = half.astype(f32) + bfloat.astype(f32)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(bits[:, 0], want.astype(np.float16).view(np.uint16))
    np.testing.assert_array_equal(bits[:, 1], want.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_functions(get):
    x, y = 0.7, np.zeros(38)
    get("functions")((1,), (1,), (f32(x), np.float64(x), y))
    single = [
        *[math.exp(x), math.log(x), math.log1p(x), math.expm1(x), math.erf(x), math.tanh(x)],
        *[x**0.5, x**-0.5, 1, x, math.exp(x), math.log(x), x, 0, x**3],
    ]
    double = [
        *[math.exp(x), math.log(x), math.erf(x), math.tanh(x), x**0.5, x**-0.5, 1, x],
        *[math.log1p(x), math.expm1(x), x * x + 1],
    ]
    exact = [0, 1, 3, 5, float(f32(x) / 2), 3, 3, -2, 31, 4, 2**31, 1]
    np.testing.assert_allclose(y[: len(single)], single, rtol=2e-7)
    np.testing.assert_allclose(y[len(single) : len(single) + len(double)], double, rtol=1e-15)
    assert y[len(single) + len(double) :].tolist() == exact


def test_vectors(get):
    rng = np.random.default_rng(0)
    x, y = rng.random((64, 4), f32), np.zeros((64, 4), f32)
    index = np.zeros((64, 4), np.uint32)
    get("vectors")((1,), (8, 4, 2), (x, y, index))
    other = np.roll(x, 32, axis=0)  # the same (x, y), the other z
    np.testing.assert_array_equal(y, other[:, ::-1] * np.array([2, 1, 1, 1], f32))
    z, yy, xx = np.indices((2, 4, 8)).reshape(3, 64)
    np.testing.assert_array_equal(index, np.stack([xx, yy, z, 0 * z], axis=1))


def test_struct_by_value(get):
    layout = np.dtype([("n", "i4"), ("by", "f4", 5), ("offset", "f8")], align=True)
    scale, y = np.zeros(1, layout), np.zeros(5, f32)
    scale["n"], scale["by"], scale["offset"] = 5, np.arange(5), 10
    for struct in (scale, scale[0]):  # an array of one, a structured scalar
        y[:] = 0
        get("by_value")((1,), (32,), (y, struct))
        np.testing.assert_array_equal(y, np.arange(5) + 10)


def test_tensors_behind_a_table_of_addresses(get):
    tensors = [np.zeros(n, f32) for n in (32, 32)]
    table = np.array([t.ctypes.data for t in tensors], np.uint64)
    get("add_one")((2,), (32,), (table, np.int32(32)), extra=tensors)
    np.testing.assert_array_equal(tensors, np.ones((2, 32)))


def test_neighbouring_bytes_are_no_race(get):
    y = np.zeros(32, np.uint8)
    get("shared_bytes")((1,), (32,), (y,))
    np.testing.assert_array_equal(y, np.arange(32) ^ 1)


def test_dynamic_shared_memory(get):
    y = np.zeros(32, f32)
    get("dynamic_shared")((1,), (32,), (y, np.int32(32)), shared_mem=256)
    np.testing.assert_array_equal(y, np.arange(32) ^ 1)


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_blocks_of_a_cluster_meet(get, order):
    y, z = np.zeros(128, f32), np.zeros(128, f32)
    get("exchange")((2,), (64,), (y, z, np.int32(0)), 8, order=order)
    np.testing.assert_array_equal(z, np.roll(np.arange(128), 64))


def test_in_place_on_overlapping_arguments(get):
    x = np.arange(32, dtype=f32)
    get("copy")((1,), (32,), (x, x))  # x is const for the first parameter only
    get("copy")((1,), (31,), (x[1:], x[1:].view()))
    np.testing.assert_array_equal(x, np.arange(32))


def test_half_rounding(modules):
    convert = modules["fast"].runtime.emu_float_to_half
    convert.argtypes, convert.restype = [ctypes.c_float], ctypes.c_uint16
    rng = np.random.default_rng(1)
    values = rng.standard_normal(20000) * 10.0 ** rng.integers(-9, 6, 20000)
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].astype(f32)
    middles = (halves[:-1] + halves[1:]) / 2  # ties, except where the sign changes
    edges = [65519.9, 65520, 65504, 5.9e-8, 2.98e-8, 2.981e-8, np.inf, -np.inf]
    values = np.concatenate([values, halves, middles, edges]).astype(f32)
    with np.errstate(over="ignore"):
        want = values.astype(np.float16).view(np.uint16)
    assert [convert(v) for v in values.tolist()] == want.tolist()


# ---- what is reported, in `check` ---------------------------------------------------------------
def line_of(text: str) -> str:
    lines = SOURCE.read_text().splitlines()
    return f"selftest.cu:{next(i for i, line in enumerate(lines, 1) if text in line)}"


def test_missing_syncwarp_is_a_race(check):
    with pytest.raises(KernelError, match=r"data race on __shared__ s\+") as error:
        check("warp_sum<false>")((1,), (128,), (np.zeros(128, f32), np.zeros(4, f32)))
    assert line_of("s[w][lane] = v;") in str(error.value)
    assert line_of("float v = s[w][lane] + ") in str(error.value)


def test_missing_named_barrier_is_a_race(check):
    with pytest.raises(KernelError, match="data race on __shared__ s"):
        check("named_barriers<false>")((1,), (128,), (np.zeros(192, f32), np.zeros(192, f32)))


def test_blocks_that_share_memory_are_a_race(check):
    arrays = (np.zeros(256, f32), np.zeros(8, f32), np.zeros(1, np.uint32), np.zeros(1, f32))
    with pytest.raises(KernelError, match="by another block, thread 0"):
        check("last_block")((8,), (32,), arrays)
    with pytest.raises(KernelError, match=r"write.*conflicts with write.*by another block"):
        check("same_element")((2,), (1,), (np.zeros(1, f32),))


@pytest.mark.parametrize(
    "name, args, message",
    [
        ("same_element", (), r"data race on argument 0\+0: write at .* conflicts with write"),
        ("divergent_barrier", (), "divergent __syncthreads: thread 8 waits at line"),
        ("overflow", (np.int32(70000),), r"undefined behaviour: signed overflow in \* at selftest"),
        (
            "one_past",
            (np.int32(32),),
            "out-of-bounds write of 4 bytes at selftest.cu:.*: byte 128 ",
        ),
        ("one_past", (np.int32(-1),), "byte -4 of argument 0, which has 128 bytes"),
        ("wild", (), "out-of-bounds write .* the address is in no known buffer"),
        ("write_const", (), "write to read-only buffer argument 0 at selftest.cu"),
        ("uninitialised_shared", (), r"read of uninitialised __shared__ s\+0 at selftest.cu"),
        ("failing_assert", (), r"assert\(threadIdx.x != 3\)"),
        ("dynamic_shared", (np.int32(64),), "out-of-bounds write .* of dynamic shared memory"),
    ],
)
def test_reported(check, name, args, message):
    shared_mem = 256 if name == "dynamic_shared" else 0
    with pytest.raises(KernelError, match=message):
        check(name)((1,), (32,), (np.zeros(32, f32), *args), shared_mem)


@pytest.mark.parametrize(
    "name, waiting, message",
    [
        ("dependent<true>", 32, None),
        ("dependent<true>", 31, r"a thread ends without having waited .*\(31,0,0\)"),
        ("dependent<false>", 32, r"write of argument 0\+0 at selftest.* before the wait"),
    ],
)
def test_a_dependent_launch_must_wait(check, name, waiting, message):
    y = np.full(32, -1, f32)
    call = partial(check(name), (1,), (32,), (y, np.int32(waiting)))
    if message is None:
        call(dependent=True)
    else:
        with pytest.raises(KernelError, match=re.compile(message, re.DOTALL)):
            call(dependent=True)
        call()  # an ordinary launch has nothing to wait for
    np.testing.assert_array_equal(y[:waiting], np.arange(waiting))


@pytest.mark.parametrize(
    "wrong, order, message",
    [
        (1, "forward", r"barrier.cluster.arrive .*: the thread has arrived and not waited"),
        (2, "forward", r"data race on argument 0\+.* by another block, thread"),
        (3, "forward", "mapa: the cluster has 2 blocks, none of rank 2"),
        (4, "forward", "use of the shared memory of block 0 of the cluster, which has ended"),
        (4, "reverse", "a block ends while another of its cluster may still use its shared memory"),
    ],
)
def test_what_a_cluster_does_wrong_is_reported(check, wrong, order, message):
    arrays = np.zeros(64, f32), np.zeros(64, f32)
    with pytest.raises(KernelError, match=message):
        check("exchange")((2,), (32,), (*arrays, np.int32(wrong)), 8, order=order)


def test_tensors_behind_a_table_must_be_known_and_writable(check):
    tensor = np.zeros(32, f32)
    table = np.array([tensor.ctypes.data], np.uint64)
    with pytest.raises(KernelError, match="out-of-bounds read of 4 bytes"):
        check("add_one")((1,), (32,), (table, np.int32(32)))
    tensor.flags.writeable = False
    with pytest.raises(KernelError, match="write to read-only buffer extra array 0"):
        check("add_one")((1,), (32,), (table, np.int32(32)), extra=[tensor])


def test_uninitialised_locals_are_garbage(check):
    y = np.zeros(32, f32)
    check("uninitialised_local")((1,), (32,), (y, np.int32(6)))
    assert abs(y[0]) > 1e30


# ---- what is reported, in both builds -----------------------------------------------------------
def test_shuffle_outside_the_mask(get):
    with pytest.raises(
        KernelError, match="lane 0 reads lane 20, which is not in the mask 000000ff"
    ):
        get("shuffle_outside_mask")((1,), (32,), (np.zeros(32, f32),))


def test_wild_and_null_pointers(get):
    with pytest.raises(KernelError, match=r"out-of-bounds|invalid memory access"):
        get("wild")((1,), (1,), (np.zeros(2, f32),))
    with pytest.raises(KernelError, match=r"null pointer|invalid memory access"):
        get("null")((1,), (1,), (None,))


def test_endless_kernels_end(get):
    with pytest.raises(KernelError, match=r"still running after 0.2 s of CPU time"):
        get("endless")((1,), (1,), (np.zeros(2, f32),), time_limit=0.2)


def test_a_failed_launch_leaves_no_trace(get):
    for _ in range(3):
        with pytest.raises(KernelError):
            get("wild")((1,), (1,), (np.zeros(2, f32),))
        test_warp_sum(get, "random")


@pytest.mark.parametrize(
    "arg, message",
    [
        (np.float64(1), "the parameter is int of 4 bytes. Received: float64"),
        (np.int64(3), "the parameter is int of 4 bytes. Received: int64 of 8"),
        (3, "pass a NumPy scalar. Received: int"),
        (np.zeros(1, np.int32), "pass a NumPy scalar. Received: ndarray"),
    ],
)
def test_scalars_must_fit_the_parameter(check, arg, message):
    with pytest.raises(TypeError, match=message):
        check("overflow")((1,), (1,), (np.zeros(2, f32), arg))


def test_arrays_must_be_usable(check):
    x = np.zeros((4, 8), f32)
    with pytest.raises(ValueError, match="argument 0 must be C-contiguous"):
        check("copy")((1,), (32,), (x.T, x))
    with pytest.raises(ValueError, match="extra array 1 must be C-contiguous"):
        check("copy")((1,), (32,), (x, x), extra=[x, x[:, :2]])
    with pytest.raises(TypeError, match=r"copy has 2 parameters. Received: 1"):
        check("copy")((1,), (32,), (x,))
    with pytest.raises(TypeError, match=r"a pointer takes an array or None. Received: float32"):
        check("copy")((1,), (32,), (x, f32(1)))
    frozen = x.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"argument 1 is written to. Received: a read-only array"):
        check("copy")((1,), (32,), (x, frozen))
    scale = np.zeros(1, [("n", "i4"), ("by", "f4", 5)])
    with pytest.raises(
        TypeError, match=r"the parameter is struct of 32 bytes. Received: .* 24 byt"
    ):
        check("by_value")((1,), (32,), (x, scale))


def test_launch_limits(get):
    x = np.zeros(2048, f32)
    with pytest.raises(KernelError, match="invalid block size"):
        get("copy")((1,), (1025,), (x, x))
    with pytest.raises(KernelError, match="invalid grid size"):
        get("copy")((1, 65536), (1,), (x, x))
    with pytest.raises(KernelError, match="the grid is no multiple of the cluster"):
        get("exchange")((3,), (32,), (x, x.copy(), np.int32(0)), 8)
    with pytest.raises(KernelError, match="too much dynamic shared memory"):
        get("copy")((1,), (1,), (x, x), shared_mem=228 * 1024)
