"""Measure a GPU's two ceilings with what PyTorch has: copies, and its library's matrix products."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

COPIED = 2**28  # numbers of float32: 1 GiB
SIZE = 8192  # of the matrices
FORMATS = {
    "bfloat16 mixed": (torch.bfloat16, False),
    "float16 mixed": (torch.float16, False),
    "float32 tf32": (torch.float32, True),
    "float32 strict": (torch.float32, False),
    "float64 strict": (torch.float64, False),
}


def measure() -> dict[str, float]:
    """Return "bandwidth" in GB/s, read and written bytes counted, and TFLOP/s by number format.

    On random numbers, for products of zeros draw less power and run faster.
    """
    source, target = torch.randn(COPIED, device="cuda"), torch.empty(COPIED, device="cuda")
    seconds = median_seconds(lambda: target.copy_(source))
    found = {"bandwidth": 2 * 4 * COPIED / seconds / 1e9}
    for name, (dtype, tf32) in FORMATS.items():
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(SIZE, SIZE, device="cuda").to(dtype) for _ in range(2))
        found[name] = 2 * SIZE**3 / median_seconds(lambda a=a, b=b: a @ b) / 1e12
    return found


def median_seconds(run: Callable[[], Any], times: int = 10) -> float:
    """Return the median time of a call after warming up."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]
    for _ in range(3):
        run()
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize()
    return sorted(a.elapsed_time(b) for a, b in pairwise(events))[times // 2] / 1e3
