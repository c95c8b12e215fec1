"""Which activations keep one bit a number for the way back, in place of their output.

The derivative of a ReLU, and of its kin of two slopes, follows from the output, which costs nothing
to keep where the next layer keeps it as its input: a convolution, a dense layer, a batch norm. In
front of others, a dropout, a mean, a sum, nobody else would keep it, and a bit a number does:

    ReLU, dropout     the dropout writes one mask for both, and the way back is one pass for both
    ReLU              it is written along with the output
    sum, ReLU
    convolution or dense layer, perhaps a sum, ReLU     a pass over the output writes it, where
    batch norm, sum, ReLU                               the backend finds that it pays

What a layer does with its input it says itself: ``Layer.keeps_input`` and ``passes_input``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..backends.base import Array, Backend
from ..layers.activation import Pointwise
from ..layers.base import Layer
from ..layers.conv import Conv
from ..layers.dense import Dense
from ..layers.dropout import Dropout
from ..layers.norm import BatchNorm
from ..layers.separable import SeparableConv
from .base import Network
from .plan import ConvNormSum, Stage, SumReLU, WithActivation, WithSum, is_as_written


class Masked(Stage):
    """A layer with an activation of its own, or that is one. Kept: a mask in place of y."""

    def _forward(self, x: Array, training: bool) -> Array:
        lead, ending = self.lead, self.ending
        if isinstance(lead, Pointwise) and lead._keeps and not ending.drops(training):
            options = {"alpha": lead.alpha, "owner": lead.label}
            y, mask = F.activation_forward_masked(x, lead.kind, **options)
            lead._save(mask)
            return y
        return ending(lead, lead._forward(x, training), training)

    def _backward(self, dy: Array, *saved: Any) -> Array:
        return self.lead._backward(dy, *saved)


class Ending:
    """What follows an activation: its output gives way to a mask, and perhaps a dropout takes it.

    Attributes:
        kind, alpha: the activation's.
        dropout: the layer behind it, which then drops what it lets through; or None.
        kept: whether somebody else keeps the output, so that it may as well stay.
        of_norm: whether the output is the sum of a batch norm and a residual.
    """

    def __init__(
        self, kind: str, alpha: float | None, dropout: Dropout | None, kept: bool, of_norm: bool
    ) -> None:
        self.kind, self.alpha, self.dropout = kind, alpha, dropout
        self.kept, self.of_norm = kept, of_norm

    def drops(self, training: bool) -> bool:
        return self.dropout is not None and training and self.dropout.rate > 0

    def __call__(self, lead: Layer, y: Array, training: bool) -> Array:
        """Return what the next layer reads of the output of ``lead``, which has saved it."""
        end = y
        if self.drops(training):
            if not lead._keeps:
                return self.dropout._forward(y, training)
            end, mask = self.dropout._forward_masked(y, self.kind, self.alpha)
        elif lead._keeps and not self.kept and self._pays(y, lead.backend):
            mask = F.activation_mask(y, self.kind, alpha=self.alpha, owner=lead.label)
        else:
            return y
        lead._saved = _replaced(lead._saved, y, mask)
        return end

    def _pays(self, y: Array, backend: Backend) -> bool:
        return y.nbytes >= backend.least_masked and (backend.masks_norms or not self.of_norm)


def _replaced(saved: Any, y: Array, mask: F.Mask) -> Any:
    if saved is y:
        return mask
    if type(saved) in (tuple, list):
        return type(saved)(_replaced(item, y, mask) for item in saved)
    return saved


def with_masks(stages: Sequence[Layer | Stage], kept: bool) -> list[Layer | Stage]:
    """Return a chain's stages, with masks where they save something; ``kept``: somebody keeps y.

    Networks among them are told whether somebody keeps theirs.

    >>> from gpucnn.layers import Flatten, ReLU
    >>> [stage.name for stage in with_masks([Dense(8, "relu"), Dropout(0.5), Dense(2)], True)]
    ['dense+dropout', 'dense']
    >>> [type(stage).__name__ for stage in with_masks([ReLU(), Flatten(), Dense(2)], True)]
    ['ReLU', 'Flatten', 'Dense']
    """
    made: list[Layer | Stage] = []
    for stage in reversed(stages):
        kind, alpha = _activation_of(stage)
        dropout = None
        if made and is_as_written(made[-1], Dropout) and F.drops_with_mask(kind):
            dropout = made.pop()
        if isinstance(stage, Network):
            stage.output_is_kept = kept
        elif dropout or (not kept and F.has_mask(kind, alpha)):
            stage = stage if isinstance(stage, Stage) else Masked(stage)
            of_norm = isinstance(stage, ConvNormSum) or isinstance(stage.lead, BatchNorm)
            stage.end_in(Ending(kind, alpha, dropout, kept, of_norm))
        made.append(stage)
        kept = _keeps(stage, kept)
    return made[::-1]


def is_input_kept(stages: Sequence[Layer | Stage], kept: bool, place: int = 0) -> bool:
    """Return whether a chain, whose output is ``kept`` or not, keeps its input at a place."""
    for index, stage in reversed(list(enumerate(stages))):
        kept = _keeps(stage, kept, 0 if index else place)
    return kept


def _keeps(stage: Layer | Stage, kept: bool, place: int = 0) -> bool:
    if isinstance(stage, (WithSum, ConvNormSum)):
        return place == 0  # not the residual
    layer = stage.lead if isinstance(stage, Stage) else stage
    return layer.keeps_input or (layer.passes_input and kept)


def _activation_of(stage: Layer | Stage) -> tuple[str, float | None]:
    """Return kind and alpha of what ends a stage that keeps its output for it, else "linear"."""
    if isinstance(stage, (WithSum, ConvNormSum)):
        return ("relu" if len(stage.layers) > stage.before else "linear"), None
    if isinstance(stage, SumReLU):
        return "relu", None
    if isinstance(stage, WithActivation):
        bare = is_as_written(stage.lead, Conv, Dense)
        return (stage.layers[1].kind if bare else "linear"), None
    if is_as_written(stage, Pointwise):
        return stage.kind, stage.alpha
    if is_as_written(stage, Conv, Dense, SeparableConv):
        return stage.activation, None
    return "linear", None
