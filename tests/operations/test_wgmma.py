"""Convolutions on Hopper's tensor cores, in 16 bits and in TF32: where that applies, what it gives,
which tile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.algorithms import (
    ALGORITHMS,
    Algorithm,
    Plan,
    Problem,
    wgmma,
    wgmma_tiles,
)
from gpucnn.backends.cuda.launch import ceil_div
from gpucnn.backends.cuda.plans import choose
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import DTYPES, as_tf32, random
from tests.conftest import make_backend
from tests.operations.conftest import inside_another, poisoned, same_bits
from tests.ptx_cases import cut_to_tf32
from tests.tolerance import assert_close

WGMMA, STRIDED = ALGORITHMS["wgmma"], ALGORITHMS["wgmma_dgrad"]
LARGE = ConvShape.of((32, 56, 56, 64), (64, 3, 3, 64), padding=1)
of = ConvShape.of

# Ends of pixels, channels and filters inside a tile, several tiles of each, and several steps.
SHAPES = {
    "strided": of(
        (2, 13, 11, 72), (136, 3, 2, 72), strides=(2, 3), padding=((2, 1), (0, 3)), dilation=(1, 2)
    ),
    "dilated": of((1, 17, 19, 64), (72, 2, 3, 64), padding=((0, 3), (2, 1)), dilation=(3, 2)),
    "patch": of((1, 9, 10, 136), (72, 3, 3, 136), padding=((1, 2), (2, 0))),
    "patches": of((2, 30, 9, 72), (136, 3, 2, 72), padding=((2, 0), (0, 0))),
    # two images at once, and one alone
    "small_maps": of((3, 7, 6, 64), (72, 3, 3, 64), padding=((1, 0), (1, 2))),
    "cut": of((1, 33, 10, 64), (64, 1, 3, 64), padding=((0, 0), (3, 4))),  # dx is a part of it
    "one_by_one": of((3, 7, 15, 72), (64, 1, 1, 72)),
    "one_by_one_strided": of((1, 15, 14, 128), (72, 1, 1, 128), strides=(2, 1)),
    "dense": of((70, 1, 1, 264), (72, 1, 1, 264)),
    "1d": of((2, 37, 64), (72, 4, 64), strides=2, padding=((3, 1),)),
    "1d_patch": of((1, 33, 64), (64, 3, 64), padding=((2, 0),)),
    # clusters alone: an odd number of maps, and a share of the pixels that is beyond the last
    "clusters": of((3, 7, 7, 72), (104, 2, 3, 72), padding=((0, 1), (1, 1))),
    # where classes of pixels differ in size, none has all taps, and pixels lie beyond all windows
    "strides_of_4": of((1, 9, 11, 64), (64, 2, 3, 64), strides=(4, 2), padding=((0, 0), (1, 1))),
}  # fmt: skip


def backend_of(name: str) -> Backend:
    try:
        return make_backend(name)
    except RuntimeError as error:
        pytest.skip(str(error))


def algorithm_of(direction: str, shape: ConvShape) -> Algorithm:
    strided = direction == "dgrad" and set(shape.strides) != {1}
    return STRIDED if strided else WGMMA


def plans(
    backend: Backend, direction: str, shape: ConvShape, dtype: str
) -> tuple[Problem, list[Plan]]:
    """Return a problem with ReLU, forward, and its plans, whose blocks take several tiles: those
    with clusters for the shape that has the name, for others those without."""
    activation = "relu" if direction == "fprop" else "linear"
    architecture = backend.launcher.architecture
    problem = Problem(direction, shape, dtype, activation, architecture, math="tf32")
    clusters = shape == SHAPES["clusters"]
    found = [
        plan for plan in algorithm_of(direction, shape).plans(problem)
        if (plan.settings.tile.cluster > 1) == clusters
    ]  # fmt: skip
    if architecture == 90:
        assert found
    else:
        pytest.skip("wgmma is Hopper's")
    return problem, [replace(plan, grid=(min(2, plan.grid[0]), 1, 1)) for plan in found]


def arrays(direction: str, s: ConvShape, dtype: str) -> tuple[np.ndarray, ...]:
    forward = direction == "fprop"
    source, bias = (s.x_shape, s.filters) if forward else (s.y_shape, s.channels)
    sizes = {"source": source, "w": s.w_shape, "b": (bias,)}
    return tuple(random(name, size, DTYPES[dtype]) for name, size in sizes.items())


def as_multiplied(direction: str, given: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Floats as TF32: wgmma cuts them, and filters that had to be turned have been rounded."""
    source, w, b = given
    if w.dtype != np.float32:
        return given
    turned = direction == "dgrad"
    return cut_to_tf32(source), as_tf32(w) if turned else cut_to_tf32(w), b


