"""Nine known networks from the package onnx, with random weights, against onnxruntime.

In the files all weights are alike, so that a wrong network can give the right numbers: each weight
is drawn anew here, from a generator of its own, and what is compared are the logits.
"""

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
import pytest
from onnx import numpy_helper

from gpucnn import onnx as gonnx
from gpucnn.backends import use_backend

FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"
NAMES = sorted(file.stem.removeprefix("light_") for file in FOLDER.glob("*.onnx"))


def test_there_are_nine():
    assert len(NAMES) == 9


def randomised(name: str) -> onnx.ModelProto:
    """Return a network with other weights, and without its softmax."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    graph, rng = model.graph, np.random.default_rng(len(name))
    shapes = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    filled = {n.output[0]: shapes[n.input[0]] for n in graph.node if n.op_type == "ConstantOfShape"}
    readers = {name: (node, place) for node in graph.node for place, name in enumerate(node.input)}
    if graph.node[-1].op_type == "Softmax":
        graph.output[0].name = graph.node.pop().input[0]
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape"]:
        graph.node.remove(node)
    for weight, shape in filled.items():
        node, place = readers[weight]
        if node.op_type in ("Conv", "Gemm") and place == 1:
            values = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        elif node.op_type in ("BatchNormalization", "Unsqueeze") and place in (0, 1, 4):
            values = rng.uniform(0.5, 1.5, shape)  # a scale or a variance
        else:
            values = rng.uniform(-0.2, 0.2, shape)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), weight))
    return model


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_onnxruntimes(name):
    model = randomised(name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224), np.float32)
    inputs = {
        item.name: x if item.shape == list(x.shape) else np.zeros(item.shape, np.float32)
        for item in session.get_inputs()
    }
    (expected,) = session.run(None, inputs)
    with use_backend("numpy"):
        network = gonnx.load(model)
        logits = network.predict(x)
        both = network.predict(np.concatenate([x, x[:, :, ::-1]]))
    assert len(np.unique(expected)) > 400  # numbers that tell one network from another
    # Both sum in float32, in other orders: up to 121 layers of sums of up to 25088 terms.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(both[:1], logits, rtol=0, atol=2e-5 * np.abs(expected).max())
    assert both.shape == (2, *logits.shape[1:])
