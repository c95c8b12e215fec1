"""What a convolution does to its sums on their way to memory (kernels/epilogue.cuh)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..base import FUSED, Array, accumulator

# enum ActivationNumber: "softplus" and "softsign" are kernels of their own behind a convolution
ACTIVATIONS = (
    *FUSED, "relu6", "clipped_relu", "leaky_relu", "elu", "selu", "sigmoid", "tanh", "gelu",
    "gelu_tanh", "silu", "mish", "hard_sigmoid", "hard_silu",
)  # fmt: skip
NUMBERS = {kind: number for number, kind in enumerate(ACTIVATIONS)}
MOMENTS = 4  # numbers of a struct Moments


@dataclass(frozen=True)
class Quads:
    """The maxima of 2x2 outputs y (N, P/2, Q/2, K), and their places, uint8 as y, or None."""

    y: Array
    index: Array | None


@dataclass(frozen=True)
class Epilogue:
    """y = f(sums + b + residual), and the moments of y; or the maxima of y's windows in its place.

    Attributes:
        b: (K,), or None.
        activation, alpha: f, of ``ACTIVATIONS``.
        residual: as y, or None.
        moments: (parts, K, MOMENTS) in Accum, which get those of each part of y's pixels, or None;
            then f is "linear", and there is no residual.
        pooled: what gets y's maxima (kernels/quads.cuh), or None; there is no residual then.
    """

    b: Array | None = None
    activation: str = "linear"
    alpha: float = 0.0
    residual: Array | None = None
    moments: Array | None = None
    pooled: Quads | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it leaves the sums as they are."""
        return self.b is None and self.activation == "linear" and self.residual is None

    def function(self, dtype: Any) -> tuple[int, Any]:
        """Return f as kernels for this dtype take it: its number, and alpha."""
        return NUMBERS[self.activation], accumulator(dtype).type(self.alpha)
