"""The optimizers, over many tensors at once and in place, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.backends.base import Backend, accumulator
from tests import reference
from tests.cases import DTYPES, random
from tests.tolerance import assert_close

from .conftest import same_bits

SHAPES = [(3, 5, 7), (1,), (0, 4), (2, 1031), (64,), ()]
STEPS = 3
ROUNDINGS = 12  # of one update: the second moment of Adam, its root and its quotient


def tensors(name: str, dtype: Any, low: float = -1, shapes: Any = SHAPES) -> list[np.ndarray]:
    return [random(f"{name} {i}", shape, dtype, low) for i, shape in enumerate(shapes)]


def check_updates(
    backend: Backend, operation: str, dtype: str, states: int, scale: float | None,
    settings: Any, shapes: Any = SHAPES,
) -> None:  # fmt: skip
    """Take a few steps from given states and compare every tensor after each of them.

    ``settings`` gives the keywords of a step. Each step starts from the backend's own results, so
    that the tolerance is that of one update.
    """
    to_device, accum = backend.asarray, accumulator(DTYPES[dtype])
    decays = [0.0 if i % 3 == 1 else 0.05 for i in range(len(shapes))]
    now = [tensors("p", DTYPES[dtype], shapes=shapes)]
    now += [tensors(f"state {i}", accum, low=0, shapes=shapes) for i in range(states)]
    device = [[to_device(a.copy()) for a in group] for group in now]
    given = [list(group) for group in device]
    clip = None if scale is None else to_device(np.array(scale))
    update = getattr(reference, operation)
    for step in range(1, STEPS + 1):
        grads = tensors(f"grad {step}", DTYPES[dtype], shapes=shapes)
        on_device = [to_device(g.copy()) for g in grads]
        params, *state = device
        getattr(backend, operation)(
            params, on_device, *state, decays, grad_scale=clip, **settings(step)
        )
        for group, objects in zip(device, given, strict=True):
            assert all(a is b for a, b in zip(group, objects, strict=True)), "not in place"
        for g, moved in zip(grads, on_device, strict=True):
            assert same_bits(g, backend.to_numpy(moved)), "a gradient was changed"
        after = [[backend.to_numpy(a) for a in group] for group in device]
        for i, g in enumerate(grads):
            old = [group[i] for group in now]
            factor = 1.0 if scale is None else scale
            arguments = (old[0], g, *old[1:], decays[i])
            expected = update(*arguments, grad_scale=factor, **settings(step))
            for what, group, value, kind in zip(
                ("parameter", "state", "second state"), after, expected,
                (DTYPES[dtype], accum, accum), strict=False,
            ):  # fmt: skip
                # every number here and every term is at most 3
                assert_close(
                    group[i], value, dtype=kind, reduction=ROUNDINGS, magnitude=3.0,
                    what=f"{what} {i} after step {step}",
                )  # fmt: skip
        now = after


@pytest.mark.parametrize("scale", [None, 0.37])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd(every_backend, momentum, nesterov, dtype, scale):
    def settings(step: int) -> dict[str, Any]:
        return {"learning_rate": 0.1 / step, "momentum": momentum, "nesterov": nesterov}

    check_updates(every_backend, "sgd_update", dtype, 1, scale, settings)


@pytest.mark.parametrize("scale", [None, 0.37])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(every_backend, decoupled, dtype, scale):
    def settings(step: int) -> dict[str, Any]:
        return {
            "learning_rate": 0.1 / step, "beta_1": 0.9, "beta_2": 0.98, "epsilon": 1e-3,
            "correction_1": 1 - 0.9**step, "correction_2": 1 - 0.98**step, "decoupled": decoupled,
        }  # fmt: skip

    check_updates(every_backend, "adam_update", dtype, 2, scale, settings)


def test_more_tensors_than_one_launch_may_take(every_backend):
    shapes = [(1 + i % 5,) for i in range(403)]

    def settings(step: int) -> dict[str, Any]:
        return {"learning_rate": 0.1, "momentum": 0.9, "nesterov": False}

    check_updates(every_backend, "sgd_update", "float32", 1, None, settings, shapes)


def test_large_tensors(every_backend):
    def settings(step: int) -> dict[str, Any]:
        return {
            "learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.98, "epsilon": 1e-3,
            "correction_1": 1 - 0.9**step, "correction_2": 1 - 0.98**step, "decoupled": True,
        }  # fmt: skip

    shapes = [(139, 1001), (3,), (65537,)]
    check_updates(every_backend, "adam_update", "float32", 2, 0.5, settings, shapes)


def test_no_tensors_at_all(every_backend):
    every_backend.sgd_update(
        [], [], [], [], learning_rate=0.1, momentum=0.9, nesterov=False, grad_scale=None
    )
    every_backend.adam_update(
        [], [], [], [], [], learning_rate=0.1, beta_1=0.9, beta_2=0.99, epsilon=1e-8,
        correction_1=0.1, correction_2=0.01, decoupled=False, grad_scale=None,
    )  # fmt: skip


# ---- masters: what 16-bit parameters are the rounding of -------------------------------------


UPDATES = {
    "sgd_update": (1, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam_update": (2, {
        "learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.98, "epsilon": 1e-3, "correction_1": 0.19,
        "correction_2": 0.0396, "decoupled": True,
    }),
}  # fmt: skip
updates = pytest.mark.parametrize("operation", UPDATES)


def drawn(operation: str, dtype: Any) -> tuple[list[list[np.ndarray]], list[float]]:
    """Return parameters, gradients and states, and the weight decays."""
    p, grads = tensors("p", dtype), tensors("grad", dtype)
    states = [tensors(f"state {i}", accumulator(dtype), 0) for i in range(UPDATES[operation][0])]
    return [p, grads, *states], [0.05] * len(SHAPES)


def moved(backend: Backend, groups: list[list[np.ndarray]]) -> list[list[Any]]:
    return [[backend.asarray(a.copy()) for a in group] for group in groups]


def fetched(backend: Backend, groups: list[list[Any]]) -> list[np.ndarray]:
    return [backend.to_numpy(a) for group in groups for a in group]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@updates
def test_a_parameter_is_the_rounding_of_its_master(every_backend, operation, dtype):
    """Where it is not, somebody changed the parameter, or the master is new."""
    dtype, settings = DTYPES[dtype], UPDATES[operation][1]
    groups, decays = drawn(operation, dtype)
    wide = tensors("p", np.float32)
    current = [a.astype(dtype) == p for a, p in zip(wide, groups[0], strict=True)]
    assert all(c.all() for c in current)
    for place, master in enumerate(wide):  # none of one tensor is, and a few of the others
        master.reshape(-1)[:: 3 if place else 1] = 0.0
    current = [a.astype(dtype) == p for a, p in zip(wide, groups[0], strict=True)]
    start = [np.where(c, a, p.astype(np.float32))
             for c, a, p in zip(current, wide, groups[0], strict=True)]  # fmt: skip

    device, masters = moved(every_backend, groups), moved(every_backend, [wide])[0]
    getattr(every_backend, operation)(*device, decays, grad_scale=None, masters=masters, **settings)
    for i, (p, master) in enumerate(zip(device[0], masters, strict=True)):
        expected = getattr(reference, operation)(
            start[i], *(group[i] for group in groups[1:]), decays[i], grad_scale=1.0, **settings
        )
        got = every_backend.to_numpy(master)
        assert_close(got, expected[0], dtype=np.float32, reduction=ROUNDINGS, magnitude=3.0)
        assert same_bits(every_backend.to_numpy(p), got.astype(dtype))


@updates
def test_small_steps_add_up_in_a_master(every_backend, operation):
    """A thousandth of a bfloat16's last place is lost from it each time; its master keeps it."""
    settings = UPDATES[operation][1] | {"learning_rate": 2.0**-18}
    if operation == "sgd_update":
        settings |= {"momentum": 0.0, "nesterov": False}
    p = every_backend.asarray(np.ones(300, DTYPES["bfloat16"]))
    gradient = every_backend.asarray(np.full(300, -1.0, DTYPES["bfloat16"]))
    slots = [every_backend.asarray(np.zeros(300, np.float32)) for _ in range(3)]
    states, master = slots[: UPDATES[operation][0]], slots[-1]
    for _ in range(20):
        getattr(every_backend, operation)(
            [p], [gradient], *([s] for s in states), [0.0], grad_scale=None, masters=[master],
            **settings,
        )  # fmt: skip
    got = every_backend.to_numpy(master)
    assert (got > 1 + 15 * 2.0**-18).all() and (every_backend.to_numpy(p) == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@updates
def test_numbers_may_lie_on_the_device(every_backend, operation, dtype):
    """As in a step that is recorded: the bits are those of numbers by value."""
    groups, decays = drawn(operation, DTYPES[dtype])
    results = []
    for place in (np.float64, lambda number: every_backend.asarray(np.array(number))):
        device = moved(every_backend, groups)
        settings = dict(UPDATES[operation][1])
        for name in ("learning_rate", "correction_1", "correction_2"):
            if name in settings:
                settings[name] = place(settings[name])
        getattr(every_backend, operation)(*device, decays, grad_scale=None, **settings)
        results.append(fetched(every_backend, device))
    assert all(map(same_bits, *results))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", [*UPDATES, "muon_update"])
def test_a_factor_of_the_rate_is_as_another_rate(every_backend, operation, dtype):
    if operation in UPDATES:
        (groups, decays), settings = drawn(operation, DTYPES[dtype]), UPDATES[operation][1]
    else:
        groups = [tensors("p", DTYPES[dtype]), tensors("step", DTYPES[dtype])]
        decays, settings = [0.05] * len(SHAPES), {"learning_rate": 0.1}
    factors = [1.0, 2.0, 0.5, 64.0, 0.1, 3.0]
    together, apart = moved(every_backend, groups), moved(every_backend, groups)
    update = getattr(every_backend, operation)
    update(*together, decays, grad_scale=None, rate_factors=factors, **settings)
    for i, factor in enumerate(factors):
        own = settings | {"learning_rate": settings["learning_rate"] * factor}
        update(*([group[i]] for group in apart), decays[i : i + 1], grad_scale=None, **own)
    assert all(map(same_bits, fetched(every_backend, together), fetched(every_backend, apart)))


@pytest.mark.parametrize("dtype", DTYPES)
@updates
def test_a_scale_of_zero_changes_nothing(every_backend, operation, dtype):
    groups, decays = drawn(operation, DTYPES[dtype])
    groups[1][0].reshape(-1)[::2] = np.nan
    masters = tensors("master", accumulator(DTYPES[dtype]))
    device = moved(every_backend, [*groups, masters])
    getattr(every_backend, operation)(
        *device[:-1], decays, grad_scale=every_backend.asarray(np.array(0.0)), masters=device[-1],
        **UPDATES[operation][1],
    )  # fmt: skip
    assert all(
        map(same_bits, fetched(every_backend, device), [a for g in (*groups, masters) for a in g])
    )


# ---- lookahead -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_lookahead(every_backend, dtype):
    """Three times: not at all, from masters and slow weights, and from what came of it."""
    dtype, accum = DTYPES[dtype], accumulator(DTYPES[dtype])
    wide, slow = tensors("p", accum), tensors("slow", accum)
    device = moved(every_backend, [[a.astype(dtype) for a in wide], slow, wide])
    kept = device[2] if accum != dtype else None
    for share in (0.0, 0.3, every_backend.asarray(np.array(0.3))):
        every_backend.lookahead_update(*device[:2], share=share, grad_scale=None, masters=kept)
        for i, mean in enumerate(slow):
            got, got_mean = (every_backend.to_numpy(group[i]) for group in device[:2])
            if isinstance(share, float) and share == 0:
                assert same_bits(got, wide[i].astype(dtype)) and same_bits(got_mean, mean)
                continue
            expected = reference.lookahead_update(wide[i], mean, 0.3)
            assert_close(got_mean, expected, dtype=accum, reduction=4, magnitude=3.0)
            assert same_bits(got, got_mean.astype(dtype))
            wide[i] = slow[i] = got_mean


# ---- the norm of all gradients, and what follows from it -------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_of_all_gradients(run, dtype):
    arrays = tensors("g", DTYPES[dtype])
    count = sum(a.size for a in arrays)
    norm, factor = run("gradient_scale", arrays)
    assert_close(norm, np.array(reference.global_norm(arrays)), reduction=count)
    assert factor == 1


def test_the_norm_of_many_elements(run):
    arrays = [random("g", shape, np.float32) for shape in ((139, 1001), (3,), (65537,))]
    expected = np.array(reference.global_norm(arrays))
    assert_close(run("gradient_scale", arrays)[0], expected, reduction=204679)


def test_the_norm_of_several_dtypes(run):
    for dtypes in (("float16", "float32"), ("float32", "float64"), ("bfloat16", "float64")):
        arrays = [random(d, (257,), DTYPES[d]) for d in dtypes]
        expected = np.array(reference.global_norm(arrays))
        assert_close(run("gradient_scale", arrays)[0], expected, reduction=514)


def test_the_norm_of_what_float16_cannot_square(run):
    arrays = [np.full((5, 7), 3e4, np.float16), np.full(300, -3e4, np.float16)]
    expected = np.array(reference.global_norm(arrays))
    assert_close(run("gradient_scale", arrays)[0], expected, reduction=335)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_without_a_loss_scale_what_is_not_finite_makes_the_factor_nan(run, bad):
    arrays = [np.ones(5, np.float32), np.array([1, bad], np.float32)]
    norm, factor = run("gradient_scale", arrays)
    assert not np.isfinite(norm) and np.isnan(factor)


def test_the_norm_of_nothing(run):
    for arrays in ([], [np.zeros((0, 3), np.float32)]):
        norm, factor = run("gradient_scale", arrays)
        assert norm == 0 and factor == 1


def decided(
    backend: Backend, grads: list[np.ndarray], loss_scale: list[float] | None = None,
    skipped: int = 0, **settings: Any,
) -> tuple[list[float], list[float] | None, float]:  # fmt: skip
    """Return the decision, the loss scale and the count of skipped steps after it."""
    device = [backend.asarray(g) for g in grads]
    scale = None if loss_scale is None else backend.asarray(np.array(loss_scale, np.float64))
    count = backend.asarray(np.array([skipped], np.float64))
    got = backend.gradient_scale(device, loss_scale=scale, skipped=count, **settings)
    assert all(a.shape == () and a.dtype == np.float64 for a in got)
    after = None if scale is None else backend.to_numpy(scale).tolist()
    return [float(backend.to_numpy(a)) for a in got], after, float(backend.to_numpy(count)[0])


@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_factor_clips_what_is_left_of_the_scale(every_backend, scale, clip_norm):
    grads = [a * np.float16(scale) for a in tensors("g", np.float16)]
    for state in (None, [scale, 7.0]) if scale == 1 else ([scale, 7.0],):
        got, after, skipped = decided(every_backend, grads, state, 3, clip_norm=clip_norm)
        expected = np.array(reference.gradient_scale(grads, scale, clip_norm))
        assert 0.5 < expected[0] < 1e6  # one case clips, the other does not
        assert_close(np.array(got), expected, reduction=3000)
        assert after == (state and [scale, 8]) and skipped == 3  # a scale that stays


@pytest.mark.parametrize("place", [np.float64, lambda number: np.array(number, np.float64)])
def test_corrections_count_the_steps_that_were_made(every_backend, place):
    step = place(8)
    step = every_backend.asarray(step) if isinstance(step, np.ndarray) else step
    got, _, _ = decided(every_backend, [np.ones(3)], None, 3, step=step, betas=(0.9, 0.999))
    # within a few units of the last place of beta^t, which is near 1
    assert got[2:] == pytest.approx([1 - 0.9**5, 1 - 0.999**5], rel=1e-12)


def test_a_loss_scale_grows_and_shrinks(every_backend):
    good, bad = (
        [np.ones(3, np.float16)],
        [np.array([1, np.inf], np.float16), np.ones(2, np.float16)],
    )
    state, skipped, seen = [8.0, 0.0], 0.0, []
    for grads in (good, good, good, bad, bad, good, bad, good, good, good, good):
        got, state, skipped = decided(every_backend, grads, state, skipped, growth_interval=3)
        seen.append((got[1], *state, skipped))
    assert seen == [
        (1 / 8, 8, 1, 0), (1 / 8, 8, 2, 0), (1 / 8, 16, 0, 0), (0, 8, -1, 1), (0, 4, -2, 2),
        (1 / 4, 4, 1, 2), (0, 2, -1, 3), (1 / 2, 2, 1, 3), (1 / 2, 2, 2, 3), (1 / 2, 4, 0, 3),
        (1 / 4, 4, 1, 3),
    ]  # fmt: skip


def test_a_fixed_loss_scale_stays_and_skips(every_backend):
    got, state, skipped = decided(every_backend, [np.array([np.nan], np.float16)], [100.0, 5.0])
    assert got[1] == 0 and state == [100, -1] and skipped == 1
    got, state, skipped = decided(every_backend, [np.ones(1, np.float16)], state, 1)
    assert got[1] == 0.01 and state == [100, 1] and skipped == 1


@pytest.mark.parametrize("growth_interval", [None, 2000])
def test_what_no_scale_helps_is_not_skipped_for_ever(every_backend, growth_interval):
    state, factors = [2.0**16, 0.0], []
    for _ in range(66):
        got, state, _ = decided(
            every_backend, [np.array([np.nan])], state, growth_interval=growth_interval
        )
        factors.append(got[1])
    assert factors[:64] == [0] * 64 and np.isnan(factors[64:]).all()
