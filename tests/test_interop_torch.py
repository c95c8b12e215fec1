"""A model as a module of PyTorch's: its gradients, its memory, and what training does to it."""

from __future__ import annotations

import copy
import gc
import io
import weakref

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad, gradcheck
from torch.utils.checkpoint import checkpoint

import gpucnn
from gpucnn.backends import use_backend
from gpucnn.backends.numpy import NumpyBackend
from gpucnn.interop.autograd import TorchModule
from gpucnn.interop.torch import as_torch_module
from gpucnn.losses import CrossEntropy
from gpucnn.optimizers import SGD

from .conftest import make_backend
from .networks import block, lenet, numpy_backend, two_headed  # noqa: F401 - an autouse fixture

PICTURE = (9, 8, 2)


def tensor(*shape: int, seed: int = 0, dtype: str = "float64", grad: bool = True) -> torch.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return torch.tensor(values, requires_grad=grad)


def built(layer: gpucnn.layers.Layer, shape: tuple, dtype: str = "float64") -> gpucnn.layers.Layer:
    layer.build(shape, dtype)
    return layer


MODELS = {
    "chain": (lambda: lenet(input_shape=PICTURE, dtype="float64"), [(3, *PICTURE)]),
    "residual": (lambda: block(input_shape=(7, 5, 3), dtype="float64"), [(2, 7, 5, 3)]),
    "graph": (lambda: two_headed(dtype="float64"), [(2, 6, 5, 2), (2, 6, 5, 3)]),
    "layer": (lambda: built(gpucnn.SeparableConv1D(4, 3, activation="silu"), (8, 3)), [(2, 8, 3)]),
    "views": (lambda: built(gpucnn.Flatten(), (4, 3)), [(2, 4, 3)]),
    "sum": (lambda: built(gpucnn.Add(), [(3, 2), (3, 2)]), [(2, 3, 2), (2, 3, 2)]),
    "products": (lambda: built(gpucnn.Multiply(), [(3, 2), (1, 2)]), [(2, 3, 2), (2, 1, 2)]),
}


def parameters_of(module: TorchModule) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", MODELS)
def test_every_gradient_is_that_of_differences(name, training):
    make, shapes = MODELS[name]
    model = make()
    for _, layer in model.walk():
        layer.rate = 0  # of a dropout, whose mask is another at each call
    module = as_torch_module(model).train(training)
    xs = [tensor(*shape, seed=i) for i, shape in enumerate(shapes)]
    parameters = parameters_of(module)

    def run(*tensors: torch.Tensor) -> object:
        values = dict(zip(parameters, tensors[len(xs) :], strict=True))
        return torch.func.functional_call(module, values, tensors[: len(xs)])

    assert gradcheck(run, (*xs, *parameters.values()))


def test_complex_gradients_follow_pytorchs_convention():
    model = gpucnn.Sequential(
        [gpucnn.Conv1D(3, 2, padding="same"), gpucnn.Flatten(), gpucnn.Dense(2)],
        input_shape=(4, 2), dtype="complex128",
    )  # fmt: skip
    module = as_torch_module(model)
    x = torch.complex(tensor(2, 4, 2, grad=False), tensor(2, 4, 2, seed=1, grad=False))
    assert gradcheck(module, x.requires_grad_())
    assert module(x.detach().conj()).dtype == torch.complex128


def test_a_training_is_the_same_as_our_own():
    def network() -> gpucnn.Sequential:
        gpucnn.set_seed(5)
        return lenet(input_shape=PICTURE, dtype="float32")

    x = tensor(24, *PICTURE, dtype="float32", grad=False)
    labels = torch.arange(24) % 5
    model, loss, sgd = network(), CrossEntropy(), SGD(0.05, momentum=0.9)
    ours = []
    for _ in range(6):
        value, dy = loss(model.forward(x.numpy(), training=True), labels.numpy())
        model.backward(dy)
        sgd.step(model.parameters())
        ours.append(float(value))
    module = as_torch_module(network())
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
    theirs = []
    for _ in range(6):
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(module(x), labels)
        value.backward()
        optimizer.step()
        theirs.append(value.item())
    assert ours[-1] < ours[0]
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)
    # the optimizer has changed the model itself, and so have the forwards its statistics
    for path, value in module.model.state_dict().items():
        np.testing.assert_allclose(value, model.state_dict()[path], rtol=1e-4, atol=1e-6)


