"""2,000 random convolutions with all options, against PyTorch's in float64."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as T

from gpucnn.backends.base import MATH, accumulator
from gpucnn.backends.numpy import NumpyBackend
from gpucnn.backends.numpy.convolution import choose
from gpucnn.shapes import ConvShape
from tests.cases import in_layout, pixel_major
from tests.tolerance import assert_close

BATCHES, CASES = 20, 100
CONV = {1: T.conv1d, 2: T.conv2d, 3: T.conv3d}
DTYPES = {
    "float32": np.float32, "float64": np.float64, "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}  # fmt: skip

backend = NumpyBackend()


def draw_shape(rng: np.random.Generator) -> ConvShape:
    """Return a shape whose output is not empty; every algorithm has its share of them."""
    rank = int(rng.choice([1, 2, 3], p=[0.2, 0.65, 0.15]))
    kind = rng.choice(["dense", "few", "wide", "grouped", "depthwise"], p=[0.2, 0.2, 0.3, 0.1, 0.2])
    low, high = {"dense": (1, 40), "few": (1, 5), "wide": (16, 40)}.get(kind, (1, 6))
    channels, filters = (int(rng.integers(low, high)) for _ in range(2))
    groups = 1
    if kind in ("grouped", "depthwise"):
        groups = int(rng.integers(2, 9))
        filters *= groups
        channels = groups if kind == "depthwise" else channels * groups
    window = 3 if rng.random() < 0.5 else 0
    size, kernel, strides, dilation, padding = [], [], [], [], []
    for _ in range(rank):
        kernel.append(window or int(rng.choice([1, 1, 2, 4, 5, 7])))
        plain = rng.random() < 0.6
        strides.append(1 if plain else int(rng.integers(1, 4)))
        dilation.append(1 if plain else int(rng.integers(1, 4)))
        padding.append(tuple(int(n) for n in rng.integers(0, kernel[-1] + 1, 2)))
        reach = dilation[-1] * (kernel[-1] - 1) + 1
        size.append(
            int(rng.integers(max(1, reach - sum(padding[-1])), (40, 14, 8)[rank - 1] + reach))
        )
    return ConvShape.of(
        (int(rng.integers(1, 5)), *size, channels), (filters, *kernel, channels // groups),
        strides=strides, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip


def shapes(batch: int) -> list[ConvShape]:
    rng = np.random.default_rng([batch, 1])
    return [draw_shape(rng) for _ in range(CASES)]


def in_float64(s: ConvShape, *arrays: np.ndarray) -> list[np.ndarray]:
    """Return y, dx and dw for x, w and dy, channels last."""
    x, w, dy = (
        torch.tensor(np.moveaxis(array.astype(np.float64), -1, 1), requires_grad=place < 2)
        for place, array in enumerate(arrays)
    )
    padded = T.pad(x, [n for pair in reversed(s.padding) for n in pair])
    y = CONV[s.rank](padded, w, None, s.strides, 0, s.dilation, s.groups)
    y.backward(dy)
    return [np.moveaxis(part.detach().numpy(), 1, -1) for part in (y, x.grad, w.grad)]


def over_tiles(size: np.ndarray, s: ConvShape) -> np.ndarray:
    """Return the largest terms among the pixels that may share a tile of Winograd's with each.

    Its pixels are sums of the same components, and so have each other's rounding errors: at the
    edge of a map those of its neighbours, which have more terms.
    """
    for axis, dilation in enumerate(s.dilation, 1):
        reach = 3 * dilation  # of a tile of four pixels
        size = np.pad(size, [(reach * (place == axis),) * 2 for place in range(size.ndim)])
        near = np.lib.stride_tricks.sliding_window_view(size, 2 * reach + 1, axis)
        size = near[..., ::dilation].max(-1)
    return size


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_convolutions(batch: int) -> None:
    rng = np.random.default_rng(batch)
    for s in shapes(batch):
        name = str(rng.choice(list(DTYPES), p=[0.6, 0.2, 0.1, 0.1]))
        math_mode, relu = str(rng.choice(MATH)), bool(rng.integers(2))
        dtype = np.dtype(DTYPES[name])
        x, w, dy = (
            rng.standard_normal(shape).astype(dtype) for shape in (s.x_shape, s.w_shape, s.y_shape)
        )
        b, b_dx = (rng.standard_normal(n).astype(dtype) for n in (s.filters, s.channels))
        y, dx, dw = in_float64(s, x, w, dy)
        terms = in_float64(s, *map(np.abs, (x, w, dy)))
        y, dx = y + b, dx + b_dx
        terms = [terms[0] + np.abs(b), terms[1] + np.abs(b_dx), terms[2]]

        last = bool(rng.integers(2))
        lie = pixel_major if rng.integers(2) else lambda array, last: array
        shape = replace(s, channels_last=last)
        given_x, given_dy = (lie(in_layout(array, last), last) for array in (x, dy))
        activation = "relu" if relu else "linear"
        got = (
            backend.conv_fprop(given_x, w, b, shape, activation, math_mode),
            backend.conv_dgrad(given_dy, w, b_dx, shape, math_mode),
            backend.conv_wgrad(given_x, given_dy, shape, math_mode),
        )
        taps = math.prod(s.kernel)
        lengths = (
            taps * s.channels // s.groups + 1, taps * s.filters // s.groups + 1,
            s.batch * math.prod(s.output),
        )  # fmt: skip
        expected = (np.maximum(y, 0) if relu else y, dx, dw)
        what = f"{name} {math_mode} {s}"
        for direction, ours, right, length, size in zip(
            ("fprop", "dgrad", "wgrad"), got, expected, lengths, terms, strict=True
        ):
            if direction != "wgrad":
                if choose(direction, s, accumulator(dtype), math_mode).name.startswith("winograd"):
                    size = over_tiles(size, s)
                right, size = in_layout(right, last), in_layout(size, last)
            assert_close(
                ours, right, dtype=dtype, reduction=length, magnitude=size,
                what=f"{direction} {what}",
            )  # fmt: skip


def test_every_algorithm_has_its_share() -> None:
    chosen: Counter[tuple[str, str]] = Counter()
    for batch in range(BATCHES):
        for s in shapes(batch):
            for direction in ("fprop", "dgrad", "wgrad"):
                for math_mode in MATH:
                    chosen[direction, choose(direction, s, np.dtype("f4"), math_mode).name] += 1
    names = {name for _, name in chosen}
    assert names >= {"depthwise", "pointwise", "winograd4", "few_channels", "taps"}
    assert min(chosen.values()) >= 20, chosen
