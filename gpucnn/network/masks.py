"""What an activation keeps for the way back: nothing, one bit a number, or its output.

The derivative of a ReLU, and of its kin of two slopes, follows from the output. Where a convolution
or dense layer alone reads that, it keeps it as its input, and multiplies the gradient by the
derivative before it writes it: the activation has no way back of its own. In front of others, a
dropout, a mean, a sum, nobody else would keep the output, and a bit a number does:

    ReLU, dropout     the dropout writes one mask for both, and the way back is one pass for both
    ReLU              it is written along with the output
    sum, ReLU
    convolution or dense layer, perhaps a sum, ReLU     the same, where its kernel can, else a pass
    batch norm, sum, ReLU                               over the output, where the backend finds
                                                        that it pays

What a layer does with its input it says itself: ``Layer.keeps_input`` and ``passes_input``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from ..backends.base import Array, Backend
from ..layers.activation import Activated, Pointwise
from ..layers.base import Layer
from ..layers.conv import Conv
from ..layers.dense import Dense
from ..layers.dropout import Dropout
from ..layers.norm import BatchNorm
from ..layers.separable import SeparableConv
from .base import Network
from .plan import is_as_written, is_conv
from .stages import ConvNormSum, Stage, SumReLU, WithActivation, WithSum, lead_of


class Alone(Stage):
    """A layer with an activation of its own, or that is one, or that reads one."""

    def _forward(self, x: Array, training: bool) -> Array:
        lead, ending = self.lead, self.ending
        if ending and ending.masks(training) and isinstance(lead, Pointwise) and lead._keeps:
            options = {"alpha": lead.alpha, "owner": lead.label}
            y, mask = F.activation_forward_masked(x, lead.kind, **options)
            lead._save(mask)
            return y
        return self._run_lead(x, training)

    def _backward(self, dy: Array, *saved: Any) -> Array:
        return self.lead._backward(dy, *saved)


class Ending:
    """What follows an activation: its output gives way to a mask, and perhaps a dropout takes it.

    Attributes:
        kind, alpha: the activation's.
        dropout: the layer behind it, which then drops what it lets through; or None.
        kept: whether somebody else keeps the output, so that it may as well stay.
        of_norm: whether the output is the sum of a batch norm and a residual.
        read: whether the layer that reads the output multiplies by the derivative.
    """

    def __init__(
        self, kind: str, alpha: float | None, dropout: Dropout | None = None, kept: bool = True,
        of_norm: bool = False, read: bool = False,
    ) -> None:  # fmt: skip
        self.kind, self.alpha, self.dropout = kind, alpha, dropout
        self.kept, self.of_norm, self.read = kept, of_norm, read

    def drops(self, training: bool) -> bool:
        return self.dropout is not None and training and self.dropout.rate > 0

    def masks(self, training: bool) -> bool:
        """Return whether the activation may write the mask along with its output."""
        return not self.read and not self.drops(training)

    def forward(self, lead: Layer, x: Array, training: bool, **options: Any) -> Array:
        """Run a layer forward, and return what the next one reads of its output."""
        if self._is_layers_own(lead, training):
            return lead._forward(x, training, masked=True, **options)
        return self(lead, lead._forward(x, training, **options), training)

    def _is_layers_own(self, lead: Layer, training: bool) -> bool:
        """Return whether the layer itself brings the mask, if it pays."""
        return (
            isinstance(lead, Activated)
            and lead._run_masked is not None
            and lead.output_dtype is None
            and lead._keeps
            and not (self.kept or self.drops(training))
        )

    def __call__(self, lead: Layer, y: Array, training: bool) -> Array:
        """Return what the next layer reads of the output of ``lead``, which has saved it."""
        end, mask = y, None
        if self.read:
            pass  # nothing is left to be kept
        elif self.drops(training):
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


def with_masks(
    stages: Sequence[Layer | Stage], kept: bool, reader: Stage | None = None
) -> list[Layer | Stage]:
    """Return a chain's stages, with activations that keep no output where they need not.

    Networks among them are told whether somebody keeps theirs.

    Args:
        kept: whether somebody keeps the chain's output.
        reader: the stage that alone reads it, if there is one.

    >>> [stage.name for stage in with_masks([Dense(8, "relu"), Dropout(0.5), Dense(2)], True)]
    ['dense+dropout', 'dense']
    >>> with_masks([Dense(8, "relu"), Dense(2)], True)[1].source
    ('relu', None)
    """
    made: list[Layer | Stage] = []
    for stage in reversed(stages):
        kind, alpha = _activation_of(stage)
        dropout = None
        if made and is_as_written(made[-1], Dropout) and F.drops_with_mask(kind):
            dropout = made.pop()
        if isinstance(stage, Network):
            stage.output_is_kept = kept
        elif dropout or F.has_mask(kind, alpha):
            of_norm = isinstance(stage, ConvNormSum) or isinstance(lead_of(stage), BatchNorm)
            if dropout or not kept:
                stage = _as_stage(stage)
                stage.end_in(Ending(kind, alpha, dropout, kept, of_norm))
            elif not of_norm and _multiplies(behind := made[-1] if made else reader):
                stage, behind = _as_stage(stage), _as_stage(behind)
                stage.end_in(Ending(kind, alpha, read=True))
                behind.source = kind, alpha
                made[-1:] = [behind] if made else []
        made.append(stage)
        kept = _keeps(stage, kept)
    return made[::-1]


def _multiplies(stage: Layer | Stage | None) -> bool:
    """Return whether a stage can take the derivative of the activation before it upon itself."""
    lead = lead_of(stage)
    return is_conv(lead) or is_as_written(lead, Dense)


def _as_stage(stage: Layer | Stage) -> Stage:
    return stage if isinstance(stage, Stage) else Alone(stage)


def is_input_kept(stages: Sequence[Layer | Stage], kept: bool, place: int = 0) -> bool:
    """Return whether a chain, whose output is ``kept`` or not, keeps its input at a place."""
    for index, stage in reversed(list(enumerate(stages))):
        kept = _keeps(stage, kept, 0 if index else place)
    return kept


def _keeps(stage: Layer | Stage, kept: bool, place: int = 0) -> bool:
    if isinstance(stage, (WithSum, ConvNormSum)):
        return place == 0  # not the residual
    layer = lead_of(stage)
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
