"""CUDA graphs: what a function launches, written down once and launched as one.

A launch costs the host some microseconds, and the GPU one or two between kernels; a small network's
step is little else. A graph costs one launch for all. Its kernels keep the arguments that they had,
addresses too: arrays that are made meanwhile lie in memory that stays theirs (``allocating``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..base import Array, Backend, T

if TYPE_CHECKING:
    from ...network.program import Program
    from ...step.memory import Piece


class Graphs(Protocol):
    """Captures: ``CupyGraphs`` on a GPU, the tests' emulator on the CPU."""

    def memory(self, size: int) -> tuple[int, Any]:
        """Return the address of so many bytes and their owner, inside ``allocating`` too."""
        ...

    def allocating(self, allocate: Callable[[int], Piece] | None) -> AbstractContextManager[None]:
        """Return a context in which every array made by this thread lies in a piece.

        With None they lie in the usual memory again.
        """
        ...

    def capture(self, function: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """Return what the function returns, and a function that runs what it launched."""
        ...


@dataclass(frozen=True)
class Captured:
    """What was captured, and the tables that it reads, which have to live as long."""

    replay: Callable[[], None]
    held: list[Any]

    def __call__(self) -> None:
        self.replay()


class RecordedProgram:
    """A frozen network for inputs of one shape, recorded and replayed.

    Each call may come from another thread, and on another stream: it waits for the one before,
    which works in the same memory.
    """

    def __init__(self, program: Program, backend: Backend) -> None:
        from ...step import Recorded  # which imports the backends

        self.program = program
        self._recorded = Recorded(lambda *xs: program(xs), backend)
        self._transfers = backend.transfers()
        self._done = self._transfers.mark()

    def __call__(self, xs: Sequence[Array]) -> list[Array]:
        """Return the outputs, in memory that the next call leaves alone."""
        self._transfers.wait(self._done)
        ys = [y.copy() for y in self._recorded(*xs)]
        self._done = self._transfers.mark()
        return ys

    def __str__(self) -> str:
        return str(self.program)


class CupyGraphs:
    """Stream capture through CuPy.

    Its allocator, which a thread can choose for itself, serves CuPy's own temporaries too.
    """

    def memory(self, size: int) -> tuple[int, Any]:
        import cupy

        pointer = cupy.get_default_memory_pool().malloc(size)
        return pointer.ptr, pointer

    @contextmanager
    def allocating(self, allocate: Callable[[int], Piece] | None) -> Iterator[None]:
        import cupy
        from cupy.cuda import MemoryPointer, UnownedMemory

        device = cupy.cuda.Device().id

        def pointer(size: int) -> Any:
            piece = allocate(size)
            return MemoryPointer(UnownedMemory(piece.address, size, piece, device), 0)

        usual = cupy.get_default_memory_pool().malloc
        with cupy.cuda.using_allocator(usual if allocate is None else pointer):
            yield

    def capture(self, function: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        from cupy.cuda import Stream
        from cupy.cuda.runtime import CUDARuntimeError

        stream = Stream(non_blocking=True)  # the default stream cannot be captured
        with stream:
            stream.begin_capture()
            try:
                result = function()
            except BaseException:
                with suppress(CUDARuntimeError):  # the function's own error is the one to tell
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        return result, graph.launch
