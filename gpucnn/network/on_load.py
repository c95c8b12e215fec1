"""Which batch norms leave their output to the layer behind them, which makes it as it loads.

In training a batch norm's output is a pass over memory, and the convolution behind it keeps it for
its filters' gradient. A convolution of one tap, or a dense layer, may as well read the norm's input
and normalise what it loads, forward and for that gradient. Then the output is never written, and
what the convolution keeps is what the norm keeps for its own way back:

    convolution, batch norm, ReLU6 -> 1x1 convolution     in a MobileNet
    convolution, batch norm, ReLU -> 1x1 convolution, batch norm, sum, ReLU     in a bottleneck
    batch norm, ReLU -> 1x1 convolution     where norms come first, as in a DenseNet

Nobody else reads such an output: the two follow each other in a chain, or a sum's convolution alone
reads the chain's end. Whether it takes less time is the backend's to say, for each shape of input:
``Backend.norms_on_load``. The way back goes as forward went, for the convolution has kept either.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import functional as F
from ..backends.base import NORM_FUSED, Array
from ..layers.base import Layer, Shape
from ..layers.conv import Conv
from ..layers.dense import Dense
from ..layers.norm import BatchNorm
from .plan import channel_axis, is_as_written, is_conv
from .stages import ConvNorm, ConvPool, NormedConv, Stage, WithActivation, layers_of, lead_of


class NormBefore(Stage):
    """A batch norm, perhaps with a ReLU or ReLU6, whose output ``reader`` alone reads."""

    def __init__(self, reader: Conv | Dense, *layers: Layer) -> None:
        super().__init__(*layers)
        self.reader = reader
        self.activation = layers[1].kind if len(layers) > 1 else None

    def _forward(self, x: Array, training: bool) -> Array | F.Unapplied:
        applies = not (training and is_left_to(self.reader, x.shape))
        return self.lead._forward(x, training, self.activation, applies=applies)

    def _backward(self, dy: Array, *saved: object) -> Array:
        return self.lead._backward(dy, *saved)


class NormedConvBefore(NormedConv):
    """A ``NormedConv`` whose output ``reader`` alone reads."""

    def __init__(self, reader: Conv | Dense, *layers: Layer) -> None:
        super().__init__(*layers)
        self.reader = reader

    def _forward(self, x: Array | F.Unapplied, training: bool) -> Array | F.Unapplied:
        shape = (x.shape[0], *self.lead.output_shape(x.shape[1:]))
        return super()._forward(x, training, applies=not is_left_to(self.reader, shape))


def is_left_to(reader: Conv | Dense, shape: Shape) -> bool:
    """Return whether a batch norm before this layer leaves its output, of this shape, to it."""
    geometry = reader._geometry(shape)
    return (
        reader._keeps
        and geometry.is_pointwise
        and reader.backend.norms_on_load(geometry, reader.dtype, reader.math)
    )


def with_norms_on_load(
    stages: Sequence[Layer | Stage], behind: Stage | None = None
) -> list[Layer | Stage]:
    """Return a chain's stages, whose batch norms leave their output to the next where it pays.

    ``behind`` is what alone reads the chain's output, a sum say.

    >>> from gpucnn.layers import Conv2D, ReLU
    >>> [type(stage).__name__ for stage in with_norms_on_load([BatchNorm(), Conv2D(8, 1), ReLU()])]
    ['NormBefore', 'Conv2D', 'ReLU']
    """
    readers = [_reader(stage) for stage in [*stages, behind][1:]]
    return [
        stage if reader is None else _left_to(reader, stage)
        for stage, reader in zip(stages, readers, strict=True)
    ]


def _reader(stage: Layer | Stage | None) -> Conv | Dense | None:
    """Return the layer that reads a stage's input, if it can apply a batch norm to it."""
    layer = lead_of(stage)
    if isinstance(stage, ConvPool) or not (is_as_written(layer, Dense) or is_conv(layer)):
        return None
    return layer if channel_axis(layer) == -1 else None


def _left_to(reader: Conv | Dense, stage: Layer | Stage) -> Layer | Stage:
    """Return a stage that ends in a batch norm as one that leaves it to a reader, others as is."""
    if isinstance(stage, ConvNorm):
        if stage.pool is None and stage.norm.axis == -1:
            stage.in_training = [NormedConvBefore(reader, *stage.layers)]
        return stage
    norm, *_ = layers = layers_of(stage)
    ends = isinstance(stage, WithActivation) or stage is norm
    if not ends or not is_as_written(norm, BatchNorm) or norm.axis != -1:
        return stage
    return NormBefore(reader, *layers) if norm.activation in NORM_FUSED else stage
