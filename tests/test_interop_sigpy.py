"""sigpy, a program for CuPy 13: its convolution through the drop-in agrees with its own on the CPU.

sigpy asks for cuDNN when it is imported, and computes with it what is not NumPy's. Here the arrays
are NumPy's, and sigpy is told that they are not: its code for CUDA runs as it stands.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from functools import cache
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from gpucnn.backends import use_backend
from gpucnn.interop import cudnn

from .cases import random
from .tolerance import assert_close


@cache  # it asks for cuDNN once in a process
def imported() -> ModuleType:
    assert cudnn.install()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that there is no NCCL
            return importlib.import_module("sigpy")
    finally:
        cudnn.uninstall()


@pytest.fixture
def sigpy() -> ModuleType:
    return imported()


@pytest.fixture
def on_cuda(sigpy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """sigpy, to which NumPy is an array module of another name."""
    other = SimpleNamespace(**vars(np))
    with use_backend("numpy"), monkeypatch.context() as patch:
        patch.setattr(sigpy.backend, "get_array_module", lambda array: other)
        yield sigpy


def test_sigpy_finds_the_drop_in(sigpy):
    assert sigpy.config.cudnn_enabled
    assert sigpy.conv.cudnn.__name__ == "cupy.cudnn"
    assert sigpy.conv.cudnn.convolution_forward is cudnn.convolution_forward


# data and filter along 1, 2 and 3 axes, and strides
SIZES = {
    1: ((11,), (4,), (3,)),
    2: ((8, 9), (3, 2), (2, 3)),
    3: ((5, 6, 7), (2, 3, 2), (1, 2, 3)),
}


def numbers(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    real = random(name, shape, np.float64)
    if not dtype.startswith("complex"):
        return real.astype(dtype)
    return (real + 1j * random(f"{name} imaginary", shape, np.float64)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("channels", [False, True], ids=["one channel", "channels"])
@pytest.mark.parametrize("strided", [False, True], ids=["dense", "strided"])
@pytest.mark.parametrize("mode", ["full", "valid"])
@pytest.mark.parametrize("rank", SIZES)
def test_convolution_and_both_adjoints(on_cuda, rank, mode, strided, channels, dtype):
    size, window, strides = SIZES[rank]
    data = numbers("data", (2, 3, *size) if channels else (2, *size), dtype)
    filt = numbers("filt", (4, 3, *window) if channels else window, dtype)
    arguments = {"mode": mode, "strides": strides if strided else None, "multi_channel": channels}
    conv = on_cuda.conv

    def check(operation: str, first: np.ndarray, second: np.ndarray, *shape: tuple, terms: int):
        """Hold sigpy's code for CUDA to its code for the CPU, of more digits."""
        got = getattr(conv, operation)(first, second, *shape, **arguments)
        own = getattr(conv, f"_{operation}")
        more = np.result_type(dtype, "float64")
        exact = own(first.astype(more), second.astype(more), *shape, **arguments)
        moduli = (np.abs(first).astype("float64"), np.abs(second).astype("float64"))
        magnitude = own(*moduli, *shape, **arguments)
        assert got.dtype == dtype
        for part in ("real", "imag"):  # each of two real sums of terms of a complex one
            assert_close(
                getattr(got, part), getattr(exact, part), dtype=got.real.dtype,
                reduction=2 * terms + 2, magnitude=magnitude,
            )  # fmt: skip
        return got

    output = check("convolve", data, filt, terms=filt.size)
    output = numbers("output", output.shape, dtype)
    check("convolve_data_adjoint", output, filt, data.shape, terms=filt.size)
    check("convolve_filter_adjoint", output, data, filt.shape, terms=output.size)


def test_it_is_the_drop_in_that_computes(on_cuda, monkeypatch):
    monkeypatch.delattr(on_cuda.conv.cudnn, "convolution_forward")
    with pytest.raises(AttributeError, match=r"Received: cudnn\.convolution_forward"):
        on_cuda.conv.convolve(np.ones((5, 5)), np.ones((2, 2)))


def test_an_operator_and_its_adjoint(on_cuda):
    """<y, A x> = <A^H y, x>."""
    data, filt = numbers("data", (5, 6), "complex128"), numbers("filt", (3, 2), "complex128")
    forward = on_cuda.conv.convolve(data, filt)
    output = numbers("output", forward.shape, "complex128")
    back = on_cuda.conv.convolve_data_adjoint(output, filt, data.shape)
    assert np.vdot(output, forward) == pytest.approx(np.vdot(back, data), rel=1e-12)
