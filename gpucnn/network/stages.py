"""Layers that run as one operation, each kind of them a class; ``plan`` says which layers do.

A stage is to a chain what a layer is: it runs forward and backward, keeps what the way back needs,
and profilers see it under a name. What it keeps lies with its first layer, the ``lead``, which also
has the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import functional as F
from ..backends.base import Array
from ..layers.base import Layer
from ..layers.norm import BatchNorm
from ..layers.pool import Pool
from ..shapes import ConvShape, PoolShape

if TYPE_CHECKING:
    from .masks import Ending


class Stage:
    """Layers that run as one operation, in a chain as a layer is; the first has the parameters.

    Attributes:
        layers: in the order in which they were listed.
        name: theirs, for profilers: "conv2d+re_lu+max_pool2d".
        before: of a stage that ends in a sum, how many of its layers come before that.
        ending: of a stage whose output gives way to a mask, or is dropped, too: see ``masks``.
        source: of a convolution or dense layer, kind and alpha of the activation that gave its
            input, if its gradient is to be that of the activation's own; see ``masks``.
    """

    takes_many = False
    before = 1
    ending: Ending | None = None
    source: tuple[str, float | None] | None = None

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers
        self.lead = layers[0]
        self.name = "+".join(layer.name for layer in layers)

    @property
    def needs_input_gradient(self) -> bool:
        return self.lead.needs_input_gradient

    @needs_input_gradient.setter
    def needs_input_gradient(self, needed: bool) -> None:
        self.lead.needs_input_gradient = needed

    def end_in(self, ending: Ending) -> None:
        self.ending = ending
        if ending.dropout is not None:
            self.layers = (*self.layers, ending.dropout)
            self.name += f"+{ending.dropout.name}"

    def _run_lead(self, x: Array, training: bool, **options: Any) -> Array:
        if self.ending is None:
            return self.lead._forward(x, training, **options)
        return self.ending.forward(self.lead, x, training, **options)

    def _ended(self, y: Array, training: bool) -> Array:
        return y if self.ending is None else self.ending(self.lead, y, training)

    def forward(self, x: Array, training: bool = False) -> Array:
        return self.lead._pass_forward(self._forward, self, x, training)

    def backward(self, dy: Array) -> Any:
        return self.lead._pass_backward(self._backward, self, dy)


class WithActivation(Stage):
    """A layer that applies the activation behind it, a batch norm's ReLU, to its own output.

    Kept for the way back: x, and y, whose sign says what a ReLU let pass, or where y does not tell,
    the activation's input; of a batch norm x alone, of a max-pool the index.
    """

    def _forward(self, x: Array, training: bool) -> Array:
        return self._run_lead(x, training, activation=self.layers[1].kind)

    def _backward(self, dy: Array, *saved: Any) -> Array:
        return self.lead._backward(dy, *saved)


class WithSum(Stage):
    """A batch norm or convolution, a sum, and perhaps a ReLU: y = f(layer(x) + residual).

    Its input is x and the residual; ``backward`` returns the gradients of both. Kept for it: x and
    y.
    """

    takes_many = True

    def forward(self, x: Sequence[Array], training: bool = False) -> Array:
        x, residual = x
        forward = partial(self._forward, residual=residual)
        return self.lead._pass_forward(forward, self, x, training)

    def _forward(self, x: Array, training: bool, residual: Array) -> Array:
        activation = "relu" if len(self.layers) > 1 else None
        return self._run_lead(x, training, activation=activation, residual=residual)

    def _backward(self, dy: Array, *saved: Any) -> tuple[Array, Array]:
        return self.lead._backward(dy, *saved)


class NormedConv(Stage):
    """A convolution or dense layer and a batch norm that takes the batch's statistics.

    Perhaps with a ReLU or ReLU6. Kept for the way back: what both layers keep.
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        self.norm = layers[1]
        self.activation = layers[2].kind if len(layers) > 2 else None

    def _forward(
        self, x: Array, training: bool, residual: Array | None = None, applies: bool = True
    ) -> Array:
        lead, norm = self.lead, self.norm
        y = norm._forward(
            x, training, self.activation, residual, lead._forward_before_norm, applies
        )
        lead._save(lead._saved, [norm._saved])
        norm._saved = None
        return self._ended(y, training)

    def _backward(self, dy: Array, of_conv: tuple, of_norm: list[tuple]) -> Any:
        dx, *dresidual = _listed(self.norm._backward(dy, *of_norm[0]))
        of_norm.clear()  # to be freed: the convolution needs memory of its own
        dx = self.lead._backward(dx, *of_conv)
        return (dx, *dresidual) if dresidual else dx


