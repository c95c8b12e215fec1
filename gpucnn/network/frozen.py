"""A network as it is now, for answers alone."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..arguments import as_int
from ..backends.base import Array
from ..backends.exchange import as_own
from ..layers.base import inference_mode
from .program import record

if TYPE_CHECKING:
    from .base import Network

SHAPES = 8  # of inputs, for which the network stays bound


class Frozen:
    """What ``Network.freeze`` returns: a function of inputs whose weights stay as they are.

    Batch norms are part of the weights before them, dropout is gone, and for each shape of the
    inputs that comes everything is settled once: on NumPy the network is then a list of calls on
    arrays allocated beforehand. Answers are those of ``forward`` up to the rounding of the folded
    weights. Any number of threads may call it.

    Attributes:
        program: the operations that are left; print it.
    """

    def __init__(self, network: Network, blas_threads: int = 1) -> None:
        self.label, self.dtype, self.backend = network.label, network.dtype, network.backend
        if not network.built:
            raise ValueError(
                f"{network.label}: there are no weights to freeze; call build(input_shape) or run"
                " forward once. Received: a network that is not built"
            )
        self.blas_threads = as_int(network.label, "blas_threads", blas_threads)
        self._network = copy.copy(network)  # whose dtype stays
        self.program = record(network)
        self._idle: OrderedDict[tuple, list] = OrderedDict()  # the latest shapes last
        self._lock = threading.Lock()

    def calls(self, *shapes: Sequence[int]) -> str:
        """Return what runs for inputs of these shapes, a line each, to be read.

        Raises:
            ValueError, TypeError: as for inputs of these shapes.

        Example:
            >>> from gpucnn import Dense, Sequential
            >>> answer = Sequential([Dense(10, "relu")], input_shape=(64,)).freeze()
            >>> print(answer.calls((1, 64)))
            matmul((1, 64), (64, 10), out=(1, 10))
            add((1, 10), (10,), out=(1, 10))
            maximum((1, 10), (10,), out=(1, 10))
        """
        xs = [self.backend.xp.empty(shape, self.dtype) for shape in shapes]
        xs = self._own(xs[0] if len(xs) == 1 else xs)
        return str(self._bind(xs))

    def __call__(self, x: Array | list[Array]) -> Array | list[Array]:
        """Return the outputs for a batch of any size.

        Raises:
            ValueError, TypeError: as for ``Network.forward``.
        """
        xs = [self._network._converted(item) for item in self._own(x)]
        key = tuple(tuple(item.shape) for item in xs)
        bound = self._taken(key) or self._bind(xs)
        with inference_mode():
            answers = bound(xs)
        self._put_back(key, bound)
        return answers if self._network.gives_many else answers[0]

    def _own(self, x: Array | list[Array]) -> list[Array]:
        """Return the inputs as arrays of the backend."""
        xs = [as_own(self.label, "input", item) for item in self._network._listed(x)]
        for item in xs:
            if not self.backend.owns(item):
                raise TypeError(
                    f"{self.label}: the frozen network takes arrays of"
                    f" {self.backend.xp.__name__}. Received: {type(item).__name__}"
                )
        return xs

    def _bind(self, xs: list[Array]) -> Any:
        """Bind the program to inputs of these shapes, which are checked here, once for all."""
        self._network._check_shape(xs)
        if len({item.shape[0] for item in xs}) > 1:
            raise ValueError(
                f"{self.label}: all inputs must hold as many samples."
                f" Received: shapes {[item.shape for item in xs]}"
            )
        shapes = tuple(tuple(item.shape) for item in xs)
        return self.backend.bind(self.program, shapes, self.dtype, self.blas_threads)

    def __getstate__(self) -> dict[str, Any]:
        """Leave what is bound to memory behind."""
        return {key: value for key, value in vars(self).items() if key not in ("_idle", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _idle=OrderedDict(), _lock=threading.Lock())

    def _taken(self, key: tuple) -> Any:
        with self._lock:
            idle = self._idle.get(key)
            return idle.pop() if idle else None

    def _put_back(self, key: tuple, bound: Any) -> None:
        with self._lock:
            self._idle.setdefault(key, []).append(bound)
            self._idle.move_to_end(key)
            if len(self._idle) > SHAPES:
                self._idle.popitem(last=False)
