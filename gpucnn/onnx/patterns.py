"""What exporters write out as several nodes and is one layer, recognised as it comes together.

The layers that they would have been stay behind unread, and a graph leaves out what nobody reads.
"""

from __future__ import annotations

from ..backends.base import Array
from ..layers import (
    Arithmetic,
    BatchNorm,
    HardSigmoid,
    HardSiLU,
    Layer,
    Multiply,
    ReLU,
    Sigmoid,
    SiLU,
)
from ..network import Node


def product(a: Node, b: Node) -> tuple[Layer, Node] | None:
    """Return the layer that x * sigmoid(x) or x * hard_sigmoid(x) is, and x; None for others."""
    for x, gate in ((a, b), (b, a)):
        if gate.inputs == (x,):
            if isinstance(gate.layer, Sigmoid):
                return SiLU(), x
            if isinstance(gate.layer, HardSigmoid):
                return HardSiLU(), x
    return None


def quotient(product: Node, divisor: float) -> tuple[Layer, Node] | None:
    """Return the layer that x * relu6(x + 3) / 6 is, and x; None for others."""
    if divisor != 6 or not isinstance(product.layer, Multiply) or len(product.inputs) != 2:
        return None
    for x, gate in (product.inputs, product.inputs[::-1]):
        relu6 = isinstance(gate.layer, ReLU) and gate.layer.max_value == 6
        if relu6 and _is_shifted(gate.inputs[0], x):
            return HardSiLU(), x
    return None


def rescaled(
    function: str, normed: Node, operand: Array
) -> tuple[Layer, Node, dict[str, Array]] | None:
    """Return the batch norm, what it reads and its weights, that a norm and a scale or shift are.

    Caffe's networks have a norm without gamma and beta, and both in a layer of their own.
    """
    norm = normed.layer
    if not isinstance(norm, BatchNorm):
        return None
    weights = norm.params | norm.state
    weights = {name: norm.backend.to_numpy(array) for name, array in weights.items()}
    gamma, beta = weights["gamma"], weights["beta"]
    if operand.shape not in ((), (len(gamma),) + (1,) * (len(normed.shape) - 1)):
        return None
    operand = operand.ravel().astype(gamma.dtype)
    if function == "add":
        weights["beta"] = beta + operand
    else:
        weights |= {"gamma": gamma * operand, "beta": beta * operand}
    whole = BatchNorm(epsilon=norm.epsilon, momentum=norm.momentum, axis=1)
    return whole, normed.inputs[0], weights


def _is_shifted(node: Node, x: Node) -> bool:
    """Return whether a value is x + 3."""
    layer = node.layer
    return (
        isinstance(layer, Arithmetic)
        and (layer.function, layer.shape, layer.learned) == ("add", (), False)
        and node.inputs == (x,)
        and float(layer.state["operand"]) == 3
    )
