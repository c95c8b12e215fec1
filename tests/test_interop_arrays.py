"""Arrays of PyTorch, JAX and others: into a layer and out again, in the same memory."""

from __future__ import annotations

import time
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import torch

import gpucnn
from gpucnn.backends import exchange, use_backend
from gpucnn.backends.numpy import buffers
from gpucnn.interop import as_array, as_jax, as_torch, like

from .conftest import make_backend
from .networks import images, two_headed

jax = pytest.importorskip("jax")
jnp = jax.numpy

X = np.random.default_rng(3).standard_normal((2, 7, 5, 3)).astype(np.float32)


class Exposed:
    """An object that shows an array by one protocol alone."""

    def __init__(self, array: np.ndarray, *names: str) -> None:
        for name in names:
            value = getattr(array, name)
            setattr(type(self), name, staticmethod(value) if callable(value) else value)


def exposed(array: np.ndarray, *names: str) -> Exposed:
    return type("Exposed", (Exposed,), {})(array, *names)


KINDS = {
    "PyTorch": torch.tensor,
    "PyTorch, strided": lambda a: torch.tensor(a.transpose(0, 3, 1, 2)).permute(0, 2, 3, 1),
    "JAX": jnp.array,
    "DLPack": lambda a: exposed(a, "__dlpack__", "__dlpack_device__"),
    "array interface": lambda a: exposed(a, "__array_interface__"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_takes_it_and_its_gradient(kind):
    layer = gpucnn.Conv2D(4, (3, 2), activation="tanh")
    y = layer.forward(X)
    dy = np.random.default_rng(4).standard_normal(y.shape).astype(np.float32)
    dx, grads = layer.backward(dy), dict(layer.grads)
    got = layer.forward(KINDS[kind](X))
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, y)
    np.testing.assert_array_equal(layer.backward(KINDS[kind](dy)), dx)
    for name, grad in grads.items():
        np.testing.assert_array_equal(layer.grads[name], grad)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_read_where_it_lies(kind):
    array = X.copy()
    x = KINDS[kind](array)
    taken = as_array(x)
    assert np.shares_memory(taken, as_array(x))  # the exporter's memory, not a copy a time
    address = taken.ctypes.data
    if isinstance(x, torch.Tensor):
        assert address == x.data_ptr()
    elif isinstance(x, jax.Array):
        assert address == x.unsafe_buffer_pointer()
    else:
        assert address == array.ctypes.data
    np.testing.assert_array_equal(taken, X)
    if "strided" not in kind:
        assert np.shares_memory(gpucnn.Flatten().forward(x), taken)  # nor does a layer copy


def test_its_memory_stays_while_a_layer_keeps_it():
    layer = gpucnn.Dense(3)
    x = torch.tensor(X.reshape(14, 15))
    layer.forward(x)
    del x
    others = [torch.full((14, 15), torch.nan) for _ in range(20)]
    dy = np.ones((14, 3), np.float32)
    layer.backward(dy)
    np.testing.assert_allclose(layer.grads["kernel"], dy.T @ X.reshape(14, 15), rtol=1e-5)
    assert len(others) == 20


@pytest.mark.parametrize("kind", ["PyTorch", "JAX"])
def test_bfloat16_travels_as_it_is(kind):
    x = torch.tensor(X).bfloat16() if kind == "PyTorch" else jnp.array(X, jnp.bfloat16)
    taken = as_array(x)
    assert taken.dtype == ml_dtypes.bfloat16
    assert taken.ctypes.data == (x.data_ptr() if kind == "PyTorch" else x.unsafe_buffer_pointer())
    np.testing.assert_array_equal(taken, X.astype(ml_dtypes.bfloat16))
    back = like(gpucnn.Flatten().forward(x), x)
    assert back.dtype == x.dtype and type(back) is type(x)
    np.testing.assert_array_equal(as_array(back), taken.reshape(2, -1))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float64", "complex64"])
def test_every_dtype_goes_there_and_back(dtype):
    x = torch.tensor(np.arange(6).reshape(2, 3).astype(dtype))
    assert as_array(x).dtype == dtype
    back = as_torch(as_array(x))
    assert back.dtype == x.dtype and back.data_ptr() == x.data_ptr()


def test_networks_take_several_and_convert_their_dtypes():
    with use_backend("numpy"):
        graph, shapes = two_headed(dtype="float64"), [(2, 6, 5, 2), (2, 6, 5, 3)]
        xs = [images(i, *shape) for i, shape in enumerate(shapes)]
        expected = graph.forward(xs)
        got = graph.forward([torch.tensor(xs[0]), jnp.array(xs[1], jnp.float32)])
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    pixels = torch.randint(0, 255, (3, 4), dtype=torch.uint8)
    model = gpucnn.Sequential([gpucnn.Dense(2)])
    np.testing.assert_array_equal(model.forward(pixels), model.forward(pixels.numpy()))
    np.testing.assert_array_equal(model.predict(pixels, 2), model.predict(pixels.numpy(), 2))
    total = gpucnn.Add().forward([torch.ones(2, 3), np.ones((2, 3), np.float32)])
    np.testing.assert_array_equal(total, np.full((2, 3), 2, np.float32))


def test_the_cuda_backend_takes_them_too():
    """On the emulator, whose arrays are NumPy's."""
    layer = gpucnn.Conv2D(4, (3, 2), activation="relu", name="conv")
    with use_backend(make_backend("emulated")):
        expected = layer.forward(X)
        np.testing.assert_array_equal(layer.forward(torch.tensor(X)), expected)


# ---- out -----------------------------------------------------------------------------------------


def pixel_major() -> np.ndarray:
    """A result whose memory is (H, W, N, C), in the backend's buffers."""
    y = gpucnn.MaxPool2D(1).forward(np.random.default_rng(5).standard_normal((4, 32, 30, 8)))
    assert not y.flags.c_contiguous
    return y.astype(np.float32, order="K")


OUT = {"PyTorch": as_torch, "JAX": as_jax}


@pytest.mark.parametrize("library", OUT)
@pytest.mark.parametrize("name", ["pixel major", "C", "a part", "backwards", "read-only", "empty"])
def test_any_strides_come_out_right(library, name):
    y = pixel_major()
    array = {
        "pixel major": y,
        "C": np.ascontiguousarray(y),
        "a part": y[:, 3:9:2, 1:],
        "backwards": y[::-1, :, ::-2],
        "read-only": y.copy(),
        "empty": y[:0],
    }[name]
    array.flags.writeable = name != "read-only"
    out = OUT[library](array)
    assert tuple(out.shape) == array.shape
    np.testing.assert_array_equal(np.asarray(out), array)
    if library == "PyTorch" and name in ("pixel major", "C", "a part"):
        assert out.data_ptr() == array.ctypes.data


def test_jax_shares_what_is_aligned_and_dense():
    y = buffers.empty_ordered((4, 32, 30, 8), (1, 2, 0, 3), np.float32)
    y[...] = 7
    assert as_jax(y).unsafe_buffer_pointer() == y.ctypes.data
    fixed = buffers.empty((300, 400), np.float32)
    fixed.flags.writeable = False
    assert as_jax(fixed).unsafe_buffer_pointer() == fixed.ctypes.data


def test_what_is_read_only_is_copied_for_pytorch_which_would_write_to_it():
    x = jnp.ones((2, 3))
    y = gpucnn.Flatten().forward(x)  # a view of JAX's memory
    assert not y.flags.writeable
    as_torch(y).add_(1)
    np.testing.assert_array_equal(np.asarray(x), np.ones((2, 3)))


@pytest.mark.parametrize("make", [torch.tensor, jnp.array, np.array])
def test_it_comes_back_as_its_own_kind(make):
    x = make(X)
    y = gpucnn.Conv2D(4, 3).forward(x)
    back = like(y, x)
    assert type(back) is type(x)
    np.testing.assert_array_equal(np.asarray(back), y)
    if not isinstance(x, jax.Array):  # whose sharing depends on the alignment
        assert as_array(back).ctypes.data == y.ctypes.data


HOLD = {
    "a tensor": as_torch,
    "a view of a tensor": lambda y: as_torch(y)[1:, ::2].flatten()[3:],
    "JAX": as_jax,
    "a capsule": lambda y: y.__dlpack__(),
    "a tensor of a layer's output": lambda y: as_torch(gpucnn.Flatten().forward(as_torch(y))),
}


@pytest.mark.parametrize("name", HOLD)
def test_memory_that_another_library_holds_is_not_handed_out_again(name):
    """The NumPy backend's buffers are taken again once nothing shows them."""
    buffers.clear()
    y = buffers.empty((40, 1000), np.float32)
    y[...] = 1
    address = y.ctypes.data
    held = HOLD[name](y)
    del y
    other = buffers.empty((40, 1000), np.float32)
    assert other.ctypes.data != address
    if not name.startswith("a capsule"):
        other[...] = 2
        assert float(held.sum()) == held.shape[0] * (held.shape[1] if held.ndim > 1 else 1)
    del held, other
    assert soon_idle(address)
    buffers.clear()


def soon_idle(address: int) -> bool:
    """Return whether the buffer around an address is let go of; JAX does so a moment later."""
    for _ in range(200):
        alike = [buffer for row in buffers._buffers.values() for buffer in row]
        near = [b for b in alike if 0 <= address - b.memory.ctypes.data < b.memory.nbytes]
        if near[0].is_idle():
            return True
        time.sleep(0.01)
    return False


# ---- streams -------------------------------------------------------------------------------------


class OnGpu:
    """A tensor on a GPU, which notes for whose stream it is asked to be ready."""

    def __init__(self, device: int = 2) -> None:
        self.device, self.streams = device, []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, *, stream: int | None = None, **_: object) -> object:
        self.streams.append(stream)
        return X.__dlpack__()


