"""Muon: steps that are nearly orthogonal matrices."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from math import sqrt
from typing import ClassVar

from ..arguments import as_int
from ..backends.base import Array, Backend
from ..configured import check_range
from ..schedules import Schedule
from ..shapes import ConvShape
from .base import Optimizer

# Of the polynomial that brings singular values from (0, 1] to between 0.7 and 1.2: Jordan's, so
# steep at 0 that five times are enough.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@dataclass
class Muon(Optimizer):
    """Momentum orthogonalised by Newton-Schulz, for kernels; SGD for biases, scales and shifts.

    v = momentum * v + g; u = v, or with Nesterov g + momentum * v; p -= learning_rate *
    (sqrt(max(1, rows / columns)) * orthogonal(u) + weight_decay * p). A kernel (K, ..., C) is the
    matrix (K, ... * C), and orthogonal(u) about U V^T of its singular value decomposition U S V^T
    (K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024). It makes
    the length of a step one of the learning rate and the shape alone, however large the gradients
    are. Parameters of one axis take the steps of ``SGD`` with the same momentum. The other
    arguments are those of every ``Optimizer``.

    Args:
        iterations: of Newton-Schulz; each is three products of matrices.

    Example:
        >>> Muon(0.02, rate_factors={"*/bias": 5.0}).rate
        0.02
    """

    alias: ClassVar[str] = "muon"
    slot_names: ClassVar[tuple[str, ...]] = ("velocity",)

    learning_rate: float | Schedule = 0.02
    _: KW_ONLY
    momentum: float = 0.95
    nesterov: bool = True
    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "momentum", least=0, below=1)
        as_int("Muon", "iterations", self.iterations)

    def _update(
        self, backend, tensors, rate, corrections, grad_scale, masters, rate_factors
    ) -> None:
        rows = list(zip(*tensors, masters, rate_factors, strict=True))
        matrices = [row for row in rows if row[0].ndim > 1 and row[0].size]
        vectors = [row for row in rows if row[0].ndim <= 1]
        if matrices:
            values, gradients, velocities, decays, kept, factors = zip(*matrices, strict=True)
            directions = backend.muon_direction(
                gradients, velocities, momentum=self.momentum, nesterov=self.nesterov,
                grad_scale=grad_scale,
            )  # fmt: skip
            steps = [orthogonal(backend, u, self.iterations) for u in directions]
            backend.muon_update(
                values, steps, decays, learning_rate=rate, grad_scale=grad_scale, masters=kept,
                rate_factors=factors,
            )  # fmt: skip
        if vectors:
            *tensors, kept, factors = zip(*vectors, strict=True)
            backend.sgd_update(
                *tensors, learning_rate=rate, momentum=self.momentum, nesterov=self.nesterov,
                grad_scale=grad_scale, masters=kept, rate_factors=factors,
            )  # fmt: skip


def orthogonal(backend: Backend, u: Array, iterations: int) -> Array:
    """Return U V^T of u, of norm 1, times sqrt(max(1, rows / columns)); u is (rows, ...).

    X <- X (a I + b A + c A^2), A = X^T X, or the same from the left where X has fewer rows. The
    products are those of a dense layer, forward and backward.
    """
    x = u.reshape(len(u), 1, -1)  # (rows, ...) -> (rows, 1, columns), pixels of a dense layer
    rows, _, columns = x.shape
    wide = rows <= columns
    n = min(rows, columns)
    square = ConvShape.of((n, 1, n), (n, 1, n))
    # X X^T of (rows, columns), or X^T X, the gradient of filters
    inner = ConvShape.of((rows, 1, columns), ((rows if wide else columns), 1, columns))
    for i in range(iterations):
        a = backend.conv_fprop(x, x, None, inner) if wide else backend.conv_wgrad(x, x, inner)
        b = backend.conv_fprop(a, a, None, square)  # A A^T
        last = sqrt(max(1, rows / columns)) if i == iterations - 1 else 1.0
        coefficients = [last * c for c in COEFFICIENTS]
        s = backend.newton_schulz(a.reshape(n, n), b.reshape(n, n), coefficients)
        s = s.reshape(n, 1, n)
        # S X, the gradient of an input through the filters X; or X S^T
        x = backend.conv_dgrad(s, x, None, inner) if wide else backend.conv_fprop(x, s, None, inner)
    return x.reshape(u.shape)