# The checked emulator is slow; and on the CPU bfloat16 differs from float16 in rounding alone.
CHECKED = ("strided", "patch", "cut", "dense", "small_maps", "clusters")
IN_TF32 = ("strided", "patch", "small_maps", "1d", "clusters")
RUNS = [
    pytest.param(
        name, direction, dtype, backend, id=f"{backend}-{name}-{direction}-{dtype}", marks=marks
    )
    for backend, marks in (("emulated", ()), ("checked", ()), ("cuda", pytest.mark.gpu))
    for name in SHAPES
    for direction in ("fprop", "dgrad")
    for dtype in wgmma_tiles.ELEMENT
    if dtype == "float16"
    or backend == "cuda"
    or (backend == "emulated" and name in {"bfloat16": ("patch",), "float32": IN_TF32}[dtype])
    or (backend == "checked" and dtype == "float32" and name == "strided")
    if name in CHECKED or backend != "checked"
]


@pytest.mark.parametrize(("name", "direction", "dtype", "backend_name"), RUNS)
def test_every_plan(name, direction, dtype, backend_name, monkeypatch) -> None:
    s, backend = SHAPES[name], backend_of(backend_name)
    monkeypatch.setattr(wgmma_tiles, "STEPS_PER_SPLIT", 2)
    algorithm = algorithm_of(direction, s)
    problem, found = plans(backend, direction, s, dtype)
    given = arrays(direction, s, dtype)
    solve, multiplied = getattr(reference, f"conv_{direction}"), as_multiplied(direction, given)
    expected, terms = solve(*multiplied, s), solve(*map(np.abs, multiplied), s)
    if direction == "fprop":
        expected = np.maximum(expected, 0)
    reduction = s.taps * (s.channels if direction == "fprop" else s.filters) + 1
    on_device = tuple(map(backend.asarray, given))
    for plan in found:
        assert plan.is_legal() and algorithm.cost(problem, plan) > 0
        with poisoned(backend.xp):
            results = [
                backend.to_numpy(algorithm.run(backend, problem, plan, *on_device))
                for _ in range(2 if backend_name == "cuda" else 1)
            ]
        assert all(same_bits(results[0], result) for result in results), "two runs differ"
        assert_close(
            results[0], expected, dtype=DTYPES[dtype], reduction=reduction, magnitude=terms,
            what=str(plan),
        )  # fmt: skip
    assert any(plan.settings.splits > 1 for plan in found) or reduction <= 400


