"""Run one operation on one backend and hold it to what is asked of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gpucnn.backends.base import Backend
from gpucnn.backends.numpy import buffers


@contextmanager
def poisoned(xp: ModuleType) -> Iterator[None]:
    """Let ``empty`` give NaN, and indices out of range, so that a forgotten element shows.

    That of xp, and the NumPy backend's own.
    """

    def fill(make: Callable[..., Any]) -> Callable[..., Any]:
        def filled(*arguments: Any, **keywords: Any) -> Any:
            array = make(*arguments, **keywords)
            array.ravel("K").view(np.uint8)[...] = 0xFF  # a NaN in every floating dtype
            return array

        return filled

    with pytest.MonkeyPatch.context() as patch:
        for place in (xp, buffers):
            for name in ("empty", "empty_like"):
                patch.setattr(place, name, fill(getattr(place, name)))
        yield


class Runner:
    """Calls a backend with NumPy arrays, gives back NumPy arrays, and checks what always holds.

    Two runs give the same bits, inputs stay as they are, results are new arrays of the backend's
    kind, arranged as it would take them, and every element of them is written.
    """

    def __init__(self, backend: Backend, runs: int) -> None:
        self.backend = backend
        self.runs = runs

    def device(self, array: Any) -> Any:
        """Bring an input to the backend, write-protected where NumPy can do that."""
        if not isinstance(array, np.ndarray):
            return [self.device(a) for a in array] if isinstance(array, list) else array
        moved = self.backend.asarray(array.copy())
        if isinstance(moved, np.ndarray):
            moved.setflags(write=False)
        return moved

    def __call__(self, operation: str, *arguments: Any) -> Any:
        given = [self.device(argument) for argument in arguments]
        function = getattr(self.backend, operation)
        with poisoned(self.backend.xp):
            results = [function(*given) for _ in range(self.runs)]
        for argument, array in zip(flatten(arguments), flatten(given), strict=True):
            assert same_bits(argument, self.backend.to_numpy(array)), "an input was changed"
        several = isinstance(results[0], tuple)
        tuples = [result if several else (result,) for result in results]
        first, *others = [tuple(self.received(r, given) for r in result) for result in tuples]
        for other in others:
            assert all(map(same_bits, first, other)), "two runs differ"
        return first if several else first[0]

    def received(self, result: Any, given: list[Any]) -> np.ndarray | None:
        """Check an array that the backend returned, and bring it here."""
        if result is None:
            return None
        assert self.backend.owns(result)
        assert self.backend.arranged(result) is result
        for array in flatten(given):
            assert not self.backend.xp.may_share_memory(result, array), "a result is an input"
        return self.backend.to_numpy(result)


def flatten(arguments: Any) -> list[Any]:
    """The arrays among the arguments, those in lists too."""
    arrays: list[Any] = []
    for argument in arguments:
        if isinstance(argument, list):
            arrays += flatten(argument)
        elif hasattr(argument, "dtype") and hasattr(argument, "shape"):
            arrays.append(argument)
    return arrays


def same_bits(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def inside_another(backend: Backend, array: np.ndarray) -> Any:
    """Bring an array to the backend so that it begins one element behind another."""
    outer = backend.asarray(np.concatenate([array.reshape(-1)[:1], array.reshape(-1)]))
    return outer[1:].reshape(array.shape)


@pytest.fixture
def run(every_backend: Backend, request: pytest.FixtureRequest) -> Runner:
    """Run an operation on ``every_backend``; the slow one is spared the second run."""
    given = request.node.callspec.params
    checked = given["every_backend"] == "checked"
    if checked and given.get("dtype") == "bfloat16":
        pytest.skip("the checked emulator runs float16, which lies in memory as bfloat16 does")
    return Runner(every_backend, runs=1 if checked else 2)
