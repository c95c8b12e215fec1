"""Optimizers: one call for all tensors of a network, in place on the device.

    >>> optimizer = SGD(0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, clip_norm=1.0)
    >>> optimizer.step(model.parameters())                                       # doctest: +SKIP

The learning rate is a number or a ``Schedule`` of the step. Velocities and moments are float32
(float64 for float64 parameters), whatever the parameters are. Weight decay leaves out parameters
of one axis, the biases and the scales and shifts of normalisation, which gain nothing from it (Jia
et al., "Highly Scalable Deep Learning Training System with Mixed-Precision", 2018), unless
``decay_all`` is set. ``clip_norm`` bounds the norm of all gradients taken together (Pascanu et al.,
"On the difficulty of training recurrent neural networks", 2013) with no wait for the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from fnmatch import fnmatchcase
from itertools import compress
from typing import Any, ClassVar

from .arguments import as_number
from .backends import backend_of
from .backends.base import Array, Backend, accumulator
from .configured import Configured, check_range
from .network import Parameter
from .schedules import Schedule


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

    Attributes:
        steps: how many were made; the schedule is asked for this one next.
        slots: arrays like the parameters, by the slot's name and the parameter's path.
    """

    slot_names: ClassVar[tuple[str, ...]] = ()

    learning_rate: float | Schedule = 0.01
    _: KW_ONLY
    weight_decay: float = 0.0
    clip_norm: float | None = None
    decay_all: bool = False
    rate_factors: Mapping[str, float] | Sequence[tuple[str, float]] = ()
    steps: int = field(default=0, init=False)
    slots: dict[str, dict[str, Array]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.learning_rate, Schedule):
            check_range(self, "learning_rate", least=0)
        check_range(self, "weight_decay", least=0)
        if self.clip_norm is not None:
            check_range(self, "clip_norm", above=0)
        factors = self.rate_factors
        pairs = factors.items() if isinstance(factors, Mapping) else factors
        # pairs, for a dictionary in a configuration stands for an object
        self.rate_factors = tuple(
            (pattern, as_number(type(self).__name__, "each of rate_factors", factor, above=0))
            for pattern, factor in pairs
        )
        self.slots = {name: {} for name in self.slot_names}

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.rate_of(self.steps)

    def rate_of(self, step: int) -> float:
        """Return the learning rate of ``step``, which counts from 0."""
        rate = self.learning_rate
        return rate(step) if isinstance(rate, Schedule) else float(rate)

    def step(self, parameters: Iterable[Parameter]) -> None:
        """Change the parameters by their gradients; the gradients stay as they are.

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
        decays = [self.weight_decay if v.ndim > 1 or self.decay_all else 0.0 for v in values]
        scale = None
        if self.clip_norm is not None:
            norm = backend.global_norm(gradients)
            # min(1, clip / norm), and 1 for a norm of 0
            scale = backend.xp.asarray(self.clip_norm / backend.xp.maximum(norm, self.clip_norm))
        factors = [self._factor(parameter.path) for parameter in parameters]
        for factor in dict.fromkeys(factors):
            those = [own == factor for own in factors]
            own = [list(compress(arrays, those)) for arrays in (values, gradients, decays, *slots)]
            decays_own = [decay / factor for decay in own[2]]
            rate = self.rate * factor
            self._update(backend, own[0], own[1], own[3:], decays_own, rate, scale)
        self.steps += 1

    def _factor(self, path: str) -> float:
        return next((own for pattern, own in self.rate_factors if fnmatchcase(path, pattern)), 1.0)

    def _update(
        self, backend: Backend, values: list[Array], gradients: list[Array],
        slots: list[list[Array]], decays: list[float], rate: float, scale: Array | None,
    ) -> None:  # fmt: skip
        raise NotImplementedError

    def _slot(self, name: str, path: str, value: Array, backend: Backend) -> Array:
        """Return the slot of a parameter, zeros at first; it follows its device and its dtype."""
        slot, dtype = self.slots[name].get(path), accumulator(value.dtype)
        if slot is None:
            slot = backend.xp.zeros(value.shape, dtype)
        elif not backend.owns(slot) or slot.dtype != dtype:
            slot = backend.asarray(slot, dtype)
        if slot.shape != value.shape:
            raise ValueError(
                f"{type(self).__name__}: the {name} of {path!r} must be of shape {value.shape}."
                f" Received: {slot.shape}"
            )
        self.slots[name][path] = slot
        return slot

    def state_dict(self) -> dict[str, Any]:
        """Return the step count and the slots: {"steps": n, "slots": {name: {path: array}}}."""
        return {"steps": self.steps, "slots": {name: dict(s) for name, s in self.slots.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned; the arrays are copied.

        Raises:
            ValueError: the state is of another kind of optimizer.
        """
        if set(state["slots"]) != set(self.slot_names):
            raise ValueError(
                f"{type(self).__name__}: the state must have the slots {self.slot_names}."
                f" Received: {tuple(state['slots'])}"
            )
        self.steps = int(state["steps"])
        self.slots = {
            name: {path: array.copy() for path, array in slots.items()}
            for name, slots in state["slots"].items()
        }