@pytest.mark.parametrize("backend_name", ["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_nan_and_infinity_stay_where_they_are(backend_name, monkeypatch) -> None:
    backend = backend_of(backend_name)
    monkeypatch.setattr(wgmma_tiles, "STEPS_PER_SPLIT", 2)
    s = SHAPES["patch"]
    problem, found = plans(backend, "fprop", s, "float16")
    x, w, b = arrays("fprop", s, "float16")
    x[0, 4, 2, 135], x[0, 8, 9, 0], w[3, 1, 1, 7] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        y = reference.conv_fprop(x, w, b, s)
    inside = np.isfinite(y).all(axis=-1)
    y[..., 3] = 0  # the padding times infinity may be counted or not
    results = [
        backend.to_numpy(WGMMA.run(backend, problem, plan, *map(backend.asarray, (x, w, b))))
        for plan in found
    ]
    for got in results:
        got[..., 3] = 0
        assert (np.isnan(got) == np.isnan(y)).all()
        assert (np.isinf(got) == (np.isinf(y) & (y > 0))).all()
    assert not inside.all() and np.isnan(y).any() and np.isinf(y).any()


@pytest.mark.parametrize("backend_name", ["checked", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_arrays_that_begin_inside_another(backend_name) -> None:
    backend = backend_of(backend_name)
    for direction, name in (
        ("fprop", "one_by_one"), ("dgrad", "one_by_one"), ("dgrad", "one_by_one_strided"),
    ):  # fmt: skip
        s = SHAPES[name]
        algorithm = algorithm_of(direction, s)
        problem, found = plans(backend, direction, s, "float16")
        given = arrays(direction, s, "float16")
        inside = tuple(inside_another(backend, array) for array in given)
        whole = tuple(map(backend.asarray, given))
        for plan in found:
            got, expected = (
                backend.to_numpy(algorithm.run(backend, problem, plan, *a)) for a in (inside, whole)
            )
            assert same_bits(got, expected)


def exists(shape: ConvShape, direction: str = "fprop", **given) -> bool:
    problem = Problem(direction, shape, **{"dtype": "float16", **given})
    return bool(list(WGMMA.plans(problem)))


def test_16_bit_numbers_on_sm_90_with_channels_last() -> None:
    for direction in ("fprop", "dgrad", "wgrad"):
        for dtype in DTYPES:
            for architecture in (75, 80, 89, 90, 100, 120):
                applies = dtype in ("float16", "bfloat16") and architecture == 90
                given = {"dtype": dtype, "architecture": architecture}
                assert exists(LARGE, direction, **given) == (applies and direction != "wgrad")
        assert not exists(replace(LARGE, channels_last=False), direction)
    assert exists(LARGE) and not exists(of((1, 4, 4, 128), (128, 1, 1, 64), groups=2))


def test_what_tensor_maps_can_say() -> None:
    for channels, fits in ((56, False), (64, True), (68, False), (72, True)):
        for direction in ("fprop", "dgrad"):
            assert exists(replace(LARGE, channels=channels), direction) == fits
            assert exists(replace(LARGE, filters=channels), direction) == fits
    assert exists(replace(LARGE, strides=(2, 8))) and not exists(replace(LARGE, strides=(9, 1)))
    assert not exists(replace(LARGE, strides=(2, 1)), "dgrad")
    for padding, fits in ((128, True), (129, False)):
        assert exists(replace(LARGE, padding=((padding, 0), (1, 1)))) == fits
    for dilation, fits in ((64, True), (65, False)):
        shape = of((1, 200, 3, 64), (64, 3, 1, 64), dilation=(dilation, 1))
        assert exists(shape) == fits
    assert not exists(of((1, 8, 8, 8, 64), (64, 1, 1, 1, 64)))


def test_patches_are_for_small_windows_of_stride_1() -> None:
    def patched(shape: ConvShape) -> bool:
        found = WGMMA.plans(Problem("fprop", shape, "float16"))
        return any(plan.settings.tile.patches for plan in found)

    assert patched(LARGE)
    assert not patched(replace(LARGE, strides=(1, 2)))
    assert not patched(replace(LARGE, dilation=(2, 1)))
    assert not patched(of((1, 9, 9, 64), (64, 1, 1, 64)))
    assert patched(of((1, 9, 9, 64), (64, 1, 3, 64)))
    assert not patched(of((1, 9, 9, 64), (64, 1, 4, 64)))


@pytest.mark.parametrize("tile", wgmma_tiles.TILES, ids=lambda t: t.name)
def test_a_multiprocessor_holds_the_blocks(tile: wgmma_tiles.Tile) -> None:
    kernel = (wgmma.PATCH if tile.patches else wgmma.CONV)(("bfloat16", False), tile)
    assert kernel.dynamic_bytes == tile.dynamic_bytes <= 227 * 1024
    assert tile.blocks * (tile.dynamic_bytes + 1024) <= 228 * 1024
    assert tile.threads % 32 == 0 and tile.consumers * 64 * tile.group_pixels == (
        tile.teams * tile.filters * tile.pixels
    )


# N, channels, size, filters, window, and the microseconds of tiles on an H200 (bfloat16, with bias
# and ReLU, whole sums).
WIDE, SMALL, EVEN, SHORT, SOLO, TURNS, DEEP, FLAT, TWIN, HALF, LOW, PAIR, *CLUSTERS = (
    wgmma_tiles.TILES
)
MEASURED = [
    (
        32,
        256,
        14,
        256,
        3,
        {HALF: 14.5, SMALL: 16.4, EVEN: 20.4, LOW: 21.2, DEEP: 23.1, TWIN: 23.9, WIDE: 25.6},
    ),
    (
        32,
        64,
        56,
        64,
        3,
        {FLAT: 18.9, TWIN: 20.0, SMALL: 21.4, DEEP: 28.1, HALF: 28.8, WIDE: 32.0, EVEN: 35.2},
    ),
    (
        64,
        256,
        56,
        256,
        3,
        {
            DEEP: 290.0,
            FLAT: 295.8,
            WIDE: 310.4,
            EVEN: 335.8,
            TWIN: 336.8,
            HALF: 341.3,
            SMALL: 458.4,
            LOW: 549.7,
        },
    ),
    (
        32,
        128,
        28,
        128,
        3,
        {
            EVEN: 14.5,
            HALF: 15.8,
            TWIN: 15.9,
            WIDE: 16.9,
            SMALL: 18.1,
            DEEP: 18.7,
            LOW: 23.5,
            FLAT: 25.8,
        },
    ),
    (32, 256, 14, 1024, 1, {EVEN: 10.5, SMALL: 11.1, WIDE: 12.3}),
    (
        64,
        512,
        28,
        512,
        3,
        {WIDE: 292.0, EVEN: 299.8, DEEP: 316.7, TWIN: 387.5, HALF: 408.6, SMALL: 456.9, LOW: 597.2},
    ),
    (32, 1024, 14, 256, 1, {SMALL: 10.7, EVEN: 12.1, WIDE: 14.4}),
    (32, 512, 7, 512, 3, {LOW: 20.0, SMALL: 22.5, HALF: 23.1}),
    (
        64,
        64,
        224,
        64,
        3,
        {
            FLAT: 360.2,
            TWIN: 415.7,
            SMALL: 524.1,
            DEEP: 752.7,
            WIDE: 882.8,
            HALF: 898.0,
            EVEN: 1029.3,
        },
    ),
    (32, 64, 56, 256, 1, {WIDE: 19.5, EVEN: 19.9, SMALL: 21.2}),
    (32, 128, 28, 512, 1, {EVEN: 13.0, WIDE: 13.1, SMALL: 13.1}),
    (
        64,
        128,
        112,
        128,
        3,
        {
            DEEP: 312.6,
            FLAT: 320.3,
            WIDE: 339.6,
            EVEN: 378.0,
            HALF: 418.8,
            TWIN: 419.5,
            SMALL: 447.2,
            LOW: 598.1,
        },
    ),
    (32, 512, 28, 128, 1, {EVEN: 12.7, SMALL: 13.9, WIDE: 14.3}),
    (32, 512, 7, 2048, 1, {WIDE: 10.3, SMALL: 11.4, EVEN: 12.9}),
    (
        64,
        512,
        14,
        512,
        3,
        {EVEN: 75.7, SMALL: 92.9, HALF: 96.6, WIDE: 109.7, DEEP: 154.3, TWIN: 157.8, LOW: 163.5},
    ),
    (
        64,
        64,
        112,
        128,
        3,
        {
            DEEP: 173.5,
            FLAT: 179.7,
            WIDE: 186.3,
            EVEN: 199.2,
            TWIN: 204.0,
            HALF: 226.0,
            SMALL: 257.4,
            LOW: 288.2,
        },
    ),
    (
        64,
        128,
        56,
        256,
        3,
        {
            DEEP: 155.1,
            FLAT: 160.6,
            WIDE: 164.7,
            EVEN: 178.0,
            TWIN: 180.7,
            HALF: 199.0,
            SMALL: 216.8,
            LOW: 306.2,
        },
    ),
    (32, 256, 56, 64, 1, {SMALL: 20.8, EVEN: 22.6, WIDE: 23.0}),
    (32, 256, 56, 128, 1, {SMALL: 22.8, EVEN: 24.0, WIDE: 24.3}),
    (
        64,
        256,
        28,
        512,
        3,
        {WIDE: 152.8, EVEN: 155.8, DEEP: 164.8, TWIN: 194.8, HALF: 199.6, SMALL: 213.3, LOW: 311.6},
    ),
    (32, 512, 28, 256, 1, {EVEN: 15.4, SMALL: 16.7, WIDE: 17.7}),
    (32, 1024, 14, 512, 1, {EVEN: 12.9, WIDE: 14.9, SMALL: 16.4}),
    (32, 2048, 7, 512, 1, {SMALL: 13.8, EVEN: 18.2}),
    (32, 64, 56, 64, 1, {SMALL: 10.0, EVEN: 11.6, WIDE: 11.6}),
]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: "-".join(map(str, row[:5])))
def test_no_tile_was_much_faster_than_the_chosen_one(row: tuple) -> None:
    batch, channels, size, filters, window, times = row
    x_shape, w_shape = (batch, size, size, channels), (filters, window, window, channels)
    shape = of(x_shape, w_shape, padding=window // 2)
    problem = Problem("fprop", shape, "bfloat16")
    assert choose(problem).algorithm == "wgmma"
    plans = (plan for plan in WGMMA.plans(problem) if plan.settings.splits == 1)
    timed = (plan for plan in plans if plan.settings.tile in times)
    chosen = min(timed, key=lambda plan: WGMMA.cost(problem, plan))
    assert times[chosen.settings.tile] <= 1.13 * min(times.values())
    estimate = WGMMA.cost(problem, chosen)
    assert 0.7 < estimate / times[chosen.settings.tile] < 1.15


def test_clusters_have_whole_pairs_of_tiles() -> None:
    """With the same pixels, where tiles of filters are even in number; with the same filters,
    where a tile beyond the last image may be one of them."""
    wide, solo, low = CLUSTERS

    def tiles(outputs: int, direction: str = "fprop", batch: int = 3, **given) -> dict:
        channels, filters = (64, outputs) if direction == "fprop" else (outputs, 64)
        shape = of((batch, 7, 7, channels), (filters, 3, 3, channels), padding=1)
        plans = WGMMA.plans(Problem(direction, shape, **{"dtype": "bfloat16", **given}))
        clustered = [plan for plan in plans if plan.settings.tile.cluster > 1]
        assert all(plan.grid[0] % 2 == plan.settings.tiles % 2 == 0 for plan in clustered)
        return {p.settings.tile: p.settings.tiles for p in clustered if p.settings.splits == 1}

    for direction in ("fprop", "dgrad"):
        assert tiles(64, direction) == {low: 4}
        assert tiles(128, direction) == {solo: 4, low: 4}
        assert tiles(200, direction) == {wide: 2, solo: 8, low: 8}
        assert tiles(256, direction, batch=4) == {wide: 2, solo: 8, low: 8}
    assert tiles(128, dtype="float32", math="tf32") == {solo: 4, low: 4}
    for tile in CLUSTERS:
        alone = replace(tile, cluster=1)
        assert alone in wgmma_tiles.TILES and tile.dynamic_bytes == alone.dynamic_bytes
        assert wgmma_tiles.TIMES[tile][1] < wgmma_tiles.TIMES[alone][1]


def test_small_maps_are_split() -> None:
    shape = of((32, 7, 7, 512), (512, 3, 3, 512), padding=1)
    splits = {
        plan.settings.splits
        for plan in WGMMA.plans(Problem("fprop", shape, "bfloat16"))
        if plan.settings.tile == WIDE
    }
    assert splits == {1, 4}
    for direction in ("fprop", "dgrad"):
        for plan in WGMMA.plans(Problem(direction, shape, "bfloat16")):
            settings, steps = plan.settings, 9 * 512 // 64
            assert settings.splits == ceil_div(steps, settings.steps_per_split)
