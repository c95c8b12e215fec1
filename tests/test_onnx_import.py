"""Models become networks: the layers, their names and fusions, any batch, and clear refusals."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import gpucnn
from gpucnn import onnx as gonnx
from gpucnn.backends import use_backend
from gpucnn.layers import BatchNorm, Conv2D, Dense, Flatten, GlobalAveragePool2D, ReLU
from gpucnn.onnx import UnsupportedError
from gpucnn.onnx.backend import Backend
from tests.onnx_models import SmallResNet, Style, UNet, Written, exported, made, node, randomise

# float32 sums of some hundred terms in another order, through ten layers.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def numpy_backend():
    gpucnn.set_seed(7)
    with use_backend("numpy"):
        yield


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def torch_model():
    torch.manual_seed(0)
    model = SmallResNet().eval()
    randomise(model)
    return model


@pytest.fixture(scope="module")
def file(torch_model) -> bytes:
    return exported(torch_model, torch.zeros(1, 3, 8, 12))


# ---- whole networks ------------------------------------------------------------------------------


def test_a_pytorch_export_predicts_as_pytorch(torch_model, file):
    network = gonnx.load(file)
    x = numbers(5, 3, 8, 12)
    with torch.no_grad():
        expected = torch_model(torch.tensor(x)).numpy()
    np.testing.assert_allclose(network.predict(x), expected, **CLOSE)
    np.testing.assert_allclose(network.predict(x, batch_size=2), expected, **CLOSE)


def test_its_layers_are_those_that_a_person_would_write(file):
    network = gonnx.load(file)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds == [
        "Conv2D", "BatchNorm", "ReLU", "Conv2D", "BatchNorm", "ReLU", "Conv2D", "BatchNorm",
        "GlobalAveragePool2D", "Conv2D", "SiLU", "Conv2D", "Sigmoid", "Multiply",
        "Add", "PReLU", "MaxPool2D", "Flatten", "Dense",
    ]  # fmt: skip
    stem = network.layers[0]
    assert (stem.name, stem.strides, stem.data_format) == (
        "stem.stem.0.Conv", (2, 2), "channels_first",
    )  # fmt: skip
    assert network.layers[5].max_value == 6 and network.layers[6].groups == 8


def test_batch_norm_and_activation_fuse_into_the_convolution(file):
    network = gonnx.load(file)
    stages = [stage.name for run in network._plan() for stage in run.stages]
    assert "stem.stem.0.Conv+stem.stem.1.BatchNormalization+stem.stem.2.Relu" in stages
    assert sum("BatchNormalization" in name for name in stages) == 3
    assert all(name.count("+") for name in stages if "BatchNormalization" in name)
    x = numbers(2, 3, 8, 12)
    fused = network.predict(x)
    network.fuses = False
    np.testing.assert_allclose(network.predict(x), fused, **CLOSE)


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
def test_opsets(torch_model, opset):
    data = exported(torch_model, torch.zeros(1, 3, 8, 12), opset_version=opset)
    x = numbers(2, 3, 8, 12)
    with torch.no_grad():
        expected = torch_model(torch.tensor(x)).numpy()
    np.testing.assert_allclose(gonnx.load(data).predict(x), expected, **CLOSE)


def test_a_model_from_a_path_or_itself(file, tmp_path):
    (tmp_path / "model.onnx").write_bytes(file)
    x = numbers(1, 3, 8, 12)
    expected = gonnx.load(file).predict(x)
    for source in (
        tmp_path / "model.onnx",
        str(tmp_path / "model.onnx"),
        onnx.load_from_string(file),
    ):
        np.testing.assert_array_equal(gonnx.load(source).predict(x), expected)


def test_the_model_is_left_as_it_was(file):
    model = onnx.load_from_string(file)
    gonnx.load(model)
    assert model.SerializeToString() == onnx.load_from_string(file).SerializeToString()


def test_the_cuda_backend_runs_it(file, backend):
    x = numbers(2, 3, 8, 12)
    with use_backend("numpy"):
        expected = gonnx.load(file).predict(x)
    network = gonnx.load(file)
    assert network.backend is backend
    np.testing.assert_allclose(network.predict(x), expected, **CLOSE)


def test_a_checkpoint_keeps_it(file, tmp_path):
    network = gonnx.load(file)
    gpucnn.save(network, tmp_path / "imported")
    again = gpucnn.load(tmp_path / "imported")
    x = numbers(3, 3, 8, 12)
    np.testing.assert_array_equal(again.predict(x), network.predict(x))


# ---- training further ----------------------------------------------------------------------------


def test_gradients_and_statistics_of_a_step_are_pytorchs(torch_model, file):
    """In training mode: by the batch's own statistics, which move the running ones."""
    x, dy = numbers(4, 3, 8, 12), numbers(4, 5, seed=1)
    network = gonnx.load(file)
    y = network.forward(x, training=True)
    dx = network.backward(dy)
    copy = SmallResNet()
    copy.load_state_dict(torch_model.state_dict())
    copy.train()
    inputs = torch.tensor(x, requires_grad=True)
    expected = copy(inputs)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, expected.detach(), **CLOSE)
    np.testing.assert_allclose(dx, inputs.grad, rtol=1e-3, atol=1e-4)
    gradients = {p.path: p.gradient for p in network.parameters()}
    pairs = {
        "stem.stem.0.Conv/kernel": copy.stem[0].weight.grad.movedim(1, -1),
        "stem.stem.1.BatchNormalization/gamma": copy.stem[1].weight.grad,
        "block.block.3.Conv/kernel": copy.block[3].weight.grad.movedim(1, -1),
        "block.block.4.BatchNormalization/beta": copy.block[4].bias.grad,
        "gate.gate.1.Conv/bias": copy.gate[1].bias.grad,
        "activation.PRelu/alpha": copy.activation.weight.grad,
        "head.Gemm/kernel": copy.head.weight.grad,
        "head.Gemm/bias": copy.head.bias.grad,
    }
    assert len(gradients) == len(list(copy.parameters()))
    for path, theirs in pairs.items():
        np.testing.assert_allclose(gradients[path], theirs, rtol=1e-3, atol=1e-4, err_msg=path)
    norm = next(layer for layer in network.layers if isinstance(layer, BatchNorm))
    assert norm.momentum == pytest.approx(0.9)
    np.testing.assert_allclose(norm.state["moving_mean"], copy.stem[1].running_mean, **CLOSE)


