"""What exporters write out as several nodes and is one layer, recognised as it comes together.

The layers that they would have been stay behind unread, and a graph leaves out what nobody reads.
"""

from __future__ import annotations

import math

from ..backends.base import Array
from ..layers import (
    GELU,
    Arithmetic,
    BatchNorm,
    Elementwise,
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


def scaled(function: str, node: Node, number: float) -> tuple[Layer, Node] | None:
    """Return the layer that a value over, or times, a number is, and x; None for others.

    relu6(x + 3) / 6              hard sigmoid
    x * relu6(x + 3) / 6          hard SiLU
    x * (erf(x / sqrt(2)) + 1) * 0.5    GELU
    """
    halved = (function, number) in (("multiply", 0.5), ("divide", 2))
    if function == "divide" and number == 6:
        x = _shifted_relu6(node)
        if x is not None:
            return HardSigmoid(), x
    if isinstance(node.layer, Multiply) and len(node.inputs) == 2:
        for x, gate in (node.inputs, node.inputs[::-1]):
            if function == "divide" and number == 6 and _shifted_relu6(gate) is x:
                return HardSiLU(), x
            if halved and _raised_erf(gate) is x:
                return GELU(), x
    return None


def _shifted_relu6(node: Node) -> Node | None:
    """Return x where a value is relu6(x + 3)."""
    relu6 = isinstance(node.layer, ReLU) and node.layer.max_value == 6
    return _operand(node.inputs[0], "add", 3) if relu6 else None


def _raised_erf(node: Node) -> Node | None:
    """Return x where a value is erf(x / sqrt(2)) + 1."""
    erf = _operand(node, "add", 1)
    if erf is None or not isinstance(erf.layer, Elementwise) or erf.layer.function != "erf":
        return None
    return _operand(erf.inputs[0], "divide", math.sqrt(2))


def _operand(node: Node, function: str, number: float) -> Node | None:
    """Return x where a value is function(x, number)."""
    layer = node.layer
    if not isinstance(layer, Arithmetic) or layer.learned or layer.reverse or layer.shape:
        return None
    near = math.isclose(float(layer.state["operand"]), number, rel_tol=1e-6)
    return node.inputs[0] if near and layer.function == function else None


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
