"""A network of any shape without cycles: from inputs through layers to outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .. import functional as F
from ..backends.base import Array
from ..layers import Add, from_config, to_config
from ..layers.base import Layer, Shape
from ..layers.norm import BatchNorm
from .base import Network, Step
from .masks import is_input_kept, with_masks
from .naming import give_names
from .node import Input, Node
from .on_load import with_norms_on_load
from .plan import sum_of, sum_relu
from .stages import ConvNormSum, Stage, SumReLU, WithSum, backward_through, run_forward


class Run(NamedTuple):
    """Layers one after another, with no fork between them.

    Values are numbered: the inputs, then the output of each layer.
    """

    stages: list[Layer | Stage]
    sources: list[int]  # what the first one reads
    place: int  # of what the last one makes
    last: list[int]  # the sources that nobody reads afterwards


class Graph(Network):
    """A network of any shape without cycles: from inputs through layers to outputs.

    Where a value is read by several layers, their gradients are added in the order of the layers,
    the last first. A single input or output is an array, several are a list of arrays.

    Args:
        inputs: an ``Input`` or a list of them; each must be used.
        outputs: a node or a list of nodes.
        dtype: of the parameters, and inputs are converted to it; float32 by default.

    Raises:
        ValueError: an input is not used or not listed, a layer is called twice, or two layers have
            one name.

    Example:
        >>> x = Input((28, 28, 1))
        >>> h = Conv2D(8, 3, padding="same", activation="relu")(x)
        >>> y = Add()([h, Conv2D(8, 1)(x)])
        >>> model = Graph(x, y)
    """

    def __init__(
        self, inputs: Node | Sequence[Node], outputs: Node | Sequence[Node], *,
        name: str | None = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        self.inputs = _nodes("inputs", inputs)
        self.outputs = _nodes("outputs", outputs)
        reached = _reached(self.outputs)
        self._check_inputs(reached)
        self.nodes = [*self.inputs, *(node for node in reached if node.layer is not None)]
        self.takes_many = len(self.inputs) > 1
        self.gives_many = len(self.outputs) > 1
        shapes = tuple(node.shape for node in self.inputs)
        super().__init__(
            [node.layer for node in self.nodes if node.layer is not None],
            name=name,
            input_shape=shapes if self.takes_many else shapes[0],
            dtype=dtype,
        )
        give_names(self.label, [*self.inputs, *self.layers])
        self._index = {node.serial: index for index, node in enumerate(self.nodes)}
        self._sources = [
            [self._index[source.serial] for source in node.inputs]
            for node in self.nodes[len(self.inputs) :]
        ]
        self.build(self.input_shape)

    def _check_inputs(self, reached: Iterable[Node]) -> None:
        ids = {id(node) for node in reached}
        for node in self.inputs:
            if node.layer is not None:
                raise ValueError(f"Graph: inputs must be made by gpucnn.Input. Received: {node!r}")
            if id(node) not in ids:
                raise ValueError(
                    f"Graph: each input must be used by an output. Received: the unused {node!r}"
                )
        if len({id(node) for node in self.inputs}) < len(self.inputs):
            raise ValueError(f"Graph: inputs must be different. Received: {self.inputs!r}")
        for node in reached:
            if node.layer is None and not any(node is item for item in self.inputs):
                raise ValueError(
                    f"Graph: the outputs depend on an input that inputs does not list."
                    f" Received: {node!r} besides inputs={self.inputs!r}"
                )

    def _make_plan(self) -> list[Run]:
        """Return the runs of layers without a fork between them, in the order of their first."""
        outputs = {self._index[node.serial] for node in self.outputs}
        readers = Counter(index for sources in self._sources for index in sources)
        first, chains = len(self.inputs), {}  # by the place of the last value
        for place, sources in enumerate(self._sources, first):
            goes_on = (
                not self.layers[place - first].takes_many
                and readers[sources[0]] == 1
                and sources[0] not in outputs
            )
            chains[place] = [*(chains.pop(sources[0], ()) if goes_on else ()), place]
        sums = self._take_sums(chains, readers, outputs) if self.fuses else {}
        runs, needed = [], outputs
        kept = dict.fromkeys(outputs, self.output_is_kept)  # for the way back
        alone: dict[int, Stage] = {}  # by the place of what it reads first, a sum that alone does
        for chain in sorted(chains.values(), reverse=True):
            layers = [self.layers[place - first] for place in chain]
            if chain[0] in sums:
                stage, sources = sums[chain[0]]
                if readers[sources[0]] == 1 and sources[0] not in outputs:
                    alone[sources[0]] = stage
                stages = [stage, *self._stages(layers[len(stage.layers) - stage.before + 1 :])]
            else:
                stages, sources = self._stages(layers), self._sources[chain[0] - first]
            last = kept.get(chain[-1], False)
            if self._refines:
                reader = alone.get(chain[-1])
                stages = with_norms_on_load(with_masks(stages, last, reader), reader)
            for index, source in enumerate(sources):
                kept[source] = kept.get(source, False) or is_input_kept(stages, last, index)
            runs.append(Run(stages, sources, chain[-1], sorted(set(sources) - needed)))
            needed = needed | set(sources)
        return runs[::-1]

    def _take_sums(
        self, chains: dict[int, list[int]], readers: Counter[int], outputs: set[int]
    ) -> dict[int, tuple[WithSum | ConvNormSum | SumReLU, list[int]]]:
        """Take what an ``Add`` of two alone reads off the ends of its chains: batch norms first.

        And convolutions. Return by the place of the sum the stage that norm, sum and perhaps ReLU
        are, or sum and ReLU, which stands for as many layers of the sum's chain as it has from the
        sum on, and what it reads.
        """
        first, complex_numbers = len(self.inputs), self.dtype.kind == "c"
        found = {}
        for add, *behind in list(chains.values()):
            sources = self._sources[add - first]
            alike = len({self.nodes[source].shape for source in sources}) == 1
            if type(self.layers[add - first]) is not Add or len(sources) != 2 or not alike:
                continue
            after = self.layers[behind[0] - first] if behind else None
            ways = (sources, sources[::-1])
            for last, residual in sorted(ways, key=lambda way: not self._is_norm(way[0])):
                if last < first or readers[last] > 1 or last in outputs:
                    continue
                chain = chains[last]
                layers = [self.layers[place - first] for place in chain]
                stage = sum_of(layers, after, complex_numbers) or sum_of(
                    layers, None, complex_numbers
                )
                if stage is not None:
                    rest = chains.pop(last)[: -stage.before]
                    if rest:
                        chains[rest[-1]] = rest
                    sources = self._sources[chain[-stage.before] - first]
                    found[add] = stage, [*sources, residual]
                    break
            else:
                stage = sum_relu(self.layers[add - first], after, complex_numbers)
                if stage is not None:
                    found[add] = stage, sources
        return found

    def _is_norm(self, place: int) -> bool:
        return isinstance(self.nodes[place].layer, BatchNorm)

    def config(self) -> dict[str, Any]:
        names = [node.name if node.layer is None else node.layer.name for node in self.nodes]
        return {
            "name": self.name,
            "inputs": [{"name": node.name, "shape": list(node.shape)} for node in self.inputs],
            "layers": [
                {"layer": to_config(layer), "inputs": [names[index] for index in sources]}
                for layer, sources in zip(self.layers, self._sources, strict=True)
            ],
            "outputs": [names[self._index[node.serial]] for node in self.outputs],
            "dtype": self.dtype.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Graph:
        inputs = [Input(item["shape"], name=item["name"]) for item in config["inputs"]]
        values = {node.name: node for node in inputs}
        for item in config["layers"]:
            layer = from_config(item["layer"])
            sources = [values[name] for name in item["inputs"]]
            values[layer.name] = Node.of(layer, sources if layer.takes_many else sources[0])
        outputs = [values[name] for name in config["outputs"]]
        return cls(inputs, outputs, name=config["name"], dtype=config["dtype"])

    def _flow(self, input_shape: Shape) -> tuple[list[Step], Shape]:
        shapes = list(input_shape) if self.takes_many else [tuple(input_shape)]
        names = [node.name for node in self.inputs]
        steps = []
        for layer, sources in zip(self.layers, self._sources, strict=True):
            given = tuple(shapes[index] for index in sources)
            given = given if layer.takes_many else given[0]
            try:
                shapes.append(layer.output_shape(given))
            except ValueError as error:
                way = ", ".join(f"{names[index]} {shapes[index]}" for index in sources)
                raise ValueError(f"{self.label}: {way} -> {layer.name} fails. {error}") from error
            steps.append(Step(layer, given, shapes[-1], tuple(names[index] for index in sources)))
            names.append(layer.name)
        results = tuple(shapes[self._index[node.serial]] for node in self.outputs)
        return steps, results if self.gives_many else results[0]

    def _listed(self, x: Any) -> list:
        listed = list(x) if isinstance(x, (list, tuple)) else [x]
        if len(listed) != len(self.inputs):
            names = ", ".join(node.name for node in self.inputs)
            raise ValueError(
                f"{self.label}: the network takes {len(self.inputs)} inputs, {names}, in a list."
                f" Received: {len(listed)}"
            )
        return listed

    def _arranged(self, dy: Array | list[Array]) -> Array | list[Array]:
        if not self.gives_many:
            return super()._arranged(dy)
        if not isinstance(dy, (list, tuple)) or len(dy) != len(self.outputs):
            raise ValueError(
                f"{self.label}: dy must be a list of {len(self.outputs)} gradients, one for each"
                f" output. Received: {type(dy).__name__}"
            )
        return [super(Graph, self)._arranged(gradient) for gradient in dy]

    def _forward(self, x: Array | list[Array], training: bool) -> Array | list[Array]:
        values: dict[int, Array] = dict(enumerate(x if self.takes_many else [x]))
        for stages, sources, place, last in self._plan():
            value = [values[index] for index in sources]
            for index in last:
                del values[index]
            value = value if stages[0].takes_many else value[0]
            for stage in stages:
                value = run_forward(stage, value, training)
            values[place] = value
        self._save()
        results = [values[self._index[node.serial]] for node in self.outputs]
        return results if self.gives_many else results[0]

    def _backward(self, dy: Array | list[Array]) -> Array | list[Array]:
        gradients: dict[int, Array] = {}

        def collect(index: int, gradient: Array) -> None:
            if index in gradients:
                gradient = F.add(gradient, gradients[index], owner=self.label)
            gradients[index] = gradient

        for node, gradient in zip(self.outputs, dy if self.gives_many else [dy], strict=True):
            collect(self._index[node.serial], gradient)
        count = len(self.inputs)
        for stages, sources, place, _ in reversed(self._plan()):
            needed = self.needs_input_gradient or max(sources) >= count
            sums = needed and self._sums_gradients(stages)
            others = gradients.pop(sources[0], None) if sums else None
            dx = backward_through(stages, gradients.pop(place), needed, others)
            dx = dx if stages[0].takes_many else [dx]
            for index, gradient in zip(sources, dx, strict=True) if needed else ():
                collect(index, gradient)
        inputs = [gradients.get(index) for index in range(count)]
        return inputs if self.takes_many else inputs[0]


def _nodes(name: str, value: Node | Sequence[Node]) -> list[Node]:
    nodes = list(value) if isinstance(value, (list, tuple)) else [value]
    if not nodes or not all(isinstance(node, Node) for node in nodes):
        raise TypeError(
            f"Graph: {name} must be a gpucnn.Input, the output of a layer called on one, or a"
            f" list of them. Received: {name}={value!r}"
        )
    return nodes


def _reached(outputs: Iterable[Node]) -> list[Node]:
    """Return the nodes that the outputs depend on, each after its inputs."""
    found: dict[int, Node] = {}
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node.serial not in found:
            found[node.serial] = node
            waiting += node.inputs
    return [found[serial] for serial in sorted(found)]
