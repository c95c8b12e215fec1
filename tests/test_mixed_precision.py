"""Training in 16 bits: masters, loss scaling, skipped steps, and what of it a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import gpucnn
from gpucnn import LossScale
from gpucnn.backends.base import Array, Backend
from gpucnn.losses import CrossEntropy, Huber, Loss, MeanSquaredError
from gpucnn.optimizers import SGD, Adam, AdamW, Lookahead, Muon, Optimizer
from gpucnn.schedules import StepDecay
from gpucnn.trainer import Trainer
from gpucnn.varying import kept_by

from .conftest import make_backend
from .tolerance import assert_close
from .training import NORMALIZE, X, Y, assert_same_training, fit, make_trainer, network

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
NARROW = [np.dtype(np.float16), BFLOAT16]
OPTIMIZERS = {
    "sgd": lambda: SGD(
        StepDecay(0.1, steps=2), momentum=0.9, weight_decay=0.01, rate_factors={"p1": 8.0}
    ),
    "adam_clipped": lambda: Adam(StepDecay(0.1, steps=2), clip_norm=2.0),
    "adamw": lambda: AdamW(0.1, decay_all=True),
    "muon": lambda: Muon(StepDecay(0.01, steps=2), weight_decay=0.1),
    "lookahead": lambda: SGD(0.1, momentum=0.9, lookahead=Lookahead(3)),
}
optimizers = pytest.mark.parametrize("name", OPTIMIZERS)


class Parameter(NamedTuple):
    path: str
    value: Array
    gradient: Array


def parameters(backend: Backend, dtype: np.dtype) -> list[Parameter]:
    """Return some with gradients yet to be set."""
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape).astype(dtype) for shape in ((5, 3, 3, 2), (5,), (7, 11))]
    return [
        Parameter(f"p{i}", backend.asarray(v), backend.asarray(np.zeros_like(v)))
        for i, v in enumerate(values)
    ]


def set_gradients(backend: Backend, group: list[Parameter], step: int, scale: float = 1.0) -> None:
    """Draw the gradients of a step, in place: eighths, which stay exact in any of our scales."""
    rng = np.random.default_rng(100 + step)
    for parameter in group:
        eighths = rng.integers(-16, 17, parameter.value.shape) / 8 * scale
        parameter.gradient[...] = backend.asarray(eighths.astype(parameter.value.dtype))


def spoil(group: list[Parameter], value: float) -> None:
    group[1].gradient[2] = value


def everything(backend: Backend, group: list[Parameter], optimizer: Optimizer) -> list[bytes]:
    slots = [slot for slots in optimizer.slots.values() for slot in slots.values()]
    arrays = [parameter.value for parameter in group] + slots
    return [backend.to_numpy(array).tobytes() for array in arrays]


# ---- masters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("name", ["sgd", "adam_clipped", "adamw", "lookahead"])  # Muon's rounds
def test_sixteen_bits_follow_a_training_in_float32(backend, name, dtype):
    """The parameters are the rounding of what float32 parameters would be, whatever the rate."""
    narrow, wide = parameters(backend, dtype), parameters(backend, np.dtype(np.float32))
    for (_, value, _), exact in zip(wide, narrow, strict=True):
        value[...] = exact.value.astype(np.float32)
    one, other = OPTIMIZERS[name](), OPTIMIZERS[name]()
    for step in range(5):
        for group, optimizer in ((narrow, one), (wide, other)):
            set_gradients(backend, group, step)
            optimizer.step(group)
    for parameter, exact in zip(narrow, wide, strict=True):
        master = backend.to_numpy(one.slots["master"][parameter.path])
        expected = backend.to_numpy(exact.value)
        assert_close(master, expected, reduction=100, magnitude=1 + np.abs(expected))
        assert backend.to_numpy(parameter.value).tobytes() == master.astype(dtype).tobytes()
    assert not other.slots["master"]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_master_follows_a_parameter_that_somebody_changed(backend, dtype):
    group, optimizer = parameters(backend, dtype), SGD(2.0**-6)
    for parameter in group:
        parameter.gradient[...] = 1
    optimizer.step(group)
    group[2].value[3] = 4.0  # a row of it, by hand
    optimizer.step(group)
    master = backend.to_numpy(optimizer.slots["master"]["p2"])
    assert (master[3] == 4 - 2.0**-6).all()
    start = parameters(backend, dtype)[2].value
    expected = backend.to_numpy(start).astype(np.float32) - 2.0**-6 - 2.0**-6
    np.testing.assert_array_equal(np.delete(master, 3, 0), np.delete(expected, 3, 0))


def test_a_state_without_masters_takes_the_parameters(backend):
    """That of a checkpoint from before there were any."""
    results = []
    for with_masters in (True, False):
        group, optimizer = parameters(backend, BFLOAT16), SGD(0.5, momentum=0.9)
        state = {"steps": 3, "slots": {"velocity": {}}}
        if with_masters:
            masters = {p.path: p.value.astype(np.float32) for p in group}
            state["slots"]["master"] = masters
        optimizer.load_state_dict(state)
        set_gradients(backend, group, 0)
        optimizer.step(group)
        assert optimizer.steps == 4 and optimizer.skipped == 0
        results.append(everything(backend, group, optimizer))
    assert results[0] == results[1]


def test_a_master_is_dropped_when_its_parameter_becomes_wide(backend):
    group, optimizer = parameters(backend, BFLOAT16), SGD(0.5)
    optimizer.step(group)
    assert sorted(optimizer.slots["master"]) == ["p0", "p1", "p2"]
    optimizer.step([Parameter(p, v.astype(np.float32), g.astype(np.float32)) for p, v, g in group])
    assert not optimizer.slots["master"]


# ---- loss scaling --------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("dtype", [*NARROW, np.dtype(np.float32)], ids=str)
@optimizers
def test_a_step_whose_gradients_overflow_changes_nothing(backend, name, dtype, bad):
    group, optimizer, scale = parameters(backend, dtype), OPTIMIZERS[name](), LossScale(8)
    set_gradients(backend, group, 0, 8)
    optimizer.step(group, scale)
    before = everything(backend, group, optimizer)
    set_gradients(backend, group, 1, 8)
    spoil(group, bad)
    optimizer.step(group, scale)
    assert everything(backend, group, optimizer) == before
    assert (optimizer.steps, optimizer.skipped, scale.scale) == (2, 1, 4.0)


@pytest.mark.parametrize("scaling", [LossScale(64), LossScale(64, growth_interval=2), 64.0])
@pytest.mark.parametrize("name", ["sgd", "adam_clipped", "adamw", "muon"])  # Lookahead counts all
def test_a_training_with_overflows_is_one_without_these_steps(backend, name, scaling):
    """The moments' corrections count the steps that were made, and the scale leaves no trace."""
    scale = LossScale.of(scaling)
    scale.load_state_dict({"scale": 64.0, "streak": 0})
    expected, actual = parameters(backend, NARROW[0]), parameters(backend, NARROW[0])
    one, other = OPTIMIZERS[name](), OPTIMIZERS[name]()
    one.learning_rate = other.learning_rate = 0.1  # a schedule goes on while steps are skipped
    for step in range(7):
        set_gradients(backend, actual, step, scale.scale)
        if step in (0, 3, 4):
            spoil(actual, np.inf)
        else:
            set_gradients(backend, expected, step)
            one.step(expected, LossScale.of(1.0))
        other.step(actual, scale)
    assert other.skipped == 3 and other.steps == 7 and one.steps == 4
    assert everything(backend, actual, other) == everything(backend, expected, one)


