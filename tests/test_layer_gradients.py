"""Every layer's gradient, against central differences and against PyTorch, on every backend."""

import inspect

import numpy as np
import pytest
import torch

from gpucnn import layers
from gpucnn.layers import Layer
from tests.gradients import check_gradients, prepared
from tests.layer_cases import APART, CASES, STEEP

# A float64 sum of some tens of terms, in another order than PyTorch's.
RELATIVE = 1e-12

every_case = pytest.mark.parametrize("name", CASES)


def test_there_is_a_case_for_every_layer():
    public = [getattr(layers, name) for name in layers.__all__]
    kinds = {kind for kind in public if inspect.isclass(kind)} - {Layer}
    assert kinds == {type(case.layer()) for case in CASES.values()} | set(APART.values())


@pytest.mark.parametrize("name", [name for name in CASES if name not in STEEP])
def test_gradient_is_the_slope(name, backend):
    case = CASES[name]
    check_gradients(case.layer(), case.x_shape, backend, training=case.training)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].torch])
def test_agrees_with_torch(name, backend):
    case, layer = CASES[name], CASES[name].layer()
    rng, x = prepared(layer, case.x_shape, backend)
    many = layer.takes_many
    y = layer.forward(x, case.training)
    dy = rng.standard_normal(y.shape)
    dx = layer.backward(backend.asarray(dy))

    def leaf(array):
        return torch.tensor(backend.to_numpy(array), requires_grad=True)

    xs = [leaf(array) for array in x] if many else leaf(x)
    params = {key: leaf(array) for key, array in layer.params.items()}
    expected = case.torch(xs, params)
    expected.backward(torch.tensor(dy))

    pairs = {"y": (y, expected.detach())}
    pairs |= {f"d{key}": (layer.grads[key], params[key].grad) for key in params}
    both = zip(dx, xs, strict=True) if many else [(dx, xs)]
    for place, (ours, x) in enumerate(both):
        pairs[f"dx[{place}]"] = ours, torch.zeros_like(x) if x.grad is None else x.grad
    for what, (ours, theirs) in pairs.items():
        ours, theirs = backend.to_numpy(ours), theirs.numpy()
        assert ours.dtype == np.float64, what
        np.testing.assert_allclose(
            ours, theirs, rtol=RELATIVE, atol=RELATIVE * np.abs(theirs).max(), err_msg=what
        )


@every_case
def test_output_shape_is_the_outputs(name):
    case, layer = CASES[name], CASES[name].layer()
    with_batch = case.x_shape if isinstance(case.x_shape, list) else [case.x_shape]
    shapes = tuple(shape[1:] for shape in with_batch)
    shape = layer.output_shape(shapes if layer.takes_many else shapes[0])
    x = [np.ones(shape) for shape in with_batch]
    y = layer.forward(x if layer.takes_many else x[0])
    assert y.shape == (with_batch[0][0], *shape)
    assert layer.output_shape(shapes if layer.takes_many else shapes[0]) == shape


@every_case
def test_a_batch_of_no_samples(name):
    case, layer = CASES[name], CASES[name].layer()
    many = isinstance(case.x_shape, list)
    xs = [np.zeros((0, *shape[1:])) for shape in (case.x_shape if many else [case.x_shape])]
    y = layer.forward(xs if many else xs[0])
    dx = layer.backward(np.zeros_like(y))
    assert len(y) == 0 and [d.shape for d in (dx if many else [dx])] == [x.shape for x in xs]
    assert not any(grad.any() for grad in layer.grads.values())
