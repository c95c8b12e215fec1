"""Layers one after another, and the residual block of two ways that meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .. import functional as F
from ..backends.base import Array
from ..layers import Add, from_config, to_config
from ..layers.activation import as_activation
from ..layers.base import Layer, Shape
from .base import Network, Step
from .masks import is_input_kept, with_masks
from .naming import listed
from .node import Node
from .on_load import with_norms_on_load
from .plan import sum_of, sum_relu
from .stages import ConvNormSum, Stage, SumReLU, WithSum, backward_through, run_forward


class Sequential(Network):
    """A chain: the output of each layer is the input of the next.

    Args:
        layers: layers or networks that take one input; an ``Input`` may stand first.
        input_shape: shape of one input without the batch axis; by default the first layer's. Where
            it is known the parameters are built at once, otherwise by the first forward.
        dtype: of the parameters, and inputs are converted to it; by default that of layers that
            are built already, else of the first floating input, or float32 where the network is
            built before it.

    Raises:
        ValueError: a layer's input does not fit, or two layers have one name.

    Example:
        >>> model = Sequential([
        ...     Conv2D(32, (3, 3), activation="relu", input_shape=(28, 28, 1)),
        ...     MaxPool2D((2, 2)),
        ...     Flatten(),
        ...     Dense(10),
        ... ])
        >>> model.output_shape((28, 28, 1))
        (10,)
    """

    def __init__(
        self, layers: Iterable[Layer | Node], *, name: str | None = None,
        input_shape: Shape | None = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        layers = listed(type(self).__name__, "layers", layers)
        if layers and isinstance(layers[0], Node) and layers[0].layer is None:
            shape = layers.pop(0).shape
            input_shape = shape if input_shape is None else input_shape
        if input_shape is None and layers:
            input_shape = getattr(layers[0], "input_shape", None)
        super().__init__(layers, name=name, input_shape=input_shape, dtype=dtype)
        check_single(self.label, self.layers)
        if self.input_shape is not None:
            self.build(self.input_shape)

    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layers": [to_config(layer) for layer in self.layers],
            "input_shape": self.input_shape and list(self.input_shape),
            "dtype": self.dtype and self.dtype.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Sequential:
        return cls(**{**config, "layers": [from_config(item) for item in config["layers"]]})

    def _flow(self, input_shape: Shape) -> tuple[list[Step], Shape]:
        return chain(self.label, self.layers, input_shape)

    def _forward(self, x: Array, training: bool) -> Array:
        for stage in self._plan():
            x = run_forward(stage, x, training)
        self._save()
        return x

    def _backward(self, dy: Array) -> Array:
        others = self._take_others_gradient()
        return backward_through(self._plan(), dy, self.needs_input_gradient, others)

    @property
    def sums_gradients(self) -> bool:
        return self.built and self._sums_gradients(self._plan())

    def _make_plan(self) -> list[Layer | Stage]:
        stages = self._stages(self.layers)
        if not self._refines:
            return stages
        return with_norms_on_load(with_masks(stages, self.output_is_kept))

    @property
    def keeps_input(self) -> bool:
        return not self.built or is_input_kept(self._plan(), self.output_is_kept)


class Residual(Network):
    """y = activation(f(x) + shortcut(x)): He et al. 2016, "Deep Residual Learning", figure 2.

    Args:
        layers: f, a chain of layers.
        shortcut: a layer or a chain of layers; by default x itself, whose shape f must keep.
        activation: a name or an activation layer, after the sum; by default none.
        input_shape, dtype: as for ``Sequential``.

    Raises:
        ValueError: f(x) and shortcut(x) are of different shapes.

    Example:
        >>> block = Residual(
        ...     [Conv2D(64, 3, strides=2, padding="same", activation="relu"),
        ...      Conv2D(64, 3, padding="same")],
        ...     shortcut=Conv2D(64, 1, strides=2),
        ...     activation="relu",
        ... )
        >>> block.output_shape((28, 28, 32))
        (14, 14, 64)
    """

    def __init__(
        self, layers: Sequence[Layer], shortcut: Layer | Sequence[Layer] | None = None,
        activation: str | Layer | None = None, *, name: str | None = None,
        input_shape: Shape | None = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        self.body = listed("Residual", "layers", layers)
        self.shortcut = (
            [shortcut]
            if isinstance(shortcut, Layer)
            else listed("Residual", "shortcut", shortcut or ())
        )
        self.activation = as_activation(activation)
        self._sum = Add()
        last = [] if self.activation is None else [self.activation]
        super().__init__(
            [*self.body, *self.shortcut, *last], name=name, input_shape=input_shape, dtype=dtype
        )
        check_single(self.label, self.layers)
        if self.input_shape is not None:
            self.build(self.input_shape)

    @property
    def keepers(self) -> list[Layer]:
        return [*self.layers, self._sum]

    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layers": [to_config(layer) for layer in self.body],
            "shortcut": [to_config(layer) for layer in self.shortcut],
            "activation": self.activation and to_config(self.activation),
            "input_shape": self.input_shape and list(self.input_shape),
            "dtype": self.dtype and self.dtype.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Residual:
        made = {key: [from_config(item) for item in config[key]] for key in ("layers", "shortcut")}
        activation = config["activation"] and from_config(config["activation"])
        return cls(**{**config, **made, "activation": activation})

    def _flow(self, input_shape: Shape) -> tuple[list[Step], Shape]:
        steps, shape = chain(self.label, self.body, input_shape)
        side_steps, side_shape = chain(self.label, self.shortcut, input_shape)
        if side_shape != shape:
            repair = (
                "give the shortcut strides and filters that fit"
                if self.shortcut
                else "give a 1x1 convolution: shortcut=Conv2D(filters, 1, strides=...)"
            )
            raise ValueError(
                f"{self.label}: f(x) and shortcut(x) must be of one shape to be added; {repair}."
                f" Received: f(x) of shape {shape}, shortcut(x) of shape {side_shape}"
            )
        last = [] if self.activation is None else [Step(self.activation, shape, shape)]
        return [*steps, *side_steps, *last], shape

    def _forward(self, x: Array, training: bool) -> Array:
        body, shortcut, last = self._plan()
        y = side = x
        for stage in body:
            y = run_forward(stage, y, training)
        for stage in shortcut:
            side = run_forward(stage, side, training)
        if last is not None:
            y = run_forward(last, [y, side], training)
        else:
            y = F.add(y, side, owner=self.label)
            if self.activation is not None:
                y = self.activation.forward(y, training)
        self._save()
        return y

    def _backward(self, dy: Array) -> Array:
        body, shortcut, last = self._plan()
        if last is not None:
            dy, dside = last.backward(dy)
        else:
            if self.activation is not None:
                dy = self.activation.backward(dy)
            dside = dy
        ways = [(body, dy), (shortcut, dside)]
        if self._sums_gradients(body) and not self._sums_gradients(shortcut):
            ways.reverse()
        (first, dfirst), (then, dthen) = ways
        others = backward_through(first, dfirst)
        if self._sums_gradients(then):
            return backward_through(then, dthen, others=others)
        return F.add(backward_through(then, dthen), others, owner=self.label)

    def _make_plan(
        self,
    ) -> tuple[list[Layer | Stage], list[Layer | Stage], WithSum | ConvNormSum | SumReLU | None]:
        """Return the stages of f, those of the shortcut, and the one that adds, if there is."""
        body, last, complex_numbers = self.body, None, self.dtype.kind == "c"
        if self.fuses and body:
            last = sum_of(body, self.activation, complex_numbers)
            body = body[: len(body) - last.before] if last else body
        if self.fuses and last is None:
            self._sum.name = self.name
            last = sum_relu(self._sum, self.activation, complex_numbers)
        ways = [self._stages(body), self._stages(self.shortcut)]
        if self._refines:
            with_masks(_end(last), self.output_is_kept)
            body, shortcut = (
                with_masks(way, is_input_kept(_end(last), False, place), reader)
                for place, (way, reader) in enumerate(zip(ways, (last, None), strict=True))
            )
            ways = [with_norms_on_load(body, last), with_norms_on_load(shortcut)]
        return *ways, last

    @property
    def keeps_input(self) -> bool:
        if not self.built:
            return True
        *ways, last = self._plan()
        return any(
            is_input_kept(way, is_input_kept(_end(last), False, place))
            for place, way in enumerate(ways)
        )


def _end(last: Stage | None) -> list[Stage]:
    """Return the end of a residual block as a chain: where it is no stage, a sum keeps nothing."""
    return [] if last is None else [last]


def chain(owner: str, layers: Sequence[Layer], input_shape: Shape) -> tuple[list[Step], Shape]:
    """Follow a shape through layers: return each one's step and the last output's shape.

    Raises:
        ValueError: a layer's input does not fit; the text shows the last steps on the way to it.
    """
    steps: list[Step] = []
    shape = tuple(input_shape)
    for layer in layers:
        try:
            output = layer.output_shape(shape)
        except ValueError as error:
            way = [str(tuple(input_shape)), *(f"{s.layer.name} {s.output_shape}" for s in steps)]
            way = way if len(way) <= 4 else [way[0], "...", *way[-2:]]
            raise ValueError(
                f"{owner}: {' -> '.join(way)} -> {layer.name} fails. {error}"
            ) from error
        steps.append(Step(layer, shape, output))
        shape = output
    return steps, shape


def check_single(owner: str, layers: Iterable[Layer]) -> None:
    """Raise unless each layer takes one input and gives one output."""
    for layer in layers:
        if layer.takes_many or layer.gives_many:
            raise ValueError(
                f"{owner}: each layer must take one input and give one output; use Graph for"
                f" others. Received: {layer.label}"
            )