def test_the_schedule_advances_with_a_skipped_step(backend):
    group, optimizer = parameters(backend, NARROW[0]), SGD(StepDecay(1.0, steps=1, factor=0.5))
    before = backend.to_numpy(group[1].value).astype(np.float32)
    spoil(group, np.nan)
    optimizer.step(group, scale := LossScale(4))
    group[1].gradient[...] = 4.0
    optimizer.step(group, scale)
    assert scale.scale == 2  # of the 4 two are the scale's, and the rate is that of step 1
    master = backend.to_numpy(optimizer.slots["master"]["p1"])
    np.testing.assert_array_equal(master, before - 0.5 * 2)


def test_a_training_goes_on_without_its_scale(backend):
    """The skipped steps stay out of the corrections."""
    group, optimizer = parameters(backend, NARROW[0]), Adam(2.0**-3, epsilon=1e-30)
    spoil(group, np.inf)
    optimizer.step(group, LossScale())
    before = backend.to_numpy(group[2].value).astype(np.float32)
    group[1].gradient[...] = group[2].gradient[...] = 2.0
    optimizer.step(group)  # Adam's first step is the learning rate
    master = backend.to_numpy(optimizer.slots["master"]["p2"])
    np.testing.assert_allclose(before - master, 2.0**-3, rtol=1e-5)


