"""On a GPU: tensors of PyTorch on streams of their own, where work must wait for other work."""

from __future__ import annotations

import copy
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
import torch

import gpucnn
from gpucnn.backends import get_backend, use_backend
from gpucnn.interop import as_array, as_torch, like

pytestmark = pytest.mark.gpu

SPIN = 200_000_000  # cycles, a tenth of a second: long enough that what does not wait comes first


@pytest.fixture
def cupy() -> ModuleType:
    try:
        found = get_backend("cuda").xp
    except RuntimeError as error:
        pytest.skip(str(error))
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    return found


def late_ones(stream: torch.cuda.Stream) -> torch.Tensor:
    """Return a tensor whose ones are written a tenth of a second from now."""
    with torch.cuda.stream(stream):
        x = torch.zeros(1 << 20, device="cuda")
        torch.cuda._sleep(SPIN)
        return x.fill_(1)


def test_work_waits_for_the_other_librarys_stream(cupy):
    side, ours = torch.cuda.Stream(), cupy.cuda.Stream(non_blocking=True)
    with ours:
        x = late_ones(side)
        with torch.cuda.stream(side):
            y = gpucnn.ReLU().forward(x.reshape(1, -1))  # on ours, after side
        assert isinstance(y, cupy.ndarray) and float(y.sum()) == 1 << 20
        assert gpucnn.Flatten().forward(x.reshape(1, -1)).data.ptr == x.data_ptr()
        late = cupy.zeros(1 << 20, cupy.float32)
        with torch.cuda.stream(side):
            torch.cuda._sleep(SPIN)
            delay = as_array(torch.ones(1 << 20, device="cuda"))  # ours waits for side
        late += delay
        back = as_torch(late)  # PyTorch's current stream waits for ours
        assert back.data_ptr() == late.data.ptr
    assert float(back.sum()) == 1 << 20
    bits = as_array(torch.ones(2, 3, device="cuda", dtype=torch.bfloat16))
    assert bits.dtype == ml_dtypes.bfloat16 and as_torch(bits).dtype == torch.bfloat16
    assert like(as_array(torch.ones(2)), back).is_cuda


def test_a_module_works_on_pytorchs_stream(cupy):
    """With the bits of the model by itself, though its input is written late, on a side stream."""
    with use_backend("numpy"):
        model = gpucnn.Sequential(
            [
                gpucnn.Conv2D(6, 3, padding="same"),
                gpucnn.BatchNorm(),
                gpucnn.ReLU(),
                gpucnn.MaxPool2D(2),
                gpucnn.Flatten(),
                gpucnn.Dense(5),
            ],
            input_shape=(8, 8, 3),
        )
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 3), np.float32)
    own = copy.deepcopy(model).to("cuda")
    expected = own.forward(cupy.asarray(x), training=True)
    own.backward(cupy.ones_like(expected))
    cupy.cuda.Device().synchronize()
    module = gpucnn.as_torch_module(model).cuda()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        late = torch.zeros(x.shape, device="cuda")
        torch.cuda._sleep(SPIN)
        late.copy_(torch.tensor(x))
        y = module(late)
        y.sum().backward()
    side.synchronize()
    np.testing.assert_array_equal(y.detach().cpu(), expected.get())
    for parameter in own.parameters():
        got = module.get_parameter(parameter.path).grad.cpu()
        np.testing.assert_array_equal(got, parameter.gradient.get(), err_msg=parameter.path)
    for key, mean in own.layers[1].state.items():
        got = module.get_buffer(f"batch_norm/{key}").cpu()
        np.testing.assert_array_equal(got, mean.get())


def test_a_trainer_takes_arrays_on_the_gpu(cupy):
    """CuPy's and PyTorch's, as it takes NumPy's."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 6), np.float32), np.arange(32) % 3

    def trained(x, y) -> np.ndarray:
        gpucnn.set_seed(0)
        model = gpucnn.Sequential([gpucnn.Dense(3)], input_shape=(6,)).to("cuda")
        trainer = gpucnn.Trainer(model, progress=False)
        trainer.fit(x, y, epochs=2, batch_size=8, validation_split=0)
        return trainer.predict(x)

    expected = trained(x, y)
    np.testing.assert_array_equal(trained(cupy.asarray(x), cupy.asarray(y)), expected)
    tensors = torch.tensor(x, device="cuda"), torch.tensor(y, device="cuda")
    np.testing.assert_array_equal(trained(*tensors), expected)
