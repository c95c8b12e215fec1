"""The NumPy backend's operations on pixel-major memory: the same numbers as on C-contiguous arrays.

The cases of tests/operations run once more with every activation laid out as (*spatial, N, C), and
so are held to the reference and its tolerance; further down, orders are mixed and threads counted.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import gpucnn
from gpucnn.backends import get_backend, use_backend
from gpucnn.backends.base import ACTIVATIONS, FROM_OUTPUT, POINTWISE_LOSSES, accumulator
from gpucnn.backends.numpy import memory, workers
from gpucnn.shapes import NormShape, PoolShape
from tests.cases import DTYPES, pixel_major
from tests.operations import (
    test_activation,
    test_change_layout,
    test_dropout,
    test_loss,
    test_norm,
    test_optimizer,
    test_pool,
)
from tests.operations.conftest import Runner, same_bits
from tests.tolerance import assert_close

backend = get_backend("numpy")
both_formats = pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])

SMALL = (3, 5, 6, 7)  # N, H, W, C
LARGE = (32, 33, 10, 48)  # several blocks
POOLINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "halves": (2, {}),
    "overlapping windows": (3, {"strides": 2, "padding": 1}),
    "odd windows": ((2, 3), {"strides": (1, 2), "dilation": (2, 1), "ceil_mode": True}),
}


# ---- the cases of tests/operations -----------------------------------------------------------


class PixelMajor(Runner):
    """Runs an operation on activations in pixel-major memory."""

    channels_last = True

    def __call__(self, operation: str, *arguments: Any) -> Any:
        records = [a for a in arguments if isinstance(a, (NormShape, PoolShape))]
        self.channels_last = all(record.channels_last for record in records)
        return super().__call__(operation, *arguments)

    def device(self, array: Any) -> Any:
        if not isinstance(array, np.ndarray):
            return super().device(array)
        moved = pixel_major(array, self.channels_last)
        moved.setflags(write=False)
        return moved


@pytest.fixture
def run() -> Runner:
    with use_backend(backend):
        yield PixelMajor(backend, runs=2)


def _take_over(module: ModuleType) -> None:
    """Collect those tests of a module that run one operation, under this module's ``run``."""
    family = module.__name__.rpartition("test_")[2]
    for name, test in vars(module).items():
        if name.startswith("test_") and "run" in inspect.signature(test).parameters:
            globals()[f"test_{family}_{name.removeprefix('test_')}"] = test


for _module in (
    test_activation, test_change_layout, test_dropout, test_loss, test_norm, test_optimizer,
    test_pool,
):  # fmt: skip
    _take_over(_module)


# ---- one order beside the other --------------------------------------------------------------

Lay = Callable[[np.ndarray, bool], np.ndarray]
Results = dict[str, tuple[np.ndarray | None, ...]]


def c_order(array: np.ndarray, channels_last: bool) -> np.ndarray:
    return array.copy()


