"""The values of a tape: arrays that stay where they are, some with a border of zeros around them.

A map lies pixel-major (see ``..memory``). One that a padded convolution reads has the padding as a
border in its own memory: whoever makes the map writes the inside, and nobody ever copies it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..memory import as_activation, pixel_axes

Border = tuple[tuple[int, int], ...]  # before and after, for each spatial axis


class Value:
    """An array of a fixed shape, allocated once all of its readers have said what they need.

    Attributes:
        shape: as layers see it, the batch axis first.
        channels_last: whether the last axis is the channels, or else the one behind the batch;
            None where that is not known yet.
        border: the zeros around each spatial axis.
        gapless: whether somebody needs the map without them.
        dtype: None for that of the tape.
    """

    def __init__(
        self, shape: Sequence[int], channels_last: bool | None = None, dtype: str | None = None
    ) -> None:
        self.shape = tuple(shape)
        self.channels_last, self.dtype = channels_last, dtype
        self.border: Border = ((0, 0),) * max(0, len(shape) - 2)
        self.gapless = False
        self.memory: np.ndarray | None = None

    def inherit(self, sources: Sequence[Value]) -> None:
        """Take the dtype that logits have in a network of fewer bits, if a source has one."""
        if self.dtype is None and "float32" in (source.dtype for source in sources):
            self.dtype = "float32"

    def read(self, channels_last: bool, border: Border | None = None) -> None:
        """Take notice of a reader of the map, who needs it with a border, or (None) gapless."""
        if self.channels_last is None:
            self.channels_last = channels_last
        if border is None:
            self.gapless = True
        elif self.channels_last == channels_last:
            self.border = tuple(
                (max(old[0], new[0]), max(old[1], new[1]))
                for old, new in zip(self.border, border, strict=True)
            )

    def allocate(self, dtype: np.dtype) -> None:
        if self.channels_last is None:
            self.channels_last = True
        if self.gapless:
            self.border = ((0, 0),) * len(self.border)
        sizes = [self.shape[axis] for axis in pixel_axes(len(self.shape), self.channels_last)]
        for place, pad in enumerate(self.border):
            sizes[place] += sum(pad)
        self.memory = np.zeros(sizes, self.dtype or dtype)

    @property
    def seen(self) -> np.ndarray:
        """The array as layers see it."""
        inside = self._with(((0, 0),) * len(self.border))
        return as_activation(inside, self.channels_last)

    def map(self, channels_last: bool) -> np.ndarray:
        """View the array as (*spatial, N, C)."""
        return self.seen.transpose(pixel_axes(len(self.shape), channels_last))

    def bordered(self, border: Border, channels_last: bool) -> np.ndarray | None:
        """View the map with just this border around it, if there is so much of one."""
        enough = all(
            have[0] >= want[0] and have[1] >= want[1]
            for have, want in zip(self.border, border, strict=True)
        )
        return self._with(border) if enough and channels_last == self.channels_last else None

    def _with(self, border: Border) -> np.ndarray:
        sizes = zip(self.memory.shape, self.border, border, strict=False)
        return self.memory[
            tuple(slice(have[0] - want[0], size - have[1] + want[1]) for size, have, want in sizes)
        ]


def runs(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """View maps (..., W, N, C) as (..., W * N * C) if all of them can be.

    A row of a map lies together even within a border; so an operation along the channels, with what
    belongs to each of them repeated, has long inner loops.
    """
    length = math.prod(arrays[0].shape[-3:])
    flat = [array.reshape(*array.shape[:-3], length) for array in arrays]
    same = all(map(np.may_share_memory, flat, arrays))
    return tuple(flat) if same and arrays[0].ndim > 2 else arrays


def repeated(values: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Repeat what belongs to each channel to fill the last axis of an array of ``runs``."""
    return np.tile(values, array.shape[-1] // len(values)).astype(array.dtype)
