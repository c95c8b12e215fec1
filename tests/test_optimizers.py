"""Optimizers: against torch.optim over ten steps in float64, and what torch does not settle."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch

from gpucnn.backends.base import Array, Backend
from gpucnn.optimizers import SGD, Adam, AdamW, Lookahead, Muon, Optimizer
from gpucnn.schedules import Cosine, StepDecay

from . import reference
from .tolerance import assert_close

STEPS = 10
# A convolution's kernel and bias, a dense kernel, a norm's scale; no size a multiple of a block.
SHAPES = {
    "conv/kernel": (5, 3, 3, 2),
    "conv/bias": (5,),
    "dense/kernel": (7, 11),
    "norm/gamma": (5,),
}


class Parameter(NamedTuple):
    path: str
    value: Array
    gradient: Array


def random_arrays(seed: int, dtype=np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {path: rng.standard_normal(shape).astype(dtype) for path, shape in SHAPES.items()}


def run(
    backend: Backend, optimizer: Optimizer, steps: range, values: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Make the steps with seeded gradients; return the new values."""
    values = {path: backend.asarray(value.copy()) for path, value in values.items()}
    for step in steps:
        gradients = random_arrays(100 + step, next(iter(values.values())).dtype)
        optimizer.step(
            Parameter(path, value, backend.asarray(gradients[path]))
            for path, value in values.items()
        )
    return {path: backend.to_numpy(value) for path, value in values.items()}


def run_torch(make: Callable, decayed: Callable[[str], bool]) -> dict[str, np.ndarray]:
    values = {path: torch.nn.Parameter(torch.tensor(v)) for path, v in random_arrays(0).items()}
    groups = [
        {"params": [v for path, v in values.items() if decayed(path)]},
        {"params": [v for path, v in values.items() if not decayed(path)], "weight_decay": 0.0},
    ]
    optimizer = make([group for group in groups if group["params"]])
    for step in range(STEPS):
        for path, gradient in random_arrays(100 + step).items():
            values[path].grad = torch.tensor(gradient)
        optimizer.step()
    return {path: value.detach().numpy() for path, value in values.items()}


def is_kernel(path: str) -> bool:
    return path.endswith("kernel")


