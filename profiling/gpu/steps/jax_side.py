"""JAX's side: one jitted function a step, its state donated.

JAX runs on streams of its own, where no event of ours can stand: rows against it are timed by the
host's clock, both sides. They have a process without PyTorch, whose cuDNN need not be JAX's.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others need the memory, too

import jax
import numpy as np

from gpucnn import Sequential
from gpucnn.bench import jax_network

from .cases import TRAINING, StepCase
from .networks import MOMENTUM, rate
from .ours import Batches
from .sides import Machine, Side


def side(case: StepCase, model: Sequential, batches: Batches, machine: Machine, name: str) -> Side:
    """Return JAX's side, of a network that lies on NumPy.

    Raises:
        RuntimeError: JAX finds no GPU where one is wanted.
    """
    platform = jax.devices()[0].platform
    if machine.device == "cuda" and platform == "cpu":
        raise RuntimeError("JAX is installed without CUDA")
    strict = case.math == "strict"  # float32 that is float32
    jax.config.update("jax_default_matmul_precision", "highest" if strict else None)
    turns = itertools.cycle(
        [(jax.device_put(x.astype(model.dtype)), jax.device_put(labels)) for x, labels in batches]
    )
    last: list[Any] = []
    if case.kind == TRAINING:
        function, state = jax_network.training(model, rate(case), MOMENTUM)
        jitted = jax.jit(function, donate_argnums=0)

        def step() -> Any:
            nonlocal state
            state, loss = jitted(state, *next(turns))
            last[:] = [loss]
            return loss

    else:
        answer = jax.jit(jax_network.inference(model))

        def step() -> Any:
            last[:] = [answer(next(turns)[0])]
            return last[0]

    return Side(
        name,
        step,
        lambda result: np.asarray(result.astype("float32"), np.float64),
        lambda: jax.block_until_ready(last),
        way="jit",
    )
