"""Every layer exported to ONNX: accepted by its checker, and the same numbers in onnxruntime."""

from __future__ import annotations

from copy import deepcopy
from math import prod

import numpy as np
import onnx
import pytest

import gpucnn
from gpucnn import layers as L
from gpucnn.layers import LAYERS
from gpucnn.layers.base import Layer

from .layer_cases import CASES as LAYER_CASES
from .networks import lenet
from .networks import numpy_backend as numpy_backend
from .onnx_export import checked, exact, forward, in_reference, in_runtime, randomised, samples
from .tolerance import allowed_error, assert_close, unit_roundoff


def padded_pool(kind, **options):
    """A dilated pool of windows that hold little but padding, or none but it."""
    return lambda: kind((3, 1), strides=1, padding=((4, 3), (0, 0)), dilation_rate=2, **options)


# (layer, shape or shapes of one sample): arguments that the layers' own cases leave out
CASES = {
    name: (case.layer, [tuple(shape[1:]) for shape in case.x_shape])
    if isinstance(case.x_shape, list)
    else (case.layer, tuple(case.x_shape[1:]))
    for name, case in LAYER_CASES.items()
} | {
    "Conv1D_rows": (lambda: L.Conv1D(3, 2, padding="same", strides=3), (7, 2)),
    "Conv2D_wide_padding": (lambda: L.Conv2D(3, 2, padding=((3, 4), (0, 5))), (4, 3, 2)),
    "Conv2D_softmax": (lambda: L.Conv2D(3, 2, activation="softmax"), (5, 4, 2)),
    "SeparableConv2D_last": (lambda: L.SeparableConv2D(4, 3, padding="same"), (5, 6, 3)),
    "Dense_of_a_row": (lambda: L.Dense(3, "softmax"), (4,)),
    "MaxPool2D_dilated": (padded_pool(L.MaxPool2D), (3, 4, 2)),
    "MinPool2D_dilated": (padded_pool(L.MinPool2D), (3, 4, 2)),
    "SumPool2D_dilated": (padded_pool(L.SumPool2D), (3, 4, 2)),
    "AveragePool2D_dilated": (padded_pool(L.AveragePool2D), (3, 4, 2)),
    "AveragePool2D_dilated_counting": (padded_pool(L.AveragePool2D, count_padding=True), (3, 4, 2)),
    "AveragePool2D_counting_plain": (
        lambda: L.AveragePool2D(3, padding=1, count_padding=True), (6, 7, 2),
    ),
    "AveragePool1D_ceil": (lambda: L.AveragePool1D(3, strides=2, ceil_mode=True), (8, 2)),
    "SumPool1D_ceil": (lambda: L.SumPool1D(3, strides=2, ceil_mode=True), (8, 2)),
    "GroupNorm_rows": (lambda: L.GroupNorm(2), (6,)),
    "InstanceNorm_first": (lambda: L.InstanceNorm(axis=1, epsilon=0.1), (3, 5, 4)),
    "InstanceNorm_rows": (L.InstanceNorm, (6,)),
    "PReLU_rows": (L.PReLU, (6,)),
    "Softmax_rows": (L.Softmax, (6,)),
    "Power": (L.Power, [(3, 1), (3, 5)]),
    "MaxUnpool2D_padded": (
        lambda: L.MaxUnpool2D(3, strides=2, padding="same", ceil_mode=True), [(3, 4, 2), (5, 8, 2)],
    ),
    "LocalResponseNorm_rows": (lambda: L.LocalResponseNorm(3, alpha=0.3), (6,)),
    "Pad_flat": (lambda: L.Pad([(2, 1)], value=0.3), (5,)),
    "Slice_backwards": (lambda: L.Slice([(None, None, -1), (3, 0, -2), (4, 1, -1)]), (4, 5, 6)),
    "Resize_symmetric": (
        lambda: L.Resize(scale=1.3, interpolation="linear", coordinates="half_pixel_symmetric"),
        (5, 7, 2),
    ),
    "Resize_outside": (
        lambda: L.Resize((6, 9), interpolation="cubic", exclude_outside=True, cubic_a=-0.5),
        (5, 7, 2),
    ),
    "Resize_antialias": (
        lambda: L.Resize((3, 4), interpolation="linear", antialias=True), (7, 9, 2),
    ),
    "Resize_ceil": (
        lambda: L.Resize((3, 4), coordinates="asymmetric", rounding="ceil", axes=(2, 3)),
        (2, 7, 9),
    ),
    "Resize_to_both": (
        lambda: L.Resize((6, 9), scale=(1.3, 1.35), interpolation="linear"), (5, 7, 2),
    ),
    "Reduce_kept": (lambda: L.Reduce("l2", (-1, 1), keepdims=True), (4, 5, 3)),
    "Constant_single": (lambda: L.Constant(()), (4,)),
    "Permute_row": (lambda: L.Permute((1,)), (6,)),
    "Flatten_row": (L.Flatten, (6,)),
} | {
    f"Activation_{kind}": (lambda kind=kind: L.Activation(kind), (3, 5))
    for kind in gpucnn.functional.activation.KINDS
}  # fmt: skip
every_case = pytest.mark.parametrize("name", CASES)


