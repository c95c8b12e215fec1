"""The way from the CUDA backend to a kernel: what is converted, cut or refused before a launch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.cuda import CudaBackend, launch
from gpucnn.backends.cuda.channels import Summing
from gpucnn.backends.cuda.compiler import CupyLauncher
from gpucnn.backends.cuda.dropout import DROPOUT
from gpucnn.shapes import ConvShape, NormShape, PoolShape
from tests.cases import DTYPES, random
from tests.emulator_launcher import EmulatorLauncher

KERNEL = DROPOUT("float32")


class Recorder:
    """A launcher that only remembers."""

    architecture, device = 90, 0

    def __init__(self) -> None:
        self.launches: list[SimpleNamespace] = []

    def launch(self, kernel, grid, block, arguments, pointees=()) -> None:
        self.launches.append(SimpleNamespace(kernel=kernel, grid=grid, arguments=arguments))


def launched(*arguments: Any, grid: Any = 1) -> tuple:
    backend = CudaBackend(np, Recorder())
    backend.launch(KERNEL, grid, 256, *arguments)
    return backend.launcher.launches[0].arguments


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (True, np.int32), (np.True_, np.int32), (3, np.int32), (-(2**31), np.int32),
        (0.5, np.float32), (np.float64(0.5), np.float64), (np.int64(3), np.int64),
        (np.uint32(2**32 - 1), np.uint32),
    ],
)  # fmt: skip
def test_a_number_has_the_width_of_its_parameter(given, dtype):
    (argument,) = launched(given)
    assert type(argument) is dtype
    assert argument == given


def test_arrays_and_null_go_as_they_are():
    array = np.zeros((2, 3), np.float32)
    given = launched(array, None)
    assert given[0] is array
    assert given[1] is None


def test_what_a_kernel_cannot_take_is_refused():
    with pytest.raises(ValueError, match=r"arrays must be C-contiguous.*strides \(4, 12\)"):
        launched(np.zeros((2, 3), np.float32).T)
    for size in (2**31, -(2**31) - 1):
        with pytest.raises(ValueError, match=f"a size passes 2\\^31.*Received: {size}"):
            launched(size)
    for grid in (2**31, (1, 65536), (1, 1, 65536)):
        with pytest.raises(ValueError, match="too large for one launch"):
            launched(grid=grid)


def test_no_block_is_no_launch():
    backend = CudaBackend(np, Recorder())
    for grid in (0, (3, 0), (0, 1, 2)):
        backend.launch(KERNEL, grid, 256)
    assert not backend.launcher.launches


def emulated() -> CudaBackend:
    return CudaBackend(np, EmulatorLauncher("fast"))


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_batch_is_cut_where_a_launch_would_count_too_far(monkeypatch, channels_last):
    """Three samples a launch, of seven: the same bits as in one launch."""
    shape = (7, 5, 4, 3)
    x, dy = random("x", shape, np.float32), random("dy", shape, np.float32)
    s = NormShape.of(shape, channels_last=channels_last)
    slope = random("slope", (s.channels,), np.float32)
    pools = [
        PoolShape.of(shape, 2, mode=mode, rank=2, strides=1, channels_last=channels_last)
        for mode in ("max", "average")
    ]

    def results(backend: CudaBackend) -> list[np.ndarray]:
        found = [backend.prelu_forward(x, slope, s), *backend.prelu_backward(dy, x, slope, s)]
        for pool in pools:
            y, index = backend.pool_forward(x, pool)
            found += [y] if index is None else [y, index]
            found.append(backend.pool_backward(y, index, pool))
        return found

    whole, launches = results(emulated()), Recorder()
    monkeypatch.setattr(launch, "MAX_COUNT", 3 * 60)
    for got, expected in zip(results(emulated()), whole, strict=True):
        np.testing.assert_array_equal(got, expected)
    CudaBackend(np, launches).prelu_forward(x, slope, s)
    assert [len(one.arguments[0]) for one in launches.launches] == [3, 3, 1]


def test_shapes_that_a_kernel_cannot_count_are_refused():
    for x_shape, w_shape, name in (
        ((1, 2**16, 2**15, 1), (1, 1, 1, 1), "one input image must be below 2^31"),
        ((2**12, 2**10, 2**10, 1), (1, 1, 1, 1), "the pixels of the batch must be below 2^31"),
        ((1, 2**29, 1), (1, 1, 1), "an axis of the padded input must be below 2^29"),
    ):
        x, w = (np.broadcast_to(np.float32(0), shape) for shape in (x_shape, w_shape))
        shape = ConvShape.of(x_shape, w_shape)
        with pytest.raises(ValueError, match="convolution: ") as caught:
            CudaBackend(SimpleNamespace(empty=lambda *_: None), Recorder()).conv_fprop(
                x, w, None, shape
            )
        assert name in str(caught.value)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("pack", [4, 8])
@pytest.mark.parametrize(("channels", "length"), [(64, 12544), (256, 3136), (300, 784), (512, 784)])
def test_blocks_of_sums_come_in_whole_waves(channels, length, pack, channels_last):
    """One block more than run at once would make all wait for it; and no step is summed twice."""
    shape = NormShape(32, channels, length, groups=1, channels_last=channels_last)
    for at_once in (264, 528):
        summing = Summing.of(shape, pack, at_once)
        blocks = np.prod(summing.grid)
        assert blocks / at_once / np.ceil(blocks / at_once) > 0.8
        per_split, steps = (summing.record[name][0] for name in ("steps_per_split", "steps"))
        assert (summing.grid[1] - 1) * per_split < steps <= summing.grid[1] * per_split


def test_a_sample_that_a_norm_cannot_step_over_is_refused():
    s = NormShape(batch=1, channels=1, length=2**29 + 1, groups=1, channels_last=False)
    x, one = np.broadcast_to(np.float32(0), s.axes), np.ones(1, np.float32)
    backend = CudaBackend(SimpleNamespace(empty_like=lambda a: a), Recorder())
    with pytest.raises(ValueError, match=r"batch norm: one sample, in whole packs must be below"):
        backend.batch_norm_infer(x, one, one, one, one, 1e-3, s)


@pytest.mark.parametrize(
    "wrong", [np.zeros(6, np.float64), np.zeros(5, np.float32), np.zeros(12, np.float32)[::2]]
)
@pytest.mark.parametrize("place", ["gradient", "velocity"])
def test_an_optimizer_refuses_what_is_unlike_its_parameter(place, wrong):
    right = np.zeros(6, np.float32)
    gradient, velocity = (wrong, right) if place == "gradient" else (right, wrong)
    with pytest.raises(ValueError, match=r"optimizer: .*here 6 numbers of float32\. Received"):
        CudaBackend(np, Recorder()).sgd_update(
            [right], [gradient], [velocity], [0.0], learning_rate=0.1, momentum=0.0,
            nesterov=False, grad_scale=None,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_and_its_name_ask_for_the_same_kernel(dtype):
    assert DROPOUT(DTYPES[dtype]) == DROPOUT(dtype)


def test_a_launch_is_refused_on_a_device_that_is_not_the_arrays(monkeypatch):
    cupy = pytest.importorskip("cupy", reason="the launcher is CuPy's")

    def array_on(device: int) -> Any:  # of memory that nobody will look at
        memory = cupy.cuda.UnownedMemory(0x1000, 64, None, device)
        return cupy.ndarray((4,), np.float32, cupy.cuda.MemoryPointer(memory, 0))

    started, launcher = [], CupyLauncher()
    launcher._functions[KERNEL, 1] = lambda *call, shared_mem: started.append((*call, shared_mem))
    monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda: 1)
    here, there = array_on(1), array_on(0)
    launcher.launch(KERNEL, (3,), (256,), (here, None, np.int32(4)))
    assert started == [((3,), (256,), (here, None, np.int32(4)), 0)]
    for arguments, pointees in (((here, there), ()), ((here,), (here, there))):
        with pytest.raises(ValueError, match=r"the current device, 1; .*Received: one on 0"):
            launcher.launch(KERNEL, (3,), (256,), arguments, pointees)
    assert len(started) == 1