@pytest.fixture
def cupy(monkeypatch):
    """A stand-in for CuPy: as its from_dlpack, it hands the exporter the current stream."""

    def from_dlpack(array: OnGpu) -> np.ndarray:
        array.__dlpack__(stream=fake.current, max_version=(1, 0), copy=None)
        return X

    fake = SimpleNamespace(current=1, from_dlpack=from_dlpack, asarray=lambda a: (X, a))
    backend = SimpleNamespace(xp=fake)
    monkeypatch.setattr(exchange, "get_backend", {"cuda": backend}.__getitem__)
    return fake


@pytest.mark.parametrize("device", [2, 13])  # device memory, and managed
def test_a_tensor_on_a_gpu_is_made_ready_for_cupys_current_stream(cupy, device):
    tensor = OnGpu(device)
    for stream in (1, 0x7F00):
        cupy.current = stream
        assert as_array(tensor) is X
    assert tensor.streams == [1, 0x7F00]


def test_what_has_no_dlpack_is_left_to_cupy_which_waits_for_its_stream(cupy):
    tensor = SimpleNamespace(__cuda_array_interface__={"version": 3, "stream": 7})
    assert as_array(tensor) == (X, tensor)


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (None, "input must be an array. Received: None"),
        (3.5, "input must be an array. Received: builtins.float"),
        (torch.ones(1, 2, requires_grad=True), r"requires a gradient.*detach\(\).*as_torch_module"),
        (torch.ones(1, 2, dtype=torch.complex64).conj(), "cannot be shared: .*conjugate"),
        (torch.ones(1, 2).to_sparse(), "cannot be shared: .*Received: torch.Tensor"),
        (torch.ones(1, 2, device="meta"), "cannot be shared: .*meta"),
        (torch.ones(1, 2).to(torch.float8_e4m3fn), "cannot be shared: .*Received: torch.Tensor"),
        (OnGpu(8), "cannot be shared: it lies on a device of DLPack's kind 8, no CPU and no CUDA"),
    ],
    ids=["None", "float", "gradient", "conjugate", "sparse", "meta", "float8", "Metal"],
)
def test_what_cannot_be_taken_is_refused_with_its_reason(x, message):
    with pytest.raises(TypeError, match=f"ReLU 're_lu': .*{message}"):
        gpucnn.ReLU().forward(x)


