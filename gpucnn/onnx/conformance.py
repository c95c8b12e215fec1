"""ONNX's own test cases, run on gpucnn: how many of the whole suite pass, and why others do not.

    python -m gpucnn.onnx.conformance            the counts
    python -m gpucnn.onnx.conformance --all      and each case that is left out, with its reason

The cases come with the package ``onnx``: single nodes, PyTorch's converted modules and operators,
and small models. Each is run twice: on arrays, by ONNX's backend interface, and, where its first
input is a batch, as a network: the other inputs become weights, and ``load`` makes a graph of it.
The tolerance is the case's own.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..layers import inference_mode
from . import load
from .backend import Backend
from .errors import UnsupportedError
from .operators import OPERATORS
from .operators.shape import CASTABLE

KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple")

RANDOM = "random numbers"

# Why an operator is left out.
GROUPS = {
    "attention and language models": (
        "Attention", "CausalConvWithState", "FlexAttention", "LinearAttention", "RotaryEmbedding",
        "SwiGLU", "TensorScatter",
    ),
    "sequences and optional values": (
        "ConcatFromSequence", "OptionalGetElement", "OptionalHasElement", "SequenceAt",
        "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
        "SequenceMap", "SplitToSequence",
    ),
    "losses and steps of training, which gpucnn has of its own": (
        "Adagrad", "Adam", "Gradient", "Momentum", "NegativeLogLikelihoodLoss",
        "SoftmaxCrossEntropyLoss",
    ),
    "recurrent networks": ("GRU", "LSTM", "RNN", "ReverseSequence"),
    "loops": ("Loop", "Scan"),
    "integer arithmetic of quantised networks": (
        "ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    ),
    "text": (
        "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
    ),
    "classical machine learning": (
        "ArrayFeatureExtractor", "Binarizer", "LabelEncoder", "TreeEnsemble",
    ),
    "signals": (
        "BlackmanWindow", "DFT", "HammingWindow", "HannWindow", "MelWeightMatrix", "STFT",
    ),
    RANDOM: ("Bernoulli", "RandomUniformLike"),
    "detection, warping and deformation of maps": (
        "AffineGrid", "CenterCropPad", "Col2Im", "DeformConv", "GridSample", "NonMaxSuppression",
        "RoiAlign",
    ),
    "files of pictures": ("ImageDecoder",),
}  # fmt: skip
OTHER = "other operators that are none of a CNN's"
DTYPES = "numbers of other types than 8 bits to 64: 2 and 4 bits, float8"
ROUNDING = "a float16 sum carried in float32 differs by one unit in the last place"

# Attention written out. Its expected numbers come from sums in float16, ours from sums in float32:
# two of 192 differ by 2^-11, where the tolerance is 10^-3.
ROUNDED = {"test_attention_4d_causal_fp16_expanded"}

# Which numbers are dropped is every library's own affair.
DROPPED = {f"test_training_dropout{end}" for end in ("", "_default", "_default_mask", "_mask")}


@dataclass(frozen=True)
class Case:
    """A test case: a model, and inputs with the outputs that are expected."""

    name: str
    kind: str
    model: onnx.ModelProto
    data: Sequence[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


def cases(kinds: Sequence[str] = KINDS) -> Iterator[Case]:
    """Yield the cases of the package ``onnx``."""
    from onnx.backend.test.loader import load_model_tests

    for kind in kinds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy, in the making of a few cases
            found = load_model_tests(kind=kind)
        for item in sorted(found, key=lambda item: item.name):
            model, data = item.model, item.data_sets
            if model is None:
                model = onnx.load(Path(item.model_dir) / "model.onnx")
                data = [_read(model, folder) for folder in sorted(_sets(item.model_dir))]
            data = [(_arrays(inputs), _arrays(outputs)) for inputs, outputs in data]
            yield Case(item.name, kind, model, data, item.rtol, item.atol)


def reason(case: Case) -> str | None:
    """Return why a case is left out; None where it must pass."""
    found = list(nodes(case.model.graph))
    unknown = {
        node.op_type
        for node in found
        if node.domain not in ("", "ai.onnx") or node.op_type not in (*OPERATORS, "If")
    }
    for group, names in GROUPS.items():
        if unknown & set(names):
            return group
    if unknown:
        return OTHER
    if case.name in ROUNDED:
        return ROUNDING
    for value in (value for pair in case.data for side in pair for value in side):
        if not isinstance(value, (np.ndarray, np.generic)):
            return "sequences and optional values"
        if value.dtype.kind in "OSU":
            return "text"
        if value.dtype.name not in CASTABLE:
            return DTYPES
    targets = {item.i for node in found for item in node.attribute if item.name == "to"}
    if any(helper.tensor_dtype_to_np_dtype(kind).name not in CASTABLE for kind in targets):
        return DTYPES
    return RANDOM if case.name in DROPPED else None


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph, those of branches too."""
    for node in graph.node:
        yield node
        for item in node.attribute:
            if item.type == onnx.AttributeProto.GRAPH:
                yield from nodes(item.g)


