"""What an algorithm for convolution is, on pixel-major memory (see ``..memory``).

All arrays are C-contiguous and of one dtype, float32 or float64:

    x, dx  (*input, N, C)     y, dy  (*output, N, K)     w, dw  (K, *kernel, C / groups)

An algorithm cuts its work into parts whose number and bounds depend on the shape alone, hands them
to ``workers.run``, and so gives the same bits with any number of threads.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from ....shapes import ConvShape
from .windows import Block

RUN = 128  # elements: an inner loop of fewer steps takes longer to start than to run


class Finish:
    """What happens to results in the cache: (v + bias) * scale + shift, and an activation.

    Args:
        images: N.
        bias, scale, shift: (K,), or None: of the convolution, and of a batch norm behind it.
        activation: that comes last: "linear", "relu", max(v, 0), or "relu6", min(max(v, 0), 6); a
            NaN stays one.

    Attributes:
        multiple: of so many rows blocks are to be cut, where an algorithm can do so and no sum
            changes; None if it does not matter.
    """

    multiple: int | None = None

    def __init__(
        self, images: int, bias: np.ndarray | None = None, activation: str = "linear",
        scale: np.ndarray | None = None, shift: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.steps = []
        for operation, values in ((np.add, bias), (np.multiply, scale), (np.add, shift)):
            if values is not None:
                row = np.empty((images, len(values)), values.dtype)  # (N, K)
                row[...] = values
                self.steps.append((operation, row))
        self.activation = activation

    def memory(self, y: np.ndarray, place: Block) -> np.ndarray:
        """Return where the results of a place in y are to be computed, C-contiguous or as in y."""
        return y[place]

    def __call__(self, block: np.ndarray, place: Block = (slice(None),)) -> None:
        """Finish a block (..., n, K) in its memory; a place ends with the images it is of."""
        self.scale(block, place[-1])
        self.activate(block)

    def scale(self, block: np.ndarray, images: slice) -> None:
        """Do, in place, what comes before the activation."""
        run = _run(block)
        for operation, row in self.steps:
            row = row[images]
            if len(run) > 2:
                row = np.broadcast_to(row, run).copy()
            operation(block, row, out=block)

    def activate(self, block: np.ndarray) -> None:
        """Apply the activation in place."""
        run = _run(block)
        # NumPy compares with an array many times as quickly as with a number
        if self.activation == "relu":
            np.maximum(block, np.zeros(run, block.dtype), out=block)
        elif self.activation == "relu6":
            np.clip(block, 0, 6, out=block)


def _run(block: np.ndarray) -> tuple[int, ...]:
    """Return the shape of the last axes of a block that are worth an inner loop."""
    pixel = block.shape[-2:]
    return pixel if math.prod(pixel) >= RUN else block.shape[-3:]


class Algorithm(ABC):
    """A way to compute one or more directions of a convolution."""

    name: str

    @abstractmethod
    def suits(self, direction: str, shape: ConvShape, dtype: np.dtype) -> bool:
        """Return whether it computes "fprop", "dgrad" or "wgrad" of this shape in this dtype."""

    def fprop(
        self, x: np.ndarray, w: np.ndarray, y: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        """Fill y."""
        raise NotImplementedError

    def places(self, shape: ConvShape, dtype: np.dtype, multiple: int) -> list[Block] | None:
        """Return the places in y that fprop hands to a ``finish`` of this multiple, each once.

        None if it needs y as a whole, beyond what ``finish.memory`` returns for each of them.
        """
        return None

    def dgrad(
        self, dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: ConvShape, finish: Finish
    ) -> None:
        """Fill dx."""
        raise NotImplementedError

    def wgrad(self, x: np.ndarray, dy: np.ndarray, shape: ConvShape) -> np.ndarray:
        """Return dw."""
        raise NotImplementedError