def test_it_stands_among_pytorchs_own_layers():
    """Channels first, as PyTorch's are; the same gradients as PyTorch's own convolution."""
    conv = gpucnn.Conv2D(5, 3, data_format="channels_first", activation="relu")
    ours = as_torch_module(built(conv, (4, 9, 8), "float32"))
    theirs = torch.nn.Conv2d(4, 5, 3)
    with torch.no_grad():
        theirs.weight.copy_(ours.get_parameter("conv2d/kernel").movedim(-1, 1))  # KRSC -> KCRS
        theirs.bias.copy_(ours.get_parameter("conv2d/bias"))
    results = []
    stem, head = torch.nn.Conv2d(2, 4, 1), torch.nn.Linear(5, 3)
    for middle in (ours, torch.nn.Sequential(theirs, torch.nn.ReLU())):
        pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        net = torch.nn.Sequential(stem, middle, pooled, head)
        net.zero_grad()
        x = tensor(3, 2, 9, 8, dtype="float32")
        net(x).pow(2).sum().backward()
        results.append([x.grad, stem.weight.grad.clone(), head.weight.grad.clone()])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(
        ours.get_parameter("conv2d/kernel").grad.movedim(-1, 1), theirs.weight.grad
    )


# ---- memory --------------------------------------------------------------------------------------


def dense(units: int = 4, **options: object) -> TorchModule:
    return as_torch_module(built(gpucnn.Dense(units, **options), (3,)))


def test_parameters_and_buffers_are_the_models_memory():
    module = as_torch_module(lenet(input_shape=PICTURE))
    model = module.model
    arrays = {
        f"{path}/{key}": array
        for path, layer in model.walk()
        for key, array in (layer.params | layer.state).items()
    }
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    assert list(dict(module.named_buffers())) == [
        "batch_norm/moving_mean", "batch_norm/moving_variance",
    ]  # fmt: skip
    assert {name: t.data_ptr() for name, t in tensors.items()} == {
        name: array.ctypes.data for name, array in arrays.items()
    }
    module(tensor(2, *PICTURE, dtype="float32"))
    assert np.shares_memory(model.layers[0].params["kernel"], arrays["conv2d/kernel"])
    assert (arrays["batch_norm/moving_mean"] != 0).any()


def test_what_it_returns_is_never_another_tensors_memory():
    """PyTorch adds to gradients and outputs in place where it takes itself for their owner."""
    flatten = as_torch_module(built(gpucnn.Flatten(), (2, 3)))
    x = tensor(4, 2, 3)
    y = flatten(x)
    y.data.fill_(7)
    assert not (x == 7).any()
    x.register_hook(lambda dx: dx.fill_(5))
    dy = torch.ones_like(y)
    y.backward(dy)
    assert (dy == 1).all() and (x.grad == 5).all()
    add = as_torch_module(built(gpucnn.Add(), [(3,), (3,)]))
    a, b = tensor(2, 3), tensor(2, 3)
    gradients = torch.autograd.grad(add(a, b).sum(), [a, b])
    assert len({gradient.data_ptr() for gradient in gradients}) == 2


def test_several_forwards_may_come_before_their_backwards():
    module = as_torch_module(lenet(input_shape=PICTURE, dtype="float64"))
    module.model.layers[6].rate = 0
    xs = [tensor(3, *PICTURE, seed=i) for i in range(3)]
    expected = [torch.autograd.grad(module(x).square().sum(), x)[0] for x in xs]
    outputs = [module(x) for x in xs]
    for place in (1, 2, 0):
        outputs[place].square().sum().backward()
        assert torch.equal(xs[place].grad, expected[place])


def test_a_block_that_adds_by_itself_keeps_what_each_forward_needs():
    block = gpucnn.Residual([gpucnn.Pad([[0, 0], [0, 0], [0, 0]])], activation="relu")
    module = as_torch_module(built(gpucnn.Sequential([block]), PICTURE))
    signs = [tensor(2, *PICTURE, seed=i) for i in range(2)]
    outputs = [module(x) for x in signs]
    for x, y in zip(signs, outputs, strict=True):
        y.sum().backward()
        assert torch.equal(x.grad, 2.0 * (x > 0))


def test_a_backward_can_be_repeated_where_the_graph_is_kept():
    module = as_torch_module(lenet(input_shape=PICTURE, dtype="float64"))
    x = tensor(3, *PICTURE)
    loss = module(x).square().sum()
    first = torch.autograd.grad(loss, [x, *module.parameters()], retain_graph=True)
    second = torch.autograd.grad(loss, [x, *module.parameters()])
    assert all(map(torch.equal, first, second))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_what_backward_needs_is_pytorchs_to_keep_and_to_free():
    module = as_torch_module(lenet(input_shape=PICTURE))
    kept = []

    def pack(value: torch.Tensor) -> torch.Tensor:
        kept.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        loss = module(tensor(3, *PICTURE, dtype="float32")).sum()
    assert len(kept) > len(list(module.parameters()))
    assert all(layer._saved is None for layer in (module.model, *module.model.layers))
    watched = [weakref.ref(value) for value in kept if not value.requires_grad]
    kept.clear()
    loss.backward()
    gc.collect()
    assert watched and not any(reference() is not None for reference in watched)
    with torch.no_grad():
        assert not module(tensor(3, *PICTURE, dtype="float32")).requires_grad
    assert all(layer._saved is None for layer in (module.model, *module.model.layers))