@pytest.mark.parametrize(
    ("optimizer", "make"),
    [
        (lambda: SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (lambda: SGD(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        (
            lambda: SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
        ),
        (lambda: Adam(0.01), lambda p: torch.optim.Adam(p, 0.01, eps=1e-7)),
        (
            lambda: Adam(0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-3, weight_decay=0.05),
            lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.99), 1e-3, weight_decay=0.05),
        ),
        (
            lambda: AdamW(0.01, weight_decay=0.05),
            lambda p: torch.optim.AdamW(p, 0.01, eps=1e-7, weight_decay=0.05),
        ),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adam_l2", "adamw"],
)
def test_ten_steps_are_those_of_pytorch(backend, optimizer, make):
    ours = run(backend, optimizer(), range(STEPS), random_arrays(0))
    theirs = run_torch(make, is_kernel)
    for path, value in theirs.items():
        assert_close(ours[path], value, reduction=20 * STEPS, magnitude=1.0 + abs(value), what=path)


def test_decay_all_decays_biases_and_norms_too(backend):
    ours = run(backend, SGD(0.1, weight_decay=0.05, decay_all=True), range(STEPS), random_arrays(0))
    theirs = run_torch(lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.05), lambda path: True)
    for path, value in theirs.items():
        assert_close(ours[path], value, reduction=20 * STEPS, magnitude=1.0 + abs(value), what=path)


@pytest.mark.parametrize("share", [0.25, StepDecay(0.5, steps=6)])
def test_lookahead_takes_a_share_of_every_third_step(backend, share):
    ours = run(backend, SGD(0.1, lookahead=Lookahead(3, share=share)), range(7), random_arrays(0))
    shares = {2: 0.25, 5: 0.25} if share == 0.25 else {2: 0.5, 5: 0.05}
    for path, slow in random_arrays(0).items():
        fast = slow
        for step in range(7):
            fast = fast - 0.1 * random_arrays(100 + step)[path]
            if step in shares:
                fast = slow = slow + shares[step] * (fast - slow)
        assert_close(ours[path], fast, reduction=20, magnitude=1.0 + abs(slow), what=path)


@pytest.mark.parametrize("nesterov", [False, True])
def test_muon(backend, nesterov):
    """Kernels by reference, in one iteration, where float64 leaves no doubt; vectors as by SGD."""
    settings = {"momentum": 0.9, "nesterov": nesterov}
    optimizer = Muon(0.1, weight_decay=0.05, iterations=1, **settings)
    ours = run(backend, optimizer, range(3), random_arrays(0))
    vectors = run(backend, SGD(0.1, **settings), range(3), random_arrays(0))
    for path, value in random_arrays(0).items():
        if not is_kernel(path):
            np.testing.assert_array_equal(ours[path], vectors[path])
            continue
        v = np.zeros_like(value)
        for step in range(3):
            u, v = reference.muon_momentum(random_arrays(100 + step)[path], v, 0.9, nesterov, 1.0)
            direction = reference.orthogonal(u / reference.global_norm([u]), 1)
            value = value - 0.1 * (direction + 0.05 * value)
        # sums of up to 20 products, some on top of each other
        assert_close(ours[path], value, reduction=3 * 60, magnitude=20.0, what=path)


def test_muons_steps_do_not_depend_on_the_gradients_size(backend):
    steps = []
    for size in (1.0, 2.0**-100):
        value, gradient = np.zeros((7, 11)), random_arrays(3)["dense/kernel"] * size
        value = backend.asarray(value)
        Muon(0.1).step([Parameter("w", value, backend.asarray(gradient))])
        steps.append(backend.to_numpy(value))
    assert_close(*steps, reduction=60, magnitude=1.0)
    np.testing.assert_allclose(np.linalg.svd(steps[0])[1] / 0.1, 0.95, atol=0.3)


def test_muon_leaves_weights_without_a_gradient(backend):
    value = backend.asarray(np.ones((7, 11), np.float32))
    Muon(0.1).step([Parameter("w", value, backend.xp.zeros_like(value))])
    np.testing.assert_array_equal(backend.to_numpy(value), 1.0)


def test_what_is_no_lookahead_is_refused():
    with pytest.raises(TypeError, match="SGD: lookahead must be a Lookahead or None"):
        SGD(0.1, lookahead=5)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_rate_factors_scale_a_rate_and_not_its_decay(backend, kind):
    factors = {"*/bias": 8.0, "norm/*": 0.5, "*/kernel": 1.0}

    def torch_group(path: str, value: torch.Tensor) -> dict:
        factor = 8.0 if path == "conv/bias" else 0.5 if path == "norm/gamma" else 1.0
        return {"params": [value], "lr": 0.01 * factor, "weight_decay": 0.05 / factor}

    values = {path: torch.nn.Parameter(torch.tensor(v)) for path, v in random_arrays(0).items()}
    groups = [torch_group(path, value) for path, value in values.items()]
    options = {"rate_factors": factors, "weight_decay": 0.05, "decay_all": True}
    if kind == "sgd":
        ours, theirs = SGD(0.01, momentum=0.9, **options), torch.optim.SGD(groups, momentum=0.9)
    else:
        ours, theirs = AdamW(0.01, **options), torch.optim.AdamW(groups, eps=1e-7)
    twin = Optimizer.from_config(json.loads(json.dumps(ours.config())))
    assert twin == ours and twin.rate_factors == tuple(factors.items())
    changed = run(backend, twin, range(STEPS), random_arrays(0))
    for step in range(STEPS):
        for path, gradient in random_arrays(100 + step).items():
            values[path].grad = torch.tensor(gradient)
        theirs.step()
    for path, value in values.items():
        expected = value.detach().numpy()
        magnitude = 1.0 + abs(expected)
        assert_close(changed[path], expected, reduction=20 * STEPS, magnitude=magnitude, what=path)


def test_a_rate_factor_that_is_no_positive_number_is_refused():
    with pytest.raises(ValueError, match=r"SGD: rate_factors\['\*/bias'\] must be .* Received.*0"):
        SGD(0.1, rate_factors={"*/bias": 0.0})


@pytest.mark.parametrize("factors", [5, "*/bias", {3: 2.0}, [("*/bias",)]])
def test_rate_factors_are_pairs_of_a_pattern_and_a_number(factors):
    with pytest.raises(TypeError, match="SGD: rate_factors must be factors by patterns"):
        SGD(0.1, rate_factors=factors)


def test_a_rate_factor_for_no_parameter_is_named():
    optimizer = SGD(0.1, rate_factors={"*/bias": 2.0, "*/gama": 3.0})
    with pytest.raises(ValueError, match=r"SGD: each pattern .* Received: '\*/gama'"):
        optimizer.check(["conv2d/bias", "norm/gamma"])
    optimizer.check(["conv2d/bias", "norm/gama"])


@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_clipping_bounds_the_norm_of_all_gradients_together(backend, clip_norm):
    ours = run(backend, SGD(1.0, clip_norm=clip_norm), range(1), random_arrays(0))
    gradients = random_arrays(100)
    norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
    assert 0.5 < norm < 1e6  # one case clips, the other does not
    for path, value in random_arrays(0).items():
        expected = value - gradients[path] * min(1.0, clip_norm / norm)
        assert_close(ours[path], expected, reduction=200, magnitude=1.0 + abs(value), what=path)


def test_clipping_leaves_gradients_of_zero_alone(backend):
    value = backend.asarray(np.ones((3, 2), np.float32))
    SGD(0.1, clip_norm=1.0).step([Parameter("w", value, backend.xp.zeros_like(value))])
    np.testing.assert_array_equal(backend.to_numpy(value), 1.0)


def test_a_schedule_gives_the_rate_of_each_step(backend):
    optimizer = SGD(StepDecay(0.5, steps=2, factor=0.1))
    value = backend.asarray(np.zeros(1))
    seen = []
    for _ in range(4):
        before = float(value[0])
        optimizer.step([Parameter("w", value, backend.asarray(np.ones(1)))])
        seen.append(before - float(value[0]))
    assert seen == pytest.approx([0.5, 0.5, 0.05, 0.05], rel=1e-14)
    assert optimizer.steps == 4 and optimizer.rate == pytest.approx(0.005)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("make", [lambda: SGD(0.1, momentum=0.9), lambda: Adam(0.1)])
def test_slots_are_wide_and_parameters_keep_their_dtype(backend, name, make):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    optimizer = make()
    values = run(backend, optimizer, range(2), random_arrays(0, dtype))
    wide = np.float64 if name == "float64" else np.float32
    assert {value.dtype for value in values.values()} == {dtype}
    assert {s.dtype for slots in optimizer.slots.values() for s in slots.values()} == {
        np.dtype(wide)
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(Cosine(0.1, 10), momentum=0.9),
        lambda: Adam(),
        lambda: AdamW(),
        lambda: Muon(0.1),
        lambda: SGD(0.1, lookahead=Lookahead(3, share=0.4)),
        lambda: SGD(0.1, lookahead=Lookahead(3, share=StepDecay(0.4, steps=6))),
    ],
)
def test_a_restored_optimizer_continues_bit_for_bit(backend, make):
    straight = run(backend, make(), range(STEPS), random_arrays(0))

    first = make()
    half = run(backend, first, range(4), random_arrays(0))
    second = Optimizer.from_config(json.loads(json.dumps(first.config())))
    state = first.state_dict()
    state["slots"] = {
        name: {path: backend.to_numpy(slot) for path, slot in slots.items()}
        for name, slots in state["slots"].items()
    }
    second.load_state_dict(state)
    assert second.steps == 4
    resumed = run(backend, second, range(4, STEPS), half)
    for path in SHAPES:
        np.testing.assert_array_equal(resumed[path], straight[path], err_msg=path)


