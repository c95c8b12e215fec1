"""The cases that every backend runs: named geometries, the same on NumPy, emulator and GPU.

They are small, for the reference is slow, but cross what a kernel can get wrong: H != W, R != S,
sizes off every tile, batches of 1 and 3, channels and filters that are no multiple of 4, several
tiles and several steps of a reduction, asymmetric strides and paddings, dilation and groups.
"""

from __future__ import annotations

import hashlib
from typing import Any

import ml_dtypes
import numpy as np

from gpucnn.backends.numpy import memory
from gpucnn.shapes import ConvShape, NormShape, PoolShape

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}

conv = ConvShape.of

# x (N, *input, C), w (K, *window, C / groups)
CONVS: dict[str, ConvShape] = {
    "plain": conv((3, 9, 11, 5), (7, 3, 2, 5)),
    "one_number": conv((1, 1, 1, 1), (1, 1, 1, 1)),
    "one_by_one": conv((1, 6, 5, 33), (66, 1, 1, 33)),
    "one_by_one_strided": conv((3, 7, 6, 9), (10, 1, 1, 9), strides=(2, 3)),
    "dense": conv((70, 1, 1, 131), (10, 1, 1, 131)),
    "whole_window": conv((3, 7, 5, 6), (9, 7, 5, 6)),
    "many_tiles": conv((1, 17, 13, 72), (68, 3, 3, 72), padding=1),
    "wide_tiles": conv((1, 92, 90, 34), (35, 1, 1, 34)),
    "wide_filters": conv((1, 5, 6, 457), (65, 3, 3, 457), padding=1),
    "vectors": conv((3, 9, 10, 24), (136, 3, 3, 24), padding=1),
    "vectors_dilated": conv(
        (1, 15, 12, 16), (24, 3, 2, 16), padding=((2, 1), (0, 3)), dilation=(2, 3)
    ),
    "vectors_strided": conv((3, 9, 10, 32), (48, 3, 2, 16), strides=(2, 3), padding=1, groups=2),
    "vectors_many_pixels": conv((3, 15, 14, 8), (8, 3, 2, 8)),
    "vectors_deep": conv(
        (1, 8, 9, 64), (128, 3, 2, 32), strides=(2, 1), padding=((1, 0), (0, 2)), groups=2
    ),
    "vectors_thin": conv((1, 18, 17, 16), (3, 3, 3, 16), padding=1),
    "vectors_from_thin": conv((1, 18, 17, 3), (16, 3, 3, 3), strides=(1, 2), padding=1),
    "whole_steps": conv((1, 5, 6, 72), (64, 3, 2, 72), padding=((1, 0), (1, 1))),
    "split_sums": conv((1, 4, 3, 64), (40, 3, 3, 64), padding=1),
    "many_pixels": conv((3, 33, 35, 3), (5, 3, 2, 3)),
    "many_filters": conv((1, 5, 4, 17), (145, 2, 3, 17), padding="same"),
    "square_window_grouped": conv(
        (3, 7, 10, 34), (40, 3, 3, 17), padding=((3, 0), (1, 2)), groups=2
    ),
    "same_even_window": conv((1, 8, 9, 4), (8, 4, 2, 4), padding="same"),
    "strided": conv((1, 15, 18, 6), (5, 3, 4, 6), strides=(2, 3)),
    "stride_beyond_window": conv((3, 11, 10, 3), (4, 2, 1, 3), strides=(3, 4)),
    "asymmetric_padding": conv((1, 6, 7, 5), (6, 3, 4, 5), padding=((2, 0), (1, 3))),
    "padding_beyond_window": conv((1, 4, 3, 2), (3, 2, 3, 2), padding=((3, 4), (5, 0))),
    "dilated": conv((1, 13, 12, 5), (6, 3, 3, 5), dilation=(2, 3), padding=(1, 2)),
    "everything": conv(
        (3, 14, 17, 6), (10, 3, 2, 3), strides=(2, 3), padding=((2, 1), (0, 3)), dilation=(3, 2),
        groups=2,
    ),
    "grouped_tiles": conv((1, 6, 7, 134), (146, 2, 1, 67), groups=2),
    "grouped_few": conv((3, 9, 10, 24), (24, 3, 3, 4), groups=6, padding=1),
    "grouped_strided": conv(
        (1, 17, 9, 16), (20, 3, 3, 8), groups=2, strides=2, padding=((0, 1), (2, 1)),
    ),
    "depthwise": conv((3, 9, 7, 37), (37, 3, 3, 1), groups=37, padding=1),
    "depthwise_vectors": conv((3, 9, 21, 24), (24, 3, 3, 1), groups=24, padding=1),
    "depthwise_strided": conv(
        (1, 10, 13, 16), (16, 3, 3, 1), groups=16, strides=2, padding=((0, 1), (1, 1)),
    ),
    "depthwise_5x5": conv((1, 9, 10, 8), (8, 5, 5, 1), groups=8, padding=2),
    "depthwise_5x5_strided": conv((1, 11, 9, 8), (8, 5, 5, 1), groups=8, strides=2, padding=(1, 2)),
    "depthwise_7x7": conv((1, 9, 10, 8), (8, 7, 7, 1), groups=8, padding=(3, 1)),
    "depthwise_dilated": conv(
        (1, 9, 8, 16), (16, 3, 3, 1), groups=16, dilation=(3, 1), padding="same",
    ),
    "depthwise_doubled": conv((1, 8, 7, 6), (12, 3, 2, 1), groups=6, strides=(2, 1)),
    "stem": conv((2, 11, 38, 3), (37, 3, 3, 3), padding=((1, 1), (2, 0))),
    "stem_5x5": conv((3, 12, 9, 1), (5, 5, 5, 1), padding=2),
    "stem_strided": conv((1, 9, 12, 4), (12, 3, 3, 4), strides=2, padding=((0, 1), (1, 0))),
    "stem_7x7": conv((1, 15, 17, 2), (9, 7, 7, 2), strides=2, padding=3),
    "1d": conv((3, 37, 5), (6, 4, 5)),
    "1d_vectors": conv((3, 75, 24), (72, 3, 24), strides=2, padding=((3, 1),), dilation=2),
    "1d_many_pixels": conv((3, 601, 2), (3, 4, 2)),
    "1d_wide_tiles": conv((1, 4133, 66), (68, 2, 33), groups=2),
    "1d_wide_filters": conv((1, 4, 1379), (65, 3, 1379), padding=1),
    "1d_causal": conv((1, 33, 6), (10, 3, 3), padding="causal", dilation=4, groups=2),
    "1d_strided": conv((1, 65, 1), (8, 7, 1), strides=3, padding=((1, 4),)),
    "1d_grouped": conv((3, 37, 8), (16, 3, 4), groups=2, padding=1),
    "1d_depthwise": conv((3, 37, 8), (8, 3, 1), groups=8, strides=2, padding="same"),
    "3d": conv((1, 5, 6, 7, 5), (6, 2, 3, 2, 5)),
    "3d_many_pixels": conv((3, 9, 10, 11, 2), (3, 2, 1, 2, 2)),
    "3d_wide_tiles": conv((1, 20, 21, 20, 33), (34, 1, 1, 1, 33)),
    "3d_wide_filters": conv((1, 2, 1, 2, 153), (65, 3, 3, 3, 153), padding=1),
    "3d_depthwise": conv(
        (1, 4, 6, 7, 8), (8, 3, 3, 3, 1), groups=8, strides=(2, 1, 1), padding=1,
    ),
    "3d_vectors": conv(
        (2, 5, 4, 7, 16), (24, 2, 3, 2, 8), strides=(2, 1, 3), padding=((1, 0), (0, 2), (2, 1)),
        dilation=(2, 1, 2), groups=2,
    ),
    "3d_everything": conv(
        (3, 6, 5, 8, 4), (6, 2, 3, 2, 2), strides=(2, 1, 3), padding=((1, 0), (0, 2), (2, 1)),
        dilation=(2, 1, 2), groups=2,
    ),
}  # fmt: skip


