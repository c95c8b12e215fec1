"""Muon's operations, and the matrices that they make orthogonal, on every backend."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.base import accumulator
from gpucnn.optimizers.muon import orthogonal
from tests import reference
from tests.cases import DTYPES, random
from tests.tolerance import assert_close

from .conftest import same_bits

SHAPES = [(3, 5, 7), (40, 3), (0, 4), (2, 4100), (1, 1)]
MATRICES = [(7, 3, 2, 5), (37, 2, 3), (18, 18), (1, 9), (9, 1)]  # wide, tall, square


def tensors(name: str, dtype: Any) -> list[np.ndarray]:
    return [random(f"{name} {i}", shape, dtype) for i, shape in enumerate(SHAPES)]


@pytest.mark.parametrize("scale", [None, 0.37])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_direction(every_backend, dtype, nesterov, scale):
    dtype, accum, asarray = DTYPES[dtype], accumulator(DTYPES[dtype]), every_backend.asarray
    grads, velocities = tensors("g", dtype), tensors("v", accum)
    grads[1][:] = velocities[1][:] = 0
    device = [asarray(v.copy()) for v in velocities]
    got = every_backend.muon_direction(
        [asarray(g) for g in grads], device, momentum=0.9, nesterov=nesterov,
        grad_scale=None if scale is None else asarray(np.array(scale)),
    )  # fmt: skip
    for i, direction in enumerate(got):
        u, v = reference.muon_momentum(grads[i], velocities[i], 0.9, nesterov, scale or 1.0)
        norm = reference.global_norm([u]) or 1.0
        assert_close(
            every_backend.to_numpy(direction), u / norm, dtype=dtype, reduction=12,
            magnitude=4.0 / norm,
        )  # fmt: skip
        after = every_backend.to_numpy(device[i])
        assert_close(after, v, dtype=accum, reduction=3, magnitude=2.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_polynomial_of_a_matrix(run, dtype):
    a, b = (random(name, (37, 37), DTYPES[dtype]) for name in "ab")
    got = run("newton_schulz", a, b, (3.4445, -4.775, 2.0315))
    expected = 3.4445 * np.eye(37) - 4.775 * a.astype(float) + 2.0315 * b.astype(float)
    assert_close(got, expected, dtype=DTYPES[dtype], reduction=4, magnitude=11.0)


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_iteration(every_backend, dtype, shape):
    u = random("u", shape, DTYPES[dtype])
    u /= np.sqrt((u**2).sum())
    got = every_backend.to_numpy(orthogonal(every_backend, every_backend.asarray(u), 1))
    assert_close(
        got, reference.orthogonal(u, 1), dtype=u.dtype, reduction=2 * (u.size // len(u) + len(u)),
        magnitude=reference.orthogonal(u, 1, absolute=True),
    )  # fmt: skip


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_comes_is_nearly_orthogonal(every_backend, dtype, shape):
    """Of a matrix whose singular vectors are known, with values of very different sizes."""
    rows, columns = shape[0], prod(shape[1:])
    drawn = random("u", (rows, columns), np.float64)
    left, _, right = np.linalg.svd(drawn, full_matrices=False)
    values = np.geomspace(1, 1 / 16, min(rows, columns))
    u = ((left * values / np.linalg.norm(values)) @ right).reshape(shape)
    got = orthogonal(every_backend, every_backend.asarray(u.astype(DTYPES[dtype])), 5)
    got = every_backend.to_numpy(got).astype(np.float64).reshape(rows, columns)
    found = left.T @ got @ right.T / max(1.0, rows / columns) ** 0.5  # diagonal but for rounding
    diagonal = np.diag(found)
    assert (diagonal > 0.6).all() and (diagonal < 1.3).all()
    rounding = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype, 2.0**-24)
    # each iteration makes small values, and what rounding put beside them, 3.4 times as large
    assert np.linalg.norm(found - np.diag(diagonal), 2) < 3.4445**4 * rounding


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_update(every_backend, dtype):
    dtype, accum, asarray = DTYPES[dtype], accumulator(DTYPES[dtype]), every_backend.asarray
    steps, masters = tensors("step", dtype), tensors("p", accum)
    params, kept = [asarray(a.astype(dtype)) for a in masters], [asarray(a.copy()) for a in masters]
    decays = [0.0, 0.1, 0.0, 0.3, 0.2]
    for grad_scale in (None, asarray(np.array(0.0))):  # the second step is skipped
        every_backend.muon_update(
            params, [asarray(s) for s in steps], decays, learning_rate=0.2, grad_scale=grad_scale,
            masters=kept if accum != dtype else None,
        )  # fmt: skip
        for i, start in enumerate(masters):
            got = every_backend.to_numpy(kept[i] if accum != dtype else params[i])
            start, step = start.astype(np.float64), steps[i].astype(np.float64)
            expected = start - 0.2 * (step + decays[i] * start)
            assert_close(got, expected, dtype=accum, reduction=5, magnitude=2.0)
            assert same_bits(every_backend.to_numpy(params[i]), got.astype(dtype))
