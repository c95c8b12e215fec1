"""Functions of positive numbers, powers and the place of a maximum, which layer_cases leave out."""

import numpy as np
import pytest
import torch

from gpucnn import functional as F
from gpucnn import layers as L

WITHIN_ONE = {name: getattr(torch, name) for name in ("acos", "asin", "atanh", "log", "sqrt")}


@pytest.mark.parametrize("name", [*WITHIN_ONE, "acosh"])
def test_a_function_of_positive_numbers(name, backend):
    values = np.random.default_rng(3).uniform(0.1, 0.9, (3, 7)) + (name == "acosh")
    x = torch.tensor(values, requires_grad=True)
    dy = np.random.default_rng(4).standard_normal((3, 7))
    getattr(torch, name)(x).backward(torch.tensor(dy))
    layer = L.Elementwise(name)
    y = layer.forward(backend.asarray(values))
    dx = layer.backward(backend.asarray(dy))
    np.testing.assert_allclose(backend.to_numpy(y), getattr(torch, name)(x).detach(), rtol=1e-13)
    np.testing.assert_allclose(backend.to_numpy(dx), x.grad, rtol=1e-12)


def test_power(backend):
    rng = np.random.default_rng(5)
    values = rng.uniform(0.2, 3, (2, 3, 1)), rng.uniform(-2, 2, (2, 3, 5))
    a, b = (torch.tensor(array, requires_grad=True) for array in values)
    dy = rng.standard_normal((2, 3, 5))
    (a**b).backward(torch.tensor(dy))
    layer = L.Power()
    y = layer.forward([backend.asarray(array) for array in values])
    da, db = layer.backward(backend.asarray(dy))
    for ours, theirs in ((y, (a**b).detach()), (da, a.grad), (db, b.grad)):
        np.testing.assert_allclose(backend.to_numpy(ours), theirs, rtol=1e-12, atol=1e-13)


def test_the_slopes_of_a_power_where_it_has_none():
    a, b, dy = np.array([0.0, -2.0, 0.0]), np.array([0.0, 2.0, 2.0]), np.ones(3)
    da, db = F.arithmetic_backward(dy, a, b, "power")
    np.testing.assert_array_equal(da, [0, -4, 0])
    np.testing.assert_array_equal(db, [0, 0, 0])


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "pow", "matmul"])
def test_complex_gradients(name, backend):
    rng = np.random.default_rng(6)
    shapes = ((2, 3, 4), (2, 4, 3)) if name == "matmul" else ((2, 3, 1), (2, 1, 4))
    values = [rng.standard_normal((2, *shape)) for shape in shapes]
    values = [real + 1j * imaginary for real, imaginary in values]
    a, b = (torch.tensor(array, requires_grad=True) for array in values)
    y = getattr(torch, name)(a, b)
    dy = rng.standard_normal(y.shape) + 1j * rng.standard_normal(y.shape)
    y.backward(torch.tensor(dy))
    layer = {
        "add": L.Add, "subtract": L.Subtract, "multiply": L.Multiply, "divide": L.Divide,
        "pow": L.Power, "matmul": L.MatMul,
    }[name]()  # fmt: skip
    ours = layer.forward([backend.asarray(array) for array in values])
    da, db = layer.backward(backend.asarray(dy))
    for found, right in ((ours, y.detach()), (da, a.grad), (db, b.grad)):
        np.testing.assert_allclose(backend.to_numpy(found), right, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["abs", "exp", "log", "reciprocal", "sin", "sqrt", "square"])
def test_complex_functions(name):
    parts = np.random.default_rng(8).standard_normal((2, 3, 4))
    x = torch.tensor(parts[0] + 1j * parts[1], requires_grad=True)
    y = getattr(torch, name)(x)
    dy = np.ones(y.shape) if name == "abs" else parts[1] + 1j
    y.backward(torch.tensor(dy))
    layer = L.Elementwise(name)
    np.testing.assert_allclose(layer.forward(x.detach().numpy()), y.detach(), rtol=1e-12)
    np.testing.assert_allclose(layer.backward(dy), x.grad, rtol=1e-12)


@pytest.mark.parametrize("mode", ["sum", "mean", "prod"])
def test_reductions_of_complex_numbers(mode):
    parts = np.random.default_rng(7).standard_normal((2, 3, 4))
    x = torch.tensor(parts[0] + 1j * parts[1], requires_grad=True)
    y = getattr(torch, mode)(x, 1)
    y.backward(torch.ones_like(y))
    layer = L.Reduce(mode, 1)
    np.testing.assert_allclose(layer.forward(x.detach().numpy()), y.detach(), rtol=1e-12)
    dx = layer.backward(np.ones(3, complex))
    np.testing.assert_allclose(dx, x.grad, rtol=1e-12)
    with pytest.raises(TypeError, match=r"of complex numbers mode must be one of .*'l1'"):
        L.Reduce("l1", 1).forward(x.detach().numpy())


def test_the_error_function_at_its_ends(backend):
    x = np.array([-np.inf, -30.0, -0.5, 0.0, 0.5, 30.0, np.inf, np.nan])
    y = backend.to_numpy(F.elementwise_forward(backend.asarray(x), "erf"))
    np.testing.assert_allclose(y, torch.erf(torch.tensor(x)), rtol=1e-14)