def test_a_gradient_is_refused_by_name():
    layer = gpucnn.ReLU()
    layer.forward(np.ones((1, 2)))
    with pytest.raises(TypeError, match="ReLU 're_lu': dy cannot be shared"):
        layer.backward(torch.ones(1, 2).to_sparse())


def test_a_traced_array_of_jax_is_refused():
    with pytest.raises(TypeError, match=r"ReLU 're_lu': input .*Received: jax"):
        jax.jit(gpucnn.ReLU().forward)(jnp.ones((1, 2)))


def test_a_gpu_without_cupy_is_said(monkeypatch):
    def missing(name: str) -> None:
        raise RuntimeError("the CUDA backend needs CuPy, which is not installed")

    monkeypatch.setattr(exchange, "get_backend", missing)
    with pytest.raises(TypeError, match="the CUDA backend needs CuPy"):
        as_array(OnGpu())


def test_the_functions_name_themselves():
    for function in (as_array, as_torch, as_jax):
        with pytest.raises(TypeError, match=f"^{function.__name__}: . must be an array"):
            function([1.0])
    with pytest.raises(
        TypeError, match=r"^like: x must be an array of .*Received: x=builtins.list"
    ):
        like(X, [1.0])


def test_a_missing_library_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "gpucnn\[jax\]"'):
        as_jax(X)
