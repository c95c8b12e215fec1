"""The drop-in for cupy.cudnn: how it is registered, what it refuses, and how programs call it."""

from __future__ import annotations

import importlib
import inspect
import pickle
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest

from gpucnn.interop import cudnn
from gpucnn.interop.cudnn.registration import NAMES

from .test_public import python

# ---- registration ------------------------------------------------------------------------------


@pytest.fixture
def installed() -> Iterator[None]:
    assert cudnn.install()
    yield
    cudnn.uninstall()


def test_every_way_to_import_it(installed):
    import cupy
    import cupy.cuda.cudnn
    import cupyx.cudnn
    from cupy import cudnn as functions
    from cupy.cuda import cudnn as library

    assert functions is cupy.cudnn is sys.modules["cupy.cudnn"]
    assert library is cupy.cuda.cudnn and cupyx.cudnn is sys.modules["cupyx.cudnn"]
    for name in NAMES:
        module, spec = importlib.import_module(name), find_spec(name)
        assert spec is module.__spec__ and spec.name == module.__name__ == name
        assert repr(module) == f"<module '{name}' (gpucnn.interop.cudnn)>"
        assert module.convolution_forward is cudnn.convolution_forward
        assert (module.CUDNN_TENSOR_NHWC, module.available) == (1, True)
        assert module.CuDNNError is cudnn.CuDNNError and module.getVersion() == 8801
        assert not hasattr(module, "create_tensor_descriptor")


def test_a_second_call_changes_nothing_and_nothing_is_left_behind(installed):
    module = sys.modules["cupy.cudnn"]
    assert cudnn.install() and sys.modules["cupy.cudnn"] is module
    cudnn.uninstall()
    cudnn.uninstall()
    import cupy
    import cupyx

    assert not any(name in sys.modules or find_spec(name) for name in NAMES)
    assert not any(hasattr(parent, "cudnn") for parent in (cupy, cupyx, cupy.cuda))


def test_a_cupy_that_has_its_own_is_left_alone_unless_forced(monkeypatch):
    import cupy

    own = ModuleType("cupy.cudnn")
    own.__spec__ = ModuleSpec("cupy.cudnn", None)
    monkeypatch.setitem(sys.modules, "cupy.cudnn", own)
    monkeypatch.setattr(cupy, "cudnn", own, raising=False)
    assert not cudnn.install()
    assert sys.modules["cupy.cudnn"] is cupy.cudnn is own and "cupyx.cudnn" not in sys.modules
    assert cudnn.install(force=True)
    assert cupy.cudnn is sys.modules["cupy.cudnn"] is not own
    cudnn.uninstall()
    assert sys.modules["cupy.cudnn"] is cupy.cudnn is own


