"""Learning-rate schedules: against PyTorch's, by hand, and through JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch

from gpucnn.schedules import (
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    PiecewiseConstant,
    PiecewiseLinear,
    Polynomial,
    Schedule,
    StepDecay,
    WarmUp,
)

EVERY = [
    Constant(0.3),
    StepDecay(0.5, steps=7, factor=0.3),
    Exponential(0.5, steps=10, factor=0.5),
    PiecewiseConstant(boundaries=(4, 9), rates=(1.0, 0.5, 0.1)),
    PiecewiseLinear(steps=(0, 4, 9), rates=(0.2, 1.0, 0.1)),
    Cosine(0.4, steps=20, final=0.01),
    Polynomial(0.4, steps=20, final=0.1, power=3),
    OneCycle(0.4, steps=20),
    WarmUp(Cosine(0.4, steps=20), steps=5),
]


def torch_rates(make: Callable, rate: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "make", "steps"),
    [
        (
            StepDecay(0.5, steps=7, factor=0.3),
            lambda o: torch.optim.lr_scheduler.StepLR(o, 7, gamma=0.3),
            30,
        ),
        (
            Exponential(0.5, steps=10, factor=0.5),
            lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5**0.1),
            30,
        ),
        (
            PiecewiseConstant((4, 9), (0.5, 0.05, 0.005)),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [4, 9]),
            12,
        ),
        (
            Cosine(0.5, steps=20, final=0.01),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.01),
            21,
        ),
        (
            OneCycle(0.5, steps=50),
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=50),
            50,
        ),
        (
            OneCycle(0.5, steps=17, warm=0.45, divisor=10.0, final_divisor=100.0),
            lambda o: torch.optim.lr_scheduler.OneCycleLR(
                o, 0.5, total_steps=17, pct_start=0.45, div_factor=10.0, final_div_factor=100.0
            ),
            17,
        ),
    ],
)
def test_rates_are_those_of_pytorch(schedule, make, steps):
    expected = torch_rates(make, 0.5, steps)
    assert [schedule(step) for step in range(steps)] == pytest.approx(expected, rel=1e-12)


def test_cosine_by_hand():
    schedule = Cosine(1.0, steps=4, final=0.0)
    half = (1 + math.sqrt(0.5)) / 2
    assert [schedule(s) for s in range(4)] == pytest.approx([1, half, 0.5, 1 - half], abs=1e-15)
    assert schedule(4) == schedule(100) == 0.0


def test_one_cycle_stays_at_its_end():
    schedule = OneCycle(1.0, steps=10)
    assert schedule(9) == schedule(1000) == pytest.approx(1 / 25 / 1e4)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_few_steps_ends_low(steps):
    schedule = OneCycle(1.0, steps=steps)
    assert all(0 < schedule(step) <= 1.0 for step in range(steps))
    assert schedule(steps - 1) == pytest.approx(1 / 25 / 1e4)


def test_warm_up_rises_in_a_line_and_then_follows_from_the_start():
    after = StepDecay(1.0, steps=2, factor=0.5)
    schedule = WarmUp(after, steps=4)
    assert [schedule(step) for step in range(8)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.5, 0.5]


def test_warm_up_to_a_constant():
    assert WarmUp(0.5, steps=2) == WarmUp(Constant(0.5), steps=2)


@pytest.mark.parametrize("schedule", EVERY, ids=lambda schedule: schedule.alias)
def test_a_schedule_survives_json(schedule):
    twin = Schedule.from_config(json.loads(json.dumps(schedule.config())))
    assert twin == schedule
    assert [twin(step) for step in range(30)] == [schedule(step) for step in range(30)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(-0.1, 10), r"Cosine: learning_rate must be .*Received: learning_rate=-0.1"),
        (lambda: StepDecay(0.1, steps=0), "StepDecay: steps must be .*Received: steps=0"),
        (lambda: OneCycle(0.1, 10, warm=1.0), "OneCycle: warm must be .*Received: warm=1.0"),
        (lambda: WarmUp(Constant(0.1), steps=-1), "WarmUp: steps must be .*Received: steps=-1"),
        (lambda: WarmUp("fast", steps=5), "WarmUp: schedule must be .*Received: schedule='fast'"),
        (lambda: Polynomial(0.1, 10, power=0), "Polynomial: power must be .*Received: power=0"),
        (lambda: Cosine(0.1, 10, final=-1), "Cosine: final must be .*Received: final=-1"),
        (lambda: Exponential(0.1, 10, factor=0), "Exponential: factor must be .*factor=0"),
        (lambda: OneCycle(0.1, 10, divisor=0), "OneCycle: divisor must be .*divisor=0"),
        (lambda: PiecewiseConstant(5, 0.1), "boundaries must be integers that rise"),
        (
            lambda: PiecewiseLinear((), ()),
            "and rates be as many, at least one",
        ),
        (lambda: PiecewiseLinear((3, 3), (1, 2)), "steps must be integers that rise"),
        (lambda: PiecewiseLinear((3, 5), (1, 2, 3)), "rates be as many"),
        (lambda: PiecewiseLinear((3, 5), (1, -2)), "each of rates must be a number"),
        (lambda: PiecewiseConstant((5,), (1, "low")), "each of rates must be a number"),
        (lambda: PiecewiseConstant((5, 3), (1, 2, 3)), "boundaries must be integers that rise"),
        (lambda: PiecewiseConstant((3, 5), (1, 2)), "one more than they are"),
        (lambda: Schedule.from_config({"type": "sgd"}), "schedule must be one of 'constant'"),
        (lambda: Schedule.from_config({"type": "cosine", "pace": 3}), "pace"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