def test_a_mask_of_bits_is_kept_as_they_are():
    layers = [gpucnn.Dense(16, "relu"), gpucnn.Dropout(0.5), gpucnn.Dense(2)]
    module = as_torch_module(gpucnn.Sequential(layers, input_shape=(3,), dtype="float64"))
    kept, xs = [], [tensor(4, 3, seed=seed) for seed in range(2)]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        ys = [module(x) for x in xs]
    masks = [value for value in kept if value.dtype == torch.uint8]
    assert [mask.shape for mask in masks] == [(8,), (8,)]
    bits = [np.unpackbits(mask.numpy(), bitorder="little").reshape(4, 16) for mask in masks]
    first, second = (layer.params["kernel"] for layer in (layers[0], layers[2]))
    for x, y, alive in zip(xs, ys, bits, strict=True):
        y.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), 2 * alive * second.sum(0) @ first)


@pytest.mark.parametrize("behind", ["relu", "batch_norm"])
def test_what_a_reader_knows_of_its_input_is_pytorchs_too(behind, monkeypatch):
    """That a ReLU gave it, which has no way back of its own; or that a norm is to be applied."""
    monkeypatch.setattr(NumpyBackend, "norms_on_load", lambda *_: True)
    between = {"relu": gpucnn.ReLU(), "batch_norm": gpucnn.BatchNorm(activation="relu")}[behind]
    model = gpucnn.Sequential(
        [gpucnn.Dense(16), between, gpucnn.Dense(2)], input_shape=(3,), dtype="float64"
    )
    module, x, kept = as_torch_module(model), tensor(4, 3), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        y = module(x)
    assert [value.shape for value in kept].count((4, 16)) == {"relu": 1, "batch_norm": 2}[behind]
    (got,) = torch.autograd.grad(y.sum(), x)
    model.forward(x.detach().numpy(), training=True)
    np.testing.assert_array_equal(got.numpy(), model.backward(np.ones((4, 2))))


@pytest.mark.parametrize("place", range(3), ids=["input", "output", "parameter"])
def test_a_change_before_backward_is_an_error(place):
    module, x = dense(activation="tanh"), tensor(2, 3, grad=False)
    y = module(x)
    with torch.no_grad():
        (x, y, module.get_parameter("dense/kernel"))[place].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_change_of_what_backward_does_without_is_none():
    y = dense()(tensor(2, 3)).relu_()
    y.sum().backward()


def test_a_change_of_statistics_before_backward_is_an_error():
    module = as_torch_module(built(gpucnn.BatchNorm(), (3,))).eval()
    y = module(tensor(5, 3))
    module.train()(tensor(5, 3))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# ---- a module like any other ---------------------------------------------------------------------


def test_its_state_goes_to_a_file_and_back():
    module = as_torch_module(lenet(input_shape=PICTURE))
    x = tensor(4, *PICTURE, dtype="float32", grad=False)
    module(x)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = as_torch_module(lenet(input_shape=PICTURE))
    assert not torch.equal(other.eval()(x), module.eval()(x))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.eval()(x), module.eval()(x))
    assert torch.equal(other.train()(x), module.train()(x))  # dropout's count of calls, too
    with pytest.raises(RuntimeError, match=r"Missing key.*conv2d/kernel"):
        other.load_state_dict({})


