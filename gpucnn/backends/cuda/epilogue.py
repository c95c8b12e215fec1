"""What a convolution does to its sums on their way to memory (kernels/epilogue.cuh)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..base import FUSED, Array, accumulator, bend

# enum ActivationNumber: "softplus" and "softsign" are kernels of their own behind a convolution
ACTIVATIONS = (
    *FUSED, "relu6", "clipped_relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "gelu",
    "gelu_tanh", "silu", "mish", "hard_sigmoid", "hard_silu",
)  # fmt: skip
DERIVATIVES = ("relu_backward", "leaky_relu_backward")
NUMBERS = {kind: number for number, kind in enumerate((*ACTIVATIONS, *DERIVATIVES))}
MOMENTS = 4  # numbers of a struct Moments


@dataclass(frozen=True)
class Quads:
    """The maxima of 2x2 outputs y (N, P/2, Q/2, K), and their places, uint8 as y, or None."""

    y: Array
    index: Array | None


@dataclass(frozen=True)
class Epilogue:
    """y = f(sums + b + residual), its moments or mask; or the maxima of y's windows in its place.

    Attributes:
        b: (K,), or None.
        activation, alpha: f, of ``ACTIVATIONS``; or of ``DERIVATIVES``: see ``Epilogue.through``.
        residual: as y, or None.
        moments: (parts, K, MOMENTS) in Accum, which get those of each part of y's pixels, or None;
            then f is "linear", and there is no residual.
        pooled: what gets y's maxima (kernels/quads.cuh), or None; there is no residual then.
        mask: what gets y's mask (kernels/mask.cuh), or None; f is then of ``MASKABLE``.
    """

    b: Array | None = None
    activation: str = "linear"
    alpha: float = 0.0
    residual: Array | None = None
    moments: Array | None = None
    pooled: Quads | None = None
    mask: Array | None = None

    @classmethod
    def through(cls, y: Array, kind: str, alpha: float) -> Epilogue:
        """Return sums * f'(y), for gradients of the y that a ``kind`` of ``MASKABLE`` gave."""
        slope, ceiling = bend(kind, alpha)
        if slope:
            return cls(activation="leaky_relu_backward", alpha=slope, residual=y)
        ceiling = math.nan if ceiling is None else ceiling
        return cls(activation="relu_backward", alpha=ceiling, residual=y)

    @property
    def is_plain(self) -> bool:
        """Whether it leaves the sums as they are."""
        return self.b is None and self.activation == "linear" and self.residual is None

    @property
    def kept(self) -> Array | None:
        """What gets what the way back needs: the places of the maxima, or the mask."""
        return self.mask if self.pooled is None else self.pooled.index

    def function(self, dtype: Any) -> tuple[int, Any]:
        """Return f as kernels for this dtype take it: its number, and alpha."""
        return NUMBERS[self.activation], accumulator(dtype).type(self.alpha)
