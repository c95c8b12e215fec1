"""The optimizers, over many tensors at once and in place, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.backends.base import Backend, accumulator
from tests import reference
from tests.cases import DTYPES, random
from tests.tolerance import assert_close

from .conftest import same_bits

SHAPES = [(3, 5, 7), (1,), (0, 4), (2, 1031), (64,), ()]
STEPS = 3
ROUNDINGS = 12  # of one update: the second moment of Adam, its root and its quotient


def tensors(name: str, dtype: Any, low: float = -1, shapes: Any = SHAPES) -> list[np.ndarray]:
    return [random(f"{name} {i}", shape, dtype, low) for i, shape in enumerate(shapes)]


def check_updates(
    backend: Backend, operation: str, dtype: str, states: int, scale: float | None,
    settings: Any, shapes: Any = SHAPES,
) -> None:  # fmt: skip
    """Take a few steps from given states and compare every tensor after each of them.

    ``settings`` gives the keywords of a step. Each step starts from the backend's own results, so
    that the tolerance is that of one update.
    """
    to_device, accum = backend.asarray, accumulator(DTYPES[dtype])
    decays = [0.0 if i % 3 == 1 else 0.05 for i in range(len(shapes))]
    now = [tensors("p", DTYPES[dtype], shapes=shapes)]
    now += [tensors(f"state {i}", accum, low=0, shapes=shapes) for i in range(states)]
    device = [[to_device(a.copy()) for a in group] for group in now]
    given = [list(group) for group in device]
    clip = None if scale is None else to_device(np.array(scale, accum))
    update = getattr(reference, operation)
    for step in range(1, STEPS + 1):
        grads = tensors(f"grad {step}", DTYPES[dtype], shapes=shapes)
        on_device = [to_device(g.copy()) for g in grads]
        params, *state = device
        getattr(backend, operation)(
            params, on_device, *state, decays, grad_scale=clip, **settings(step)
        )
        for group, objects in zip(device, given, strict=True):
            assert all(a is b for a, b in zip(group, objects, strict=True)), "not in place"
        for g, moved in zip(grads, on_device, strict=True):
            assert same_bits(g, backend.to_numpy(moved)), "a gradient was changed"
        after = [[backend.to_numpy(a) for a in group] for group in device]
        for i, g in enumerate(grads):
            old = [group[i] for group in now]
            factor = 1.0 if scale is None else float(np.asarray(scale, accum))
            arguments = (old[0], g, *old[1:], decays[i])
            expected = update(*arguments, grad_scale=factor, **settings(step))
            for what, group, value, kind in zip(
                ("parameter", "state", "second state"), after, expected,
                (DTYPES[dtype], accum, accum), strict=False,
            ):  # fmt: skip
                # every number here and every term is at most 3
                assert_close(
                    group[i], value, dtype=kind, reduction=ROUNDINGS, magnitude=3.0,
                    what=f"{what} {i} after step {step}",
                )  # fmt: skip
        now = after


@pytest.mark.parametrize("scale", [None, 0.37])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(every_backend, momentum, nesterov, dtype, scale):
    def settings(step: int) -> dict[str, Any]:
        return {"learning_rate": 0.1 / step, "momentum": momentum, "nesterov": nesterov}

    check_updates(every_backend, "sgd_update", dtype, 1, scale, settings)


@pytest.mark.parametrize("scale", [None, 0.37])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(every_backend, decoupled, dtype, scale):
    def settings(step: int) -> dict[str, Any]:
        return {
            "learning_rate": 0.1 / step, "beta_1": 0.9, "beta_2": 0.98, "epsilon": 1e-3,
            "step": step, "decoupled": decoupled,
        }  # fmt: skip

    check_updates(every_backend, "adam_update", dtype, 2, scale, settings)


def test_more_tensors_than_one_launch_may_take(every_backend):
    shapes = [(1 + i % 5,) for i in range(403)]

    def settings(step: int) -> dict[str, Any]:
        return {"learning_rate": 0.1, "momentum": 0.9, "nesterov": False}

    check_updates(every_backend, "sgd_update", "float32", 1, None, settings, shapes)


def test_large_tensors(every_backend):
    def settings(step: int) -> dict[str, Any]:
        return {
            "learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.98, "epsilon": 1e-3, "step": step,
            "decoupled": True,
        }  # fmt: skip

    shapes = [(139, 1001), (3,), (65537,)]
    check_updates(every_backend, "adam_update", "float32", 2, 0.5, settings, shapes)


def test_no_tensors_at_all(every_backend):
    every_backend.sgd_update(
        [], [], [], [], learning_rate=0.1, momentum=0.9, nesterov=False, grad_scale=None
    )
    every_backend.adam_update(
        [], [], [], [], [], learning_rate=0.1, beta_1=0.9, beta_2=0.99, epsilon=1e-8, step=1,
        decoupled=False, grad_scale=None,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_global_norm(run, dtype):
    arrays = tensors("g", DTYPES[dtype])
    count = sum(a.size for a in arrays)
    got = run("global_norm", arrays)
    expected = np.array(reference.global_norm(arrays))
    assert_close(got, expected, dtype=accumulator(DTYPES[dtype]), reduction=count)


def test_global_norm_of_many_elements(run):
    arrays = [random("g", shape, np.float32) for shape in ((139, 1001), (3,), (65537,))]
    expected = np.array(reference.global_norm(arrays))
    assert_close(run("global_norm", arrays), expected, dtype=np.float32, reduction=204679)


def test_global_norm_of_several_dtypes(run):
    for dtypes in (("float16", "float32"), ("float32", "float64"), ("bfloat16", "float64")):
        arrays = [random(d, (257,), DTYPES[d]) for d in dtypes]
        got = run("global_norm", arrays)
        expected = np.array(reference.global_norm(arrays))
        dtype = np.float64 if "float64" in dtypes else np.float32
        assert_close(got, expected, dtype=dtype, reduction=514)


def test_global_norm_of_what_float16_cannot_square(run):
    arrays = [np.full((5, 7), 3e4, np.float16), np.full(300, -3e4, np.float16)]
    expected = np.array(reference.global_norm(arrays))
    assert_close(run("global_norm", arrays), expected, dtype=np.float32, reduction=335)


def test_global_norm_sees_a_nan(run):
    arrays = [np.ones(5, np.float32), np.array([1, np.nan], np.float32)]
    assert np.isnan(run("global_norm", arrays))


def test_global_norm_of_nothing(run):
    for arrays in ([], [np.zeros((0, 3), np.float32)]):
        assert_close(run("global_norm", arrays), np.array(0.0, np.float32))
