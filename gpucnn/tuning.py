"""Tune the convolutions of a network for the GPU at hand, ahead of their use.

Without tuning a convolution is computed by the plan whose estimated time is least, at once. Tuning
measures the promising plans and keeps the fastest on disk, where every later process finds it.

A plan fixes the order of every sum: tuning may change the last bits of a result. From then on the
same plan gives the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .backends import get_backend, use_backend
from .backends.base import Backend
from .network import Network

if TYPE_CHECKING:
    from .backends.cuda.algorithms import Problem
    from .backends.cuda.tuning import Entry


def tune(
    model: Network, x: Any, *, training: bool = True, again: bool = False
) -> dict[Problem, Entry]:
    """Tune every convolution of a step of the network, dense layers among them.

    Args:
        model: is moved to the GPU, and built for ``x`` if it is not built yet. Its weights and
            states stay as they are, its gradients do not.
        x: a batch, of the size and dtype that will be used; its numbers do not matter.
        training: forward as in training and backward; else forward as in inference.
        again: measure, too, what was measured before.

    Returns:
        What was measured, by problem.

    Raises:
        RuntimeError: CuPy or a GPU is missing, or none of a problem's plans runs.
        OSError: the folder of tuned plans cannot be written.

    Example:
        >>> tuned = tune(model, np.empty((128, 28, 28, 1), np.float32))          # doctest: +SKIP
        >>> for problem, entry in tuned.items():                                 # doctest: +SKIP
        ...     print(problem.direction, entry.plan.algorithm, entry.times[entry.plan])
    """
    from .backends.cuda.tuning import GraphTimer, Tuner

    backend = get_backend("cuda")
    tuner = Tuner(backend, GraphTimer())
    return {p: tuner.tune(p, again) for p in problems(backend, model, x, training)}


def problems(backend: Backend, model: Network, x: Any, training: bool = True) -> list[Problem]:
    """Return the convolutions of a step, each once, in order; nothing runs on the GPU."""
    from .backends.cuda.tuning import DryRun

    x = backend.asarray(x)
    # the arrays of a dry run hold what happens to lie in memory
    with np.errstate(all="ignore"):
        if not model.built:
            with use_backend(DryRun(backend).backend):
                model.forward(x[:1])
        model.to(backend)
        before, dry = model.state_dict(), DryRun(backend)
        try:
            with use_backend(dry.backend):
                y = model.forward(x, training)
                if training:
                    model.backward(y)
        finally:
            model.to(backend)
            model.load_state_dict(before)
    return list(dry.problems)
