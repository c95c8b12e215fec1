"""What a layer says of an argument or an input that does not fit: its name, and what would."""

from inspect import Parameter, signature

import numpy as np
import pytest

from gpucnn import layers as L

INPUTS = {
    "rank": (
        L.Conv2D(4, 3, name="stem"),
        (2, 5, 5),
        r"Conv2D 'stem': expects an input of 4 axes \(batch, height, width, channels\)\."
        r" Received: input of shape \(2, 5, 5\)",
    ),
    "rank, channels first": (
        L.Conv1D(4, 3, data_format="channels_first"),
        (2, 5, 5, 1),
        r"an input of 3 axes \(batch, channels, steps\)",
    ),
    "window": (
        L.Conv2D(4, 5, name="stem"),
        (2, 4, 4, 3),
        r"Conv2D 'stem': a window of \(5, 5\) does not fit into an input of \(4, 4\).* use a"
        r" smaller kernel or dilation, more padding or a larger input\."
        r" Received: input of shape \(2, 4, 4, 3\)",
    ),
    "groups": (
        L.Conv2D(4, 3, groups=2),
        (1, 5, 5, 3),
        r"the channels of the input must be a multiple of groups=2\. Received: .*\(1, 5, 5, 3\)",
    ),
    "transposed": (
        L.Conv2DTranspose(4, 3, padding=9),
        (1, 5, 5, 3),
        r"padding must leave at least one output; it leaves \(-11, -11\)",
    ),
    "transposed causal": (
        L.Conv1DTranspose(4, 3, padding="causal"),
        (1, 5, 3),
        r'padding must be "valid", "same" \(without output_padding\) or explicit',
    ),
    "output padding": (
        L.Conv1DTranspose(4, 3, strides=2, output_padding=2),
        (1, 5, 3),
        r"output_padding must be smaller than strides=\(2,\)\. Received: output_padding=\(2,\)",
    ),
    "pool": (
        L.MaxPool2D(3, name="p"),
        (1, 2, 5, 3),
        r"MaxPool2D 'p': a window of \(3, 3\) does not fit into an input of \(2, 5\)",
    ),
    "pool padding": (L.MaxPool2D(2, padding=2), (1, 5, 5, 1), "padding must be smaller than the"),
    "global pool": (L.GlobalMaxPool2D(), (1, 5, 5), "expects an input of 4 axes"),
    "dense": (L.Dense(3, name="head"), (5,), r"Dense 'head': expects an input \(batch, \.\.\., f"),
    "group norm": (L.GroupNorm(4), (2, 3, 6), r"groups must divide the 6 channels\. Received: gr"),
    "layer norm": (L.LayerNorm(axis=(1, 2)), (2, 3, 6, 2), "must name the last axes of the input"),
    "reshape": (L.Reshape((4, -1)), (2, 3, 2), r"6 numbers .* do not fit into \(4, -1\)"),
    "permute": (L.Permute((2, 1)), (2, 3, 2, 1), "expects a sample of 2 axes"),
    "softmax": (L.Softmax(axis=3), (2, 3), "axis must be an axis of the input. Received: axis=3"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_that_does_not_fit(name):
    layer, x_shape, message = INPUTS[name]
    with pytest.raises(ValueError, match=message) as error:
        layer.forward(np.ones(x_shape))
    assert not layer.params and "Received: " in str(error.value)


@pytest.mark.parametrize(
    ("layer", "good", "bad", "message"),
    [
        (L.Conv2D(4, 3, groups=2), (1, 5, 5, 4), (1, 5, 5, 6), r"must have 4 channels, axis -1"),
        (
            L.Conv2DTranspose(4, 3, data_format="channels_first"),
            (1, 3, 5, 5),
            (1, 5, 5, 3),
            "must have 3 channels for a kernel",
        ),
        (L.DepthwiseConv2D(3), (1, 5, 5, 4), (1, 5, 5, 8), "must have 4 channels"),
        (L.SeparableConv2D(2, 3), (1, 5, 5, 4), (1, 5, 5, 2), "must have 4 channels"),
        (
            L.Dense(3),
            (2, 7),
            (2, 6),
            r"expects an input \(batch, \.\.\., 7\)\. Received: .*\(batch, 6\)",
        ),
        (
            L.BatchNorm(),
            (2, 5, 3),
            (2, 5, 4),
            r"expects an input of size 3 on axis -1\. Received: .*\(batch, 5, 4\)",
        ),
        (
            L.LayerNorm(axis=(1, 2)),
            (2, 5, 3),
            (2, 5, 4),
            r"expects an input of size 5, 3 on axis \(1, 2\)",
        ),
        (
            L.PReLU(axis=1),
            (2, 5, 3),
            (2, 4, 3),
            r"expects an input of 5 channels on axis 1\. Received: .*\(batch, 4, 3\)",
        ),
    ],
)
def test_an_input_unlike_the_first_one(layer, good, bad, message):
    layer.forward(np.ones(good))
    with pytest.raises(ValueError, match=f"{layer.label}: .*{message}"):
        layer.forward(np.ones(bad))


def test_a_gradient_that_is_not_of_the_outputs_shape():
    layers = (
        L.Conv2D(4, 3), L.MaxPool2D(), L.ReLU(), L.Flatten(), L.BatchNorm(), L.Dense(2),
        L.Dropout(0.5), L.Dropout(0),
    )  # fmt: skip
    for layer in layers:
        y = layer.forward(np.ones((1, 5, 6, 3)), training=True)
        with pytest.raises(
            ValueError, match=rf"{layer.label}: dy must have the shape .*Received: "
        ):
            layer.backward(np.ones((*y.shape, 2)))
        with pytest.raises(TypeError, match=rf"{layer.label}: dy must be an array.*builtins.list"):
            layer.backward(y.tolist())
        assert layer.backward(y).shape == (1, 5, 6, 3)  # the right one can follow


def test_a_build_that_fails_leaves_the_layer_as_it_was():
    layer = L.Dense(3)
    y = layer.forward(np.ones((1, 4), np.float16))
    with pytest.raises(ValueError, match="expects an input"):
        layer.build((), "float64")
    assert layer.built and layer.dtype == np.float16 and layer.input_shape == (4,)
    np.testing.assert_array_equal(layer.forward(np.ones((1, 4), np.float16)), y)


def test_a_dropout_that_fails_draws_no_mask():
    layer = L.Dropout(0.5)
    with pytest.raises(TypeError, match="must be one of float16"):
        layer.forward(np.ones((1, 4), np.complex64), training=True)
    assert layer.counters["calls"] == 0


def test_a_layers_name_is_a_string():
    with pytest.raises(TypeError, match=r"Dense: name must be a string. Received: name=5"):
        L.Dense(3, name=5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L.Conv2D(0, 3), "filters must be an integer of at least 1. Received: filters=0"),
        (lambda: L.Conv2D(4, (3, 3, 3)), "kernel_size must be an integer or 2 integers"),
        (lambda: L.Conv2D(4, 3, strides=0), "strides must be"),
        (lambda: L.Conv2D(4, 3, padding="causal"), 'padding must be "valid", "same", an integer'),
        (lambda: L.Conv2D(4, 3, data_format="NHWC"), "data_format must be one of 'channels_last'"),
        (lambda: L.Conv2D(4, 3, groups=3), "filters must be a multiple of groups"),
        (lambda: L.Conv2D(4, 3, activation="rlu"), "activation must be one of .*'relu'"),
        (lambda: L.Conv2D(4, 3, kernel_initializer="he"), "kernel_initializer must be one of"),
        (lambda: L.DepthwiseConv2D(3, depth_multiplier=0), "depth_multiplier must be an integer"),
        (lambda: L.MaxPool2D(0), "pool_size must be"),
        (lambda: L.MaxPool2D(2, count_padding=True), "count_padding is for averages only"),
        (lambda: L.Dense(2.5), "units must be an integer of at least 1. Received: units=2.5"),
        (lambda: L.ReLU(5), "max_value must be one of None, 6. Received: max_value=5"),
        (lambda: L.LeakyReLU(-0.1), r"negative_slope must be a number in \[0, inf\)"),
        (lambda: L.BatchNorm(momentum=1), r"momentum must be a number in \[0, 1\)"),
        (lambda: L.BatchNorm(axis=2), "axis must be one of -1, 1"),
        (lambda: L.BatchNorm(epsilon=-1), r"epsilon must be a number in \[0, inf\)"),
        (lambda: L.LayerNorm(axis=(-3, -1)), "axis must be -1 or the last axes in order"),
        (lambda: L.LayerNorm(axis=0), "axis must be -1 or the last axes in order"),
        (lambda: L.Dropout(1.0), r"rate must be a number in \[0, 1\). Received: rate=1.0"),
        (lambda: L.Reshape((-1, -1)), "target_shape must hold positive sizes, and -1 at most once"),
        (lambda: L.Permute((1, 3)), r"dims must hold each of 1 \.\.\. 2 once"),
        (lambda: L.Concatenate(axis=0), "axis must be an integer other than 0"),
        (lambda: L.BatchNorm(epsilon="small"), "epsilon must be a number"),
        (lambda: L.LeakyReLU(None), "negative_slope must be a number"),
        (lambda: L.LayerNorm(axis=None), "axis must be -1 or the last axes in order"),
        (lambda: L.Softmax(axis="channels"), "axis must be an integer"),
        (lambda: L.Reshape(64), "target_shape must hold positive sizes"),
        (lambda: L.Permute(3), r"dims must hold each of 1 \.\.\."),
        (lambda: L.Dense(3, input_shape=28), "input_shape must be the sizes of one sample"),
        (lambda: L.Conv2D(3, 3, input_shape=(None, 28, 1)), r"input_shape must .*\(None, 28, 1\)"),
        (lambda: L.Conv2D(3, 3).build((8, 8, 1), "float8"), "dtype must be one of .*'float8'"),
        (lambda: L.Conv2D(3, 3).astype(None), "dtype must be one of .*Received: dtype=None"),
        (
            lambda: L.Dense(3).forward(np.ones((1, 2), object)),
            r"dtype must be one of .*dtype\('O'\)",
        ),
        (
            lambda: L.Dense(3, bias_initializer=lambda *_: np.zeros(2)).forward(np.ones((1, 2))),
            r"bias: the initializer must return an array of shape \(3,\)",
        ),
    ],
)
def test_an_argument_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=rf"^\w+ '\w+': {message}.*") as error:
        make()
    assert "Received: " in str(error.value)