def pool(x_shape: tuple[int, ...], size: Any, **arguments: Any) -> PoolShape:
    return PoolShape.of(x_shape, size, mode="max", rank=len(x_shape) - 2, **arguments)


# Of mode "max"; the tests put the other modes in. x (N, *input, C)
POOLS: dict[str, PoolShape] = {
    "plain": pool((3, 8, 6, 5), (2, 3)),
    "odd": pool((1, 9, 7, 33), (2, 2)),
    "overlapping": pool((3, 11, 9, 6), 3, strides=2),
    "dense": pool((1, 8, 7, 5), (3, 2), strides=1),
    "gaps": pool((1, 11, 10, 3), (2, 1), strides=(3, 4)),
    "whole_window": pool((3, 6, 5, 7), (6, 5)),
    "one_by_one": pool((1, 5, 4, 3), 1),
    "padded": pool((1, 7, 9, 5), 3, strides=2, padding=1),
    "same": pool((3, 7, 8, 4), (3, 4), strides=(2, 3), padding="same"),
    "asymmetric_padding": pool((1, 7, 6, 5), (3, 4), strides=(2, 1), padding=((2, 0), (1, 3))),
    "ceil": pool((1, 8, 6, 5), (3, 2), strides=(2, 4), ceil_mode=True),
    "ceil_small": pool((2, 2, 7, 3), (3, 2), strides=(2, 1), ceil_mode=True),
    "ceil_small_units": pool((1, 1, 1, 8), 2, ceil_mode=True),
    "ceil_padded": pool((3, 9, 6, 2), 3, strides=(3, 2), padding=((1, 1), (0, 1)), ceil_mode=True),
    "dilated": pool((1, 11, 9, 4), (3, 2), strides=(1, 2), dilation=(2, 3)),
    "dilated_empty": pool((1, 1, 6, 3), (2, 2), strides=1, padding=((1, 1), (0, 0)), dilation=2),
    "many_channels": pool((1, 4, 5, 131), 2, strides=1),
    "large_window": pool((1, 20, 19, 2), (17, 18), strides=(2, 1)),
    "1d": pool((3, 35, 5), 3, strides=2, padding=1),
    "1d_large_window": pool((1, 313, 2), 301, strides=5),
    "1d_ceil": pool((1, 34, 3), 4, strides=3, ceil_mode=True),
    "3d_large_window": pool((1, 7, 8, 9, 1), (6, 7, 8), strides=1),
    "3d": pool((1, 5, 6, 7, 3), (2, 3, 2), strides=(1, 2, 2), padding=((1, 0), (1, 2), (0, 1))),
    "units": pool((3, 9, 8, 16), 3, strides=2, padding=1),
    "units_dense": pool((1, 6, 7, 8), 3, strides=1, padding=1),
    "units_apart": pool((1, 10, 11, 8), (2, 1), strides=(3, 4)),
    "strips": pool((2, 9, 40, 3), 3, strides=2, padding=1),
    "strips_from_the_edge": pool((1, 12, 24, 2), 3, strides=(1, 2), dilation=(3, 1)),
    "halves": pool((3, 9, 16, 8), 2),
    "halves_3d": pool((1, 4, 5, 16, 8), 2, padding=((0, 1), (1, 0), (0, 0))),
    "halves_of_many_taps": pool((1, 133, 16, 2), (130, 2), strides=(1, 2)),
    "global": pool((3, 6, 8, 8), (6, 8)),
    "global_long": pool((1, 2051, 3), 2051),
    "global_3d": pool((1, 3, 4, 7, 16), (3, 4, 7)),
}

