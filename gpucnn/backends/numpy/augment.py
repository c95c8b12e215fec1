"""Batches out of a set of pictures, and a step's values in their ring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...changes import UNCHANGED, Changes
from . import buffers
from .blocks import sample_blocks, share
from .dropout import philox


class Batches:
    """``gather_batch`` and ``collect``."""

    def gather_batch(
        self, images: np.ndarray, labels: np.ndarray, order: np.ndarray, place: Any, count: int,
        table: np.ndarray, changes: Changes, seed: int,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        epoch, first = divmod(int(place), 2**32)
        chosen = order[first : first + count]
        x = buffers.empty((count, *images.shape[1:]), table.dtype)
        channels = np.arange(images.shape[3])

        def fill(part: slice) -> None:
            places = np.arange(first + part.start, first + part.stop, dtype=np.uint64)
            if changes == UNCHANGED:
                pixels = images[chosen[part]]
            else:
                pixels = changed(images, chosen[part], places, epoch, changes, seed)
            x[part] = table[pixels, channels]  # (n, H, W, C), (C,) -> (n, H, W, C)

        share(fill, sample_blocks(x.shape))
        return x, labels[chosen]

    def collect(self, values: Sequence[np.ndarray], ring: np.ndarray, row: Any) -> None:
        ring[int(row)] = values


def in_turn(pictures: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """Return whether it is the turn of each picture (n,) to be mirrored."""
    even = philox(pictures.astype(np.uint64), 2**33, seed)[:, 2] < 2**31
    return even == (epoch % 2 == 0)


def changed(
    images: np.ndarray, chosen: np.ndarray, places: np.ndarray, epoch: int, changes: Changes,
    seed: int,
) -> np.ndarray:  # fmt: skip
    """Return the chosen pictures (n, H, W, C) uint8, changed as their places of the epoch draw."""
    height, width = images.shape[1:3]
    words = philox(2 * places, 2**32 + epoch, seed)
    reach = 2 * changes.shift + 1
    down, right = (_draw(words[:, word], reach)[:, None] - changes.shift for word in (0, 1))
    if changes.alternating:
        flipped = in_turn(chosen, epoch, seed)[:, None]
    else:
        flipped = (words[:, 2] < changes.flip_threshold)[:, None]
    column = np.arange(width)
    rows = np.arange(height) + down  # (n, H)
    columns = np.where(flipped, column[::-1], column) + right  # (n, W)
    pixels = images[
        chosen[:, None, None],
        _within(rows, height)[:, :, None],
        _within(columns, width)[:, None, :],
    ]  # (n, 1, 1), (n, H, 1), (n, 1, W) -> (n, H, W, C)
    if changes.fill is not None:
        inside = _square((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
        pixels = np.where(inside, pixels, np.uint8(changes.fill))
    if changes.cutout:
        words = philox(2 * places + 1, 2**32 + epoch, seed)
        covered = []
        for word, length in enumerate((height, width)):
            corner = _draw(words[:, word], length)[:, None] - changes.cutout // 2
            along = np.arange(length) - corner  # (n, length)
            covered.append((along >= 0) & (along < changes.cutout))
        pixels = np.where(_square(*covered), np.uint8(changes.cover), pixels)
    return pixels


def _draw(words: np.ndarray, numbers: int) -> np.ndarray:
    return (words.astype(np.uint64) * np.uint64(numbers) >> np.uint64(32)).astype(np.int64)


def _within(places: np.ndarray, length: int) -> np.ndarray:
    """Mirror places beyond an edge about the edge's pixel; what is still outside, to that pixel."""
    mirrored = length - 1 - np.abs(length - 1 - np.abs(places))
    return np.clip(mirrored, 0, length - 1)


def _square(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(n, H), (n, W) -> (n, H, W, 1): where both hold."""
    return rows[:, :, None, None] & columns[:, None, :, None]
