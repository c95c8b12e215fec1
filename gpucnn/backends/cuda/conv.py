"""Convolution on the GPU: a plan for each problem, run by its algorithm."""

from __future__ import annotations

from ...shapes import ConvShape, NormShape
from ..base import Array
from . import columns
from .algorithms import ALGORITHMS, Problem
from .channels import ChannelSums
from .plans import Planner


class Convolutions(ChannelSums):
    """``conv_fprop``, ``conv_dgrad``, ``conv_wgrad`` and ``bias_grad``."""

    plans: Planner

    def conv_fprop(
        self, x: Array, w: Array, b: Array | None, shape: ConvShape,
        activation: str = "linear", math: str = "strict",
    ) -> Array:  # fmt: skip
        if 0 in shape.y_shape:
            return self.xp.empty(shape.y_shape, x.dtype)
        return self._convolve("fprop", shape, activation, math, x, w, b)

    def conv_dgrad(
        self, dy: Array, w: Array, b: Array | None, shape: ConvShape, math: str = "strict"
    ) -> Array:
        if 0 in shape.x_shape:
            return self.xp.empty(shape.x_shape, dy.dtype)
        return self._convolve("dgrad", shape, "linear", math, dy, w, b)

    def conv_wgrad(self, x: Array, dy: Array, shape: ConvShape, math: str = "strict") -> Array:
        if shape.batch == 0:
            return self.xp.zeros(shape.w_shape, x.dtype)
        return self._convolve("wgrad", shape, "linear", math, x, dy)

    def bias_grad(self, dy: Array, shape: NormShape) -> Array:
        if columns.are_few(shape):
            return columns.sums(self, dy, shape)
        _, (db,) = self._channel_sums("sum", dy, shape)
        return db

    def _convolve(
        self, direction: str, shape: ConvShape, activation: str, math: str, *arrays: Array | None
    ) -> Array:
        dtype, architecture = arrays[0].dtype.name, self.launcher.architecture
        problem = Problem(direction, shape, dtype, activation, architecture, math)
        plan = self.plans.choose(problem)
        return ALGORITHMS[plan.algorithm].run(self, problem, plan, *arrays)
