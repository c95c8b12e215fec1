"""Sums over all but the channels on the GPU (kernels/channel_sums.cu), and the record of a norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...shapes import NormShape
from ..base import Array, accumulator
from .epilogue import MOMENTS
from .kernel import CHANNELS_LAST, DTYPE, Axis, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, ceil_div, even, pack_size
from .spatial import DIVISOR, check_sizes, divisor

_TERM: Axis = {
    name: (name, {"TERM": name.upper()})
    for name in ("sum", "moments", "batch_gradient", "group_gradient", "slope")
}
SUMS = KernelFamily("channel_sums.cu", "channel_sums", _TERM, CHANNELS_LAST, DTYPE)
SUMS_FINISH = KernelFamily("channel_sums.cu", "channel_sums_finish", _TERM, CHANNELS_LAST, DTYPE)

NAN = float("nan")
LANES = 32  # columns of a block at most
# Channels of a block of the finish, and numbers of it beyond which it has fewer, and more threads
# to each.
FINISHED, MOST_FINISHED = 8, 2**14
# Blocks that the sums are split into, as many as an H100's multiprocessors hold at once (BLOCKS of
# the kernel): one more, and all wait for it. And the steps of a thread below which a split does not
# pay.
MULTIPROCESSORS = 132
STEPS_WANTED = 4

# struct NormGeometry of kernels/norm_geometry.cuh
_GEOMETRY = np.dtype(
    [(name, "i4") for name in ("batch", "channels", "length", "groups", "group_channels")]
    + [(f"by_{name}", DIVISOR) for name in ("channels", "length", "group_channels")]
)


# struct Summing of kernels/channel_sums.cu
_SUMMING = np.dtype(
    [(name, "i4") for name in ("columns", "steps", "steps_per_split", "positions")]
    + [(f"by_{name}", DIVISOR) for name in ("lanes", "slots", "row_packs")]
)


@lru_cache(maxsize=1024)
def norm_record(shape: NormShape) -> np.ndarray:
    """Return a shape as the struct that the kernels take by value.

    Raises:
        ValueError: the positions of the batch, or one sample, pass the 2^31 that kernels count to.
    """
    check_sizes(
        "normalization",
        ("the positions of the batch", shape.batch * shape.length, 31),
        ("one sample", shape.channels * shape.length, 31),
    )
    sizes = (shape.channels, shape.length, shape.channels // shape.groups)
    row = (shape.batch, *sizes[:2], shape.groups, sizes[2], *map(divisor, sizes))
    return np.array([row], _GEOMETRY)


def _splits(blocks: int, at_once: int, most: int) -> int:
    """Return into how many blocks are split, so that few places are empty while the last ones run.

    >>> _splits(2, 528, 1000), _splits(300, 264, 1000)
    (264, 4)
    """
    fewest = min(max(1, at_once // blocks), most)

    def share(splits: int) -> float:
        return blocks * splits / at_once / ceil_div(blocks * splits, at_once)

    choices = range(fewest, min(fewest + 8, most) + 1)
    return next((splits for splits in choices if share(splits) > 0.9), max(choices, key=share))


@dataclass(frozen=True)
class Summing:
    """How the sums of a shape are laid over memory and over blocks: see kernels/channel_sums.cu.

    Attributes:
        grid: blocks of columns, and splits.
        parts: partial sums of each channel, in the order in which the finish adds them.
        record: struct Summing.
    """

    grid: tuple[int, int]
    parts: int
    record: np.ndarray

    @classmethod
    @lru_cache(maxsize=1024)
    def of(cls, shape: NormShape, pack: int, blocks_wanted: int) -> Summing:
        """Lay them out for packs of so many elements, in so many blocks; the shape holds some."""
        positions, row_packs = 1, 1
        if shape.channels_last:
            positions = pack // math.gcd(shape.channels, pack)
            columns = shape.channels * positions // pack
            steps = ceil_div(shape.batch * shape.length, positions)
            lanes = even(columns, LANES)
            slots = BLOCK_THREADS // lanes
        else:
            columns = shape.channels
            row_packs = shape.length // pack
            if shape.length % pack:  # rows begin anywhere in a pack
                row_packs = ceil_div(shape.length - 1, pack) + 1
            steps = shape.batch * row_packs
            slots = 2 ** (ceil_div(steps, STEPS_WANTED) - 1).bit_length()
            slots = min(max(32, slots), BLOCK_THREADS)
            lanes = BLOCK_THREADS // slots
        blocks = ceil_div(columns, lanes)
        splits = _splits(blocks, blocks_wanted, most=ceil_div(steps, slots * STEPS_WANTED))
        per_split = ceil_div(steps, splits)
        splits = ceil_div(steps, per_split)
        row = (columns, steps, per_split, positions, *map(divisor, (lanes, slots, row_packs)))
        return cls((blocks, splits), splits * positions, np.array([row], _SUMMING))


def _terms(term: str) -> int:
    return 2 if term.endswith("gradient") or term == "moments" else 1


class ChannelSums(KernelCaller):
    """What a bias's gradient, the norms and PReLU share."""

    def _channel_sums(
        self, term: str, a: Array, shape: NormShape, *, epsilon: float = 0.0, above: float = NAN,
        moving: tuple[Array, Array] | None = None, momentum: float = 0.0, **arrays: Array,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """Return (terms, C) sums in Accum, one or two terms, and as ``a``, but of moments.

        ``arrays`` are those that the term has a use for, by their names in the kernel; moments
        change ``moving`` in place. A ReLU6 has cut what is not below ``above``.
        """
        if a.size == 0:
            terms = _terms(term)
            return tuple(
                self.xp.zeros((terms, shape.channels), t) for t in (accumulator(a.dtype), a.dtype)
            )
        partial = self._partial_sums(term, a, shape, epsilon=epsilon, above=above, **arrays)
        return self._finish(term, partial, shape, a.dtype, moving, momentum)

    def _partial_sums(
        self, term: str, a: Array, shape: NormShape, *, epsilon: float = 0.0, above: float = NAN,
        **arrays: Array,
    ) -> Array:  # fmt: skip
        """Return what is to be finished, (parts, C, ...); there are numbers. The rest is above."""
        sums = accumulator(a.dtype)
        width = MOMENTS if term == "moments" else _terms(term)
        many = term in ("sum", "moments") and a.dtype.itemsize < 8
        blocks = MULTIPROCESSORS * (4 if many else 2)
        record, summing = norm_record(shape), Summing.of(shape, pack_size(a), blocks)
        choice = (term, shape.channels_last, a.dtype)
        partial = self.xp.empty((summing.parts, shape.channels, width), sums)
        x, y, gamma, beta, mean, var, masked = map(
            arrays.get, ("x", "y", "gamma", "beta", "mean", "var", "masked")
        )
        self.launch(
            SUMS(*choice), summing.grid, BLOCK_THREADS, a, x, y, gamma, beta, mean, var,
            sums.type(epsilon), sums.type(above), masked, partial, np.int64(a.size), record,
            summing.record,
        )  # fmt: skip
        return partial

    def _finish(
        self, term: str, partial: Array, shape: NormShape, dtype: np.dtype,
        moving: tuple[Array, Array] | None = None, momentum: float = 0.0,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """Add up what partial (parts, C, ...) holds of each channel; as ``_channel_sums``."""
        sums, parts, moments = accumulator(dtype), len(partial), term == "moments"
        terms = _terms(term)
        result = self.xp.empty((terms, shape.channels), sums)
        rounded = None if moments or dtype == sums else self.xp.empty(result.shape, dtype)
        lanes = FINISHED
        while lanes > 1 and parts * lanes > MOST_FINISHED:
            lanes //= 2
        self.launch(
            SUMS_FINISH(term, shape.channels_last, dtype), ceil_div(shape.channels, lanes),
            BLOCK_THREADS, partial, result, rounded, *(moving or (None, None)),
            sums.type(1 - momentum), parts, shape.channels, lanes,
        )  # fmt: skip
        return result, result if dtype == sums else rounded
