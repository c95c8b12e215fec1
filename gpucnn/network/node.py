"""Symbolic values, from which a graph is described in Keras's functional style."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..arguments import as_shape
from ..layers.base import Layer, Shape

_serials = itertools.count()


class Node:
    """A value in a graph that is being described: the layer that makes it, from which values.

    A node exists only after its inputs, so a graph has no cycles, and the order in which nodes
    were made is an order in which they can be computed.

    Attributes:
        layer: what makes the value; None for an ``Input``.
        inputs: the nodes that the layer reads.
        shape: the value's shape without the batch axis.
    """

    def __init__(self, layer: Layer | None, inputs: tuple[Node, ...], shape: Shape) -> None:
        self.layer = layer
        self.inputs = inputs
        self.shape = shape
        self.serial = next(_serials)
        self.name = "input"
        self.given_name = False

    @classmethod
    def of(cls, layer: Layer, inputs: Node | Sequence[Node]) -> Node:
        """Describe the call of a layer on a node, or on a list of nodes for a merging layer.

        Raises:
            ValueError: the inputs' number or shapes do not fit the layer.
            TypeError: an input is no node.
        """
        listed = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        for node in listed:
            if not isinstance(node, Node):
                raise TypeError(
                    f"{layer.label}: an input must be a gpucnn.Input or the output of a layer that"
                    f" was called on one. Received: {type(node).__name__}"
                )
        if layer.takes_many != isinstance(inputs, (list, tuple)):
            form = "a list of inputs" if layer.takes_many else "one input, no list"
            raise ValueError(f"{layer.label}: the layer takes {form}. Received: {inputs!r}")
        if layer.gives_many:
            raise ValueError(
                f"{layer.label}: a graph of several outputs cannot be a layer of another one."
                f" Received: {inputs!r}"
            )
        shapes = tuple(node.shape for node in listed)
        output = layer.output_shape(shapes if layer.takes_many else shapes[0])
        return cls(layer, tuple(listed), output)

    def __repr__(self) -> str:
        label = f"Input {self.name!r}" if self.layer is None else self.layer.label
        return f"<{label}: {(None, *self.shape)}>"


def Input(shape: Sequence[int], *, name: str | None = None) -> Node:
    """Return the symbolic input of a graph; ``shape`` leaves out the batch axis.

    Example:
        >>> x = Input((28, 28, 1))
        >>> Conv2D(8, 3)(x)
        <Conv2D 'conv2d': (None, 26, 26, 8)>
    """
    node = Node(None, (), as_shape("Input", "shape", shape, minimum=1))
    if name is not None:
        node.name, node.given_name = name, True
    return node
