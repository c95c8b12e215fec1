"""Loss scaling: gradients of float16 that would vanish are multiplied on their way back."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from numbers import Real
from typing import Any, ClassVar

from ..arguments import as_int
from ..backends.base import Array, Backend
from ..configured import Configured, check_range
from .numbers import DeviceNumbers


@dataclass
class LossScale(Configured):
    """What the loss is multiplied by before ``backward``, and the gradients divided by after it.

    float16 has no numbers between 0 and 6e-8, where many gradients of a mean loss lie. Where a
    scaled gradient overflows, the optimizer skips the step whole, and the scale is halved; after
    ``growth_interval`` good steps in a row it is doubled (Micikevicius et al., "Mixed precision
    training", ICLR 2018). After 64 skipped steps in a row the next is made, and the loss shows what
    is wrong. The device decides: nothing waits for it.

    Args:
        initial: the scale of the first step; a power of two changes no digit of a gradient.
        growth_interval: None keeps the scale as it is; steps that overflow are skipped all the
            same.

    Example:
        >>> import numpy as np
        >>> from gpucnn.losses import CrossEntropy
        >>> labels, logits = np.array([3, 7]), np.zeros((2, 10), np.float16)
        >>> _, dlogits = CrossEntropy()(logits, labels, LossScale(1024))
        >>> float(dlogits[0, 3])
        -460.75

        >>> scale = LossScale()                                                  # doctest: +SKIP
        >>> value, dy = loss(model.forward(x, training=True), labels, scale)     # doctest: +SKIP
        >>> model.backward(dy)                                                   # doctest: +SKIP
        >>> optimizer.step(model.parameters(), scale)                            # doctest: +SKIP
    """

    alias: ClassVar[str] = "loss_scale"

    initial: float = 2.0**16
    _: KW_ONLY
    growth_interval: int | None = 2000
    _state: DeviceNumbers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_range(self, "initial", above=0)
        if self.growth_interval is not None:
            as_int("LossScale", "growth_interval", self.growth_interval)
        self._state = DeviceNumbers(self.initial, 0)

    @classmethod
    def of(cls, value: LossScale | float | None) -> LossScale | None:
        """Return ``value``, or the scale that stays at a number.

        Raises:
            ValueError: the number is not above 0.
            TypeError: it is something else.
        """
        if value is None or isinstance(value, cls):
            return value
        if isinstance(value, Real):
            return cls(value, growth_interval=None)
        raise TypeError(
            f'loss_scale must be a LossScale, a number, "auto" or None. Received: {value!r}'
        )

    @property
    def scale(self) -> float:
        """The scale of the next step; waits for the device."""
        return self._state.read()[0]

    def on(self, backend: Backend) -> Array:
        """Return [scale, streak] on the backend, as its ``gradient_scale`` takes and changes it."""
        return self._state.on(backend)

    def state_dict(self) -> dict[str, Any]:
        scale, streak = self._state.read()
        return {"scale": scale, "streak": int(streak)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self._state.write(state["scale"], state["streak"])