def test_a_copy_is_independent():
    module = as_torch_module(lenet(input_shape=PICTURE))
    x = tensor(4, *PICTURE, dtype="float32", grad=False)
    twin = copy.deepcopy(module)
    assert torch.equal(twin(x), module(x))
    with torch.no_grad():
        twin.get_parameter("dense/bias").add_(1)
    assert not torch.equal(twin.eval()(x), module.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_converts_and_keeps_its_statistics_exact(dtype):
    module = as_torch_module(lenet(input_shape=PICTURE))
    module(tensor(4, *PICTURE, dtype="float32", grad=False))
    mean = module.get_buffer("batch_norm/moving_mean").clone()
    module.to(dtype)
    assert module.get_parameter("conv2d/kernel").dtype == dtype
    assert torch.equal(module.get_buffer("batch_norm/moving_mean").float(), mean)
    x = tensor(4, *PICTURE).detach().to(dtype).requires_grad_()
    y = module(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == module.get_parameter("conv2d/kernel").grad.dtype == dtype


def test_what_is_frozen_gets_no_gradient():
    model = lenet(input_shape=PICTURE)
    model.layers[0].trainable = model.layers[3].trainable = False
    module = as_torch_module(model)
    mean = module.get_buffer("batch_norm/moving_mean").clone()
    module.get_parameter("dense/bias").requires_grad_(False)
    x = tensor(3, *PICTURE, dtype="float32", grad=False)
    module(x).sum().backward()
    with_gradient = {name for name, p in module.named_parameters() if p.grad is not None}
    assert with_gradient == {"conv2d_1/kernel", "conv2d_1/bias", "dense/kernel"}
    assert x.grad is None and torch.equal(module.get_buffer("batch_norm/moving_mean"), mean)


def test_names_with_dots_are_pytorchs_paths_no_more():
    module = as_torch_module(built(gpucnn.Dense(2, name="features.0"), (3,)))
    assert [name for name, _ in module.named_parameters()] == [
        "features_0/kernel",
        "features_0/bias",
    ]


def test_torch_compile_leaves_it_as_it_is():
    net = torch.nn.Sequential(as_torch_module(lenet(input_shape=PICTURE)), torch.nn.Linear(5, 2))
    net.eval()
    x = tensor(3, *PICTURE, dtype="float32", grad=False)
    assert torch.equal(torch.compile(net, backend="eager")(x), net(x))


def test_it_runs_on_the_cuda_backend():
    """On the emulator, whose arrays are NumPy's."""
    model = gpucnn.Sequential(
        [gpucnn.Conv2D(3, 2, activation="relu"), gpucnn.Flatten(), gpucnn.Dense(2)],
        input_shape=(4, 5, 2),
    )
    x = tensor(2, 4, 5, 2, dtype="float32")
    results = []
    for backend in ("numpy", "emulated"):
        with use_backend(make_backend(backend)):
            module = as_torch_module(model)
            results.append(torch.autograd.grad(module(x).sum(), [x, *module.parameters()]))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


# ---- refusals ------------------------------------------------------------------------------------


def test_the_gradient_of_a_gradient_is_refused():
    x = tensor(2, 3)
    y = dense(activation="tanh")(x).sum()
    with pytest.raises(RuntimeError, match=r"^Dense 'dense': .*Received: create_graph=True"):
        torch.autograd.grad(y, x, create_graph=True)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # PyTorch's own use of it
@pytest.mark.parametrize("grad", [True, False], ids=["with gradients", "without"])
def test_other_kinds_of_derivatives_are_refused(grad):
    module, x = dense(activation="tanh"), tensor(2, 3, grad=False)
    with torch.set_grad_enabled(grad):
        with pytest.raises(RuntimeError, match="functorch transforms"):
            torch.func.vmap(module)(x[None])
        with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
            module(forward_ad.make_dual(x, x))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_runs_the_forward_again(reentrant):
    module = as_torch_module(lenet(input_shape=PICTURE)).eval()
    gradients = []
    for run in (module, lambda x: checkpoint(module, x, use_reentrant=reentrant)):
        module.zero_grad()
        x = tensor(2, *PICTURE, dtype="float32")
        run(x).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in module.parameters())])
    assert all(map(torch.equal, *gradients))


def test_what_is_no_model_or_not_built_is_refused():
    with pytest.raises(TypeError, match=r"^as_torch_module: model must be .*Received: \[\]"):
        as_torch_module([])
    with pytest.raises(ValueError, match=r"^as_torch_module: the model is not built; .*Received: "):
        as_torch_module(gpucnn.Sequential([gpucnn.Dense(2)]))


def test_other_inputs_are_refused_by_the_models_name():
    module = dense()
    with pytest.raises(TypeError, match=r"^Dense 'dense': inputs must be tensors. .*ndarray"):
        module(np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"^Dense 'dense': the model takes one input. Received: 2"):
        module(tensor(1, 3), tensor(1, 3))
    with pytest.raises(TypeError, match=r"^Dense 'dense': the parameters are float64"):
        module(tensor(1, 3, dtype="float32"))
    with pytest.raises(ValueError, match=r"^Dense 'dense': expects an input .*3.* 4\)"):
        module(tensor(1, 4))
    assert module(tensor(1, 3)).shape == (1, 4)  # the right one can follow


def test_pytorch_itself_may_be_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "gpucnn\[torch\]"'):
        gpucnn.as_torch_module(gpucnn.Dense(2))
