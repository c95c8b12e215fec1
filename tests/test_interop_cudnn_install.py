"""The drop-in for cupy.cudnn: how it is registered, its signatures, and the library's state."""

from __future__ import annotations

import importlib
import inspect
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


@pytest.mark.parametrize("spec", [ModuleSpec("cupy.cudnn", None), None])
def test_a_cupy_that_has_its_own_is_left_alone_unless_forced(monkeypatch, spec):
    import cupy

    own = ModuleType("cupy.cudnn")
    own.__spec__ = spec
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


def test_the_numbers_of_the_modes():
    modes = {
        "TENSOR_": ("NCHW", "NHWC"),
        "POOLING_": (
            "MAX", "AVERAGE_COUNT_INCLUDE_PADDING", "AVERAGE_COUNT_EXCLUDE_PADDING",
            "MAX_DETERMINISTIC",
        ),
        "ACTIVATION_": ("SIGMOID", "RELU", "TANH", "CLIPPED_RELU", "ELU"),
        "SOFTMAX_": ("FAST", "ACCURATE", "LOG"),
        "SOFTMAX_MODE_": ("INSTANCE", "CHANNEL"),
        "BATCHNORM_": ("PER_ACTIVATION", "SPATIAL", "SPATIAL_PERSISTENT"),
    }  # fmt: skip
    for group, names in modes.items():
        assert [getattr(cudnn, f"CUDNN_{group}{name}") for name in names] == list(range(len(names)))


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
