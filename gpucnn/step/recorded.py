"""A function that is called again and again: planned, recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends.base import Array, Backend
from ..varying import kept_by
from .arena import Arena
from .memory import Placed, Watched

Function = Callable[..., list[Array]]


class SharedMemory:
    """Memory for arenas of which one at a time is in use. A copy has none yet."""

    def __init__(self) -> None:
        self._size, self._memory = 0, None

    def of(self, size: int, backend: Backend) -> tuple[int, Any]:
        """Return the address and the owner of so many bytes, new ones if those so far are short."""
        if self._memory is None or size > self._size:
            self._memory, self._size = backend.memory(size), size
        return self._memory

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedMemory, ()  # an address means nothing elsewhere


class Recorded:
    """The calls of a function whose work is the same every time, a training step's say.

    The first call runs as it stands: parameters, slots and kernels come to be. The second is
    watched: which memory it takes, for how long. From then on all arrays that it makes lie in one
    arena. Where the backend can capture what is launched, as CUDA does in a graph, the third call
    runs from the arena, the fourth is captured, and every later one replays that: no Python, no
    memory to find, no argument to check. Every call does its work; none is wasted on measuring.

    What a replay must ask for anew, it asks for through ``varying``. What cannot be recorded runs
    as it stands: the numbers are the same, bit for bit.

    Args:
        function: called with arrays, returns a list of arrays; the same work for the same shapes.
        backend: whose operations it calls.
        memory: that functions share of which one at a time is called.

    Attributes:
        arena: the plan of the memory, from the second call on.
        reason: why the calls are not recorded, where they are not.
        replay: what the backend captured, which runs all of it, once there is something.
        recorded: whether the next call is a replay.

    What a call returns, and whatever else the function left in memory, gradients say, holds until
    the next call.
    """

    def __init__(
        self, function: Function, backend: Backend, memory: SharedMemory | None = None
    ) -> None:
        self.function = function
        self.backend = backend
        self.arena: Arena | None = None
        self.reason: str | None = None
        self._shared = SharedMemory() if memory is None else memory
        self._memory: Any = None
        self._called = self._placed = False  # once, as it stands; once from the arena
        self._inputs: list[Array] = []
        self._outputs: list[Array] = []
        self.replay: Callable[[], None] | None = None
        self._numbers = Numbers(backend)

    @property
    def recorded(self) -> bool:
        return self.replay is not None

    def __call__(self, *inputs: Array) -> list[Array]:
        """Run the function, in one way or another."""
        if self.replay is not None:
            self._take(inputs)
            self._numbers.renew()
            self.replay()
            return self._outputs
        if self.reason is not None or not self._called:
            result = self.function(*inputs)
            self._called = True
            return result
        if self.arena is None:
            return self._watch(inputs)
        captures = self.backend.captures
        if captures and self._placed:
            return self._capture(inputs)
        try:
            self._memory = self._memory or self._shared.of(self.arena.size, self.backend)
            taken = self._take(inputs) if captures else inputs
        except MemoryError as error:  # in one piece; the arrays one by one may still find theirs
            self.reason = f"there is no arena: {error}"
            return self.function(*inputs)
        result = self._place(lambda: self.function(*taken))
        self._placed = True
        return result

    # ---- the calls in their order ----------------------------------------------------------------

    def _watch(self, inputs: Sequence[Array]) -> list[Array]:
        watched = Watched(self.backend.memory)
        with self.backend.allocating(watched):
            outputs = self.function(*inputs)
        self.arena = watched.arena()
        return outputs

    def _place(self, function: Callable[[], Any]) -> Any:
        """Run from the arena."""
        placed = Placed(self.arena, *self._memory, self.backend.memory)
        with self.backend.allocating(placed):
            result = function()
        placed.finish()
        self.reason = placed.differs
        return result

    def _capture(self, inputs: Sequence[Array]) -> list[Array]:
        """Record the call and replay it; run it as it stands where it cannot be recorded."""
        taken = self._take(inputs)
        self._numbers.begin()

        def function() -> list[Array]:
            with kept_by(self._numbers.keep):
                return self.function(*taken)

        try:
            self._outputs, replay = self._place(lambda: self.backend.capture(function))
        except Exception as error:  # if it is not the capture's, the next call raises it again
            self.reason = f"{type(error).__name__}: {error}"
        if self.reason is not None:
            return self.function(*inputs)
        self.replay = replay
        self._numbers.renew()
        replay()
        return self._outputs

    # ---- parts -----------------------------------------------------------------------------------

    def _take(self, inputs: Sequence[Array]) -> list[Array]:
        """Copy the inputs to where the recorded calls read them."""
        if not self._inputs:
            self._inputs = [self.backend.xp.empty_like(array) for array in inputs]
        for place, array in zip(self._inputs, inputs, strict=True):
            place[...] = array
        return self._inputs


class Numbers:
    """The varying numbers of a recorded function, in one table on the device.

    They are of 64 bits each: int64, uint64 or float64.
    """

    MOST = 512

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._functions: list[tuple[Callable[[], float], np.dtype]] = []
        self._table: Array | None = None

    def begin(self) -> None:
        """Forget what was kept; take memory that is no step's."""
        self._functions = []
        self._table = self._backend.xp.zeros(self.MOST, np.int64)

    def keep(self, number: Callable[[], float], dtype: np.dtype) -> Array:
        """Return where the number will lie."""
        if dtype.itemsize != 8:
            raise TypeError(f"varying: numbers must be of 64 bits. Received: {dtype.name}")
        place = len(self._functions)
        if place == self.MOST:
            raise ValueError(f"varying: a step can have {self.MOST} numbers. Received: one more")
        self._functions.append((number, dtype))
        return self._table[place : place + 1].view(dtype).reshape(())

    def renew(self) -> None:
        """Ask for all numbers, in order, and bring them to the device in one copy."""
        if self._functions:
            values = np.empty(len(self._functions), np.int64)
            for place, (number, dtype) in enumerate(self._functions):
                values[place : place + 1].view(dtype)[0] = number()
            self._backend.write(values, self._table[: len(values)])