def test_without_cupy_it_works_on_numpy_and_cannot_be_registered():
    code = (
        "import sys; sys.modules['cupy'] = None\n"
        "import numpy as np\nfrom gpucnn.interop import cudnn\n"
        "print(cudnn.activation_forward(np.array([-1.0, 2.0]), cudnn.CUDNN_ACTIVATION_RELU))\n"
        "try:\n    cudnn.install()\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    numbers, message = python(code).splitlines()
    assert numbers == "[0. 2.]"
    assert message == (
        "gpucnn.interop.cudnn.install needs CuPy, which is not installed:"
        ' pip install "gpucnn[cuda13]" (or [cuda12])'
    )


def test_nothing_is_loaded_before_it_is_asked_for():
    assert python("import gpucnn, sys; print('gpucnn.interop' in sys.modules)") == "False"
    code = (
        "import gpucnn, sys; gpucnn.interop; print('gpucnn.interop.cudnn' in sys.modules);"
        "gpucnn.interop.cudnn; print('cupy' in sys.modules)"
    )
    assert python(code).split() == ["False", "False"]
    import gpucnn.interop

    with pytest.raises(AttributeError, match=r"module 'gpucnn\.interop' has no attribute 'cuda'"):
        gpucnn.interop.cuda  # noqa: B018 - the access is the test


# ---- signatures and the library ------------------------------------------------------------------

NORM = "x, gamma, beta, running_mean, running_var, mean, inv_std, eps, decay, is_for_conv2d, "
LAYOUTS = "d_layout=0, w_layout=0"
SIGNATURES = {
    "convolution_forward": (
        f"x, W, b, y, pad, stride, dilation, groups, *, auto_tune, tensor_core, {LAYOUTS}"
    ),
    "convolution_backward_filter": (
        "x, gy, gW, pad, stride, dilation, groups, *, deterministic, auto_tune, tensor_core,"
        f" {LAYOUTS}"
    ),
    "convolution_backward_data": (
        "W, x, b, y, pad, stride, dilation, groups, *, deterministic, auto_tune, tensor_core,"
        f" {LAYOUTS}"
    ),
    "pooling_forward": "x, y, ksize, stride, pad, mode",
    "pooling_backward": "x, y, gy, ksize, stride, pad, mode",
    "activation_forward": "x, mode, coef=0.0",
    "activation_backward": "x, y, gy, mode, coef=0.0",
    "softmax_forward": "x, axis, algorithm",
    "softmax_backward": "y, gy, axis, algorithm",
    "batch_normalization_forward_training": f"{NORM}cudnn_mode, debug, d_layout=0",
    "batch_normalization_forward_training_ex": f"{NORM}cudnn_mode, debug, d_layout=0",
    "batch_normalization_forward_inference": (
        "x, gamma, beta, mean, var, eps, is_for_conv2d, cudnn_mode, d_layout=0"
    ),
    "batch_normalization_backward": (
        "x, gamma, gy, mean, inv_std, eps, is_for_conv2d, cudnn_mode, debug, d_layout=0, *,"
        " reserve_space=None"
    ),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_cupy_13_6(name):
    signature = inspect.signature(getattr(cudnn, name))
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(plain)) == f"({SIGNATURES[name]})"


def test_the_workspace_size_is_kept():
    assert cudnn.get_max_workspace_size() == 8 * 1024 * 1024
    cudnn.set_max_workspace_size(2**30)
    assert cudnn.get_max_workspace_size() == 2**30
    cudnn.set_max_workspace_size(8 * 1024 * 1024)
    with pytest.raises(ValueError, match=r"size must be an integer .* Received: size=-1"):
        cudnn.set_max_workspace_size(-1)


def test_the_library(backend):
    assert cudnn.available and cudnn.get_handle()
    assert cudnn.getVersion() == cudnn.get_build_version() == 8801
    cuda = backend.name == "cuda"
    expected = cuda and backend.launcher.architecture >= 80
    assert cudnn.is_tensor_core_available(np.dtype("e")) is expected
    assert not cudnn.is_tensor_core_available(np.dtype("f"))


def test_an_error_of_cudnn_is_what_cupy_raised():
    error = cudnn.CuDNNError(9)
    error.add_infos(["func: cudnnConvolutionForward", "groups=3"])
    error.add_info("more")
    lines = ["CUDNN_STATUS_NOT_SUPPORTED", "func: cudnnConvolutionForward", "groups=3", "more"]
    assert str(error) == "cuDNN Error: " + "\n  ".join(lines)
    for given in (error, cudnn.BadParameter("x is too small. Received: 3")):
        again = pickle.loads(pickle.dumps(given))
        assert (type(again), str(again), again.status) == (type(given), str(given), given.status)
    assert issubclass(cudnn.CuDNNError, RuntimeError)


# ---- refusals ------------------------------------------------------------------------------------

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
        assert str(caught.value).startswith("cuDNN Error: CUDNN_STATUS_BAD_PARAM\n  ")


def test_a_refused_call_changes_no_output():
    y = np.full((1, 3, 4, 4), 7.0, np.float32)
    with pytest.raises(cudnn.CuDNNError):
        forward(y=y)
    assert (y == 7).all()


@pytest.mark.parametrize(
    "name", ["create_tensor_descriptor", "rnn_forward_training", "ctc_loss", "DropoutStates",
             "convolutionForward", "CUDNN_FUSED_SCALE_BIAS_ACTIVATION_WGRAD"],
)  # fmt: skip
def test_what_is_not_part_of_it_says_so(name):
    with pytest.raises(AttributeError, match=rf"are not part of it\. Received: cudnn\.{name}"):
        getattr(cudnn, name)
