"""Which layers of a chain run as one operation: one decision, which every backend carries out.

A plan is a list of stages. Most are layers as they stand; the others are layers that a backend
computes in one pass over memory, or in an order that touches less of it:

    convolution, ReLU, max-pool    one operation. Neither ReLU's input nor its output is kept: only
                                   the pooled map and a byte a window, the place of its maximum
    convolution, batch norm, ReLU  one operation in inference, perhaps with a max-pool
    ReLU, max-pool                 the pool before ReLU, which is monotonic and so may as well take
    max-pool, ReLU                 the maxima as they are found; a byte a window says where they lay
                                   and what passed, and the gradients are the same
    convolution, batch norm        in training the sums that the norm takes, as the convolution
                                   stores; perhaps with a ReLU or ReLU6
    convolution, activation        the activation where its input is computed, of which nothing is
    dense, activation              kept where the output tells the gradient: ReLU's its sign
    batch norm, ReLU (or ReLU6)
    batch norm, ReLU, max-pool     in training, what is normalised is pooled as it is found
    batch norm, sum, ReLU          the end of a ``Residual``, or an ``Add`` of two in a ``Graph``;
    convolution, sum, ReLU         in training a convolution before the norm comes along
    sum, ReLU                      the same where neither comes before

The numbers are those of the layers one after the other; ``Network.fuses`` switches plans off. Where
a stage keeps y for the sake of an activation alone, a mask can take its place: see ``masks``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import functional as F
from ..backends.base import FUSED, Array
from ..layers.activation import Activation, Pointwise, ReLU
from ..layers.base import Layer
from ..layers.conv import Conv
from ..layers.conv_transpose import ConvTranspose
from ..layers.dense import Dense
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
    """

    takes_many = False
    before = 1
    ending: Ending | None = None

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
        y = self.lead._forward(x, training, activation=self.layers[1].kind)
        return self._ended(y, training)

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
        y = self.lead._forward(x, training, activation=activation, residual=residual)
        return self._ended(y, training)

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

    def _forward(self, x: Array, training: bool, residual: Array | None = None) -> Array:
        lead, norm = self.lead, self.norm
        y = norm._forward(x, training, self.activation, residual, behind=lead._forward_before_norm)
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
        if self.ending and self.lead._keeps and not self.ending.drops(training):
            a, b = x
            y, kept = F.activation_forward_masked(a, residual=b, owner=self.lead.label)
        else:
            y = kept = F.add(*x, activation="relu", owner=self.lead.label)
        self.lead._save(kept)
        return y if kept is not y else self._ended(y, training)

    def _backward(self, dy: Array, y: Array | F.Mask) -> tuple[Array, Array]:
        dx = F.activation_backward(dy, y, "relu", owner=self.lead.label)
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

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        self.norm = layers[1]
        self.activation, self.pool = "linear", None
        for layer in layers[2:]:
            if isinstance(layer, Pool):
                self.pool = layer
            else:
                self.activation = layer.kind
        self.one_by_one = [self.lead, *plan(layers[1:])]
        first, *rest = self.one_by_one[1:]
        self.in_training = self.one_by_one
        if not isinstance(first, NormPool):
            self.in_training = [NormedConv(self.lead, *_layers_of(first)), *rest]
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


def plan(layers: Sequence[Layer], complex_numbers: bool = False) -> list[Layer | Stage]:
    """Return the stages of a chain of layers.

    Complex numbers have no order, so that neither ReLU nor a maximum is theirs to fuse.

    >>> from gpucnn.layers import Conv2D, MaxPool2D
    >>> [stage.name for stage in plan([Conv2D(8, 3), ReLU(), MaxPool2D(2), ReLU()])]
    ['conv2d+re_lu+max_pool2d', 're_lu']
    """
    stages: list[Layer | Stage] = []
    waiting = list(layers)
    while waiting:
        count, made = 1, waiting[:1]
        if not complex_numbers:
            count, made = next(filter(None, (rule(waiting) for rule in _RULES)), (count, made))
        stages += made
        del waiting[:count]
    return stages


def _layers_of(stage: Layer | Stage) -> Sequence[Layer]:
    return stage.layers if isinstance(stage, Stage) else (stage,)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple) else (value,)


def backward_through(stages: Sequence[Layer | Stage], dy: Array, needs_dx: bool = True) -> Any:
    """Run a chain's stages backward; without ``needs_dx`` the first may return None."""
    for index, stage in reversed(list(enumerate(stages))):
        stage.needs_input_gradient = needs_dx or index > 0
        dy = stage.backward(dy)
    return dy


def sum_of(
    layers: Sequence[Layer], activation: Layer | None, complex_numbers: bool = False
) -> WithSum | ConvNormSum | None:
    """Return the stage for f(layers(x) + residual) of the last layers, or None where there is none.

    It takes the last one, or a convolution and the batch norm behind it.
    """
    last = layers[-1] if layers else None
    takes = is_as_written(last, BatchNorm, Dense) or (last is not None and is_conv(last))
    if complex_numbers or not takes or last.activation != "linear" or _widens(last):
        return None
    if activation is not None and not is_relu(activation):
        return None
    ending = () if activation is None else (activation,)
    if _is_normed(layers[-2:]):
        return ConvNormSum(*layers[-2:], *ending)
    return WithSum(last, *ending)