class ConvNormSum(NormedConv):
    """A convolution or dense layer, a batch norm, a sum, and perhaps a ReLU.

    As ``WithSum``. Where the norm does not take the batch's statistics, the convolution runs by
    itself.
    """

    takes_many = True
    before = 2

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        self.behind, self.as_one = WithSum(*layers[1:]), False

    def end_in(self, ending: Ending) -> None:
        super().end_in(ending)
        self.behind.end_in(ending)

    def forward(self, x: Sequence[Array], training: bool = False) -> Array:
        x, residual = x
        self.as_one = training and self.norm.trainable
        if not self.as_one:
            return self.behind.forward([self.lead.forward(x, training), residual], training)
        forward = partial(self._forward, residual=residual)
        return self.lead._pass_forward(forward, self, x, training)

    def backward(self, dy: Array) -> tuple[Array, Array]:
        if self.as_one:
            return super().backward(dy)
        dx, dresidual = self.behind.backward(dy)
        return self.lead.backward(dx), dresidual


class SumReLU(Stage):
    """An ``Add`` of two of one shape and a ReLU; kept for the way back: y."""

    takes_many = True

    def _forward(self, x: Sequence[Array], training: bool) -> Array:
        if self.ending and self.ending.masks(training) and self.lead._keeps:
            a, b = x
            y, kept = F.activation_forward_masked(a, residual=b, owner=self.lead.label)
        else:
            y = kept = F.add(*x, activation="relu", owner=self.lead.label)
        self.lead._save(kept)
        return y if kept is not y else self._ended(y, training)

    def _backward(self, dy: Array, y: Array | F.Mask | None) -> tuple[Array, Array]:
        dx = dy if y is None else F.activation_backward(dy, y, "relu", owner=self.lead.label)
        return dx, dx


class NormPool(Stage):
    """A batch norm and a max-pool, perhaps with a ReLU before or behind it.

    Where the norm takes the batch's statistics, its output is never written. Kept for the way back:
    what the two would keep. Otherwise the layers run as they do one by one.
    """

    def __init__(self, norm: BatchNorm, *layers: Layer) -> None:
        super().__init__(norm, *layers)
        self.pool = next(layer for layer in layers if isinstance(layer, Pool))
        self.activation = "linear" if len(layers) == 1 else "relu"

    def _forward(self, x: Array, training: bool) -> Array:
        norm, shape = self.lead, self.pool._geometry(x.shape)
        return norm._forward_pooled(x, training, shape, self.activation)

    def _backward(self, dy: Array, index: Array, shape: PoolShape, *saved: Any) -> Array:
        dz = F.pool_backward(dy, index, shape=shape, owner=self.pool.label)
        return self.lead._backward(dz, *saved)


class ConvNorm(Stage):
    """A convolution or dense layer and a batch norm as one operation.

    In inference perhaps with a ReLU or ReLU6 and, behind a convolution, a max-pool, in any order.
    Where the norm takes the batch's statistics, they are a ``NormedConv``, or a ``NormPool`` comes
    behind the convolution.
    Where a backward pass may follow, which needs what the norm reads, the layers run as they do
    without the convolution, and keep what they do then.
    """

    def __init__(self, layers: Sequence[Layer], behind: Sequence[Layer | Stage]) -> None:
        """behind: the stages of the layers but the convolution."""
        super().__init__(*layers)
        self.norm = layers[1]
        self.activation, self.pool = "linear", None
        for layer in layers[2:]:
            if isinstance(layer, Pool):
                self.pool = layer
            else:
                self.activation = layer.kind
        self.one_by_one = [self.lead, *behind]
        first, *rest = self.one_by_one[1:]
        self.in_training = self.one_by_one
        if not isinstance(first, NormPool):
            self.in_training = [NormedConv(self.lead, *layers_of(first)), *rest]
        self.ran = self.one_by_one

    def forward(self, x: Array, training: bool = False) -> Array:
        if not self.lead._keeps and not (training and self.norm.trainable):
            return super().forward(x, training)
        as_one = training and self.norm.trainable
        self.ran = self.in_training if as_one else self.one_by_one
        for stage in self.ran:
            x = stage.forward(x, training)
        return x

    def _forward(self, x: Array, training: bool) -> Array:
        norm, options = self.norm, {}
        if self.pool:
            options["pool"] = self.pool._geometry(self.lead._geometry(x.shape).y_shape)
        return self.lead._forward_normed(
            x,
            *(norm.params[name] for name in ("gamma", "beta")),
            *(norm.state[name] for name in ("moving_mean", "moving_variance")),
            epsilon=norm.epsilon,
            activation=self.activation,
            **options,
        )

    def backward(self, dy: Array) -> Array:
        return backward_through(self.ran, dy, self.needs_input_gradient)


