"""Forks of the test process, which has threads: its own, the workers' and perhaps JAX's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fork_allowed() -> Iterator[None]:
    """Newer Pythons warn of any fork of a process with threads; JAX does, once it is imported."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        warnings.filterwarnings("ignore", ".*JAX is multithreaded", RuntimeWarning)
        yield