# x (N, *positions, C)
NORMS: dict[str, NormShape] = {
    "image": NormShape.of((3, 5, 7, 12), groups=3),
    "one_sample": NormShape.of((1, 9, 6), groups=2),
    "layer": NormShape.of((5, 37)),
    "instance": NormShape.of((3, 4, 5, 6), groups=6),
    "wide": NormShape.of((3, 2, 2, 134), groups=2),
    "long": NormShape.of((3, 33, 31, 3)),
    "volume": NormShape.of((2, 3, 4, 5, 8), groups=4),
}


def random(name: str, shape: tuple[int, ...], dtype: Any, low: float = -1, high: float = 1) -> Any:
    """Return even random numbers of this dtype, always the same ones for a name and shape."""
    digest = hashlib.sha256(f"{name} {shape}".encode()).digest()
    generator = np.random.default_rng(list(digest))
    return generator.uniform(low, high, shape).astype(dtype)


def as_tf32(x: np.ndarray) -> np.ndarray:
    """Round float32 to TF32's 10 bits behind the point, to nearest with ties away from zero."""
    bits = x.view(np.uint32) + np.where(np.isfinite(x), np.uint32(0x1000), np.uint32(0))
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def in_layout(array: Any, channels_last: bool) -> Any:
    """Return an activation of (N, ..., C) as it is, or as (N, C, ...)."""
    return array if channels_last else np.ascontiguousarray(np.moveaxis(array, -1, 1))


def pixel_major(array: np.ndarray, channels_last: bool) -> np.ndarray:
    """A copy in pixel-major memory; of two axes, as it is."""
    if array.ndim < 3:
        return array.copy()
    return memory.as_activation(memory.pixel_major(array, channels_last).copy(), channels_last)