@dataclass
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, plain or Nesterov's (``nesterov=True``).

    v = momentum * v - learning_rate * g; p += v, or with Nesterov p += momentum * v -
    learning_rate * g (Sutskever et al., "On the importance of initialization and momentum in deep
    learning", 2013). Weight decay is L2: g = gradient + weight_decay * p. The other arguments are
    those of every ``Optimizer``.

    Example:
        >>> SGD(0.1, momentum=0.9, nesterov=True, clip_norm=1.0).rate
        0.1
    """

    alias: ClassVar[str] = "sgd"
    slot_names: ClassVar[tuple[str, ...]] = ("velocity",)

    _: KW_ONLY
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "momentum", least=0, below=1)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov needs momentum. Received: momentum=0.0, nesterov=True")

    def _update(self, backend, values, gradients, slots, decays, rate, scale) -> None:
        backend.sgd_update(
            values, gradients, slots[0], decays, learning_rate=rate, momentum=self.momentum,
            nesterov=self.nesterov, grad_scale=scale,
        )  # fmt: skip


@dataclass
class Adam(Optimizer):
    """Adam (Kingma & Ba, "Adam: a method for stochastic optimization", 2015).

    m = beta_1 m + (1 - beta_1) g; v = beta_2 v + (1 - beta_2) g^2;
    p -= learning_rate * (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon).
    Weight decay is L2: g = gradient + weight_decay * p. The other arguments are those of every
    ``Optimizer``.
    """

    alias: ClassVar[str] = "adam"
    slot_names: ClassVar[tuple[str, ...]] = ("m", "v")
    decoupled: ClassVar[bool] = False

    learning_rate: float | Schedule = 0.001
    _: KW_ONLY
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "beta_1", least=0, below=1)
        check_range(self, "beta_2", least=0, below=1)
        check_range(self, "epsilon", above=0)

    def _update(self, backend, values, gradients, slots, decays, rate, scale) -> None:
        backend.adam_update(
            values, gradients, *slots, decays, learning_rate=rate, beta_1=self.beta_1,
            beta_2=self.beta_2, epsilon=self.epsilon, step=self.steps + 1,
            decoupled=self.decoupled, grad_scale=scale,
        )  # fmt: skip


@dataclass
class AdamW(Adam):
    """Adam with the weight decay apart: p -= learning_rate * weight_decay * p first.

    Loshchilov & Hutter, "Decoupled weight decay regularization", 2019. The other arguments are
    those of ``Adam``.
    """

    alias: ClassVar[str] = "adamw"
    decoupled: ClassVar[bool] = True

    weight_decay: float = 0.004