KINDS = {kind for kind in vars(L).values() if isinstance(kind, type) and issubclass(kind, L.Layer)}


@pytest.mark.parametrize("kind", sorted(KINDS, key=lambda kind: kind.__name__))
def test_every_layer_names_the_argument_that_was_meant(kind):
    needed = {
        name: None
        for name, parameter in signature(kind).parameters.items()
        if parameter.default is Parameter.empty and parameter.kind is not Parameter.VAR_KEYWORD
    }
    asked = rf"^{kind.__name__}: no argument 'nmae'; did you mean 'name'\? Received: nmae='a'$"
    with pytest.raises(TypeError, match=asked):
        kind(**needed, nmae="a")


def test_a_misspelt_argument():
    with pytest.raises(TypeError, match=r"Conv2D: no argument 'stride'; did you mean 'strides'\?"):
        L.Conv2D(8, 3, stride=2)
    with pytest.raises(TypeError, match=r"LeakyReLU: no argument 'red'; it takes negative_slope,"):
        L.LeakyReLU(red=1)


def test_merging_layers_say_what_they_need():
    x = np.ones((2, 3, 4))
    with pytest.raises(ValueError, match="Add 'add': expects a list of two inputs or more"):
        L.Add().forward(x)
    with pytest.raises(ValueError, match=r"one shape, but for sizes of 1\. Received: .*\(batch, 3"):
        L.Add().forward([x, np.ones((2, 3, 2))])
    with pytest.raises(ValueError, match="all inputs must be of one shape, but for sizes of 1"):
        L.Multiply().forward([x, np.ones((2, 3, 2))])
    with pytest.raises(ValueError, match="all inputs must be of one shape but for axis -1"):
        L.Concatenate().forward([x, np.ones((2, 2, 4))])
    with pytest.raises(ValueError, match="the inputs have no axis 3"):
        L.Concatenate(axis=3).forward([x, x])
    with pytest.raises(ValueError, match="all inputs must hold as many samples"):
        L.Concatenate().forward([x, x[:1]])
    with pytest.raises(TypeError, match=r"Add 'add': input must be an array. Received: None"):
        L.Add().forward([x, None])
    with pytest.raises(TypeError, match="all inputs must be of one dtype"):
        L.Add().forward([x, x.astype(np.float32)])


def test_another_dtype_than_the_parameters():
    layer = L.Conv2D(2, 3)
    layer.forward(np.ones((1, 4, 4, 1), np.float32))
    with pytest.raises(TypeError, match=r"the parameters are float32; convert .* dtype float64"):
        layer.forward(np.ones((1, 4, 4, 1)))


def test_lists_and_complex_numbers_are_refused_where_they_do_not_belong():
    with pytest.raises(TypeError, match=r"Conv2D 'conv2d': input must be an array.*builtins.list"):
        L.Conv2D(2, 3).forward([[1.0]])
    with pytest.raises(TypeError, match="ReLU 're_lu': the arrays must be one of float16"):
        L.ReLU().forward(np.ones((1, 4), np.complex64))
