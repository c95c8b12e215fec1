"""Convolution on the GPU: a plan for each problem, run by its algorithm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...shapes import ConvShape, NormShape, PoolShape
from ..base import FUSED, Array
from . import columns
from .algorithms import ALGORITHMS, Plan, Problem
from .algorithms.base import FusingAlgorithm
from .channels import ChannelSums
from .epilogue import ACTIVATIONS, MOMENTS, Epilogue, Quads
from .plans import Planner
from .split_sum import split_sum


class Convolutions(ChannelSums):
    """``conv_fprop``, ``conv_dgrad``, ``conv_wgrad``, ``conv_norm_train`` and ``bias_grad``."""

    plans: Planner

    def conv_fprop(
        self, x: Array, w: Array, b: Array | None, shape: ConvShape,
        activation: str = "linear", math: str = "strict", alpha: float = 0.0,
        residual: Array | None = None, out_dtype: str | None = None,
    ) -> Array:  # fmt: skip
        wide = out_dtype not in (None, x.dtype.name)
        if 0 in shape.y_shape:
            return self.xp.empty(shape.y_shape, out_dtype or x.dtype)
        if wide and activation not in ACTIVATIONS:
            y = self.conv_fprop(x, w, b, shape, "linear", math, 0.0, residual, out_dtype)
            return self.activation_forward(y, activation, alpha)
        problem = self._problem("fprop", shape, x, math, activation)
        problem = replace(problem, residual=residual is not None, wide=wide)
        plan = self.plans.choose(problem)
        return self.run_plan(problem, plan, x, w, b, residual, alpha=alpha)

    def run_plan(
        self, problem: Problem, plan: Plan, *arrays: Array | None, alpha: float = 0.0
    ) -> Array:
        """Run a plan, and in launches of their own what its algorithm does not fuse.

        arrays: as for ``Algorithm.run``, and behind them a residual, if there is one.
        """
        algorithm = ALGORITHMS[plan.algorithm]
        if problem.direction != "fprop":
            return algorithm.run(self, problem, plan, *arrays)
        x, w, b, residual = (*arrays, None)[:4]
        if problem.moments:
            return self._run_with_moments(problem, plan, x, w, b)[0]
        if problem.pooled:
            return self._run_pooled(problem, plan, x, w, b)[0]
        if algorithm.fuses(problem, plan):
            if not isinstance(algorithm, FusingAlgorithm):
                return algorithm.run(self, problem, plan, x, w, b)
            epilogue = Epilogue(b, problem.activation, alpha, residual)
            return algorithm.run_fused(self, problem, plan, x, w, epilogue)
        y, activation = algorithm.run(self, problem.plain, plan, x, w, b), problem.activation
        if residual is not None:
            with_sum = activation if activation in FUSED else "linear"
            y = self.add(y, residual, with_sum)
            activation = activation if with_sum == "linear" else "linear"
        return y if activation == "linear" else self.activation_forward(y, activation, alpha)

    def conv_norm_train(
        self, x: Array, w: Array, b: Array | None, conv: ConvShape, gamma: Array, beta: Array,
        epsilon: float, activation: str = "linear", residual: Array | None = None,
        moving: tuple[Array, Array] | None = None, momentum: float = 0.0, math: str = "strict",
    ) -> tuple[Array, Array, Array, Array]:  # fmt: skip
        shape = conv.norm_shape
        if 0 in conv.y_shape or columns.are_few(shape):  # which one launch normalises
            return super().conv_norm_train(
                x, w, b, conv, gamma, beta, epsilon, activation, residual, moving, momentum, math
            )
        problem = replace(self._problem("fprop", conv, x, math), moments=True)
        y, partial = self._run_with_moments(problem, self.plans.choose(problem), x, w, b)
        (mean, var), _ = self._finish("moments", partial, shape, x.dtype, moving, momentum)
        z = self.batch_norm_infer(y, gamma, beta, mean, var, epsilon, shape, activation, residual)
        return y, z, mean, var

    def _run_with_moments(
        self, problem: Problem, plan: Plan, x: Array, w: Array, b: Array | None
    ) -> tuple[Array, Array]:
        """Return y and what is known of parts of its pixels, to be finished."""
        algorithm = ALGORITHMS[plan.algorithm]
        if not algorithm.fuses(problem, plan):
            y = algorithm.run(self, problem.plain, plan, x, w, b)
            return y, self._partial_sums("moments", y, problem.shape.norm_shape)
        parts = algorithm.moment_parts(problem, plan)
        partial = self.xp.empty((parts, problem.shape.filters, MOMENTS), "float32")
        epilogue = Epilogue(b, moments=partial)
        return algorithm.run_fused(self, problem, plan, x, w, epilogue), partial

    def _run_pooled(
        self, problem: Problem, plan: Plan, x: Array, w: Array, b: Array | None,
        with_index: bool = True,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """Return the maxima of 2x2 outputs, and their places, where they are wanted."""
        s, algorithm, activation = problem.shape, ALGORITHMS[plan.algorithm], problem.activation
        pool = PoolShape.of(s.y_shape, 2, mode="max", rank=2, channels_last=s.channels_last)
        if not algorithm.fuses(problem, plan):
            y = algorithm.run(self, problem.plain, plan, x, w, b)
            return self.pool_forward(y, pool, with_index, activation)
        y = self.xp.empty(pool.y_shape, x.dtype)
        index = self.xp.empty(pool.y_shape, pool.index_dtype) if with_index else None
        epilogue = Epilogue(b, activation, pooled=Quads(y, index))
        return algorithm.run_fused(self, problem, plan, x, w, epilogue), index

    def conv_dgrad(
        self, dy: Array, w: Array, b: Array | None, shape: ConvShape, math: str = "strict"
    ) -> Array:
        if 0 in shape.x_shape:
            return self.xp.empty(shape.x_shape, dy.dtype)
        return self._convolve("dgrad", shape, math, dy, w, b)

    def conv_wgrad(self, x: Array, dy: Array, shape: ConvShape, math: str = "strict") -> Array:
        if shape.batch == 0:
            return self.xp.zeros(shape.w_shape, x.dtype)
        return self._convolve("wgrad", shape, math, x, dy)

    def rounded(self, x: Array, dtype: np.dtype) -> Array:
        return split_sum(self, x[None], dtype)

    def bias_grad(self, dy: Array, shape: NormShape) -> Array:
        if columns.are_few(shape):
            return columns.sums(self, dy, shape)
        _, (db,) = self._channel_sums("sum", dy, shape)
        return db

    def _convolve(
        self, direction: str, shape: ConvShape, math: str, *arrays: Array | None
    ) -> Array:
        problem = self._problem(direction, shape, arrays[0], math)
        return self.run_plan(problem, self.plans.choose(problem), *arrays)

    def _problem(
        self, direction: str, shape: ConvShape, x: Array, math: str, activation: str = "linear"
    ) -> Problem:
        architecture = self.launcher.architecture
        return Problem(direction, shape, x.dtype.name, activation, architecture, math)
