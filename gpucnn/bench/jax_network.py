"""A network of gpucnn's layers as pure functions for JAX, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import layers
from ..layers.base import Layer
from ..network import Residual, Sequential

try:
    import jax
except ModuleNotFoundError:
    jax = None

Arrays = dict[int, dict[str, Any]]  # of each layer, by its id


class _Training:
    """What a training's forward pass draws from, and the statistics that it leaves."""

    def __init__(self, key: Any) -> None:
        self.key = key
        self.statistics: dict[int, tuple[float, dict[str, Any]]] = {}

    def draw(self, rate: float, shape: Sequence[int]) -> Any:
        self.key, key = jax.random.split(self.key)
        return jax.random.bernoulli(key, 1 - rate, shape)


def inference(model: Sequential) -> Callable[[Any], Any]:
    """Return x (N, H, W, C) -> logits, with the weights as constants."""
    arrays = {id(layer): {**layer.params, **layer.state} for _, layer in model.walk()}
    return lambda x: _chain(model.layers, x, arrays, None)


def training(
    model: Sequential, rate: float, momentum: float
) -> tuple[Callable[[Any, Any, Any], tuple[Any, Any]], Any]:
    """Return (state, x, labels) -> (state, loss), a step of SGD with momentum, and a first state.

    The parameters are float32, and are rounded to x's dtype where they are used. The moving
    statistics are kept as gpucnn's batch norm keeps them.
    """
    found = [(id(layer), layer) for _, layer in model.walk()]
    params = {
        key: jax.tree.map(lambda a: a.astype("float32"), _as_jax(layer.params))
        for key, layer in found
    }
    state = {
        "params": params,
        "velocity": jax.tree.map(jax.numpy.zeros_like, params),
        "moving": {key: _as_jax(layer.state) for key, layer in found},
        "key": jax.random.key(0),
    }

    def loss_of(params: Any, x: Any, labels: Any, key: Any) -> tuple[Any, Any]:
        seen = _Training(key)
        rounded = jax.tree.map(lambda parameter: parameter.astype(x.dtype), params)
        logits = _chain(model.layers, x, rounded, seen).astype("float32")
        picked = jax.numpy.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -picked.mean(), seen.statistics

    def step(state: Any, x: Any, labels: Any) -> tuple[Any, Any]:
        key, drawn = jax.random.split(state["key"])
        gradients = jax.value_and_grad(loss_of, has_aux=True)
        (loss, batch), gradient = gradients(state["params"], x, labels, drawn)
        velocity = jax.tree.map(lambda v, g: momentum * v - rate * g, state["velocity"], gradient)
        params = jax.tree.map(jax.numpy.add, state["params"], velocity)
        moving = dict(state["moving"])
        for layer, (keep, seen) in batch.items():
            old = moving[layer]
            moving[layer] = {name: keep * old[name] + (1 - keep) * seen[name] for name in old}
        state = {"params": params, "velocity": velocity, "moving": moving, "key": key}
        return state, loss

    return step, state


def _as_jax(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: jax.numpy.array(array) for name, array in arrays.items()}


def _chain(chain: Sequence[Layer], x: Any, arrays: Arrays, seen: _Training | None) -> Any:
    for layer in chain:
        x = _layer(layer, x, arrays, seen)
    return x


def _layer(layer: Layer, x: Any, arrays: Arrays, seen: _Training | None) -> Any:
    """Run one layer; ``seen`` is None in inference."""
    if isinstance(layer, Residual):
        last = [] if layer.activation is None else [layer.activation]
        y = _chain(layer.body, x, arrays, seen) + _chain(layer.shortcut, x, arrays, seen)
        return _chain(last, y, arrays, seen)
    own = arrays.get(id(layer), {})
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
        return _conv(layer, x, own)
    if isinstance(layer, layers.Dense):
        return x @ own["kernel"].T + own.get("bias", 0.0)
    if isinstance(layer, layers.BatchNorm):
        return _batch_norm(layer, x, own, seen)
    if isinstance(layer, layers.ReLU | layers.Activation) and layer.kind in ("relu", "relu6"):
        return jax.nn.relu(x) if layer.kind == "relu" else jax.nn.relu6(x)
    if isinstance(layer, layers.MaxPool2D):
        window, strides = (1, *layer.pool_size, 1), (1, *layer.strides, 1)
        around = _padding(layer)
        around = around if isinstance(around, str) else ((0, 0), *around, (0, 0))
        return jax.lax.reduce_window(x, -jax.numpy.inf, jax.lax.max, window, strides, around)
    if isinstance(layer, layers.GlobalAveragePool2D):
        return x.mean((1, 2))
    if isinstance(layer, layers.Flatten):
        return x.reshape(len(x), -1)
    if isinstance(layer, layers.Dropout):
        return x if seen is None else x * seen.draw(layer.rate, x.shape) / (1 - layer.rate)
    raise TypeError(f"jax_network: knows no such layer. Received: {layer.label}")


def _conv(layer: layers.Conv2D, x: Any, own: dict[str, Any]) -> Any:
    if layer.activation != "linear":
        raise TypeError(f"jax_network: knows no such convolution. Received: {layer.label}")
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    y = jax.lax.conv_general_dilated(
        x, own["kernel"], layer.strides, _padding(layer),
        dimension_numbers=("NHWC", "OHWI", "NHWC"),
        feature_group_count=x.shape[-1] if depthwise else layer.groups,
    )  # fmt: skip
    return y + own.get("bias", 0.0)


def _padding(layer: layers.Conv2D | layers.MaxPool2D) -> str | tuple[tuple[int, int], ...]:
    return layer.padding.upper() if isinstance(layer.padding, str) else layer.padding


def _batch_norm(
    layer: layers.BatchNorm, x: Any, own: dict[str, Any], seen: _Training | None
) -> Any:
    dtype, x = x.dtype, x.astype("float32")
    if seen is None:
        mean, var = own["moving_mean"], own["moving_variance"]
    else:
        axes = tuple(range(x.ndim - 1))
        mean, var = x.mean(axes), x.var(axes)
        moving = {"moving_mean": mean, "moving_variance": var}
        seen.statistics[id(layer)] = layer.momentum, moving
    y = own["gamma"] * (x - mean) * jax.lax.rsqrt(var + layer.epsilon) + own["beta"]
    return y.astype(dtype)