def test_the_place_of_a_maximum(backend):
    x = backend.asarray(np.array([[[1.0, 5.0, 5.0], [7.0, 0.0, 2.0]]]))
    layer = L.ArgMax(axis=-1, keepdims=True)
    np.testing.assert_array_equal(backend.to_numpy(layer.forward(x)), [[[1], [0]]])
    assert layer.output_shape((2, 3)) == (2, 1)
    with pytest.raises(RuntimeError, match=r"ArgMax 'arg_max': .* has no gradient"):
        layer.backward(x)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_what_lies_beyond_the_map_is_its_edge(interpolation):
    """Where a size asks for more than its scale reaches, and nothing outside is to count."""
    layer = L.Resize(
        8, scale=1.25, interpolation=interpolation, coordinates="asymmetric", exclude_outside=True,
        axes=(1,),
    )  # fmt: skip
    y = layer.forward(np.array([[1.0, 2.0, 4.0]]))
    np.testing.assert_allclose(y[0, 4:], 4, rtol=1e-14)


def test_integers_divide_towards_zero():
    a, b = np.array([7, -7, 7, -6]), np.array([2, 2, -2, 3])
    np.testing.assert_array_equal(F.arithmetic_forward(a, b, "divide"), [3, -3, -3, -2])


def test_equal_maxima_share_the_gradient():
    x = np.array([[2.0, 5.0, 5.0, 1.0]])
    y = F.reduce_forward(x, "max", [1])
    dx = F.reduce_backward(np.ones(1), x, y, "max", [1])
    np.testing.assert_array_equal(dx, [[0, 0.5, 0.5, 0]])


@pytest.mark.parametrize("values", [[2.0, 0.0, 3.0], [0.0, 0.0, 3.0], [2.0, 5.0, 3.0]])
def test_a_product_with_zeros(values):
    x = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    x.prod(1).backward(torch.tensor([1.5], dtype=torch.float64))
    array = x.detach().numpy()
    y = F.reduce_forward(array, "prod", [1])
    np.testing.assert_array_equal(F.reduce_backward(np.array([1.5]), array, y, "prod", [1]), x.grad)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_long_16_bit_sum_is_carried_in_float32(dtype):
    import ml_dtypes

    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    x = np.full((1, 5000), 0.1, kind)
    exact = 5000 * float(x[0, 0])
    assert abs(float(F.reduce_forward(x, "sum", [1])[0]) - exact) <= exact * 2.0**-8
    square = F.matmul_forward(x, np.ascontiguousarray(x.T))
    assert abs(float(square[0, 0]) - exact * 0.1) <= exact * 0.1 * 2.0**-7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L.Elementwise("sinus"), "Elementwise .*: function must be one of .*'sin'"),
        (lambda: L.Arithmetic("plus", ()), "function must be one of 'add'"),
        (lambda: L.Reduce("sum", 0), "axes must be different integers other than 0, the batch"),
        (lambda: L.Reduce("sum", (1, -1)).forward(np.ones((2, 3))), "has no axes"),
        (lambda: L.Pad([1, 2]), "padding must hold a .before, after. pair"),
        (lambda: L.Pad([(0, 1)], "mirror"), "mode must be one of 'constant'"),
        (lambda: L.Slice([(0, 1, 0)]), "no step of 0"),
        (lambda: L.Take([3]).forward(np.ones((2, 3))), r"no axis -1 with the places \(3,\)"),
        (lambda: L.Tile((2,)).forward(np.ones((2, 3, 4))), "expects a sample of 1 axes"),
        (lambda: L.Resize(), "size, or scale of 2 positive numbers, must be given"),
        (lambda: L.Resize(scale=0.4).forward(np.ones((1, 2, 3, 1))), "leaves nothing of axis 1"),
        (lambda: L.Resize(3, interpolation="area"), "interpolation must be one of 'nearest'"),
        (lambda: L.Clip("a"), "low must be a number"),
        (
            lambda: L.Arithmetic("add", (4,)).forward(np.ones((2, 3))),
            r"must broadcast against an operand of shape \(4,\)",
        ),
        (lambda: L.MatMul().forward([np.ones((1, 2, 3))] * 2), "two inputs .* and "),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "Received: " in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.take_forward(x, [3], 1), r"take: places must lie in \[0, 3\)"),
        (lambda x: F.take_backward(x, [0, 1], x.shape, 1), r"dy must have the shape \(2, 2\)"),
        (lambda x: F.pad_forward(x, [(1, 1)]), "a .before, after. pair for each axis"),
        (lambda x: F.pad_forward(x, [(0, 0), (-3, 1)], "edge"), "and leave numbers"),
        (lambda x: F.pad_backward(x, (2, 2), [(0, 0), (0, 2)]), r"must have the shape \(2, 4\)"),
        (lambda x: F.slice_backward(x, (4, 4), [slice(2)]), r"must have the shape \(2, 4\)"),
        (lambda x: F.reduce_forward(x, "sum", [0, 0]), "axes must be different axes"),
        (lambda x: F.reduce_forward(x, "average", [0]), "mode must be one of 'sum'"),
        (lambda x: F.reduce_backward(x, x, x[0], "sum", [0]), r"must have the shape \(3,\)"),
        (lambda x: F.arithmetic_forward(x, x, "plus"), "function must be one of 'add'"),
        (lambda x: F.arithmetic_backward(x[0], x, x, "add"), r"must have the shape \(2, 3\)"),
        (lambda x: F.clip_backward(x, x[0]), r"dy must have the shape \(3,\)"),
        (lambda x: F.shrink_backward(x, x[0]), r"dy must have the shape \(3,\)"),
        (lambda x: F.elementwise_forward(x, "abs2"), "function must be one of 'abs'"),
        (lambda x: F.matmul_backward(x, x, x.T), r"dy must have the shape \(2, 2\)"),
        (lambda x: F.max_unpool_forward(x[None], x, (1, 2, 9)), "places must have the shape"),
    ],
)
def test_a_function_says_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(np.ones((2, 3)))
    assert "Received: " in str(error.value)