def check(case: Case) -> None:
    """Run a case on arrays; raise an AssertionError where an output is not the expected one."""
    for inputs, expected in case.data:
        compare(case, Backend.run_model(case.model, inputs), expected)


def compare(case: Case, outputs: Sequence[Any], expected: Sequence[Any]) -> None:
    """Raise an AssertionError unless the outputs are those expected, by ONNX's own rule."""
    from onnx.backend.test.runner import Runner

    Runner.assert_similar_outputs(expected, list(outputs), case.rtol, case.atol)


def as_network(case: Case) -> onnx.ModelProto | None:
    """Return a case's model with all inputs but the first as weights; None where that is no batch.

    A batch is an array of floating numbers with an axis besides the samples'.
    """
    graph = case.model.graph
    given = {item.name for item in graph.initializer}
    names = [item.name for item in graph.input if item.name not in given]
    arrays = case.data[0][0]
    first = arrays[0] if arrays else None
    if (
        not isinstance(first, np.ndarray)
        or first.dtype.kind != "f"
        or first.ndim < 2
        or not first.size
    ):
        return None
    if not all(isinstance(array, (np.ndarray, np.generic)) for array in arrays):
        return None
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.input[:]
    kind = helper.np_dtype_to_tensor_dtype(first.dtype)
    model.graph.input.append(helper.make_tensor_value_info(names[0], kind, first.shape))
    for name, array in zip(names[1:], arrays[1:], strict=False):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def check_network(case: Case) -> bool:
    """Run a case as a network; return False where it is none, or none that ``load`` supports."""
    model = as_network(case)
    if model is None:
        return False
    try:
        network = load(model)
    except UnsupportedError:
        return False
    inputs, expected = case.data[0]
    with inference_mode():
        y = network.forward(inputs[0].astype(network.dtype))
    outputs = y if isinstance(y, list) else [y]
    # A network has one dtype, and places are its integers.
    kept = [out.astype(want.dtype) for out, want in zip(outputs, expected, strict=True)]
    compare(case, kept, expected)
    return True


def main(arguments: Sequence[str] = ()) -> None:
    """Print the counts."""
    passed, networks, whole = Counter(), Counter(), Counter()
    left: dict[str, list[str]] = defaultdict(list)
    failed = []
    for case in cases():
        whole[case.kind] += 1
        why = reason(case)
        if why is not None:
            left[why].append(case.name)
            continue
        try:
            check(case)
            passed[case.kind] += 1
            networks[case.kind] += check_network(case)
        except Exception as error:  # a case that fails is to be counted, whatever it raises
            failed.append(f"{case.name}: {type(error).__name__}: {error}")
    print(f"onnx {onnx.__version__}, opset {onnx.defs.onnx_opset_version()}")
    print(f"{'':24}{'cases':>7}{'pass':>7}{'as a network, too':>19}")
    for kind in KINDS:
        print(f"{kind:24}{whole[kind]:7}{passed[kind]:7}{networks[kind]:19}")
    print(f"{'all':24}{whole.total():7}{passed.total():7}{networks.total():19}")
    print(f"\nleft out: {sum(map(len, left.values()))}")
    for why, names in sorted(left.items(), key=lambda item: -len(item[1])):
        print(f"{len(names):7}  {why}")
        for name in names if "--all" in arguments else ():
            print(f"{'':11}{name}")
    print(f"\nfailed: {len(failed)}")
    for line in failed:
        print(f"  {line}")


def _sets(folder: str) -> Iterator[Path]:
    return Path(folder).glob("test_data_set_*")


def _read(model: onnx.ModelProto, folder: Path) -> tuple[list[Any], list[Any]]:
    """Return the inputs and the outputs that a folder holds; what is no array stays a message."""
    graph = model.graph
    return tuple(
        [
            _message(item, folder / f"{name}_{place}.pb")
            for place, item in enumerate(items)
            if (folder / f"{name}_{place}.pb").exists()
        ]
        for name, items in (("input", graph.input), ("output", graph.output))
    )


def _message(item: onnx.ValueInfoProto, file: Path) -> Any:
    kinds = {"sequence_type": onnx.SequenceProto, "optional_type": onnx.OptionalProto}
    message = kinds.get(item.type.WhichOneof("value"), onnx.TensorProto)()
    message.ParseFromString(file.read_bytes())
    return message


def _arrays(values: Sequence[Any]) -> list[Any]:
    return [
        numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
        for value in values
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
