"""Convolution on the GPU: a plan for each problem, run by its algorithm."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ...shapes import ConvShape, NormShape, PoolShape
from ..base import FLOATS, FUSED, MASKABLE, Array, NormOnLoad
from . import columns
from .algorithms import ALGORITHMS, Plan, Problem
from .algorithms.base import FusingAlgorithm
from .channels import ChannelSums
from .epilogue import ACTIVATIONS, MOMENTS, Epilogue, Quads
from .plans import Planner, norms_on_load
from .prologue import Normed
from .split_sum import split_sum


class Convolutions(ChannelSums):
    """``conv_fprop`` and ``_masked``, ``conv_dgrad``, ``conv_wgrad``, ``conv_norm_train`` and
    ``bias_grad``."""

    plans: Planner

    def conv_fprop(
        self, x: Array, w: Array, b: Array | None, shape: ConvShape,
        activation: str = "linear", math: str = "strict", alpha: float = 0.0,
        residual: Array | None = None, out_dtype: str | None = None,
        on_load: NormOnLoad | None = None,
    ) -> Array:  # fmt: skip
        wide = out_dtype not in (None, x.dtype.name)
        if 0 in shape.y_shape:
            return self.xp.empty(shape.y_shape, out_dtype or x.dtype)
        if wide and activation not in ACTIVATIONS:
            y = self.conv_fprop(x, w, b, shape, "linear", math, 0.0, residual, out_dtype, on_load)
            return self.activation_forward(y, activation, alpha)
        problem = self._problem("fprop", shape, x, math, activation, on_load)
        problem = replace(problem, residual=residual is not None, wide=wide)
        plan = self.plans.choose(problem)
        return self.run_plan(problem, plan, x, w, b, residual, alpha=alpha, on_load=on_load)

    def conv_fprop_masked(
        self, x: Array, w: Array, b: Array | None, shape: ConvShape, activation: str = "relu",
        math: str = "strict", alpha: float = 0.0, residual: Array | None = None,
        on_load: NormOnLoad | None = None,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        if 0 in shape.y_shape:
            return super().conv_fprop_masked(x, w, b, shape, activation, math, alpha, residual)
        problem = self._problem("fprop", shape, x, math, activation, on_load)
        problem = replace(problem, residual=residual is not None)
        masked = replace(problem, masked=True)
        pays = prod(shape.y_shape) * x.dtype.itemsize >= self.least_masked  # a pass of its own
        plan = self.plans.choose(masked if pays else problem)
        x = self._taken(masked, plan, x, on_load)
        if not pays and not ALGORITHMS[plan.algorithm].fuses(masked, plan):
            return self.run_plan(problem, plan, x, w, b, residual, alpha=alpha), None
        return self._run_masked(masked, plan, x, w, b, residual, alpha)

    def run_plan(
        self, problem: Problem, plan: Plan, *arrays: Array | None, alpha: float = 0.0,
        on_load: NormOnLoad | None = None,
    ) -> Array:  # fmt: skip
        """Run a plan, and in launches of their own what its algorithm does not take along.

        arrays: as for ``Algorithm.run``, but dy, w, x for dgrad through a ReLU that gave x; and
            behind those of fprop and dgrad a residual, if there is one. ``on_load`` where the
            problem has a prologue.
        """
        algorithm = ALGORITHMS[plan.algorithm]
        if problem.through:
            return self._run_through(problem, plan, *arrays)
        arrays = self._taken(problem, plan, arrays[0], on_load), *arrays[1:]
        if problem.direction == "wgrad":
            return algorithm.run(self, problem, plan, *arrays)
        x, w, b, residual = (*arrays, None)[:4]
        if problem.moments:
            return self._run_with_moments(problem, plan, x, w, b)[0]
        if problem.pooled:
            return self._run_pooled(problem, plan, x, w, b)[0]
        if problem.masked:
            return self._run_masked(problem, plan, x, w, b, residual, alpha)[0]
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
        on_load: NormOnLoad | None = None, applies: bool = True,
    ) -> tuple[Array, Array | None, Array, Array]:  # fmt: skip
        shape = conv.norm_shape
        if 0 in conv.y_shape or columns.are_few(shape):  # which one launch normalises
            return super().conv_norm_train(
                x, w, b, conv, gamma, beta, epsilon, activation, residual, moving, momentum, math,
                on_load, applies,
            )  # fmt: skip
        problem = replace(self._problem("fprop", conv, x, math, on_load=on_load), moments=True)
        plan = self.plans.choose(problem)
        source = self._taken(problem, plan, x, on_load)
        y, partial = self._run_with_moments(problem, plan, source, w, b)
        (mean, var), _ = self._finish("moments", partial, shape, x.dtype, moving, momentum)
        if not applies:
            return y, None, mean, var
        z = self.batch_norm_infer(y, gamma, beta, mean, var, epsilon, shape, activation, residual)
        return y, z, mean, var

    def norms_on_load(self, shape: ConvShape, dtype: Any, math: str) -> bool:
        name = np.dtype(dtype).name
        return name in FLOATS and norms_on_load(shape, name, math, self.launcher.architecture)

    def _taken(
        self, problem: Problem, plan: Plan, x: Array, on_load: NormOnLoad | None
    ) -> Array | Normed:
        """Return what a plan takes for its first array: normalised, or to be normalised by it."""
        if on_load is not None and ALGORITHMS[plan.algorithm].norms_on_load(problem, plan):
            return Normed(x, on_load)
        return self._read(x, on_load, problem.shape)

    def _run_with_moments(
        self, problem: Problem, plan: Plan, x: Array | Normed, w: Array, b: Array | None
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

    def _run_masked(
        self, problem: Problem, plan: Plan, x: Array | Normed, w: Array, b: Array | None,
        residual: Array | None = None, alpha: float = 0.0,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Return y and its mask."""
        algorithm, activation = ALGORITHMS[plan.algorithm], problem.activation
        if not algorithm.fuses(problem, plan):
            unmasked = replace(problem, masked=False)
            y = self.run_plan(unmasked, plan, x, w, b, residual, alpha=alpha)
            return y, self.activation_mask(y, activation, alpha)
        mask = self.empty_mask(prod(problem.shape.y_shape))
        epilogue = Epilogue(b, activation, alpha, residual, mask=mask)
        return algorithm.run_fused(self, problem, plan, x, w, epilogue), mask

    def conv_dgrad(
        self, dy: Array, w: Array, b: Array | None, shape: ConvShape, math: str = "strict",
        residual: Array | None = None,
    ) -> Array:  # fmt: skip
        if 0 in shape.x_shape:
            return self.xp.empty(shape.x_shape, dy.dtype)
        problem = self._problem("dgrad", shape, dy, math)
        problem = replace(problem, residual=residual is not None)
        return self.run_plan(problem, self.plans.choose(problem), dy, w, b, residual)

    def conv_dgrad_through(
        self, dy: Array, w: Array, shape: ConvShape, x: Array, kind: str, alpha: float,
        math: str = "strict",
    ) -> Array:  # fmt: skip
        if 0 in shape.x_shape or kind not in MASKABLE:
            return super().conv_dgrad_through(dy, w, shape, x, kind, alpha, math)
        problem = replace(self._problem("dgrad", shape, dy, math), through=True)
        return self._run_through(problem, self.plans.choose(problem), dy, w, x, kind, alpha)

    def _run_through(
        self, problem: Problem, plan: Plan, dy: Array, w: Array, x: Array, kind: str = "relu",
        alpha: float = 0.0,
    ) -> Array:  # fmt: skip
        """Return dx times the derivative of the activation that gave x."""
        algorithm = ALGORITHMS[plan.algorithm]
        if algorithm.fuses(problem, plan):
            epilogue = Epilogue.through(x, kind, alpha)
            return algorithm.run_fused(self, problem, plan, dy, w, epilogue)
        dx = algorithm.run(self, problem.plain, plan, dy, w, None)
        return self.activation_backward(dx, x, kind, alpha)

    def conv_wgrad(
        self, x: Array, dy: Array, shape: ConvShape, math: str = "strict",
        on_load: NormOnLoad | None = None,
    ) -> Array:  # fmt: skip
        if shape.batch == 0:
            return self.xp.zeros(shape.w_shape, x.dtype)
        problem = self._problem("wgrad", shape, x, math, on_load=on_load)
        return self.run_plan(problem, self.plans.choose(problem), x, dy, on_load=on_load)

    def rounded(self, x: Array, dtype: np.dtype) -> Array:
        return split_sum(self, x[None], dtype)

    def bias_grad(self, dy: Array, shape: NormShape) -> Array:
        if columns.are_few(shape):
            return columns.sums(self, dy, shape)
        _, (db,) = self._channel_sums("sum", dy, shape)
        return db

    def _problem(
        self, direction: str, shape: ConvShape, x: Array, math: str, activation: str = "linear",
        on_load: NormOnLoad | None = None,
    ) -> Problem:  # fmt: skip
        architecture, dtype = self.launcher.architecture, x.dtype.name
        return Problem(
            direction, shape, dtype, activation, architecture, math, prologue=on_load is not None
        )
