"""Dropout as a layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..arguments import as_int, as_number
from ..backends.base import Array
from ..functional.checks import expect_shape, prepare
from ..initializers import draw_seed
from ..varying import varying
from .base import Layer, Shape


class Dropout(Layer):
    """In training, zero each number with probability ``rate`` and scale the others to make up.

    Args:
        rate: in [0, 1).
        seed: of the layer's own random numbers; by default drawn from ``gpucnn.set_seed``'s. The
            n-th training forward of a layer draws the same mask in every run and on every backend.

    Counters: "seed" and "calls", the training forwards so far, so that a network which loads a
    checkpoint goes on with the masks of the one that wrote it.

    Source: Srivastava et al. 2014.
    """

    arguments = ("rate", "seed")
    keeps_input = False

    @property
    def passes_input(self) -> bool:
        return self.rate == 0

    def __init__(self, rate: float, seed: int | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.rate = as_number(self.label, "rate", rate, least=0, below=1)
        seed = draw_seed() if seed is None else as_int(self.label, "seed", seed, minimum=0)
        self.counters.update(seed=seed, calls=0)

    @property
    def seed(self) -> int:
        return self.counters["seed"]

    def _forward(self, x: Array, training: bool) -> Array:
        if not training or self.rate == 0:
            self._save(x.shape, None)
            return x
        _, x = prepare(self.label, x=x)  # what does not fit counts for nothing
        call = varying(self._next_call, np.int64)
        y = F.dropout_forward(x, self.rate, seed=self.seed, offset=call, owner=self.label)
        self._save(x.shape, call)
        return y

    def _forward_masked(self, x: Array, kind: str, alpha: float | None) -> tuple[Array, F.Mask]:
        """Drop from the output of an activation in training: see ``F.dropout_forward_masked``."""
        call = varying(self._next_call, np.int64)
        options = {"alpha": alpha, "seed": self.seed, "offset": call, "owner": self.label}
        return F.dropout_forward_masked(x, kind, self.rate, **options)

    def _next_call(self) -> int:
        self.counters["calls"] += 1
        return self.counters["calls"] - 1

    def _backward(self, dy: Array, shape: Shape, call: int | Array | None) -> Array:
        expect_shape(self.label, shape, dy=dy)
        if call is None:
            return dy
        return F.dropout_backward(dy, self.rate, seed=self.seed, offset=call, owner=self.label)