def test_it_trains(file):
    """Five patterns under noise: from a loss of chance to a fraction of it."""
    images, labels = numbers(60, 3, 8, 12), np.arange(60) % 5
    images += numbers(5, 3, 8, 12, seed=9)[labels]
    trainer = gpucnn.Trainer(gonnx.load(file), optimizer=gpucnn.optimizers.Adam(0.01))
    before = trainer.evaluate((images, labels))["loss"]
    trainer.fit((images, labels), epochs=12, batch_size=20)
    assert trainer.evaluate((images, labels))["loss"] < before / 4


@pytest.mark.parametrize(
    ("kind", "shape"), [(UNet, (3, 16, 24)), (Style, (3, 9, 10)), (Written, (3, 9, 8))]
)
def test_other_networks_and_their_gradients_are_pytorchs(kind, shape):
    """In float64, where no number lies on another side of a kink for a rounding's sake."""
    torch.manual_seed(1)
    model = kind().eval()
    randomise(model)
    network = gonnx.load(exported(model, torch.zeros(1, *shape))).astype("float64")
    x, model = numbers(3, *shape).astype(np.float64), model.double()
    inputs = torch.tensor(x, requires_grad=True)
    expected = model(inputs)
    dy = numbers(*expected.shape, seed=1).astype(np.float64)
    expected.backward(torch.tensor(dy))
    y, dx = network.forward(x), network.backward(dy)
    # Attributes (a slope of 0.1) and constants of the file are float32.
    for ours, theirs in ((y, expected.detach().numpy()), (dx, inputs.grad.numpy())):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())
    ours = [float(np.abs(p.gradient).sum()) for p in network.parameters()]
    theirs = [float(p.grad.abs().sum()) for p in model.parameters()]
    for value in theirs:  # each of PyTorch's is there, by the sum of its magnitudes
        assert min(abs(value - other) for other in ours) <= 1e-6 * max(theirs)