class ConvPool(Stage):
    """A convolution, perhaps a ReLU, and a max-pool.

    Kept for the way back: x, y, and the index, a byte for each window of up to 255 inputs, else
    two.
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        self.activation = self.lead.activation if len(layers) == 2 else "relu"
        self.pool = next(layer for layer in layers if isinstance(layer, Pool))

    def _forward(self, x: Array, training: bool) -> Array:
        lead = self.lead
        conv = lead._geometry(x.shape)
        shapes = conv, self.pool._geometry(conv.y_shape)
        y, index = F.conv_pool_forward(
            x,
            lead.params["kernel"],
            lead.params.get("bias"),
            activation=self.activation,
            with_index=lead._keeps,
            math=lead.math,
            shapes=shapes,
            owner=lead.label,
        )
        lead._save(x, y, index, shapes)
        return y

    def _backward(
        self, dy: Array, x: Array, y: Array, index: Array, shapes: tuple[ConvShape, PoolShape]
    ) -> Array | None:
        arrays = dy, y, index, x, self.lead.params["kernel"]
        options = {"activation": self.activation, "shapes": shapes}
        return self.lead._gradients(F.conv_pool_backward, *arrays, **options)


def layers_of(stage: Layer | Stage) -> Sequence[Layer]:
    """Return the layers that a stage consists of."""
    return stage.layers if isinstance(stage, Stage) else (stage,)


def lead_of(stage: Layer | Stage | None) -> Layer | None:
    """Return the layer that reads a stage's input; of no stage, None."""
    return stage.lead if isinstance(stage, Stage) else stage


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple) else (value,)


def run_forward(stage: Layer | Stage, x: Any, training: bool) -> Array:
    """Run a stage of a chain forward, and have it remember what gave its input."""
    y = stage.forward(x, training)
    if isinstance(stage, Stage) and stage.source is not None:
        stage.lead._saved = _read_from(stage.lead._saved, stage.source)
    return y


def _read_from(saved: Any, source: tuple[str, float | None]) -> Any:
    """Return what a convolution or dense layer saved, its input first, with what gave that one."""
    if saved is None:
        return None
    x, *rest = saved
    x = _read_from(x, source) if type(x) is tuple else F.FromActivation(x, *source)
    return (x, *rest)


def backward_through(
    stages: Sequence[Layer | Stage], dy: Array, needs_dx: bool = True, others: Array | None = None
) -> Any:
    """Run a chain's stages backward; without ``needs_dx`` the first may return None.

    Args:
        others: what other readers of the chain's input have given for its gradient, for the first
            to add to its own; or None.
    """
    for index, stage in reversed(list(enumerate(stages))):
        stage.needs_input_gradient = needs_dx or index > 0
        is_first = index == 0 and others is not None
        dy = _backward_onto(others, stage, dy) if is_first else stage.backward(dy)
    return dy


def sums_gradients(stages: Sequence[Layer | Stage]) -> bool:
    """Return whether a chain's first stage adds what others give for its input's gradient."""
    return bool(stages) and lead_of(stages[0]).sums_gradients


def _backward_onto(others: Array, stage: Layer | Stage, dy: Array) -> Any:
    lead = lead_of(stage)
    lead.others_gradient = others
    try:
        dx = stage.backward(dy)
    finally:
        left = lead._take_others_gradient()  # by a layer with a way back of its own
    return dx if left is None else F.add(dx, left, owner=lead.label)