def built(name: str, dtype: str = "float32") -> tuple[Layer, list[tuple[int, ...]]]:
    make, shapes = CASES[name]
    layer = make()
    layer.build(shapes, dtype, "numpy")
    return randomised(layer), shapes if layer.takes_many else [shapes]


def size(layer: Layer, xs: list[np.ndarray]) -> np.ndarray:
    """What the roundings are of: the layer's sum of absolute values, and numbers of size 4."""
    twin = deepcopy(layer).astype("float64")
    if hasattr(twin, "activation"):
        twin.activation = twin.kind = "linear"
    twin.params = {key: np.array(np.abs(array)) for key, array in twin.params.items()}
    total = forward(twin, [np.abs(x.astype("float64")) for x in xs])
    return 4 + np.where(np.isfinite(total), np.abs(total), 0)


def terms(layer: Layer, shapes) -> int:
    return 16 + prod(max(shapes, key=prod))


def test_every_class_of_layer_has_a_case():
    ends = {L.ArgMax}  # see test_places_of_maxima
    networks = {gpucnn.Sequential, gpucnn.Residual, gpucnn.Graph}
    assert {type(make()) for make, _ in CASES.values()} | networks | ends == set(LAYERS.values())


@every_case
def test_a_layer_gives_its_numbers_in_onnxruntime(name):
    layer, shapes = built(name)
    model = checked(layer)
    for batch in (1, 3):  # through one file
        xs = samples(shapes, batch)
        assert_close(
            in_runtime(model, xs)[0], exact(layer, xs), dtype="float32",
            reduction=terms(layer, shapes), magnitude=size(layer, xs), what=name,
        )  # fmt: skip


@every_case
def test_a_layer_of_float16(name):
    layer, shapes = built(name, "float16")
    xs = samples(shapes, 2, "float16")
    (got,) = in_runtime(checked(layer), xs)
    expected, bound = exact(layer, xs), size(layer, xs)
    assert got.dtype == np.float16 and got.shape == expected.shape
    # One rounding more than the tolerance has: what is between two operations is float16, too.
    allowed = allowed_error(expected, "float16", terms(layer, shapes), bound)
    allowed += unit_roundoff("float16") * bound
    close = np.abs(got - expected) <= allowed
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))  # infinities, and no numbers
    assert (close | same).all(), name


# onnxruntime has no float64 convolutions; of ONNX's reference, in NumPy, these cannot be had.
NOT_IN_REFERENCE = {
    "Conv2DTranspose": "it fails on groups",
    "DepthwiseConv2D": "its erf has eight digits",
    "GELU": "its erf has eight digits",
    "Activation_gelu": "its erf has eight digits",
    "Elementwise_erf": "it has eight digits",
    "Resize_cubic": "its scales are float32",
    "Resize_outside": "its scales are float32",
    "Resize_to_both": "its scales are float32",
    "Resize_symmetric": "its scales are float32",
    "Pad": "it takes no negative padding",
    **dict.fromkeys(
        ("MaxUnpool1D", "MaxUnpool2D", "MaxUnpool3D", "MaxUnpool2D_padded"),
        "it does not read the output's shape",
    ),
}


@pytest.mark.parametrize("name", [n for n in CASES if n not in NOT_IN_REFERENCE])
def test_a_layer_of_float64(name):
    layer, shapes = built(name, "float64")
    xs = samples(shapes, 2, "float64")
    with np.errstate(over="ignore"):  # the side of a np.where that is not taken
        (got,) = in_reference(checked(layer), xs)
    assert_close(
        got, exact(layer, xs), reduction=terms(layer, shapes), magnitude=size(layer, xs), what=name
    )


@every_case
def test_a_layer_of_bfloat16_is_accepted(name):
    layer, _ = built(name, "bfloat16")
    model = checked(layer)
    assert model.opset_import[0].version == 22
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {
        onnx.TensorProto.BFLOAT16
    }


@pytest.mark.parametrize("keepdims", [False, True])
def test_places_of_maxima(keepdims):
    network = gpucnn.Sequential([L.Conv2D(3, 2), L.ArgMax(1, keepdims=keepdims)])
    network.build((6, 5, 2))
    (x,) = samples([(6, 5, 2)], 3)
    for first in (False, True):
        model = checked(network, channels_first=first)
        (got,) = in_runtime(model, [np.moveaxis(x, -1, 1) if first else x])
        expected = network.forward(x)
        assert got.dtype == expected.dtype == np.int64
        np.testing.assert_array_equal(got, np.moveaxis(expected, -1, 1) if first else expected)


def test_bfloat16_numbers():
    """On small integers, whose products and sums bfloat16 holds exactly."""
    model = lenet(input_shape=(8, 7, 1), dtype="bfloat16")
    model.layers[3].epsilon = 0.0
    rng = np.random.default_rng(0)
    for path, value in model.state_dict().items():
        if "kernel" in path or "bias" in path:
            drawn = (rng.random(value.shape) < 0.2) * rng.choice([-1, 1], value.shape)
            model.load_state_dict({path: drawn}, strict=False)
    x = rng.integers(-1, 2, (2, 8, 7, 1)).astype(model.dtype)
    (got,) = in_reference(checked(model), [x])
    expected = model.forward(x)
    assert got.dtype == expected.dtype and np.abs(expected.astype("float32")).max() > 2
    np.testing.assert_array_equal(got, expected)