def test_slots_follow_parameters_to_another_dtype(backend):
    optimizer, second = SGD(0.1, momentum=0.9), random_arrays(101)
    values = run(backend, optimizer, range(1), random_arrays(0, np.float32))
    values = {path: value.astype(np.float64) for path, value in values.items()}
    slots = {p: backend.to_numpy(s) for p, s in optimizer.slots["velocity"].items()}
    got = run(backend, optimizer, range(1, 2), values)
    for path, value in values.items():
        expected = value + 0.9 * slots[path].astype(np.float64) - 0.1 * second[path]
        assert_close(got[path], expected, reduction=4, magnitude=8.0)
        assert optimizer.slots["velocity"][path].dtype == np.float64


def test_a_loaded_state_is_a_copy(backend):
    first, second = SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9)
    run(backend, first, range(1), random_arrays(0))
    second.load_state_dict(first.state_dict())
    kept = backend.to_numpy(first.slots["velocity"]["dense/kernel"]).copy()
    run(backend, second, range(1, 2), random_arrays(0))
    np.testing.assert_array_equal(backend.to_numpy(first.slots["velocity"]["dense/kernel"]), kept)


def test_a_slot_of_another_shape_is_refused():
    optimizer = SGD(0.1)
    optimizer.load_state_dict({"steps": 1, "slots": {"velocity": {"w": np.zeros((2, 3))}}})
    value = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"SGD: the velocity of 'w' must be .*\(2, 3\)"):
        optimizer.step([Parameter("w", value, value)])


