"""Programs for CuPy 13 as they call cupy.cudnn, after ``install``: what they compute is right.

Each stands for code that is in use: Chainer's functions, networks written by hand on top of CuPy,
image reconstruction. Names are imported as there, arrays are NumPy's.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as T

from gpucnn.backends import use_backend
from gpucnn.interop.cudnn import install, uninstall

from .cases import random


@pytest.fixture
def cuda() -> Iterator[SimpleNamespace]:
    """The names under which Chainer keeps what it imports."""
    install()
    from cupy import cudnn
    from cupy.cuda import cudnn as libcudnn

    with use_backend("numpy"):
        yield SimpleNamespace(cudnn=cudnn, libcudnn=libcudnn)
    uninstall()


def numbers(name: str, *shape: int) -> np.ndarray:
    return random(name, shape, np.float64)


def leaves(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(array, requires_grad=True) for array in arrays]


def close(got: np.ndarray, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        expected = expected.detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


def test_a_step_of_a_network_of_chainer(cuda):
    """Convolution, batch norm, ReLU, max pooling that covers all of its input, log softmax."""
    cudnn, lib = cuda.cudnn, cuda.libcudnn
    x, W, b = numbers("x", 3, 2, 8, 9), numbers("W", 4, 1, 3, 2), numbers("b", 4)
    gamma, beta = numbers("gamma", 4) + 2, numbers("beta", 4)
    running_mean, running_var = numbers("mean", 4), numbers("var", 4) + 2
    pad, stride, dilation, groups = (1, 0), (1, 2), (1, 1), 2
    tuning = {"auto_tune": False, "tensor_core": "auto"}
    eps, decay, spatial = 2e-5, 0.9, (True, lib.CUDNN_BATCHNORM_SPATIAL)
    ksize, pool_stride, pool_pad = (3, 2), (2, 3), (1, 0)

    conv = np.empty((3, 4, 8, 4))
    cudnn.convolution_forward(x, W, b, conv, pad, stride, dilation, groups, **tuning)
    reserve_space, normal, mean, inv_std = cudnn.batch_normalization_forward_training_ex(
        conv, gamma, beta, running_mean, running_var, None, None, eps, decay, *spatial, False,
        d_layout=lib.CUDNN_TENSOR_NCHW,
    )  # fmt: skip
    y = cudnn.activation_forward(normal, lib.CUDNN_ACTIVATION_RELU)
    pooled = np.empty((3, 4, 5, 2))  # the last windows of both axes stick out
    cudnn.pooling_forward(y, pooled, ksize, pool_stride, pool_pad, lib.CUDNN_POOLING_MAX)
    score = cudnn.softmax_forward(pooled.reshape(3, -1), 1, lib.CUDNN_SOFTMAX_LOG)

    gscore = numbers("gscore", *score.shape)
    gpooled = cudnn.softmax_backward(score, gscore, 1, lib.CUDNN_SOFTMAX_LOG)
    gpooled = gpooled.reshape(pooled.shape)
    gy = cudnn.pooling_backward(
        y, pooled, gpooled, ksize, pool_stride, pool_pad, lib.CUDNN_POOLING_MAX
    )
    gnormal = cudnn.activation_backward(y, y, gy, lib.CUDNN_ACTIVATION_RELU)
    gconv, ggamma, gbeta = cudnn.batch_normalization_backward(
        conv, gamma, gnormal, mean, inv_std, eps, *spatial, False,
        d_layout=lib.CUDNN_TENSOR_NCHW, reserve_space=reserve_space,
    )  # fmt: skip
    gW, gx = np.empty_like(W), np.empty_like(x)
    tuning["deterministic"] = False
    cudnn.convolution_backward_filter(x, gconv, gW, pad, stride, dilation, groups, **tuning)
    cudnn.convolution_backward_data(W, gconv, None, gx, pad, stride, dilation, groups, **tuning)

    tx, tW, tb, tgamma, tbeta = leaves(x, W, b, gamma, beta)
    tmean, tvar = (torch.tensor(numbers(name, 4)) for name in ("mean", "var"))
    tvar = tvar + 2
    t = T.conv2d(tx, tW, tb, stride, pad, dilation, groups)
    t = T.batch_norm(t, tmean, tvar, tgamma, tbeta, True, 1 - decay, eps)
    t = T.max_pool2d(T.relu(t), ksize, pool_stride, pool_pad, ceil_mode=True)
    assert t.shape == pooled.shape
    t = T.log_softmax(t.reshape(3, -1), 1)
    t.backward(torch.tensor(gscore))
    close(score, t)
    close(running_mean, tmean)
    close(running_var, tvar)
    for got, leaf in ((gx, tx), (gW, tW), (ggamma, tgamma), (gbeta, tbeta)):
        close(got, leaf.grad)


def test_deconvolution_of_chainer_to_a_size_that_is_given(cuda):
    x, W, b = numbers("x", 2, 4, 5, 6), numbers("W", 4, 3, 3, 2), numbers("b", 3)
    y = np.empty((2, 3, 10, 19))  # 9 and 10 rows, 17 to 19 columns lead to x's
    cuda.cudnn.convolution_backward_data(
        W, x, b, y, (1, 0), (2, 3), (1, 1), 1, deterministic=False, auto_tune=True,
        tensor_core="auto", d_layout=cuda.libcudnn.CUDNN_TENSOR_NCHW,
        w_layout=cuda.libcudnn.CUDNN_TENSOR_NCHW,
    )  # fmt: skip
    tx, tW, tb = leaves(x, W, b)
    expected = T.conv_transpose2d(tx, tW, tb, (2, 3), (1, 0), (1, 2))
    close(y, expected)


def test_group_normalisation_of_chainer_through_batch_normalisation(cuda):
    """Samples and groups are channels; bias and both running statistics are one array of zeros."""
    x, gy, groups = numbers("x", 3, 6, 4, 5), numbers("gy", 3, 6, 4, 5), 2
    folded = (1, 3 * groups, -1, 1)
    dummy_beta = np.zeros(3 * groups)
    dummy_gamma = np.ones_like(dummy_beta)
    spatial = (True, cuda.libcudnn.CUDNN_BATCHNORM_SPATIAL, False)
    y, mean, inv_std = cuda.cudnn.batch_normalization_forward_training(
        x.reshape(folded), dummy_gamma, dummy_beta, dummy_beta, dummy_beta, None, None, 1e-5, 1.0,
        *spatial,
    )  # fmt: skip
    gx, _, _ = cuda.cudnn.batch_normalization_backward(
        x.reshape(folded), dummy_gamma, gy.reshape(folded), mean, inv_std, 1e-5, *spatial
    )
    assert (dummy_beta == 0).all()
    (tx,) = leaves(x)
    expected = T.group_norm(tx, groups, eps=1e-5)
    expected.backward(torch.tensor(gy))
    close(y.reshape(x.shape), expected)
    close(gx.reshape(x.shape), tx.grad)


def test_a_linear_layers_batch_norm_of_chainer(cuda):
    x, ones, zeros = numbers("x", 7, 3), np.ones(3), np.zeros(3)
    mode = cuda.libcudnn.CUDNN_BATCHNORM_PER_ACTIVATION
    mean, var = zeros.copy(), ones.copy()
    _, y, _, _ = cuda.cudnn.batch_normalization_forward_training_ex(
        x, ones, zeros, mean, var, None, None, 2e-5, 0.9, False, mode, False, d_layout=0
    )
    close(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 2e-5))
    close(var, 0.9 + 0.1 * x.var(0, ddof=1))
    y = cuda.cudnn.batch_normalization_forward_inference(
        x, ones, zeros, mean, var, 2e-5, False, mode
    )
    close(y, (x - mean) / np.sqrt(var + 2e-5))


def test_what_chainer_reads_while_it_is_imported(cuda):
    lib = cuda.libcudnn
    assert lib.getVersion() >= 7401 and cuda.cudnn.get_handle()
    assert (lib.CUDNN_UNIDIRECTIONAL, lib.CUDNN_BIDIRECTIONAL) == (0, 1)
    assert (lib.CUDNN_RNN_RELU, lib.CUDNN_RNN_TANH, lib.CUDNN_LSTM, lib.CUDNN_GRU) == (0, 1, 2, 3)
    assert (lib.CUDNN_SAMPLER_BILINEAR, lib.CUDNN_BN_MIN_EPSILON) == (0, 0.0)
    assert cuda.cudnn.get_max_workspace_size() == 8 * 1024 * 1024


def test_a_network_by_hand_on_top_of_cupy(cuda):
    """Sizes as tuples, no bias, gradients into arrays of zeros, arguments of softmax by name."""
    cudnn, lib, padding, stride = cuda.cudnn, cuda.libcudnn, 1, 2
    x, W = numbers("x", 2, 3, 7, 8), numbers("W", 4, 3, 3, 3)
    size = [(extent + 2 * padding - 3) // stride + 1 for extent in x.shape[2:]]
    y, x_grad, W_grad = np.empty((2, 4, *size)), np.zeros(x.shape), np.empty_like(W)
    geometry = (padding, padding), (stride, stride), (1, 1), 1
    cudnn.convolution_forward(x, W, None, y, *geometry, auto_tune=True, tensor_core="auto")
    z = cudnn.softmax_forward(y, axis=1, algorithm=lib.CUDNN_SOFTMAX_LOG)
    grad = cudnn.softmax_backward(z, np.ones_like(z), axis=1, algorithm=lib.CUDNN_SOFTMAX_LOG)
    tuning = {"deterministic": False, "auto_tune": True, "tensor_core": "auto"}
    cudnn.convolution_backward_data(W, grad, None, x_grad, *geometry, **tuning)
    cudnn.convolution_backward_filter(x, grad, W_grad, *geometry, **tuning)

    tx, tW = leaves(x, W)
    T.log_softmax(T.conv2d(tx, tW, None, stride, padding), 1).sum().backward()
    close(x_grad, tx.grad)
    close(W_grad, tW.grad)


def test_a_convolution_looked_for_in_the_library(cuda):
    """A fork of sigpy for a CuPy 13 without cuDNN takes the functions from cupy.cuda.cudnn."""
    x, W, y = numbers("x", 1, 1, 4, 4), numbers("W", 1, 1, 2, 2), np.empty((1, 1, 3, 3))
    cuda.libcudnn.convolution_forward(
        x, W, None, y, (0, 0), (1, 1), (1, 1), 1, auto_tune=True, tensor_core="auto"
    )
    close(y, T.conv2d(torch.tensor(x), torch.tensor(W)))
