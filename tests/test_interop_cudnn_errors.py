"""The drop-in for cupy.cudnn: what it refuses, and as what."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest

from gpucnn.interop import cudnn


def test_an_error_of_cudnn_is_what_cupy_raised():
    error = cudnn.CuDNNError(9)
    error.add_infos(["func: cudnnConvolutionForward", "groups=3"])
    error.add_info("more")
    lines = ["CUDNN_STATUS_NOT_SUPPORTED", "func: cudnnConvolutionForward", "groups=3", "more"]
    assert str(error) == "cuDNN Error: " + "\n  ".join(lines)
    for given in (error, cudnn.BadParameter("x float32 (3,)", "x is too small. Received: 3")):
        again = pickle.loads(pickle.dumps(given))
        assert (type(again), str(again), again.status) == (type(given), str(given), given.status)
    assert issubclass(cudnn.CuDNNError, RuntimeError)


CONV = {"auto_tune": True, "tensor_core": "auto"}


def forward(x=(1, 2, 5, 5), W=(3, 2, 3, 3), y=(1, 3, 3, 3), *rest, b=None, dtype="float32", **more):
    x, W, y = (np.ones(a, dtype) if isinstance(a, tuple) else a for a in (x, W, y))
    rest = rest or ((0, 0), (1, 1), (1, 1), 1)
    cudnn.convolution_forward(x, W, b, y, *rest, **{**CONV, **more})


def pool(x=(1, 2, 4, 4), y=(1, 2, 2, 2), ksize=(2, 2), stride=(2, 2), pad=(0, 0), mode=0):
    return cudnn.pooling_forward(np.ones(x), np.ones(y), ksize, stride, pad, mode)


X, ONE = np.ones((4, 3)), np.ones(3)
REFUSED = {
    "y's shape": (
        lambda: forward(y=(1, 3, 4, 4)),
        ValueError,
        r"cudnn\.convolution_forward: y must have the shape \(1, 3, 3, 3\)\."
        r" Received: \(1, 3, 4, 4\)",
    ),
    "channels": (
        lambda: forward(W=(3, 4, 3, 3)),
        ValueError,
        r"cudnn\.convolution_forward: the input must have 4 channels",
    ),
    "y's strides": (
        lambda: forward(y=np.ones((1, 3, 3, 6), np.float32)[..., ::2]),
        ValueError,
        r"y, which is written to, must be C-contiguous\. Received: shape \(1, 3, 3, 3\), strides",
    ),
    "gW's strides": (
        lambda: cudnn.convolution_backward_filter(
            np.ones((1, 2, 5, 5)), np.ones((1, 3, 3, 3)), np.ones((3, 3, 3, 2)).T,
            (0, 0), (1, 1), (1, 1), 1, deterministic=True, **CONV,
        ),
        ValueError,
        r"gW, which is written to, must be C-contiguous",
    ),
    "bias": (
        lambda: forward(b=np.ones(4, np.float32)),
        ValueError,
        r"b must have the shape \(3,\)\. Received: \(4,\)",
    ),
    "pad": (
        lambda: forward((1, 2, 5, 5), (3, 2, 3, 3), (1, 3, 3, 3), (0, 0, 0), (1, 1), (1, 1), 1),
        ValueError,
        r"pad must be an integer or 2 integers of at least 0\. Received: pad=\(0, 0, 0\)",
    ),
    "stride": (
        lambda: forward((1, 2, 5, 5), (3, 2, 3, 3), (1, 3, 3, 3), (0, 0), (0, 1), (1, 1), 1),
        ValueError,
        r"stride must be .* Received: stride=\(0, 1\)",
    ),
    "groups": (
        lambda: forward((1, 2, 5, 5), (3, 1, 3, 3), (1, 3, 3, 3), (0, 0), (1, 1), (1, 1), 2),
        ValueError,
        "filters must be a multiple of groups",
    ),
    "tensor_core": (
        lambda: forward(tensor_core="sometimes"),
        ValueError,
        "tensor_core must be one of 'always', 'auto', 'never'. Received: tensor_core='sometimes'",
    ),
    "layout": (
        lambda: forward(d_layout=2),
        ValueError,
        r"d_layout must be one of 0, 1\. Received: d_layout=2",
    ),
    "channels last in 3-D": (
        lambda: forward((1, 5, 5, 5, 2), (3, 3, 3, 3, 2), (1, 3, 3, 3, 3), (0,) * 3, (1,) * 3,
                        (1,) * 3, 1, d_layout=1, w_layout=1),
        ValueError,
        r"W must have 4 axes, where a layout is NHWC\. Received: W of shape \(3, 3, 3, 3, 2\)",
    ),
    "integers": (
        lambda: forward(dtype="int32"),
        TypeError,
        r"convolution_forward: the arrays must be one of float16, float32, float64\."
        r" Received: int32",
    ),
    "complex numbers": (
        lambda: forward(dtype="complex64"),
        TypeError,
        "the arrays must be one of float16, float32, float64. Received: complex64",
    ),
    "dtypes": (
        lambda: forward(y=np.ones((1, 3, 3, 3), np.float64)),
        TypeError,
        "all arrays of a call must be of one dtype.* Received: x: float32, W: float32, y: float64",
    ),
    "a missing keyword": (
        lambda: cudnn.convolution_forward(
            X, X, None, X, (0, 0), (1, 1), (1, 1), 1, auto_tune=True
        ),
        TypeError,
        r"cudnn\.convolution_forward\(x, W, b, y, pad, stride, dilation, groups, \*, auto_tune,"
        r" tensor_core, d_layout=0, w_layout=0\) is how it is called\. Received: 8 positional"
        r" arguments and \['auto_tune'\]; missing a required argument: 'tensor_core'",
    ),
    "cuDNN's own order": (  # handle, alpha, descriptors ...
        lambda: cudnn.convolution_forward(
            cudnn.get_handle(), 1.0, None, X, None, X, None, 0, None, 0, 0.0, None, X
        ),
        TypeError,
        r"is how it is called\. Received: 13 positional arguments",
    ),
    "cuDNN's own order, as short": (
        lambda: cudnn.softmax_forward(0, 1, X),
        TypeError,
        r"cudnn\.softmax_forward\(x, axis, algorithm\) is how it is called\."
        r" Received: x=0, which is no array",
    ),
    "no output": (
        lambda: cudnn.convolution_forward(X, X, None, None, 0, 1, 1, 1, **CONV),
        TypeError,
        r"is how it is called\. Received: y=None, which is no array",
    ),
    "pooling mode": (
        lambda: pool(mode=7),
        ValueError,
        r"cudnn\.pooling_forward: mode must be one of 0, 1, 2, 3\. Received: mode=7",
    ),
    "pool smaller than the rule": (
        lambda: pool(y=(1, 2, 1, 2)),
        ValueError,
        r"y must have the shape \(1, 2, 2, 2\)\. Received: \(1, 2, 1, 2\)",
    ),
    "pool of windows without inputs": (
        lambda: pool(y=(1, 2, 3, 2)),
        ValueError,
        "some windows would hold no input",
    ),
    "pool's axes": (
        lambda: pool(y=(1, 2, 2)),
        ValueError,
        "x and y must have 3 to 5 axes, and as many",
    ),
    "ksize": (lambda: pool(ksize=(2,)), ValueError, r"ksize must be .* Received: ksize=\(2,\)"),
    "pool's y": (
        lambda: cudnn.pooling_forward(
            np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 4))[..., ::2], (2, 2), (2, 2), (0, 0), 0
        ),
        ValueError,
        "pooling_forward: y, which is written to, must be C-contiguous",
    ),
    "identity": (
        lambda: cudnn.activation_forward(X, cudnn.CUDNN_ACTIVATION_IDENTITY),
        ValueError,
        r"mode must be one of 0, 1, 2, 3, 4\. Received: mode=5",
    ),
    "coef": (
        lambda: cudnn.activation_forward(X, cudnn.CUDNN_ACTIVATION_ELU, -1.0),
        ValueError,
        "alpha must be a number in .* Received: alpha=-1.0",
    ),
    "gradient's shape": (
        lambda: cudnn.activation_backward(X, X, X[:2], 1),
        ValueError,
        r"gy must have the shape \(4, 3\)\. Received: \(2, 3\)",
    ),
    "axis": (lambda: cudnn.softmax_forward(X, 2, 1), ValueError, "Received: axis=2"),
    "algorithm": (lambda: cudnn.softmax_forward(X, 1, 3), ValueError, "Received: algorithm=3"),
    "cudnn_mode": (
        lambda: cudnn.batch_normalization_forward_inference(X, *(ONE,) * 4, 1e-5, False, 3),
        ValueError,
        r"cudnn_mode must be one of 0, 1, 2\. Received: cudnn_mode=3",
    ),
    "gamma": (
        lambda: cudnn.batch_normalization_forward_inference(X, ONE[:2], *(ONE,) * 3, 0.1, False, 0),
        ValueError,
        r"gamma must have the shape \(3,\)\. Received: \(2,\)",
    ),
    "gy": (
        lambda: cudnn.batch_normalization_backward(X, ONE, X[:2], ONE, ONE, 0.1, False, 0, False),
        ValueError,
        r"gy must have the shape \(4, 3\)\. Received: \(2, 3\)",
    ),
    "eps": (
        lambda: cudnn.batch_normalization_forward_inference(X, *(ONE,) * 4, -1e-5, False, 0),
        ValueError,
        "eps must be a number in .* Received: eps=-1e-05",
    ),
    "a matrix for conv2d": (
        lambda: cudnn.batch_normalization_forward_inference(X, *(ONE,) * 4, 1e-5, True, 1),
        ValueError,
        r"x must have 3 to 5 axes with is_for_conv2d\. Received: x of shape \(4, 3\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message) as caught:
        call()
    if kind is ValueError:  # what a program for CuPy catches
        assert isinstance(caught.value, cudnn.CuDNNError)
        first, arrays, reason = str(caught.value).splitlines()
        assert first == "cuDNN Error: CUDNN_STATUS_BAD_PARAM"
        assert re.fullmatch(r"  \w+ float(32|64) \(.*\)", arrays) and "Received: " in reason


def test_a_refused_call_changes_no_output():
    y = np.full((1, 3, 4, 4), 7.0, np.float32)
    with pytest.raises(cudnn.CuDNNError):
        forward(y=y)
    assert (y == 7).all()


def test_running_statistics_are_updated_both_or_none():
    running_mean = np.zeros(3)
    for running_var in (np.ones(2), np.ones(3, int)):
        with pytest.raises(ValueError, match="running_var must hold 3 floating numbers"):
            cudnn.batch_normalization_forward_training(
                X, ONE, ONE, running_mean, running_var, None, None, 1e-5, 0.9, False, 0, False
            )
    assert (running_mean == 0).all()


@pytest.mark.parametrize(
    "name", ["create_tensor_descriptor", "rnn_forward_training", "ctc_loss", "DropoutStates",
             "convolutionForward", "CUDNN_FUSED_SCALE_BIAS_ACTIVATION_WGRAD"],
)  # fmt: skip
def test_what_is_not_part_of_it_says_so(name):
    with pytest.raises(AttributeError, match=rf"are not part of it\. Received: cudnn\.{name}"):
        getattr(cudnn, name)