def test_a_state_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"Adam: .*'m', 'v'.*Received: \('velocity',\)"):
        Adam().load_state_dict(SGD().state_dict())


def test_a_state_without_slots_is_refused():
    optimizer = SGD(0.1)
    with pytest.raises(ValueError, match=r"""the state must have "steps" and "slots".*'steps'"""):
        optimizer.load_state_dict({"steps": 3})
    assert optimizer.steps == 0


def test_a_subclass_does_not_take_the_name_that_it_inherits():
    class Mine(SGD):
        pass

    assert type(Optimizer.of("sgd")) is SGD
    assert isinstance(Optimizer.of(Mine(0.1)), Mine)


def test_no_parameters_are_no_step():
    optimizer = SGD(0.1)
    optimizer.step([])
    assert optimizer.steps == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-0.1), "SGD: learning_rate must be .*Received: learning_rate=-0.1"),
        (lambda: SGD("fast"), "SGD: learning_rate must be .*'fast'"),
        (lambda: SGD(0.1, momentum=1.0), "SGD: momentum must be .*Received: momentum=1.0"),
        (lambda: SGD(0.1, nesterov=True), "SGD: nesterov needs momentum"),
        (lambda: SGD(0.1, clip_norm=0.0), "SGD: clip_norm must be .*Received: clip_norm=0.0"),
        (lambda: Adam(beta_2=float("nan")), "Adam: beta_2 must be .*nan"),
        (lambda: AdamW(weight_decay=-1), "AdamW: weight_decay must be .*-1"),
        (lambda: Muon(iterations=0), "Muon: iterations must be .*0"),
        (lambda: Lookahead(0), "Lookahead: period must be .*0"),
        (lambda: Lookahead(share=1.5), r"Lookahead: share must be a number in \(0, 1\]\. .*=1.5"),
        (lambda: Lookahead(share=0.0), "Lookahead: share must be .*Received: share=0.0"),
        (
            lambda: Optimizer.of("rmsprop"),
            "optimizer must be one of 'adam', 'adamw', 'muon', ",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
