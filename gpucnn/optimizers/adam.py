"""Adam and AdamW."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from ..configured import check_range
from ..schedules import Schedule
from .base import Optimizer


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

    @property
    def _betas(self) -> tuple[float, ...]:
        return self.beta_1, self.beta_2

    def _update(self, backend, tensors, rate, corrections, **common) -> None:
        correction_1, correction_2 = corrections
        backend.adam_update(
            *tensors, learning_rate=rate, beta_1=self.beta_1, beta_2=self.beta_2,
            epsilon=self.epsilon, correction_1=correction_1, correction_2=correction_2,
            decoupled=self.decoupled, **common,
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
