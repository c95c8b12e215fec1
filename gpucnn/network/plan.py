"""Which layers of a chain run as one operation: one decision, which every backend carries out.

A plan is a list of stages (see ``stages``). Most are layers as they stand; the others are layers
that a backend computes in one pass over memory, or in an order that touches less of it:

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

The numbers are those of the layers one after the other, but that 16-bit ones may be rounded less
often between them; ``Network.fuses`` switches plans off. Where several layers read a value, the one
that comes last on the way back adds the others' gradients if it can: ``sums_gradients``. Where a
stage keeps y for the sake of an activation alone, a mask can take its place: see ``masks``. And a
convolution of one tap may apply the batch norm before it to what it loads: see ``on_load``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ..backends.base import FUSED
from ..layers.activation import Activation, Pointwise, ReLU
from ..layers.base import Layer
from ..layers.conv import Conv
from ..layers.conv_transpose import ConvTranspose
from ..layers.dense import Dense
from ..layers.norm import BatchNorm
from ..layers.pool import Pool
from .stages import (
    ConvNorm,
    ConvNormSum,
    ConvPool,
    NormPool,
    Stage,
    SumReLU,
    WithActivation,
    WithSum,
)


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
    return count, [ConvNorm(layers[:count], plan(layers[1:count]))]


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
