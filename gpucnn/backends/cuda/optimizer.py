"""Optimizer steps over all tensors at once (kernels/{optimizer,muon,gradient_scale}.cu)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..base import Array, Factors, Masters, Number, accumulator
from .kernel import DTYPE, KernelFamily
from .launch import BLOCK_THREADS
from .multi_tensor import MultiTensor, chunk_count, groups

SGD = KernelFamily("optimizer.cu", "sgd_update", DTYPE)
ADAM = KernelFamily("optimizer.cu", "adam_update", DTYPE)
LOOKAHEAD = KernelFamily("optimizer.cu", "lookahead_update", DTYPE)
MUON_MOMENTUM = KernelFamily("muon.cu", "muon_momentum", DTYPE)
MUON_DIRECTION = KernelFamily("muon.cu", "muon_direction", DTYPE)
NEWTON_SCHULZ = KernelFamily("muon.cu", "newton_schulz", DTYPE)
MUON = KernelFamily("muon.cu", "muon_update", DTYPE)
SQUARES = KernelFamily("global_norm.cu", "global_norm_squares", DTYPE)
GRADIENT_SCALE = KernelFamily("gradient_scale.cu", "gradient_scale", {"float64": DTYPE["float64"]})


class Optimizers(MultiTensor):
    """``gradient_scale``, and the updates of the optimizers."""

    def gradient_scale(
        self, grads: Sequence[Array], *, clip_norm: float | None = None,
        loss_scale: Array | None = None, growth_interval: int | None = None,
        skipped: Array | None = None, step: Number = 1, betas: Sequence[float] = (),
    ) -> tuple[Array, ...]:  # fmt: skip
        found = list(groups(grads, grads))
        partial = self.xp.empty(sum(chunk_count(rows) for _, rows in found), np.float64)
        begin = 0
        for dtype, rows in found:
            end = begin + chunk_count(rows)
            self.launch_rows(SQUARES(dtype), rows, partial[begin:end])
            begin = end
        decision = self.xp.empty(4, np.float64)
        beta_1, beta_2 = (*betas, 0.0, 0.0)[:2]
        self.launch(
            GRADIENT_SCALE("float64"), 1, BLOCK_THREADS, partial, np.int64(partial.size),
            np.float64(clip_norm or 0), loss_scale, np.float64(growth_interval or 0), skipped,
            *self.varying(step), np.float64(beta_1), np.float64(beta_2), decision,
        )  # fmt: skip
        # (4,) -> () each
        return tuple(decision[i : i + 1].reshape(()) for i in range(2 + len(betas)))

    def sgd_update(
        self, params: Sequence[Array], grads: Sequence[Array], velocities: Sequence[Array],
        weight_decays: Sequence[float], *, learning_rate: Number, momentum: float, nesterov: bool,
        grad_scale: Array | None, masters: Masters = None, rate_factors: Factors = None,
    ) -> None:  # fmt: skip
        for dtype, rows in groups(
            params, grads, velocities, weight_decays=weight_decays, masters=masters,
            rate_factors=rate_factors,
        ):  # fmt: skip
            self.launch_rows(
                SGD(dtype), rows, grad_scale, *self.varying(learning_rate),
                accumulator(dtype).type(momentum), nesterov,
            )  # fmt: skip

    def adam_update(
        self, params: Sequence[Array], grads: Sequence[Array], m: Sequence[Array],
        v: Sequence[Array], weight_decays: Sequence[float], *, learning_rate: Number, beta_1: float,
        beta_2: float, epsilon: float, correction_1: Number, correction_2: Number, decoupled: bool,
        grad_scale: Array | None, masters: Masters = None, rate_factors: Factors = None,
    ) -> None:  # fmt: skip
        settings = beta_1, 1 - beta_1, beta_2, 1 - beta_2, epsilon
        for dtype, rows in groups(
            params, grads, m, v, weight_decays=weight_decays, masters=masters,
            rate_factors=rate_factors,
        ):  # fmt: skip
            self.launch_rows(
                ADAM(dtype), rows, grad_scale, *self.varying(learning_rate),
                *map(accumulator(dtype).type, settings), *self.varying(correction_1),
                *self.varying(correction_2), decoupled,
            )  # fmt: skip

    def lookahead_update(
        self, params: Sequence[Array], slow: Sequence[Array], *, share: Number,
        grad_scale: Array | None, masters: Masters = None,
    ) -> None:  # fmt: skip
        for dtype, rows in groups(params, params, slow, masters=masters):
            self.launch_rows(LOOKAHEAD(dtype), rows, grad_scale, *self.varying(share))

    def muon_direction(
        self, grads: Sequence[Array], velocities: Sequence[Array], *, momentum: float,
        nesterov: bool, grad_scale: Array | None,
    ) -> list[Array]:  # fmt: skip
        directions = [self.xp.empty_like(grad) for grad in grads]
        for dtype, rows in groups(directions, grads, velocities):
            partial = self.xp.empty(chunk_count(rows), np.float64)
            for family in (MUON_MOMENTUM, MUON_DIRECTION):
                self.launch_rows(
                    family(dtype), rows, grad_scale, accumulator(dtype).type(momentum), nesterov,
                    partial,
                )  # fmt: skip
        return directions

    def newton_schulz(self, a: Array, b: Array, coefficients: Sequence[float]) -> Array:
        out = self.xp.empty_like(a)
        self.launch_elements(
            NEWTON_SCHULZ(a.dtype), a.size, a, b, *map(accumulator(a.dtype).type, coefficients),
            out, len(a), np.int64(a.size),
        )  # fmt: skip
        return out

    def muon_update(
        self, params: Sequence[Array], steps: Sequence[Array], weight_decays: Sequence[float], *,
        learning_rate: Number, grad_scale: Array | None, masters: Masters = None,
        rate_factors: Factors = None,
    ) -> None:  # fmt: skip
        for dtype, rows in groups(
            params, steps, weight_decays=weight_decays, masters=masters, rate_factors=rate_factors
        ):
            self.launch_rows(MUON(dtype), rows, grad_scale, *self.varying(learning_rate))
