"""Compare a case's recorded step with peers: the first steps' results, times in turn, memory.

All sides begin with the same weights and see the same batches. The results of the first steps are
held against each other, losses of a training or answers of an inference; the last of them are
replayed. A side's memory is what its library's allocator holds of the device behind one more step,
having given back before what it did not need, less what it held without this side: weights, slots,
batches, and what a step works in. CUDA's context is not in it, nor the libraries' code.
"""

from __future__ import annotations

import gc
import importlib
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from profiling.results import Row

from ..timing import Spread
from . import networks
from .cases import DEPENDENT, TRAINING, Comparison, StepCase, goal
from .sides import Machine, Side, in_turn

CHECKED_STEPS = 6  # gpucnn captures the fourth and replays it, the fifth and the sixth
SECONDS = 3.0  # of timing a comparison, at most
# From this relative deviation on a side's results are wrong, not imprecise.
LIMITS = {"float32": 1e-3, "bfloat16": 2e-2}
# A side's module, torch_side where it is none of these.
MODULES = {"recorded": "ours", "gpucnn": "ours", DEPENDENT: "ours", "jax": "jax_side"}


@dataclass(frozen=True)
class Scale:
    """How much is drawn and timed; tests take less.

    Attributes:
        shape: of the images, or None for a network's usual one.
        batches: that steps take in turn.
        seconds: of timing a comparison, at most.
    """

    shape: tuple[int, int, int] | None = None
    batches: int = networks.BATCHES
    seconds: float = SECONDS


@dataclass(frozen=True)
class Ready:
    """A side that has made its first steps: their results, and what that took."""

    side: Side
    results: list[np.ndarray]
    seconds: float
    memory: int | None


def compare(
    comparison: Comparison, machine: Machine, limit: float = math.inf, scale: Scale | None = None
) -> list[Row]:
    """Return what the rows of a comparison are completed with.

    A peer that fails, or is not ready within ``limit`` seconds, leaves its text in its row.

    Raises:
        Exception: gpucnn's own side failed.
    """
    case, scale = comparison.case, scale or Scale()
    batches = networks.draw(case, scale.shape, scale.batches)
    # as in a trainer, where NumPy's overflow is as silent as a device's
    with machine.current(), machine.backend.running(), np.errstate(all="ignore"):
        mine = prepare(case, machine, "recorded", batches, scale)
        peers: list[Ready | str] = []
        for name in comparison.peers:
            try:
                with at_most(limit):
                    peers.append(prepare(case, machine, name, batches, scale))
            except Exception as error:
                peers.append(brief(error))
        ready = [mine, *(peer for peer in peers if isinstance(peer, Ready))]
        spreads = iter(in_turn([one.side for one in ready], scale.seconds, machine.clock))
        shared = ours_columns(case, mine, next(spreads))
        return [
            {"error": peer}
            if isinstance(peer, str)
            else shared | peer_columns(case, name, mine, peer, next(spreads), shared["ours_us"])
            for name, peer in zip(comparison.peers, peers, strict=True)
        ]


def prepare(
    case: StepCase, machine: Machine, name: str, batches: Sequence[Any], scale: Scale
) -> Ready:
    """Set a side up and make its first steps."""
    module = importlib.import_module(f"{__package__}.{MODULES.get(name, 'torch_side')}")
    start = time.perf_counter()
    side = module.side(case, networks.make(case, scale.shape), batches, machine, name)
    results = [side.read(side.step()) for _ in range(CHECKED_STEPS)]
    return Ready(side, results, time.perf_counter() - start, side.memory())


def ours_columns(case: StepCase, mine: Ready, spread: Spread) -> Row:
    return {
        "ours_us": spread.median, "ours_iqr_us": spread.iqr, "samples": spread.samples,
        "images_per_second": 1e6 * case.batch / spread.median,
        "setup_seconds": mine.seconds, "memory_bytes": mine.memory,
        **mine.side.columns(),
    }  # fmt: skip


def peer_columns(
    case: StepCase, name: str, mine: Ready, peer: Ready, spread: Spread, ours_us: float
) -> Row:
    row: Row = {
        "algorithm": "recorded", "peer": f"{name} {peer.side.way}".strip(),
        "peer_us": spread.median, "peer_iqr_us": spread.iqr,
        "peer_images_per_second": 1e6 * case.batch / spread.median,
        "peer_setup_seconds": peer.seconds, "peer_memory_bytes": peer.memory,
        "speedup": spread.median / ours_us, "goal": goal(case.row(name)),
        "err_ours": deviation(mine.results, peer.results),
        "first": [_short(mine.results), _short(peer.results)],
    }  # fmt: skip
    limit = 0.0 if MODULES.get(name) == "ours" else LIMITS[case.dtype]  # recording changes no bit
    if not row["err_ours"] <= limit:
        row["error"] = f"the first results differ by {row['err_ours']:.3g}"
    elif case.kind == TRAINING and (why := peer.side.columns().get("not_recorded")):
        row["error"] = f"it is not recorded: {why}"  # a frozen network records its answers itself
    return row


def deviation(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Return the largest |found - expected| / |expected| of the steps; NaN gives infinity.

    >>> deviation([np.array(2.0), np.array([3.0, 4.5])], [np.array(2.0), np.array([3.0, 4.0])])
    0.1
    """
    worst = 0.0
    for mine, theirs in zip(found, expected, strict=True):
        size = float(np.linalg.norm(theirs))
        off = float(np.linalg.norm(mine - theirs)) / size if size else math.inf
        worst = max(worst, off if math.isfinite(off) else math.inf)
    return worst


def _short(results: Sequence[np.ndarray]) -> list[float]:
    """Return losses, or the first answer of each step."""
    return [float(result.flat[0]) for result in results]


class _Alarm(BaseException):
    """Passes through compilers, which catch every Exception."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the body when the time is up; in the main thread alone."""
    if seconds == math.inf:
        yield
        return

    def ring(*_: Any) -> None:
        raise _Alarm

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    except _Alarm:
        raise TimeoutError(f"it was not ready within {seconds:.0f} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


def forget(machine: Machine) -> None:
    """Give back what a comparison held, before the next one."""
    gc.collect()
    if hasattr(machine.backend.xp, "get_default_memory_pool"):
        machine.backend.xp.get_default_memory_pool().free_all_blocks()
    from sys import modules

    if "torch" in modules:
        from .torch_side import forget as forget_torch

        forget_torch()
