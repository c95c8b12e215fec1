"""Run every operation once, on small odd shapes: ``python -m profiling.gpu.sanitized``.

A short program for compute-sanitizer, which runs everything ten to a hundred times slower, and the
substitute for the tests where pytest is missing: with ``--compare`` each result is held against the
tests' reference. Needs NumPy and ml_dtypes, and CuPy for ``--backend cuda``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gpucnn.backends import get_backend
from gpucnn.backends.base import (
    ACTIVATIONS,
    FROM_OUTPUT,
    POINTWISE_LOSSES,
    Backend,
    NormOnLoad,
    accumulator,
)
from gpucnn.backends.cuda.algorithms import (
    ALGORITHMS,
    DIRECTIONS,
    LADDER,
    Algorithm,
    Plan,
    Problem,
)
from gpucnn.backends.cuda.plans import choose
from gpucnn.changes import Changes
from gpucnn.shapes import ConvShape, NormShape, PoolShape
from tests import reference
from tests.cases import CONVS, DTYPES, NORMS, POOLS, in_layout, random

from .accuracy import LIMITS, number_format, relative_error
from .jobs import Deadline

CONV_NAMES = (
    "plain", "everything", "depthwise", "grouped_few", "grouped_tiles", "many_tiles",
    "dense", "stem", "vectors", "whole_steps", "wide_filters", "1d_causal", "3d_everything",
)  # fmt: skip
# of which gradients are gathered on wgmma
STRIDED = ConvShape.of((2, 9, 9, 64), (64, 3, 3, 64), strides=(2, 2), padding=((1, 1), (1, 1)))
POOL_NAMES = ("overlapping", "ceil_padded", "dilated", "1d", "3d", "units", "halves", "global")
EPSILON, SMOOTHING, SCALE = 1e-3, 0.1, 0.37
DECAYS = (0.05, 0.0, 0.01)
SGD = {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}
ADAM = {
    "learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.98, "epsilon": 1e-3,
    "correction_1": 0.19, "correction_2": 0.0396, "decoupled": True,
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """An operation of a backend on NumPy arrays, and what the reference makes of them.

    The results of one that works in place are those arguments, by their numbers, arrays or lists.
    Of a convolution's ``algorithm`` the best plan is run, in place of the one that is chosen,
    with ``math``.
    """

    operation: str
    arguments: tuple
    keywords: dict[str, Any]
    expected: Callable[[], Any]
    in_place: tuple[int, ...] = ()
    algorithm: Algorithm | None = None
    math: str = "strict"


def call(operation: str, *arguments: Any) -> Call:
    return Call(operation, arguments, {}, lambda: getattr(reference, operation)(*arguments))


def calls(name: str, architecture: int | None = None) -> Iterator[Call]:
    """Yield the calls in one dtype; float32 has all kinds of activation and loss.

    architecture: of the GPU, 90 for sm_90; None for a backend without kernels.
    """
    dtype, everything = DTYPES[name], name == "float32"
    yield from convolutions(dtype)
    if architecture is not None:
        yield from masked_convolutions(dtype)
        yield from normed_convolutions(dtype)
        yield from algorithms(name, architecture)
    yield from poolings(dtype)
    yield from pooled_convolutions(dtype)
    yield from norms(dtype)
    yield from pooled_norms(dtype)
    yield from rows(dtype, everything)
    yield from elementwise(dtype, everything)
    yield from updates(dtype)
    yield from batches(dtype)


def directions(dtype: np.dtype, s: ConvShape) -> Iterator[Call]:
    x, w = random("x", s.x_shape, dtype), random("w", s.w_shape, dtype)
    dy = random("dy", s.y_shape, dtype)
    yield call("conv_fprop", x, w, random("b", (s.filters,), dtype), s)
    yield call("conv_dgrad", dy, w, random("b", (s.channels,), dtype), s)
    yield call("conv_wgrad", x, dy, s)


def convolutions(dtype: np.dtype) -> Iterator[Call]:
    for name in CONV_NAMES:
        for channels_last in (True, False) if name in ("plain", "everything") else (True,):
            yield from directions(dtype, replace(CONVS[name], channels_last=channels_last))
    fprop = next(directions(dtype, CONVS["plain"]))
    yield replace(
        fprop,
        keywords={"activation": "relu"},
        expected=lambda: np.maximum(reference.conv_fprop(*fprop.arguments), 0),
    )
    for name in ("plain", "vectors_strided"):
        x, s = random("x", CONVS[name].x_shape, dtype), CONVS[name]
        _, dgrad, _ = directions(dtype, s)
        dy, w, _, _ = dgrad.arguments
        yield replace(
            dgrad,
            operation="conv_dgrad_through",
            arguments=(dy, w, s, x, "relu", 0.0),
            expected=partial(_through, x, dy, w, s),
        )
        yield replace(
            dgrad,
            arguments=(dy, w, None, s),
            keywords={"residual": x},
            expected=partial(_onto, x, dy, w, s),
        )


def _through(x: np.ndarray, dy: np.ndarray, w: np.ndarray, s: ConvShape) -> np.ndarray:
    return np.where(x > 0, reference.conv_dgrad(dy, w, None, s), 0)


def _onto(others: np.ndarray, dy: np.ndarray, w: np.ndarray, s: ConvShape) -> np.ndarray:
    return reference.conv_dgrad(dy, w, None, s) + others


def masked_convolutions(dtype: np.dtype) -> Iterator[Call]:
    """Of whole numbers, whose signs are exact; without a mask where it would take a pass."""
    for s in (CONVS["vectors"], STRIDED, replace(STRIDED, strides=(1, 1))):
        shapes = {"x": s.x_shape, "w": s.w_shape, "b": (s.filters,)}
        arrays = [np.round(random(name, shape, dtype)) for name, shape in shapes.items()]
        y = np.maximum(reference.conv_fprop(*arrays, s), 0)
        expected = [y, reference.activation_mask(y, "relu", 0.0)]
        yield Call("conv_fprop_masked", (*arrays, s), {}, partial(list, expected))


def normed_convolutions(dtype: np.dtype) -> Iterator[Call]:
    """Of one tap, which tensor cores read through a batch norm, pixels that end inside a tile."""
    s, accum = ConvShape.of((2, 9, 11, 24), (16, 1, 1, 24)), accumulator(dtype)
    x, w, dy = (
        random(name, shape, dtype)
        for name, shape in (("x", s.x_shape), ("w", s.w_shape), ("dy", s.y_shape))
    )
    gamma, beta = (random(name, (s.channels,), dtype) for name in ("gamma", "beta"))
    mean, var = random("mean", (s.channels,), accum), random("var", (s.channels,), accum, 0.5, 2)
    norm = NormOnLoad(gamma, beta, mean, var, EPSILON, "relu6")
    z = reference.batch_norm_infer(x, *norm[:5], NormShape.of(s.x_shape), "relu6")
    z, b = z.reshape(s.x_shape).astype(dtype), np.zeros(s.filters)
    for given, arguments in ((call("conv_fprop", z, w, b, s), (x, w, None, s)),
                             (call("conv_wgrad", z, dy, s), (x, dy, s))):  # fmt: skip
        yield replace(given, arguments=arguments, keywords={"on_load": norm})


def algorithms(name: str, architecture: int) -> Iterator[Call]:
    """Every algorithm on the convolutions that it applies to, and with what "tf32" ... add."""
    for shape in (*(CONVS[case] for case in CONV_NAMES), STRIDED):
        for given in directions(DTYPES[name], shape):
            strict: set[Plan] = set()
            for math in ("strict", "tf32", "fp32x3"):
                problem = problem_of(replace(given, math=math), architecture)
                for algorithm in (*ALGORITHMS.values(), *LADDER.values()):
                    plans = set(filter(Plan.is_legal, algorithm.plans(problem)))
                    if plans - strict:
                        yield replace(given, algorithm=algorithm, math=problem.math)
                    strict |= plans


# What is asked for besides; a map as small as these is worth no pass for a mask.
ASKED = {"masked": {"activation": "relu"}, "through": {"through": True}}


def problem_of(given: Call, architecture: int) -> Problem:
    _, direction, *asked = given.operation.split("_")
    shape = next(each for each in given.arguments if isinstance(each, ConvShape))
    options = {key: value for name in asked for key, value in ASKED[name].items()}
    options |= {"prologue": "on_load" in given.keywords, "residual": "residual" in given.keywords}
    dtype = given.arguments[0].dtype.name
    return Problem(direction, shape, dtype, architecture=architecture, math=given.math, **options)


def runs_by(given: Call, architecture: int) -> str | None:
    """Return the algorithm that a convolution runs by, None for another operation."""
    if given.algorithm:
        return given.algorithm.name
    if given.operation.startswith(tuple(f"conv_{direction}" for direction in DIRECTIONS)):
        return choose(problem_of(given, architecture)).algorithm
    return None


def poolings(dtype: np.dtype) -> Iterator[Call]:
    for name in POOL_NAMES:
        for mode in ("max", "min", "average", "sum"):
            s = replace(POOLS[name], mode=mode, channels_last=mode in ("max", "sum"))
            x, dy = random("x", s.x_shape, dtype), random("dy", s.y_shape, dtype)
            keeps = mode in ("max", "min")
            index = reference.pool_forward(x, s)[1].astype(s.index_dtype) if keeps else None
            yield call("pool_forward", x, s)
            yield call("pool_backward", dy, index, s)


def pooled_convolutions(dtype: np.dtype) -> Iterator[Call]:
    """Of whole numbers: the sums are exact, and which of several equal ones is chosen shows.

    Of few channels, and of as many as tensor cores take, whose windows are whole.
    """
    for name, channels_last in (
        ("stem_strided", True),
        ("stem_strided", False),
        ("vectors_dilated", True),
    ):
        s = replace(CONVS[name], channels_last=channels_last)
        ceil_mode = name == "stem_strided"
        p = PoolShape.of(
            s.y_shape, 2, mode="max", rank=2, ceil_mode=ceil_mode, channels_last=channels_last
        )
        shapes = {"x": s.x_shape, "w": s.w_shape, "b": (s.filters,), "dy": p.y_shape}
        x, w, b, dy = (np.round(random(n, shape, dtype)) for n, shape in shapes.items())
        z = reference.conv_fprop(x, w, b, s)
        y, index = reference.pool_forward(z, p)
        dz = reference.pool_backward(dy, index, p)
        db = dz.sum((0, 1, 2) if channels_last else (0, 2, 3))
        expected = [y, index], [reference.conv_wgrad(x, dz, s), db]
        given = dy, y.astype(dtype), index.astype(p.index_dtype), x
        yield Call("conv_pool_forward", (x, w, b, s, p), {}, partial(list, expected[0]))
        yield Call("conv_pool_backward", (*given, s, p), {}, partial(list, expected[1]))


def norms(dtype: np.dtype) -> Iterator[Call]:
    accum = accumulator(dtype)
    for name, channels_last in (
        ("image", True), ("wide", True), ("long", True), ("volume", False),
    ):  # fmt: skip
        s = replace(NORMS[name], channels_last=channels_last)
        x, dy = (
            in_layout(random(n, (s.batch, s.length, s.channels), dtype), channels_last)
            for n in ("x", "dy")
        )
        gamma, beta = random("gamma", (s.channels,), dtype), random("beta", (s.channels,), dtype)
        mean, var = (a.astype(accum) for a in reference.batch_norm_train(x, gamma, beta, 1, s)[1:])
        yield call("batch_norm_train", x, gamma, beta, EPSILON, s)
        yield call("batch_norm_infer", x, gamma, beta, mean, var, EPSILON, s)
        yield call("batch_norm_backward", dy, x, gamma, mean, var, EPSILON, True, s)
        yield call("batch_norm_train", x, gamma, beta, EPSILON, s, "relu", dy)
        far = (5 * gamma).astype(dtype), (5 * beta).astype(dtype)
        yield call("batch_norm_train", x, *far, EPSILON, s, "relu6")
        yield call("batch_norm_backward", dy, x, gamma, mean, var, EPSILON, True, s, "relu", beta)
        yield call(
            "batch_norm_backward", dy, x, gamma, mean, var, EPSILON, True, s, "relu", None, x
        )
        mean, var = (
            a.astype(accum) for a in reference.group_norm_forward(x, gamma, beta, 1, s)[1:]
        )
        yield call("group_norm_forward", x, gamma, beta, EPSILON, s)
        yield call("group_norm_backward", dy, x, gamma, mean, var, EPSILON, s)
        yield call("bias_grad", dy, s)
        slope = random("slope", (s.channels,), dtype)
        yield call("prelu_forward", x, slope, s)
        yield call("prelu_backward", dy, x, slope, s)


def pooled_norms(dtype: np.dtype) -> Iterator[Call]:
    """Units of an element, and of 16 bytes."""
    for channels in (3, 16):
        p = PoolShape.of((3, 33, 31, channels), 2, mode="max", rank=2)
        s, x = NormShape.of(p.x_shape), random("x", p.x_shape, dtype)
        gamma, beta = (random(name, (channels,), dtype) for name in ("gamma", "beta"))

        def expected(given=(x, gamma, beta, EPSILON, s), p=p) -> list[np.ndarray]:
            y, mean, var = reference.batch_norm_train(*given)
            return [reference.pool_forward(y, p)[0], mean, var]

        yield Call(
            "batch_norm_pool_train",
            (x, gamma, beta, EPSILON, s, p),
            {"with_index": False},
            expected,
        )


def rows(dtype: np.dtype, everything: bool) -> Iterator[Call]:
    """Rows of a warp, and of a block."""
    for shape in ((5, 37), (3, 301)):
        x, dy = random("x", shape, dtype, -3, 3), random("dy", shape, dtype)
        for log in (False, True):
            y = reference.softmax_forward(x, log).astype(dtype)
            yield call("softmax_forward", x, log)
            yield call("softmax_backward", dy, y, log)
        labels = np.arange(shape[0], dtype=np.int64) * 7
        for targets in (labels, labels.astype(np.int32), np.abs(dy)):
            yield call("softmax_cross_entropy", x, targets, SMOOTHING, SCALE)
    losses, hits = random("losses", (9000,), accumulator(dtype)), np.arange(9000) % 3 == 0
    means = losses.astype(np.float64).mean(), hits.mean()
    yield Call("loss_means", (losses, hits), {}, lambda: list(map(np.array, means)))
    for kind in sorted(POINTWISE_LOSSES if everything else {"mse"}):
        yield call("pointwise_loss", x, dy, kind, SCALE)


def elementwise(dtype: np.dtype, everything: bool) -> Iterator[Call]:
    x, dy = random("x", (3, 7, 13), dtype, -3, 3), random("dy", (3, 7, 13), dtype)
    for kind in sorted(ACTIVATIONS if everything else {"relu", "gelu"}):
        y = reference.activation_forward(x, kind, 0.5).astype(dtype)
        yield call("activation_forward", x, kind, 0.5)
        yield call("activation_backward", dy, y if kind in FROM_OUTPUT else x, kind, 0.5)
    sums = x.astype(np.float64) + dy.astype(np.float64)
    yield Call("add", (x, dy, "relu"), {}, lambda: np.maximum(sums, 0))
    yield call("dropout", x, 0.3, 12345, 7)
    yield from masked(x, dy)
    wide = random("wide", (37, 5), accumulator(dtype))
    yield Call("rounded", (wide, dtype), {}, partial(wide.astype, dtype))
    for maps in (x, random("x", (2, 72, 40), dtype)):
        yield Call("change_layout", (maps,), {}, partial(maps.transpose, (0, 2, 1)))


def masked(x: np.ndarray, dy: np.ndarray) -> Iterator[Call]:
    y, draws = reference.activation_forward(x, "relu", 0.0).astype(x.dtype), (0.3, 12345, 7)
    mask, dropped = reference.activation_mask(y, "relu", 0.0), reference.dropout(y, *draws)
    yield Call("activation_masked", (x, "relu", 0.0), {}, lambda: [y, mask])
    yield call("activation_mask", y, "relu", 0.0)
    yield call("mask_backward", dy, mask, (0, 1, 2), 0.25, 1.5)
    drop_mask = reference.activation_mask(dropped, "relu", 0.0)
    arguments = (y, "relu", 0.0, *draws)
    yield Call("dropout_masked", arguments, {}, lambda: [dropped, drop_mask])


def updates(dtype: np.dtype) -> Iterator[Call]:
    shapes, accum = ((3, 5, 7), (1,), (2, 2051)), accumulator(dtype)
    params, grads = ([random(n, shape, dtype) for shape in shapes] for n in ("p", "g"))
    states = [[random(n, shape, accum, 0) for shape in shapes] for n in ("m", "v")]
    norm = np.array(reference.global_norm(grads))
    yield Call("gradient_scale", (grads,), {"clip_norm": 0.1}, lambda: [norm, 0.1 / norm])
    masters = None if accum == dtype else [np.zeros(shape, accum) for shape in shapes]
    for operation, settings, count in (("sgd_update", SGD, 1), ("adam_update", ADAM, 2)):
        kept = states[:count]

        def expected(operation=operation, settings=settings, kept=kept) -> list[np.ndarray]:
            update = getattr(reference, operation)
            tensors = zip(params, grads, *kept, DECAYS, strict=True)
            updated = [update(*tensor, grad_scale=1.0, **settings) for tensor in tensors]
            return [array for column in zip(*updated, strict=True) for array in column]

        arguments = (params, grads, *kept, DECAYS)
        keywords = {"grad_scale": None, "masters": masters, **settings}
        yield Call(operation, arguments, keywords, expected, (0, *range(2, 2 + count)))
    common = {"grad_scale": None, "masters": masters}
    slow = states[0]
    ahead = [reference.lookahead_update(*t, 0.3) for t in zip(params, slow, strict=True)]
    keywords = {"share": 0.3, **common}
    yield Call("lookahead_update", (params, slow), keywords, lambda: [*ahead, *ahead], (0, 1))
    yield from muon(params, grads, slow, common)


def muon(
    params: list[np.ndarray], grads: list[np.ndarray], velocities: list[np.ndarray],
    common: dict[str, Any],
) -> Iterator[Call]:  # fmt: skip
    momenta = [
        reference.muon_momentum(g, v, 0.9, True, 1.0)[0]
        for g, v in zip(grads, velocities, strict=True)
    ]
    directions = [u / reference.global_norm([u]) for u in momenta]
    settings = {"momentum": 0.9, "nesterov": True, "grad_scale": None}
    yield Call("muon_direction", (grads, velocities), settings, lambda: directions)
    a, b = (random(name, (37, 37), params[0].dtype) for name in "ab")
    polynomial = 3 * np.eye(37) - 4 * a.astype(np.float64) + 2 * b.astype(np.float64)
    yield Call("newton_schulz", (a, b, (3.0, -4.0, 2.0)), {}, lambda: polynomial)
    tensors = zip(params, grads, DECAYS, strict=True)
    updated = [p - 0.1 * (g + decay * p.astype(np.float64)) for p, g, decay in tensors]
    settings = {"learning_rate": 0.1, **common}
    yield Call("muon_update", (params, grads, DECAYS), settings, lambda: updated, (0,))


def batches(dtype: np.dtype) -> Iterator[Call]:
    images = np.random.default_rng(0).integers(0, 256, (4, 11, 9, 3), np.uint8)
    order, table = np.array([2, 0, 3, 1], np.int32), random("table", (256, 3), dtype)
    options = {"shift": 2, "fill": None, "flip": 0.5, "cutout": 5}
    given = images, np.arange(4), order, 5 * 2**32 + 1, 3, table, Changes(**options), 8
    expected = reference.gather_batch(*given[:3], 5, 1, 3, table, 8, **options)
    yield Call("gather_batch", given, {}, lambda: expected)
    values = [np.array(i / 3, accumulator(dtype)) for i in range(3)]
    ring = np.zeros((4, 3))
    ring[2] = values
    yield Call("collect", (values, np.zeros((4, 3)), 2), {}, lambda: ring, (1,))


def run(backend: Backend, given: Call) -> list[np.ndarray]:
    """Run a call on the backend and bring its results here."""

    def moved(argument: Any) -> Any:
        if isinstance(argument, np.ndarray):
            return backend.asarray(argument.copy())
        if isinstance(argument, NormOnLoad):
            return NormOnLoad(*map(moved, argument))
        return [moved(a) for a in argument] if isinstance(argument, list) else argument

    arguments = [moved(argument) for argument in given.arguments]
    keywords = {name: moved(argument) for name, argument in given.keywords.items()}
    if given.algorithm:
        problem = problem_of(given, backend.launcher.architecture)
        plans = filter(Plan.is_legal, given.algorithm.plans(problem))
        plan = min(plans, key=lambda plan: given.algorithm.cost(problem, plan))
        results = given.algorithm.run(backend, problem, plan, *arguments[:-1])
    else:
        results = getattr(backend, given.operation)(*arguments, **keywords)
    if given.in_place:
        changed = [arguments[place] for place in given.in_place]
        results = [a for group in changed for a in (group if isinstance(group, list) else [group])]
    results = results if isinstance(results, (tuple, list)) else [results]
    return [backend.to_numpy(array) for array in results if array is not None]


def wrong(results: Sequence[np.ndarray], expected: Any, limit: float) -> str:
    """Return how results differ from what is expected, "" if they do not."""
    expected = expected if isinstance(expected, (tuple, list)) else [expected]
    pairs = zip(results, expected, strict=False)  # the reference has an index for averages, too
    for place, (got, exact) in enumerate(pairs):
        error = relative_error(got.astype(np.float64), exact.astype(np.float64))
        if not error <= limit:
            return f"result {place} is off by {error:.3g}"
    return ""


def backend_named(name: str) -> Backend:
    if name != "emulated":
        backend = get_backend(name)
        if name == "cuda":  # an allocation an array, so that a bound is where the array ends
            backend.xp.cuda.set_allocator(None)
        return backend
    from gpucnn.backends.cuda.backend import CudaBackend
    from tests.emulator_launcher import EmulatorLauncher

    return CudaBackend(np, EmulatorLauncher("fast"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the calls and return 1 if any of them failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m profiling.gpu.sanitized", description=__doc__)
    parser.add_argument("--backend", choices=("cuda", "emulated", "numpy"), default="cuda")
    parser.add_argument("--compare", action="store_true", help="with the tests' reference")
    parser.add_argument("--dtype", nargs="+", choices=tuple(DTYPES), help="by default all four")
    parser.add_argument("--skip", nargs="+", default=(), choices=ALGORITHMS, metavar="ALGORITHM")
    parser.add_argument("--seconds", type=float, default=3600, help="stop cleanly after these")
    options = parser.parse_args(arguments)
    deadline, backend = Deadline(options.seconds), backend_named(options.backend)
    done = failed = skipped = 0
    architecture = getattr(getattr(backend, "launcher", None), "architecture", None)
    names = options.dtype or ("float32", "float16", "float64", "bfloat16")
    for name in names:
        for given in calls(name, architecture):
            if deadline.left() == 0:
                print(f"{done} calls, {failed} failed; stopped in {name} after {options.seconds} s")
                return int(failed > 0)
            if options.skip and runs_by(given, architecture) in options.skip:
                skipped += 1
                continue
            try:
                results = run(backend, given)
                limit = LIMITS[
                    f"float32 {given.math}" if name == "float32" else number_format(name)
                ]
                message = wrong(results, given.expected(), limit) if options.compare else ""
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
            done, failed = done + 1, failed + bool(message)
            if message:
                how = f" by {given.algorithm.name}" if given.algorithm else ""
                how += f" with {given.math}" if given.math != "strict" else ""
                print(f"{given.operation}{how} in {name}: {message}", flush=True)
    left_out = f", {skipped} left out ({', '.join(options.skip)})" if skipped else ""
    print(f"{done} calls, {failed} failed{left_out}; {', '.join(names)}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
