"""A trainer's steps: one recording for each shape of batch, for as long as nothing else changes."""

from __future__ import annotations

from typing import Any

from .. import tracing
from ..backends.base import Array, Backend
from .recorded import Function, Recorded, SharedMemory

MOST_SHAPES = 4  # that are recorded: batches, the last one of an epoch, and a few more


class Steps:
    """A function of batches that is recorded (see ``Recorded``) for each shape of its arguments.

    Under the eyes of a profiler, which wants to see every layer, it runs as it stands.

    Args:
        function: called with arrays, returns a list of arrays.
        backend: whose operations it calls.
        memory: shared with other steps, of which none runs meanwhile.

    Attributes:
        replayed: the recording that the last call replayed, if it did.
    """

    def __init__(self, function: Function, backend: Backend, memory: SharedMemory) -> None:
        self.function = function
        self.backend = backend
        self.recordings: dict[tuple, Recorded] = {}
        self.replayed: Recorded | None = None
        self._memory = memory
        self._circumstances: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: nothing that lies at an address."""
        return vars(self) | {"recordings": {}, "replayed": None, "_circumstances": None}

    def under(self, circumstances: Any) -> None:
        """Begin anew unless all that the function depends on, its arguments apart, is as it was."""
        if circumstances != self._circumstances:
            self.recordings.clear()
            self.replayed = None
            self._circumstances = circumstances

    def __call__(self, *arrays: Array, size: int | None = None) -> list[Array]:
        """Return what the function returns; its arrays hold until the next call.

        ``size`` tells apart batches that the function fetches itself.
        """
        shapes = size, *((array.shape, array.dtype) for array in arrays)
        recorded = self.recordings.get(shapes)
        self.replayed = None
        if tracing.is_observed() or (recorded is None and len(self.recordings) == MOST_SHAPES):
            return self.function(*arrays)
        if recorded is None:
            recorded = self.recordings[shapes] = Recorded(self.function, self.backend, self._memory)
        results = recorded(*arrays)
        self.replayed = recorded if recorded.recorded else None
        return results