@pytest.mark.parametrize("dtype", [*NARROW, np.dtype(np.float32), np.dtype(float)], ids=str)
@pytest.mark.parametrize(
    "loss", [CrossEntropy(0.1), MeanSquaredError(), Huber()], ids=["labels", "mse", "huber"]
)
def test_a_loss_scale_multiplies_the_gradient_and_not_the_loss(backend, loss, dtype):
    rng = np.random.default_rng(1)
    prediction = rng.standard_normal((6, 5)).astype(dtype)
    labels = isinstance(loss, CrossEntropy)
    target = rng.integers(0, 5, 6) if labels else rng.standard_normal((6, 5)).astype(dtype)
    prediction, target = backend.asarray(prediction), backend.asarray(target)
    value, gradient = loss(prediction, target)
    scaled_value, scaled = loss(prediction, target, LossScale(1024))
    assert float(value) == float(scaled_value)
    assert scaled.dtype == dtype
    gradient, scaled = backend.to_numpy(gradient), backend.to_numpy(scaled)
    # numbers below 6e-5 have fewer digits in float16, until they are scaled
    np.testing.assert_allclose(scaled.astype(float) / 1024, gradient.astype(float), atol=3e-8)


def test_gradients_that_float16_cannot_hold_are_saved(backend):
    """A mean over 60000 numbers: each has a slope of 1.7e-8, which is 0 in float16."""
    prediction = backend.asarray(np.full((60000, 1), 5e-4, np.float16))
    target = backend.asarray(np.zeros((60000, 1), np.float16))
    loss = MeanSquaredError()
    assert not backend.to_numpy(loss(prediction, target)[1]).any()
    scaled = backend.to_numpy(loss(prediction, target, LossScale(2.0**16))[1])
    np.testing.assert_allclose(scaled.astype(float), 1e-3 / 60000 * 2**16, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LossScale(0), ValueError, "LossScale: initial must be .*Received: initial=0"),
        (lambda: LossScale(float("inf")), ValueError, "LossScale: initial must be .*inf"),
        (lambda: LossScale(growth_interval=0), ValueError, "LossScale: growth_interval must be"),
        (lambda: LossScale.of(-1), ValueError, "LossScale: initial must be .*-1"),
        (lambda: LossScale.of("big"), TypeError, "loss_scale must be .*Received: 'big'"),
        (lambda: LossScale.of(True), ValueError, "LossScale: initial must be .*True"),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- the trainer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_trainer_learns_in_sixteen_bits(dtype):
    trainer = make_trainer(model=network(dtype=dtype))
    fit(trainer, 16)  # 8 or 9 are enough, by how the BLAS rounds
    assert trainer.history["val_accuracy"][-1] == 1.0
    assert (trainer.loss_scale is not None) == (dtype == "float16")
    kinds = {str(master.dtype) for master in trainer.optimizer.slots["master"].values()}
    assert kinds == {"float32"} and trainer.model.params == {}


def test_a_trainer_scales_as_it_is_told():
    assert fit(make_trainer(), 1) and make_trainer().loss_scale is None
    fixed = make_trainer(loss_scale=256.0)
    fit(fixed, 1)
    assert fixed.loss_scale == LossScale(256.0, growth_interval=None)
    assert fixed.loss_scale.scale == 256
    without = make_trainer(model=network(dtype="float16"), loss_scale=None)
    fit(without, 1)
    assert without.loss_scale is None


def test_a_scale_that_is_too_large_is_found_out_and_the_loss_stays_finite():
    trainer = make_trainer(model=network(dtype="float16"), loss_scale=LossScale(2.0**30))
    history = fit(trainer, 8)
    assert trainer.optimizer.skipped > 3 and trainer.loss_scale.scale < 2.0**27
    assert np.isfinite(history["loss"]).all() and history["val_accuracy"][-1] > 0.9


def test_a_model_that_changes_its_dtype_changes_its_scaling():
    trainer = make_trainer()
    fit(trainer, 1)
    trainer.model.astype("float16")
    fit(trainer, 1)
    assert trainer.loss_scale == LossScale()
    trainer.model.astype("float32")
    fit(trainer, 1)
    assert trainer.loss_scale is None and not trainer.optimizer.slots["master"]


