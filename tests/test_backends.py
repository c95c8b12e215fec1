"""Which backend runs a call, and what is said when that cannot be settled."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gpucnn
from gpucnn import backends
from gpucnn.backends import backend_of, chosen_backend, default_backend, get_backend, use_backend
from gpucnn.backends.cuda import CudaBackend
from tests.conftest import has_gpu
from tests.emulator_launcher import EmulatorLauncher

ROOT = Path(__file__).resolve().parents[1]
without_gpu = pytest.mark.skipif(has_gpu(), reason="a GPU answers here")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    say(monkeypatch, "")
    yield
    backends._backend_of_environment.cache_clear()


def say(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the environment name a backend, as if nothing had been called before."""
    monkeypatch.setenv("GPUCNN_BACKEND", name)
    backends._backend_of_environment.cache_clear()


def emulated() -> CudaBackend:
    return CudaBackend(np, EmulatorLauncher("fast"))


def test_numpy_arrays_run_on_numpy() -> None:
    assert backend_of("relu", x=np.zeros(2)).name == "numpy"


def test_a_choice_holds_in_its_block_and_is_undone() -> None:
    cuda = emulated()
    with use_backend(cuda) as backend:
        assert backend is cuda is default_backend() is backend_of("relu", x=np.zeros(2))
        with use_backend("numpy"):
            assert backend_of("relu", x=np.zeros(2)).name == "numpy"
        assert chosen_backend() is cuda
    assert chosen_backend() is None


def test_a_choice_is_undone_after_an_error() -> None:
    with pytest.raises(KeyError), use_backend("numpy"):
        raise KeyError
    assert chosen_backend() is None


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "NumPy")
    assert chosen_backend() is get_backend("numpy")
    say(monkeypatch, "tpu")
    with pytest.raises(ValueError, match="Received: 'tpu'"):
        gpucnn.ReLU().forward(np.zeros((1, 2)))


def test_a_call_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "numpy")
    with use_backend(emulated()) as cuda:
        assert chosen_backend() is cuda


class FakeCupyArray(np.ndarray):
    """An array that says, as CuPy's do, that it comes from the package cupy."""


FakeCupyArray.__module__ = "cupy"
FakeCupyArray.__name__ = "ndarray"


def test_mixed_arrays_are_refused_by_name() -> None:
    layer = gpucnn.Conv2D(2, 3, input_shape=(5, 5, 1), name="stem")
    layer.forward(np.zeros((1, 5, 5, 1), np.float32))
    on_gpu = np.zeros((1, 5, 5, 1), np.float32).view(FakeCupyArray)
    with pytest.raises(TypeError) as error:
        layer.forward(on_gpu)
    text = str(error.value)
    assert text.startswith("Conv2D 'stem': all arrays of a call must lie on one device")
    assert 'model.to("cuda")' in text
    assert "Received: input: cupy.ndarray, kernel: numpy.ndarray" in text


def test_an_index_of_another_device_is_refused() -> None:
    y, index = gpucnn.functional.pool_forward(np.zeros((1, 4, 4, 1), np.float32))
    with pytest.raises(TypeError, match=r"pool: .* one device.*dy: numpy.*index: cupy"):
        gpucnn.functional.pool_backward(y, index.view(FakeCupyArray), (1, 4, 4, 1))


@pytest.mark.parametrize("array", [[1.0, 2.0], "text", None], ids=repr)
def test_what_is_no_array_is_refused(array: object) -> None:
    with pytest.raises((TypeError, ValueError), match="Received"):
        gpucnn.ReLU().forward(array)


@without_gpu
@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_cupy_without_a_driver_is_said() -> None:
    with pytest.raises(RuntimeError, match="the CUDA backend needs a GPU"):
        use_backend("cuda")
    assert chosen_backend() is None
    assert default_backend().name == "numpy"


def test_missing_cupy_is_said() -> None:
    program = (
        "import sys; sys.modules['cupy'] = None\n"
        "import gpucnn\n"
        "try: gpucnn.use_backend('cuda')\n"
        "except RuntimeError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "needs CuPy, which is not installed: pip install" in done.stdout


def test_a_model_moves_between_backends() -> None:
    model = gpucnn.Sequential([gpucnn.Conv2D(3, 2), gpucnn.Flatten(), gpucnn.Dense(2)])
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 1)).astype(np.float32)
    expected = model.forward(x)
    with use_backend(emulated()) as cuda:
        model.to(cuda)
        assert model.layers[0].backend is cuda
        np.testing.assert_allclose(model.forward(x), expected, rtol=1e-5, atol=1e-6)
    model.to("numpy")
    np.testing.assert_array_equal(model.forward(x), expected)


def test_no_default_is_looked_for_where_the_arrays_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look for a GPU takes seconds, and starts a context there."""

    def looked() -> None:
        raise AssertionError("a default backend was looked for")

    monkeypatch.setattr("gpucnn.layers.base.default_backend", looked)
    model = gpucnn.Sequential([gpucnn.Dense(3), gpucnn.BatchNorm(), gpucnn.ReLU(), gpucnn.Dense(2)])
    y = model.forward(np.ones((4, 3), np.float32), training=True)
    assert model.backward(y).shape == (4, 3)
