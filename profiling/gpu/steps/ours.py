"""gpucnn's own sides: the step recorded and replayed, its kernels dependent launches or ordinary
ones, and the same step as it stands."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from gpucnn import Sequential
from gpucnn.backends.base import Array, Backend
from gpucnn.backends.cuda.dependent_launch import FIRST_ARCHITECTURE, is_supported
from gpucnn.optimizers import SGD
from gpucnn.step import Recorded
from gpucnn.trainer import Trainer

from ..launches import kernels_of
from .cases import DEPENDENT, TRAINING, StepCase
from .networks import MOMENTUM, rate
from .sides import Machine, Side

Batches = list[tuple[np.ndarray, np.ndarray]]
Step = Callable[..., list[Array]]


def training(case: StepCase, model: Sequential, backend: Backend) -> Step:
    """Return (x, labels) -> [loss], a trainer's work on a batch."""
    model.needs_input_gradient = False
    optimizer = SGD(rate(case), momentum=MOMENTUM)
    trainer = Trainer(model, optimizer=optimizer, metrics=(), backend=backend, progress=False)
    return trainer.training_step.work


def inference(model: Sequential) -> Step:
    frozen = model.freeze()
    return lambda x: [frozen(x)]


def has_dependent_launches(backend: Backend) -> bool:
    launcher = getattr(backend, "launcher", None)
    hopper = hasattr(launcher, "dependent") and launcher.architecture >= FIRST_ARCHITECTURE
    return hopper and is_supported()


@contextmanager
def dependent_launches(backend: Backend) -> Iterator[None]:
    """Record what is recorded meanwhile with dependent launches."""
    before, backend.launcher.dependent = backend.launcher.dependent, True
    try:
        yield
    finally:
        backend.launcher.dependent = before


def side(case: StepCase, model: Sequential, batches: Batches, machine: Machine, name: str) -> Side:
    """Return the side "recorded", "gpucnn dependent", or "gpucnn": every step as it stands.

    ``model`` becomes the side's own.
    """
    backend = machine.backend
    before = _give_back(backend)
    model.to(backend)
    function = training(case, model, backend) if case.kind == TRAINING else inference(model)
    recorded = Recorded(function, backend) if name != "gpucnn" else None
    run = recorded or function
    way = partial(dependent_launches, backend) if name == DEPENDENT else nullcontext
    inputs = [
        (backend.asarray(x.astype(model.dtype)), backend.asarray(labels))[: _inputs(case)]
        for x, labels in batches
    ]
    turns = itertools.cycle(inputs)

    def step() -> Array:
        with way():
            return run(*next(turns))[0]

    def memory() -> int | None:
        _give_back(backend)
        step()
        return None if before is None else _pool(backend).total_bytes() - before

    def columns() -> dict[str, Any]:
        with kernels_of(backend) as kernels:
            function(*inputs[0])
        return {
            "nodes": _nodes(recorded), "kernels": dict(Counter(kernels)),
            "not_recorded": _why_not(recorded),
        }  # fmt: skip

    return Side(
        name,
        step,
        lambda result: backend.to_numpy(result).astype(np.float64),
        backend.synchronize,
        memory=memory,
        columns=columns if recorded else dict,
    )


def _inputs(case: StepCase) -> int:
    return 2 if case.kind == TRAINING else 1


def _pool(backend: Backend) -> Any:
    """Return CuPy's memory pool, or None on NumPy."""
    find = getattr(backend.xp, "get_default_memory_pool", None)
    return find and find()


def _give_back(backend: Backend) -> int | None:
    """Give back what the pool does not need, and return the bytes that it still has."""
    pool = _pool(backend)
    if pool is None:
        return None
    backend.synchronize()
    pool.free_all_blocks()
    return pool.total_bytes()


# ---- what a recording holds ----------------------------------------------------------------------

_NODE = re.compile(r'^\s*"graph_\d+_node_\d+"\s*\[', re.MULTILINE)  # of Graphviz's language


def _why_not(recorded: Recorded) -> str | None:
    """Return why steps are not replayed where the backend could, or None."""
    if recorded.recorded or not recorded.backend.captures:
        return None
    return recorded.reason or "there were too few steps"


def _nodes(recorded: Recorded) -> int | None:
    """Return how many kernels and copies the graph launches, where there is a graph."""
    graph = getattr(getattr(recorded.replay, "replay", None), "__self__", None)
    if not hasattr(graph, "debug_dot_str"):
        return None
    try:
        return len(_NODE.findall(graph.debug_dot_str())) or None
    except RuntimeError:  # CUDA's, which costs the row no more than this number
        return None
