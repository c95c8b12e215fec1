"""The drop-in for cupy.cudnn: batch normalisation in its three modes, beside PyTorch in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as T

from gpucnn.backends import get_backend
from gpucnn.interop import cudnn

from .cases import random
from .tolerance import assert_close

PER_ACTIVATION = cudnn.CUDNN_BATCHNORM_PER_ACTIVATION
SPATIAL = cudnn.CUDNN_BATCHNORM_SPATIAL
PERSISTENT = cudnn.CUDNN_BATCHNORM_SPATIAL_PERSISTENT
NCHW, NHWC = cudnn.CUDNN_TENSOR_NCHW, cudnn.CUDNN_TENSOR_NHWC
EPS, DECAY = 2e-5, 0.9
ROUNDINGS = 16  # of the arithmetic on one element, the root and its square among it

# x, gamma, is_for_conv2d, cudnn_mode, d_layout, and the axis of channels (None: a place is one)
CASES: dict[str, tuple[Any, ...]] = {
    "spatial": ((3, 5, 4, 7), (5,), True, SPATIAL, NCHW, 1),
    "spatial, gamma of 4 axes": ((2, 5, 4, 3), (1, 5, 1, 1), True, SPATIAL, NCHW, 1),
    "persistent": ((3, 4, 5, 2), (4,), True, PERSISTENT, NCHW, 1),
    "channels last": ((3, 4, 7, 8), (8,), True, PERSISTENT, NHWC, 3),
    "volume": ((2, 3, 4, 5, 2), (3,), True, SPATIAL, NCHW, 1),
    "per activation": ((6, 2, 3, 4), (2, 3, 4), True, PER_ACTIVATION, NCHW, None),
    "per activation, channels last": ((6, 3, 4, 2), (3, 4, 2), True, PER_ACTIVATION, NHWC, None),
    "rows": ((7, 5), (5,), False, PER_ACTIVATION, NCHW, 1),
    "rows of a sequence": ((3, 4, 5), (5,), False, SPATIAL, NCHW, 2),
}
# of x, of gamma and beta, of the running statistics
DTYPES = [
    ("float16", "float16", "float16"), ("float16", "float32", "float32"),
    ("float16", "float32", "float16"), ("float32", "float32", "float32"),
    ("float32", "float64", "float64"), ("float64", "float64", "float64"),
    ("float64", "float32", "float32"),
]  # fmt: skip


def rows(x: np.ndarray, axis: int | None) -> np.ndarray:
    """View x as (values, channels) in float64, whatever its mode."""
    x = np.asarray(x).astype(np.float64)
    if axis is None:
        return x.reshape(len(x), -1)
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


def unrows(values: np.ndarray, shape: tuple[int, ...], axis: int | None) -> np.ndarray:
    if axis is None:
        return values.reshape(shape)
    moved = [size for place, size in enumerate(shape) if place != axis]
    return np.moveaxis(values.reshape(*moved, shape[axis]), -1, axis)


def problem(name: str, dtypes: tuple[str, str, str]) -> SimpleNamespace:
    x_shape, gamma_shape, is_for_conv2d, mode, layout, axis = CASES[name]
    dtype, parameter, running = map(np.dtype, dtypes)
    p = SimpleNamespace(
        x=random("x", x_shape, np.float64).astype(dtype) + dtype.type(0.5),
        gy=random("gy", x_shape, dtype),
        gamma=random("gamma", gamma_shape, parameter, 0.5, 2),
        beta=random("beta", gamma_shape, parameter),
        running_mean=random("running_mean", gamma_shape, running),
        running_var=random("running_var", gamma_shape, running, 0.5, 2),
        mode=(is_for_conv2d, mode), layout={"d_layout": layout},
    )  # fmt: skip
    # float32 for float16: what statistics are kept in; of other dtypes x's
    p.kept = np.dtype("float64" if dtype == np.float64 else "float32")
    # the gradients of parameters that are not kept so have x's dtype
    p.gradient = parameter if parameter == p.kept else dtype

    # what is computed with: the parameters as converted
    gamma, beta = (a.ravel().astype(p.kept) for a in (p.gamma, p.beta))
    leaves = [torch.tensor(a, dtype=torch.float64) for a in (rows(p.x, axis), gamma, beta)]
    for leaf in leaves:
        leaf.requires_grad_()
    mean, var = (torch.tensor(a.ravel()).double() for a in (p.running_mean, p.running_var))
    p.infer = T.batch_norm(leaves[0], mean, var, *leaves[1:], training=False, eps=EPS).detach()
    y = T.batch_norm(leaves[0], mean, var, *leaves[1:], True, 1 - DECAY, EPS)
    y.backward(torch.tensor(rows(p.gy, axis)))
    p.infer, p.y, p.gx = (
        unrows(t.numpy(), x_shape, axis) for t in (p.infer, y.detach(), leaves[0].grad)
    )
    p.ggamma, p.gbeta, p.new_mean, p.new_var = (
        t.numpy().reshape(gamma_shape) for t in (leaves[1].grad, leaves[2].grad, mean, var)
    )
    x, gy = rows(p.x, axis), np.abs(rows(p.gy, axis))
    p.mean, deviation = x.mean(0), np.sqrt(x.var(0) + EPS)
    p.inv_std = 1 / deviation
    # the sums of the terms' magnitudes: see tests/operations/test_norm.py
    normal = (np.abs(x) + np.abs(x).mean(0) + np.abs(p.mean)) / deviation
    p.y_terms = np.abs(gamma) * normal + np.abs(beta)
    p.gx_terms = np.abs(gamma) / deviation * (gy + gy.mean(0) + normal * (gy * normal).mean(0))
    p.y_terms, p.gx_terms = (unrows(a, x_shape, axis) for a in (p.y_terms, p.gx_terms))
    p.ggamma_terms, p.gbeta_terms = ((gy * a).sum(0).reshape(gamma_shape) for a in (normal, 1))
    p.mean_terms = np.abs(x).mean(0).reshape(gamma_shape)
    p.mean, p.inv_std = p.mean.reshape(gamma_shape), p.inv_std.reshape(gamma_shape)
    p.close = {"reduction": len(x) + ROUNDINGS}
    return p


def check(backend: Any, p: SimpleNamespace) -> None:
    given = SimpleNamespace(**{
        name: backend.asarray(getattr(p, name).copy())
        for name in ("x", "gy", "gamma", "beta", "running_mean", "running_var")
    })  # fmt: skip
    y = cudnn.batch_normalization_forward_inference(
        given.x, given.gamma, given.beta, given.running_mean, given.running_var, EPS,
        *p.mode, **p.layout,
    )  # fmt: skip
    assert_close(backend.to_numpy(y), p.infer, dtype=p.x.dtype, magnitude=10, **p.close)

    y, mean, inv_std = cudnn.batch_normalization_forward_training(
        given.x, given.gamma, given.beta, given.running_mean, given.running_var, None, None,
        EPS, DECAY, *p.mode, False, **p.layout,
    )  # fmt: skip
    gradients = cudnn.batch_normalization_backward(
        given.x, given.gamma, given.gy, mean, inv_std, EPS, *p.mode, False, **p.layout
    )
    assert y.flags.c_contiguous and gradients[0].flags.c_contiguous
    for what, got, exact, dtype, terms in (
        ("y", y, p.y, p.x.dtype, p.y_terms),
        ("mean", mean, p.mean, p.kept, p.mean_terms),
        ("inv_std", inv_std, p.inv_std, p.kept, None),
        ("running_mean", given.running_mean, p.new_mean, p.running_mean.dtype, 2),
        ("running_var", given.running_var, p.new_var, p.running_var.dtype, 2),
        ("gx", gradients[0], p.gx, p.x.dtype, p.gx_terms),
        ("ggamma", gradients[1], p.ggamma, p.gradient, p.ggamma_terms),
        ("gbeta", gradients[2], p.gbeta, p.gradient, p.gbeta_terms),
    ):
        got = backend.to_numpy(got)
        assert got.dtype == dtype
        if dtype == np.float64:
            got, dtype = got.astype(p.kept), p.kept  # no better than what was computed in
        assert_close(got, exact, dtype=dtype, magnitude=terms, what=what, **p.close)


@pytest.mark.parametrize("dtypes", DTYPES, ids="-".join)
@pytest.mark.parametrize("name", CASES)
def test_batch_norm(name, dtypes):
    check(get_backend("numpy"), problem(name, dtypes))


@pytest.mark.parametrize("name", ["spatial", "channels last", "per activation"])
def test_batch_norm_on_every_backend(backend, name):
    check(backend, problem(name, ("float16", "float32", "float16")))


def test_mean_and_inv_std_are_filled_where_they_are_given():
    p = problem("spatial", ("float32",) * 3)
    arguments = p.x, p.gamma, p.beta, p.running_mean.copy(), p.running_var.copy()
    y, mean, inv_std = cudnn.batch_normalization_forward_training(
        *arguments, None, None, EPS, DECAY, *p.mode, False
    )
    buffers = np.full(5, np.nan, np.float32), np.full(5, np.nan, np.float32)
    same = cudnn.batch_normalization_forward_training(
        *arguments, *buffers, EPS, DECAY, *p.mode, False
    )
    assert (same == y).all()
    assert (buffers[0] == mean).all() and (buffers[1] == inv_std).all()
    with pytest.raises(ValueError, match="mean and inv_std are given both or none"):
        cudnn.batch_normalization_forward_training(
            *arguments, mean, None, EPS, DECAY, *p.mode, False
        )


def test_ex_puts_a_reserve_space_in_front_and_the_backward_pass_takes_it():
    p = problem("channels last", ("float16", "float32", "float32"))
    arguments = p.x, p.gamma, p.beta, p.running_mean, p.running_var
    rest = EPS, DECAY, *p.mode, False
    reserve_space, y, mean, inv_std = cudnn.batch_normalization_forward_training_ex(
        *arguments, None, None, *rest, **p.layout
    )
    _, same = cudnn.batch_normalization_forward_training_ex(
        *arguments, mean, inv_std, *rest, **p.layout
    )
    assert (y == same).all()
    gx, _, _ = cudnn.batch_normalization_backward(
        p.x, p.gamma, p.gy, mean, inv_std, EPS, *p.mode, False, reserve_space=reserve_space,
        **p.layout,
    )  # fmt: skip
    assert_close(gx, p.gx, dtype=p.x.dtype, magnitude=p.gx_terms, **p.close)


def test_numbers_of_numpy_do_not_widen_float32():
    p = problem("spatial", ("float32",) * 3)
    y, mean, inv_std = cudnn.batch_normalization_forward_training(
        p.x, p.gamma, p.beta, p.running_mean, p.running_var, None, None,
        np.float64(EPS), np.float64(DECAY), *p.mode, False,
    )  # fmt: skip
    assert {y.dtype, mean.dtype, inv_std.dtype} == {np.dtype(np.float32)}


def test_one_value_has_no_unbiased_variance_and_statistics_can_be_done_without():
    x, one, zero = np.ones((1, 3), np.float32), np.ones(3, np.float32), np.zeros(3, np.float32)
    running_var = one.copy()
    arguments = x, one, zero, None, running_var, None, None, EPS, 0.75, False, PER_ACTIVATION
    y, _, _ = cudnn.batch_normalization_forward_training(*arguments, False)
    assert (y == 0).all() and (running_var == 0.75).all()


def test_inputs_of_any_strides():
    p = problem("spatial", ("float32",) * 3)
    flipped = p.x[:, :, ::-1], p.gamma[::-1], p.beta[::-1]
    running = p.running_mean[::-1], p.running_var[::-1]
    results = cudnn.batch_normalization_forward_training(
        *flipped, *running, None, None, EPS, DECAY, *p.mode, False
    )
    copies = [array.copy() for array in flipped]
    fresh = problem("spatial", ("float32",) * 3)
    again = fresh.running_mean[::-1].copy(), fresh.running_var[::-1].copy()
    same = cudnn.batch_normalization_forward_training(
        *copies, *again, None, None, EPS, DECAY, *p.mode, False
    )
    for got, expected in zip((*results, *running), (*same, *again), strict=True):
        assert (got == expected).all()