def sum_relu(add: Layer, activation: Layer | None, complex_numbers: bool = False) -> SumReLU | None:
    """Return the stage for max(a + b, 0), or None where the layers do not run as one."""
    if complex_numbers or activation is None or not is_relu(activation):
        return None
    return SumReLU(add, activation)


def _conv_pool(layers: Sequence[Layer]) -> tuple[int, list[Stage]] | None:
    lead = layers[0]
    if not is_conv(lead) or lead.activation not in FUSED:
        return None
    count = 3 if lead.activation == "linear" and any(map(is_relu, layers[1:3])) else 2
    run = layers[:count]
    pools = [layer for layer in run if is_max_pool(layer)]
    if len(pools) != 1 or len(run) < count:
        return None
    return (count, [ConvPool(*run)]) if fits(pools[0], lead) else None


def _conv_norm(layers: Sequence[Layer]) -> tuple[int, list[Stage]] | None:
    if not _is_normed(layers[:2]):
        return None
    lead = layers[0]
    found = []  # one of each kind at most
    for layer in layers[2:4]:
        pools = is_conv(lead) and is_max_pool(layer) and fits(layer, lead)
        if pools in found or not (pools or is_relu(layer, ("relu", "relu6"))):
            break
        found.append(pools)
    count = 2 + len(found)
    return count, [ConvNorm(*layers[:count])]


def _norm_pool(layers: Sequence[Layer]) -> tuple[int, list[Stage]] | None:
    norm = layers[0]
    if not is_as_written(norm, BatchNorm) or norm.activation != "linear":
        return None
    count = 3 if any(map(is_relu, layers[1:3])) else 2
    run = layers[1:count]
    if len(run) < count - 1 or sum(map(is_max_pool, run)) != 1:
        count, run = 2, layers[1:2]
        if not any(map(is_max_pool, run)):
            return None
    return count, [NormPool(norm, *run)]


def _is_normed(pair: Sequence[Layer]) -> bool:
    """Return whether two layers are a convolution or dense layer and a batch norm of its output."""
    if len(pair) < 2 or not is_as_written(pair[1], BatchNorm):
        return False
    lead, norm = pair
    return (
        (is_conv(lead) or is_as_written(lead, Dense))
        and not _widens(lead)
        and (lead.activation, norm.activation) == ("linear",) * 2
        and norm.axis == channel_axis(lead)
    )


def _relu_pool(layers: Sequence[Layer]) -> tuple[int, list[Stage]] | None:
    for pool, relu in (layers[1::-1], layers[:2]) if len(layers) > 1 else ():
        if is_max_pool(pool) and is_relu(relu):
            return 2, [WithActivation(pool, relu)]
    return None


def _with_activation(layers: Sequence[Layer]) -> tuple[int, list[Stage]] | None:
    lead = layers[0]
    can = is_conv(lead) or is_as_written(lead, Dense, BatchNorm)
    if not can or lead.activation != "linear":
        return None
    if not any(is_pointwise(layer, lead.fused) for layer in layers[1:2]):
        return None
    return 2, [WithActivation(*layers[:2])]


_RULES: tuple[Callable[[Sequence[Layer]], tuple[int, list] | None], ...] = (
    _conv_pool, _conv_norm, _norm_pool, _with_activation, _relu_pool,
)  # fmt: skip


def is_as_written(layer: Layer | None, *kinds: type[Layer]) -> bool:
    """Return whether a layer is of one of these kinds and goes their way, not one of its own."""
    return any(
        isinstance(layer, kind)
        and all(getattr(type(layer), name) is getattr(kind, name) for name in _WAYS)
        for kind in kinds
    )


_WAYS = ("forward", "backward", "_forward", "_backward")


def is_conv(layer: Layer) -> bool:
    """Return whether a layer is a convolution, transposed ones apart."""
    return is_as_written(layer, Conv) and not isinstance(layer, ConvTranspose)


def is_relu(layer: Layer, kinds: Sequence[str] = ("relu",)) -> bool:
    """Return whether a layer is a ReLU, or another activation of these kinds."""
    return is_as_written(layer, Activation, ReLU) and layer.kind in kinds


def is_max_pool(layer: Layer) -> bool:
    """Return whether a layer is a pooling of maxima, and can apply a ReLU to them.

    A dilated window may have no input at all: its maximum is not a ReLU's to cut.
    """
    return is_as_written(layer, Pool) and layer.mode == "max" and set(layer.dilation_rate) == {1}


def is_pointwise(layer: Layer, kinds: Collection[str]) -> bool:
    """Return whether a layer is an activation of these kinds, with the usual alpha."""
    return is_as_written(layer, Pointwise) and layer.kind in kinds and layer.alpha is None


def _widens(layer: Layer) -> bool:
    """Return whether the output is of another dtype than what comes beside or behind it."""
    return isinstance(layer, Dense) and layer.out_dtype is not None


def channel_axis(layer: Conv | Dense) -> int:
    """Return where the channels of a convolution's or dense layer's output lie, -1 or 1."""
    return -1 if isinstance(layer, Dense) or layer.data_format == "channels_last" else 1


def fits(pool: Pool, conv: Conv) -> bool:
    """Return whether a pooling is of what a convolution gives."""
    return (pool.rank, pool.data_format) == (conv.rank, conv.data_format)
