"""The backends that a test runs on, one after the other.

numpy     the NumPy backend
emulated  the CUDA backend on NumPy arrays, its kernels run on the CPU
checked   the same, with every memory access checked for bounds, initialisation and races (slow)
cuda      the CUDA backend on a GPU, skipped where none answers
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from gpucnn.backends import get_backend, use_backend
from gpucnn.backends.base import Backend

from .emulator.build import CXX

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@cache
def make_backend(name: str) -> Backend:
    if name in ("numpy", "cuda"):
        return get_backend(name)
    from gpucnn.backends.cuda.backend import CudaBackend

    from .emulator_launcher import EmulatorLauncher

    return CudaBackend(np, EmulatorLauncher("fast" if name == "emulated" else "check"))


def has_gpu() -> bool:
    try:
        return make_backend("cuda").name == "cuda"
    except RuntimeError:
        return False


def _use(name: str) -> Iterator[Backend]:
    if name in ("emulated", "checked") and shutil.which(CXX) is None:
        pytest.skip(f"the emulator needs a C++ compiler; there is no {CXX}")
    try:
        chosen = make_backend(name)
    except RuntimeError as error:
        pytest.skip(str(error))
    with use_backend(chosen):
        yield chosen


@pytest.fixture(params=["numpy", "emulated", CUDA])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend, chosen with ``use_backend`` for the time of the test."""
    yield from _use(request.param)


@pytest.fixture(params=["numpy", "emulated", "checked", CUDA])
def every_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """As ``backend``, and the checked emulator too: for the operations themselves."""
    yield from _use(request.param)