@dataclass(frozen=True)
class Mine(Loss):
    alias: ClassVar[str] = ""

    def __call__(self, prediction: Array, target: Array) -> tuple[Array, Array]:
        return CrossEntropy()(prediction, target)


def test_a_loss_that_takes_no_scale_is_refused_before_the_first_step():
    trainer = make_trainer(model=network(dtype="float16"), loss=Mine())
    with pytest.raises(TypeError, match=r"Trainer: the loss must take a loss_scale.*Mine\(\)"):
        fit(trainer, 1)
    fit(make_trainer(model=network(dtype="float16"), loss=Mine(), loss_scale=None), 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("of_itself", [False, True], ids=["fit", "resume"])
def test_a_resumed_training_is_the_same_bit_for_bit(dtype, of_itself, tmp_path):
    """With masters, a scale that grew and shrank, and steps that were skipped."""

    def script(folder: str, epochs: int) -> Trainer:
        options = {"optimizer": Adam(0.01, clip_norm=1.0), "model": network(dtype=dtype)}
        if dtype == "float16":
            options["loss_scale"] = LossScale(2.0**24, growth_interval=5)
        trainer = make_trainer(**options)
        fit(trainer, epochs, checkpoint_dir=tmp_path / folder, resume=True)
        return trainer

    straight = script("straight", 4)
    script("stopped", 2)
    if of_itself:
        resumed = Trainer.resume(tmp_path / "stopped", progress=False)
        resumed.fit(X, Y, epochs=2, batch_size=16, prefetch=0)
        assert resumed.normalize == NORMALIZE
    else:
        resumed = script("stopped", 4)
    assert_same_training(resumed, straight)
    assert resumed.optimizer.skipped == straight.optimizer.skipped
    if dtype == "float16":
        assert straight.optimizer.skipped > 1
        assert resumed.loss_scale == straight.loss_scale
        assert resumed.loss_scale.state_dict() == straight.loss_scale.state_dict()


# ---- a step that is recorded ---------------------------------------------------------------------


class Recorder:
    """Stands before a launcher: lists the launches, and makes them once more."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.launcher = backend, backend.launcher
        self.launches: list[tuple] = []
        self.numbers: list[tuple[Callable[[], float], np.ndarray]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.launcher, name)

    def launch(
        self, kernel: Any, grid: Any, block: Any, arguments: tuple, pointees: Sequence = ()
    ) -> None:
        self.launches.append((kernel, grid, block, arguments, pointees))
        self.launcher.launch(*self.launches[-1])

    def keep(self, number: Callable[[], float], dtype: np.dtype) -> np.ndarray:
        self.numbers.append((number, np.array(number(), dtype)))
        return self.numbers[-1][1]

    @contextmanager
    def recording(self) -> Iterator[None]:
        self.backend.launcher = self
        try:
            with kept_by(self.keep):
                yield
        finally:
            self.backend.launcher = self.launcher

    def replay(self) -> None:
        for number, place in self.numbers:
            place[...] = number()
        for launch in self.launches:
            self.launcher.launch(*launch)


@pytest.fixture
def emulated() -> Iterator[Backend]:
    with gpucnn.use_backend(make_backend("emulated")) as backend:
        yield backend


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@optimizers
def test_a_recorded_step_is_the_same_as_one_that_is_called(emulated, name, scaled):
    expected, actual = (parameters(emulated, NARROW[0]) for _ in range(2))
    one, other, recorder = OPTIMIZERS[name](), OPTIMIZERS[name](), Recorder(emulated)
    scales = [LossScale(8, growth_interval=2) if scaled else None for _ in range(2)]
    for step in range(6):
        for group, optimizer, scale in zip((expected, actual), (one, other), scales, strict=True):
            set_gradients(emulated, group, step, scale.scale if scale else 1.0)
            if scaled and step in (2, 5):
                spoil(group, np.inf)
            if group is expected or step == 0:
                optimizer.step(group, scale)
            elif step == 1:
                with recorder.recording():
                    optimizer.step(group, scale)
            else:
                recorder.replay()
    assert everything(emulated, actual, other) == everything(emulated, expected, one)
    assert other.steps == one.steps == 6 and other.skipped == one.skipped == 2 * scaled
    if name in ("sgd", "adam_clipped", "adamw"):
        assert len(recorder.launches) == (3 if scaled or one.clip_norm else 1)