# ---- what nodes become ---------------------------------------------------------------------------


def check(model: onnx.ModelProto, *shape: int) -> gpucnn.Graph:
    """Load a model, and compare its numbers with onnxruntime's."""
    model.ir_version = 10
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = numbers(*shape)
    expected = session.run(None, {"x": x})[0]
    network = gonnx.load(model)
    np.testing.assert_allclose(network.predict(x), expected, **CLOSE)
    return network


def test_sizes_that_depend_on_the_batch():
    nodes = [
        node("Shape", "x", "sizes"),
        node("Gather", "sizes zero", "n"),
        node("Unsqueeze", "n first", "ns"),
        node("Concat", "ns rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    weights = {"zero": np.int64(0), "first": np.array([0]), "rest": np.array([4, -1])}
    network = check(made(nodes, ("batch", 2, 4, 3), weights), 5, 2, 4, 3)
    assert network.output_shape((2, 4, 3)) == (4, 6)


def test_a_batch_of_one_in_the_file_is_any_batch():
    model = made([node("Reshape", "x to")], (1, 2, 4), {"to": np.array([1, 8])})
    assert isinstance(gonnx.load(model).layers[0], Flatten)
    assert gonnx.load(model).predict(numbers(7, 2, 4)).shape == (7, 8)


def test_a_mean_over_a_map_is_a_global_pool():
    model = made([node("ReduceMean", "x", axes=[2, 3], keepdims=0)], ("n", 3, 4, 5))
    network = check(model, 2, 3, 4, 5)
    assert isinstance(network.layers[0], GlobalAveragePool2D)


def test_a_product_with_a_matrix_is_a_dense_layer():
    network = check(made([node("MatMul", "x w")], ("n", 3, 4), {"w": numbers(4, 6)}), 2, 3, 4)
    assert isinstance(network.layers[0], Dense) and network.layers[0].use_bias is False


def test_gemm_scales_its_weights():
    model = made(
        [node("Gemm", "x w b", alpha=0.5, beta=3.0, transB=1)],
        ("n", 4),
        {"w": numbers(6, 4), "b": numbers(1, 6, seed=3)},
    )
    check(model, 3, 4)


@pytest.mark.parametrize("scale", [0.7, 0.9, 1.4, 2.1])
def test_sizes_are_products_in_float32(scale):
    """10 * 0.7 is 7 there, and 6.99 of a float32's digits in Python's numbers."""
    scales = np.array([1, 1, scale, scale], np.float32)
    weights = {"region": np.zeros(0, np.float32), "scales": scales}
    model = made([node("Resize", "x region scales", mode="linear")], ("n", 2, 10, 20), weights)
    network = check(model, 2, 2, 10, 20)
    assert network.output_shape((2, 10, 20)) == (2, round(10 * scale), round(20 * scale))


def test_a_scale_is_the_fraction_that_was_meant(tmp_path):
    """Output 1 of a scale of 0.6 reads place 2, and of the float32 0.60000002 place 1.9999999."""
    layer = gpucnn.Resize(scale=0.6, rounding="floor", axes=(1,))
    x = np.arange(5.0, dtype=np.float32).reshape(1, 5, 1)
    gonnx.save(layer, tmp_path / "one.onnx", input_shape=(5, 1))
    network = gonnx.load(tmp_path / "one.onnx")
    np.testing.assert_array_equal(network.predict(x).ravel(), [0, 2, 3])
    np.testing.assert_array_equal(network.predict(x), layer.forward(x))
    weights = {"region": np.zeros(0, np.float32), "scales": np.array([1, 0.6], np.float32)}
    check(made([node("Resize", "x region scales", nearest_mode="floor")], ("n", 5), weights), 2, 5)


@pytest.mark.parametrize("scale", [0.6, 1.7])
def test_nearest_neighbours_before_opset_11(scale):
    scales = np.array([1, 1, scale, scale], np.float32)
    check(
        made([node("Resize", "x scales")], ("n", 2, 5, 7), {"scales": scales}, opset=10), 2, 2, 5, 7
    )


@pytest.mark.parametrize(("start", "end"), [(-9, -9), (-1, -9), (9, 0)])
def test_a_slice_backwards_from_beyond(start, end):
    weights = dict(zip("aecs", ([start], [end], [2], [-1]), strict=True))
    weights = {name: np.array(value) for name, value in weights.items()}
    nodes = [node("Slice", "x a e c s", "part"), node("Concat", "part x", "y", axis=2)]
    check(made(nodes, ("n", 3, 5), weights), 2, 3, 5)


@pytest.mark.parametrize("order", ["x v", "v m"])
def test_a_product_with_a_vector_drops_its_axis(order):
    nodes = [node("Transpose", "x", "m", perm=[0, 2, 1]), node("MatMul", order, "y")]
    for size in (1, 4):
        check(made(nodes, ("n", 3, size), {"v": numbers(size)}), 2, 3, size)


@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceL1", "ReduceSumSquare"])
def test_a_reduction_of_single_numbers(kind):
    weights = {"none": np.zeros(0, np.int64)}
    nodes = [node(kind, "x none", "a", noop_with_empty_axes=1), node("Relu", "a", "y")]
    check(made(nodes, ("n", 3), weights, opset=18), 2, 3)


def test_statistics_that_a_momentum_of_1_keeps():
    nodes = [node("BatchNormalization", "x one zero zero one", momentum=1.0)]
    weights = {"one": np.ones(3, np.float32), "zero": np.zeros(3, np.float32)}
    network = check(made(nodes, ("n", 3, 4), weights), 2, 3, 4)
    network.forward(5 + numbers(9, 3, 4), training=True)
    np.testing.assert_allclose(network.layers[0].state["moving_mean"], 0, atol=1e-6)


def test_a_clip_at_6_is_the_relu_that_fuses():
    weights = {"low": np.float32(0), "high": np.float32(6)}
    network = check(made([node("Clip", "x low high")], ("n", 3), weights), 4, 3)
    assert isinstance(network.layers[0], ReLU) and network.layers[0].max_value == 6


def test_single_numbers_are_constants_and_arrays_are_learned():
    nodes = [node("Mul", "x scale", "a"), node("Add", "a shift", "y")]
    weights = {"scale": np.float32(0.5), "shift": numbers(1, 3, 1, 1)}
    network = check(made(nodes, ("n", 3, 4, 5), weights), 2, 3, 4, 5)
    assert [p.path for p in network.parameters()] == ["arithmetic_1/operand"]
    assert network.layers[0].state["operand"] == 0.5


def test_a_constant_among_values_that_are_joined():
    nodes = [node("Concat", "token x", "a", axis=1), node("MatMul", "mix a", "y")]
    weights = {"token": numbers(1, 1, 4), "mix": numbers(1, 3, 6)}
    model = made(nodes, (1, 5, 4), weights)
    network = check(model, 1, 5, 4)
    assert network.predict(numbers(3, 5, 4)).shape == (3, 3, 4)


def test_what_exporters_write_out_is_one_layer():
    nodes = [
        node("Sigmoid", "x", "a"),
        node("Mul", "a x", "silu"),
        node("Add", "silu three", "b"),
        node("Clip", "b zero six", "c"),
        node("Mul", "silu c", "d"),
        node("Div", "d six", "y"),
    ]
    weights = {name: np.float32(n) for name, n in (("three", 3), ("zero", 0), ("six", 6))}
    network = check(made(nodes, ("n", 5), weights), 3, 5)
    assert [type(layer).__name__ for layer in network.layers] == ["SiLU", "HardSiLU"]


@pytest.mark.parametrize("kind", ["HardSigmoid", "HardSiLU", "SiLU", "GELU", "Mish"])
def test_what_the_export_writes_out_comes_back_as_it_was(kind, tmp_path):
    x = gpucnn.Input((3, 4, 5))
    gonnx.save(gpucnn.Graph(x, getattr(gpucnn, kind)()(x)), tmp_path / "one.onnx")
    (layer,) = gonnx.load(tmp_path / "one.onnx").layers
    assert type(layer).__name__ == kind


def test_what_is_also_read_in_between_stays():
    nodes = [node("Sigmoid", "x", "a"), node("Mul", "x a", "b"), node("Add", "a b", "y")]
    network = check(made(nodes, ("n", 5)), 3, 5)
    assert [type(layer).__name__ for layer in network.layers] == ["Sigmoid", "SiLU", "Add"]


def test_a_scale_behind_a_batch_norm_is_its_own():
    nodes = [
        node("Conv", "x w", "a"),
        node("BatchNormalization", "a gamma beta mean variance", "b"),
        node("Mul", "b scale", "c"),
        node("Add", "c shift", "d"),
        node("Relu", "d", "y"),
    ]
    weights = {name: numbers(4, seed=seed) for seed, name in enumerate(("gamma", "beta", "mean"))}
    weights |= {name: numbers(4, 1, 1, seed=len(name)) for name in ("scale", "shift")}
    weights |= {"w": numbers(4, 3, 1, 1), "variance": np.linspace(0.5, 2, 4, dtype=np.float32)}
    network = check(made(nodes, ("n", 3, 5, 6), weights), 2, 3, 5, 6)
    assert [type(layer).__name__ for layer in network.layers] == ["Conv2D", "BatchNorm", "ReLU"]
    assert len(network._plan()[0].stages) == 1


def test_a_batch_norm_that_others_read_too_stays():
    nodes = [
        node("BatchNormalization", "x gamma beta mean variance", "b"),
        node("Add", "b b_shift", "c"),
        node("Mul", "b c", "y"),
    ]
    weights = {name: numbers(4, seed=seed) for seed, name in enumerate(("gamma", "beta", "mean"))}
    weights |= {"variance": np.ones(4, np.float32), "b_shift": numbers(1)}
    network = check(made(nodes, ("n", 4, 5), weights), 2, 4, 5)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds == ["BatchNorm", "Arithmetic", "Multiply"]


def test_a_quantised_network_computes_on_its_grid():
    nodes = [
        node("QuantizeLinear", "x step zero", "a"),
        node("DequantizeLinear", "a step zero", "b"),
        node("DequantizeLinear", "w steps zeros", "kernel", axis=0),
        node("Conv", "b kernel", "c"),
        node("QuantizeLinear", "c step zero", "d"),
        node("DequantizeLinear", "d step zero", "y"),
    ]
    weights = {
        "step": np.float32(0.02),
        "zero": np.uint8(128),
        # 7 bits: with 8 onnxruntime's sums of two products saturate on a CPU that has AVX2 alone
        "w": np.random.default_rng(4).integers(-64, 64, (4, 3, 1, 1), dtype=np.int8),
        "steps": np.linspace(0.001, 0.004, 4, dtype=np.float32),
        "zeros": np.zeros(4, np.int8),
    }
    network = check(made(nodes, ("n", 3, 5, 6), weights), 2, 3, 5, 6)
    steps = network.predict(numbers(2, 3, 5, 6)) / 0.02
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)


def test_a_max_unpool_finds_its_pool():
    nodes = [
        node("MaxPool", "x", "a places", kernel_shape=[2, 2], strides=[2, 2]),
        node("Mul", "a a", "b"),
        node("MaxUnpool", "b places", "y", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    network = check(made(nodes, (1, 2, 4, 6)), 1, 2, 4, 6)
    x = numbers(3, 2, 4, 6)
    pooled, places = torch.nn.functional.max_pool2d(torch.tensor(x), 2, return_indices=True)
    expected = torch.nn.functional.max_unpool2d(pooled**2, places, 2).numpy()
    np.testing.assert_allclose(network.predict(x), expected, rtol=1e-6)


def test_many_outputs_and_an_input_that_nobody_reads():
    model = made(
        [node("Split", "x", "a b", axis=1), node("Relu", "b", "c")],
        (1, 4, 3),
        outputs=("a", "c"),
        opset=11,
    )
    extra = onnx.helper.make_tensor_value_info("unread", onnx.TensorProto.FLOAT, (1, 1))
    model.graph.input.append(extra)
    network = gonnx.load(model)
    x = numbers(2, 4, 3)
    first, second = network.predict(x)
    np.testing.assert_array_equal(first, x[:, :2])
    np.testing.assert_array_equal(second, np.maximum(x[:, 2:], 0))


def test_a_branch_whose_condition_is_known():
    branches = {
        f"{side}_branch": onnx.helper.make_graph(
            [node(kind, "x", "out")], side, [], [onnx.helper.make_empty_tensor_value_info("out")]
        )
        for side, kind in (("then", "Relu"), ("else", "Tanh"))
    }
    model = made([node("If", "flag", "y", **branches)], (1, 3), {"flag": np.array(False)})
    network = gonnx.load(model)
    x = numbers(2, 3)
    np.testing.assert_allclose(network.predict(x), np.tanh(x), rtol=1e-6)


def test_a_local_function_is_put_in_its_place():
    opset = onnx.helper.make_opsetid("", 17)
    twice = onnx.helper.make_function(
        "own", "Twice", ["a"], ["b"], [onnx.helper.make_node("Add", ["a", "a"], ["b"])], [opset]
    )
    model = made([node("Twice", "x", "y", domain="own")], (1, 3))
    model.functions.append(twice)
    model.opset_import.append(onnx.helper.make_opsetid("own", 1))
    x = numbers(2, 3)
    np.testing.assert_array_equal(gonnx.load(model).predict(x), 2 * x)


def test_a_whole_maps_norm():
    """GlobalLpPool has no case of ONNX's own."""
    x = numbers(2, 3, 4, 5)
    model = made([node("GlobalLpPool", "x", p=3)], (1, 3, 4, 5))
    expected = (np.abs(x) ** 3).sum((2, 3), keepdims=True) ** (1 / 3)
    np.testing.assert_allclose(gonnx.load(model).predict(x), expected, rtol=1e-5)
    (ours,) = Backend.run_model(model, [x])
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_float16_weights_make_a_float16_network():
    model = made([node("MatMul", "x w")], (1, 4), {"w": numbers(4, 6).astype(np.float16)})
    network = gonnx.load(model)
    assert network.dtype == np.float16 == network.predict(numbers(2, 4)).dtype


def test_sizes_may_be_given():
    model = made([node("Conv", "x w")], ("n", 2, "height", "width"), {"w": numbers(3, 2, 3, 3)})
    network = gonnx.load(model, input_shapes={"x": (2, 6, 7)}, name="sized")
    assert isinstance(network.layers[0], Conv2D) and network.name == "sized"
    assert network.output_shape((2, 6, 7)) == (3, 4, 5)
    assert network.predict(numbers(2, 2, 9, 9)).shape == (2, 3, 7, 7)  # no constant depends on it


# ---- refusals ------------------------------------------------------------------------------------


def test_all_that_is_not_supported_is_listed():
    nodes = [
        node("NonMaxSuppression", "x x", "a", name="nms"),
        node("Relu", "a", "b", name="behind"),
        node("Transpose", "x", "c", name="turn", perm=[1, 0, 2]),
        node("LSTM", "x x x", "d"),
        node("Add", "b d", "y"),
    ]
    with pytest.raises(UnsupportedError) as error:
        gonnx.load(made(nodes, (1, 2, 3)))
    text = str(error.value)
    assert text.startswith("load: the model holds what is not supported. ")
    assert "NonMaxSuppression 'nms': the operator is not known; " in text
    assert "Transpose 'turn': the samples of a batch would no longer lie first; " in text
    assert "LSTM '-> d': the operator is not known. " in text
    assert text.endswith("Received: a model with LSTM, NonMaxSuppression, Transpose")
    assert "behind" not in text  # what stands behind them may be supported


@pytest.mark.parametrize(
    ("nodes", "shape", "weights", "message"),
    [
        ([node("Reshape", "x to")], (2, 3, 4), {"to": np.array([3, 8])}, "would mix the samples"),
        ([node("Softmax", "x", axis=0)], (2, 3), {}, "the samples of a batch would be mixed"),
        ([node("Conv", "x x")], (1, 3, 4, 5), {}, "the filters must be known when the model"),
        ([node("Conv", "x w")], (1, 2, 1, 1, 1, 1), {"w": numbers(3, 2, 1, 1, 1, 1)}, "a map of 4"),
        ([node("Conv", "x w")], (1, 2, 4, 5), {"w": numbers(3, 4, 1, 1)}, "for 4 channels"),
        ([node("Relu", "c")], (1, 3), {"c": numbers(1, 3)}, "must depend on an input"),
        ([node("Thing", "x", domain="com.example")], (1, 3), {}, "of the domain 'com.example'"),
        ([node("Add", "x c")], (2, 3), {"c": numbers(2, 3)}, "other numbers for each sample"),
        ([node("Cast", "x", to=7)], (1, 3), {}, "a cast to int64; a graph computes with floating"),
        ([node("MaxPool", "x", kernel_shape=[2, 2])], (1, 1, 1, 1), {}, "does not fit"),
        ([node("MaxPool", "x")], (1, 1, 4, 4), {}, "attribute 'kernel_shape' is missing"),
        ([node("Sub", "x")], (1, 3), {}, "has input size 1 not in range"),
        ([node("Softmax", "x", axis=2)], (1, 3), {}, "axis 2 of a value of 2 axes"),
        ([node("Gemm", "x w", transA=1)], (1, 3), {"w": numbers(1, 2)}, "transA=1, the samples"),
        ([node("Gather", "x i", axis=1)], (1, 3), {"i": np.array([0, 3])}, "from 0 to 3 of 3"),
        ([node("Split", "x s", "y z", axis=1)], (1, 3), {"s": np.array([1, 1])}, "1] of 3"),
        ([node("GroupNormalization", "x x x", num_groups=1)], (1, 3), {}, "parameters must be"),
        ([node("MaxPool", "x", "a y", kernel_shape=[2])], (1, 1, 4), {}, "no index of a max-pool"),
        ([node("MaxPool", "x", "a b", kernel_shape=[2]), node("Neg", "b", "y")], (1, 1, 4), {},
         "the indices of a MaxPool are for a MaxUnpool alone"),
    ],
)  # fmt: skip
def test_a_use_that_is_not_supported_says_why(nodes, shape, weights, message):
    with pytest.raises(UnsupportedError, match=message) as error:
        gonnx.load(made(nodes, shape, weights))
    assert "Received: " in str(error.value)


@pytest.mark.parametrize("kind", ["Div", "Reshape"])
def test_numbers_that_are_the_batchs_size_fit_no_other_batch(kind):
    """A constant for one batch would be wrong for all others, and nobody would see it."""
    nodes = [node("Shape", "x", "sizes"), node("Cast", "sizes", "numbers", to=1)]
    if kind == "Div":
        nodes += [node("Gather", "numbers zero", "n"), node("Div", "x n", "y")]
    else:
        nodes += [node("Gather", "sizes zero", "n"), node("Unsqueeze", "n first", "m")]
        nodes += [node("Concat", "whole m", "to", axis=0), node("Reshape", "x to", "y")]
    weights = {"zero": np.int64(0), "first": np.array([0]), "whole": np.array([-1])}
    with pytest.raises(UnsupportedError, match=r"computed from the batch's size|would mix"):
        gonnx.load(made(nodes, ("n", 4), weights))


def test_a_value_that_nothing_makes_is_not_one_left_out():
    """A bias by a wrong name, say: the convolution would have none."""
    weights = {"w": np.ones((3, 2, 3, 3), np.float32)}
    with pytest.raises(UnsupportedError, match="Conv 'c': it reads 'typo', which no node before"):
        gonnx.load(made([node("Conv", "x w typo", name="c")], (1, 2, 4, 4), weights))
    model = made([node("Relu", "x")], (1, 2, 4, 4))
    model.graph.output[0].name = "z"
    with pytest.raises(ValueError, match=r"each output must be made by a node.*Received: 'z'"):
        gonnx.load(model)


def test_files_and_arguments_that_do_not_fit(tmp_path, file):
    (tmp_path / "broken.onnx").write_bytes(b"no model at all")
    with pytest.raises(ValueError, match=r"not an ONNX model, or damaged.*Received: .*broken.onnx"):
        gonnx.load(tmp_path / "broken.onnx")
    with pytest.raises(FileNotFoundError):
        gonnx.load(tmp_path / "missing.onnx")
    with pytest.raises(ValueError, match="input_shapes must name inputs of the model, x"):
        gonnx.load(file, input_shapes={"z": (3, 8, 12)})
    with pytest.raises(ValueError, match="the sizes of the input 'x' must be known"):
        gonnx.load(made([node("Relu", "x")], ("n", 3, "h", "w")))


@pytest.fixture(scope="module")
def small() -> bytes:
    layers = [Conv2D(4, 3, activation="relu", data_format="channels_first"), Flatten(), Dense(3)]
    return gonnx.export(gpucnn.Sequential(layers, input_shape=(2, 6, 6))).SerializeToString()


def test_a_damaged_file_is_a_clear_error(small):
    rng, messages = np.random.default_rng(0), []
    for place in rng.permutation(len(small))[:400]:
        damaged = bytearray(small)
        damaged[place] ^= 1 << rng.integers(8)
        try:
            gonnx.load(bytes(damaged))
        except ValueError as error:
            messages.append(str(error))
    # by protobuf, by us and by the checker
    for found in ("not an ONNX model", "not UTF-8", "must fit each other", "required"):
        assert any(found in message for message in messages), found
    assert all("load: " in message and "Received: " in message for message in messages)


def test_numbers_in_a_file_that_is_missing_are_a_clear_error(small, tmp_path):
    file = tmp_path / "model.onnx"
    onnx.save(onnx.load_from_string(small), file, save_as_external_data=True, size_threshold=0,
              location="numbers.bin")  # fmt: skip
    assert gonnx.load(file).parameter_count()
    bare = onnx.load(file, load_external_data=False)
    (tmp_path / "numbers.bin").unlink()
    with pytest.raises(ValueError, match=r"load: .*numbers\.bin.* Received: .*model\.onnx"):
        gonnx.load(file)
    with pytest.raises(ValueError, match=r"load: a tensor's .* Received: .*numbers\.bin"):
        gonnx.load(bare)


def test_what_is_wrong_with_a_model_is_the_cause_of_its_error(small):
    model = onnx.load_from_string(small)
    model.graph.node.add()
    with pytest.raises(ValueError, match=r"damaged\. Received: Field 'op_type' of 'node'") as error:
        gonnx.load(model)
    assert isinstance(error.value.__cause__, IndexError)


def test_an_error_with_a_whole_model_stays_as_it_is(small, monkeypatch):
    def fail(*_: object) -> None:
        raise IndexError("ours")

    monkeypatch.setattr("gpucnn.onnx.importer._network", fail)
    with pytest.raises(IndexError, match="ours"):
        gonnx.load(small)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "gpucnn\[onnx\]"'):
        gonnx.load("model.onnx")


def test_the_backend_interface():
    x = numbers(2, 3)
    (y,) = Backend.run_node(node("Relu", "x"), [x])
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    (z,) = Backend.run_node(node("Squeeze", "x", axes=[0]), [x[None]], opset_version=11)
    np.testing.assert_array_equal(z, x)
    assert Backend.supports_device("CPU") and not Backend.supports_device("TPU")
    assert not Backend.is_compatible(made([node("LSTM", "x x x")], (1, 2, 3)))
    with pytest.raises(UnsupportedError, match="LSTM '-> y': the operator is not known"):
        Backend.run_model(made([node("LSTM", "x x x")], (1, 2, 3)), [numbers(1, 2, 3)])
