"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from ..configured import check_range
from .base import Optimizer


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

    def _update(self, backend, tensors, rate, corrections, **common) -> None:
        backend.sgd_update(
            *tensors, learning_rate=rate, momentum=self.momentum, nesterov=self.nesterov, **common
        )