def random(shape: tuple[int, ...], seed: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def in_format(shape: tuple[int, ...], channels_last: bool) -> tuple[int, ...]:
    return shape if channels_last else (shape[0], shape[-1], *shape[1:-1])


def elementwise(
    shape: tuple[int, ...], last: bool, dtype: Any, lay: Lay, lay_other: Lay
) -> Results:
    """Run what works out each number alone, or sums in an order that the shape gives.

    Outputs and inputs of the forward pass lie as ``lay`` says, gradients as ``lay_other``.
    """
    x, dy = lay(random(shape, 0, dtype), last), lay_other(random(shape, 1, dtype), last)
    results: Results = {}
    for kind in sorted(ACTIVATIONS):
        y = backend.activation_forward(x, kind, 0.2)
        saved = y if kind in FROM_OUTPUT else x
        results[kind] = (y, backend.activation_backward(dy, saved, kind, 0.2))
    norm = NormShape.of(shape, channels_last=last)
    gamma, beta, slope = (random((norm.channels,), seed, dtype) for seed in (2, 3, 4))
    mean = beta.astype(accumulator(dtype))
    given = (gamma, mean, np.square(mean), 1e-3)
    results["prelu"] = (
        backend.prelu_forward(x, slope, norm),
        backend.prelu_backward(dy, x, slope, norm)[0],
    )
    infer = partial(backend.batch_norm_infer, x, gamma, beta, *given[1:], norm)
    results["batch norm"] = (infer("linear", None), infer("relu", None), infer("relu", dy))
    back = partial(backend.batch_norm_backward, dy, x, *given, False, norm)
    results["batch norm, backward"] = (
        back()[0], back("relu", beta)[0], back("relu", None, x)[0], back("relu", None, x)[3]
    )  # fmt: skip
    results["dropout"] = (backend.dropout(x, 0.4, 12, 34),)
    for kind in sorted(POINTWISE_LOSSES):
        results[kind] = backend.pointwise_loss(x, dy, kind, 0.5)
    return results


def poolings(shape: tuple[int, ...], last: bool, dtype: Any, lay: Lay, lay_other: Lay) -> Results:
    """Run every pooling, forward and back; with ties, infinities and NaN."""
    values = np.round(random(shape, 0), 1).astype(dtype)
    for special, seed in ((np.nan, 7), (np.inf, 8), (-np.inf, 9)):
        values[random(shape, seed) > 2.5] = special
    x, results = lay(values, last), {}
    for mode in ("max", "min", "average", "sum"):
        for name, (size, geometry) in POOLINGS.items():
            pool = PoolShape.of(shape, size, mode=mode, rank=2, channels_last=last, **geometry)
            y, index = backend.pool_forward(x, pool)
            assert same_bits(backend.pool_forward(x, pool, with_index=False)[0], y)
            dy = lay_other(random(pool.y_shape, 1, dtype), last)
            results[f"{mode} of {name}"] = (y, index, backend.pool_backward(dy, index, pool))
    return results


def reductions(shape: tuple[int, ...], last: bool, dtype: Any, lay: Lay, lay_other: Lay) -> Results:
    """Run what adds up over the activation."""
    x, dy = lay(random(shape, 0, dtype), last), lay_other(random(shape, 1, dtype), last)
    norm = NormShape.of(shape, channels_last=last)
    groups = replace(norm, groups=norm.channels // 2 if norm.channels % 2 == 0 else 1)
    gamma, beta = (random((norm.channels,), seed, dtype) for seed in (2, 3))
    y, mean, var = backend.batch_norm_train(x, gamma, beta, 1e-3, norm, "relu", dy)
    back = partial(backend.batch_norm_backward, dy, x, gamma, mean, var, 1e-3, True, norm)
    z, *statistics = backend.group_norm_forward(x, gamma, beta, 1e-3, groups)
    return {
        "bias": (backend.bias_grad(dy, norm),),
        "batch norm": (y, mean, var),
        "batch norm, backward": (*back(), *back("relu", beta), *back("relu", None, y)),
        "group norm": (z, *statistics),
        "group norm, backward": backend.group_norm_backward(
            dy, x, gamma, *statistics, 1e-3, groups
        ),
        "prelu": backend.prelu_backward(dy, x, gamma, norm),
        "global norm": (backend.gradient_scale([x, dy, gamma])[0],),
    }


@both_formats
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("run_all", [elementwise, poolings])
@pytest.mark.parametrize("lay_other", [pixel_major, c_order])
def test_the_order_of_memory_changes_no_bit(run_all, lay_other, dtype, channels_last):
    shape, dtype = in_format(SMALL, channels_last), DTYPES[dtype]
    expected = run_all(shape, channels_last, dtype, c_order, c_order)
    got = run_all(shape, channels_last, dtype, pixel_major, lay_other)
    for name, arrays in got.items():
        assert all(map(same_bits, arrays, expected[name])), name
        for array in arrays:
            assert array is None or memory.is_pixel_major(array, channels_last), name


@both_formats
@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("lay_other", [pixel_major, c_order])
def test_sums_agree_in_any_order_of_memory(shape, lay_other, channels_last):
    shape = in_format(shape, channels_last)
    expected = reductions(shape, channels_last, np.float64, c_order, c_order)
    got = reductions(shape, channels_last, np.float64, pixel_major, lay_other)
    for name, arrays in got.items():
        for array, other in zip(arrays, expected[name], strict=True):
            if array is None:
                assert other is None
                continue
            assert_close(array, other, reduction=math.prod(shape), magnitude=1 + np.abs(other))
            assert array.ndim < 4 or memory.is_pixel_major(array, channels_last), name


@both_formats
@pytest.mark.parametrize("lay", [pixel_major, c_order])
@pytest.mark.parametrize("run_all", [elementwise, poolings, reductions])
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, run_all, lay, channels_last):
    shape, results = in_format(LARGE, channels_last), []
    for threads in (1, 2, 4):
        monkeypatch.setattr(workers, "thread_count", lambda threads=threads: threads)
        monkeypatch.setattr(workers, "_workers", None)
        results.append(run_all(shape, channels_last, np.float32, lay, lay))
    for name, arrays in results[0].items():
        for other in results[1:]:
            assert all(map(same_bits, arrays, other[name])), name


def test_the_large_arrays_are_shared(monkeypatch):
    """So that the test above compares something."""
    shared = []
    monkeypatch.setattr(workers, "run", lambda function, parts: shared.append(parts))
    reductions(LARGE, True, np.float32, pixel_major, pixel_major)
    elementwise(LARGE, True, np.float32, pixel_major, pixel_major)
    assert min(shared) >= 4


@pytest.mark.parametrize("update", ["sgd", "adam"])
def test_parameters_are_updated_in_any_order_of_memory(update):
    """A gradient may lie otherwise than its parameter; what is updated keeps its place."""
    results = []
    for lay in (c_order, pixel_major):
        param, first, second = (random(SMALL, seed) ** 2 for seed in (0, 2, 3))
        gradient = lay(random(SMALL, 1), True)
        common = {"learning_rate": 0.1, "grad_scale": None}
        if update == "sgd":
            backend.sgd_update(
                [param], [gradient], [first], [0.1], momentum=0.9, nesterov=True, **common
            )
        else:
            backend.adam_update(
                [param], [gradient], [first], [second], [0.1], beta_1=0.9, beta_2=0.99,
                epsilon=1e-3, correction_1=0.19, correction_2=0.0199, decoupled=True, **common,
            )  # fmt: skip
        results.append((param, first, second))
    assert all(map(same_bits, *results))


# ---- how arrays come in and go out -----------------------------------------------------------


@both_formats
def test_what_is_arranged_already_passes_through(channels_last):
    for x in (random(SMALL, 0), pixel_major(random(SMALL, 0), channels_last)):
        assert backend.arranged(x) is x


@both_formats
def test_a_part_of_a_pixel_major_array_becomes_pixel_major(channels_last):
    x = pixel_major(random(SMALL, 0), channels_last)
    for part in (x[:2], x[..., 1:4], x[:, 1:], x[:, :, ::2]):
        copied = backend.arranged(part)
        assert copied.flags.owndata or copied.base.flags.owndata
        assert memory.is_pixel_major(copied, channels_last)
        np.testing.assert_array_equal(copied, part)


def test_any_other_view_becomes_c_contiguous():
    x = random(SMALL, 0)
    views = (
        x[::-1],
        x[:, ::2],
        x.transpose(3, 1, 0, 2),
        np.broadcast_to(x[:1], x.shape),
        x[0, 0].T,
    )
    for view in views:
        copied = backend.arranged(view)
        assert copied.flags.c_contiguous
        np.testing.assert_array_equal(copied, view)


@both_formats
def test_an_activation_may_lie_as_the_other_format_would(channels_last):
    """Memory (*spatial, N, C) of one data format is just a view of any strides in the other."""
    x, dy = (pixel_major(random((4, 6, 6, 6), seed), not channels_last) for seed in (0, 1))
    expected = poolings(x.shape, channels_last, np.float32, c_order, c_order)

    def other(array: np.ndarray, last: bool) -> np.ndarray:
        return pixel_major(array, not last)

    for name, arrays in poolings(x.shape, channels_last, np.float32, other, other).items():
        assert all(map(same_bits, arrays, expected[name])), name
    norm = NormShape.of(x.shape, channels_last=channels_last, groups=2)
    gamma, beta = random((2, 6), 2)
    for run_norm in (
        lambda x: backend.batch_norm_train(x, gamma, beta, 1e-3, norm),
        lambda x: backend.group_norm_forward(x, gamma, beta, 1e-3, norm),
        lambda x: backend.prelu_backward(dy, x, gamma, norm),
    ):
        for got, plain in zip(run_norm(x), run_norm(x.copy()), strict=True):
            np.testing.assert_allclose(got, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_network_gives_the_same_for_any_strides(data_format):
    """Through layers that reshape, merge and flatten; what is kept is in C order."""
    last = data_format == "channels_last"
    axis = -1 if last else 1
    shape = (8, 8, 4) if last else (4, 8, 8)
    inputs = gpucnn.Input(shape)
    a = gpucnn.MaxPool2D(2, data_format=data_format)(gpucnn.ReLU()(inputs))
    b = gpucnn.BatchNormalization(axis=axis)(a)
    joined = gpucnn.Concatenate(axis=axis)([a, gpucnn.Add()([a, b])])
    features = gpucnn.Flatten()(gpucnn.Softmax(axis=axis)(joined))
    model = gpucnn.Graph(inputs, gpucnn.Dense(3)(features))
    x = random((5, *shape), 0)
    results = []
    for lay in (c_order, pixel_major, lambda x, last: x[::-1].copy()[::-1]):
        model.build(shape)
        y = model.forward(lay(x, last), training=True)
        dx = model.backward(np.ones_like(y))
        results.append((y, dx, *model.grads.values()))
    for other in results[1:]:
        for got, plain in zip(other, results[0], strict=True):
            np.testing.assert_allclose(got, plain, rtol=1e-4, atol=1e-5)
    assert backend.to_numpy(results[1][1]).flags.c_contiguous
    assert all(array.flags.c_contiguous for array in model.params.values())
