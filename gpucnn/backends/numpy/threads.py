"""How many threads NumPy's BLAS may use while a network runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# A person who sets one of these has decided.
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController  # finding the libraries takes milliseconds

    return ThreadpoolController()


@contextmanager
def limited_blas() -> Iterator[None]:
    """Run the body with ``GPUCNN_NUM_THREADS`` threads in NumPy's BLAS, 1 unless it is set.

    The products of small networks gain little from more threads, and on a machine where other
    programs run they lose nearly everything: BLAS threads wait for each other by spinning. With
    one, results do not depend on the number of cores either. ``BLAS_VARIABLES`` come first, and a
    NumPy without threadpoolctl beside it is left as it is.

    Raises:
        ValueError: ``GPUCNN_NUM_THREADS`` is no positive integer.
    """
    threads = os.environ.get("GPUCNN_NUM_THREADS", "1")
    if not threads.isdecimal() or int(threads) < 1:
        raise ValueError(f"GPUCNN_NUM_THREADS must be a positive integer. Received: {threads!r}")
    if any(variable in os.environ for variable in BLAS_VARIABLES):
        yield
        return
    try:
        controller = _controller()
    except ModuleNotFoundError:
        yield
        return
    with controller.limit(limits=int(threads), user_api="blas"):
        yield
