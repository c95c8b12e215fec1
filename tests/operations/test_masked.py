"""Convolutions on tensor cores that store the mask of their outputs beside the outputs."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from gpucnn.backends.base import MASKABLE, Backend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem, wgmma_tiles
from gpucnn.backends.cuda.algorithms.base import FusingAlgorithm
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import DTYPES, random
from tests.operations.conftest import poisoned, same_bits
from tests.operations.test_epilogue import backend_or_skip

of = ConvShape.of
# The ends of tiles inside a map and inside the filters of a group; several maps in a tile; more
# tiles than blocks; splits whose numbers are no whole blocks.
SHAPES = {
    "mma": (
        of((2, 11, 13, 16), (24, 3, 3, 16), padding=((1, 0), (1, 2))),
        of((3, 13, 15, 16), (80, 3, 2, 8), strides=(1, 2), dilation=(2, 1), groups=2),
        of((1, 7, 5, 520), (136, 1, 1, 520)),
    ),
    "mma_padded": (of((2, 6, 9, 10), (24, 3, 3, 10)),),
    "wgmma": (
        of((3, 7, 6, 64), (72, 3, 3, 64), padding=((1, 0), (1, 2))),  # patches, two images at once
        of((1, 19, 11, 64), (136, 3, 2, 64), padding=1),
        of((1, 13, 11, 200), (72, 2, 1, 200), strides=(2, 1)),
    ),
}
KINDS = {"relu": 0.0, "clipped_relu": 1.5, "leaky_relu": 0.25, "relu6": 0.0}
RUNS = [
    pytest.param(backend, name, dtype, id=f"{backend}-{name}-{dtype}", marks=marks)
    for backend, marks, dtypes in (
        ("emulated", (), ("bfloat16", "float32")),
        ("checked", (), ("float16",)),
        ("cuda", pytest.mark.gpu, ("float16", "bfloat16", "float32")),
    )
    for name in SHAPES
    for dtype in dtypes
    if backend != "checked" or name != "mma_padded"
]  # fmt: skip


def plans(backend: Backend, name: str, s: ConvShape, dtype: str) -> tuple[Problem, list[Plan]]:
    """Return a problem and its plans that store masks; persistent blocks take several tiles."""
    architecture, algorithm = backend.launcher.architecture, ALGORITHMS[name]
    if name == "wgmma" and architecture != 90:
        pytest.skip("wgmma is Hopper's")
    problem = Problem("fprop", s, dtype, "relu", architecture, "tf32", masked=True)
    found = [plan for plan in algorithm.plans(problem) if algorithm.fuses(problem, plan)]
    assert found
    if name == "wgmma":
        found = [replace(plan, grid=(min(2, plan.grid[0]), 1, 1)) for plan in found]
    return problem, found


@pytest.mark.parametrize(("backend_name", "name", "dtype"), RUNS)
def test_the_mask_is_that_of_what_is_stored(backend_name: str, name: str, dtype: str) -> None:
    """To the bit, and y is as it is without: of all activations, with a residual and without."""
    backend, kind = backend_or_skip(backend_name), DTYPES[dtype]
    few, turn, split = backend_name == "checked", count(1), set()
    for s in SHAPES[name][: 1 if few else None]:
        x, w, b, residual = (
            random(what, size, kind, -2, 2)
            for what, size in (("x", s.x_shape), ("w", s.w_shape), ("b", (s.filters,)),
                               ("residual", s.y_shape))
        )  # fmt: skip
        x[0, 4, 3, 2], residual[-1, -1, -1, ::3] = np.nan, np.nan
        residual[..., 1::5], b[1::5] = 6, 0
        w[1::5] = 0  # what is at a ceiling, and at zero
        x, w, b, residual = map(backend.asarray, (x, w, b, residual))
        problem, found = plans(backend, name, s, dtype)
        for plan in found:
            nth = next(turn)
            activation, alpha = list(KINDS.items())[nth % len(KINDS)]
            beside = (residual if nth % 3 else None, alpha)
            asked = replace(problem, activation=activation, residual=bool(nth % 3))
            with poisoned(backend.xp):
                y, mask = backend._run_masked(asked, plan, x, w, b, *beside)
            if plan == found[0]:
                plain = replace(asked, masked=False)
                plain = backend.run_plan(plain, plan, x, w, b, beside[0], alpha=alpha)
                assert same_bits(*map(backend.to_numpy, (y, plain))), plan
            y, mask = map(backend.to_numpy, (y, mask))
            want = reference.activation_mask(y, activation, alpha)
            assert 0 < np.unpackbits(want).mean() < 1 and np.isnan(y).any()
            np.testing.assert_array_equal(mask, want, err_msg=f"{asked} {plan}")
            split.add(plan.grid[2] > 1 or getattr(plan.settings, "splits", 1) > 1)
    assert few or split == ({False} if name == "mma_padded" else {True, False})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_whatever_the_algorithm(every_backend: Backend, monkeypatch, dtype: str) -> None:
    """In the kernel or in a pass: of whole bytes and others, of one pixel, and of none."""
    backend = every_backend
    monkeypatch.setattr(type(backend), "least_masked", 0)
    for s, kind in zip(
        (of((3, 5, 6, 3), (5, 2, 3, 3)), of((37, 1, 16), (8, 1, 16)), of((0, 4, 8), (8, 1, 8))),
        KINDS, strict=False,
    ):  # fmt: skip
        x, w, b = (
            backend.asarray(random(what, size, DTYPES[dtype], -2, 2))
            for what, size in (("x", s.x_shape), ("w", s.w_shape), ("b", (s.filters,)))
        )
        how = kind, "strict", KINDS[kind]
        with poisoned(backend.xp):
            y, mask = backend.conv_fprop_masked(x, w, b, s, *how)
        want = backend.activation_mask(y, kind, KINDS[kind])
        assert same_bits(*map(backend.to_numpy, (mask, want)))
        assert same_bits(*map(backend.to_numpy, (y, backend.conv_fprop(x, w, b, s, *how))))


def test_a_small_map_is_worth_no_pass() -> None:
    backend = backend_or_skip("emulated")
    for filters, masked in ((8, True), (12, False)):
        s = of((2, 5, 6, 16), (filters, 3, 3, 16))
        x, w = (
            random(n, size, DTYPES["bfloat16"]) for n, size in (("x", s.x_shape), ("w", s.w_shape))
        )
        y, mask = backend.conv_fprop_masked(x, w, None, s)
        assert (mask is not None) == masked
        assert same_bits(y, backend.conv_fprop(x, w, None, s, "relu"))


# ---- plans: without a GPU ------------------------------------------------------------------------


def test_what_has_whole_bytes() -> None:
    """Of a pixel in split sums, of a group of it in whole ones."""
    assert set(KINDS) == MASKABLE
    for groups, filters, whole, split in ((1, 64, True, True), (1, 68, False, False),
                                          (2, 136, False, True), (2, 144, True, True)):  # fmt: skip
        s = of((1, 7, 7, 1024), (filters, 3, 3, 1024 // groups), padding=1, groups=groups)
        masked = Problem("fprop", s, "float16", "relu", masked=True)
        mma = ALGORITHMS["mma"]
        found = list(mma.plans(masked))
        assert {plan.grid[2] > 1 for plan in found} == {True, False}
        for plan in found:
            assert mma.fuses(masked, plan) == (split if plan.grid[2] > 1 else whole)
    for dtype, filters, does in (
        ("float32", 68, False),
        ("float32", 72, True),
        ("float16", 72, True),
    ):
        s = of((1, 7, 7, 64), (filters, 3, 3, 64), padding=1)
        masked, wgmma = (
            Problem("fprop", s, dtype, "relu", math="tf32", masked=True),
            ALGORITHMS["wgmma"],
        )
        found = list(wgmma.plans(masked))
        assert {plan.settings.tile.patches > 0 for plan in found} == {True, False}
        assert {wgmma.fuses(masked, plan) for plan in found} == {does}


# What an algorithm has plans for that has none for many channels in one group.
OWN = {
    "mma_padded": of((4, 16, 16, 60), (64, 3, 3, 60), padding=1),
    "depthwise": of((4, 16, 16, 64), (64, 3, 3, 1), padding=1, groups=64),
    "direct": of((4, 16, 16, 3), (64, 3, 3, 3), padding=1),
    "grouped": of((4, 16, 16, 64), (64, 3, 3, 4), padding=1, groups=16),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_others_take_a_pass(name: str) -> None:
    s = OWN.get(name, of((4, 16, 16, 256), (256, 3, 3, 256), padding=1))
    dtype = "float64" if name == "dmma" else "float16" if "mma" in name else "float32"
    algorithm, masked = ALGORITHMS[name], Problem("fprop", s, dtype, "relu", masked=True)
    found = {algorithm.fuses(masked, plan) for plan in algorithm.plans(masked)}
    if name in ("mma", "mma_padded", "wgmma"):
        assert isinstance(algorithm, FusingAlgorithm) and True in found
    else:
        assert found == (set() if name.endswith(("_dgrad", "_wgrad")) else {False})


def test_the_estimate_counts_the_pass_alone_that_is_missing() -> None:
    s = of((64, 32, 32, 64), (64, 3, 3, 64), padding=1)
    plain = Problem("fprop", s, "float32", "relu", residual=True)
    assert 0 < plain.apart_us < replace(plain, masked=True).apart_us
    assert replace(plain, masked=True).plain == plain.plain
    assert choose(plain) == choose(replace(plain, masked=True))  # nothing of float32 has a mask


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("size", [7, 14, 56])
def test_on_hopper_it_comes_with_the_fastest_plan(dtype: str, size: int) -> None:
    s = of((64, size, size, 256), (256, 3, 3, 256), padding=1)
    plain = Problem("fprop", s, dtype, "relu", 90, "tf32", residual=True)
    masked = replace(plain, masked=True)
    plan = choose(masked)
    assert plan == choose(plain) and ALGORITHMS[plan.algorithm].fuses(masked, plan)
    assert isinstance(plan.settings.tile, wgmma_tiles.Tile)
