"""What every optimizer is: a count of steps, slots for each parameter, and one step for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from types import NoneType
from typing import Any, ClassVar

import numpy as np

from ..arguments import as_number
from ..backends import backend_of
from ..backends.base import Array, Backend, Number, accumulator
from ..configured import Configured, check_range
from ..network import Parameter
from ..schedules import Schedule
from ..varying import varying
from .lookahead import Lookahead
from .loss_scale import LossScale
from .numbers import DeviceNumbers

# Slots that do not go by the kind of optimizer: what a 16-bit parameter is the rounding of, and
# Lookahead's weights.
MASTER, SLOW = "master", "slow"


@dataclass
class Optimizer(Configured):
    """Counts steps and keeps its slots by parameter path; subclasses say ``_update``.

    Args:
        learning_rate: a number, or a ``Schedule`` of the step.
        weight_decay: the pull of each weight towards 0; see the kinds of optimizer.
        clip_norm: all gradients are scaled down together where their norm is larger.
        decay_all: let the decay reach parameters of one axis (biases, scales, shifts) too.
        rate_factors: what the learning rate is multiplied by for some parameters, by patterns of
            their paths: {"*/beta": 64.0}; the first that matches counts. The weight decay is
            divided by it, so that it pulls as without.
        lookahead: a ``Lookahead``, or None.

    Attributes:
        steps: how many were made; the schedule is asked for this one next.
        slots: arrays like the parameters, by the slot's name and the parameter's path. Slot
            "master" holds the float32 copies of parameters of 16 bits.
    """

    slot_names: ClassVar[tuple[str, ...]] = ()

    learning_rate: float | Schedule = 0.01
    _: KW_ONLY
    weight_decay: float = 0.0
    clip_norm: float | None = None
    decay_all: bool = False
    rate_factors: Mapping[str, float] | Sequence[tuple[str, float]] = ()
    lookahead: Lookahead | None = None
    steps: int = field(default=0, init=False)
    slots: dict[str, dict[str, Array]] = field(init=False, repr=False, compare=False)
    # None as long as no loss was scaled, and no step could be skipped
    _skipped: DeviceNumbers | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.learning_rate, Schedule):
            check_range(self, "learning_rate", least=0)
        check_range(self, "weight_decay", least=0)
        if self.clip_norm is not None:
            check_range(self, "clip_norm", above=0)
        self.rate_factors = self._pairs(self.rate_factors)
        if not isinstance(self.lookahead, (Lookahead, NoneType)):
            raise TypeError(
                f"{type(self).__name__}: lookahead must be a Lookahead or None."
                f" Received: {self.lookahead!r}"
            )
        slow = () if self.lookahead is None else (SLOW,)
        self.slots = {name: {} for name in (*self.slot_names, MASTER, *slow)}

    def _pairs(self, factors: Any) -> tuple[tuple[str, float], ...]:
        """Return pairs, for a dictionary in a configuration stands for an object."""
        owner = type(self).__name__
        try:
            pairs = [*(factors.items() if isinstance(factors, Mapping) else factors)]
            named = all(isinstance(pattern, str) for pattern, _ in pairs)
        except (TypeError, ValueError):
            named = False
        if not named:
            raise TypeError(
                f'{owner}: rate_factors must be factors by patterns of paths, as {{"*/bias": 2.0}}.'
                f" Received: rate_factors={factors!r}"
            )
        return tuple(
            (pattern, as_number(owner, f"rate_factors[{pattern!r}]", factor, above=0))
            for pattern, factor in pairs
        )

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.rate_of(self.steps)

    def rate_of(self, step: int) -> float:
        """Return the learning rate of ``step``, which counts from 0."""
        rate = self.learning_rate
        return rate(step) if isinstance(rate, Schedule) else float(rate)

    @property
    def skipped(self) -> int:
        """How many of the steps changed nothing, for gradients overflowed; waits for the device."""
        return 0 if self._skipped is None else int(self._skipped.read()[0])

    def step(self, parameters: Iterable[Parameter], loss_scale: LossScale | None = None) -> None:
        """Change the parameters by their gradients; the gradients stay as they are.

        Parameters of 16 bits become the rounding of their masters. Where one was changed by other
        hands since the last step, its master follows it.

        Args:
            loss_scale: what the loss was multiplied by. Where a gradient is not finite the step is
                skipped whole, but counted.

        Raises:
            KeyError: a parameter has no gradient, for no ``backward`` came before.
            ValueError: a slot that was loaded is not of its parameter's shape.
        """
        parameters = list(parameters)
        if not parameters:
            return
        values = [parameter.value for parameter in parameters]
        gradients = [parameter.gradient for parameter in parameters]
        backend = backend_of(type(self).__name__, parameter=values[0], gradient=gradients[0])
        slots = [
            [self._slot(name, parameter.path, parameter.value, backend) for parameter in parameters]
            for name in self.slot_names
        ]
        slow = [
            self._slot(SLOW, parameter.path, parameter.value, backend)
            for parameter in (parameters if self.lookahead else ())
        ]
        masters = [self._master(parameter, backend) for parameter in parameters]
        decays = [self.weight_decay if v.ndim > 1 or self.decay_all else 0.0 for v in values]
        grad_scale, corrections = self._decide(backend, gradients, loss_scale)
        factors = [self._factor(parameter.path) for parameter in parameters]
        decays = [decay / factor for decay, factor in zip(decays, factors, strict=True)]
        self._update(
            backend, [values, gradients, *slots, decays], varying(self._next_rate, np.float64),
            corrections, grad_scale=grad_scale, masters=masters, rate_factors=factors,
        )  # fmt: skip
        if self.lookahead is not None:
            share = varying(lambda: self.lookahead.at(self.steps), np.float64)
            backend.lookahead_update(
                values, slow, share=share, grad_scale=grad_scale, masters=masters
            )

    def check(self, paths: Sequence[str]) -> None:
        """Raise a ValueError where a pattern of ``rate_factors`` is of none of these parameters."""
        for pattern, _ in self.rate_factors:
            if not any(fnmatchcase(path, pattern) for path in paths):
                raise ValueError(
                    f"{type(self).__name__}: each pattern of rate_factors must match the path of a"
                    f" parameter, such as 'conv2d/bias'. Received: {pattern!r}"
                )

    def _factor(self, path: str) -> float:
        return next((own for pattern, own in self.rate_factors if fnmatchcase(path, pattern)), 1.0)

    @property
    def _betas(self) -> tuple[float, ...]:
        """Of the moments whose start at 0 is corrected."""
        return ()

    def _update(
        self, backend: Backend, tensors: list[list], rate: Number, corrections: list[Number],
        **common: Any,
    ) -> None:  # fmt: skip
        """Change the tensors (values, gradients, slots, weight decays) and masters in place.

        There is a correction, 1 - beta^step, for each of ``_betas``; ``common`` is what all of the
        backend's updates take.
        """
        raise NotImplementedError

    def _decide(
        self, backend: Backend, gradients: list[Array], loss_scale: LossScale | None
    ) -> tuple[Array | None, list[Number]]:
        """Return the scale of the gradients and the corrections, for the step that comes now."""
        if loss_scale is not None and self._skipped is None:
            self._skipped = DeviceNumbers(0)
        if self.clip_norm is None and self._skipped is None:
            return None, [varying(partial(self._correction, b), np.float64) for b in self._betas]
        scaling = {} if loss_scale is None else {
            "loss_scale": loss_scale.on(backend), "growth_interval": loss_scale.growth_interval,
        }  # fmt: skip
        _, factor, *corrections = backend.gradient_scale(
            gradients, clip_norm=self.clip_norm, betas=self._betas,
            skipped=None if self._skipped is None else self._skipped.on(backend),
            step=varying(lambda: self.steps + 1, np.float64), **scaling,
        )  # fmt: skip
        return factor, corrections

    def _correction(self, beta: float) -> float:
        return 1 - beta ** (self.steps + 1)

    def _next_rate(self) -> float:
        """Count the step, the last of its numbers; return its rate."""
        self.steps += 1
        return self.rate_of(self.steps - 1)

    def _slot(self, name: str, path: str, value: Array, backend: Backend) -> Array:
        """Return the slot of a parameter, which follows its device and its dtype.

        At first it is zeros, but slow weights are the parameter's.
        """
        slot, dtype = self.slots[name].get(path), accumulator(value.dtype)
        if slot is None:
            slot = value.astype(dtype) if name == SLOW else backend.xp.zeros(value.shape, dtype)
        elif not backend.owns(slot) or slot.dtype != dtype:
            slot = backend.asarray(slot, dtype)
        if slot.shape != value.shape:
            raise ValueError(
                f"{type(self).__name__}: the {name} of {path!r} must be of shape {value.shape}."
                f" Received: {slot.shape}"
            )
        self.slots[name][path] = slot
        return slot

    def _master(self, parameter: Parameter, backend: Backend) -> Array | None:
        """Return the master of a parameter of 16 bits; zeros at first, which count for nothing."""
        path, value = parameter.path, parameter.value
        if accumulator(value.dtype) == value.dtype:
            self.slots[MASTER].pop(path, None)
            return None
        return self._slot(MASTER, path, value, backend)

    def state_dict(self) -> dict[str, Any]:
        """Return {"steps": n, "skipped": n, "slots": {name: {path: array}}}."""
        slots = {name: dict(slots) for name, slots in self.slots.items()}
        return {"steps": self.steps, "skipped": self.skipped, "slots": slots}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned; the arrays are copied.

        Without masters or a count of skipped steps it is one of before there were any; slow weights
        that it lacks begin at the parameters.

        Raises:
            ValueError: the state is of another kind of optimizer, or none.
        """
        if not {"steps", "slots"} <= state.keys():
            raise ValueError(
                f'{type(self).__name__}: the state must have "steps" and "slots".'
                f" Received: {tuple(state)}"
            )
        own = set(state["slots"]) - {MASTER, SLOW}
        if own != set(self.slot_names):
            raise ValueError(
                f"{type(self).__name__}: the state must have the slots {self.slot_names}."
                f" Received: {tuple(name for name in state['slots'] if name in own)}"
            )
        self.steps = int(state["steps"])
        skipped = state.get("skipped", 0)
        self._skipped = DeviceNumbers(skipped) if skipped else None
        self.slots = {
            name: {path: array.copy() for path, array in state["slots"].get(name, {}).items()}
            for name in self.slots
        }
